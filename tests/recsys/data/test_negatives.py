"""Negatives give nothing away: held-out items are drawn for training as often as any other.

Statistical tests have fixed seeds. A bound of 7 standard deviations of a binomial is passed by chance with
probability below 1e-10.
"""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.interactions import Interactions
from recsys.data.negatives import frozen, sample
from recsys.data.split import Split, leave_last_out
from recsys.data.synthetic import population
from secagg.errors import UsageError

SPLIT = leave_last_out(population(users=200, items=150, seed=2))
ITEMS = SPLIT.train.item_count
DRAWS = 2000


@given(items=st.integers(1, 40), data=st.data())
def test_a_negative_is_any_item_but_the_users_own(items: int, data: st.DataObject) -> None:
    history = np.array(data.draw(st.lists(st.integers(0, items - 1), max_size=50)), np.int32)
    if len(np.unique(history)) == items:
        with pytest.raises(UsageError, match="has taken every item"):
            sample(history, items, 1, np.random.default_rng(0))
        return
    found = sample(history, items, 2000, np.random.default_rng(0))
    assert found.dtype == np.int32
    assert set(found.tolist()) == set(range(items)) - set(history.tolist())


def test_negatives_are_uniform() -> None:
    history = np.array([0, 3, 4, 9, 9], np.int32)
    counts = np.bincount(sample(history, 12, 80_000, np.random.default_rng(1)), minlength=12)
    assert counts[history].sum() == 0
    left = np.delete(counts, np.unique(history))
    assert (np.abs(left - 10_000) < 7 * math.sqrt(80_000 / 8 * 7 / 8)).all()


def held_out_z(told: Interactions) -> float:
    """How far from its natural rate the held-out item is drawn, with these histories to avoid: standard deviations."""
    rng, seen, expected, variance = np.random.default_rng(3), 0, 0.0, 0.0
    for user in range(SPLIT.train.user_count):
        drawn = sample(told.history(user), ITEMS, DRAWS, rng)
        seen += int((drawn == SPLIT.test.history(user)[0]).sum())
        rate = 1 / (ITEMS - len(SPLIT.train.history(user)))
        expected += DRAWS * rate
        variance += DRAWS * rate * (1 - rate)
    return (seen - expected) / math.sqrt(variance)


def with_held_out() -> Interactions:
    parts = (SPLIT.train, SPLIT.test)
    return Interactions.of(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("users", "items")))


def test_held_out_items_come_at_the_natural_rate() -> None:
    assert abs(held_out_z(SPLIT.train)) < 7
    assert held_out_z(with_held_out()) < -7  # control: the published bug


def hit_rate_of_counting(told: Interactions) -> float:
    """HR@10 among the held-out item and 99 frozen negatives, of a scorer that knows nothing but how often each item
    was a negative on this device: the less, the better."""
    rng, ranked, hits = np.random.default_rng(4), frozen(SPLIT, seed=4), 0
    for user in range(SPLIT.train.user_count):
        counts = np.bincount(sample(told.history(user), ITEMS, DRAWS, rng), minlength=ITEMS)
        own, others = counts[SPLIT.test.history(user)[0]], counts[ranked[user]]
        hits += (others < own).sum() + (others == own).sum() / 2 < 10
    return hits / SPLIT.train.user_count


def test_counting_negatives_finds_nothing() -> None:
    """By chance the rate is .1, with a standard deviation of .021 over 200 users."""
    assert hit_rate_of_counting(SPLIT.train) < 0.1 + 7 * 0.0213
    assert hit_rate_of_counting(with_held_out()) == 1  # control: as in the published code


def test_frozen_negatives_are_in_no_part() -> None:
    found = frozen(SPLIT, count=50, seed=1)
    assert found.shape == (200, 50)
    for user, row in enumerate(found):
        assert len(set(row.tolist())) == 50
        for part in (SPLIT.train, SPLIT.valid, SPLIT.test):
            assert not set(row.tolist()) & set(part.history(user).tolist())
    np.testing.assert_array_equal(found, frozen(SPLIT, count=50, seed=1))
    assert (found != frozen(SPLIT, count=50, seed=2)).any()


def test_frozen_negatives_are_uniform() -> None:
    """Each of the 6 items that are left is in a row of 3 with probability 1/2."""
    users = 4000
    train = Interactions.of(np.repeat(np.arange(users), 2), np.tile([1, 5], users), item_count=9)
    test = Interactions.of(np.arange(users), np.full(users, 7), item_count=9)
    counts = np.bincount(frozen(Split(train, train.where(np.zeros(len(train), bool)), test), 3).ravel(), minlength=9)
    assert counts[[1, 5, 7]].tolist() == [0, 0, 0]
    assert (np.abs(np.delete(counts, [1, 5, 7]) - users / 2) < 7 * math.sqrt(users / 4)).all()


def test_too_few_items_are_left() -> None:
    events = Interactions.of([0, 0], [0, 1], item_count=4)
    with pytest.raises(UsageError, match="user 0 has fewer than 3 items left"):
        frozen(leave_last_out(events, valid=False), 3)
