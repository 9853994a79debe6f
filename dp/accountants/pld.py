"""Privacy loss distributions: tighter than Renyi orders for continuous noise; for planned schedules and comparisons.

``dp-accounting`` does the work. Its REPLACE_ONE doubles the sensitivity itself, unlike its RDP accountant, so the noise
multiplier goes in as it is. Sums of discrete Gaussians have the distribution of the Gaussian that they are close to,
and how close is added to epsilon and delta. None is known for Skellam noise, which ``dp.accountants.rdp`` bounds.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from math import exp, sqrt
from typing import Any

from dp.accountants import sums
from dp.accountants.composition import Composition, Handlers
from dp.events import (
    DiscreteGaussians,
    DiscreteLaplace,
    Event,
    Everyone,
    Gaussian,
    PoissonSample,
    Relation,
    Release,
    Selection,
)
from secagg.errors import UsageError
from secagg.extras import needing

INTERVAL = 1e-4
"""Privacy losses are rounded up to multiples of this."""

_HANDLERS: Handlers[Callable[[Any, Any, Relation, int], Any]] = Handlers("PLD")
"""Functions from mechanism, sampling, relation and count to a privacy loss distribution."""

_RELATIONS = {
    Relation.ADD_OR_REMOVE: "ADD_OR_REMOVE_ONE",
    Relation.REPLACE_ONE: "REPLACE_ONE",
    Relation.ZERO_OUT: "REPLACE_SPECIAL",
}


class PldAccountant(Composition):
    """Composes privacy loss distributions.

    >>> from fractions import Fraction
    >>> from dp.events import Guarantee, Trust, Unit
    >>> example = Guarantee(Unit.EXAMPLE, Relation.ZERO_OUT, Trust.LOCAL)
    >>> accountant = PldAccountant()
    >>> accountant.compose(Release(Gaussian(Fraction(1)), PoissonSample(Fraction(1, 10)), example), count=100)
    >>> round(accountant.epsilon(1e-5), 2)
    7.05
    """

    def check(self, event: Event) -> None:
        if isinstance(event, Selection):
            raise UsageError("no PLD bound is known for a selection among runs")
        _HANDLERS.find(event)

    def epsilon(self, delta: float) -> float:
        distributions = [_distribution(event, count) for event, count in self.events.items()]
        if not distributions:
            return 0.0
        composed = distributions[0]
        for distribution in distributions[1:]:
            composed = composed.compose(distribution)
        close = float(sum(_closeness(event) * count for event, count in self.events.items()))
        return 2 * close + float(composed.get_epsilon_for_delta(delta * exp(-close) * (1 - 1e-15 * (close > 0))))


def _closeness(event: Event) -> Fraction:
    mechanism = None if isinstance(event, Selection) else event.mechanism
    return (
        sums.closeness(mechanism.draws, mechanism.dimension)
        if isinstance(mechanism, DiscreteGaussians)
        else Fraction(0)
    )


@lru_cache(128)
def _distribution(event: Release, count: int) -> Any:
    return _HANDLERS.find(event)(event.mechanism, event.sampling, event.guarantee.relation, count)


@_HANDLERS.add(Gaussian, Everyone, *Relation)
def _gaussian(mechanism: Gaussian, _sampling: Everyone, relation: Relation, count: int) -> Any:
    return _gaussian_loss(float(mechanism.noise_multiplier) / count**0.5, 1.0, relation)


@_HANDLERS.add(Gaussian, PoissonSample, *Relation)
def _poisson_gaussian(mechanism: Gaussian, sampling: PoissonSample, relation: Relation, count: int) -> Any:
    return _gaussian_loss(float(mechanism.noise_multiplier), float(sampling.rate), relation).self_compose(count)


@_HANDLERS.add(DiscreteGaussians, Everyone, *Relation)
def _gaussians(mechanism: DiscreteGaussians, _sampling: Everyone, relation: Relation, count: int) -> Any:
    moved = sums.moved_squared(mechanism.variance, mechanism.l2_squared)
    return _gaussian_loss(1 / sqrt(count * moved), 1.0, relation)


@_HANDLERS.add(DiscreteGaussians, PoissonSample, Relation.ADD_OR_REMOVE, Relation.ZERO_OUT)
def _poisson_gaussians(mechanism: DiscreteGaussians, sampling: PoissonSample, relation: Relation, count: int) -> Any:
    moved = sums.moved_squared(mechanism.variance, mechanism.l2_squared)
    return _gaussian_loss(1 / sqrt(moved), float(sampling.rate), relation).self_compose(count)


@_HANDLERS.add(DiscreteLaplace, Everyone, *Relation)
def _laplace(mechanism: DiscreteLaplace, _sampling: Everyone, relation: Relation, count: int) -> Any:
    with needing("dp", "this accountant"):
        from dp_accounting.pld import privacy_loss_distribution as pld

    loss = pld.from_discrete_laplace_mechanism(
        parameter=float(1 / mechanism.scale),
        sensitivity=relation.stretch * mechanism.l1,
        value_discretization_interval=INTERVAL,
    )
    return loss.self_compose(count)


def composed(event: Release, count: int, interval: float) -> tuple[Any, int, int]:
    """The distribution of ``count`` releases of Gaussian noise with Poisson sampling, and in how many numbers that of
    one is kept, and that of all. Losses are rounded up to multiples of ``interval``."""
    if not isinstance(event.mechanism, Gaussian) or not isinstance(event.sampling, PoissonSample):
        raise UsageError("only releases of Gaussian noise with Poisson sampling are composed on a grid that is chosen")
    deviation, rate = float(event.mechanism.noise_multiplier), float(event.sampling.rate)
    one = _gaussian_loss(deviation, rate, event.guarantee.relation, interval)
    all_of_them = one.self_compose(count)
    single, every = (max(loss._pmf_remove.size, loss._pmf_add.size) for loss in (one, all_of_them))
    return all_of_them, single, max(single, every)


def _gaussian_loss(deviation: float, rate: float, relation: Relation, interval: float | None = None) -> Any:
    with needing("dp", "this accountant"):
        from dp_accounting import NeighboringRelation
        from dp_accounting.pld import privacy_loss_distribution as pld

    return pld.from_gaussian_mechanism(
        standard_deviation=deviation,
        value_discretization_interval=INTERVAL if interval is None else interval,
        sampling_prob=rate,
        neighboring_relation=NeighboringRelation[_RELATIONS[relation]],
    )
