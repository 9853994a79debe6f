"""Tails of the hypergeometric law: how many of those drawn at random, without replacement, are marked.

Exact tails are integers over a common denominator, so nothing is rounded and nothing is undercounted. They are slow for
thousands of draws; estimates in floating point say where to look.
"""

from __future__ import annotations

from itertools import accumulate
from math import comb, lgamma, log

import numpy as np
from numpy.typing import NDArray


def most_marked(population: int, marked: int, draws: int, bits: int, times: int = 1) -> int:
    """The least count for which Pr[more than that are marked among those drawn] <= 2^-bits / times.

    >>> most_marked(1000, 100, 100, 40)
    34
    """
    lowest, weights = _hypergeometric(population, marked, draws)
    allowed, tails = comb(population, draws), accumulate(reversed(weights))
    return lowest + len(weights) - 1 - next(i for i, tail in enumerate(tails) if tail * times << bits > allowed)


def least_marked(population: int, marked: int, draws: int, bits: int, times: int = 1) -> int:
    """The largest count for which Pr[fewer than that are marked among those drawn] <= 2^-bits / times.

    >>> least_marked(1000, 900, 100, 40)
    66
    """
    lowest, weights = _hypergeometric(population, marked, draws)
    allowed, tails = comb(population, draws), accumulate(weights)
    return lowest + next(i for i, tail in enumerate(tails) if tail * times << bits > allowed)


def _hypergeometric(population: int, marked: int, draws: int) -> tuple[int, tuple[int, ...]]:
    """(lowest count, weights): weight / comb(population, draws) is the chance of lowest, lowest + 1, ... marked."""
    lowest = max(0, draws - (population - marked))
    weights = [comb(marked, lowest) * comb(population - marked, draws - lowest)]
    for i in range(lowest, min(marked, draws)):
        numerator = weights[-1] * (marked - i) * (draws - i)
        weights.append(numerator // ((i + 1) * (population - marked - draws + i + 1)))
    return lowest, tuple(weights)


def estimated_log2(population: int, marked: int, draws: int) -> tuple[int, NDArray[np.float64]]:
    """(lowest count, log2 of the chances), in floating point: for ruling out, never for deciding."""
    lowest, highest = max(0, draws - (population - marked)), min(marked, draws)
    first = _log2_comb(marked, lowest) + _log2_comb(population - marked, draws - lowest) - _log2_comb(population, draws)
    i = np.arange(lowest, highest, dtype=np.float64)
    ratios = (marked - i) * (draws - i) / ((i + 1) * (population - marked - draws + i + 1))
    return lowest, first + np.concatenate([[0.0], np.cumsum(np.log2(ratios))])


def _log2_comb(n: int, k: int) -> float:
    return (lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)) / log(2)
