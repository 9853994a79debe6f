"""Tails of the hypergeometric law as integers over a common denominator, and the rule of (k, t) tried degree by degree.

Slow and obvious: every tail is added up from its end, and no degree is left out. ``parameters`` is slower still.
"""

from fractions import Fraction
from functools import cache
from itertools import accumulate
from math import ceil, comb, floor


def most_marked(population: int, marked: int, draws: int, bits: int, times: int = 1) -> int:
    """The least count for which Pr[more than that are marked] <= 2^-bits / times."""
    lowest, weights = _weights(population, marked, draws)
    allowed, tails = comb(population, draws), accumulate(reversed(weights))
    return lowest + len(weights) - 1 - next(i for i, tail in enumerate(tails) if tail * times << bits > allowed)


def least_marked(population: int, marked: int, draws: int, bits: int, times: int = 1) -> int:
    """The largest count for which Pr[fewer than that are marked] <= 2^-bits / times."""
    lowest, weights = _weights(population, marked, draws)
    allowed, tails = comb(population, draws), accumulate(weights)
    return lowest + next(i for i, tail in enumerate(tails) if tail * times << bits > allowed)


@cache
def _weights(population: int, marked: int, draws: int) -> tuple[int, tuple[int, ...]]:
    """(lowest count, weights): weight / comb(population, draws) is the chance of lowest, lowest + 1, ... marked."""
    lowest = max(0, draws - (population - marked))
    weights = [comb(marked, lowest) * comb(population - marked, draws - lowest)]
    for i in range(lowest, min(marked, draws)):
        numerator = weights[-1] * (marked - i) * (draws - i)
        weights.append(numerator // ((i + 1) * (population - marked - draws + i + 1)))
    return lowest, tuple(weights)


def threshold(n: int, bad: int, degree: int, active: bool, bits: int) -> int:
    t1 = most_marked(n, bad, degree, bits + 1, n)
    return max((ceil(Fraction(4 * (t1 + degree) - 5, 8)) if active else t1) + 1, 2)


def fitting(
    n: int, corrupt: Fraction, dropout: Fraction, degree: int, active: bool, bits: tuple[int, int, int], least: int
) -> int | None:
    """The threshold for this degree, or None. Bits: for n clients, for ``least`` of them, of correctness."""
    bad, gone, staying = floor(corrupt * n), floor(dropout * n), ceil((1 - dropout) * n)
    lost, all_lost = n * (n - degree - 1) * comb(bad + gone, degree) << bits[0] + 1, 2 * comb(n, degree)
    if degree <= bad + gone and lost >= all_lost:
        return None
    seen = min(degree, least - 1)
    t = max(threshold(n, bad, degree, active, bits[0]), threshold(least, bad, seen, active, bits[1]))
    return t if t <= min(least_marked(n, staying, degree, bits[2], n), seen) else None


def choose(
    n: int, corrupt: Fraction, dropout: Fraction, active: bool, bits: tuple[int, int, int], least: int
) -> tuple[int, int] | None:
    """Smallest even degree and its threshold; None where only the complete graph is left."""
    for degree in range(2, n - 1, 2):
        if (t := fitting(n, corrupt, dropout, degree, active, bits, least)) is not None:
            return degree, t
    return None
