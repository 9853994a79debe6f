"""Audit of the noise in each coordinate, which an average over all coordinates does not see.

A mean square over 2^15 numbers says nothing about one of them. Five more figures do. They are computed from residuals
(released minus known), a row for each round:

    coordinates the mean square of each coordinate over the rounds, and of each block of 2^k coordinates that begins at
                a multiple of 2^k, over the least that its number of draws allows
    patterns    the same along each Walsh function (+1 and -1 over the whole vector): noise that adds up to zero over
                the vector, or over its halves, is whole in every coordinate and still gives that sum away. And the
                largest value along any: noise that is never negative in one client is large along the first
    twins       coordinates that have the same noise as another one, or the opposite, in all rounds, or as themselves
    grid        the largest number whose multiples the noise keeps to, but for an offset: rounded to even numbers it
                gives away whether each sum is even
    lone        clients that contribute to one coordinate only: the first, the last, where blocks end

What a single coordinate shows depends on the number of rounds. No value of integer noise has a probability above p,
about 0.4 over its standard deviation (``margins.mode``), so small values in every round are improbable, and a
coordinate without any noise is found as soon as p^rounds is small enough. ``margins.least_mean_square`` says what is
too little, with a false-alarm rate that holds for every law with that p. A part that is missing from one coordinate
takes many more rounds to see than the same part missing from all (docs/privacy.md has a table).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dp.audit.claim import FALSE_ALARM, Check, Noise, Pipeline, coins, release
from dp.audit.margins import comparisons, least_mean_square, mode, twins_by_chance
from secagg.crypto.prg import Rng, random_words
from secagg.errors import UsageError

_FAR = (2.0, 3.0, 3.5)
ROUGH = 10


def coordinates_check(residuals: NDArray[np.float64], noise: Noise, error: float = FALSE_ALARM) -> Check:
    """The mean square of the block of coordinates that has least for its size, over the least that is allowed."""
    rounds, length = residuals.shape
    squares = np.square(residuals / noise.noise_std).sum(axis=0)
    least = math.inf
    for size in _sizes(length):
        starts = np.arange(0, length, size)
        counts = rounds * np.minimum(size, length - starts)
        for count in set(counts.tolist()):
            needed = count * least_mean_square(count, noise, error / comparisons(length))
            sums = np.add.reduceat(squares, starts)[counts == count]
            least = min(least, float(sums.min()) / needed if needed > 0 else math.inf)
    return Check("noise in each place", least, 1.0, math.inf, error)


def patterns_checks(residuals: NDArray[np.float64], noise: Noise, error: float = FALSE_ALARM) -> tuple[Check, Check]:
    """Along Walsh functions, the least mean square over the least allowed, and the largest value in deviations."""
    rounds, length = residuals.shape
    along = _walsh(residuals) / (math.sqrt(length) * noise.noise_std)
    summed = Noise(noise.noise_std, noise.excess_kurtosis / length, noise.step / math.sqrt(length))
    needed = least_mean_square(rounds, summed, error / along.shape[1])
    least = float(np.square(along).mean(axis=0).min())
    limit = summed.limit(error / (2 * along.size))
    return (
        Check("noise in each pattern", least / needed if needed > 0 else math.inf, 1.0, math.inf, error),
        Check("pattern peak", float(np.abs(along).max()), 0.0, limit, error),
    )


def twins_check(residuals: NDArray[np.float64], noise: Noise) -> Check:
    """How many coordinates have the noise of another one in all rounds, up to a sign, or the same in every round."""
    rounds, length = residuals.shape
    columns = np.ascontiguousarray(np.rint(residuals / noise.step).T)
    constant = int((columns == columns[:, :1]).all(axis=1).sum())
    first = columns[np.arange(length), np.argmax(columns != 0, axis=1)]
    columns = columns * np.where(first < 0, -1.0, 1.0)[:, None] + 0.0  # there is one zero, not two
    distinct = len(np.unique(columns.view(np.dtype((np.void, columns.itemsize * rounds)))))
    return Check("twins", length - distinct + constant, 0, 0, min(twins_by_chance(length, rounds, noise), 1.0))


def tails_check(residuals: NDArray[np.float64], noise: Noise, error: float = FALSE_ALARM) -> Check:
    """How many numbers lie beyond 2, 3 and 3.5 deviations, over the least that is allowed; cut noise has none there.

    At least 3/4 as many as of a normal law are expected, which holds for whole numbers of a deviation of 10 or more.
    """
    from scipy.stats import binom, norm

    if noise.step * ROUGH > noise.noise_std:
        raise UsageError(f"the tails of noise with a deviation below {ROUGH} steps are not those of a normal law")
    least, sizes = math.inf, np.abs(residuals) / noise.noise_std
    for far in _FAR:
        needed = float(binom.ppf(error / len(_FAR), sizes.size, 1.5 * norm.sf(far)))
        least = min(least, int((sizes > far).sum()) / needed if needed else math.inf)
    return Check("noise tails", least, 1.0, math.inf, error)


def grid_check(residuals: NDArray[np.float64], noise: Noise) -> Check:
    """The greatest common divisor of all differences of a row, the largest of all rows.

    Noise falls into one given class modulo m with probability at most p + 1/m, and there are no more m than whole
    numbers from the least residual to the largest.
    """
    rounds, length = residuals.shape
    whole = np.rint(residuals / noise.step).astype(np.int64)
    largest = int(np.gcd.reduce(whole - whole[:, :1], axis=1).max())
    span = 2 * math.ceil(noise.limit(2.0**-80) * noise.noise_std / noise.step)
    rate = rounds * (span * (0.5 + mode(noise)) ** (length - 1) + length * 2.0**-79)
    return Check("noise grid", largest, 1, 1, min(rate, 1.0))


def whole_number_checks(residuals: NDArray[np.float64], noise: Noise, error: float) -> tuple[Check, ...]:
    """The checks for integer noise, as far as there is enough of it for so few false alarms."""
    found = (twins_check(residuals, noise), grid_check(residuals, noise)) if noise.step else ()
    return tuple(check for check in found if check.false_alarm <= error)


def landmarks(length: int, rng: Rng, more: int = 4) -> list[int]:
    """The first two coordinates, the last, both sides of each power of two from 64, where blocks end, and random ones.

    >>> from secagg.crypto.prg import Prg
    >>> landmarks(200, Prg(bytes(32)), more=0)
    [0, 1, 63, 64, 127, 128, 199]
    """
    powers = [1 << k for k in range(6, length.bit_length())]
    found = {0, 1, length - 1, *powers, *(power - 1 for power in powers), *(random_words(rng, more) % length).tolist()}
    return sorted(coordinate for coordinate in found if coordinate < length)


def audit_lone(
    pipeline: Pipeline,
    noise: Noise,
    coordinates: Sequence[int],
    *,
    clients: int,
    length: int,
    height: float,
    rounds: int,
    rng: Rng,
    false_alarm: float = FALSE_ALARM,
) -> Check:
    """Canaries in one coordinate each: ``height`` there, or nothing, as a coin decides, ``rounds`` times.

    What a coordinate shows beside the contribution is its noise: with little of it the coin could be read off.
    """
    worst, needed = math.inf, least_mean_square(rounds, noise, false_alarm / len(coordinates))
    if needed <= 0:
        raise UsageError(f"{rounds} rounds show nothing of a single coordinate")
    for first in range(0, len(coordinates), clients):
        some = np.array(coordinates[first : first + clients])
        squares = np.zeros(len(some))
        for _ in range(rounds):
            heights = np.where(coins(rng, len(some)), height, 0.0)
            updates = [
                value * np.eye(1, length, coordinate)[0]
                for value, coordinate in zip(heights, some.tolist(), strict=True)
            ]
            total = release(pipeline, updates + [np.zeros(length)] * (clients - len(some)))
            squares += np.square((total[some] - heights) / noise.noise_std)
        worst = min(worst, float(squares.min()) / rounds)
    return Check("lone canaries", worst / needed, 1.0, math.inf, false_alarm)


def _sizes(length: int) -> list[int]:
    return [1 << k for k in range((length - 1).bit_length() + 1)]


def _walsh(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums of each row with the signs of each Walsh function, over a length filled up with zeros to a power of two.

    >>> _walsh(np.array([[1.0, 2.0, 4.0]])).tolist()
    [[7.0, 3.0, -1.0, -5.0]]
    """
    length = _sizes(rows.shape[1])[-1]
    found, half = np.pad(rows, ((0, 0), (0, length - rows.shape[1]))), 1
    while half < length:
        pairs = found.reshape(len(rows), -1, 2, half)
        found = np.stack([pairs[:, :, 0] + pairs[:, :, 1], pairs[:, :, 0] - pairs[:, :, 1]], axis=2)
        found, half = found.reshape(len(rows), length), 2 * half
    return found
