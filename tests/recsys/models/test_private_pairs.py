"""What a user adds to the sum of pairs has norm 1 at most, whatever history and popularity are; and is as defined."""

from math import exp

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.models import private_pairs
from recsys.models.private_pairs import (
    DIAGONAL,
    TOTAL,
    Chosen,
    Recency,
    fill_plainly,
    last_occurrences,
    pairs_row,
)
from secagg.compiled import COMPILES
from secagg.errors import UsageError
from tests.controls import switch_off

ITEMS = 12
ROUNDING = 1e-9
histories = st.lists(st.integers(0, ITEMS - 1), max_size=40).map(lambda items: np.array(items, np.int32))
recencies = st.none() | st.builds(
    Recency, pairs=st.floats(0.1, 100), history=st.floats(0.1, 100), pairs_floor=st.floats(0, 1)
)
places = st.sets(st.integers(0, ITEMS - 1), min_size=1).map(sorted)
anything = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, -1.0, 1e-300, 1e200, -1e308])


def chosen_with(popularity: list[float], items: list[int]) -> Chosen:
    """As a server may say it, that is: not as ``Chosen.of`` computes it."""
    place = np.full(ITEMS, -1)
    place[items] = np.arange(len(items))
    return Chosen(np.array(items), place, np.array(popularity[: len(items)]))


def ordinary(count: int = ITEMS) -> Chosen:
    return Chosen.of(np.arange(count), np.arange(ITEMS, 0, -1, dtype=float))


def slow_pairs(history: np.ndarray, chosen: Chosen, recency: Recency | None) -> np.ndarray:
    """The definition, pair by pair."""
    last = {int(chosen.places[item]): position for position, item in enumerate(history) if chosen.places[item] >= 0}
    p, s = chosen.popularity, chosen.weights
    near = np.zeros((len(chosen), len(chosen)))
    for i in last:
        for j in last:
            if i != j:
                distance = abs(last[i] - last[j])
                floor = 1.0 if recency is None else recency.pairs_floor
                near[i, j] = 1.0 if recency is None else floor + (1 - floor) * exp(-distance / recency.pairs)
    sums, total = near.sum(axis=1), near.sum()
    row = []
    for i in range(len(chosen)):
        for j in range(i + 1, len(chosen)):
            row.append((near[i, j] - sums[i] * p[j] - p[i] * sums[j] + total * p[i] * p[j]) * s[i] * s[j])
    row += [DIAGONAL if i in last else 0.0 for i in range(len(chosen))]
    row.append(TOTAL * total)
    return np.array(row) / max(float(np.linalg.norm(row)), 1.0)


@given(history=histories, items=places, recency=recencies)
def test_the_vector_is_as_defined(history: np.ndarray, items: list[int], recency: Recency | None) -> None:
    chosen = Chosen.of(np.array(items), np.arange(1, ITEMS + 1, dtype=float))
    row = pairs_row(history, chosen, recency)
    assert len(row) == chosen.length
    np.testing.assert_allclose(row, slow_pairs(history, chosen, recency), atol=1e-12)


@given(
    history=histories,
    items=places,
    popularity=st.lists(anything, min_size=ITEMS, max_size=ITEMS),
    recency=recencies,
)
def test_the_norm_is_one_at_most_whatever_the_popularity(
    history: np.ndarray, items: list[int], popularity: list[float], recency: Recency | None
) -> None:
    with np.errstate(all="ignore"):
        row = pairs_row(history, chosen_with(popularity, items), recency)
    assert np.isfinite(row).all()
    assert np.linalg.norm(row) <= 1 + ROUNDING


def test_without_the_division_by_the_norm_a_user_adds_more_than_noise_hides(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = np.arange(ITEMS, dtype=np.int32)
    assert np.linalg.norm(pairs_row(everything, ordinary(), None)) == pytest.approx(1)
    switch_off(monkeypatch, private_pairs, "pairs_row", "max(norm, 1.0)", "1.0")
    assert np.linalg.norm(private_pairs.pairs_row(everything, ordinary(), None)) > 1.5


def test_control_without_the_check_an_overflow_is_no_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    huge = chosen_with([1e200] * ITEMS, list(range(ITEMS)))
    with np.errstate(all="ignore"):
        assert not pairs_row(np.int32([0, 1]), huge, None).any()
        switch_off(monkeypatch, private_pairs, "pairs_row", "not isfinite(norm)")
        assert not np.isfinite(private_pairs.pairs_row(np.int32([0, 1]), huge, None)).all()


@pytest.mark.skipif(not COMPILES, reason="the compiled loop is NOT compared: numba is not installed")
@given(history=histories, items=places, popularity=st.lists(st.floats(-2, 2), min_size=ITEMS, max_size=ITEMS))
def test_the_loop_and_numpy_give_the_same(history: np.ndarray, items: list[int], popularity: list[float]) -> None:
    chosen = chosen_with(popularity, items)
    here = np.flatnonzero(np.isin(items, history))
    near = np.abs(np.subtract.outer(here, here)) / 7.0
    rows = np.zeros((2, chosen.length))
    for row, fill in zip(rows, (fill_plainly, private_pairs._fill_compiled), strict=True):
        fill(row, near, here, chosen.popularity, chosen.weights)
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-12)


def test_what_popularity_explains_is_not_in_the_vector() -> None:
    """Pairs that are as many as their items' popularity says leave nothing but single items and the total."""
    chosen = ordinary()
    row = np.zeros(chosen.length)
    fill_plainly(
        row, 30 * np.outer(chosen.popularity, chosen.popularity), np.arange(ITEMS), chosen.popularity, chosen.weights
    )
    np.testing.assert_allclose(row[: chosen.pairs], 0, atol=1e-12)
    np.testing.assert_allclose(row[chosen.pairs :], [DIAGONAL] * ITEMS + [30 * TOTAL])


@given(history=histories.filter(len), seed=st.integers(0, 9))
def test_without_recency_the_order_of_a_history_is_not_told(history: np.ndarray, seed: int) -> None:
    shuffled = np.random.default_rng(seed).permutation(history)
    told, untold = (pairs_row(order, ordinary(), None) for order in (history, shuffled))
    np.testing.assert_allclose(told, untold, rtol=1e-12, atol=1e-15)


def test_an_item_counts_where_it_occurred_last() -> None:
    items, positions = last_occurrences(np.int32([4, 2, 4, 2, 9]))
    assert dict(zip(items.tolist(), positions.tolist(), strict=True)) == {4: 2, 2: 3, 9: 4}


def test_a_user_without_a_chosen_item_adds_nothing() -> None:
    assert not pairs_row(np.int32([]), ordinary(), Recency()).any()
    assert not pairs_row(np.int32([7, 9]), ordinary(3), Recency()).any()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Recency(pairs=0.0),
        lambda: Recency(history=-1.0),
        lambda: Recency(pairs_floor=1.5),
        lambda: Recency(history_floor=-0.1),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: object) -> None:
    with pytest.raises(UsageError):
        wrong()  # type: ignore[operator]
