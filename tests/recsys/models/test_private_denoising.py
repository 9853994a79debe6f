"""Noise goes, what was below stays.

Errors are compared on 10 fixed matrices; the least of the margins is more than ten times the standard error of the
mean, so that other matrices would give a false alarm with a probability below 1e-20.
"""

import numpy as np
import pytest

from recsys.models import private_denoising
from recsys.models.private_denoising import denoise
from secagg.errors import UsageError
from tests.controls import switch_off

SIZE, RANK = 60, 3


def population(seed: int, deviation: float) -> tuple[np.ndarray, np.ndarray]:
    """A long-tailed popularity, tastes of rank 3 that are larger where that is; and the same with noise."""
    rng = np.random.default_rng(seed)
    liking = 6 / np.sqrt(np.arange(1, SIZE + 1))
    factors = rng.standard_normal((SIZE, RANK)) * liking[:, None] ** 0.75 * 0.5
    true = np.outer(liking, liking) + factors @ factors.T
    np.fill_diagonal(true, 0)
    noise = np.triu(rng.standard_normal((SIZE, SIZE)), 1) * deviation
    return true, true + noise + noise.T


def error(found: np.ndarray, true: np.ndarray) -> float:
    return float(np.linalg.norm(found - true) / np.linalg.norm(true))


def errors(deviation: float) -> np.ndarray:
    """Noised and denoised, of 10 matrices."""
    both = [
        (error(noised, true), error(private_denoising.denoise(noised, deviation, 8).pairs, true))
        for true, noised in (population(seed, deviation) for seed in range(10))
    ]
    return np.array(both)


@pytest.mark.parametrize(("deviation", "left"), [(0.3, 0.6), (1.0, 0.5), (3.0, 0.4)])
def test_less_is_wrong_than_before(deviation: float, left: float) -> None:
    before, after = errors(deviation).T
    assert (after < before).all()
    assert after.mean() < left * before.mean()


@pytest.mark.parametrize(
    ("name", "part", "instead"),
    [
        ("_wiener", "signal / np.maximum(signal + deviation**2, _TINY)", "1.0"),
        ("denoise", "_tastes(left, deviation, scale, factors)", "0 * factors"),
        ("denoise", "_popularity(pairs, deviation)", "np.ones(size)"),
    ],
)
def test_each_part_takes_noise_away(monkeypatch: pytest.MonkeyPatch, name: str, part: str, instead: str) -> None:
    """With a part left out, the error grows."""
    _, whole = errors(0.3).T
    switch_off(monkeypatch, private_denoising, name, part, instead)
    _, without = errors(0.3).T
    assert without.mean() > 1.05 * whole.mean()


def test_without_noise_nothing_changes() -> None:
    true, _ = population(0, 0.0)
    np.testing.assert_allclose(denoise(true, 0.0, 4).pairs, true, atol=1e-9)


def test_of_noise_alone_nothing_is_left() -> None:
    """The largest eigenvalue stays below the edge but for fluctuations of some percent, and what passes is small."""
    rng = np.random.default_rng(1)
    noise = np.triu(rng.standard_normal((200, 200)), 1)
    noise += noise.T
    assert np.linalg.norm(denoise(noise, 1.0, 16).pairs) < 0.1 * np.linalg.norm(noise)
    assert np.linalg.norm(denoise(noise, 0.5, 16).pairs) > 0.3 * np.linalg.norm(noise)  # the control


def test_the_diagonal_is_not_looked_at() -> None:
    _, noised = population(3, 1.0)
    other = noised + np.diag(np.arange(SIZE) * 1e3)
    np.testing.assert_allclose(denoise(noised, 1.0, 4).pairs, denoise(other, 1.0, 4).pairs, rtol=1e-4, atol=1e-4)


def test_the_parts_are_named_rightly() -> None:
    true, _ = population(5, 0.0)
    below = denoise(true, 0.0, RANK)
    assert below.factors.shape == (SIZE, RANK)
    liking = 6 / np.sqrt(np.arange(1, SIZE + 1))
    assert np.corrcoef(below.liking, liking)[0, 1] > 0.95


@pytest.mark.parametrize(
    ("matrix", "deviation", "rank"),
    [
        (np.zeros((2, 3)), 0.0, 1),
        (np.zeros((0, 0)), 0.0, 1),
        (np.array([[0.0, 1.0], [2.0, 0.0]]), 0.0, 1),
        (np.zeros((2, 2)), -1.0, 1),
        (np.zeros((2, 2)), 1.0, 0),
    ],
)
def test_what_is_no_matrix_of_pairs_is_refused(matrix: np.ndarray, deviation: float, rank: int) -> None:
    with pytest.raises(UsageError):
        denoise(matrix, deviation, rank)
