"""The server's side of dealing shares (``protocols.rounds.dealing``): who dealt to whom, who complained, whose shares
hold."""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterable, KeysView, Mapping, Sequence, Set
from itertools import pairwise
from struct import Struct

import numpy as np
from numpy.typing import NDArray

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
    box_codec,
    challenge_from,
    check_complaint,
    commitment,
    delivered_codec,
    opened,
    rows_of,
)
from protocols.rounds.server import Sends
from protocols.rounds.sets import ascending
from secagg.codec import Rows, packed, u32
from secagg.crypto.dealing import ELEMENT_BYTES, responses, width
from secagg.crypto.shamir import unpack_shares
from secagg.errors import PeerError

_COMMITMENT = Struct(f"{COMMITMENT_BYTES}s")


class Exchange:
    """The server's side: what was dealt to whom, who complained, and whose shares hold in the end.

    ``holders_of`` gives the holders of a dealer's shares, ascending. Each check raises before anything has changed.
    """

    def __init__(
        self, context: Cohort, holders_of: Callable[[Position], Sequence[Position]], threshold: int, secrets: int
    ) -> None:
        self._context, self._holders_of, self._threshold, self._secrets = context, holders_of, threshold, secrets
        self._box, self._delivered = box_codec(secrets), delivered_codec(secrets)
        self._rows: dict[Position, bytes] = {}  # dealer -> its boxes as delivered, in the order of its other holders
        self._commitments: dict[Position, tuple[NDArray[np.int64], bytes]] = {}  # holder -> dealers, and what they said
        self._own: dict[Position, int] = {}  # dealer -> its place among its holders, or behind them
        self._kept: dict[Position, int] = {}  # dealer -> the secret to whose shares the commitments are kept
        self._complaints: dict[Position, dict[Position, Complaint]] = {}  # dealer -> holder -> what it says
        self._defended: set[Position] = set()
        self._keys: dict[Position, dict[Position, bytes]] = {}  # holder -> dealer -> what opens its box

    @property
    def dealers(self) -> KeysView[Position]:
        """Those who dealt and were not left out since."""
        return self._own.keys()

    def take(self, dealer: Position, dealt: Dealt) -> None:
        holders = self._holders_of(dealer)
        shown = rows_of(responses(dealt.proof, self._threshold, abscissas(holders), self._context.size))
        others = [response for v, response in zip(holders, shown, strict=True) if v != dealer]
        if len(dealt.boxes) != len(others):
            raise PeerError("shares for others than the holders")
        data, size = packed(self._box, dealt.boxes), self._box.least
        boxes = [data[at : at + size] for at in range(0, len(data), size)]
        peer, challenge = u32.encode(dealer), challenge_from(self._context, dealer, boxes)
        self._own[dealer] = holders.index(dealer) if len(others) < len(holders) else len(holders)
        self._rows[dealer] = b"".join(
            [peer + box + challenge + response for box, response in zip(boxes, others, strict=True)]
        )

    def delivered(self, dealer: Position, holder: Position) -> Delivered:
        return self._delivered.decode(self._row(dealer, holder))

    def deliveries(self, dealers: Iterable[Position], holder: Position) -> Sequence[Delivered]:
        return Rows(self._delivered, b"".join([self._row(dealer, holder) for dealer in dealers]))

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
            del self._rows[dealer], self._own[dealer]
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
        self._kept = {dealer: secret_of(dealer) for dealer in sorted(self._rows)}
        others = [[v for v in self._holders_of(dealer) if v != dealer] for dealer in self._kept]
        tables, start = list[NDArray[np.uint8]](), u32.least + ELEMENT_BYTES * width(self._secrets)
        for dealer, secret in self._kept.items():
            table = np.frombuffer(self._rows.pop(dealer), np.uint8).reshape(-1, self._delivered.least)
            at = start + COMMITMENT_BYTES * secret
            tables.append(table[:, at : at + COMMITMENT_BYTES].copy())
        holders, dealers = np.concatenate(others), np.repeat(list(self._kept), list(map(len, others)))
        order = np.argsort(holders, kind="stable")
        said, dealers = np.concatenate(tables)[order], dealers[order]
        ends = np.cumsum(np.bincount(holders)).tolist()
        for holder, (first, end) in enumerate(pairwise([0, *ends])):
            self._commitments[Position(holder)] = dealers[first:end], said[first:end].tobytes()

    def check_shares(self, holder: Position, shares: Mapping[Position, bytes]) -> None:
        """What a holder reveals, by dealer: one hash and the commitment that was kept tell a wrong share. A dealer's
        own share is compared with none.

        Liars can commit to what is no share at all, and no honest holder reveals that.
        """
        unpack_shares(b"".join(shares.values()), len(shares))
        dealers, said = self._commitments[holder]
        kept = {dealer: one for dealer, (one,) in zip(dealers.tolist(), _COMMITMENT.iter_unpack(said), strict=True)}
        for dealer, share in shares.items():
            if dealer == holder:
                continue
            if commitment(self._context, dealer, holder, self._kept[dealer], share) != kept[dealer]:
                raise PeerError("a share that is not the one that was dealt")

    def _row(self, dealer: Position, holder: Position) -> bytes:
        """This holder's box, as it is delivered: a dealer deals none to itself."""
        place, size = bisect_left(self._holders_of(dealer), holder), self._delivered.least
        at = (place - (self._own[dealer] < place)) * size
        return self._rows[dealer][at : at + size]


class DealingServer(CohortServer):
    """A server of clients that deal shares: the phases COMPLAIN and DEFEND. ``_exchange`` comes with the cohort."""

    _exchange: Exchange

    @abstractmethod
    def _dealers_to(self, v: Position) -> Set[Position]:
        """Those who dealt to v, itself included, and were not left out since."""

    def _delivery(self, number: Number) -> Delivery:
        v = self._positions[number]
        return Delivery(self._exchange.deliveries(sorted(self._dealers_to(v) - {v}), v))

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
