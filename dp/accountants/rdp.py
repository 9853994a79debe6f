"""Renyi differential privacy at fixed integer orders: the accountant that filters and ledgers run on.

A curve holds one divergence for each order; curves add up. ``dp-accounting`` interprets what it knows, our own
formulas (``dp.accountants.sums``) the noise inside secure sums. Each (mechanism, sampling) has one handler, which names
the neighbouring relations for which it holds; whatever has none is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from functools import lru_cache
from math import inf, isfinite, log, log1p, sqrt
from typing import Any, TypeAlias

from dp.accountants import sums
from dp.accountants.composition import Composition, Handlers
from dp.events import (
    DiscreteGaussians,
    DiscreteLaplace,
    Event,
    Everyone,
    FixedSizeSample,
    Gaussian,
    PoissonSample,
    Relation,
    Selection,
    Skellam,
)
from secagg.errors import UsageError
from secagg.extras import needing

Orders: TypeAlias = tuple[int, ...]
Curve: TypeAlias = tuple[float, ...]

ORDERS: Orders = (*range(2, 65), *range(72, 257, 8), 320, 384, 448, 512, 768, 1024)

_HANDLERS: Handlers[Callable[[Any, Any, int, Orders], Iterable[float]]] = Handlers("RDP")
"""Functions from mechanism, sampling, stretch of the relation and orders to divergences."""


class RdpAccountant(Composition):
    """Adds up Renyi divergences.

    >>> from fractions import Fraction
    >>> from dp.events import Guarantee, Release, Trust, Unit
    >>> example = Guarantee(Unit.EXAMPLE, Relation.ZERO_OUT, Trust.LOCAL)
    >>> accountant = RdpAccountant()
    >>> accountant.compose(Release(Gaussian(Fraction(2)), PoissonSample(Fraction(1, 100)), example), count=1000)
    >>> round(accountant.epsilon(1e-5), 3)
    0.686
    """

    def __init__(self, orders: Orders = ORDERS) -> None:
        super().__init__()
        self.orders = orders

    def check(self, event: Event) -> None:
        curve(event, self.orders)

    @property
    def curve(self) -> Curve:
        return total([scaled(curve(event, self.orders), count) for event, count in self.events.items()], self.orders)

    def epsilon(self, delta: float) -> float:
        return epsilon(self.curve, delta, self.orders) if self.events else 0.0


@lru_cache(4096)
def curve(event: Event, orders: Orders = ORDERS) -> Curve:
    """The divergences of one event at ``orders``, which are infinite where no bound is known."""
    if isinstance(event, Selection):
        try:
            return _selection(event, orders)
        except ArithmeticError:
            raise UsageError("the numbers of this search are beyond floating point") from None
    relation = event.guarantee.relation
    handler = _HANDLERS.find(event)
    try:
        found = tuple(float(value) for value in handler(event.mechanism, event.sampling, relation.stretch, orders))
    except (ArithmeticError, ValueError):  # those of dp-accounting, too
        raise UsageError("the numbers of this event are beyond floating point: no bound can be computed") from None
    return tuple(value if isfinite(value) and value >= 0 else inf for value in found)


def scaled(values: Curve, count: int) -> Curve:
    """The curve of ``count`` equal events."""
    return tuple([count * value for value in values])


def total(curves: Iterable[Curve], orders: Orders = ORDERS) -> Curve:
    """The curve of a composition: the sum of its curves."""
    return tuple(map(sum, zip((0.0,) * len(orders), *curves, strict=True)))


def epsilon(values: Curve, delta: float, orders: Orders = ORDERS) -> float:
    """The best (epsilon, delta) that a curve implies (Canonne, Kamath and Steinke 2020, Proposition 12)."""
    return max(0.0, min(value - limit for value, limit in zip(values, limits(0.0, delta, orders), strict=True)))


def limits(budget: float, delta: float, orders: Orders = ORDERS) -> Curve:
    """The most divergence at each order for which (``budget``, ``delta``) holds. An order below zero is of no use.

    >>> [round(limit, 2) for limit in limits(1.0, 1e-5, orders=(2, 10, 100))]
    [-9.13, 0.08, 0.94]
    """
    if not 0 < delta < 1:
        raise UsageError(f"delta must be between 0 and 1, not {delta}")
    return tuple([budget - log1p(-1 / order) + log(delta * order) / (order - 1) for order in orders])


@_HANDLERS.add(Gaussian, Everyone, *Relation)
def _gaussian(mechanism: Gaussian, _sampling: Everyone, stretch: int, orders: Orders) -> Iterable[float]:
    moved = stretch / mechanism.noise_multiplier
    return [float(order * moved * moved / 2) for order in orders]


@_HANDLERS.add(Gaussian, PoissonSample, Relation.ADD_OR_REMOVE, Relation.ZERO_OUT)
def _poisson_gaussian(mechanism: Gaussian, sampling: PoissonSample, _stretch: int, orders: Orders) -> Iterable[float]:
    with needing("dp", "this accountant"):
        import dp_accounting as dpa

    noise = dpa.GaussianDpEvent(float(mechanism.noise_multiplier))
    return _interpreted(dpa.PoissonSampledDpEvent(float(sampling.rate), noise), "ADD_OR_REMOVE_ONE", orders)


@_HANDLERS.add(Gaussian, FixedSizeSample, Relation.REPLACE_ONE)
def _fixed_size_gaussian(
    mechanism: Gaussian, sampling: FixedSizeSample, stretch: int, orders: Orders
) -> Iterable[float]:
    """By Wang, Balle and Kasiviswanathan 2019, Theorem 27, where the sensitivity is that of a replacement."""
    with needing("dp", "this accountant"):
        import dp_accounting as dpa

    noise = dpa.GaussianDpEvent(float(mechanism.noise_multiplier / stretch))
    sampled = dpa.SampledWithoutReplacementDpEvent(sampling.population, sampling.size, noise)
    return _interpreted(sampled, "REPLACE_ONE", orders)


@_HANDLERS.add(DiscreteLaplace, Everyone, *Relation)
def _laplace(mechanism: DiscreteLaplace, _sampling: Everyone, stretch: int, orders: Orders) -> Iterable[float]:
    """Pure epsilon bounds each divergence, and so does order * epsilon^2 / 2 (Bun and Steinke 2016)."""
    pure = float(stretch * mechanism.l1 / mechanism.scale)
    return [min(pure, order * pure * pure / 2) for order in orders]


@_HANDLERS.add(Skellam, Everyone, *Relation)
def _skellam(mechanism: Skellam, _sampling: Everyone, stretch: int, orders: Orders) -> Iterable[float]:
    variance, l2_squared, l1 = float(mechanism.variance), stretch**2 * mechanism.l2_squared, stretch * mechanism.l1
    return [sums.skellam(order, variance, l2_squared, l1) for order in orders]


@_HANDLERS.add(DiscreteGaussians, Everyone, *Relation)
def _gaussians(mechanism: DiscreteGaussians, _sampling: Everyone, stretch: int, orders: Orders) -> Iterable[float]:
    moved = sums.moved_squared(mechanism.variance, stretch**2 * mechanism.l2_squared)
    close = sums.closeness(mechanism.draws, mechanism.dimension)
    return [sums.discrete_gaussians(order, moved, close) for order in orders]


@_HANDLERS.add(DiscreteGaussians, PoissonSample, Relation.ADD_OR_REMOVE, Relation.ZERO_OUT)
def _poisson_gaussians(
    mechanism: DiscreteGaussians, sampling: PoissonSample, _stretch: int, orders: Orders
) -> Iterable[float]:
    """What the sampled Gaussian has that the sum is close to, and for being close what the sum without sampling has."""
    moved = sums.moved_squared(mechanism.variance, mechanism.l2_squared)
    close = sums.closeness(mechanism.draws, mechanism.dimension)
    gaussian = _poisson_gaussian(Gaussian(Fraction(1 / sqrt(moved))), sampling, 1, orders)
    far = [sums.discrete_gaussians(order, Fraction(0), close) for order in orders]
    return [value + more for value, more in zip(gaussian, far, strict=True)]


def _selection(event: Selection, orders: Orders) -> Curve:
    """By Papernot and Steinke 2022, Theorem 2, for the geometric distribution (eta = 1)."""
    one = scaled(curve(event.release, orders), event.steps)
    gamma = 1 / float(event.mean_runs)
    fixed = min(2 * ((1 - 1 / order) * value - log(gamma) / order) for order, value in zip(orders, one, strict=True))
    selected = [
        value + fixed + log(float(event.mean_runs)) / (order - 1) for order, value in zip(orders, one, strict=True)
    ]
    return tuple(min(selected[i:]) for i in range(len(selected)))  # a divergence only grows with the order


def _interpreted(event: Any, relation: str, orders: Orders) -> Iterable[float]:
    with needing("dp", "this accountant"):
        from dp_accounting import NeighboringRelation
        from dp_accounting.rdp import RdpAccountant as Interpreter

    interpreter = Interpreter(list(orders), NeighboringRelation[relation])
    interpreter.compose(event)
    divergences: Iterable[float] = interpreter.rdp
    return divergences
