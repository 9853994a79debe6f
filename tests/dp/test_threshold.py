"""The threshold of noised counts, beside the exact law of sums of discrete Gaussians."""

from __future__ import annotations

from fractions import Fraction
from itertools import accumulate
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dp.noise import Family, NoiseSpec
from dp.threshold import threshold
from secagg.errors import UsageError
from tests.reference import noise as reference


def tails(parameters: list[Fraction]) -> NDArray[np.float64]:
    """P(sum >= b) for b = 0, 1, 2, ...: all terms are positive, so doubles keep their relative precision."""
    law = np.ones(1)
    for parameter in parameters:
        one_side = np.array([float(p) for p in reference.gaussian(parameter)])
        law = np.convolve(law, np.concatenate([one_side[:0:-1], one_side]))
    return np.cumsum(law[::-1])[::-1][len(law) // 2 :]


@pytest.mark.parametrize("parameters", [[8], [8] * 12, [50], [9, 8, 30, 8], [400, 400, 8]])
@pytest.mark.parametrize("places", [1, 10, 1000])
def test_the_bound_holds_of_the_exact_law_and_one_less_would_not(parameters: list[int], places: int) -> None:
    """All places together, independent of each other. The bound gives away a unit at most, where it is below 10^-1."""
    tail = tails([Fraction(one) for one in parameters])

    def fails(at: int) -> float:
        return float(-np.expm1(places * np.log1p(-tail[at])))

    for failing in (Fraction(1, 10), Fraction(1, 20), Fraction(1, 1000), Fraction(1, 10**6), Fraction(1, 10**8)):
        found = threshold(3, Fraction(sum(parameters)), places, failing) - 3
        assert fails(found) <= failing
        assert fails(found - 2) > failing


def test_it_is_the_gaussian_one_to_within_a_unit() -> None:
    for variance, cap, failing in ((50, 100, Fraction(1, 10**6)), (10**6, 10, Fraction(1, 20))):
        gaussian = 1 + variance**0.5 * NormalDist().inv_cdf((1 - float(failing)) ** (1 / cap))
        assert 0 <= threshold(1, Fraction(variance), cap, failing) - gaussian <= 1.6


def test_more_noise_more_places_or_more_care_is_a_higher_threshold() -> None:
    base = threshold(1, Fraction(10**6), 10, Fraction(1, 100))
    assert threshold(1, Fraction(10**6), 11, Fraction(1, 100)) > base
    assert threshold(1, Fraction(101 * 10**4), 10, Fraction(1, 100)) > base
    assert threshold(1, Fraction(10**6), 10, Fraction(1, 101)) > base
    assert threshold(7, Fraction(10**6), 10, Fraction(1, 100)) == base + 6


def test_what_wraps_is_paid_for() -> None:
    """A sum wraps with probability 2^-40, which is a thousandth of the smallest probability that can be asked for."""
    least = Fraction(1, 1 << 30)
    deviations = (threshold(0, Fraction(10**16), 1, least) - 0.5) / 10**8
    assert 0 < deviations + NormalDist().inv_cdf(float(least)) < 2e-4
    assert deviations >= -NormalDist().inv_cdf(float(least - Fraction(1, 1 << 40)))


@pytest.mark.parametrize("failing", [Fraction(0), Fraction(1, 1 << 31), Fraction(11, 100), Fraction(1)])
def test_no_such_probability(failing: Fraction) -> None:
    with pytest.raises(UsageError, match="from 2\\^-30 to 1/10"):
        threshold(1, Fraction(50), 1, failing)


def test_no_place_and_no_noise() -> None:
    for variance, places in ((Fraction(50), 0), (Fraction(0), 1), (Fraction(-1), 1)):
        with pytest.raises(UsageError, match="one place or more, and for noise"):
            threshold(1, variance, places, Fraction(1, 100))


@given(st.data())
@settings(max_examples=50)
def test_all_noise_in_a_sum_is_what_its_survivors_drew_and_did_not_take_off(data: st.DataObject) -> None:
    """Added up draw by draw: each survivor's share and its components up to the level, and all of those of some."""
    clients = data.draw(st.integers(4, 60))
    colluders = data.draw(st.integers(0, clients // 2))
    dropouts = data.draw(st.integers(0, clients - colluders - 1))
    components = data.draw(st.integers(0, dropouts))
    noise = NoiseSpec(Family.DISCRETE_GAUSSIAN, Fraction(10**6), dropouts, colluders, components)
    survivors = data.draw(st.integers(clients - dropouts, clients))
    left = data.draw(st.integers(0, survivors))
    kept = list(accumulate(noise.drawn_variances(clients)))
    level = noise.removal_level(clients - survivors)
    drawn = sum([kept[level]] * (survivors - left) + [kept[-1]] * left)
    assert noise.whole_variance(clients, survivors, left) == drawn
    assert drawn >= noise.honest_variance(clients, survivors)
    for wrong in ((clients + 1, 0), (survivors, survivors + 1), (survivors, -1)):
        with pytest.raises(UsageError, match="cannot have fallen silent"):
            noise.whole_variance(clients, *wrong)
