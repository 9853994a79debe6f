"""Lying clients against the honest server: each bad message is refused by name, changes nothing, and the others' round
goes on to the exact sum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from protocols.pairwise import server as server_module
from protocols.pairwise.messages import Revealed, Upload
from protocols.pairwise.server import PairwiseServer
from protocols.rounds import admission as admission_module
from protocols.rounds import dealing as dealing_module
from protocols.rounds import exchange as exchange_module
from protocols.rounds.dealing import Complaints, Defence, Delivered, Opened, complaint
from protocols.rounds.exchange import Exchange
from protocols.rounds.phases import Phase
from protocols.rounds.server import ServerRound
from protocols.rounds.sets import to_bitmap
from secagg.codec import u32
from secagg.crypto import labels
from secagg.crypto.keys import digest
from secagg.crypto.ring import Ring
from secagg.crypto.shamir import PRIME, pack_shares, unpack_shares
from secagg.errors import DecodeError, PeerError, ThresholdError, UsageError
from tests.controls import switch_off
from tests.scenes.pairwise import BOTH, LENGTH, members_of, share_of_another
from tests.scenes.pairwise_round import LIAR, NOT_ASKED, Round, beyond

pytestmark = pytest.mark.thinned(4)

PHASES = list(PairwiseServer.steps)


@dataclass(frozen=True)
class Lie:
    phase: Phase
    told: Callable[[Round, Any], Any]
    """What the liar says instead of its honest message."""
    reason: str
    switch: Callable[[pytest.MonkeyPatch], None]
    """Takes the one check away."""
    culprits: int = 1


def off(owner: Any, name: str, condition: str, instead: str = "False") -> Callable[[pytest.MonkeyPatch], None]:
    return lambda monkeypatch: switch_off(monkeypatch, owner, name, condition, instead)


def gone(owner: Any, name: str, result: Any = None) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda monkeypatch: monkeypatch.setattr(owner, name, lambda *_, **__: result)


def advert(round_: Round, message: Any, **changes: Any) -> Any:
    """Signed anew, as a liar can."""
    keys = replace(message, **changes)
    signed = (round_.evil.plan.digest(), u32.encode(keys.client), keys.mask_key, keys.seal_key, keys.commitment)
    return replace(keys, signature=round_.machine.identity.key.sign(labels.ADVERT, *signed))


def upload(round_: Round, vector: bytes, listed: frozenset[int]) -> Upload:
    machine = round_.machine
    holders, vector_hash = to_bitmap(listed, machine._holders), digest(labels.VECTOR, vector)
    signed = (*machine._cohort.bound(machine._u), holders, vector_hash)
    signature = machine.identity.key.sign(labels.UPLOAD, *signed)
    return Upload(server_module.UploadHeader(machine._u, holders, vector_hash, signature), vector)


def mine(round_: Round, message: Upload) -> frozenset[int]:
    return members_of(message.header.holders, round_.machine._holders)


def fewer(round_: Round, message: Upload) -> Upload:
    """A list of one neighbour less than t, who are the silent: nobody contradicts it."""
    return upload(round_, message.vector, frozenset(sorted(mine(round_, message))[: round_.evil.t - 1]))


def another_list(round_: Round, message: Upload) -> Upload:
    listed = mine(round_, message)
    return upload(round_, message.vector, listed - {next(v for v in sorted(listed) if v != LIAR)})


def first_share(message: Any, share: bytes) -> Any:
    return replace(message, self_shares=(replace(message.self_shares[0], share=share), *message.self_shares[1:]))


def off_by_one(v: int, share: bytes) -> bytes:
    return pack_shares((unpack_shares(share, 1) + 1) % PRIME)


NOT_FOR_HOLDERS = off(Exchange, "take", "len(dealt.boxes) != len(others)")
NOT_AS_ASKED = off(PairwiseServer, "_take_reveal", NOT_ASKED)


def box_for(round_: Round) -> Delivered:
    """One that the liar was given."""
    dealer = next(u for u in round_.server._holders[LIAR] if u != LIAR)
    box: Delivered = round_.server._exchange.delivered(dealer, LIAR)
    return box


def complaints(round_: Round, *boxes: Delivered) -> Complaints:
    machine = round_.machine
    return Complaints(tuple(complaint(machine.identity.key, machine._cohort, LIAR, box) for box in boxes))


def unsigned(said: Complaints) -> Complaints:
    return Complaints(tuple(replace(one, signature=bytes(64)) for one in said.complaints))


def all_listed(cohort: Any, _roster: Any, number: int, _t: int, _header: Any) -> frozenset[int]:
    return frozenset(cohort.holders(number))


def blank(ring: Ring, _data: bytes, length: int) -> Any:
    return np.zeros(ring.packed_size(length), np.uint8)


NOT_THE_ONE = "commitment(self._context, dealer, holder, self._kept[dealer], share) != kept[dealer]"

LIES: dict[str, Lie] = {
    "an advert in another's name": Lie(
        Phase.ADVERTISE,
        lambda r, m: advert(r, m, client=LIAR + 1),
        "an advert in somebody else's name",
        lambda monkeypatch: (
            switch_off(monkeypatch, PairwiseServer, "_admit", "advert.client != number"),
            monkeypatch.setattr(server_module, "check_advert", lambda *_: None),  # two layers
        )[0],
    ),
    "an advert not signed": Lie(
        Phase.ADVERTISE,
        lambda r, m: replace(m, commitment=bytes(32)),
        "bad signature",
        gone(server_module, "check_advert"),
    ),
    "a key of low order": Lie(
        Phase.ADVERTISE,
        lambda r, m: advert(r, m, mask_key=bytes(32)),
        "unusable X25519 public key",
        gone(server_module, "check_advert"),
    ),
    "a box too few": Lie(
        Phase.SHARE,
        lambda r, m: replace(m, boxes=m.boxes[1:]),
        "shares for others than the holders",
        NOT_FOR_HOLDERS,
    ),
    "a box too many": Lie(
        Phase.SHARE,
        lambda r, m: replace(m, boxes=(m.boxes[0], *m.boxes)),
        "shares for others than the holders",
        NOT_FOR_HOLDERS,
    ),
    "a proof of too low a degree": Lie(
        Phase.SHARE,
        lambda r, m: replace(m, proof=m.proof[:-16]),
        r"a proof of \d+ bytes, not of \d coefficients",
        lambda monkeypatch: monkeypatch.setattr(
            exchange_module,
            "responses",
            lambda proof, t, holders, among: np.zeros((len(holders), 4), np.uint32),
        ),
    ),
    "a complaint that is not signed": Lie(
        Phase.COMPLAIN,
        lambda r, m: unsigned(complaints(r, box_for(r))),
        "bad signature",
        gone(dealing_module, "verify"),
    ),
    "a complaint about a box that was not dealt": Lie(
        Phase.COMPLAIN,
        lambda r, m: complaints(r, replace(box_for(r), response=bytes(16))),
        "a complaint about another box than was dealt",
        off(exchange_module, "check_complaint", "said.box != box_hash(context, holder, delivered)"),
    ),
    "a complaint about a client that is not there": Lie(
        Phase.COMPLAIN,
        lambda r, m: complaints(r, replace(box_for(r), peer=10**6)),
        "complaints about boxes that were not delivered",
        off(Exchange, "complain", "not dealers - {holder} >= set(about)"),
    ),
    "two complaints about one": Lie(
        Phase.COMPLAIN,
        lambda r, m: complaints(r, box_for(r), box_for(r)),
        "complaints about boxes that were not delivered",
        off(Exchange, "complain", "not ascending(about)"),
    ),
    "a key that opens no box": Lie(
        Phase.DEFEND,
        lambda r, m: Defence(tuple(Opened(one.peer, bytes(32)) for one in m.opened)),
        "a key that opens no good box",
        off(Exchange, "defend", "not opened(self._context, one.peer, [box], self._secrets, keys.__getitem__)"),
    ),
    "a box opened of somebody who does not complain": Lie(
        Phase.DEFEND,
        lambda r, m: Defence((*m.opened, Opened(10**6, m.opened[0].key))),
        "boxes opened of others than of those who complain",
        lambda monkeypatch: (
            switch_off(monkeypatch, Exchange, "defend", "holders != sorted(self._complaints[dealer])"),
            monkeypatch.setattr(exchange_module, "opened", lambda *_: True),
            monkeypatch.setattr(Exchange, "delivered", lambda *_: None),  # three layers
        )[0],
    ),
    "nothing opened": Lie(
        Phase.DEFEND,
        lambda r, m: Defence(()),
        "boxes opened of others than of those who complain",
        off(Exchange, "defend", "holders != sorted(self._complaints[dealer])"),
    ),
    "another's place": Lie(
        Phase.UPLOAD,
        lambda r, m: replace(m, header=replace(m.header, position=LIAR + 1)),
        "an upload in somebody else's place",
        lambda monkeypatch: (
            switch_off(monkeypatch, PairwiseServer, "_add", "upload.header.position != u"),
            monkeypatch.setattr(server_module, "check_header", all_listed),
        )[0],
    ),
    "a list not signed": Lie(
        Phase.UPLOAD,
        lambda r, m: replace(m, header=replace(m.header, signature=bytes(64))),
        "bad signature",
        lambda monkeypatch: monkeypatch.setattr(server_module, "check_header", all_listed),
    ),
    "another vector than signed": Lie(
        Phase.UPLOAD,
        lambda r, m: replace(m, vector=bytes([m.vector[0] ^ 1]) + m.vector[1:]),
        "a vector that is not the signed one",
        off(PairwiseServer, "_add", "vector_hash != upload.header.vector_hash"),
    ),
    "masked with too few": Lie(
        Phase.UPLOAD,
        fewer,
        r"masked with \d neighbours, at least \d are needed",
        lambda monkeypatch: (
            switch_off(monkeypatch, server_module, "check_header", "len(listed) < t"),
            switch_off(
                monkeypatch,
                PairwiseServer,
                "_add",
                "listed != self._dealers_to(u)",
            ),
        )[0],
    ),
    "a list of others than were sent": Lie(
        Phase.UPLOAD,
        another_list,
        "masked with others than those whose shares it was to keep",
        off(PairwiseServer, "_add", "listed != self._dealers_to(u)"),
    ),
    "a vector too short": Lie(
        Phase.UPLOAD,
        lambda r, m: upload(r, m.vector[:-1], mine(r, m)),
        "bytes are not 7 values",
        lambda monkeypatch: monkeypatch.setattr(Ring, "check_packed", blank),
    ),
    "a vector with stray bits": Lie(
        Phase.UPLOAD,
        lambda r, m: upload(r, bytes(m.vector[:-1]) + bytes([m.vector[-1] | 0x80]), mine(r, m)),
        "unused bits of a packed vector are not zero",
        lambda monkeypatch: monkeypatch.setattr(Ring, "check_packed", blank),
    ),
    "a consent not signed": Lie(
        Phase.CONSISTENCY,
        lambda r, m: replace(m, signature=bytes(64)),
        "bad signature",
        gone(admission_module, "check_consistency"),
    ),
    "a consent to another set": Lie(
        Phase.CONSISTENCY,
        lambda r, m: replace(
            m,
            signature=r.machine.identity.key.sign(
                labels.SURVIVORS, r.machine._cohort.agreed(to_bitmap({LIAR}, range(r.evil.plan.clients))).digest
            ),
        ),
        "bad signature",
        gone(admission_module, "check_consistency"),
    ),
    "a share twice": Lie(
        Phase.REVEAL,
        lambda r, m: replace(m, self_shares=(m.self_shares[0], *m.self_shares)),
        "shares of others than asked for",
        NOT_AS_ASKED,
    ),
    "the other kind of share": Lie(
        Phase.REVEAL,
        lambda r, m: replace(m, key_shares=(m.self_shares[0],)),
        "shares of others than asked for",
        NOT_AS_ASKED,
    ),
    "a share of a stranger": Lie(
        Phase.REVEAL,
        lambda r, m: replace(m, self_shares=(*m.self_shares, Revealed(10**6, m.self_shares[0].share))),
        "shares of others than asked for",
        NOT_AS_ASKED,
    ),
    "a share that is not reduced": Lie(
        Phase.REVEAL,
        lambda r, m: first_share(m, beyond(m.self_shares[0].share)),
        "a share is not reduced",
        lambda monkeypatch: (
            monkeypatch.setattr(exchange_module, "unpack_shares", lambda *_: None),
            switch_off(monkeypatch, Exchange, "check_shares", NOT_THE_ONE),
        )[0],
    ),
    "a share that was not dealt": Lie(
        Phase.REVEAL,
        lambda r, m: first_share(m, off_by_one(0, m.self_shares[0].share)),
        "a share that is not the one that was dealt",
        off(Exchange, "check_shares", NOT_THE_ONE),
    ),
    "a message of another phase": Lie(
        Phase.UPLOAD,
        lambda r, m: r.evil.frame(advert(r, r.evil.adverts.get(LIAR) or r.machine.opening())),
        "Advert does not belong in phase upload",
        off(ServerRound, "_take", "not isinstance(message, step.hears)"),
        culprits=0,  # it may be one that comes late, from somebody honest
    ),
    "no message": Lie(
        Phase.CONSISTENCY,
        lambda r, m: b"nonsense",
        "truncated",
        lambda monkeypatch: None,
    ),
}


def in_turn(first: int, lies: list[str]) -> pytest.MarkDecorator:
    """By default every other lie under one protocol and the rest under the other, beginning with the protocol of this
    number; in the long version all of them under both."""
    return pytest.mark.parametrize(
        ("protocol", "what"),
        [
            (protocol, what)
            if (lie + number + first) % 2 == 0
            else pytest.param(protocol, what, marks=pytest.mark.long)
            for lie, what in enumerate(lies)
            for number, protocol in enumerate(("secagg", "secagg+"))
        ],
    )


@pytest.mark.thinned(4)
@in_turn(0, list(LIES))
def test_a_lie_is_refused_and_changes_nothing(protocol: str, what: str) -> None:
    """The culprit is named; it may still say the right thing; the sum is exact.

    Here and in the next test a lie is told under different protocols by default, and refused under both.
    """
    lie, round_ = LIES[what], Round(protocol)
    honest = round_.until(lie.phase)
    with pytest.raises((PeerError, DecodeError), match=lie.reason) as refused:
        round_.hand_in(round_.liar, lie.told(round_, honest))
    assert (round_.liar in refused.value.culprits) == (lie.culprits > 0)
    assert len(refused.value.culprits) == lie.culprits
    assert round_.liar in round_.server.waiting_for
    round_.hand_in(round_.liar, honest)
    assert round_.finish() == round_.evil.plain(round_.evil.members)


@in_turn(1, list(LIES))
def test_the_others_round_goes_on(protocol: str, what: str) -> None:
    """Without the liar's vector, if it never uploaded a good one."""
    lie, round_ = LIES[what], Round(protocol)
    honest = round_.until(lie.phase)
    with pytest.raises((PeerError, DecodeError)):
        round_.hand_in(round_.liar, lie.told(round_, honest))
    uploaded = lie.phase in (Phase.CONSISTENCY, Phase.REVEAL)
    total = round_.finish()
    assert total == round_.evil.plain([u for u in round_.evil.members if u != LIAR or uploaded])


@in_turn(0, [what for what in LIES if what != "no message"])
def test_control_a_lie_is_believed(protocol: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With that one check away the lie is taken, and the round ends with a wrong sum, without one, or with an error
    that nobody declared; at best with a right one."""
    lie, round_ = LIES[what], Round(protocol)
    honest = round_.until(lie.phase)
    told = lie.told(round_, honest)
    lie.switch(monkeypatch)
    try:
        round_.hand_in(round_.liar, told)
    except (KeyError, IndexError, AttributeError, ValueError):
        return
    assert round_.liar not in round_.server.waiting_for


@BOTH
def test_a_second_different_message(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same again is nothing new; another is refused, or one vector would be added twice."""

    def two_vectors() -> list[int]:
        round_ = Round(protocol)
        honest = round_.until(Phase.UPLOAD)
        for _ in range(2):
            round_.hand_in(round_.liar, honest)
        vector = round_.evil.plan.ring.pack(round_.evil.plan.ring.zeros(LENGTH))
        try:
            round_.hand_in(round_.liar, upload(round_, vector, mine(round_, honest)))
        finally:
            assert round_.finish() == round_.evil.plain(round_.evil.members)

    with pytest.raises(PeerError, match="a second, different message"):
        two_vectors()
    switch_off(monkeypatch, ServerRound, "_check", "number in self._heard")
    two_vectors()


@BOTH
@pytest.mark.parametrize("phase", PHASES[:-1])
def test_too_late(protocol: str, phase: Phase) -> None:
    """A phase that is closed is closed; who was silent in it is out."""
    round_ = Round(protocol)
    honest = round_.until(phase)
    round_.close()
    with pytest.raises(PeerError, match="does not belong in phase"):
        round_.hand_in(round_.liar, honest)
    if round_.liar not in round_.replies:
        with pytest.raises(PeerError, match="nothing is expected of this client"):
            round_.hand_in(round_.liar, next(iter(round_.replies.values())))
    for name, message in round_.replies.items():
        round_.hand_in(name, message)
    survived = phase is Phase.CONSISTENCY
    assert round_.finish() == round_.evil.plain([u for u in round_.evil.members if u != LIAR or survived])
    with pytest.raises(UsageError, match="the round is over"):
        round_.hand_in(round_.liar, honest)


def test_nobodys_message() -> None:
    round_ = Round("secagg")
    with pytest.raises(UsageError, match="is not in the roster"):
        round_.server.receive("mallory", b"")


# Wrong shares, and too few.


def told_wrongly(protocol: str, liars: int) -> Round:
    """Everybody answers in the last phase; so many give a wrong share of the victim's self-mask, instead of theirs."""
    round_ = Round(protocol)
    round_.until(Phase.CONSISTENCY)
    round_.hand_in(round_.liar, round_.replies[round_.liar])
    round_.close()
    first = round_.server._holders[LIAR][: round_.evil.t]  # whom the server takes, if it sees nothing wrong
    holders = [v for v in first if v != LIAR][:liars]
    for name, message in round_.replies.items():
        v = round_.evil.roster.number(name)
        if v in holders:
            shares = tuple(
                replace(one, share=share_of_another(first, v, one.share)) if one.peer == LIAR else one
                for one in message.self_shares
            )
            try:
                round_.hand_in(name, replace(message, self_shares=shares))
            except PeerError as refused:
                assert refused.culprits == (name,)  # noqa: PT017  # with the check off there is none
        else:
            round_.hand_in(name, message)
    assert round_.server.liars in ((), tuple(sorted(map(round_.evil.name, holders))))
    return round_


@BOTH
def test_a_wrong_share_names_its_holder_and_costs_nothing(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the comparison with the commitment the round is lost, and the dealer blamed, who is innocent."""
    round_ = told_wrongly(protocol, 1)
    round_.server.close(Phase.REVEAL)
    assert len(round_.server.liars) == 1
    assert round_.server.outcome.total.tolist() == round_.evil.plain(round_.evil.members)

    switch_off(monkeypatch, Exchange, "check_shares", NOT_THE_ONE)
    round_ = told_wrongly(protocol, 1)
    with pytest.raises(PeerError, match="shares of another secret than the advertised one") as refused:
        round_.server.close(Phase.REVEAL)
    assert refused.value.culprits == (round_.liar,)


@BOTH
def test_so_many_wrong_shares_that_too_few_are_left(protocol: str) -> None:
    """More liars than the threshold leaves room for: there is no sum, and all of them are culprits."""
    round_ = Round(protocol)
    spare = len(round_.evil.members if protocol == "secagg" else range(8)) - round_.evil.t
    round_ = told_wrongly(protocol, spare + 1)
    with pytest.raises(ThresholdError, match="shares came to remove the mask of") as refused:
        round_.server.close(Phase.REVEAL)
    assert len(refused.value.culprits) == spare + 1
    assert refused.value.culprits == round_.server.liars
    assert (round_.server.outcome, round_.server.phase) == (None, Phase.FAILED)
    assert list(round_.server.outbox()) == []


@BOTH
def test_shares_that_are_withheld(protocol: str) -> None:
    """As long as t come, nothing is missing. Fewer end the round, and nobody is blamed who may only be slow."""
    for fewer in (0, 1):
        round_ = Round(protocol)
        round_.until(Phase.REVEAL)
        server = round_.server
        holders = [v for v in server._holders[LIAR] if v != LIAR]
        spare = len(server._holders[LIAR]) - round_.evil.t
        silent = {round_.evil.name(v) for v in holders[: spare + fewer]}
        server._heard, server._revealed = {}, {}
        for name, message in round_.replies.items():
            if name not in silent:
                round_.hand_in(name, message)
        if not fewer:
            server.close(Phase.REVEAL)
            assert server.outcome.total.tolist() == round_.evil.plain(round_.evil.members)
            continue
        with pytest.raises(ThresholdError, match="shares came to remove the mask of") as refused:
            server.close(Phase.REVEAL)
        assert refused.value.culprits == ()


@BOTH
def test_nobody_reveals_anything(protocol: str) -> None:
    round_ = Round(protocol)
    round_.until(Phase.REVEAL)
    round_.server._heard, round_.server._revealed = {}, {}
    with pytest.raises(ThresholdError, match="0 clients revealed shares") as refused:
        round_.server.close(Phase.REVEAL)
    assert refused.value.culprits == ()


@BOTH
@pytest.mark.parametrize("phase", [phase for phase in PHASES if phase is not Phase.DEFEND])
def test_too_few(protocol: str, phase: Phase) -> None:
    """Below the threshold the round is over, nothing is revealed, and it stays over."""
    fewest = Round(protocol)
    while fewest.server.phase != phase:
        fewest.others_speak()
        fewest.hand_in(fewest.liar, fewest.replies[fewest.liar])
        fewest.close()
    for name in list(fewest.replies)[: fewest.evil.t - 1]:
        fewest.hand_in(name, fewest.replies[name])
    stays_over(fewest)


@BOTH
def test_too_few_are_defended(protocol: str) -> None:
    """All but t - 1 are complained about and say nothing."""
    fewest = Round(protocol)
    fewest.until(Phase.COMPLAIN)
    for u in fewest.evil.members[fewest.evil.t - 1 :]:
        holder = next(v for v in fewest.server._holders[u] if v != u)
        fewest.falsely_complain(holder, u)
    fewest.server._heard, fewest.server._exchange._complaints = {}, {}
    fewest.speak()
    fewest.close()
    assert fewest.server.phase is Phase.DEFEND
    assert len(fewest.server.waiting_for) == len(fewest.evil.members) - fewest.evil.t + 1
    stays_over(fewest)


def stays_over(round_: Round) -> None:
    phase = round_.server.phase
    with pytest.raises(ThresholdError):
        round_.server.close(phase)
    assert (round_.server.outcome, round_.server.phase) == (None, Phase.FAILED)
    assert list(round_.server.outbox()) == []
    with pytest.raises(UsageError):
        round_.server.close(phase)
    with pytest.raises(UsageError, match="the round is over"):
        round_.hand_in(round_.liar, b"")
