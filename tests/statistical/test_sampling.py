"""Millions of samples look like their law, and samples of a law one percent away do not.

Seeds are fixed: a test that passes once always passes. A right sampler with other seeds would fail a chi-square test
with probability exp(-21) < 8e-10 (Laurent and Massart 2000, Lemma 1: Pr[chi2_k >= k + 2 sqrt(kx) + 2x] <= exp(-x)) and
a test of a mean with 1.1e-9 (6.1 standard deviations); with some sixty below, less than 1e-7 in all.
"""

from collections.abc import Callable
from fractions import Fraction
from math import erf, sqrt

import numpy as np
import pytest
from numpy.typing import NDArray

from secagg.crypto.sampling.draws import discrete_gaussian, discrete_laplace, skellam
from tests.reference import noise as reference

Sampler = Callable[[Fraction, int, bytes], NDArray[np.int64]]
COUNT, MANY = 4_000_000, 100_000_000
SEED = bytes(range(32, 64))
FAR = 6.1
BIG = Fraction(10**9)

PERCENT = Fraction(101, 100)
CASES = [  # the law, and a factor on its parameter that has to be noticed
    (discrete_gaussian, Fraction(1, 12), Fraction(11, 10)),
    (discrete_gaussian, Fraction(1, 5), PERCENT),
    (discrete_gaussian, Fraction(10), PERCENT),
    (discrete_gaussian, Fraction(127**2), PERCENT),
    (discrete_gaussian, Fraction(128**2), PERCENT),
    (discrete_gaussian, Fraction(257**2), PERCENT),
    (discrete_gaussian, Fraction(1 << 40), PERCENT),
    (skellam, Fraction(1, 1000), Fraction(3, 2)),
    (skellam, Fraction(1, 5), Fraction(51, 50)),
    (skellam, Fraction(10), PERCENT),
    (skellam, Fraction(127**2), PERCENT),
    (skellam, Fraction(128**2), PERCENT),
    (skellam, Fraction(257**2), PERCENT),
    (skellam, Fraction(1 << 40), PERCENT),
    (discrete_laplace, Fraction(1, 3), PERCENT),
    (discrete_laplace, Fraction(10), PERCENT),
    (discrete_laplace, Fraction(33), PERCENT),
    (discrete_laplace, Fraction(200), PERCENT),
]
DEFINITIONS = {
    discrete_gaussian: reference.gaussian,
    skellam: reference.skellam,
    discrete_laplace: reference.laplace,
}


def spread(sampler: Sampler, parameter: Fraction) -> float:
    return float(parameter) * sqrt(2) if sampler is discrete_laplace else sqrt(parameter)


def cells(sampler: Sampler, parameter: Fraction, count: int) -> tuple[int, int, NDArray[np.float64]]:
    """Where cells begin, how wide they are and how many of ``count`` samples they should hold: a third of a standard
    deviation, the last ones on each side taken together until twenty are expected."""
    sigma = spread(sampler, parameter)
    width = max(1, int(sigma / 3))
    half = int(12 * sigma) // width + 8
    low = -half * width - width // 2
    if sampler is not discrete_laplace and parameter > BIG:  # continuous within 1e-10
        edges = low - 0.5 + width * np.arange(2 * half + 2)
        wanted = np.diff([erf(edge / sigma / sqrt(2)) / 2 for edge in edges])
    else:
        one_side = [float(p) for p in DEFINITIONS[sampler](parameter)]
        padded = np.zeros(2 * (half + 1) * width + 1)
        for x, p in enumerate(one_side[: -low - 1]):
            padded[x - low] = padded[-x - low] = p
        wanted = np.add.reduceat(padded, np.arange(2 * half + 1) * width)
    enough = np.flatnonzero(np.cumsum(wanted) * count >= 20)[0]
    middle = wanted[enough : len(wanted) - enough].copy()
    middle[0] += wanted[:enough].sum()
    middle[-1] += wanted[len(wanted) - enough :].sum()
    return low + int(enough) * width, width, middle * count


def even_moments(sampler: Sampler, parameter: Fraction) -> tuple[float, float]:
    if sampler is not discrete_laplace and parameter > BIG:
        return float(parameter), 3 * float(parameter) ** 2
    law = DEFINITIONS[sampler](parameter)
    second, fourth = (float(2 * sum(x**k * p for x, p in enumerate(law))) for k in (2, 4))
    return second, fourth


def tally(samples: NDArray[np.int64], low: int, width: int, number: int) -> NDArray[np.int64]:
    return np.bincount(np.clip((samples - low) // width, 0, number - 1), minlength=number)


def excess(counts: NDArray[np.int64], expected: NDArray[np.float64]) -> float:
    """Chi-square above what a right sampler exceeds with probability exp(-21)."""
    return beyond(float(((counts - expected) ** 2 / expected).sum()), len(counts) - 1)


def beyond(chi_square: float, degrees: int) -> float:
    return chi_square - (degrees + 2 * sqrt(21 * degrees) + 42)


@pytest.mark.thinned(4)
@pytest.mark.parametrize(("sampler", "parameter", "factor"), CASES)
def test_counts_and_moments(sampler: Sampler, parameter: Fraction, factor: Fraction) -> None:
    """Chi-square over cells; the mean of x and that of x^2, against the variance of both."""
    low, width, expected = cells(sampler, parameter, COUNT)
    assert len(expected) >= 3
    assert abs(expected.sum() / COUNT - 1) < 1e-6
    second, fourth = even_moments(sampler, parameter)

    def wrong(samples: NDArray[np.int64]) -> tuple[bool, bool]:
        off = np.square(samples, dtype=np.float64).mean() - second
        counts = tally(samples, low, width, len(expected))
        return excess(counts, expected) > 0, abs(off) > FAR * sqrt((fourth - second**2) / COUNT)

    samples = sampler(parameter, COUNT, SEED)
    assert abs(samples.mean()) <= FAR * sqrt(second / COUNT)
    assert wrong(samples) == (False, False)
    assert wrong(sampler(parameter * factor, COUNT, SEED)) == (True, True)


@pytest.mark.parametrize("sampler", [discrete_gaussian, skellam, discrete_laplace])
def test_low_bits(sampler: Sampler) -> None:
    """The remainder modulo 64 of a wide law is uniform within 1e-7; a hundredth of the lowest bits cleared is seen."""
    parameter = Fraction(10**5) if sampler is discrete_laplace else Fraction(1 << 30)
    samples, expected = sampler(parameter, COUNT, SEED), np.full(64, COUNT / 64)
    assert excess(np.bincount(samples & 63, minlength=64), expected) < 0
    samples[::100] &= ~1
    assert excess(np.bincount(samples & 63, minlength=64), expected) > 0


@pytest.mark.parametrize("sampler", [discrete_gaussian, skellam, discrete_laplace])
@pytest.mark.parametrize("parameter", [Fraction(10), Fraction(10**5)])
def test_neighbours_and_other_seeds_are_independent(sampler: Sampler, parameter: Fraction) -> None:
    """Correlations of values and of magnitudes, with the next sample and with the same place under another seed."""

    def correlated(left: NDArray[np.int64], right: NDArray[np.int64]) -> bool:
        return abs(np.corrcoef(left, right)[0, 1]) * sqrt(len(left)) > FAR

    here, there = sampler(parameter, COUNT // 4, SEED), sampler(parameter, COUNT // 4, SEED[::-1])
    mixed = np.where(np.arange(len(here)) % 100, there, here)
    for left, right in [(here, there), (here[1:], here[:-1])]:
        assert not correlated(left, right)
        assert not correlated(abs(left), abs(right))
    assert correlated(here, mixed)


@pytest.mark.parametrize("variance", [Fraction(10), Fraction(10**5)])
def test_seven_skellam_sevenths_are_one(variance: Fraction) -> None:
    """And seven discrete Gaussians of variance 1/7 are not a discrete Gaussian."""

    def total(sampler: Sampler, variance: Fraction) -> NDArray[np.int64]:
        return sum(sampler(variance / 7, COUNT // 4, bytes([k]) * 32) for k in range(7))

    low, width, expected = cells(skellam, variance, COUNT // 4)
    assert excess(tally(total(skellam, variance), low, width, len(expected)), expected) < 0
    assert excess(tally(total(skellam, variance * Fraction(51, 50)), low, width, len(expected)), expected) > 0
    low, width, expected = cells(discrete_gaussian, Fraction(1), COUNT // 4)
    assert excess(tally(total(discrete_gaussian, Fraction(1)), low, width, len(expected)), expected) > 0


@pytest.mark.thinned(2)
@pytest.mark.parametrize("sampler", [discrete_gaussian, discrete_laplace])
def test_opendp_draws_from_the_same_law(sampler: Sampler) -> None:
    """Two samples of 30,000 (theirs is fresh on each run); a parameter 20% off is caught."""
    dp = pytest.importorskip("opendp.prelude", reason="opendp is not installed: its samplers were NOT compared with")
    dp.enable_features("contrib")
    integers = dp.vector_domain(dp.atom_domain(T=int))
    if sampler is discrete_gaussian:
        theirs, parameter = dp.m.make_gaussian(integers, dp.l2_distance(T=float), scale=5.0), Fraction(25)
    else:
        theirs, parameter = dp.m.make_laplace(integers, dp.l1_distance(T=int), scale=10.0), Fraction(10)
    count = 30_000
    drawn = np.array(theirs([0] * count))
    low, width, expected = cells(sampler, parameter, count)

    def apart(ours: NDArray[np.int64]) -> float:
        """Two samples of one size: chi-square again."""
        left, right = (tally(samples, low, width, len(expected)) for samples in (ours, drawn))
        return beyond(float(((left - right) ** 2 / (left + right)).sum()), len(expected) - 1)

    assert apart(sampler(parameter, count, SEED)) < 0
    assert apart(sampler(parameter * Fraction(6, 5), count, SEED)) > 0


@pytest.mark.long
@pytest.mark.parametrize(("sampler", "parameter"), [case[:2] for case in CASES if case[2] == PERCENT])
def test_a_hundred_million(sampler: Sampler, parameter: Fraction) -> None:
    """A parameter a fifth of a percent off is caught."""
    low, width, expected = cells(sampler, parameter, MANY)

    def counts(parameter: Fraction) -> NDArray[np.int64]:
        tallies = [tally(sampler(parameter, MANY // 25, bytes([k]) * 32), low, width, len(expected)) for k in range(25)]
        return np.sum(tallies, axis=0)

    assert excess(counts(parameter), expected) < 0
    assert excess(counts(parameter * Fraction(501, 500)), expected) > 0
