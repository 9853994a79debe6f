"""Two frames at once: a transport that hands them over in threads, as NVFlare may, and a server that sends two.
Frames that change while they are read: whoever owns the buffer is another thread.

What a client may say depends on all that it has said. So it does one thing at a time, and its journal takes one answer
for each row of the table, whoever asks.
"""

from __future__ import annotations

from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from threading import Barrier, BrokenBarrierError, Event, Thread
from typing import Any

import pytest

from protocols import client as client_module
from protocols.engines.sums import PackedSum
from protocols.journal import SqliteJournal
from protocols.pairwise.server import PairwiseServer
from protocols.rounds import server as server_module
from protocols.rounds.client import ClientRound
from protocols.rounds.phases import Phase
from protocols.rounds.server import ServerRound
from protocols.wire import Messages
from secagg.crypto import labels
from secagg.crypto.keys import digest
from secagg.crypto.ring import Ring
from secagg.errors import PeerError, PolicyError, SecAggError, StorageError
from tests.controls import journal_by_count, switch_off
from tests.scenes.pairwise import BOTH, Evil, small
from tests.scenes.pairwise_round import Round

VICTIM = 3
IN_VAIN, LONG_ENOUGH = 0.1, 20.0
"""Seconds for which a thread waits for the other: where calls wait for one another, and where they do not."""


def meet_inside(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, patience: float) -> None:
    """Whoever is done with ``owner.name`` waits until a second one is, too: it has read what the first will change."""
    real, gate = getattr(owner, name), Barrier(2)

    def met(*arguments: Any) -> Any:
        result = real(*arguments)
        with suppress(BrokenBarrierError):
            gate.wait(patience)
        return result

    monkeypatch.setattr(owner, name, met)


def at_once(*calls: Any) -> list[Any]:
    """What the calls return or raise, each from a thread of its own."""
    results = [None] * len(calls)

    def call(i: int) -> None:
        try:
            results[i] = calls[i]()
        except SecAggError as error:
            results[i] = error

    threads = [Thread(target=call, args=(i,)) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def two_sets_at_once(evil: Evil, who: int) -> list[Any]:
    """Two sets of survivors, handed to one client by two threads."""
    sets = [evil.members, [u for u in evil.members if u != VICTIM]]
    frames = [evil.frame(evil.survivors(who, alive)) for alive in sets]
    return at_once(*[lambda frame=frame: evil.clients[who].receive(frame) for frame in frames])


def uploaded(protocol: str, **options: Any) -> Evil:
    evil = small(protocol, **options)
    evil.advertise()
    evil.share()
    evil.upload()
    return evil


@BOTH
def test_two_sets_of_survivors_at_once(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With both it would sign two sets, and then reveal for two: in a round of 64 that was one client's vector."""
    who = 5

    def answers(patience: float) -> list[Any]:
        with pytest.MonkeyPatch.context() as inside:
            evil = uploaded(protocol)
            meet_inside(inside, ClientRound, "hear", patience)
            return sorted(two_sets_at_once(evil, who), key=lambda answer: isinstance(answer, bytes))

    refused, signed = answers(IN_VAIN)
    assert isinstance(refused, PeerError)
    assert "does not belong in phase" in str(refused)
    assert isinstance(signed, bytes)

    monkeypatch.setattr(client_module, "Lock", nullcontext)
    refused, signed = answers(LONG_ENOUGH)  # the journal takes one answer of all that know the same
    assert isinstance(refused, PolicyError)
    assert isinstance(signed, bytes)

    journal_by_count(monkeypatch)
    assert all(isinstance(answer, bytes) for answer in answers(LONG_ENOUGH))


@BOTH
def test_a_journal_file_and_two_threads(protocol: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One answer, and the client goes on: a second frame does not latch it."""
    who = 5
    evil = uploaded(protocol, journals=lambda name: SqliteJournal(tmp_path / f"{name}.db"))
    try:
        with pytest.MonkeyPatch.context() as inside:
            meet_inside(inside, ClientRound, "hear", IN_VAIN)
            answers = two_sets_at_once(evil, who)
        signed = [answer for answer in answers if isinstance(answer, bytes)]
        assert len(signed) == 1
        alive = evil.members if isinstance(answers[0], bytes) else [u for u in evil.members if u != VICTIM]
        signatures = {u: evil.sign(u, alive) for u in evil.members if u != VICTIM}
        evil.tell(who, evil.consents(who, signatures))
        assert evil.clients[who].done
    finally:
        for client in evil.clients.values():
            client._journal.close()  # type: ignore[attr-defined]


@BOTH
def test_one_upload_handed_over_twice_at_once(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be in the sum twice."""

    def total(patience: float) -> tuple[list[int], list[int]]:
        round_ = Round(protocol)
        upload = round_.until(Phase.UPLOAD)
        with pytest.MonkeyPatch.context() as inside:
            meet_inside(inside, PackedSum, "take", patience)
            at_once(*[lambda: round_.hand_in(round_.liar, upload)] * 2)
        return round_.finish(), round_.evil.plain(round_.evil.members)

    found, expected = total(IN_VAIN)
    assert found == expected
    monkeypatch.setattr(server_module, "Lock", nullcontext)
    found, expected = total(LONG_ENOUGH)
    assert found != expected


@BOTH
def test_whose_upload_comes_twice_at_once_is_no_liar(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are hashed before one of them is accepted. The other is a repetition, and no second vector."""

    def twice() -> tuple[list[Any], tuple[str, ...]]:
        round_ = Round(protocol)
        upload = round_.until(Phase.UPLOAD)
        with pytest.MonkeyPatch.context() as inside:
            meet_inside(inside, PairwiseServer, "_hash_of", LONG_ENOUGH)
            results = at_once(*[lambda: round_.hand_in(round_.liar, upload)] * 2)
        return results, round_.server.liars

    assert twice() == ([None, None], ())
    switch_off(monkeypatch, ServerRound, "_take", "self._heard.get(number) == fingerprint")
    results, liars = twice()
    assert ["a second, different message" in str(one) for one in results if one is not None] == [True]
    assert len(liars) == 1


@BOTH
def test_two_uploads_are_hashed_at_once(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither waits for the other where nothing depends on the state: this test hangs for a minute if it does."""
    round_, met = Round(protocol), Barrier(2)
    while round_.server.phase is not Phase.UPLOAD:
        round_.speak()
        round_.close()
    one, two, *others = round_.replies.items()
    with monkeypatch.context() as inside:
        inside.setattr(PairwiseServer, "_hash_of", lambda self, upload: (met.wait(60), digest_of(upload))[1])
        assert at_once(*[lambda said=said: round_.hand_in(*said) for said in (one, two)]) == [None, None]
    for said in others:
        round_.hand_in(*said)
    assert round_.finish() == round_.evil.plain(round_.evil.members)


def digest_of(upload: Any) -> bytes:
    return digest(labels.VECTOR, upload.vector)


@BOTH
def test_an_upload_is_accepted_while_another_is_added(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    round_, real = Round(protocol), Ring.add_packed
    upload = round_.until(Phase.UPLOAD)
    inside, go_on = Event(), Event()

    def slow(*arguments: Any) -> None:
        inside.set()
        assert go_on.wait(60)
        real(*arguments)

    monkeypatch.setattr(Ring, "add_packed", slow)
    adding = Thread(target=lambda: round_.hand_in(round_.liar, upload))
    adding.start()
    assert inside.wait(60)
    assert round_.server.waiting_for == ()
    ended = Thread(target=lambda: round_.server.close(Phase.UPLOAD))
    ended.start()  # the phase ends before it is added
    ended.join(60)
    assert round_.server.phase is Phase.CONSISTENCY
    go_on.set()
    adding.join()
    round_.replies = {
        name: round_.evil.messages.decode(
            round_.evil.plan, round_.evil.clients[round_.evil.roster.number(name)].receive(frame)
        )
        for name, frame in round_.server.outbox()
    }
    round_.speak()
    assert round_.finish() == round_.evil.plain(round_.evil.members)


@BOTH
def test_a_phase_that_ends_while_an_upload_is_hashed(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes late, which is nobody's lie, and is not in the sum. Without the check it would be, in nobody's set."""

    def ends(round_: Round) -> None:
        upload = round_.until(Phase.UPLOAD)

        def hash_of(server: Any, upload: Any) -> bytes:
            server.close(Phase.UPLOAD)
            return digest_of(upload)

        with pytest.MonkeyPatch.context() as inside:
            inside.setattr(PairwiseServer, "_hash_of", hash_of)
            round_.hand_in(round_.liar, upload)

    round_ = Round(protocol)
    with pytest.raises(PeerError, match="Upload does not belong in phase consistency") as late:
        ends(round_)
    assert late.value.culprits == round_.server.liars == ()
    assert len(round_.server._headers) == len(round_.evil.members) - 1
    switch_off(monkeypatch, ServerRound, "_check", "phase is not self.phase")
    switch_off(monkeypatch, ServerRound, "_check", "number not in self._expected")  # two layers
    round_ = Round(protocol)
    ends(round_)
    assert len(round_.server._headers) == len(round_.evil.members)


@BOTH
def test_a_frame_that_changes_after_it_was_hashed(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The transport's buffer is used again, or somebody else writes to it: what is added is what was signed."""

    def total() -> tuple[list[int], list[int]]:
        round_, real = Round(protocol), PairwiseServer._hash_of
        frame = bytearray(round_.evil.frame(round_.until(Phase.UPLOAD)))

        def hash_of(server: Any, upload: Any) -> bytes:
            hashed = real(server, upload)
            frame[-4] ^= 1
            return hashed

        with pytest.MonkeyPatch.context() as inside:
            inside.setattr(PairwiseServer, "_hash_of", hash_of)
            round_.server.receive(round_.liar, frame)
        return round_.finish(), round_.evil.plain(round_.evil.members)

    found, expected = total()
    assert found == expected

    def viewed(self: Messages, plan: Any, frame: Any) -> Any:  # the other layer: codecs view nothing but bytes
        message = decode(self, plan, frame)
        vector = getattr(message, "vector", b"")
        return replace(message, vector=memoryview(frame)[-len(vector) :]) if vector else message

    decode = Messages.decode
    monkeypatch.setattr(Messages, "decode", viewed)
    found, expected = total()
    assert found == expected
    switch_off(monkeypatch, ServerRound, "receive", "bytes(frame)", "frame")
    found, expected = total()
    assert found != expected


@BOTH
def test_a_frame_that_changes_after_it_was_heard(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a client remembers is what it has checked and signed. Else it would sign one set, and after a restart reveal
    for another."""
    who = 5

    def signed_and_remembered() -> tuple[bytes, bytes]:
        evil = uploaded(protocol)
        client, real = evil.clients[who], ClientRound.hear
        everybody, one_less = (
            evil.frame(evil.survivors(who, alive)) for alive in (evil.members, [u for u in evil.members if u != VICTIM])
        )
        buffer = bytearray(one_less)

        def hear(self: ClientRound, frame: Any) -> Any:
            step = real(self, frame)
            buffer[:] = everybody
            return step

        with pytest.MonkeyPatch.context() as inside:
            inside.setattr(ClientRound, "hear", hear)
            client.receive(buffer)
        again = client_module.Client(client.identity, evil.roster, policy=client.policy, journal=client._journal)
        again.start(evil.plan, None)
        assert client._round is not None
        assert again._round is not None
        return client._round._agreed.digest, again._round._agreed.digest

    signed, remembered = signed_and_remembered()
    assert signed == remembered
    switch_off(monkeypatch, client_module.Client, "receive", "bytes(frame)", "frame")
    signed, remembered = signed_and_remembered()
    assert signed != remembered


@BOTH
def test_nobody_reveals_anything_for_a_sum_that_is_lost(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transport may log what goes wrong with one upload, and go on."""

    def ends_in() -> Phase:
        round_, closed = Round(protocol), list[Phase]()

        def rest() -> None:
            while True:
                closed.append(round_.server.phase)
                round_.close()
                round_.speak()

        upload = round_.until(Phase.UPLOAD)
        with pytest.MonkeyPatch.context() as inside:
            inside.setattr(Ring, "add_packed", out_of_memory)
            with pytest.raises(MemoryError):
                round_.hand_in(round_.liar, upload)
        with pytest.raises(StorageError, match="the sum is lost"):
            rest()
        assert round_.server.failed
        assert list(round_.server.outbox()) == []
        return closed[-1]

    assert ends_in() is Phase.UPLOAD
    switch_off(monkeypatch, PairwiseServer, "_announce_survivors", "self._sum.check()", "None")
    assert ends_in() is Phase.REVEAL


def out_of_memory(*_: object) -> None:
    raise MemoryError
