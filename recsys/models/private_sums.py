"""How private models learn from users: by sums of bounded vectors, noised before anybody sees them.

A model says what each user adds, of L2 norm at most 1, and gets the sum over all users plus noise of a known size.
Who adds, masks and noises is not the model's business: the secure protocol, the ideal functionality,
and ``exact_sums`` (without privacy) all look the same from here.

The squared noise budget is shared out among a model's sums. With a noise multiplier z for one release of everything,
a sum with share s carries noise of deviation z / sqrt(s); sums whose shares add up to one cost together what one
release at z costs (Gaussian mechanisms compose by adding up 1 / z^2; Dong et al. 2022, "Gaussian Differential
Privacy", Cor. 2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from recsys.data.interactions import History
from secagg.errors import UsageError

Contribution: TypeAlias = Callable[[History], NDArray[np.float64]]
"""What one user adds, computed on the device from the history alone. Its L2 norm is at most 1."""


@dataclass(frozen=True, slots=True, eq=False)
class Noised:
    """A sum over users, and how noisy it is."""

    vector: NDArray[np.float64]
    deviation: float
    """Standard deviation of the noise on each coordinate, in the units of ``vector``; 0 without privacy."""
    users: int
    """How many users were planned, a public constant. Who came is not for a model to know."""

    def __post_init__(self) -> None:
        if self.vector.ndim != 1:
            raise UsageError("a sum is one vector")
        if not (math.isfinite(self.deviation) and self.deviation >= 0):
            raise UsageError(f"the deviation of noise is a finite number from 0 on, not {self.deviation}")
        if self.users < 1:
            raise UsageError("a sum is over at least one user")
        self.vector.flags.writeable = False


class Sums(Protocol):
    """Asks all users for a vector and returns the noised sum. Each call is a release, and is charged."""

    def __call__(self, purpose: str, length: int, share: Fraction, contribution: Contribution) -> Noised:
        """``purpose`` is for people and the ledger; ``share`` is this sum's part of the squared noise budget."""


def exact_sums(histories: Sequence[History]) -> Sums:
    """Sums without noise, over users. Where clients hold many users, theirs are others: each client counts as one.

    >>> sums = exact_sums([np.array([0, 1], np.int32), np.array([1], np.int32)])
    >>> counts = sums("popularity", 3, Fraction(1), lambda history: np.bincount(history, minlength=3) / 2)
    >>> counts.vector, counts.deviation, counts.users
    (array([0.5, 1. , 0. ]), 0.0, 2)
    """

    def add(purpose: str, length: int, share: Fraction, contribution: Contribution) -> Noised:
        total = np.zeros(length)
        for history in histories:
            total += contribution(history)
        return Noised(total, 0.0, len(histories))

    return add
