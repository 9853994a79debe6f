"""Cohorts: the clients of a round that advertised (U1), as positions in the order of the roster, and sets of them.

A position in a cohort and a number in the roster are different types, so that a type checker sees a mix-up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NewType

from protocols.plan import RoundPlan
from protocols.rounds.survivors import Agreed
from secagg.crypto import labels
from secagg.crypto.keys import digest

_PLACE_BYTES = 4
"""As ``secagg.codec.u32`` writes it, at half the time: it is bound into every mask, share and signature."""

Position = NewType("Position", int)
"""Where a client is in the cohort, the first at 0."""


def positions(count: int) -> Sequence[Position]:
    """All of a cohort of so many clients."""
    return range(count)  # type: ignore[return-value]  # a range cannot say that its integers are positions


class Cohort:
    """The clients of U1 under their Merkle root. Whatever is signed or derived in it is bound to the plan and the root:
    every binding of a round goes through here, so that none forgets them."""

    def __init__(self, plan: RoundPlan, root: bytes, size: int) -> None:
        self.root, self.size = root, size
        self._plan = plan.digest()

    def bound(self, *places: Position) -> tuple[bytes, ...]:
        """The context of everything that is derived or signed in this cohort."""
        return (self._plan, self.root, *[position.to_bytes(_PLACE_BYTES, "big") for position in places])

    def agreed(self, bitmap: bytes) -> Agreed:
        """This set of survivors, as it is signed."""
        return Agreed(self.root, self.size, bitmap, digest(labels.SURVIVORS, *self.bound(), bitmap))
