"""Clients of the pairwise protocols that lie: real machines in which one answer is made in another way.

They keep no journal. Each class says what an honest server makes of it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from protocols.pairwise.client import PairwiseClient
from protocols.pairwise.messages import SECRETS, Reveal, Revealed, Upload
from protocols.rounds.client import ClientRound
from protocols.rounds.cohort import Position
from protocols.rounds.dealing import Box, Complaint, Complaints, Dealing, Dealt, Defence, Delivery, Opened
from protocols.rounds.exchange import Exchange
from protocols.rounds.survivors import ConsistencySignature
from secagg.crypto.dealing import Polynomials
from secagg.crypto.field import PRIME
from secagg.crypto.keys import SIGNATURE_BYTES
from secagg.crypto.prg import Prg


class Liar:
    """Drives a machine of its own, which nothing restrains."""

    def __init__(self, machine: ClientRound) -> None:
        self._machine, self._messages = machine, machine.messages

    def start(self) -> bytes:
        return self._messages.encode(self._machine.plan, self._machine.opening())

    def receive(self, frame: bytes) -> bytes:
        machine = self._machine
        step = machine.hear(frame)
        machine.phase = step.then
        return self._messages.encode(machine.plan, step.reply(machine))


def other(points: bytes) -> bytes:
    """Field elements, one of them larger by one."""
    words = np.frombuffer(points, "<u4").copy()
    words[0] = (int(words[0]) + 1) % PRIME
    return words.tobytes()


class WrongShares(PairwiseClient):
    """Reveals shares that it was not dealt: named, its message counts as not sent."""

    def _reveal(self) -> Reveal:
        said = super()._reveal()
        return replace(said, self_shares=tuple(Revealed(one.peer, other(one.share)) for one in said.self_shares))


class OneWrongShare(PairwiseClient):
    """The same of its last share only, after many true ones."""

    def _reveal(self) -> Reveal:
        said = super()._reveal()
        *good, last = said.self_shares
        return replace(said, self_shares=(*good, Revealed(last.peer, other(last.share))))


class OwnWrongShare(PairwiseClient):
    """Reveals its other shares as they are, and of its own secret a wrong one, to which nobody has committed.

    On the complete graph, where it holds one; it is used only for want of others.
    """

    def _reveal(self) -> Reveal:
        said = super()._reveal()
        shares = [Revealed(one.peer, other(one.share)) if one.peer == self._u else one for one in said.self_shares]
        return replace(said, self_shares=tuple(shares))


class FalseComplaints(PairwiseClient):
    """Complains about all that was dealt to it: each dealer opens one box, and it is in the sum like everybody."""

    def _open(self, message: Delivery) -> None:
        super()._open(message)
        self._held, self._doubted = {}, {box.peer: box for box in message.boxes}


class UnsignedComplaint(PairwiseClient):
    """Complains without a signature: named, and left out as one who has not looked at its shares."""

    def _complain(self) -> Complaints:
        dealer = min(self._held)
        return Complaints((Complaint(dealer, bytes(32), bytes(SIGNATURE_BYTES)),))


class _Deals(PairwiseClient):
    """Can deal any secrets on any polynomials."""

    def _pad_to(self, holder: Position) -> bytes:
        return self._pad_key(self._u, holder)

    def _dealt_by(self, secrets: list[bytes], seed: bytes) -> Dealing:
        return Dealing(self._cohort, self._u, self._holders, self._t, secrets, Prg(seed), self._pad_to)


class _Dealer(_Deals):
    """Deals other boxes than it should, with the best proof that there is for them."""

    @abstractmethod
    def _boxes(self, secrets: list[bytes], seed: bytes) -> tuple[Box, ...]:
        """What it deals instead of the boxes of these secrets."""

    def _deal(self) -> Dealt:
        secrets = [self._mask_key.secret, self._self_secret]
        seed = self._drawn(b"polynomials", *self._cohort.bound(self._u))
        boxes = self._boxes(secrets, seed)
        exchange = Exchange(self._cohort, self._cohort.holders, self._t, SECRETS)
        exchange.take(self._u, replace(self._dealt_by(secrets, seed).dealt, boxes=boxes))
        challenge = exchange.delivered(self._u, min(self._peers)).challenge
        return Dealt(boxes, Polynomials(secrets, self._t, Prg(seed)).proof(challenge))


class BadBoxes(_Dealer):
    """Deals boxes that do not fit their commitments to all, and has no answer to their complaints: left out."""

    def _boxes(self, secrets: list[bytes], seed: bytes) -> tuple[Box, ...]:
        return tuple(replace(box, points=other(box.points)) for box in self._dealt_by(secrets, seed).dealt.boxes)


class OneBadBox(_Dealer):
    """The same to one holder."""

    def _boxes(self, secrets: list[bytes], seed: bytes) -> tuple[Box, ...]:
        first, *rest = self._dealt_by(secrets, seed).dealt.boxes
        return replace(first, points=other(first.points)), *rest


class TwoPolynomials(_Dealer):
    """Deals to half of its holders points of other polynomials, with commitments to them; no proof fits: left out."""

    def _boxes(self, secrets: list[bytes], seed: bytes) -> tuple[Box, ...]:
        one, two = (self._dealt_by(secrets, drawn).dealt.boxes for drawn in (seed, self._drawn(b"other polynomials")))
        half = len(one) // 2
        return (*one[:half], *two[half:])


class FalseDefence(OneBadBox):
    """Shows a key that does not open the bad box: named, and left out."""

    def _check_complaint(self, dealing: Dealing, said: Complaint) -> None:
        pass

    def _defend(self) -> Defence:
        return Defence(tuple(Opened(one.peer, self._pad_key(one.peer, self._u)) for one in self._opened))


class OtherSecret(_Deals):
    """Deals another self-mask than the one that it committed to, consistently and to all: named when the masks come
    off, and the round has no sum."""

    def _dealing(self) -> Dealing:
        seed = self._drawn(b"polynomials", *self._cohort.bound(self._u))
        return self._dealt_by([self._mask_key.secret, self._drawn(b"another self mask")], seed)


class FewerMasks(PairwiseClient):
    """Leaves one neighbour out when it masks: named, its vector is not in the sum."""

    def _upload(self) -> Upload:
        left_out = max(self._held.keys() - {self._u})
        del self._held[left_out]
        return super()._upload()


class ForgedConsent(PairwiseClient):
    """Signs nothing: named, and silent from then on."""

    def _sign_survivors(self) -> ConsistencySignature:
        return ConsistencySignature(bytes(SIGNATURE_BYTES))


LIES: Mapping[str, type[PairwiseClient]] = {
    kind.__name__: kind
    for kind in (
        WrongShares,
        OneWrongShare,
        OwnWrongShare,
        FalseComplaints,
        UnsignedComplaint,
        BadBoxes,
        OneBadBox,
        FalseDefence,
        TwoPolynomials,
        OtherSecret,
        FewerMasks,
        ForgedConsent,
    )
}
