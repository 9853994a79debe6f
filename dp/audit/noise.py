"""The exact test of the noise: send known inputs, subtract them, and look at what is left.

The inputs must survive encoding exactly (zeros do, and whatever lies on the integer grid), so that nothing but noise is
left. Four figures follow, each bounded for every noise law that the library has:

    variance   one client's missing share of n lowers it by 1/n; noise that should have been removed raises it
    peak       a sum that wrapped around, or noise with too heavy a tail
    gain       the part along the known sum: a noised value clipped before the sum pulls it down, a denominator that
               follows the survivors scales it
    repeats    correlation of two rounds, or of a round with itself, at any shift: a seed used twice

How much is seen: among N coordinates in all, a share of the variance of sqrt(4 L / N) + 2 L / N for L = ln(2/a) with
false alarm a. At a = 1e-9, one missing client of 100 is missed three times in ten for N = 10^6 (no test could do much
better) and once in 10^15 for N = 2^22.

Rounds can only be compared in the basis in which the noise was drawn: where the encoding rotates, by a fresh seed each
round, audit without the rotation.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import NDArray

from dp.audit.claim import FALSE_ALARM, Check, Claim, Pipeline, Vector, Verdict, release
from secagg.errors import UsageError


def audit_noise(
    pipeline: Pipeline,
    claim: Claim,
    rounds: Sequence[Sequence[Vector]],
    *,
    dropped: Collection[int] = (),
    false_alarm: float = FALSE_ALARM,
) -> tuple[Check, ...]:
    """Release each of ``rounds`` (an update a client) and check the noise. The sum leaves ``dropped`` clients out."""
    known = np.zeros((len(rounds), len(rounds[0][0])))
    for row, updates in zip(known, rounds, strict=True):
        for i, update in enumerate(updates):
            if i not in dropped:
                row += update
    residuals = np.stack([release(pipeline, updates) for updates in rounds]) - known
    return (
        variance_check(residuals, claim, false_alarm),
        peak_check(residuals, claim, false_alarm),
        gain_check(residuals, known, claim, false_alarm),
        repeats_check(residuals, claim, false_alarm),
    )


def spikes(clients: int, length: int, rounds: int, *, height: float, clip_l2: float) -> list[list[Vector]]:
    """Known inputs for ``audit_noise``: every client sends ``height`` in as many places as its clip allows, zeros else.

    The places are others in each round. At the largest value that an encoding without rotation represents, these are
    the inputs that a noised value clipped to the range of the encoding distorts most; zeros everywhere else show noise
    that only follows what was sent.

    >>> [updates[1].tolist() for updates in spikes(clients=2, length=5, rounds=2, height=0.5, clip_l2=0.75)]
    [[0.5, 0.5, 0.0, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5, 0.0]]
    """
    places = min(max(int((clip_l2 / height) ** 2), 1), length)
    first = np.where(np.arange(length) < places, height, 0.0)
    return [[np.roll(first, r * places)] * clients for r in range(rounds)]


def variance_margin(count: int, excess_kurtosis: float, error: float) -> float:
    """By what part the mean square of ``count`` independent coordinates is off with probability at most ``error``.

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
    """The other way round: so many coordinates show that ``share`` of the variance is missing.

    >>> enough_coordinates(1 / 10, 0.0), enough_coordinates(1 / 100, 0.0)
    (32533, 3409472)
    """
    if not 0 < share < 1:
        raise UsageError("a share is between 0 and 1")
    log, margin = math.log(2 / error), share / (2 - share)
    spread = math.sqrt(2 * (2 + max(excess_kurtosis, 0.0)) * log)
    return math.ceil(((spread + math.sqrt(spread**2 + 8 * log * margin)) / (2 * margin)) ** 2)


def variance_check(residuals: NDArray[np.float64], claim: Claim, error: float = FALSE_ALARM) -> Check:
    """Mean square over planned variance. Too little fails, too much is a finding."""
    observed = float(np.mean(np.square(residuals / claim.noise_std)))
    margin = variance_margin(residuals.size, claim.excess_kurtosis, error)
    return Check("noise variance", observed, 1 - margin, 1 + margin, error, above=Verdict.FINDING)


def peak_check(residuals: NDArray[np.float64], claim: Claim, error: float = FALSE_ALARM) -> Check:
    """The largest coordinate, in standard deviations."""
    limit = claim.normal_limit(error / (2 * residuals.size))
    return Check("noise peak", float(np.abs(residuals).max()) / claim.noise_std, 0.0, limit, error)


def gain_check(
    residuals: NDArray[np.float64], known: NDArray[np.float64], claim: Claim, error: float = FALSE_ALARM
) -> Check:
    """The residuals' part along the known sums, in standard deviations."""
    norm = float(np.linalg.norm(known))
    if norm == 0:
        raise UsageError("known inputs that add up to zero show no gain")
    limit = claim.normal_limit(error / 2)
    return Check("gain", float(np.vdot(residuals, known)) / (norm * claim.noise_std), -limit, limit, error)


def repeats_check(residuals: NDArray[np.float64], claim: Claim, error: float = FALSE_ALARM) -> Check:
    """The largest correlation of two rounds, or of one with itself, over all shifts. A repeated round shows 1.

    For normal noise (any noise of ours, summed over clients, is close) a sum of d products is sub-gamma with variance
    at most d and scale at most 2 (Boucheron, Lugosi and Massart 2013, Sect. 2.4); union bound over rounds and shifts.
    """
    rounds, length = residuals.shape
    spectra = [np.fft.rfft(row / claim.noise_std, 2 * length) for row in residuals]  # padded: no wrapping around
    largest = 0.0
    for i, j in combinations_with_replacement(range(rounds), 2):
        correlation = np.abs(np.fft.irfft(spectra[i] * spectra[j].conj(), 2 * length))
        largest = max(largest, float(correlation[i == j :].max()) / length)
    comparisons = rounds * (rounds + 1) // 2 * 2 * length
    log = math.log(2 * comparisons / error)
    return Check("noise repeats", largest, 0.0, math.sqrt(2 * log / length) + 2 * log / length, error)
