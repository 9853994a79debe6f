"""Renyi divergences of discrete noise inside a sum of integer vectors, computed with the standard library only.

``l2_squared`` and ``l1`` bound the squared L2 and the L1 norm by which neighbouring sums differ. Orders are integers.
"""

from __future__ import annotations

from functools import lru_cache
from math import exp, pi, sqrt

from secagg.errors import UsageError


def skellam(order: int, variance: float, l2_squared: float, l1: float) -> float:
    """For Skellam noise of ``variance``: Agarwal, Kairouz and Liu 2021, "The Skellam Mechanism", Theorem 3.5.

    >>> round(skellam(2, variance=1e6, l2_squared=1e6, l1=1e6), 6)
    1.000002
    """
    return order * l2_squared / (2 * variance) + min(
        ((2 * order - 1) * l2_squared + 6 * l1) / (4 * variance * variance),
        3 * l1 / (2 * variance),
    )


def discrete_gaussians(order: int, parties: int, each: float, dimension: int, l2_squared: float, l1: float) -> float:
    """For the sum of ``parties`` independent discrete Gaussians of variance ``each``, at least 1/4.

    The sum is no discrete Gaussian; tau says how far it is from one (Kairouz, Liu and Steinke 2021, "The Distributed
    Discrete Gaussian Mechanism", Proposition 14).

    >>> discrete_gaussians(2, parties=100, each=1e4, dimension=10, l2_squared=1e6, l1=1e3)
    1.0
    """
    if each < 0.25:
        raise UsageError("discrete Gaussians add up predictably only from a standard deviation of 1/2")
    variance, tau = parties * each, distance(parties, each)
    moved, moved_l1 = sqrt(l2_squared / variance), l1 / sqrt(variance)
    return min(
        order / 2 * moved**2 + tau * dimension,
        order / 2 * (moved**2 + 2 * moved_l1 * tau + tau**2 * dimension),
        order / 2 * (moved + tau * sqrt(dimension)) ** 2,
    )


@lru_cache(1024)
def distance(parties: int, each: float) -> float:
    """tau = 10 sum_{k=1}^{n-1} exp(-2 pi^2 sigma^2 k / (k + 1)), sigma^2 = ``each`` >= 1/4.

    >>> distance(2, 0.25) == 10 * exp(-(pi**2) / 4)
    True
    """
    exponent = 2 * pi * pi * each
    if exponent / 2 > 700:  # far below the smallest number
        return 0.0
    return 10 * sum(exp(-exponent * k / (k + 1)) for k in range(1, parties))
