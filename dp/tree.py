"""What one sum over a tree of cohorts costs: it depends on where in the tree the adversary sits.

Each cohort is summed by itself, with noise of its own (``protocols.tree``). Whoever sees the sums of cohorts, as their
aggregators do, sees a client's data in one of them only: cohorts are disjoint, and drawn without looking at data. So
the cohort with the least noise stands for all, and nothing is multiplied by their number. Whoever sees the total alone
sees it under the noise of all cohorts, but for those whose aggregators tell what they saw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from dp.events import DiscreteGaussians, Everyone, Guarantee, Mechanism, Release, Skellam
from dp.noise import Family
from dp.secure_sum import SecureSum
from secagg.errors import UsageError


@dataclass(frozen=True, slots=True)
class TreeSum:
    """The cohorts of one round, each a secure sum of the same kind."""

    cohorts: tuple[SecureSum, ...]

    def __post_init__(self) -> None:
        if not self.cohorts:
            raise UsageError("a tree has at least one cohort")
        kinds = {(c.noise.family, c.dimension, c.l2_squared, c.l1, c.session, c.round) for c in self.cohorts}
        if len(kinds) > 1:
            raise UsageError("the cohorts of one round differ in their vectors, their noise or their round")
        if len({cohort.plan_digest for cohort in self.cohorts}) < len(self.cohorts):
            raise UsageError("a cohort counts once")

    def worst(self) -> TreeSum:
        """Before the round: as many clients missing everywhere as the noise allows for."""
        return TreeSum(tuple(cohort.worst() for cohort in self.cohorts))

    def to_aggregators(self, guarantee: Guarantee) -> Release:
        """To the root and all the aggregators together: the sum of a client's own cohort."""
        return Release(_combined(self.cohorts, guarantee, min), Everyone(), guarantee)

    def to_root(self, guarantee: Guarantee, corrupt: int) -> Release:
        """To the root with any ``corrupt`` of the aggregators, for the clients of the others.

        Nobody knows which they are: those of the cohorts with the most noise.
        """
        honest = len(self.cohorts) - corrupt
        if not 0 < honest <= len(self.cohorts):
            raise UsageError(f"of {len(self.cohorts)} aggregators {corrupt} cannot be corrupt and another one honest")
        quietest_first = sorted(self.cohorts, key=lambda cohort: cohort.noise.held(cohort.planned, cohort.survivors))
        return Release(_combined(quietest_first[:honest], guarantee, sum), Everyone(), guarantee)


def _combined(cohorts: Sequence[SecureSum], guarantee: Guarantee, combine: Callable[[Iterable[Any]], Any]) -> Mechanism:
    """Of one cohort or of many: independent Skellam noises add up to Skellam noise, discrete Gaussians to more of them,
    none of them smaller than the smallest."""
    noises: list[Any] = [cohort.release(guarantee).mechanism for cohort in cohorts]
    if cohorts[0].noise.family is Family.SKELLAM:
        return replace(cast(Skellam, noises[0]), variance=combine(noise.variance for noise in noises))
    each, parties = min(noise.each for noise in noises), combine(noise.parties for noise in noises)
    return replace(cast(DiscreteGaussians, noises[0]), parties=parties, each=each)
