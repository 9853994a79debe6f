"""Lying clients against the honest server: each bad message is refused by name, changes nothing, and the others' round
goes on to the exact sum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from protocols.cohort import to_bitmap
from protocols.machine import ServerRound
from protocols.pairwise import server as server_module
from protocols.pairwise.client import PairwiseClient
from protocols.pairwise.messages import Dealt, Revealed, SealedShares, Upload
from protocols.pairwise.phases import Phase
from protocols.pairwise.server import PairwiseServer
from protocols.simulate import serve
from secagg import labels
from secagg.codec import u32
from secagg.errors import DecodeError, PeerError, ThresholdError, UsageError
from secagg.keys import digest
from secagg.ring import Ring
from secagg.shamir import LIMBS, PRIME, pack_shares, unpack_shares
from tests.adversarial.attack import BOTH, LENGTH, members_of, share_of_another, small, switch_off

LIAR = 2
PHASES = list(PairwiseServer.steps)


class Round:
    """The honest server and real clients, one of whom is a liar in one phase."""

    def __init__(self, protocol: str, **options: Any) -> None:
        self.evil = small(protocol, **{"corrupt": ()} | options)
        self.server: Any = serve(self.evil.plan, self.evil.roster)
        self.replies: dict[str, Any] = {}
        for u in self.evil.members:
            self.replies[self.evil.name(u)] = self.evil.start(u)

    @property
    def liar(self) -> str:
        return self.evil.name(LIAR)

    @property
    def machine(self) -> Any:
        """The liar's own round machine, to sign with."""
        return self.evil.clients[LIAR]._round

    def hand_in(self, name: str, message: Any) -> None:
        self.server.receive(name, message if isinstance(message, bytes) else self.evil.frame(message))

    def others_speak(self, silent: tuple[int, ...] = ()) -> None:
        for name, message in self.replies.items():
            if name != self.liar and self.evil.roster.number(name) not in silent:
                self.hand_in(name, message)

    def close(self) -> None:
        evil = self.evil
        self.server.close(self.server.phase)
        self.replies = {
            name: evil.messages.decode(evil.plan, evil.clients[evil.roster.number(name)].receive(frame))
            for name, frame in self.server.outbox()
        }

    def until(self, phase: Phase) -> Any:
        """Everybody speaks and hears, up to this phase; the others have spoken in it. The liar's honest message."""
        while True:
            self.others_speak()
            if self.server.phase == phase:
                return self.replies[self.liar]
            self.hand_in(self.liar, self.replies[self.liar])
            self.close()

    def speak(self) -> None:
        for name, message in self.replies.items():
            self.hand_in(name, message)

    def finish(self) -> list[int]:
        while self.server.outcome is None:
            self.close()
            self.speak()
        return self.server.outcome.total.tolist()


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


NOT_FOR_NEIGHBOURS = off(
    PairwiseServer, "_take_boxes", "[box.peer for box in dealt.boxes] != [v for v in self._holders[u] if v != u]"
)
NOT_AS_ASKED = off(PairwiseServer, "_take_reveal", "not (asked and right and ascending(alive) and ascending(dead))")


def all_listed(cohort: Any, _roster: Any, number: int, _t: int, _header: Any) -> frozenset[int]:
    return frozenset(cohort.holders(number))


def blank(ring: Ring, _data: bytes, length: int) -> Any:
    return ring.zeros(length)


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
        lambda r, m: Dealt(m.boxes[1:]),
        "shares for others than the neighbours",
        NOT_FOR_NEIGHBOURS,
    ),
    "a box to a stranger": Lie(
        Phase.SHARE,
        lambda r, m: Dealt((*m.boxes[:-1], SealedShares(10**6, m.boxes[-1].box))),
        "shares for others than the neighbours",
        NOT_FOR_NEIGHBOURS,
    ),
    "two boxes to one": Lie(
        Phase.SHARE,
        lambda r, m: Dealt((m.boxes[0], *m.boxes)),
        "shares for others than the neighbours",
        NOT_FOR_NEIGHBOURS,
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
        off(PairwiseServer, "_add", "digest(labels.VECTOR, upload.vector) != upload.header.vector_hash"),
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
        "masked with others than those whose shares it was sent",
        off(PairwiseServer, "_add", "listed != self._dealers_to(u)"),
    ),
    "a vector too short": Lie(
        Phase.UPLOAD,
        lambda r, m: upload(r, m.vector[:-1], mine(r, m)),
        "bytes are not 7 values",
        lambda monkeypatch: monkeypatch.setattr(Ring, "unpack", blank),
    ),
    "a vector with stray bits": Lie(
        Phase.UPLOAD,
        lambda r, m: upload(r, m.vector[:-1] + bytes([m.vector[-1] | 0x80]), mine(r, m)),
        "unused bits of a packed vector are not zero",
        lambda monkeypatch: monkeypatch.setattr(Ring, "unpack", blank),
    ),
    "a consent not signed": Lie(
        Phase.CONSENT,
        lambda r, m: replace(m, signature=bytes(64)),
        "bad signature",
        gone(server_module, "check_consent"),
    ),
    "a consent to another set": Lie(
        Phase.CONSENT,
        lambda r, m: replace(
            m,
            signature=r.machine.identity.key.sign(
                labels.SURVIVORS, r.machine._cohort.survivors_digest(to_bitmap({LIAR}, range(r.evil.plan.clients)))
            ),
        ),
        "bad signature",
        gone(server_module, "check_consent"),
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
        lambda r, m: first_share(m, PRIME.to_bytes(4, "little") * LIMBS),
        "a share is not reduced",
        lambda monkeypatch: monkeypatch.setattr(server_module, "unpack_shares", lambda data, secrets: None),
    ),
    "a message of another phase": Lie(
        Phase.UPLOAD,
        lambda r, m: r.evil.frame(advert(r, r.evil.adverts.get(LIAR) or r.machine.opening())),
        "Advert does not belong in phase upload",
        off(ServerRound, "_check", "not isinstance(message, step.hears)"),
        culprits=0,  # it may be one that comes late, from somebody honest
    ),
    "no message": Lie(
        Phase.CONSENT,
        lambda r, m: b"nonsense",
        "truncated",
        lambda monkeypatch: None,
    ),
}


@BOTH
@pytest.mark.parametrize("what", LIES)
def test_a_lie_is_refused_and_changes_nothing(protocol: str, what: str) -> None:
    """The culprit is named; it may still say the right thing; the sum is exact."""
    lie, round_ = LIES[what], Round(protocol)
    honest = round_.until(lie.phase)
    with pytest.raises((PeerError, DecodeError), match=lie.reason) as refused:
        round_.hand_in(round_.liar, lie.told(round_, honest))
    assert (round_.liar in refused.value.culprits) == (lie.culprits > 0)
    assert len(refused.value.culprits) == lie.culprits
    assert round_.liar in round_.server.waiting_for
    round_.hand_in(round_.liar, honest)
    assert round_.finish() == round_.evil.plain(round_.evil.members)


@BOTH
@pytest.mark.parametrize("what", LIES)
def test_the_others_round_goes_on(protocol: str, what: str) -> None:
    """Without the liar's vector, if it never uploaded a good one."""
    lie, round_ = LIES[what], Round(protocol)
    honest = round_.until(lie.phase)
    with pytest.raises((PeerError, DecodeError)):
        round_.hand_in(round_.liar, lie.told(round_, honest))
    uploaded = lie.phase in (Phase.CONSENT, Phase.REVEAL)
    total = round_.finish()
    assert total == round_.evil.plain([u for u in round_.evil.members if u != LIAR or uploaded])


@BOTH
@pytest.mark.parametrize("what", [what for what in LIES if what != "no message"])
def test_control_a_lie_is_believed(protocol: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With that one check away the lie is taken, and the round ends with a wrong sum, without one, or with an error
    that nobody declared; at best with a right one."""
    lie, round_ = LIES[what], Round(protocol)
    honest = round_.until(lie.phase)
    told = lie.told(round_, honest)
    lie.switch(monkeypatch)
    try:
        round_.hand_in(round_.liar, told)
    except (KeyError, IndexError, AttributeError):
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
    survived = phase is Phase.CONSENT
    assert round_.finish() == round_.evil.plain([u for u in round_.evil.members if u != LIAR or survived])
    with pytest.raises(UsageError, match="the round is over"):
        round_.hand_in(round_.liar, honest)


def test_nobodys_message() -> None:
    round_ = Round("secagg")
    with pytest.raises(UsageError, match="is not in the roster"):
        round_.server.receive("mallory", b"")


# Wrong shares.


def lie_about_shares(round_: Round, liars: tuple[int, ...], silent: tuple[int, ...], shift: Any) -> None:
    """The last phase: each liar adds something to its self-share of the victim's."""
    round_.until(Phase.CONSENT)
    round_.hand_in(round_.liar, round_.replies[round_.liar])
    round_.close()
    for name, message in round_.replies.items():
        v = round_.evil.roster.number(name)
        if v in liars:
            shares = tuple(replace(s, share=shift(v, s.share)) if s.peer == LIAR else s for s in message.self_shares)
            message = replace(message, self_shares=shares)
        if v not in silent:
            round_.hand_in(name, message)


def off_by_one(v: int, share: bytes) -> bytes:
    return pack_shares((unpack_shares(share, 1) + 1) % PRIME)


@BOTH
def test_a_wrong_share_is_done_without(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a surplus the holder is exposed. Without the comparison with the commitment the sum would be wrong."""

    def one_liar() -> tuple[Round, str]:
        round_ = Round(protocol)
        round_.until(Phase.SHARE)
        round_.hand_in(round_.liar, round_.replies[round_.liar])
        round_.close()
        first = round_.server._holders[LIAR][: round_.evil.t]  # whom the server takes, if it sees nothing wrong
        holder = next(v for v in first if v != LIAR)
        lie_about_shares(round_, (holder,), (), partial(share_of_another, first))
        round_.server.close(Phase.REVEAL)
        return round_, round_.evil.name(holder)

    round_, holder = one_liar()
    assert round_.server.outliers == (holder,)
    assert round_.server.outcome.total.tolist() == round_.evil.plain(round_.evil.members)
    monkeypatch.setattr(PairwiseServer, "_is_secret_of", lambda *_: True)
    round_, holder = one_liar()
    assert round_.server.outcome.total.tolist() != round_.evil.plain(round_.evil.members)


def test_wrong_shares_without_a_surplus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exactly t shares, one of them wrong: nothing is released, and nobody who might have lied is left out."""
    round_ = Round("secagg")
    lie_about_shares(round_, (0,), (7, 8, 9), off_by_one)
    with pytest.raises(PeerError, match="shares that do not give the secret") as refused:
        round_.server.close(Phase.REVEAL)
    assert set(refused.value.culprits) == {round_.evil.name(v) for v in range(7)}
    assert (round_.server.outcome, round_.server.phase) == (None, Phase.FAILED)
    assert list(round_.server.outbox()) == []

    monkeypatch.setattr(PairwiseServer, "_is_secret_of", lambda *_: True)
    round_ = Round("secagg")
    lie_about_shares(round_, (0,), (7, 8, 9), off_by_one)
    round_.server.close(Phase.REVEAL)
    assert round_.server.outcome.total.tolist() != round_.evil.plain(round_.evil.members)


def test_holders_that_frame_the_dealer() -> None:
    """t + 1 shares, two liars who add a multiple of a polynomial that is zero at the others' places: the shares fit
    together, to another secret. The dealer alone is blamed for it, and is innocent."""
    liars, silent = (0, 1), (8, 9)
    others = [v for v in range(8) if v not in liars]

    def consistent(v: int, share: bytes) -> bytes:
        shift = 1
        for w in others:
            shift = shift * (v - w) % PRIME
        return pack_shares(((unpack_shares(share, 1).astype(np.uint64) + shift) % PRIME).astype(np.uint32))

    round_ = Round("secagg")
    lie_about_shares(round_, liars, silent, consistent)
    with pytest.raises(PeerError, match="shares that do not give the secret") as refused:
        round_.server.close(Phase.REVEAL)
    assert round_.server.outcome is None
    assert {round_.evil.name(v) for v in liars} <= set(refused.value.culprits)


def deal_nonsense(machine: PairwiseClient, real: Callable[[PairwiseClient], dict[int, bytes]]) -> dict[int, bytes]:
    shares = real(machine)
    if machine.identity.name.endswith(f"{LIAR:02}"):
        return {v: off_by_one_each(v, share) for v, share in shares.items()}
    return shares


def off_by_one_each(v: int, share: bytes) -> bytes:
    return pack_shares((unpack_shares(share, 2) + np.uint32(v * v)) % PRIME)


@BOTH
def test_a_dealer_of_bad_shares(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They open, but do not lie on one polynomial of degree t - 1 through the committed secret: nothing is released,
    and the dealer is among those named."""
    real = PairwiseClient._shares
    monkeypatch.setattr(PairwiseClient, "_shares", lambda machine: deal_nonsense(machine, real))

    def finished() -> Round:
        round_ = Round(protocol)
        round_.until(Phase.REVEAL)
        round_.hand_in(round_.liar, round_.replies[round_.liar])
        return round_

    round_ = finished()
    with pytest.raises(PeerError, match="shares that do not give the secret") as refused:
        round_.server.close(Phase.REVEAL)
    assert round_.liar in refused.value.culprits
    assert round_.server.outcome is None
    monkeypatch.setattr(PairwiseServer, "_is_secret_of", lambda *_: True)
    round_ = finished()
    round_.server.close(Phase.REVEAL)
    assert round_.server.outcome.total.tolist() != round_.evil.plain(round_.evil.members)


@BOTH
def test_boxes_that_do_not_open(protocol: str) -> None:
    """The limit of all that (docs/threat_model.md): whoever masks with the others and gives them no shares ends the
    round without a sum. It is noted by its neighbours. The server cannot tell whether it dealt none or its holders
    withhold them, and names all of these."""
    round_ = Round(protocol)
    honest = round_.until(Phase.SHARE)
    round_.hand_in(round_.liar, Dealt(tuple(replace(box, box=bytes(len(box.box))) for box in honest.boxes)))
    round_.close()
    neighbours = [v for v in round_.server._holders[LIAR] if v != LIAR]
    assert all(round_.evil.clients[v]._round.unopened == (round_.liar,) for v in neighbours)
    round_.speak()
    with pytest.raises(PeerError, match=f"shares came to remove the mask of {round_.liar}") as refused:
        round_.finish()
    assert {round_.liar, *map(round_.evil.name, neighbours)} == set(refused.value.culprits)
    assert (round_.server.outcome, round_.server.phase) == (None, Phase.FAILED)


@BOTH
def test_one_box_that_does_not_open(protocol: str) -> None:
    """Two neighbours that have no share of each other still share a mask, and the sum is exact."""
    round_ = Round(protocol)
    honest = round_.until(Phase.SHARE)
    spoilt = replace(honest.boxes[0], box=bytes(len(honest.boxes[0].box)))
    round_.hand_in(round_.liar, Dealt((spoilt, *honest.boxes[1:])))
    assert round_.finish() == round_.evil.plain(round_.evil.members)
    assert round_.evil.clients[spoilt.peer]._round.unopened == (round_.liar,)


@BOTH
@pytest.mark.parametrize("phase", PHASES)
def test_too_few(protocol: str, phase: Phase) -> None:
    """Below the threshold the round is over, nothing is revealed, and it stays over."""
    fewest = Round(protocol)
    while fewest.server.phase != phase:
        fewest.others_speak()
        fewest.hand_in(fewest.liar, fewest.replies[fewest.liar])
        fewest.close()
    for name in list(fewest.replies)[: fewest.evil.t - 1]:
        fewest.hand_in(name, fewest.replies[name])
    with pytest.raises(ThresholdError):
        fewest.server.close(phase)
    assert (fewest.server.outcome, fewest.server.phase) == (None, Phase.FAILED)
    assert list(fewest.server.outbox()) == []
    with pytest.raises(UsageError):
        fewest.server.close(phase)
    with pytest.raises(UsageError, match="the round is over"):
        fewest.hand_in(fewest.liar, b"")
