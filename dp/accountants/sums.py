"""Renyi divergences of discrete noise inside a sum of integer vectors, computed with the standard library only.

``l2_squared`` and ``l1`` bound the squared L2 and the L1 norm by which neighbouring sums differ. Orders are integers.
"""

from __future__ import annotations

from fractions import Fraction

from dp.events import LEAST_DRAW
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


SPREAD = Fraction(104, 10**36)
"""An upper bound of e(2) = 2 sum_{j>=1} exp(-8 pi^2 j^2), which is 1.0246e-34: how far the sum of a Gaussian density of
deviation 2 over the integers, wherever it is centred, is from 1."""


def moved_squared(variance: Fraction, l2_squared: int) -> Fraction:
    """mu^2 of the Gaussian mechanism that a sum of discrete Gaussians is as private as, up to ``closeness``.

    It adds Gaussian noise of variance V - 4, where V is ``variance``, the sum of the parameters, each at least 8. The
    sum of discrete Gaussians is what comes out when that is rounded by a discrete Gaussian of parameter 4
    (docs/gaussian_sums.md has the proof).

    >>> moved_squared(Fraction(104), l2_squared=25)
    Fraction(1, 4)
    """
    if variance < LEAST_DRAW:
        raise UsageError(f"no bound is known for discrete Gaussians of a parameter below {LEAST_DRAW}")
    return Fraction(l2_squared) / (variance - LEAST_DRAW // 2)


def closeness(draws: int, dimension: int) -> Fraction:
    """H: the laws of the sum of ``draws`` discrete Gaussians in each of ``dimension`` coordinates and of that rounded
    Gaussian differ by at most so much in log ratio, everywhere.

    >>> float(closeness(draws=1000, dimension=10**6))
    2.08e-25
    """
    return 2 * draws * dimension * SPREAD


def discrete_gaussians(order: int, moved: Fraction, close: Fraction) -> float:
    """For mu^2 = ``moved`` and H = ``close``: a mu^2 / 2 + (2a - 1) / (a - 1) H, with a the order.

    With P <= e^H Q and Q' <= e^H P' the integral of P^a P'^(1-a) is at most e^((2a-1) H) times that of Q^a Q'^(1-a).

    >>> discrete_gaussians(2, Fraction(1, 4), closeness(draws=100, dimension=10))
    0.25
    """
    return float(order * moved / 2 + Fraction(2 * order - 1, order - 1) * close)
