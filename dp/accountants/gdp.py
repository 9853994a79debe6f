"""Gaussian differential privacy: one number, mu^2, that adds up exactly and gives the exact epsilon of Gaussian noise.

A release of Gaussian noise has mu, the distance by which neighbours move it over the deviation. Releases with mu_1,
mu_2, ... are together as private as one with mu^2 = mu_1^2 + mu_2^2 + ... (Dong, Roth and Su 2022), also if each was
chosen after the ones before came out, as long as the sum is bounded beforehand (Smith and Thakurta 2022, "Fully
Adaptive Composition for Gaussian Differential Privacy"; Koskela, Tobaben and Honkela 2023, "Individual Privacy
Accounting with Gaussian Differential Privacy"). That one is (epsilon, delta)-private exactly for the delta of ``delta``
(Balle and Wang 2018).

A sum of discrete Gaussians is within ``sums.closeness`` of Gaussian noise that is then rounded, which a conversion adds
(docs/gaussian_sums.md): if the Gaussian releases are (e, d)-private and the real ones are within H of them altogether,
in log ratio, the real ones are (e + 2H, e^H d)-private. Mechanisms that are no Gaussian have no mu, and are refused.

What is decided here is decided in decimals, of enough digits and with no function that rounds otherwise on another
machine. Floating point only guesses where to look.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Context, Decimal, localcontext
from fractions import Fraction
from functools import lru_cache
from math import ceil, erfc, exp, pi, sqrt
from typing import Any

from dp.accountants import sums
from dp.accountants.composition import Composition, Handlers
from dp.events import DiscreteGaussians, Event, Everyone, Gaussian, Relation, Selection
from secagg.errors import UsageError

RESOLUTION = 10**12
"""Epsilons and costs are counted in integer multiples of 1 / RESOLUTION."""

MOST_CLOSE = Fraction(1, 1 << 40)
"""H_max: how far, at most, all releases under a budget may be from Gaussian ones, in log ratio. It costs 2^-39 of
epsilon, and 2^-40 of delta."""

SMALLEST_DELTA = Fraction(1, 10**100)
LARGEST_EPSILON = 10_000
"""Limits of what is converted, so that no number makes the decimals long."""

_DIGITS = 100
_FAR = 40
"""Beyond so many deviations a Gaussian's tail is below 10^-347."""

_HANDLERS: Handlers[Callable[[Any, int], tuple[Fraction, Fraction]]] = Handlers("GDP")
"""Functions from a mechanism and the stretch of the relation to mu^2 and H."""


class GdpAccountant(Composition):
    """Adds up mu^2, exactly.

    >>> from dp.events import Guarantee, Release, Trust, Unit
    >>> user = Guarantee(Unit.USER, Relation.ZERO_OUT, Trust.CENTRAL)
    >>> accountant = GdpAccountant()
    >>> accountant.compose(Release(Gaussian(Fraction(10)), Everyone(), user), count=100)
    >>> round(accountant.epsilon(1e-5), 4)
    4.3772
    """

    def check(self, event: Event) -> None:
        moved(event)

    @property
    def total(self) -> Fraction:
        """mu^2 of all that was composed."""
        return sum((moved(event)[0] * count for event, count in self.events.items()), Fraction(0))

    def epsilon(self, delta: float) -> float:
        close = sum((moved(event)[1] * count for event, count in self.events.items()), Fraction(0))
        return least_epsilon(self.total, Fraction(delta), close) / RESOLUTION if self.events else 0.0


def moved(event: Event) -> tuple[Fraction, Fraction]:
    """mu^2 of one event, and how close it is to Gaussian noise (H), both exact rationals."""
    if isinstance(event, Selection):
        raise UsageError("no GDP bound is known for a selection among runs")
    return _HANDLERS.find(event)(event.mechanism, event.guarantee.relation.stretch)


@_HANDLERS.add(Gaussian, Everyone, *Relation)
def _gaussian(mechanism: Gaussian, stretch: int) -> tuple[Fraction, Fraction]:
    return (stretch / mechanism.noise_multiplier) ** 2, Fraction(0)


@_HANDLERS.add(DiscreteGaussians, Everyone, *Relation)
def _gaussians(mechanism: DiscreteGaussians, stretch: int) -> tuple[Fraction, Fraction]:
    return (
        sums.moved_squared(mechanism.variance, stretch**2 * mechanism.l2_squared),
        sums.closeness(mechanism.draws, mechanism.dimension),
    )


# Conversion


def holds(epsilon: Fraction, delta: Fraction, total: Fraction, close: Fraction = MOST_CLOSE) -> bool:
    """Whether releases whose mu^2 add up to ``total`` are (``epsilon``, ``delta``)-private.

    They may be as far as ``close`` from Gaussian ones. The condition is
    delta_G(epsilon - 2 H, mu) <= (1 - H) delta, which implies the one with e^-H.

    >>> [holds(Fraction(4), Fraction(1, 10**6), total) for total in (Fraction(70, 100), Fraction(71, 100))]
    [True, False]
    """
    if not SMALLEST_DELTA <= delta < 1 or not epsilon <= LARGEST_EPSILON or not 0 <= close < 1:
        raise UsageError(f"delta is from {float(SMALLEST_DELTA):g} to 1, epsilon at most {LARGEST_EPSILON}")
    if total == 0:
        return True
    shortened = epsilon - 2 * close
    with localcontext(Context(_DIGITS)):
        mu = _decimal(total).sqrt()
        near = _decimal(shortened) / mu - mu / 2
        if abs(near) > _FAR:
            return near > 0
    found, _slope = _delta(shortened, total)
    return found * _MARGIN <= _decimal((1 - close) * delta)


_MARGIN = 1 + Decimal(10) ** -30
"""More than the error of a delta in decimals, which is below 10^-40 of it."""


def delta(epsilon: Fraction, total: Fraction) -> Decimal:
    """delta_G(e, mu) = Phi(mu/2 - e/mu) - e^e Phi(-mu/2 - e/mu), for mu^2 = ``total`` (Balle and Wang 2018, Theorem 8).

    >>> round(delta(Fraction(1), Fraction(1)), 12)
    Decimal('0.126936737507')
    """
    return _delta(epsilon, total)[0]


def _delta(epsilon: Fraction, total: Fraction) -> tuple[Decimal, Decimal]:
    """The same, and its derivative by epsilon, which is -e^e Phi(-mu/2 - e/mu)."""
    with localcontext(Context(_DIGITS)):
        mu = _decimal(total).sqrt()
        far = _decimal(epsilon) / mu + mu / 2
        digits = _DIGITS + int(far * far / 4) // 50 * 50  # a tail begins after far^2 / (2 ln 10) zeros
    with localcontext(Context(digits)):
        mu, moved = _decimal(total).sqrt(), _decimal(epsilon)
        slope = moved.exp() * _tail(moved / mu + mu / 2, digits)
        return _tail(moved / mu - mu / 2, digits) - slope, -slope


def _tail(x: Decimal, digits: int) -> Decimal:
    """Phi(-x) = 1/2 - phi(x) sum_{n>=0} x^(2n+1) / (2n+1)!!, whose terms have one sign."""
    term = total = x
    square, number = x * x, 1
    while total + term != total:
        number += 2
        term = term * square / number
        total += term
    return Decimal("0.5") - (-square / 2).exp() / (2 * _pi(digits)).sqrt() * total


@lru_cache(64)
def _pi(digits: int) -> Decimal:
    """Machin 1706: pi = 16 arctan 1/5 - 4 arctan 1/239, in integers."""
    one: int = 10 ** (digits + 20)

    def arctan(x: int) -> int:
        power = total = one // x
        n = 1
        while power:
            power //= -x * x
            n += 2
            total += power // n
        return total

    with localcontext(Context(digits + 10)):
        return Decimal(16 * arctan(5) - 4 * arctan(239)) / one


def _decimal(value: Fraction) -> Decimal:
    return Decimal(value.numerator) / value.denominator


@lru_cache(256)
def largest_total(epsilon: Fraction, delta: Fraction) -> int:
    """The largest mu^2, in multiples of 1 / RESOLUTION, for which ``holds``.

    >>> largest_total(Fraction(4), Fraction(1, 10**6)) / RESOLUTION
    0.702007296831
    """
    e, target = float(epsilon), float(delta)
    low, high = 0.0, sqrt(2 * e + 10_000.0)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _roughly(e, middle) <= target else (low, middle)
    return _first(lambda units: not holds(epsilon, delta, Fraction(units, RESOLUTION)), int(low**2 * RESOLUTION)) - 1


def _first(fits: Callable[[int], bool], guess: int) -> int:
    """The smallest integer from 0 on that fits, if all beyond it do. It is sought around ``guess``."""
    high, step = guess, 1
    while not fits(high):
        high, step = high + step, 2 * step
    low, step = high - 1, 1
    while low >= 0 and fits(low):
        high, low, step = low, low - step, 2 * step
    low = max(low, -1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


@lru_cache(4096)
def least_epsilon(total: Fraction, delta: Fraction, close: Fraction = MOST_CLOSE) -> int:
    """The least epsilon, in multiples of 1 / RESOLUTION, for which ``holds``.

    >>> least_epsilon(Fraction(702007296831, 10**12), Fraction(1, 10**6)) / RESOLUTION
    3.999999999998
    """
    if total == 0:
        return 0
    if close >= 1:
        raise UsageError("so many draws are too far from Gaussian noise")
    guess = _guess(total, delta, close)
    return _first(lambda units: holds(Fraction(units, RESOLUTION), delta, total, close), guess)


def _guess(total: Fraction, delta: Fraction, close: Fraction) -> int:
    """About the least epsilon, in units: floating point, and then Newton's method."""
    mu, target = sqrt(total), float((1 - close) * delta)
    low, high = 0.0, mu * mu / 2 + 60 * mu
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if _roughly(middle, mu) <= target else (middle, high)
    guess = Fraction(high)
    for _ in range(3):
        found, slope = _delta(guess, total)
        if slope == 0:
            break
        with localcontext(Context(_DIGITS)):
            change = (found - _decimal((1 - close) * delta)) / slope
        if abs(change) > 1:  # not a guess that has to be made better
            break
        guess = max(Fraction(0), guess - Fraction(change).limit_denominator(10**30))
        if guess == 0 or abs(change) < Decimal(10) ** -13:
            break
    return max(0, ceil((guess + 2 * close) * RESOLUTION))


def _roughly(epsilon: float, mu: float) -> float:
    """A delta in floating point, for an epsilon that is not negative: a guess."""
    near, far = epsilon / mu - mu / 2, epsilon / mu + mu / 2
    density = exp(-near * near / 2) / sqrt(2 * pi)  # e^epsilon times that at far
    if far > 8:
        mills = (1 - 1 / far**2 + 3 / far**4 - 15 / far**6) / far
    else:
        mills = erfc(far / sqrt(2)) / 2 * exp(far * far / 2) * sqrt(2 * pi)
    return erfc(near / sqrt(2)) / 2 - density * mills
