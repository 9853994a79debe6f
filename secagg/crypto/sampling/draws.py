"""Samples of each law, from a seed; the text of ``secagg.crypto.sampling`` says how they are drawn."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from secagg.crypto.sampling import LARGEST_SCALE, LARGEST_VARIANCE, SMALLEST, laws
from secagg.crypto.sampling.inversion import REGION, Table, sample
from secagg.errors import UsageError

_DIGIT = 1 << 10
_SMALL_SCALE = 32

_TABLES = 512
"""How many tables are kept for each law. Making one takes up to 30 ms, keeping it up to 200 KB."""


def discrete_gaussian(variance: Fraction, count: int, seed: bytes) -> NDArray[np.int64]:
    """Samples x with probability proportional to exp(-x^2 / (2 variance)).

    >>> discrete_gaussian(Fraction(1024), 8, bytes(32)).tolist()
    [23, -23, -35, -24, 18, -4, 19, -24]
    """
    return sample(_gaussian(_checked("variance", variance, LARGEST_VARIANCE)), _length(count), seed)


def skellam(variance: Fraction, count: int, seed: bytes) -> NDArray[np.int64]:
    """Differences of two Poisson(variance / 2) variables. Sums of them are Skellam again, and variances add up.

    >>> skellam(Fraction(3, 2), 8, bytes(32)).tolist()
    [1, -1, -1, -1, 1, 0, 1, -1]
    """
    return sample(_skellam(_checked("variance", variance, LARGEST_VARIANCE)), _length(count), seed)


def discrete_laplace(scale: Fraction, count: int, seed: bytes) -> NDArray[np.int64]:
    """Samples x with probability proportional to exp(-|x| / scale).

    Such a variable is the difference of two geometric variables, whose digits in any base are independent. So are the
    differences of the digits, and the highest part is a discrete Laplace variable of a small scale.

    >>> discrete_laplace(Fraction(10), 8, bytes(32)).tolist()
    [8, -7, -13, -8, 6, -1, 6, -8]
    """
    rest = _checked("scale", scale, LARGEST_SCALE)
    total, weight, start = np.zeros(_length(count), np.int64), 1, 0
    while rest > _SMALL_SCALE:
        total += weight * sample(_laplace_digit(rest), count, seed, start)
        rest, weight, start = rest / _DIGIT, weight * _DIGIT, start + REGION
    total += weight * sample(_laplace(rest), count, seed, start)
    return total


def _checked(name: str, value: Fraction, largest: Fraction) -> Fraction:
    if not isinstance(value, Fraction | int):
        raise UsageError(f"{name} is an exact rational (a Fraction), not a {type(value).__name__}")
    if not SMALLEST <= value <= largest:
        raise UsageError(f"{name} must be between {SMALLEST} and {largest}")
    return Fraction(value)


def _length(count: int) -> int:
    if count < 0:
        raise UsageError("a number of samples is not negative")
    return count


@lru_cache(maxsize=_TABLES)
def _gaussian(variance: Fraction) -> Table:
    return Table.of(laws.gaussian(variance))


@lru_cache(maxsize=_TABLES)
def _skellam(variance: Fraction) -> Table:
    return Table.of(laws.skellam(variance))


@lru_cache(maxsize=_TABLES)
def _laplace(scale: Fraction) -> Table:
    return Table.of(laws.laplace(scale))


@lru_cache(maxsize=_TABLES)
def _laplace_digit(scale: Fraction) -> Table:
    return Table.of(laws.laplace_digit(scale, _DIGIT))
