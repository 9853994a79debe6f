"""A privacy filter: says before each release whether the budget still allows it.

Who survives a round decides how much noise is in its sum, so the parameters of a run are chosen as it goes on. For ONE
order fixed in advance, Renyi divergences chosen that way add up as if they had been planned (Feldman and Zrnic 2021,
"Individual Privacy Accounting via a Renyi Filter"; Lecuyer 2021). "Go on while some order has room" claims more: which
order that is may depend on what came out, and only families of mechanisms that are totally ordered get it for nothing
(Regehr et al. 2026, "Privacy Filters are Captured by Residues"). So the orders share delta. Sort the possible runs by
an order that has room at their end: those of order a are also runs of the filter of a alone, which fails by at most its
share of delta. Summed over the orders that is delta. One order, chosen before the run, gets 99%: that costs 0.1% of the
noise. The others say early in a run how little has been spent, and may decide when the choice was not the best.

Everything is counted in integers, so that an auditor's sums are the same to the last digit: divergences and epsilons
are multiples of 10^-12, divergences rounded up and limits rounded down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import ROUND_FLOOR, Decimal, localcontext
from fractions import Fraction
from functools import lru_cache
from math import ceil
from typing import Self, TypeAlias

from dp.accountants import rdp
from dp.accountants.rdp import ORDERS
from dp.events import Event
from secagg.errors import BudgetError, UsageError

RESOLUTION = 10**12
"""Divergences and epsilons are counted in integer multiples of 1 / RESOLUTION."""

Divergences: TypeAlias = tuple[int | None, ...]
"""One divergence for each of ``ORDERS``, in multiples of 1 / RESOLUTION; None where no bound is known."""

SHARE = Fraction(99, 100)
"""The part of delta that the budget's own order has; the other orders share the rest."""

SAMPLER = Fraction(1, 1 << 128)
"""The statistical distance of one sample of ``secagg.crypto.sampling`` from its law, at most (a test compares)."""

_LARGEST_EPSILON = 500
_DIGITS = 50


@dataclass(frozen=True, slots=True)
class Budget:
    """A privacy budget: all releases together are to be (``epsilon``, ``delta``)-private.

    The part ``slack`` of delta is set aside because samplers are not exact. ``order`` is the Renyi order that is
    expected to decide. The default suits divergences that grow in proportion to the order, those of noise without
    sampling; ``suited`` finds the one for a release.

    >>> Budget(Fraction(4), Fraction(1, 10**6), slack=Fraction(1, 10**9)).order
    7
    """

    epsilon: Fraction
    delta: Fraction
    slack: Fraction
    order: int = 0

    def __post_init__(self) -> None:
        for name in ("epsilon", "delta", "slack"):
            if not isinstance(getattr(self, name), Fraction | int):
                raise UsageError(f"{name} is an exact rational (a Fraction)")
            object.__setattr__(self, name, Fraction(getattr(self, name)))
        if not 0 < self.epsilon <= _LARGEST_EPSILON:
            raise UsageError(f"epsilon is above 0 and at most {_LARGEST_EPSILON}")
        if not 0 <= self.slack < self.delta < 1:
            raise UsageError("delta is below 1, and its slack below delta")
        if self.order == 0:
            object.__setattr__(self, "order", self._best(ORDERS))
        if self.order not in ORDERS:
            raise UsageError(f"{self.order} is none of the orders")

    @classmethod
    def suited(cls, event: Event, epsilon: Fraction, delta: Fraction, slack: Fraction) -> Self:
        """A budget whose order is the one at which ``event`` can be released most often."""
        budget = cls(epsilon, delta, slack)
        return replace(budget, order=budget._best(rdp.curve(event)))

    def _best(self, divergences: Sequence[float]) -> int:
        limits = rdp.limits(float(self.epsilon), float(self.delta - self.slack))
        return max(zip(ORDERS, limits, divergences, strict=True), key=lambda entry: entry[1] / entry[2])[0]

    @lru_cache(16)  # noqa: B019 - budgets are few and small
    def limits(self) -> tuple[int, ...]:
        """``rdp.limits`` for each order's share of delta, in decimals: they round alike on every machine."""
        found, others = [], (1 - SHARE) / (len(ORDERS) - 1)
        with localcontext(prec=_DIGITS):
            for order in ORDERS:
                share = (self.delta - self.slack) * (SHARE if order == self.order else others)
                limit = _decimal(self.epsilon) - _decimal(1 - Fraction(1, order)).ln()
                limit += _decimal(share * order).ln() / (order - 1)
                found.append(int((limit * RESOLUTION).to_integral_value(ROUND_FLOOR)))
        return tuple(found)

    def samples(self) -> int:
        """How many samples may be drawn: each is within h of its law, which adds (1 + e^epsilon) h to delta."""
        with localcontext(prec=_DIGITS):
            allowed = _decimal(self.slack / SAMPLER) / (1 + _decimal(self.epsilon).exp())
            return int(allowed.to_integral_value(ROUND_FLOOR))


def _decimal(value: Fraction) -> Decimal:
    return Decimal(value.numerator) / value.denominator


@dataclass(frozen=True, slots=True)
class PrivacyCost:
    """What a release takes from a budget: divergences at all orders, and how many samples are drawn for it."""

    rdp: Divergences = (0,) * len(ORDERS)
    samples: int = 0

    def __post_init__(self) -> None:
        if self.samples < 0 or any(value is not None and value < 0 for value in self.rdp):
            raise UsageError("nothing costs less than nothing")

    @classmethod
    def of(cls, event: Event, count: int = 1, samples: int = 0) -> Self:
        """The cost of ``count`` times ``event``, for which ``samples`` integers are drawn in all."""
        if count < 1:
            raise UsageError(f"an event is charged at least once, not {count} times")
        curve = [value if value < float("inf") else None for value in rdp.curve(event)]
        return cls(tuple(None if value is None else count * _up(value) for value in curve), samples)

    def __add__(self, other: PrivacyCost) -> PrivacyCost:
        sums = [None if a is None or b is None else a + b for a, b in zip(self.rdp, other.rdp, strict=True)]
        return PrivacyCost(tuple(sums), self.samples + other.samples)


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

    @classmethod
    def of(cls, budget: Budget) -> Self:
        return cls(ceil(budget.epsilon * RESOLUTION), budget.limits(), budget.samples())

    @property
    def total(self) -> PrivacyCost:
        """What is spent and reserved together: a reservation counts like what is spent."""
        return sum(self.reserved.values(), self.spent)

    @property
    def reached(self) -> int | None:
        """The epsilon that the total comes to, in multiples of 1 / RESOLUTION; None if there is no bound."""
        return self._reached(self.total)

    def _reached(self, total: PrivacyCost) -> int | None:
        if not any(total.rdp) and None not in total.rdp:
            return 0
        rooms = [limit - used for limit, used in zip(self.limits, total.rdp, strict=True) if used is not None]
        return max(0, self.epsilon - max(rooms)) if rooms else None

    def reserve(self, name: str, cost: PrivacyCost) -> Filter:
        """Set ``cost`` aside, if then some order is still within its limit."""
        if name in self.reserved:
            raise UsageError(f"{name} is reserved already")
        after = replace(self, reserved={**self.reserved, name: cost})
        total = after.total
        reached = self._reached(total)
        if reached is None or reached > self.epsilon:
            known = "any value" if reached is None else f"{reached / RESOLUTION:.6g}"
            raise BudgetError(
                f"with this release epsilon could reach {known}, the budget allows {self.epsilon / RESOLUTION:.6g}"
            )
        if total.samples > self.samples:
            raise BudgetError(f"the slack of delta allows {self.samples} samples, this release needs more")
        return after

    def commit(self, name: str, cost: PrivacyCost) -> Filter:
        """Replace a reservation by what happened, which may not cost more at any order that is within its limit."""
        reserved, total = self._open(name), self.total
        for now, limit, actual, allowed in zip(total.rdp, self.limits, cost.rdp, reserved.rdp, strict=True):
            if now is not None and now <= limit and (actual is None or allowed is None or actual > allowed):
                raise BudgetError(f"{name} costs more than was reserved for it")
        if cost.samples > reserved.samples:
            raise BudgetError(f"{name} draws more samples than were reserved for it")
        return replace(self, spent=self.spent + cost, reserved=self._without(name))

    def abort(self, name: str) -> Filter:
        """Give back a reservation for which nothing was released."""
        self._open(name)
        return replace(self, reserved=self._without(name))

    def _open(self, name: str) -> PrivacyCost:
        if name not in self.reserved:
            raise UsageError(f"nothing is reserved for {name}")
        return self.reserved[name]

    def _without(self, name: str) -> Mapping[str, PrivacyCost]:
        return {other: cost for other, cost in self.reserved.items() if other != name}
