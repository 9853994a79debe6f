"""The distribution functions of three symmetric laws on the integers, to within 2^-180, in integers.

All that a sampler needs to know of a law is where its boundaries lie,

    H(x) = Pr[-x <= X <= x] / 2        as an integer multiple of 2^-256, for x = 0, 1, 2, ...

For a few thousand outcomes one sums the probabilities. For more, a boundary comes from the characteristic function
phi: reduced modulo an odd M, the law has Pr[X = x] = (1/M) sum_j phi(t_j) cos(t_j x) with t_j = 2 pi j / M, j modulo M
(finite Fourier inversion), and summing over x (Dirichlet's kernel) gives with y = x + 1/2

    H(x) = y/M + sum_{j=1}^{(M-1)/2} a_j sin(t_j y),        a_j = phi(t_j) / (M sin(t_j / 2)).

With M = 28 sigma some 70 terms are not negligible, whatever sigma. The right side is a smooth function of real y whose
sixth derivative is at most sum |a_j| t_j^6: that is what allows certified interpolation between far boundaries.

The error of a law in total variation has two parts. (1) What lies beyond ``reach`` is cut, or wrapped by the reduction
modulo M = 2 reach + 1; see ``_reach`` and ``laplace``: at most 2^-130. (2) Boundaries that are off by e move the law
by at most 2 (reach + 1) e. Rounding makes e < 2^-180 (tests compare with arbitrary precision, to 2^-190), so with at
most 2^26 boundaries this part is below 2^-150.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, islice
from math import isqrt

from secagg.crypto.sampling.fixed import ONE, PI, PRECISION, cos_sin, exp_minus, fixed

HALF = ONE >> 1
_NEGLIGIBLE = ONE >> 210
_WIDE = 7
"""Buckets hold more than one outcome from sigma = 2^7 on."""


@dataclass(frozen=True, slots=True)
class Law:
    """A law of X in -reach..reach. ``boundary(x)`` is 2^256 H(x) for x in 0..reach, so 2^255 for the last x.

    Boundaries 2^bits apart can be interpolated: with y in multiples of 2^bits, the sixth derivative of H is at most
    ``bend``.
    """

    reach: int
    boundary: Callable[[int], int]
    bits: int = 0
    bend: int = 0


def gaussian(variance: Fraction) -> Law:
    """The law with Pr[X = x] proportional to exp(-x^2 / (2 variance))."""
    reach, bits = _reach(variance), _bucket_bits(variance)
    if bits == 0:
        return _summed(islice(_powers_of_squares(exp_minus(fixed(1 / (2 * variance)))), reach + 1))
    # The characteristic function is that of the continuous law plus terms below exp(-pi^2 variance / 2) < 2^-1000.
    square = Fraction(variance, (2 * reach + 1) ** 2)
    step = (2 * PI * PI * square.numerator // square.denominator) >> PRECISION
    return _inverted(reach, bits, islice(_powers_of_squares(exp_minus(step)), 1, None))


def skellam(variance: Fraction) -> Law:
    """The law of a difference of two Poisson(variance / 2), with characteristic function exp(-variance (1 - cos t))."""
    reach = _reach(variance)
    sines = (cos_sin(PI * j // (2 * reach + 1))[1] for j in range(1, reach + 1))
    exponents = (2 * variance.numerator * sine * sine // variance.denominator for sine in sines)
    return _inverted(reach, _bucket_bits(variance), (exp_minus(x >> PRECISION) for x in exponents))


def laplace(scale: Fraction) -> Law:
    """The law with Pr[X = x] proportional to exp(-|x| / scale). Beyond 92 scale lies at most 2 exp(-92) < 2^-131."""
    ratio, reach = exp_minus(fixed(1 / scale)), int(92 * scale) + 1
    return _summed(_powers(ratio, reach + 1))


def laplace_digit(scale: Fraction, base: int) -> Law:
    """The law of the difference of two geometric variables (ratio exp(-1/scale)), modulo ``base``. Nothing is cut.

    With q the ratio, Pr[X = x] is proportional to sum_{r < base - |x|} q^(2r + |x|), so to q^|x| - q^(2 base - |x|).
    """
    powers = list(_powers(exp_minus(fixed(1 / scale)), 2 * base + 1))
    return _summed(powers[x] - powers[2 * base - x] for x in range(base))


def _reach(variance: Fraction) -> int:
    """14 sigma + 61: beyond it lies at most 2^-130, for the discrete Gaussian and for Skellam.

    The former has E exp(sX) <= exp(s^2 variance / 2), because a sum of exp(-(x - c)^2 / (2 variance)) over the integers
    is largest for c = 0 (Canonne, Kamath and Steinke 2020), so 2 exp(-14^2 / 2) < 2^-140 lies beyond. The latter has
    E exp(sX) = exp(variance (cosh s - 1)), and cosh s - 1 <= (s^2 / 2) / (1 - s / 3), so Bernstein's bound
    2 exp(-R^2 / (2 (variance + R / 3))) holds: R = 14 sigma + 61 makes the exponent at least 91.
    """
    return isqrt(int(196 * variance)) + 62


def _bucket_bits(variance: Fraction) -> int:
    """The largest b with 2^b <= sigma / 64, or 0."""
    return max(isqrt(int(variance)).bit_length() - _WIDE, 0)


def _powers(ratio: int, count: int) -> Iterator[int]:
    """ratio^x for x = 0, 1, 2, ..., each product losing at most 2^-256."""
    return accumulate(range(1, count), lambda power, _: power * ratio >> PRECISION, initial=ONE)


def _powers_of_squares(ratio: int) -> Iterator[int]:
    """ratio^(x^2) for x = 0, 1, 2, ...: the quotient of neighbours grows by ratio^2 each time."""
    power, quotient, square = ONE, ratio, ratio * ratio >> PRECISION
    while True:
        yield power
        power = power * quotient >> PRECISION
        quotient = quotient * square >> PRECISION


def _summed(weights: Iterator[int]) -> Law:
    """A law from its probabilities of 0, 1, 2, ..., which may have a common factor."""
    zero, *rest = weights
    doubled = list(accumulate((2 * weight for weight in rest), initial=zero))
    boundaries = [(total << (PRECISION - 1)) // doubled[-1] for total in doubled]
    return Law(len(rest), boundaries.__getitem__)


def _inverted(reach: int, bits: int, characteristic: Iterator[int]) -> Law:
    """A law from phi(t_1), phi(t_2), ..., which fall: all after the first negligible one together are negligible."""
    modulus = 2 * reach + 1
    coefficients, bend = [], 0
    for j, phi in zip(range(1, reach + 1), characteristic, strict=False):
        if phi < _NEGLIGIBLE:
            break
        coefficients.append((phi << PRECISION) // (modulus * cos_sin(PI * j // modulus)[1]))
        step = (2 * PI * j << bits) // modulus
        bend += coefficients[-1] * step**6 >> (6 * PRECISION)
    coefficients.reverse()

    def boundary(x: int) -> int:
        cosine, sine = cos_sin(PI * (2 * x + 1) // modulus)
        cosine *= 2
        following, current = 0, 0
        for coefficient in coefficients:  # Clenshaw's recurrence
            following, current = current, coefficient + (cosine * current >> PRECISION) - following
        return ((2 * x + 1 << (PRECISION - 1)) // modulus) + (sine * current >> PRECISION)

    return Law(reach, boundary, bits, bend + len(coefficients))
