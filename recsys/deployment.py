"""How the parties of a run are set up: which protocol, against whom, and how many may be corrupt or drop out."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from dp.noise import Family, NoiseSpec
from protocols.parameters import check_adversary, rules_of
from secagg.assumptions import Adversary, CostModel, colluders, fraction

_COMPONENTS = 4
"""Excess noise is taken off in at most this many parts: each costs every client one more draw of full length."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """``corrupt`` and ``dropout`` are fractions of a cohort."""

    protocol: str = "secagg+"
    adversary: Adversary = Adversary.ACTIVE
    corrupt: str = "0.05"
    dropout: str = "0.1"

    def __post_init__(self) -> None:
        object.__setattr__(self, "adversary", Adversary(self.adversary))
        check_adversary(self.protocol, self.adversary)
        fraction(self.corrupt), fraction(self.dropout)

    def dropouts(self, clients: int) -> int:
        """How many clients of a cohort of this size may drop out."""
        return int(fraction(self.dropout) * clients)

    def corrupt_of(self, clients: int, *, noised: bool) -> Fraction:
        """The fraction of a cohort of this size that may be corrupt: with noise, no fewer than it is counted against.

        >>> Deployment().corrupt_of(11, noised=False), Deployment().corrupt_of(11, noised=True)
        (Fraction(1, 20), Fraction(1, 11))
        """
        asked = fraction(self.corrupt)
        return max(asked, Fraction(colluders(asked, clients), clients)) if noised else asked

    def parameters(self, clients: int, *, noised: bool) -> object:
        """The protocol's parameters for a cohort of this size; ``UsageError`` if no parameters resist that much."""
        choose, corrupt = rules_of(self.protocol).choose, self.corrupt_of(clients, noised=noised)
        return choose(clients, corrupt, fraction(self.dropout), self.adversary, 40, 20, CostModel.CORE_SVP)

    def noise(self, clients: int) -> NoiseSpec:
        """The kind of noise for a cohort of this size, with variance 1. What was drawn for dropouts who did not drop
        out is taken off in a few parts."""
        dropouts, known = self.dropouts(clients), colluders(self.corrupt, clients)
        return NoiseSpec(Family.DISCRETE_GAUSSIAN, Fraction(1), dropouts, known, min(dropouts, _COMPONENTS))
