"""Single places, patterns, twins, grids: what is seen, and how seldom it is wrong. Seeds are fixed."""

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from dp.audit import Check, Noise, Verdict, audit_lone, enough_rounds, landmarks
from dp.audit.coordinates import (
    coordinates_check,
    grid_check,
    patterns_checks,
    tails_check,
    twins_check,
    whole_number_checks,
)
from secagg.crypto.prg import Prg
from secagg.errors import UsageError
from tests.scenes.noise_laws import binomial_limit, discrete_gaussian_law, skellam, skellam_law

LENGTH = 300
NOISE = Noise(100.0, 1e-4, step=1.0)
ROUNDS = enough_rounds(LENGTH, NOISE)
FEW = 7
"""Rounds, more than ``ROUNDS``."""


def noise(seed: int, rounds: int = FEW, length: int = LENGTH) -> np.ndarray:
    return skellam(np.random.default_rng(seed), NOISE.noise_std**2, (rounds, length))


def checks(residuals: np.ndarray) -> dict[str, Verdict]:
    found = (coordinates_check(residuals, NOISE), *patterns_checks(residuals, NOISE))
    return {check.name: check.verdict for check in (*found, *whole_number_checks(residuals, NOISE, 1e-9))}


def only(name: str) -> dict[str, Verdict]:
    every = ("noise in each place", "noise in each pattern", "pattern peak", "twins", "noise grid")
    return {each: Verdict.FAILED if each == name else Verdict.PASSED for each in every}


@pytest.mark.parametrize("seed", range(5))
def test_whole_noise_passes(seed: int) -> None:
    assert checks(noise(seed)) == only("")


@pytest.mark.parametrize("place", [0, 1, 127, 128, 255, 256, LENGTH - 1])
@pytest.mark.parametrize("left", [0.0, 0.01])
def test_a_place_without_noise_is_seen(place: int, left: float) -> None:
    residuals = noise(1, rounds=12 if left else FEW)
    residuals[:, place] = np.rint(left * residuals[:, place])
    found = checks(residuals)
    assert found["noise in each place"] is Verdict.FAILED
    assert found["twins"] is (Verdict.PASSED if left else Verdict.FAILED)


def test_a_place_that_keeps_its_noise_is_seen() -> None:
    residuals = noise(2)
    residuals[:, 5] = 120.0
    assert checks(residuals) == only("twins")


@pytest.mark.parametrize("block", [slice(0, 64), slice(256, LENGTH), slice(128, 192)])
def test_a_block_with_less_noise_is_seen(block: slice) -> None:
    """A quarter of the variance: no single place shows it in so few rounds."""
    residuals = noise(3)
    residuals[:, block] = np.rint(residuals[:, block] / 2)
    assert checks(residuals)["noise in each place"] is Verdict.FAILED


@pytest.mark.parametrize("signs", [1, 2, 4, 256])
def test_noise_that_adds_up_to_nothing_is_seen(signs: int) -> None:
    """Over the vector, or with alternating signs."""
    residuals = noise(4)
    pattern = np.where(np.arange(LENGTH) // signs % 2, -1.0, 1.0) if signs > 1 else np.ones(LENGTH)
    residuals[:, 9] -= pattern[9] * (residuals @ pattern)
    assert checks(residuals)["noise in each pattern"] is Verdict.FAILED


def test_noise_that_leans_to_one_side_is_seen() -> None:
    """A fifth of the deviation in every place, in one round: no place shows it."""
    residuals = noise(10, length=1 << 12)
    residuals[3] += 20
    assert checks(residuals) == only("pattern peak")


@pytest.mark.parametrize("sign", [1, -1])
def test_twins_are_seen_wherever_they_are(sign: int) -> None:
    residuals = noise(5)
    residuals[:, 17] = sign * residuals[:, 201]
    assert checks(residuals)["twins"] is Verdict.FAILED
    assert twins_check(residuals, NOISE).observed == 1
    residuals[0, 17] += 1
    assert checks(residuals) == only("")


@pytest.mark.parametrize("multiple", [2, 3, 64])
@pytest.mark.parametrize("offset", [0, 1])
def test_noise_on_a_coarser_grid_is_seen(multiple: int, offset: int) -> None:
    residuals = np.rint(noise(6) / multiple) * multiple + offset
    found = grid_check(residuals, NOISE)
    assert (found.observed, found.verdict) == (multiple, Verdict.FAILED)
    residuals[:, 0] += 1
    assert grid_check(residuals, NOISE).verdict is Verdict.PASSED


def test_tails_that_are_cut_are_seen() -> None:
    """Three deviations, of 2^15 numbers: 88 lie beyond, and once in 10^9 times fewer than a third."""
    for seed in range(5):
        assert tails_check(noise(seed, 8, 1 << 12), NOISE).verdict is Verdict.PASSED
    cut = np.clip(noise(0, 8, 1 << 12), -300, 300)
    assert tails_check(cut, NOISE).verdict is Verdict.FAILED
    assert tails_check(noise(0, 8, 1 << 12) / 2, NOISE).verdict is Verdict.FAILED
    with pytest.raises(UsageError, match="not those of a normal law"):
        tails_check(cut, Noise(9.0, step=1.0))


@pytest.mark.parametrize("law", [skellam_law, discrete_gaussian_law])
@pytest.mark.parametrize("variance", [100.0, 1234.5, 1e6])
def test_the_laws_have_three_quarters_of_a_normal_tail(law: Any, variance: float) -> None:
    values, masses = law(variance, math.ceil(9 * math.sqrt(variance)))
    for far in (2.0, 3.0, 3.5):
        assert masses[np.abs(values) > far * math.sqrt(variance)].sum() > 1.5 * norm.sf(far)


def test_what_so_few_rounds_do_not_show_is_left_out() -> None:
    """Two rounds, or noise of which nobody said in what steps it comes."""
    assert [check.name for check in whole_number_checks(noise(7, rounds=2), NOISE, 1e-9)] == ["noise grid"]
    assert whole_number_checks(noise(7), Noise(100.0), 1e-9) == ()
    assert whole_number_checks(noise(7, length=3), NOISE, 1e-9)[0].name == "twins"


def test_alarms_on_whole_noise_are_as_rare_as_stated() -> None:
    """At a stated 5%: 1000 audits of 6 rounds of 64 coordinates, the count within 6 standard deviations (1e-9)."""
    rng, small, alarms = np.random.default_rng(8), Noise(3.0, 1 / 9, step=1.0), [0, 0, 0, 0]
    for residuals in skellam(rng, 9.0, (1000, 6, 64)):
        found = (coordinates_check(residuals, small, 0.05), *patterns_checks(residuals, small, 0.05))
        for i, check in enumerate((*found, twins_check(residuals, small))):
            alarms[i] += check.verdict is not Verdict.PASSED
    assert max(alarms[:3]) < binomial_limit(1000, 0.05)
    assert alarms[3] < binomial_limit(1000, twins_check(skellam(rng, 9.0, (6, 64)), small).false_alarm)


def lone(unnoised: int | None, rounds: int = ROUNDS) -> Check:
    rng, places = np.random.default_rng(9), landmarks(LENGTH, Prg(b"p" * 32))

    def pipeline(updates: list[np.ndarray]) -> np.ndarray:
        drawn = skellam(rng, NOISE.noise_std**2, LENGTH)
        if unnoised is not None:
            drawn[unnoised] = 0
        return sum(updates) + drawn

    few = {"clients": 4, "length": LENGTH, "height": 500.0, "rounds": rounds, "rng": Prg(b"c" * 32)}
    return audit_lone(pipeline, NOISE, places, **few)


@pytest.mark.parametrize("place", [0, 1, 63, 64, LENGTH - 1])
def test_a_lone_canary_sees_its_place(place: int) -> None:
    assert lone(place).verdict is Verdict.FAILED


def test_lone_canaries_in_whole_noise_see_nothing() -> None:
    assert lone(None).verdict is Verdict.PASSED
    assert lone(2 * 64 + 50).verdict is Verdict.PASSED  # no landmark, and what audit_noise is for
    with pytest.raises(UsageError, match="1 rounds show nothing"):
        lone(None, rounds=1)


def test_landmarks_are_within_the_vector() -> None:
    assert landmarks(1, Prg(b"l" * 32)) == [0]
    found = landmarks(1000, Prg(b"l" * 32))
    assert {0, 1, 63, 64, 511, 512, 999} <= set(found)
    assert 11 < len(found) <= 15
    assert max(found) < 1000
