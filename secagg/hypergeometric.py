"""Tails of the hypergeometric law: how many of those drawn at random, without replacement, are marked.

Exact tails are integers over a common denominator, and slow for thousands of draws. So a tail is first bounded from
both sides in floating point, and integers decide only where a limit lies between the two bounds. Bounds are rigorous:

- One chance is a sum of logarithms of nine factorials. From 256 on these are Stirling's series up to n^-5, whose
  error is below the first term left out, 2^-74. Their magnitudes add up to at most 4 log2(N!), and each is rounded by
  less than 2^-48 of itself, if ``log`` is right to 2^-50 of its result (the C library's is to 2^-52). That is less
  than N log2(N) 2^-45 altogether.
- The chances above it follow by ratios, each rounded by less than 2^-51 of itself. Ratios fall from one count to the
  next, so what is left out above some count is at most a geometric series. All summands are positive: nothing cancels.

Counts that are nearly certain, from below the mode, come by the same ratios, which are above one there.
"""

from __future__ import annotations

from math import comb, factorial, inf, log, log2, pi

import numpy as np
from numpy.typing import NDArray

EXACT_UP_TO = 1 << 15
"""With more draws integers would take seconds: where the limit is between the bounds, the safe side of it is taken."""

_STIRLING_FROM = 256
_SMALL = tuple(log2(factorial(n)) for n in range(_STIRLING_FROM))


def most_marked(population: int, marked: int, draws: int, bits: int, times: int = 1) -> int:
    """The least count for which Pr[more than that are marked among those drawn] <= 2^-bits / times, which is below 1.

    Beyond ``EXACT_UP_TO`` draws it can be the count after the least, if the chance is so near to the limit that
    floating point cannot tell.

    >>> most_marked(1000, 100, 100, 40), most_marked(10**7, 10**6, 20_000, 40)
    (34, 2305)
    """
    least, most = most_marked_between(population, marked, draws, bits, times)
    if draws > EXACT_UP_TO:
        return most
    return next((t for t in range(least, most) if _rare(population, marked, draws, t, times << bits)), most)


def least_marked(population: int, marked: int, draws: int, bits: int, times: int = 1) -> int:
    """The largest count for which Pr[fewer than that are marked among those drawn] <= 2^-bits / times.

    Fewer than t are marked where more than draws - t are not.

    >>> least_marked(1000, 900, 100, 40)
    66
    """
    return draws - most_marked(population, population - marked, draws, bits, times)


def most_marked_between(population: int, marked: int, draws: int, bits: int, times: int = 1) -> tuple[int, int]:
    """Two counts, nearly always the same one, between which ``most_marked`` is: cheap for any number of draws.

    >>> most_marked_between(10**7, 10**6, 20_000, 40)
    (2305, 2305)
    """
    limit, error, highest = -bits - log2(times), log2_error(population), min(marked, draws)
    start, beyond = (marked + 1) * (draws + 1) // (population + 2), highest + 1  # from the mode on
    while beyond - start > 1:  # above the mode chances fall: if one count alone is too likely, so are all before it
        middle = (start + beyond) // 2
        if log2_chance(population, marked, draws, middle) - error > limit:
            start = middle
        else:
            beyond = middle
    while True:
        least, most = _tails(population, marked, draws, start, highest, limit)  # [i]: of start + i or more
        error += len(least) * 2.0**-50
        if least[0] - error > limit:
            break
        start -= 1  # at most as far as the lowest count, which is certain
    return start + _before(least - error > limit) - 1, start + _before(most + error > limit) - 1


def _before(fact: NDArray[np.bool_]) -> int:
    """How many there are in front for which the fact holds."""
    return len(fact) if fact.all() else int(np.argmin(fact))


def _tails(
    population: int, marked: int, draws: int, start: int, highest: int, limit: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bounds of log2 Pr[count or more are marked] for counts from ``start`` to where that is 2^(limit - 40)."""
    first, size = log2_chance(population, marked, draws, start), 256
    while True:
        i = np.arange(start, start + size, dtype=np.float64)[: highest - start + 1]
        ratios = (marked - i) * (draws - i) / ((i + 1) * (population - marked - draws + i + 1))
        chances = np.concatenate([[1.0], np.cumprod(ratios[:-1])])
        last = float(ratios[-1])
        rest = float(chances[-1]) * last / (1 - last) if last < 1 else inf
        if not rest or first + log2(rest) < limit - 40:
            break
        size *= 4
    tails = np.cumsum(chances[::-1])[::-1]
    with np.errstate(divide="ignore"):  # what underflows is below every limit
        return first + np.log2(tails), first + np.log2(tails + rest)


def _rare(population: int, marked: int, draws: int, count: int, times: int) -> bool:
    """Whether Pr[more than ``count`` are marked] * times <= 1, in integers. More can be."""
    i = count + 1
    weight, left = comb(marked, i) * comb(population - marked, draws - i), comb(population, draws) // times
    while True:
        left -= weight
        if left < 0:
            return False
        numerator, denominator = (marked - i) * (draws - i), (i + 1) * (population - marked - draws + i + 1)
        if weight * numerator <= left * (denominator - numerator):  # all that follows is at most a geometric series
            return True
        weight, i = weight * numerator // denominator, i + 1


def log2_chance(population: int, marked: int, draws: int, count: int) -> float:
    """log2 Pr[exactly ``count`` of those drawn are marked], right to ``log2_error``.

    >>> round(log2_chance(10, 5, 2, 1), 9) == round(log2(5 / 9), 9)
    True
    """
    unmarked, missing = population - marked, draws - count
    return (
        _log2_factorial(marked)
        + _log2_factorial(unmarked)
        + _log2_factorial(draws)
        + _log2_factorial(population - draws)
        - _log2_factorial(population)
        - _log2_factorial(count)
        - _log2_factorial(marked - count)
        - _log2_factorial(missing)
        - _log2_factorial(unmarked - missing)
    )


def log2_error(population: int) -> float:
    """How far off ``log2_chance`` can be."""
    return population * log2(population) * 2.0**-45 + 2.0**-30


def _log2_factorial(n: int) -> float:
    if n < _STIRLING_FROM:
        return _SMALL[n]
    series = (1 / 12 - (1 / 360 - 1 / (1260 * n * n)) / (n * n)) / n
    return ((n + 0.5) * log(n) - n + log(2 * pi) / 2 + series) / log(2)
