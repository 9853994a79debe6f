"""The exact test of the noise: send known inputs, subtract them, and look at what is left.

The inputs must survive encoding exactly (zeros do, and whatever lies on the integer grid), so that nothing but noise is
left. Four figures follow, each bounded for every noise law that the library has, and those of ``dp.audit.coordinates``
about single coordinates (two of them where there are rounds enough):

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

from dp.audit.claim import FALSE_ALARM, Check, Claim, Noise, Pipeline, Vector, Verdict, release
from dp.audit.coordinates import coordinates_check, patterns_checks, whole_number_checks
from dp.audit.margins import variance_margin
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
        repeats_check(residuals, claim.noise, false_alarm),
        coordinates_check(residuals, claim.noise, false_alarm),
        *patterns_checks(residuals, claim.noise, false_alarm),
        *whole_number_checks(residuals, claim.noise, false_alarm),
    )


def spikes(clients: int, length: int, rounds: int, *, height: float, clip_l2: float) -> list[list[Vector]]:
    """Known inputs for ``audit_noise``: each client sends ``height`` in as many coordinates as its clip allows.

    All other coordinates are zero. The coordinates change with each round, and every second round is quiet: zeros only,
    with all the noise. At the largest value that an encoding without rotation represents, these are the inputs that a
    noised value clipped to the range of the encoding distorts most; zeros everywhere else show noise that only follows
    what was sent.

    >>> [updates[1].tolist() for updates in spikes(clients=2, length=4, rounds=3, height=0.5, clip_l2=0.75)]
    [[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]]
    """
    coordinates = min(max(int((clip_l2 / height) ** 2), 1), length)
    first = np.where(np.arange(length) < coordinates, height, 0.0)
    return [[np.roll(first, r // 2 * coordinates) * (1 - r % 2)] * clients for r in range(rounds)]


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


def repeats_check(residuals: NDArray[np.float64], noise: Noise, error: float = FALSE_ALARM) -> Check:
    """The largest correlation of two rounds, or of one with itself, over all shifts. A repeated round shows 1.

    For normal noise (any noise of ours, summed over clients, is close) a sum of d products is sub-gamma with variance
    at most d and scale at most 2 (Boucheron, Lugosi and Massart 2013, Sect. 2.4); union bound over rounds and shifts.
    """
    rounds, length = residuals.shape
    spectra = [np.fft.rfft(row / noise.noise_std, 2 * length) for row in residuals]  # padded: no wrapping around
    largest = 0.0
    for i, j in combinations_with_replacement(range(rounds), 2):
        correlation = np.abs(np.fft.irfft(spectra[i] * spectra[j].conj(), 2 * length))
        largest = max(largest, float(correlation[i == j :].max()) / length)
    comparisons = rounds * (rounds + 1) // 2 * 2 * length
    log = math.log(2 * comparisons / error)
    return Check("noise repeats", largest, 0.0, math.sqrt(2 * log / length) + 2 * log / length, error)
