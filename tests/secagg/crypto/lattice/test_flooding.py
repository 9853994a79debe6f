"""Wide discrete Gaussians: exact variances, the condition for smoothness, the exact law where it can be had."""

from fractions import Fraction
from itertools import combinations
from math import log2, pi

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.crypto import labels
from secagg.crypto.keys import derive
from secagg.crypto.lattice import QuotientRing
from secagg.crypto.lattice import flooding as module
from secagg.crypto.lattice.flooding import FACTOR_BITS, parts
from secagg.crypto.lattice.polynomials import Coefficients
from secagg.crypto.lattice.primes import moduli
from secagg.crypto.lattice.sampling import flooding
from secagg.crypto.sampling import LARGEST_VARIANCE, SMALLEST
from secagg.crypto.sampling.draws import discrete_gaussian
from secagg.errors import UsageError

variances = st.fractions(SMALLEST, LARGEST_VARIANCE * 4) | st.integers(44, 400).flatmap(
    lambda bits: st.integers(1 << bits, 2 << bits).map(Fraction)
)


@given(variance=variances)
def test_variances_add_up_exactly_and_every_part_can_be_drawn(variance: Fraction) -> None:
    chosen = parts(variance)
    assert sum(part * 4 ** (FACTOR_BITS * j) for j, part in enumerate(chosen)) == variance
    assert all(SMALLEST <= part <= LARGEST_VARIANCE for part in chosen)


@given(variance=variances)
def test_every_step_is_smooth(variance: Fraction) -> None:
    """log2(2.01 exp(-2 pi^2 tau^2)) of every y + B z, where z has all that is above y."""
    chosen = parts(variance)
    for j, low in enumerate(chosen[:-1]):
        above = sum(part * 4 ** (FACTOR_BITS * i) for i, part in enumerate(chosen[j + 1 :]))
        tau_squared = 1 / (Fraction(4**FACTOR_BITS) / low + 1 / above)
        assert log2(2.01) - 2 * pi**2 * float(tau_squared) * log2(np.e) < -450


@pytest.mark.parametrize("variance", [Fraction(0), SMALLEST / 2, Fraction(-1)])
def test_what_is_too_narrow_is_refused(variance: Fraction) -> None:
    with pytest.raises(UsageError, match="a variance is at least"):
        flooding(variance, 1, bytes(32))


# The law, in small: the same code with numbers 2^16 times narrower, where every probability can be written down.


def shrink(monkeypatch: pytest.MonkeyPatch, factor_bits: int, low: int) -> None:
    monkeypatch.setattr(module, "FACTOR_BITS", factor_bits)
    monkeypatch.setattr(module, "LOW_VARIANCE", Fraction(low))
    monkeypatch.setattr(module, "LARGEST_VARIANCE", Fraction(1 << 12))


def gaussian(variance: float, reach: int) -> np.ndarray:
    weights = np.exp(-(np.arange(-reach, reach + 1.0) ** 2) / (2 * variance))
    return weights / weights.sum()


def law(variance: Fraction, reach: int) -> np.ndarray:
    """Of the sum of parts on -reach..reach, by convolution."""
    total = np.ones(1)
    for j, part in enumerate(parts(variance)):
        one, step = gaussian(float(part), int(12 * float(part) ** 0.5) + 1), 1 << (module.FACTOR_BITS * j)
        spread = np.zeros((len(one) - 1) * step + 1)
        spread[::step] = one
        size = len(total) + len(spread) - 1
        total = np.fft.irfft(np.fft.rfft(total, size) * np.fft.rfft(spread, size), size)
    middle = len(total) // 2
    return total[middle - reach : middle + reach + 1]


def test_the_convolution_is_the_gaussian(monkeypatch: pytest.MonkeyPatch) -> None:
    """As smooth as in production (r^2 = 32 B^2). To the precision of doubles, with no statistics. sigma = 1024.

    Positive control: with r^2 = B^2 / 16 the comb is seen, and r^2 = B^2 is as bad as theory says.
    """
    ideal = gaussian(2.0**20, 14000)[10000:-10000]
    shrink(monkeypatch, 3, 1 << 11)
    assert len(parts(Fraction(1 << 20))) == 3
    assert np.abs(law(Fraction(1 << 20), 4000) - ideal).max() < 1e-14
    shrink(monkeypatch, 5, 1 << 6)
    assert np.abs(law(Fraction(1 << 20), 4000) - ideal).max() > 0.1 * ideal.max()
    shrink(monkeypatch, 5, 1 << 10)
    worst = np.abs(law(Fraction(1 << 20), 4000) / ideal - 1).max()
    assert worst == pytest.approx(2 * np.exp(-2 * pi**2), rel=0.02)


def chi_square(samples: np.ndarray, variance: float) -> float:
    """Against the exact law: 61 cells of 100 integers, and two tails."""
    reach = 14000
    exact = np.concatenate([[0.0], np.cumsum(gaussian(variance, reach))])
    cuts = np.arange(-3050, 3051, 100)
    cells = np.concatenate([[-reach], cuts, [reach + 1]])
    expected = np.diff(exact[cells + reach]) * len(samples)
    counts = np.diff([np.count_nonzero(samples < cut) for cut in [-(10**9), *cuts, 10**9]])
    return float(((counts - expected) ** 2 / expected).sum())


def combined(variance: Fraction, count: int, seed: bytes) -> np.ndarray:
    columns, weights = flooding(variance, count, seed)
    return sum(column * weight for column, weight in zip(columns, weights, strict=True))


def test_samples_follow_the_law(monkeypatch: pytest.MonkeyPatch) -> None:
    """62 degrees of freedom: above 190 with probability below 1e-14; residues modulo 64, 63 degrees: the same.

    Positive controls: 5 % more variance; a comb.
    """
    shrink(monkeypatch, 3, 1 << 11)
    samples = combined(Fraction(1 << 20), 400_000, b"a" * 32)
    assert chi_square(samples, 2.0**20) < 190 < chi_square(samples, 1.05 * 2.0**20)

    def comb(drawn: np.ndarray) -> float:
        return float(((np.bincount(drawn % 64, minlength=64) - 6250) ** 2 / 6250).sum())

    assert comb(samples) < 190
    shrink(monkeypatch, 5, 1 << 6)
    assert comb(combined(Fraction(1 << 20), 400_000, b"a" * 32)) > 10_000


# In full size.


def test_moments_of_a_wide_one_and_no_correlation_of_its_parts() -> None:
    """sigma = 2^71, 100,000 samples: mean, variance, fourth moment, correlations, each within 6.5 deviations (1e-10).

    Positive control: parts that were drawn from one seed are correlated.
    """
    count, variance = 100_000, Fraction(1 << 142)
    columns, weights = flooding(variance, count, b"m" * 32)
    scaled = sum(column * float(weight) for column, weight in zip(columns, weights, strict=True)) / 2.0**71
    assert abs(scaled.mean()) < 6.5 / count**0.5
    assert abs((scaled**2).mean() - 1) < 6.5 * (2 / count) ** 0.5
    assert abs((scaled**4).mean() - 3) < 6.5 * (96 / count) ** 0.5
    for column, part in zip(columns, parts(variance), strict=True):
        assert abs((column**2.0).mean() / float(part) - 1) < 6.5 * (2 / count) ** 0.5

    def correlation(one: np.ndarray, other: np.ndarray) -> float:
        return abs(float(np.corrcoef(one, other)[0, 1]))

    assert all(correlation(one, other) < 6.5 / count**0.5 for one, other in combinations(columns, 2))
    assert correlation(columns[0], discrete_gaussian(parts(variance)[0] / 4, count, _seed_of_part(0))) > 0.9


def _seed_of_part(j: int) -> bytes:
    return derive(b"m" * 32, labels.LATTICE_FLOODING, j.to_bytes(4, "big"))


def test_wide_ones_fill_the_distribution() -> None:
    """Kolmogorov and Smirnov: sqrt(n) D > 4.5 with probability 2 exp(-2 4.5^2) < 1e-17, plus 2^-70 from discreteness.

    Just above the sampler's limit, where the split is most delicate. Positive control: without the lower part.
    """
    scipy_stats = pytest.importorskip("scipy.stats")
    variance = LARGEST_VARIANCE + 1
    columns, weights = flooding(variance, 200_000, b"k" * 32)
    assert len(columns) == 2

    def distance(samples: np.ndarray) -> float:
        return 200_000**0.5 * scipy_stats.kstest(samples / float(variance) ** 0.5, "norm").statistic

    assert distance(columns[0] + columns[1] * float(weights[1])) < 4.5
    assert distance(columns[1] * float(weights[1])) > 20


def test_the_ring_gets_the_integers() -> None:
    ring = QuotientRing(4096, moduli(4096, 109))
    columns, weights = flooding(Fraction(1 << 142), 50, bytes(32))
    lifted = Coefficients.lift(ring, columns, weights)
    for i in range(50):
        x = sum(int(column[i]) * weight for column, weight in zip(columns, weights, strict=True))
        assert [int(word) for word in lifted.words[:, 0, i]] == [x % q for q in ring.primes]
    assert not lifted.words[:, 0, 50:].any()


def test_seeds_and_lengths() -> None:
    """More samples only add; another seed gives others."""
    long, _ = flooding(Fraction(1 << 100), 1000, bytes(32))
    short, _ = flooding(Fraction(1 << 100), 10, bytes(32))
    other, _ = flooding(Fraction(1 << 100), 1000, b"\1" * 32)
    for a, b, c in zip(long, short, other, strict=True):
        assert (a[:10] == b).all()
        assert (a != c).mean() > 0.99
