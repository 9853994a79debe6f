"""The three laws from their definitions, with 400 bits, and a sampler that goes through the outcomes one by one."""

from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from math import isqrt

from mpmath import exp, mp, mpf

from secagg.crypto.prg import Prg

mp.prec = 400


@cache
def gaussian(variance: Fraction) -> list[mpf]:
    """Pr[X = 0], Pr[X = 1], ..., as far as it is above 2^-280."""
    weights = [exp(-(mpf(x) ** 2) / (2 * real(variance))) for x in range(far(variance))]
    total = 2 * sum(weights) - weights[0]
    return [weight / total for weight in weights]


@cache
def skellam(variance: Fraction) -> list[mpf]:
    """I_x(v) by the recurrence I_{x-1}(v) = I_{x+1}(v) + (2x/v) I_x(v) from far out (Miller), scaled to sum to one."""
    v, falling = real(variance), [mpf(0), mpf(1)]
    for x in range(far(variance), 0, -1):
        falling.append(falling[-2] + 2 * x / v * falling[-1])
    weights = falling[:0:-1]
    total = 2 * sum(weights) - weights[0]
    return [weight / total for weight in weights]


@cache
def laplace(scale: Fraction) -> list[mpf]:
    q = exp(-1 / real(scale))
    return [(1 - q) / (1 + q) * q**x for x in range(int(110 * scale) + 3)]


@cache
def laplace_digit(scale: Fraction, base: int) -> list[mpf]:
    """The difference of two independent G modulo ``base``, where Pr[G = g] is proportional to exp(-g / scale)."""
    weights = [exp(-g / real(scale)) for g in range(base)]
    total = sum(weights)
    digits = [weight / total for weight in weights]
    return [sum(digits[r] * digits[r + x] for r in range(base - x)) for x in range(base)]


def far(variance: Fraction) -> int:
    """Twenty standard deviations, and what a tail like Poisson's needs besides."""
    return 20 * isqrt(int(variance)) + 100


def real(x: Fraction) -> mpf:
    return mpf(x.numerator) / x.denominator


def boundaries(probabilities: Sequence[mpf]) -> list[mpf]:
    """Pr[-x <= X <= x] / 2 for x = 0, 1, ..."""
    totals = [probabilities[0] / 2]
    for probability in probabilities[1:]:
        totals.append(totals[-1] + probability)
    return totals


def draw(upper: Sequence[mpf], seed: bytes, i: int, region: int = 0) -> int:
    """Sample ``i`` of the stream: 64 bits at byte 8i, 128 more at byte 2^64 + 16i, in the region of 2^65 bytes."""
    start = region << 65
    word = int.from_bytes(Prg(seed, start)(8 * i + 8)[-8:], "little")
    more = int.from_bytes(Prg(seed, start + (1 << 64) + 16 * i)(16), "little")
    u = mpf((word >> 1 << 128) + more) / 2**192
    x = 0
    while u >= upper[x]:
        x += 1
    return -x if word % 2 else x
