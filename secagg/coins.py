"""Poisson sampling: each unit is taken by a secret coin of its own, all with the same probability, from a CSPRNG.

That is the sampling that accountants assume. Shuffled epochs, or batches of one size, are something else (and Opacus'
loader takes 1 / len(loader) for the rate, which is not batch / examples unless the division comes out even). It counts
only against those who do not see the coins; so the work that is done must not show them, or how many came up heads.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from math import ceil, log

import numpy as np
from numpy.typing import NDArray

from secagg.crypto.prg import Rng, random_words
from secagg.errors import UsageError

_OVERFLOW_BITS = 40
"""A sample is larger than ``most_sampled`` with probability 2^-40 at most."""


def poisson_sample(population: int, rate: Fraction, rng: Rng) -> NDArray[np.int64]:
    """The indices of a sample of ``range(population)``, often of another size, sometimes empty.

    The probability is ``rate`` rounded down to a multiple of 2^-64: never above what is charged.

    >>> from secagg.crypto.prg import Prg
    >>> poisson_sample(20, Fraction(1, 4), Prg(bytes(32))).tolist()
    [5, 10, 11, 12, 14, 16, 17, 19]
    >>> poisson_sample(3, Fraction(1), Prg(bytes(32))).tolist()
    [0, 1, 2]
    """
    if population < 0 or not 0 < rate <= 1:
        raise UsageError(f"a sampling rate is above 0 and at most 1, not {rate}")
    if rate == 1:
        return np.arange(population)
    threshold = (rate.numerator << 64) // rate.denominator
    return np.flatnonzero(random_words(rng, population) < np.uint64(threshold))


@lru_cache(64)
def most_sampled(population: int, rate: Fraction) -> int:
    """How many are in a sample at most, but for a probability of 2^-40, by Chernoff's bound.

    >>> most_sampled(1000, Fraction(1, 50)), most_sampled(200, Fraction(1, 4)), most_sampled(200, Fraction(9, 10))
    (61, 100, 200)
    """
    if population < 1:
        return population
    rare = _OVERFLOW_BITS * log(2) / population
    enough = (k for k in range(ceil(population * rate), population) if _divergence(k / population, rate) >= rare)
    return next(enough, population)


def among_others(population: int, rate: Fraction, rng: Rng) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """A Poisson sample, hidden among others of the population: who is looked at, in random order, and who of these is
    in the sample.

    So many are looked at as ``most_sampled`` says, whatever the coins; beside the sample these are others by lot, for
    whom the same work is to be done. A sample that is larger is looked at whole: nobody is left out of it, since it
    would be none of independent coins any more, and only that rare event shows.

    The order is by lot since what is computed for one may follow, in its last bits, from where it stands among those
    that are computed together. So where the others of a sample stand says nothing of one user's coin.

    >>> from secagg.crypto.prg import Prg
    >>> places, sampled = among_others(200, Fraction(1, 4), Prg(bytes(32)))
    >>> len(places), len(set(places.tolist())), int(sampled.sum()) < 100
    (100, 100, True)
    """
    sample = poisson_sample(population, rate, rng)
    heads = np.zeros(population, bool)
    heads[sample] = True
    count = max(most_sampled(population, rate), len(sample))
    first = np.lexsort((random_words(rng, population), ~heads))[:count]  # the sample, then others in random order
    order = np.argsort(random_words(rng, count), kind="stable")
    places = first[order]
    return places, heads[places]


def _divergence(share: float, rate: Fraction) -> float:
    """The Kullback-Leibler divergence of a coin with probability ``share`` from one with ``rate``; 0 < share < 1."""
    return share * log(share / rate) + (1 - share) * log((1 - share) / (1 - rate))
