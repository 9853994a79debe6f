"""What dealing verifiably costs a client with k neighbours, beside plain dealing of the same two secrets.

Plain dealing is Shamir's shares under authenticated encryption (``secagg.crypto.shamir``, ``secagg.crypto.seal``): a
box of 100 bytes and its holder's number, no commitments, no proof, no complaints. Keys are agreed on either way, and
are so already.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from time import process_time

from benchmarks.rounds import people
from protocols.pairwise.cohort import Cohort
from protocols.pairwise.messages import SECRETS
from protocols.plan import RoundPlan
from protocols.rounds.cohort import Position, positions
from protocols.rounds.dealing import Dealing, opened
from secagg.codec import u32
from secagg.crypto import labels
from secagg.crypto.keys import KEY_BYTES, derive, transcript
from secagg.crypto.prg import Prg
from secagg.crypto.seal import OVERHEAD_BYTES, open_box, seal
from secagg.crypto.shamir import SHARE_BYTES, pack_shares, split, unpack_shares
from secagg.encoding import Encoding

PLAIN_BOX_BYTES = SECRETS * SHARE_BYTES + OVERHEAD_BYTES
PLAIN_BYTES = u32.least + PLAIN_BOX_BYTES
"""A box in a message, with the number of who it is for."""


ME = Position(0)


@dataclass(frozen=True, slots=True)
class Seconds:
    """Processor seconds of one client."""

    deal: float
    open: float
    plain_deal: float
    plain_open: float

    @property
    def more(self) -> float:
        return self.deal + self.open - self.plain_deal - self.plain_open


class Amid:
    """One client amid k others, each of which has dealt to it."""

    def __init__(self, k: int, threshold: int) -> None:
        _, roster = people(2 * k + 1)
        plan = RoundPlan.propose("secagg", roster, Encoding.integers(1), min_contributors=2)
        self._cohort = Cohort(plan, bytes(32), 2 * k + 1)
        self._k, self._threshold, self._agreed = k, threshold, os.urandom(KEY_BYTES)
        self._secrets = [os.urandom(KEY_BYTES) for _ in range(SECRETS)]
        self._boxes = [self._dealt(u, [ME]).delivered(ME) for u in self.holders(0)]
        self._sealed = [self._seal(u, ME, bytes(SECRETS * SHARE_BYTES)) for u in self.holders(0)]

    def holders(self, number: int) -> list[Position]:
        """Others each time: whose shares go to whom is new in each round, and nothing is left of the last one."""
        return list(positions(2 * self._k + 1)[1 + number % self._k :][: self._k])

    def deal(self, number: int) -> Dealing:
        return self._dealt(ME, self.holders(number))

    def open(self, _number: int) -> dict[Position, bytes]:
        return opened(self._cohort, ME, self._boxes, SECRETS, lambda u: self._cohort.pad_key(self._agreed, u, ME))

    def plain_deal(self, number: int) -> list[bytes]:
        holders = self.holders(number)
        dealt = split(self._secrets, self._threshold, [v + 1 for v in holders], Prg(os.urandom(32)))
        return [self._seal(ME, v, pack_shares(shares)) for v, shares in zip(holders, dealt, strict=True)]

    def plain_open(self, _number: int) -> list[object]:
        boxes = zip(self.holders(0), self._sealed, strict=True)
        return [unpack_shares(open_box(self._key(u, ME), box, self._associated(u, ME)), SECRETS) for u, box in boxes]

    def seconds(self, repeats: int) -> Seconds:
        """All four in turn, the median of each."""
        works: Sequence[Callable[[int], object]] = (self.deal, self.open, self.plain_deal, self.plain_open)
        if len(self.open(0)) != self._k:
            raise RuntimeError("a box does not open")
        took: list[list[float]] = [[] for _ in works]
        for number in range(repeats):
            for work, found in zip(works, took, strict=True):
                began = process_time()
                work(number)
                found.append(process_time() - began)
        return Seconds(*map(median, took))

    def _dealt(self, dealer: Position, holders: list[Position]) -> Dealing:
        return Dealing(
            self._cohort,
            dealer,
            holders,
            self._threshold,
            self._secrets,
            Prg(os.urandom(32)),
            lambda v: self._cohort.pad_key(self._agreed, dealer, v),
        )

    def _key(self, dealer: Position, holder: Position) -> bytes:
        return derive(self._agreed, labels.SHARE_KEY, *self._cohort.bound(dealer, holder))

    def _associated(self, dealer: Position, holder: Position) -> bytes:
        return transcript(labels.SHARE_KEY, *self._cohort.bound(dealer, holder))

    def _seal(self, dealer: Position, holder: Position, shares: bytes) -> bytes:
        return seal(self._key(dealer, holder), shares, self._associated(dealer, holder), os.urandom)
