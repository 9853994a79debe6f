"""A client's side of dealing shares (``protocols.rounds.dealing``): what it deals, and what it holds of others."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence, Set
from typing import Protocol

from protocols.roster import Number
from protocols.rounds.client import ClientRound
from protocols.rounds.cohort import Cohort, Position
from protocols.rounds.dealing import (
    Accusations,
    Complaint,
    Complaints,
    Dealing,
    Defence,
    Delivered,
    Delivery,
    Opened,
    check_complaint,
    complaint,
    opened,
    points_at,
)
from protocols.rounds.sets import ascending
from secagg.crypto.keys import AgreementKey
from secagg.crypto.prg import Prg
from secagg.errors import PeerError, PolicyError


class DealingCohort(Cohort):
    """A cohort in which shares are dealt."""

    @abstractmethod
    def pad_key(self, agreed: bytes, dealer: Position, holder: Position) -> bytes:
        """What hides a box on its way from its dealer to its holder."""


class Advertised(Protocol):
    """What is known of another client."""

    @property
    def client(self) -> Number: ...

    @property
    def seal_key(self) -> bytes: ...


class DealingClient(ClientRound):
    """A client that deals shares of its secrets and holds shares of others': the phases COMPLAIN and DEFEND."""

    _t: int
    """So many shares give a secret."""
    _cohort: DealingCohort
    _u: Position
    """Where this client is in the cohort."""
    _holders: Sequence[Position]
    """Who holds shares of its secrets; it can be one of them."""
    _peers: Mapping[Position, Advertised]
    """The others among them, whose shares it holds in turn."""

    def _prepare(self) -> None:
        self._seal_key = AgreementKey(self._drawn(b"seal key"))
        self._agreements: dict[Position, bytes] = {}
        self._held: dict[Position, bytes] = {}  # dealer -> its points for u: a share of each of its secrets
        self._doubted: dict[Position, Delivered] = {}

    @abstractmethod
    def _secrets(self) -> list[bytes]:
        """What it deals shares of."""

    @abstractmethod
    def _most_complaints(self) -> int:
        """How many holders it opens boxes for before it takes them for more than liars."""

    def _dealing(self) -> Dealing:
        """The polynomials depend on the cohort: should a copy of this client deal in another one, shares must not add
        up."""
        return Dealing(
            self._cohort,
            self._u,
            self._holders,
            self._t,
            self._secrets(),
            self._coins(),
            lambda v: self._pad_key(self._u, v),
        )

    def _own_points(self) -> bytes:
        """What it deals to itself, where it is one of the holders."""
        return points_at(self._u, self._t, self._secrets(), self._coins())

    def _coins(self) -> Prg:
        return Prg(self._drawn(b"polynomials", *self._cohort.bound(self._u)))

    def _pad_key(self, dealer: Position, holder: Position) -> bytes:
        v = holder if dealer == self._u else dealer
        if v not in self._agreements:  # once for both directions
            peer = self._peers[v]
            self._agreements[v] = self._seal_key.agree(peer.seal_key, culprit=self.roster.names[peer.client])
        return self._cohort.pad_key(self._agreements[v], dealer, holder)

    # COMPLAIN: say whose points do not fit what it committed to and what its proof says.

    def _open(self, message: Delivery) -> None:
        dealers = [box.peer for box in message.boxes]
        if not ascending(dealers) or not self._peers.keys() >= set(dealers):
            raise PeerError("shares from somebody who deals none to this client, or twice from one")
        self._held = self._unsealed(message.boxes, {v: self._pad_key(v, self._u) for v in dealers})
        self._doubted = {box.peer: box for box in message.boxes if box.peer not in self._held}

    def _unsealed(self, boxes: Sequence[Delivered], pad_keys: Mapping[Position, bytes]) -> dict[Position, bytes]:
        return opened(self._cohort, self._u, boxes, len(self._secrets()), pad_keys.__getitem__)

    def _complain(self) -> Complaints:
        return Complaints(
            tuple(complaint(self.identity.key, self._cohort, self._u, box) for box in self._doubted.values())
        )

    # DEFEND: open what was dealt to those who complain. They are corrupt, or this client would not be asked.

    def _hear_complaints(self, message: Accusations) -> None:
        complaining = [said.peer for said in message.complaints]
        if not complaining or not ascending(complaining) or not self._peers.keys() >= set(complaining):
            raise PeerError("complaints of others than those who hold shares, or twice of one")
        if len(complaining) > (most := self._most_complaints()):
            raise PolicyError(f"{len(complaining)} clients complain, boxes are opened for at most {most}")
        dealing = self._dealing()
        for said in message.complaints:
            self._check_complaint(dealing, said)
        self._opened = tuple(Opened(v, self._pad_key(self._u, v)) for v in complaining)

    def _check_complaint(self, dealing: Dealing, said: Complaint) -> None:
        public = self.roster.keys[self._peers[said.peer].client]
        check_complaint(public, self._cohort, said.peer, dealing.delivered(said.peer), said)

    def _defend(self) -> Defence:
        return Defence(self._opened)

    # The verdict: whose shares it keeps.

    def _good_shares(self, dealers: Set[Position], shown: Sequence[Opened]) -> dict[Position, bytes]:
        """The points of all these dealers but itself. ``shown`` are the keys of the boxes that it complained about."""
        answered = sorted(self._doubted.keys() & dealers)
        if [one.peer for one in shown] != answered:
            raise PeerError("boxes opened of others than of those whom this client complained about")
        boxes = [self._doubted[dealer] for dealer in answered]
        held = self._held | self._unsealed(boxes, {one.peer: one.key for one in shown})
        if not held.keys() >= dealers - {self._u}:
            raise PeerError("shares to be kept that are not good, or were never delivered here")
        return {dealer: held[dealer] for dealer in sorted(dealers - {self._u})}
