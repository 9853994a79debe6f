"""What both sides of the attack table work on: the same ten clients with the same vectors, and what an attack saw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CLIENTS, THRESHOLD, LENGTH = 10, 7, 1000
VICTIM = 4
"""Whose vector is wanted: its position, from 0."""
BITS = 16
SCALE = 1 << (BITS - 1)
"""Ours sums the integers, Flower the floats that are so many times smaller: exact in both, and below 1."""
WEIGHTS = tuple(520 + 37 * u for u in range(CLIENTS))
"""How many examples each has. In Flower all weigh; here, where it is about the weight."""


@dataclass(frozen=True, slots=True)
class Seen:
    """``works``: the attacker has what it wanted, compared with what the victim had. ``text``: what was observed."""

    works: bool
    text: str


def vectors() -> NDArray[np.int64]:
    """One row for each client."""
    return np.random.default_rng(1).integers(1 - SCALE, SCALE, (CLIENTS, LENGTH))


def compared(found: NDArray[np.int64], victim: int, how: str) -> Seen:
    """Whether this is the victim's vector, number by number."""
    right = int(np.count_nonzero(found == vectors()[victim]))
    return Seen(right == LENGTH, f"{how}: {right:,} of the victim's {LENGTH:,} numbers are exactly right")
