"""Noise goes, what was below stays.

Errors are compared on 10 fixed matrices; the least of the margins is more than ten times the standard error of the
mean, so that other matrices would give a false alarm with a probability below 1e-20.
"""

import numpy as np
import pytest

from recsys.models import private_denoising
from recsys.models.private_denoising import denoise, least_squares
from secagg.errors import UsageError
from tests.controls import switch_off

SIZE, RANK = 60, 3
LIKING = 6 / np.sqrt(np.arange(1, SIZE + 1))


def population(seed: int, deviation: float) -> tuple[np.ndarray, np.ndarray]:
    """Tastes of rank 3 that are larger for popular items; and the same with noise."""
    rng = np.random.default_rng(seed)
    factors = rng.standard_normal((SIZE, RANK)) * LIKING[:, None] ** 0.75 * 0.5
    true = factors @ factors.T
    np.fill_diagonal(true, 0)
    return true, true + noise(rng) * deviation


def noise(rng: np.random.Generator) -> np.ndarray:
    upper = np.triu(rng.standard_normal((SIZE, SIZE)), 1)
    return upper + upper.T


def alike(rng: np.random.Generator) -> np.ndarray:
    """A kernel of random kinds."""
    kinds = rng.standard_normal((SIZE, 4))
    kinds /= np.linalg.norm(kinds, axis=1, keepdims=True)
    return kinds @ kinds.T


def level(deviation: float) -> np.ndarray:
    return np.full((SIZE, SIZE), deviation**2)


def error(found: np.ndarray, true: np.ndarray) -> float:
    return float(np.linalg.norm(found - true) / np.linalg.norm(true))


@pytest.mark.parametrize(("deviation", "left"), [(0.1, 0.7), (0.3, 0.6), (1.0, 0.6)])
def test_less_is_wrong_than_before(deviation: float, left: float) -> None:
    before, after = np.array(
        [
            (error(noised, true), error(denoise(noised, level(deviation), LIKING, 8).pairs, true))
            for true, noised in (population(seed, deviation) for seed in range(10))
        ]
    ).T
    assert (after < before).all()
    assert after.mean() < left * before.mean()


def test_what_is_known_of_each_pair_s_noise_counts() -> None:
    """Noise that is larger between popular items, told as it is and told as the same for all."""
    errors = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        true, _ = population(seed, 0.0)
        deviation = 0.15 * np.sqrt(np.outer(LIKING, LIKING))
        noised = true + noise(rng) * deviation
        same = level(float(np.sqrt((deviation**2).mean())))
        errors.append([error(denoise(noised, told, LIKING, 8).pairs, true) for told in (deviation**2, same)])
    told, untold = np.mean(errors, axis=0)
    assert told < 0.95 * untold


def test_kernels_take_what_is_theirs_and_random_ones_nothing() -> None:
    rng = np.random.default_rng(3)
    right, wrong = alike(rng), alike(rng)
    true = 0.5 * np.outer(LIKING, LIKING) * right
    np.fill_diagonal(true, 0)
    noised = true + noise(rng)
    found = denoise(noised, level(1.0), LIKING, 4, [right, wrong])
    assert found.alike[0] == pytest.approx(0.5, abs=0.1)
    assert found.alike[1] < 0.05
    assert error(found.pairs, true) < 0.5 * error(denoise(noised, level(1.0), LIKING, 4).pairs, true)
    nothing = denoise(noise(rng), level(1.0), LIKING, 4, [right, wrong])
    assert nothing.alike.max() < 0.05


def test_without_the_kernels_part_they_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: with the fit switched off, kernels help no more."""
    rng = np.random.default_rng(3)
    right = alike(rng)
    noised = 0.5 * np.outer(LIKING, LIKING) * right + noise(rng)
    plain = denoise(noised, level(1.0), LIKING, 4).pairs
    assert error(denoise(noised, level(1.0), LIKING, 4, [right]).pairs, plain) > 0.1
    switch_off(monkeypatch, private_denoising, "_alike", "least_squares(columns, pairs[upper], precision)", "[0.0]")
    np.testing.assert_allclose(private_denoising.denoise(noised, level(1.0), LIKING, 4, [right]).pairs, plain)


def test_least_squares_are_those_of_the_textbook_and_never_below_zero() -> None:
    rng = np.random.default_rng(0)
    columns, weights = rng.standard_normal((50, 3)), rng.uniform(0.1, 2, 50)
    target = columns @ [1.0, 0.5, 2.0] + 0.1 * rng.standard_normal(50)
    root = np.sqrt(weights)
    plain = np.linalg.lstsq(columns * root[:, None], target * root, rcond=None)[0]
    np.testing.assert_allclose(least_squares(columns, target, weights), plain, rtol=1e-6)
    assert least_squares(columns, columns @ [1.0, -5.0, 1.0], weights)[1] == 0
    assert not least_squares(np.zeros((4, 2)), np.ones(4), np.ones(4)).any()


def test_of_noise_alone_hardly_anything_is_left() -> None:
    rng = np.random.default_rng(1)
    noised = noise(rng)
    assert np.linalg.norm(denoise(noised, level(1.0), LIKING, 8).pairs) < 0.2 * np.linalg.norm(noised)
    assert np.linalg.norm(denoise(noised, level(0.3), LIKING, 8).pairs) > 0.4 * np.linalg.norm(noised)  # the control


def test_the_diagonal_is_not_looked_at() -> None:
    _, noised = population(3, 1.0)
    other = noised + np.diag(np.arange(SIZE) * 1e3)
    found, same = (denoise(one, level(1.0), LIKING, 4).pairs for one in (noised, other))
    np.testing.assert_allclose(found, same, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: denoise(np.zeros((2, 3)), np.ones((2, 3)), np.ones(2), 1),
        lambda: denoise(np.zeros((0, 0)), np.ones((0, 0)), np.ones(0), 1),
        lambda: denoise(np.array([[0.0, 1.0], [2.0, 0.0]]), np.ones((2, 2)), np.ones(2), 1),
        lambda: denoise(np.zeros((2, 2)), np.zeros((2, 2)), np.ones(2), 1),
        lambda: denoise(np.zeros((2, 2)), np.ones((2, 3)), np.ones(2), 1),
        lambda: denoise(np.zeros((2, 2)), np.ones((2, 2)), np.ones(3), 1),
        lambda: denoise(np.zeros((2, 2)), np.ones((2, 2)), np.zeros(2), 1),
        lambda: denoise(np.zeros((2, 2)), np.ones((2, 2)), np.ones(2), 1, [np.ones((3, 3))]),
        lambda: denoise(np.zeros((2, 2)), np.ones((2, 2)), np.ones(2), 0),
    ],
)
def test_what_is_no_matrix_of_pairs_is_refused(wrong: object) -> None:
    with pytest.raises(UsageError):
        wrong()  # type: ignore[operator]
