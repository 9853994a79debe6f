"""The privacy cost of one sum over a tree of cohorts, which depends on what the adversary sees of the tree.

Each cohort is summed by itself, with noise of its own (``protocols.tree``). Whoever sees the sums of cohorts, as their
aggregators do, sees a client's data in one of them only: cohorts are disjoint, and drawn without looking at data. So
the cohort with the least noise stands for all, and nothing is multiplied by their number. (A user of silos who may be
in r of them, in whatever cohorts, is charged r^2 times for the one with the least noise: if k_1, k_2, ... of the silos
are in each, what is seen comes to k_1^2 + k_2^2 + ... times that at most, which is no more than r^2.)

Whoever sees the total alone sees it under the noise of all cohorts, except those whose aggregators tell what they saw.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from dp.events import DiscreteGaussians, Everyone, Guarantee, Relation, Release, Skellam
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
        kinds = {(c.dimension, c.l2_squared, c.l1, c.users, c.overlap, c.session, c.round) for c in self.cohorts}
        if len(kinds) > 1:
            raise UsageError("the cohorts of one round differ in their vectors or their round")
        if len({cohort.noise.family for cohort in self.cohorts}) > 1:
            raise UsageError("cohorts of one round add noise of one family: no bound is known for sums of two")
        if any(cohort.sampled < 1 for cohort in self.cohorts):
            raise UsageError("the cohorts of a tree have all their users in each sum: sampled is 1")
        if len({cohort.plan_digest for cohort in self.cohorts}) < len(self.cohorts):
            raise UsageError("a cohort counts once")

    def worst(self) -> TreeSum:
        """The sums as they are reserved before the round: with as many clients missing as the noise allows for."""
        return TreeSum(tuple(cohort.worst() for cohort in self.cohorts))

    def to_aggregators(self, guarantee: Guarantee) -> Release:
        """The event that the root and all aggregators together see: the sum of a client's own cohort.

        An aggregator in between, of cohorts of cohorts, is the root of those.
        """
        return self._under(min(self._variances()), guarantee)

    def to_root(self, guarantee: Guarantee, lost: int) -> Release:
        """The event that the root sees of honest aggregators' clients, if the noise of ``lost`` cohorts does not count.

        It does not if their aggregators tell what they saw, or (before the round) if they may not come through. Nobody
        knows which they are: those with the most noise. Users who may be in several silos may be in a cohort that is
        lost and in another one, too: for them there is no such bound.
        """
        if self.cohorts[0].overlap > 1:
            raise UsageError("a user in several silos may be in lost cohorts and in others: to_aggregators has a bound")
        honest = len(self.cohorts) - lost
        if not 0 < honest <= len(self.cohorts):
            raise UsageError(f"of {len(self.cohorts)} cohorts {lost} cannot be lost and another one left")
        return self._under(sum(self._variances()[:honest], Fraction(0)), guarantee)

    def _variances(self) -> list[Fraction]:
        """The variances of honest clients' noise in the cohorts' sums, the least first."""
        return sorted(cohort.noise.honest_variance(cohort.planned, cohort.survivors) for cohort in self.cohorts)

    def _under(self, variance: Fraction, guarantee: Guarantee) -> Release:
        if guarantee.relation is not Relation.ZERO_OUT:
            raise UsageError(
                "cohorts are disjoint under zero-out only: one client more, or another, and all are redrawn"
            )
        one = self.cohorts[0]
        one.check_holder(guarantee)
        if one.noise.family is Family.SKELLAM:
            return Release(Skellam(variance, one.l2_squared, one.l1), Everyone(), guarantee)
        draws = sum(cohort.noise.honest_draws(cohort.planned, cohort.survivors) for cohort in self.cohorts)
        return Release(DiscreteGaussians(variance, draws, one.dimension, one.l2_squared), Everyone(), guarantee)
