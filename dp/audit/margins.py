"""Margins of statistical checks: how much a number of draws of the noise shows, and at which false-alarm rate.

``variance_margin`` is about the mean square of many draws, ``least_mean_square`` about that of few: the noise of one
coordinate in a handful of rounds.
"""

from __future__ import annotations

import math

from dp.audit.claim import FALSE_ALARM, Noise
from secagg.errors import UsageError


def variance_margin(count: int, excess_kurtosis: float, error: float) -> float:
    """The relative error of the mean square of ``count`` coordinates, exceeded with probability at most ``error``.

    With L = ln(2/error) and k = 3 + excess kurtosis, sqrt(2 (k - 1) L / count) + 2 L / count. Below: Chernoff with
    exp(-y) <= 1 - y + y^2/2, for any law. Above: for sub-Gaussian laws (Laurent and Massart 2000, Lemma 1); for Skellam
    noise the tests compute the Chernoff bound from the law itself.

    >>> round(variance_margin(1 << 22, 0.0, 1e-9), 5)
    0.00453
    """
    log = math.log(2 / error)
    return math.sqrt(2 * (2 + max(excess_kurtosis, 0.0)) * log / count) + 2 * log / count


def visible_share(count: int, excess_kurtosis: float, error: float = FALSE_ALARM) -> float:
    """The smallest part of the variance whose absence ``count`` coordinates miss with probability at most ``error``.

    >>> round(visible_share(1 << 15, 0.0), 3)
    0.1
    """
    margin = variance_margin(count, excess_kurtosis, error)
    return 2 * margin / (1 + margin)


def enough_coordinates(share: float, excess_kurtosis: float, error: float = FALSE_ALARM) -> int:
    """The inverse of ``visible_share``: how many coordinates show that ``share`` of the variance is missing.

    >>> enough_coordinates(1 / 10, 0.0), enough_coordinates(1 / 100, 0.0)
    (32533, 3409472)
    """
    if not 0 < share < 1:
        raise UsageError("a share is between 0 and 1")
    log, margin = math.log(2 / error), share / (2 - share)
    spread = math.sqrt(2 * (2 + max(excess_kurtosis, 0.0)) * log)
    return math.ceil(((spread + math.sqrt(spread**2 + 8 * log * margin)) / (2 * margin)) ** 2)


def mode(noise: Noise) -> float:
    """A bound on the probability of any value of the noise; 0 if it is continuous.

    e^-V I0(V) for Skellam noise of variance V in whole numbers, about 1 / sqrt(2 pi V); no more for sums of discrete
    Gaussians of variance 1 or more.
    """
    if not noise.step:
        return 0.0
    variance = (noise.noise_std / noise.step) ** 2
    return min((1 + 1 / (4 * variance)) / math.sqrt(2 * math.pi * variance), 1 / math.sqrt(1 + 2 * variance))


def least_mean_square(count: int, noise: Noise, error: float) -> float:
    """The mean square, over the variance, below which ``count`` draws are with probability at most ``error``, or 0.

    The larger of two bounds. One is that of ``variance_margin``. The other is for few draws: if no value has a
    probability above p, then E exp(-t X^2 / s^2) <= p (1 + s sqrt(pi / t)), and with t = 1 / (2 q) the mean square of n
    draws is at most q with probability at most (sqrt(e) (p + p s sqrt(2 pi) sqrt(q)))^n.

    >>> noise = Noise(noise_std=1000.0, step=1.0)
    >>> [round(math.sqrt(least_mean_square(rounds, noise, 1e-13)), 3) for rounds in (3, 5, 8, 32, 256, 2048)]
    [0.0, 0.001, 0.014, 0.238, 0.539, 0.854]
    """
    most = mode(noise)
    spread = most * math.sqrt(2 * math.pi) * noise.noise_std / noise.step if noise.step else 1.0
    few = max(math.exp(math.log(error) / count - 0.5) - most, 0.0) / spread
    return max(few**2, 1 - variance_margin(count, noise.excess_kurtosis, 2 * error))


def enough_rounds(length: int, noise: Noise, error: float = FALSE_ALARM) -> int:
    """How many rounds show any of ``length`` coordinates that has no noise, and any two that have the same.

    >>> [enough_rounds(1 << 12, Noise(deviation, step=1.0)) for deviation in (1000.0, 3.0)]
    [5, 20]
    """
    rounds = 1
    while not (
        least_mean_square(rounds, noise, error / comparisons(length)) > 0
        and twins_by_chance(length, rounds, noise) <= error
    ):
        rounds += 1
    return rounds


def twins_by_chance(length: int, rounds: int, noise: Noise) -> float:
    """A bound on the probability that two of ``length`` coordinates agree in all rounds, or that one is constant.

    Two given ones, up to a sign, with probability 2 p^rounds; one is the same in all with p^(rounds - 1).
    """
    most = mode(noise)
    return length * (length - 1) * most**rounds + length * most ** (rounds - 1)


def comparisons(length: int) -> int:
    """A bound on the number of blocks of 1, 2, 4, ... coordinates."""
    return 2 * length + length.bit_length() + 1
