"""What a round gives back: one sum, and the facts that privacy accounting needs."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from protocols.plan import RoundPlan
from secagg.encoding import Sum


@dataclass(frozen=True, slots=True)
class RoundEvent:
    """What really happened, as the server saw it. Names are in roster order."""

    plan: RoundPlan
    advertised: tuple[str, ...]
    """Who was in the cohort (U1)."""
    survivors: tuple[str, ...]
    """Whose vectors are in the sum (U3)."""
    survivors_digest: bytes = field(repr=False)
    """What the survivors signed: plan, cohort and the set of survivors."""
    signatures: tuple[tuple[str, bytes], ...] = field(repr=False)
    """(name, Ed25519 signature) over that digest."""
    excess_left: tuple[str, ...] = ()
    """Survivors who fell silent before their removable noise was taken off: more noise than planned, never less."""


@dataclass(frozen=True, slots=True)
class RoundOutcome:
    """The sum of the survivors' integer vectors, exact, and the event it came from."""

    total: NDArray[np.int64]
    survivors: tuple[str, ...]
    event: RoundEvent

    def __post_init__(self) -> None:
        self.total.flags.writeable = False

    def decode(self) -> Sum:
        """The sum in the units of the updates."""
        return self.event.plan.decode_total(self.total, len(self.survivors))
