"""Intervals cover the truth as often as they say, and comparing user by user is what makes them narrow.

Fixed seeds. The expected counts and the bands around them are in each test; a right implementation with other seeds
would leave a band with probability below 1e-7.
"""

import numpy as np
import pytest
from scipy import stats

from recsys.metrics.comparing import Interval, difference, over_seeds
from recsys.metrics.ranking import Evaluation
from secagg.errors import UsageError


def found(values: np.ndarray, name: str = "NDCG@10") -> Evaluation:
    return Evaluation(np.arange(len(values)), {name: np.array(values)}, {}, 0)


def test_the_interval_covers_the_true_difference_about_95_times_in_100() -> None:
    """300 draws of 200 users: 285 +- 3.8 expected, with some shortfall as percentile intervals have; a one-sided or a
    halved interval (67 in 100) is far outside of 260 to 299."""
    rng = np.random.default_rng(2)
    covered = 0
    for seed in range(300):
        users = rng.exponential(1.0, 200)
        interval = difference(
            found(users + rng.normal(0.3, 1.0, 200)), found(users), "NDCG@10", resamples=400, seed=seed
        )
        covered += interval.low < 0.3 < interval.high
    assert 260 <= covered <= 299


def test_the_error_is_that_of_the_mean_of_paired_differences() -> None:
    """Within 10%: the relative deviation of an estimate from 10,000 resamples is .7%."""
    rng = np.random.default_rng(3)
    users = rng.normal(0, 5.0, 500)
    gaps = rng.normal(0.1, 0.2, 500)
    interval = difference(found(users + gaps), found(users), "NDCG@10", resamples=10_000)
    assert interval.mean == pytest.approx(gaps.mean())
    assert interval.error == pytest.approx(gaps.std(ddof=1) / np.sqrt(500), rel=0.1)
    assert interval.low == pytest.approx(gaps.mean() - 1.96 * interval.error, abs=0.2 * interval.error)
    assert interval.high == pytest.approx(gaps.mean() + 1.96 * interval.error, abs=0.2 * interval.error)


def test_seeded_and_antisymmetric() -> None:
    rng = np.random.default_rng(4)
    one, other = found(rng.random(50)), found(rng.random(50))
    first, again = (difference(one, other, "NDCG@10", seed=7) for _ in range(2))
    assert first == again != difference(one, other, "NDCG@10", seed=8)
    back = difference(other, one, "NDCG@10", seed=7)
    assert (back.mean, back.low, back.high) == pytest.approx((-first.mean, -first.high, -first.low))


def test_a_wider_confidence_is_a_wider_interval() -> None:
    one, other = found(np.random.default_rng(5).random(80)), found(np.zeros(80))
    narrow, wide = (difference(one, other, "NDCG@10", confidence=c) for c in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_over_seeds_is_students_interval() -> None:
    values = [0.03, 0.032, 0.031, 0.029, 0.036]
    low, high = stats.t.interval(0.9, 4, np.mean(values), stats.sem(values))
    interval = over_seeds(values, confidence=0.9)
    assert (interval.low, interval.high) == pytest.approx((low, high))
    assert (interval.mean, interval.error) == pytest.approx((np.mean(values), stats.sem(values)))
    assert str(Interval(0.01, 0.1, -0.02, 0.04)) == "+0.0100 [-0.0200, +0.0400]"


def test_wrong_use() -> None:
    one = found(np.ones(4))
    with pytest.raises(UsageError, match="same users"):
        difference(one, Evaluation(np.arange(1, 5), {"NDCG@10": np.ones(4)}, {}, 0), "NDCG@10")
    with pytest.raises(UsageError, match="was not measured"):
        difference(one, found(np.ones(4), "HR@10"), "NDCG@10")
    with pytest.raises(UsageError, match="no user"):
        difference(found(np.ones(0)), found(np.ones(0)), "NDCG@10")
    with pytest.raises(UsageError, match="resamples"):
        difference(one, one, "NDCG@10", resamples=1)
    for confidence in (0.0, 1.0):
        with pytest.raises(UsageError, match="between 0 and 1"):
            difference(one, one, "NDCG@10", confidence=confidence)
    with pytest.raises(UsageError, match="two runs"):
        over_seeds([1.0])
