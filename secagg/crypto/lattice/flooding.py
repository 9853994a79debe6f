"""Discrete Gaussians of any width: errors that hide other errors, wider than the sampler's limit of 2^22.

A sample is x = sum_j 2^(19 j) x_j with independent discrete Gaussians x_j, and ``Coefficients.lift`` adds up exactly
that. Convolution (Peikert 2010, "An Efficient and Parallel Gaussian Sampler", Theorem 3.1; Micciancio and Walter
2017): let y and z be discrete Gaussians with parameters r and s, and x = y + B z. Completing the square,

    Pr[x] = const * exp(-x^2 / 2(r^2 + B^2 s^2)) * sum_z exp(-(z - mu_x)^2 / 2 tau^2),   1/tau^2 = B^2/r^2 + 1/s^2

and by Poisson's formula the sum over the integers z is constant up to factors 1 +- e, e = 2.01 exp(-2 pi^2 tau^2) if
tau > 1. Here r^2 = 2^43, B = 2^19 and s^2 > 32: tau^2 > 16, so e < 2^-450, and x has the law of the Gaussian with
parameter r^2 + B^2 s^2 to within that (and the samplers' 2^-128 for each x_j). Every x_j is sub-Gaussian,
E exp(t x_j) <= exp(t^2 r_j^2 / 2), and so is x, with the whole variance.
"""

from __future__ import annotations

from fractions import Fraction

from secagg.crypto.sampling import LARGEST_VARIANCE, SMALLEST
from secagg.errors import UsageError

FACTOR_BITS = 19
LOW_VARIANCE = LARGEST_VARIANCE / 2
"""The variance of all parts but the highest: half the sampler's limit, so that the highest is wide enough."""


def parts(variance: Fraction) -> tuple[Fraction, ...]:
    """The variances of the x_j, lowest first: sum_j 4^(19 j) parts_j is ``variance``, exactly.

    >>> parts(Fraction(100)), [float(part) for part in parts(Fraction(1 << 100))]
    ((Fraction(100, 1),), [8796093022208.0, 8796093022208.0, 16777184.0])
    """
    if variance < SMALLEST:
        raise UsageError(f"a variance is at least {SMALLEST}")
    chosen, rest = list[Fraction](), Fraction(variance)
    while rest > LARGEST_VARIANCE:
        chosen.append(LOW_VARIANCE)
        rest = (rest - LOW_VARIANCE) / (1 << 2 * FACTOR_BITS)
    return (*chosen, rest)


def weight(j: int) -> int:
    """What x_j is multiplied by."""
    return 1 << (FACTOR_BITS * j)
