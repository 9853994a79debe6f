"""A privacy filter: says before each release whether the budget still allows it.

Who survives a round decides how much noise is in its sum, so the parameters of a run are chosen as it goes on. A budget
has one kind, fixed before the run, and nobody takes the better of two: which one that is may depend on what came out.

**gdp**, for sums of discrete Gaussians and for Gaussian noise without sampling: mu^2 of each release is known before it
opens, and adds up. With a bound on the sum that is fixed in advance, all releases together are as private as one
Gaussian with that mu^2 (Smith and Thakurta 2022; Koskela, Tobaben and Honkela 2023), so the filter stops exactly where
(epsilon, delta) stops to hold. Releases are not quite Gaussian; how far they are is paid for once and for all
(``gdp.MOST_CLOSE``), and the number of samples bounds it. Everything else is refused.

**schedule**, for one party's steps that are all fixed before the first: how many, with which noise, sampled how. They
are reserved as one, which costs their epsilon (``dp.accountants.schedule``), and nothing beside them is allowed, before
or after: two schedules would have to share delta, and which one is taken may depend on what came out. Taking fewer
steps costs as much as taking all.

**renyi**, for everything: for ONE order fixed in advance, Renyi divergences chosen that way add up as if they had been
planned (Feldman and Zrnic 2021, "Individual Privacy Accounting via a Renyi Filter"; Lecuyer 2021). "Go on while some
order has room" claims more: which order that is may depend on what came out, and only families of mechanisms that are
totally ordered get it for nothing (Regehr et al. 2026, "Privacy Filters are Captured by Residues"). So the orders share
delta. Sort the possible runs by an order that has room at their end: those of order a are also runs of the filter of a
alone, which fails by at most its share of delta. Summed over the orders that is delta. One order, chosen before the
run, gets 99%: that costs 0.1% of the noise. The others say early in a run how little has been spent, and may decide
when the choice was not the best.

Everything is counted in integers, so that an auditor's sums are the same to the last digit: mu^2, divergences and
epsilons are multiples of 10^-12, costs rounded up and limits rounded down.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import ROUND_FLOOR, Decimal, localcontext
from enum import StrEnum
from fractions import Fraction
from functools import lru_cache
from math import ceil, floor
from typing import Self, TypeAlias

from dp.accountants import gdp, rdp, schedule, sums
from dp.accountants.rdp import ORDERS
from dp.events import DiscreteGaussians, Event, Everyone, Release
from secagg.crypto.sampling import STATISTICAL_DISTANCE
from secagg.errors import BudgetError, UsageError

RESOLUTION = gdp.RESOLUTION
"""Costs and epsilons are counted in integer multiples of 1 / RESOLUTION."""


class Kind(StrEnum):
    """What a budget counts."""

    GDP = "gdp"
    """mu^2 of Gaussian noise"""
    RENYI = "renyi"
    """divergences at each of ``ORDERS``"""
    SCHEDULE = "schedule"
    """the epsilon of one schedule of steps, which is reserved as a whole"""


Amounts: TypeAlias = tuple[int | None, ...]
"""One number for each of ``ORDERS`` under ``Kind.RENYI``, otherwise one, in multiples of 1 / RESOLUTION; None where no
bound is known."""

SHARE = Fraction(99, 100)
"""The part of delta that the budget's own order has; the other orders share the rest."""

_MOST_SAMPLES = floor(gdp.MOST_CLOSE / (2 * sums.SPREAD))
"""So many discrete Gaussians keep all releases within ``gdp.MOST_CLOSE`` of Gaussian ones."""

_LARGEST_EPSILON = 500
_DIGITS = 50


@dataclass(frozen=True, slots=True)
class Budget:
    """A privacy budget: all releases together are to be (``epsilon``, ``delta``)-private.

    The part ``slack`` of delta is set aside because samplers are not exact. ``kind`` says what is counted, and so which
    releases can be charged. Under ``Kind.RENYI`` ``order`` is the order that is expected to decide. The default suits
    divergences that grow in proportion to the order, those of noise without sampling. ``suited`` finds kind and order
    for releases that are decided on one by one.

    >>> Budget(Fraction(4), Fraction(1, 10**6), slack=Fraction(1, 10**9)).order
    7
    """

    epsilon: Fraction
    delta: Fraction
    slack: Fraction
    order: int = 0
    kind: Kind = Kind.RENYI

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", Kind(self.kind))
        for name in ("epsilon", "delta", "slack"):
            if not isinstance(getattr(self, name), Fraction | int):
                raise UsageError(f"{name} is an exact rational (a Fraction)")
            object.__setattr__(self, name, Fraction(getattr(self, name)))
        if not 0 < self.epsilon <= _LARGEST_EPSILON:
            raise UsageError(f"epsilon is above 0 and at most {_LARGEST_EPSILON}")
        if not 0 <= self.slack < self.delta < 1:
            raise UsageError("delta is below 1, and its slack below delta")
        if self.kind is not Kind.RENYI:
            if self.order != 0:
                raise UsageError(f"a budget of kind {self.kind} has no orders")
            if self.delta - self.slack < gdp.SMALLEST_DELTA:
                raise UsageError(f"delta less its slack is at least {float(gdp.SMALLEST_DELTA):g}")
            return
        if self.order == 0:
            object.__setattr__(self, "order", self._best(ORDERS))
        if self.order not in ORDERS:
            raise UsageError(f"{self.order} is none of the orders")

    @classmethod
    def suited(cls, event: Event, epsilon: Fraction, delta: Fraction, slack: Fraction) -> Self:
        """A budget for many releases like ``event``.

        It is of kind gdp for sums of discrete Gaussians without sampling, and else of the order at which ``event`` can
        be released most often.
        """
        kinds = (type(event.mechanism), type(event.sampling)) if isinstance(event, Release) else ()
        if kinds == (DiscreteGaussians, Everyone):
            return cls(epsilon, delta, slack, kind=Kind.GDP)
        budget = cls(epsilon, delta, slack)
        return replace(budget, order=budget._best(rdp.curve(event)))

    def _best(self, divergences: Sequence[float]) -> int:
        limits = rdp.limits(float(self.epsilon), float(self.delta - self.slack))
        return max(zip(ORDERS, limits, divergences, strict=True), key=lambda entry: entry[1] / entry[2])[0]

    @lru_cache(16)  # noqa: B019 - budgets are few and small
    def limits(self) -> tuple[int, ...]:
        """The most that may be spent: of mu^2, of epsilon, or at each order.

        Divergences are those of ``rdp.limits`` for each order's share of delta. All is computed in decimals, which
        round alike on every machine.
        """
        if self.kind is Kind.GDP:
            return (gdp.largest_total(self.epsilon, self.delta - self.slack),)
        if self.kind is Kind.SCHEDULE:
            return (floor(self.epsilon * RESOLUTION),)
        found, others = [], (1 - SHARE) / (len(ORDERS) - 1)
        with localcontext(prec=_DIGITS):
            for order in ORDERS:
                share = (self.delta - self.slack) * (SHARE if order == self.order else others)
                limit = _decimal(self.epsilon) - _decimal(1 - Fraction(1, order)).ln()
                limit += _decimal(share * order).ln() / (order - 1)
                found.append(int((limit * RESOLUTION).to_integral_value(ROUND_FLOOR)))
        return tuple(found)

    def samples(self) -> int:
        """How many samples may be drawn: each is within h of its law, which adds (1 + e^epsilon) h to delta.

        Under ``Kind.GDP`` each may be one of a sum of discrete Gaussians, which is so much farther from a Gaussian.
        """
        with localcontext(prec=_DIGITS):
            allowed = _decimal(self.slack / STATISTICAL_DISTANCE) / (1 + _decimal(self.epsilon).exp())
            found = int(allowed.to_integral_value(ROUND_FLOOR))
        return min(found, _MOST_SAMPLES) if self.kind is Kind.GDP else found


_REFUSED_TIMES = 4
"""What is refused since it costs more than so many times the budget is said to reach any epsilon."""


def _decimal(value: Fraction) -> Decimal:
    return Decimal(value.numerator) / value.denominator


@dataclass(frozen=True, slots=True)
class PrivacyCost:
    """What a release takes from a budget: mu^2, divergences or epsilon, and how many samples are drawn for it."""

    amounts: Amounts = (0,) * len(ORDERS)
    samples: int = 0

    def __post_init__(self) -> None:
        if self.samples < 0 or any(value is not None and value < 0 for value in self.amounts):
            raise UsageError("nothing costs less than nothing")

    @classmethod
    def nothing(cls, kind: Kind) -> Self:
        return cls((0,) * (len(ORDERS) if kind is Kind.RENYI else 1))

    @classmethod
    def of(
        cls,
        event: Event,
        count: int = 1,
        samples: int = 0,
        kind: Kind = Kind.RENYI,
        failing: Fraction = Fraction(0),
    ) -> Self:
        """The cost of ``count`` times ``event``, for which ``samples`` integers are drawn in all.

        ``failing``, delta less its slack, is what the epsilon of a schedule holds at; other kinds do not need it.

        >>> from dp.events import Everyone, Gaussian, Guarantee, Relation, Trust, Unit
        >>> user = Guarantee(Unit.USER, Relation.ZERO_OUT, Trust.CENTRAL)
        >>> PrivacyCost.of(Release(Gaussian(Fraction(3)), Everyone(), user), count=2, kind=Kind.GDP).amounts
        (222222222224,)
        """
        if count < 1:
            raise UsageError(f"an event is charged at least once, not {count} times")
        if kind is Kind.GDP:
            moved, close = gdp.moved(event)
            if count * close > 2 * sums.SPREAD * samples:
                raise UsageError("a sum of discrete Gaussians is charged with all samples that were drawn for it")
            return cls((count * ceil(moved * RESOLUTION),), samples)
        if kind is Kind.SCHEDULE:
            return cls((schedule.least_epsilon(event, count, failing),), samples)
        curve = [value if value < float("inf") else None for value in rdp.curve(event)]
        return cls(tuple(None if value is None else count * _up(value) for value in curve), samples)

    def __add__(self, other: PrivacyCost) -> PrivacyCost:
        added = [None if a is None or b is None else a + b for a, b in zip(self.amounts, other.amounts, strict=True)]
        return PrivacyCost(tuple(added), self.samples + other.samples)

    def __sub__(self, other: PrivacyCost) -> PrivacyCost:
        """What is left of it; ``UsageError`` where the other is more."""
        left = [None if a is None or b is None else a - b for a, b in zip(self.amounts, other.amounts, strict=True)]
        return PrivacyCost(tuple(left), self.samples - other.samples)


def most_of(costs: Iterable[PrivacyCost]) -> PrivacyCost:
    """The most mu^2 and the most samples of any of them, under ``Kind.GDP``.

    >>> most_of([PrivacyCost((1,), 2), PrivacyCost((2,), 1)])
    PrivacyCost(amounts=(2,), samples=2)
    """
    every = list(costs)
    amounts = max(amount for one in every if (amount := one.amounts[0]) is not None)
    return PrivacyCost((amounts,), max(one.samples for one in every))


def _up(value: float) -> int:
    numerator, denominator = value.as_integer_ratio()
    return -(-numerator * RESOLUTION // denominator)


@dataclass(frozen=True, slots=True)
class Filter:
    """What has been spent and reserved, and the limits. Each method returns a new filter, or raises ``BudgetError``.

    >>> from dp.events import Everyone, Gaussian, Guarantee, Relation, Release, Trust, Unit
    >>> user = Guarantee(Unit.USER, Relation.ADD_OR_REMOVE, Trust.CENTRAL)
    >>> cost = PrivacyCost.of(Release(Gaussian(Fraction(3)), Everyone(), user))
    >>> once = Filter.of(Budget(Fraction(2), Fraction(1, 10**5), slack=Fraction(0))).reserve("first", cost)
    >>> once.commit("first", cost).reserve("second", cost)
    Traceback (most recent call last):
    secagg.errors.BudgetError: with this release epsilon could reach 2.03024, the budget allows 2
    """

    epsilon: int
    limits: tuple[int, ...] = field(repr=False)
    samples: int
    spent: PrivacyCost = field(default=PrivacyCost(), repr=False)
    reserved: Mapping[str, PrivacyCost] = field(default_factory=dict, repr=False)
    failing: Fraction | None = field(default=None, repr=False)
    """Under ``Kind.GDP``: delta less its slack."""
    scheduled: bool = False
    """Under ``Kind.SCHEDULE``: one reservation, and no other."""

    @classmethod
    def of(cls, budget: Budget) -> Self:
        failing = budget.delta - budget.slack if budget.kind is Kind.GDP else None
        spent = PrivacyCost.nothing(budget.kind)
        epsilon, scheduled = ceil(budget.epsilon * RESOLUTION), budget.kind is Kind.SCHEDULE
        return cls(epsilon, budget.limits(), budget.samples(), spent, failing=failing, scheduled=scheduled)

    @property
    def total(self) -> PrivacyCost:
        """What is spent and reserved together: a reservation counts like what is spent."""
        return sum(self.reserved.values(), self.spent)

    @property
    def reached(self) -> int | None:
        """The epsilon that the total comes to, in multiples of 1 / RESOLUTION; None if there is no bound."""
        return self._reached(self.total)

    def _reached(self, total: PrivacyCost) -> int | None:
        if not any(total.amounts) and None not in total.amounts:
            return 0
        if self.scheduled:
            return total.amounts[0]
        if self.failing is not None:
            (moved,), (most,) = total.amounts, self.limits
            if moved is None or moved > _REFUSED_TIMES * most:
                return None
            return gdp.least_epsilon(Fraction(moved, RESOLUTION), self.failing)
        rooms = [limit - used for limit, used in zip(self.limits, total.amounts, strict=True) if used is not None]
        return max(0, self.epsilon - max(rooms)) if rooms else None

    def _within(self, total: PrivacyCost) -> bool:
        """Whether nothing is spent, or some limit is kept."""
        used = zip(total.amounts, self.limits, strict=True)
        return any(amount is not None and amount <= limit for amount, limit in used) or not (
            any(total.amounts) or None in total.amounts
        )

    def allows(self, cost: PrivacyCost) -> bool:
        """Whether so much may be reserved."""
        self._check_kind(cost)
        total = self.total + cost
        return self._within(total) and total.samples <= self.samples and not self._closed

    @property
    def _closed(self) -> bool:
        """Whether the one schedule of this budget is there."""
        return self.scheduled and (bool(self.reserved) or self.spent != PrivacyCost.nothing(Kind.SCHEDULE))

    def reserve(self, name: str, cost: PrivacyCost) -> Filter:
        """Set ``cost`` aside, if then some order is still within its limit, or mu^2 is, or epsilon."""
        self._check_kind(cost)
        if self._closed and name not in self.reserved:
            raise BudgetError("this budget is for one schedule, which is reserved: nothing is charged beside it")
        if name in self.reserved:
            raise UsageError(f"{name} is reserved already")
        after = replace(self, reserved={**self.reserved, name: cost})
        total = after.total
        if not self._within(total):
            reached = self._reached(total)
            known = "any value" if reached is None else f"{reached / RESOLUTION:.6g}"
            raise BudgetError(
                f"with this release epsilon could reach {known}, the budget allows {self.epsilon / RESOLUTION:.6g}"
            )
        if total.samples > self.samples:
            raise BudgetError(f"the slack of delta allows {self.samples} samples, this release needs more")
        return after

    def commit(self, name: str, cost: PrivacyCost) -> Filter:
        """Replace a reservation by what happened, which may not cost more at any order that is within its limit."""
        self._check_kind(cost)
        reserved, total = self._open(name), self.total
        for now, limit, actual, allowed in zip(total.amounts, self.limits, cost.amounts, reserved.amounts, strict=True):
            if now is not None and now <= limit and (actual is None or allowed is None or actual > allowed):
                raise BudgetError(f"{name} costs more than was reserved for it")
        if self.scheduled and cost != reserved:
            raise BudgetError("a schedule costs what was reserved for it, however many of its steps are taken")
        if cost.samples > reserved.samples:
            raise BudgetError(f"{name} draws more samples than were reserved for it")
        return replace(self, spent=self.spent + cost, reserved=self._without(name))

    def abort(self, name: str) -> Filter:
        """Give back a reservation for which nothing was released. A schedule is not given back."""
        self._open(name)
        if self.scheduled:
            raise BudgetError("a schedule that is reserved may have been begun: it is not given back")
        return replace(self, reserved=self._without(name))

    def _check_kind(self, cost: PrivacyCost) -> None:
        if len(cost.amounts) != len(self.limits):
            raise UsageError("this is the cost under a budget of another kind")

    def _open(self, name: str) -> PrivacyCost:
        if name not in self.reserved:
            raise UsageError(f"nothing is reserved for {name}")
        return self.reserved[name]

    def _without(self, name: str) -> Mapping[str, PrivacyCost]:
        return {other: cost for other, cost in self.reserved.items() if other != name}
