"""Exponential, cosine and sine in integers: the same digits on every machine, which no floating-point library promises.

A number x is represented by the integer x * 2^256. Every operation rounds down, so each loses at most 2^-256; each
function says how the losses add up, and tests compare with arbitrary precision.
"""

from __future__ import annotations

from fractions import Fraction

PRECISION = 256
ONE = 1 << PRECISION
PI = 0x3243F6A8885A308D313198A2E03707344A4093822299F31D0082EFA98EC4E6C89
"""pi, to 256 bits after the point."""

_VANISHED = 200
"""From this exponent on, e^-x counts as zero: e^-200 is below 2^-288."""


def fixed(x: Fraction) -> int:
    """A fraction as a fixed-point number, rounded down."""
    return (x.numerator << PRECISION) // x.denominator


def exp_minus(x: int) -> int:
    """e^-x for x >= 0, to within 2^-230: a Taylor series below 2^-8, whose loss at most 16 squarings double each.

    >>> exp_minus(ONE) / ONE
    0.36787944117144233
    """
    if x >> PRECISION >= _VANISHED:
        return 0
    squarings = (x >> (PRECISION - 8)).bit_length()
    power = _series(x >> squarings)
    result = power[0] - power[1] + power[2] - power[3]
    for _ in range(squarings):
        result = result * result >> PRECISION
    return result


def cos_sin(angle: int) -> tuple[int, int]:
    """Cosine and sine of an angle between 0 and pi, to within 2^-245: about 70 terms of a series, none above 2^4.

    >>> [round(value / ONE, 15) for value in cos_sin(PI // 3)]
    [0.5, 0.866025403784439]
    """
    power = _series(angle)
    return power[0] - power[2], power[1] - power[3]


def _series(x: int) -> list[int]:
    """Four sums of x^n / n!: over the n that are 0, 1, 2 and 3 modulo four."""
    sums, term, n = [0, 0, 0, 0], ONE, 0
    while term:
        sums[n % 4] += term
        n += 1
        term = (term * x >> PRECISION) // n
    return sums
