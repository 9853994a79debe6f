"""What few draws show: the bounds against the laws themselves, summed up exactly."""

import math

import numpy as np
import pytest
from scipy.special import ive

from dp.audit import Noise, enough_rounds, least_mean_square
from dp.audit.margins import comparisons, mode, twins_by_chance
from tests.scenes.noise_laws import discrete_gaussian_law, skellam_law

LAWS = [("skellam", variance) for variance in (0.1, 1.0, 9.0, 400.0)] + [
    ("gaussian", variance) for variance in (1.0, 4.0, 400.0)
]


def law_of(name: str, variance: float) -> tuple[np.ndarray, np.ndarray, Noise]:
    law = {"skellam": skellam_law, "gaussian": discrete_gaussian_law}[name]
    values, masses = law(variance, math.ceil(9 * math.sqrt(variance)) + 40)
    deviation = math.sqrt(float(values**2 @ masses))
    return values, masses, Noise(deviation, 1 / variance if name == "skellam" else 0.0, step=1.0)


@pytest.mark.parametrize(("name", "variance"), LAWS)
def test_no_value_is_more_probable_than_the_mode(name: str, variance: float) -> None:
    _, masses, noise = law_of(name, variance)
    assert masses.max() <= mode(noise)
    assert variance < 4 or masses.max() > 0.9 * mode(noise)


def test_the_mode_of_skellam_noise_at_any_variance() -> None:
    variances = np.geomspace(1e-6, 1e12, 2000)
    bounds = [mode(Noise(math.sqrt(v), step=1.0)) for v in variances]
    assert (ive(0, variances[variances < 1e8]) <= np.array(bounds)[variances < 1e8]).all()
    assert max(bounds) < 1
    assert mode(Noise(1.0)) == 0


@pytest.mark.parametrize(("name", "variance"), LAWS)
@pytest.mark.parametrize("error", [0.2, 1e-3, 1e-9])
@pytest.mark.parametrize("shift", [0, 1])
def test_little_noise_is_as_rare_as_stated(name: str, variance: float, error: float, shift: int) -> None:
    """The law of the sum of squares of a few draws, by convolution; with an offset it is no likelier to be small."""
    values, masses, noise = law_of(name, variance)
    for rounds in (1, 2, 3, 8, 20):
        least = least_mean_square(rounds, noise, error)
        most = math.floor(least * rounds * noise.noise_std**2 * (1 + 1e-12))
        squares = np.bincount((values + shift) ** 2, masses)[: most + 1]
        total = np.zeros(most + 1)
        total[0] = 1.0
        for _ in range(rounds):
            total = np.convolve(total, squares)[: most + 1]
        assert least == 0 or total.sum() <= error


def test_continuous_noise_has_the_bound_of_the_normal_law() -> None:
    """(q e^(1 - q))^(n/2) is Chernoff's bound for chi-square variables; ours lacks the factor e^(-q n / 2)."""
    for rounds in (2, 10, 50):
        q = least_mean_square(rounds, Noise(7.0), 1e-9)
        assert (q * math.e) ** (rounds / 2) <= 1e-9 * (1 + 1e-9)


def test_enough_rounds_are_enough_and_no_more() -> None:
    for deviation, length in ((0.3, 10), (3.0, 1 << 10), (1e5, 1 << 20)):
        noise = Noise(deviation, step=1.0)
        rounds = enough_rounds(length, noise)

        def shown(rounds: int, noise: Noise = noise, length: int = length) -> bool:
            place = least_mean_square(rounds, noise, 1e-9 / comparisons(length)) > 0
            return place and twins_by_chance(length, rounds, noise) <= 1e-9

        assert shown(rounds)
        assert not shown(rounds - 1)
