"""Popularity without its noise: nearer to the truth, with features still nearer, and what was seen where noise is none.

All data come from fixed seeds; the margins are several times what other seeds give.
"""

import numpy as np
import pytest

from recsys.models.private_popularity import Believed, believed, refined
from recsys.models.private_sums import Noised
from secagg.errors import UsageError

ITEMS = 3000


def drawn(seed: int, deviation: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, the popularity, and the popularity with noise."""
    rng = np.random.default_rng(seed)
    features = np.hstack([np.ones((ITEMS, 1)), rng.integers(0, 2, (ITEMS, 2))])
    popularity = np.exp(features @ [-1.0, 1.5, -1.0] + rng.standard_normal(ITEMS))
    return features, popularity, popularity + deviation * rng.standard_normal(ITEMS)


def error(found: np.ndarray, true: np.ndarray) -> float:
    return float(np.linalg.norm(found - true) / np.linalg.norm(true))


@pytest.mark.thinned(2)
@pytest.mark.parametrize("deviation", [0.5, 2.0])
def test_noise_goes_and_features_help(deviation: float) -> None:
    for seed in range(3):
        features, true, seen = drawn(seed, deviation)
        plain, helped = believed(Noised(seen, deviation, 9)).means, believed(Noised(seen, deviation, 9), features).means
        assert error(helped, true) < 0.98 * error(plain, true)
        assert error(plain, true) < 0.95 * error(np.maximum(seen, 0), true)
        assert (helped > 0).all()


def test_on_the_grid_the_mean_is_the_true_one() -> None:
    _, true, seen = drawn(5, 1.0)
    assert believed(Noised(seen, 1.0, 9)).means.mean() == pytest.approx(true.mean(), rel=0.1)


@pytest.mark.parametrize("deviation", [0.0, 1e-6])
def test_without_noise_it_is_what_was_seen(deviation: float) -> None:
    _, true, _ = drawn(1, 0.0)
    found = believed(Noised(true.copy(), deviation, 9)).means
    np.testing.assert_allclose(found, true, rtol=1e-3, atol=1e-4)


def test_large_items_in_little_noise_are_seen_exactly() -> None:
    """The grid is each item's own: one for all would be too coarse for an item of a thousand deviations."""
    seen = np.array([1000.0, 1003.0, 1010.0, 3.0, 0.0])
    np.testing.assert_allclose(believed(Noised(seen.copy(), 1.0, 9)).means[:3], seen[:3], rtol=1e-3)


def test_a_second_count_helps_by_how_good_it_is() -> None:
    _, true, seen = drawn(2, 3.0)
    rng = np.random.default_rng(8)
    before = believed(Noised(seen, 3.0, 9))
    errors = [
        error(refined(before, 2 * true + deviation * rng.standard_normal(ITEMS), deviation), true)
        for deviation in (0.5, 4.0, 1e6)
    ]
    assert errors[0] < 0.7 * errors[1]
    assert errors[1] < 0.95 * errors[2]
    assert errors[2] == pytest.approx(error(before.means, true), rel=0.01)


def test_it_is_told_of_the_chosen_items_alone() -> None:
    _, _, seen = drawn(3, 1.0)
    whole = believed(Noised(seen, 1.0, 9))
    some = whole.of(np.array([5, 2]))
    assert isinstance(some, Believed)
    np.testing.assert_allclose(some.means, whole.means[[5, 2]], rtol=1e-12)


@pytest.mark.parametrize("seen", [[0.0, 0.0], [-3.0, -1.0], [-5.0], [7.0]])
@pytest.mark.parametrize("deviation", [0.0, 1.0, 1e6])
def test_anything_that_was_seen_gives_positive_numbers(seen: list[float], deviation: float) -> None:
    found = believed(Noised(np.array(seen), deviation, 9))
    assert (found.means > 0).all()
    assert np.isfinite(refined(found, -np.ones(len(seen)), deviation)).all()


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(UsageError, match="no items"):
        believed(Noised(np.empty(0), 1.0, 9))
    for wrong in (np.ones(3), np.ones((2, 1)), np.zeros((3, 1))):
        with pytest.raises(UsageError, match="a row for each item"):
            believed(Noised(np.ones(3), 1.0, 9), wrong)
