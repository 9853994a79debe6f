"""EASE minimises what its paper says, by either way to the inverse."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.interactions import Interactions
from recsys.models import ease
from recsys.models.ease import Cooccurrence, Ease, faded_rows, rows
from secagg.errors import UsageError


def random_events(users: int, items: int, seed: int) -> tuple[Interactions, np.ndarray]:
    taken = np.random.default_rng(seed).random((users, items)) < 0.3
    who, what = np.nonzero(taken)
    return Interactions.of(who, what, user_count=users, item_count=items), taken.astype(float)


@given(users=st.integers(1, 20), items=st.integers(1, 20), strength=st.floats(0.1, 500), seed=st.integers(0, 2**32 - 1))
def test_the_weights_are_the_minimum(users: int, items: int, strength: float, seed: int) -> None:
    """The loss is convex: its minimum with a zero diagonal is where the gradient vanishes everywhere else."""
    events, taken = random_events(users, items, seed)
    model = Ease(regularisation=strength)
    model.fit(events)
    weights = model.weights.astype(float)
    assert not weights.diagonal().any()
    gradient = taken.T @ (taken @ weights - taken) + strength * weights
    np.fill_diagonal(gradient, 0)
    assert abs(gradient).max() < 1e-4 * max(1.0, strength)


@pytest.mark.parametrize(("users", "items"), [(30, 9), (9, 30)])
def test_the_weights_are_the_same_in_whatever_blocks_they_are_made(
    users: int, items: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    events, _ = random_events(users, items, 4)
    found = []
    for block, rows_at_once in ((1, 1), (20, 4), (1 << 22, 512)):
        monkeypatch.setattr(ease, "_BLOCK", block)
        monkeypatch.setattr(ease, "_ROWS", rows_at_once)
        found.append(Cooccurrence.of(events).weights(3.0))
    assert found[0] == pytest.approx(found[2], rel=1e-5, abs=1e-7)
    assert found[1] == pytest.approx(found[2], rel=1e-5, abs=1e-7)


def test_one_count_of_pairs_serves_all_regularisations() -> None:
    events, _ = random_events(30, 9, 5)
    taken = Cooccurrence.of(events)
    for strength in (1.0, 10.0, 1.0):
        model, solved = Ease(strength), Ease(strength)
        model.fit(events)
        solved.solve(taken)
        assert np.array_equal(model.weights, solved.weights)


@pytest.mark.parametrize(("users", "items"), [(5, 3), (3, 5)])
def test_what_cannot_be_inverted_is_refused(users: int, items: int) -> None:
    everybody = Interactions.of(np.repeat(np.arange(users), items), np.tile(np.arange(items), users))
    with pytest.raises(UsageError, match="too small"):
        Ease(1e-300).fit(everybody)


def test_scores_add_up_the_weights_of_the_history() -> None:
    events, _ = random_events(12, 7, 1)
    model = Ease(regularisation=3.0)
    model.fit(events)
    scores = model.scores([np.array([2, 5, 2], np.int32), np.array([], np.int32)])
    assert scores[0] == pytest.approx(model.weights[2] + model.weights[5])
    assert scores[1].tolist() == [0] * 7
    assert scores.dtype == np.float32


def test_a_cap_keeps_the_popular_items_and_ranks_the_others_below() -> None:
    events, taken = random_events(40, 12, 2)
    counts = taken.sum(axis=0)
    order = np.argsort(-counts, kind="stable")
    model, small = Ease(regularisation=3.0, items=5), Ease(regularisation=3.0)
    model.fit(events)
    part = np.sort(order[:5])
    users, columns = np.nonzero(taken[:, part])
    small.fit(Interactions.of(users, columns, user_count=40, item_count=5))
    scores = model.scores([part[[0, 3]].astype(np.int32), np.arange(12, dtype=np.int32)])
    assert scores[:, part] == pytest.approx(small.scores([np.array([0, 3], np.int32), np.arange(5, dtype=np.int32)]))
    others = order[5:]
    assert (scores[:, others] < scores[:, part].min(axis=1, keepdims=True)).all()
    for row in scores[:, others]:
        assert (np.diff(row)[np.diff(counts[others]) < 0] < 0).all()


def test_rows_are_sorted_and_binary() -> None:
    matrix = rows([np.array([3, 0, 3], np.int32)], item_count=4)
    assert matrix.toarray().tolist() == [[1, 0, 0, 1]]
    assert rows([], item_count=4).shape == (0, 4)


def test_wrong_use() -> None:
    for wrong in ({"regularisation": 0.0}, {"regularisation": float("nan")}, {"items": -1}):
        with pytest.raises(UsageError, match="regularisation is above 0"):
            Ease(**wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="fit the model first"):
        Ease().scores([])


@given(
    histories=st.lists(st.lists(st.integers(0, 6), max_size=9), max_size=4),
    reach=st.floats(0.1, 100),
    floor=st.floats(0, 1),
)
def test_an_item_fades_with_each_event_since_it_was_last_taken(
    histories: list[list[int]], reach: float, floor: float
) -> None:
    found = faded_rows([np.array(history, np.int32) for history in histories], 7, reach, floor).toarray()
    for row, history in zip(found, histories, strict=True):
        expected = np.zeros(7)
        for place, item in enumerate(history):
            expected[item] = floor + (1 - floor) * np.exp(-(len(history) - 1 - place) / reach)
        assert row == pytest.approx(expected, rel=1e-5, abs=1e-30)


def test_scores_of_a_fading_history() -> None:
    events, _ = random_events(12, 7, 1)
    model = Ease(regularisation=3.0)
    model.fit(events)
    fading = model.fading(2.0, 0.5)
    assert (fading.reach, fading.floor, model.reach) == (2.0, 0.5, 0.0)
    weight = 0.5 + 0.5 * np.exp(-1 / 2)
    assert fading.scores([np.array([2, 5], np.int32)])[0] == pytest.approx(weight * model.weights[2] + model.weights[5])
    again = Ease.from_state(fading.state())
    assert again.scores([np.array([2, 5], np.int32)]).tolist() == fading.scores([np.array([2, 5], np.int32)]).tolist()
