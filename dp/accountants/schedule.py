"""What a schedule of equal steps costs that is fixed before its first step: their number, their noise, their sampling.

Where nothing is left to be chosen, the epsilon of all steps together is that of their composition, and no filter is
needed, which may pay for orders that it does not use. Stopping early is free: whoever sees the first steps sees a part
of what all of them would have shown. Steps that are not in the schedule are in no such number.

Without sampling it is the exact epsilon of Gaussian noise (``dp.accountants.gdp``). With Poisson sampling it is that of
a privacy loss distribution (``dp.accountants.pld``), in both directions that zero-out has: with the unit a step gives a
mixture of N(0, z^2) and N(1, z^2), without it the former. The larger epsilon counts (Zhu, Dong and Wang 2022).

All errors of that number go up. Losses are put onto a grid from above ("connecting the dots", Doroshenko et al. 2022),
what is cut off the tails counts as lost, and what floating point may do to the Fourier transform, to its power, and to
the probabilities on the grid is set aside from delta (``_rounding``). Where that is more than half of delta, as it is
for very many steps, and where Renyi orders say less, these decide: of two bounds on a plan the smaller one holds.

Steps add discrete Gaussian noise of a parameter of 2^44 (``dp.training.noise``). For each number that is within 2^-111,
in log ratio, of a Gaussian of 4 less that is rounded (docs/gaussian_sums.md), and what is mixed by a sample is as
close. The clip is smaller by 2^-40 of itself, which is more than these 4. ``gdp.MOST_CLOSE`` pays for the distance, up
to 10^21 numbers.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from math import ceil, exp, inf, log2, sqrt

from dp.accountants import gdp, pld, rdp
from dp.events import Event, Everyone, Gaussian, PoissonSample, Relation, Release, Selection
from secagg.errors import UsageError

INTERVAL = 1e-3
"""Losses are multiples of this: within 0.1% of the epsilon on a grid ten times as fine for up to 2,000 steps, and
within 0.6% for 10,000 (a test)."""

_LARGEST = 1000
"""Above any budget's epsilon, and not computed any more."""


def scheduled(event: Release) -> tuple[Fraction, Fraction]:
    """The noise multiplier of a step, over how far neighbours move it, and its rate of sampling.

    What no schedule can be made of is refused.

    >>> from dp.events import Guarantee, Trust, Unit
    >>> example = Guarantee(Unit.EXAMPLE, Relation.ZERO_OUT, Trust.LOCAL)
    >>> scheduled(Release(Gaussian(Fraction(2)), PoissonSample(Fraction(1, 10)), example))
    (Fraction(2, 1), Fraction(1, 10))
    """
    if isinstance(event.mechanism, Gaussian):
        stretch = event.guarantee.relation.stretch
        multiplier, sampling = event.mechanism.noise_multiplier / stretch, event.sampling
        if isinstance(sampling, Everyone):
            return multiplier, Fraction(1)
        if isinstance(sampling, PoissonSample) and (
            sampling.rate == 1 or event.guarantee.relation is not Relation.REPLACE_ONE
        ):
            return multiplier, sampling.rate
    raise UsageError("a schedule is of steps with Gaussian noise, without sampling or with Poisson sampling")


def covers(planned: Event, step: Event) -> bool:
    """Whether a step is one of those that are planned, or costs less: a batch from more examples is a smaller sample.

    >>> from dp.events import Guarantee, Trust, Unit
    >>> example = Guarantee(Unit.EXAMPLE, Relation.ZERO_OUT, Trust.LOCAL)
    >>> tenth, fifth = (Release(Gaussian(Fraction(2)), PoissonSample(Fraction(1, n)), example) for n in (10, 5))
    >>> covers(fifth, tenth), covers(tenth, fifth)
    (True, False)
    """
    if planned.guarantee != step.guarantee or isinstance(planned, Selection) or isinstance(step, Selection):
        return False
    (noise, rate), (other_noise, other_rate) = scheduled(planned), scheduled(step)
    return noise == other_noise and other_rate <= rate


@lru_cache(256)
def least_epsilon(event: Event, count: int, delta: Fraction, interval: float = INTERVAL) -> int | None:
    """The epsilon of ``count`` such steps at ``delta``, in multiples of 1 / RESOLUTION, rounded up: one at the least.

    None if there is no bound. On a grid of a larger ``interval`` it is a little more, and found sooner.

    >>> from dp.events import Guarantee, Trust, Unit
    >>> example = Guarantee(Unit.EXAMPLE, Relation.ZERO_OUT, Trust.LOCAL)
    >>> everybody = Release(Gaussian(Fraction(10)), Everyone(), example)
    >>> least_epsilon(everybody, 100, Fraction(1, 10**5)) / gdp.RESOLUTION
    4.377178095684
    """
    if isinstance(event, Selection):
        raise UsageError("a schedule is of steps that are all taken, and not of the best of several runs")
    multiplier, rate = scheduled(event)
    if count < 1:
        raise UsageError(f"a schedule has at least one step, not {count}")
    if rate == 1:
        total = count / multiplier**2
        return max(1, gdp.least_epsilon(total, delta)) if total <= _LARGEST else None
    by_orders = rdp.epsilon(rdp.scaled(rdp.curve(event), count), float(delta))
    if not by_orders <= _LARGEST:
        return None
    found = min(by_orders, _of_distribution(event, count, delta, interval))
    return max(1, ceil(Fraction(found * (1 + 2.0**-40)) * gdp.RESOLUTION))


def _of_distribution(event: Release, count: int, delta: Fraction, interval: float) -> float:
    distribution, single, every = pld.composed(event, count, interval)
    close = float(gdp.MOST_CLOSE)
    left = float(delta) * exp(-close) - _rounding(single, 2 * every, count)
    return 2 * close + float(distribution.get_epsilon_for_delta(left)) if left > float(delta) / 2 else inf


def _rounding(single: int, size: int, count: int) -> float:
    """By how much floating point may change a sum of ``size`` probabilities, of ``count`` steps of ``single`` each.

    A transform errs by less than 8 log2(size) u of its norm, u = 2^-53 (Higham 2002, Theorem 24.2), its power ``count``
    times as much, and a sum of ``size`` numbers by root size times their norm, which is at most 1. The probabilities of
    one step are differences of two that are rounded.
    """
    return count * 2.0**-53 * (8 * log2(size) * sqrt(size) + 2 * single)
