"""The server's side of dealing shares (``protocols.rounds.dealing``): who dealt to whom, who complained, whose shares
hold."""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Callable, KeysView, Mapping, Sequence, Set
from struct import Struct

import numpy as np

from protocols.roster import Number
from protocols.rounds.admission import CohortServer
from protocols.rounds.cohort import Cohort, Position
from protocols.rounds.dealing import (
    COMMITMENT_BYTES,
    Accusations,
    Complaint,
    Complaints,
    Dealt,
    Defence,
    Delivered,
    Delivery,
    Opened,
    abscissas,
    challenge_of,
    check_complaint,
    commitment,
    opened,
    rows_of,
)
from protocols.rounds.server import Sends
from protocols.rounds.sets import ascending
from secagg.crypto.dealing import ELEMENT_BYTES, RESPONSE_BYTES, responses, width
from secagg.crypto.shamir import unpack_shares
from secagg.errors import PeerError


class Exchange:
    """The server's side: what was dealt to whom, who complained, and whose shares hold in the end.

    ``holders_of`` gives the holders of a dealer's shares, ascending. Each check raises before anything has changed.
    """

    def __init__(
        self, context: Cohort, holders_of: Callable[[Position], Sequence[Position]], threshold: int, secrets: int
    ) -> None:
        self._context, self._holders_of, self._threshold, self._secrets = context, holders_of, threshold, secrets
        self._row = Struct(f"{ELEMENT_BYTES * width(secrets)}s{COMMITMENT_BYTES * secrets}s{RESPONSE_BYTES}s")
        self._rows: dict[Position, bytes] = {}  # dealer -> its boxes and responses, in the order of its other holders
        self._challenges: dict[Position, bytes] = {}
        self._own: dict[Position, int] = {}  # dealer -> its place among its holders, or behind them
        self._kept: dict[Position, int] = {}  # dealer -> the secret to whose shares the commitments are kept
        self._complaints: dict[Position, dict[Position, Complaint]] = {}  # dealer -> holder -> what it says
        self._defended: set[Position] = set()
        self._keys: dict[Position, dict[Position, bytes]] = {}  # holder -> dealer -> what opens its box

    @property
    def dealers(self) -> KeysView[Position]:
        """Those who dealt and were not left out since."""
        return self._rows.keys()

    def take(self, dealer: Position, dealt: Dealt) -> None:
        holders = self._holders_of(dealer)
        shown = rows_of(responses(dealt.proof, self._threshold, abscissas(holders)))
        others = [response for v, response in zip(holders, shown, strict=True) if v != dealer]
        if len(dealt.boxes) != len(others):
            raise PeerError("shares for others than the holders")
        self._challenges[dealer] = challenge_of(self._context, dealer, dealt.boxes)
        self._own[dealer] = holders.index(dealer) if len(others) < len(holders) else len(holders)
        self._rows[dealer] = b"".join(
            [box.points + box.commitments + response for box, response in zip(dealt.boxes, others, strict=True)]
        )

    def delivered(self, dealer: Position, holder: Position) -> Delivered:
        at = self._index(dealer, holder) * self._row.size
        points, commitments, response = self._row.unpack_from(self._rows[dealer], at)
        return Delivered(dealer, points, commitments, self._challenges[dealer], response)

    def complain(self, holder: Position, public: bytes, dealers: Set[Position], said: Complaints) -> None:
        """Take what a holder says about boxes that were delivered to it, those of ``dealers``."""
        about = [one.peer for one in said.complaints]
        if not ascending(about) or not dealers - {holder} >= set(about):
            raise PeerError("complaints about boxes that were not delivered to this client")
        for one in said.complaints:
            check_complaint(public, self._context, holder, self.delivered(one.peer, holder), one)
        for one in said.complaints:
            self._complaints.setdefault(one.peer, {})[holder] = one

    def leave_out(self, dealers: Set[Position]) -> None:
        for dealer in list(dealers):
            del self._rows[dealer], self._challenges[dealer], self._own[dealer]
            self._complaints.pop(dealer, None)
            self._defended.discard(dealer)

    @property
    def accused(self) -> list[Position]:
        return sorted(self._complaints)

    def accusations(self, dealer: Position) -> Accusations:
        return Accusations(
            tuple(Complaint(holder, one.box, one.signature) for holder, one in sorted(self._complaints[dealer].items()))
        )

    def defend(self, dealer: Position, defence: Defence) -> None:
        holders = [one.peer for one in defence.opened]
        if holders != sorted(self._complaints[dealer]):
            raise PeerError("boxes opened of others than of those who complain")
        for one in defence.opened:
            box, keys = self.delivered(dealer, one.peer), {dealer: one.key}
            if not opened(self._context, one.peer, [box], self._secrets, keys.__getitem__):
                raise PeerError("a key that opens no good box")
        for one in defence.opened:
            self._keys.setdefault(one.peer, {})[dealer] = one.key
        self._defended.add(dealer)

    @property
    def undefended(self) -> Set[Position]:
        """Who was accused and has not answered."""
        return self._complaints.keys() - self._defended

    @property
    def answered(self) -> list[tuple[Position, Position]]:
        """(dealer, holder) of each complaint that was answered with what fits."""
        return [(dealer, holder) for dealer in sorted(self._defended) for holder in sorted(self._complaints[dealer])]

    def opened_for(self, holder: Position) -> tuple[Opened, ...]:
        return tuple(Opened(dealer, key) for dealer, key in sorted(self._keys.get(holder, {}).items()))

    def keep_commitments(self, secret_of: Callable[[Position], int]) -> None:
        """Forget all but what is needed to check shares of one secret of each dealer."""
        self._kept = {dealer: secret_of(dealer) for dealer in self._rows}
        start = ELEMENT_BYTES * width(self._secrets)
        for dealer, rows in self._rows.items():
            table = np.frombuffer(rows, np.uint8).reshape(-1, self._row.size)
            at = start + COMMITMENT_BYTES * self._kept[dealer]
            self._rows[dealer] = table[:, at : at + COMMITMENT_BYTES].tobytes()

    def check_shares(self, holder: Position, shares: Mapping[Position, bytes]) -> None:
        """What a holder reveals, by dealer: one hash and the commitment that was kept tell a wrong share. A dealer's
        own share is compared with none.

        Liars can commit to what is no share at all, and no honest holder reveals that.
        """
        unpack_shares(b"".join(shares.values()), len(shares))
        for dealer, share in shares.items():
            if dealer == holder:
                continue
            at = self._index(dealer, holder) * COMMITMENT_BYTES
            kept = self._rows[dealer][at : at + COMMITMENT_BYTES]
            if commitment(self._context, dealer, holder, self._kept[dealer], share) != kept:
                raise PeerError("a share that is not the one that was dealt")

    def _index(self, dealer: Position, holder: Position) -> int:
        """Where a holder's box is among those that were dealt: a dealer deals none to itself."""
        place = bisect_left(self._holders_of(dealer), holder)
        return place - (self._own[dealer] < place)


class DealingServer(CohortServer):
    """A server of clients that deal shares: the phases COMPLAIN and DEFEND. ``_exchange`` comes with the cohort."""

    _exchange: Exchange

    @abstractmethod
    def _dealers_to(self, v: Position) -> Set[Position]:
        """Those who dealt to v, itself included, and were not left out since."""

    def _delivery(self, number: Number) -> Delivery:
        v = self._positions[number]
        return Delivery(tuple(self._exchange.delivered(u, v) for u in sorted(self._dealers_to(v)) if u != v))

    def _take_complaints(self, number: Number, said: Complaints) -> None:
        v = self._positions[number]
        self._exchange.complain(v, self.roster.keys[number], self._dealers_to(v), said)

    def _accuse(self) -> Sends:
        """Who has fallen silent is left out now: nothing depends on its secrets yet, so it costs nobody anything."""
        there = {self._positions[number] for number in self._heard}
        self._leave_out(self._exchange.dealers - there)
        accused = [self._clients[u] for u in self._exchange.accused]
        return Sends(accused, lambda number: self._exchange.accusations(self._positions[number]))

    def _take_defence(self, number: Number, defence: Defence) -> None:
        self._exchange.defend(self._positions[number], defence)

    def _end_exchange(self) -> None:
        """Who was accused and has not answered is left out. What is left of the complaints are disputes."""
        self._leave_out(self._exchange.undefended)
        self.disputes = tuple((self._name(v), self._name(u)) for u, v in self._exchange.answered)

    def _leave_out(self, dealers: Set[Position]) -> None:
        self._exchange.leave_out(dealers)
        self.excluded = tuple(sorted({*self.excluded, *map(self._name, dealers)}))
