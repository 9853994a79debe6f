"""Poisson sampling: every example is in a batch independently with the same probability, drawn from a CSPRNG.

That is the sampling that the accountant assumes. Shuffled epochs, or batches of one size, are something else (and
Opacus' loader takes 1 / len(loader) for the rate, which is not batch / examples unless the division comes out even).
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from secagg.crypto.prg import Rng, random_words
from secagg.errors import UsageError


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
