"""What a user adds has norm 1 at most, whatever the history; and the matrix is put together from it as described."""

from fractions import Fraction
from itertools import combinations
from math import exp, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.models import private_gram
from recsys.models.private_gram import (
    DIAGONAL,
    Recency,
    Settings,
    last_occurrences,
    learn_gram,
    pairs_row,
    popularity_row,
)
from recsys.models.private_sums import Contribution, Noised, exact_sums
from secagg.errors import UsageError
from tests.controls import switch_off

ITEMS = 12
histories = st.lists(st.integers(0, ITEMS - 1), max_size=40).map(lambda items: np.array(items, np.int32))
recencies = st.none() | st.builds(
    Recency, pairs=st.floats(0.1, 100), history=st.floats(0.1, 100), floor=st.floats(0, 1)
)
chosen_items = st.sets(st.integers(0, ITEMS - 1), min_size=1).map(sorted)
ROUNDING = 1e-9


def places_of(chosen: list[int]) -> np.ndarray:
    places = np.full(ITEMS, -1)
    places[chosen] = np.arange(len(chosen))
    return places


def slow_pairs(history: np.ndarray, chosen: list[int], recency: Recency | None) -> np.ndarray:
    """The definition, pair by pair."""
    last = {int(item): position for position, item in enumerate(history) if item in chosen}
    matrix = np.zeros((len(chosen), len(chosen)))
    for item in last:
        matrix[chosen.index(item), chosen.index(item)] = DIAGONAL
    for one, other in combinations(sorted(last), 2):
        weight = 1.0
        if recency is not None:
            weight = recency.floor + (1 - recency.floor) * exp(-abs(last[one] - last[other]) / recency.pairs)
        matrix[chosen.index(one), chosen.index(other)] = weight
    row = matrix[np.triu_indices(len(chosen))]
    return row / max(np.linalg.norm(row), 1)


@given(history=histories)
def test_the_popularity_row_has_norm_one(history: np.ndarray) -> None:
    row = popularity_row(history, ITEMS)
    assert np.linalg.norm(row) == pytest.approx(1.0 if len(history) else 0.0)
    assert set(np.flatnonzero(row)) == set(history.tolist())


@given(history=histories, chosen=chosen_items, recency=recencies)
def test_the_pairs_row_is_the_definition_and_has_at_most_norm_one(
    history: np.ndarray, chosen: list[int], recency: Recency | None
) -> None:
    row = pairs_row(history, places_of(chosen), len(chosen), recency)
    assert np.linalg.norm(row) <= 1 + ROUNDING
    np.testing.assert_allclose(row, slow_pairs(history, chosen, recency), atol=1e-12)


@pytest.mark.parametrize(
    ("name", "norm", "arguments"),
    [
        ("popularity_row", "sqrt(max(row.sum(), 1.0))", (ITEMS,)),
        ("pairs_row", "max(sqrt(float((weights**2).sum())), 1.0)", (places_of([0, 1, 2]), 3, None)),
    ],
)
def test_without_the_division_by_the_norm_a_user_adds_more_than_noise_hides(
    monkeypatch: pytest.MonkeyPatch, name: str, norm: str, arguments: tuple[object, ...]
) -> None:
    everything = np.arange(ITEMS, dtype=np.int32)
    assert np.linalg.norm(getattr(private_gram, name)(everything, *arguments)) <= 1 + ROUNDING
    switch_off(monkeypatch, private_gram, name, norm, "1.0")
    assert np.linalg.norm(getattr(private_gram, name)(everything, *arguments)) > 1.5


@given(history=histories.filter(len), seed=st.integers(0, 9))
def test_without_recency_the_order_of_a_history_is_not_told(history: np.ndarray, seed: int) -> None:
    shuffled = np.random.default_rng(seed).permutation(history)
    places = places_of(list(range(ITEMS)))
    told, untold = (pairs_row(order, places, ITEMS, None) for order in (history, shuffled))
    np.testing.assert_allclose(told, untold, rtol=1e-12)


def test_neighbours_weigh_more_than_the_far() -> None:
    row = pairs_row(np.int32([0, 1, 3, 3, 3, 3, 2]), places_of([0, 1, 2]), 3, Recency(pairs=2.0, floor=0.0))
    near, far = row[1], row[2]  # 0 with 1, 0 with 2
    assert near / far == pytest.approx(exp(5 / 2))


def test_an_item_counts_where_it_occurred_last() -> None:
    items, positions = last_occurrences(np.int32([4, 2, 4, 2, 9]))
    assert dict(zip(items.tolist(), positions.tolist(), strict=True)) == {4: 2, 2: 3, 9: 4}


def test_two_sums_are_asked_for_and_their_shares_are_the_whole() -> None:
    asked: list[tuple[str, int, Fraction]] = []

    def sums(purpose: str, length: int, share: Fraction, contribution: Contribution) -> Noised:
        asked.append((purpose, length, share))
        return Noised(np.arange(length, dtype=float), 1.0, 25)

    gram = learn_gram(sums, 100, Settings(popularity_share=Fraction(1, 5)))
    assert asked == [("popularity", 100, Fraction(1, 5)), ("item pairs", 40 * 41 // 2, Fraction(4, 5))]
    assert gram.items.tolist() == list(range(60, 100))  # 8 sqrt(25) of the largest sums


def test_exact_sums_give_the_weighted_gram_matrix() -> None:
    rng = np.random.default_rng(0)
    taken = [rng.choice(ITEMS, size, replace=False).astype(np.int32) for size in rng.integers(2, 9, 50)]
    gram = learn_gram(exact_sums(taken), ITEMS, Settings(items=5))
    counts = sum(np.bincount(history, minlength=ITEMS) / sqrt(len(history)) for history in taken)
    np.testing.assert_allclose(gram.popularity, counts)
    assert gram.items.tolist() == sorted(np.argsort(-counts)[:5].tolist())
    expected = np.zeros((5, 5))
    expected[np.triu_indices(5)] = sum(slow_pairs(history, gram.items.tolist(), Recency()) for history in taken)
    expected += np.triu(expected, 1).T
    off = ~np.eye(5, dtype=bool)
    np.testing.assert_allclose(gram.matrix[off], expected[off])
    assert np.all(np.diag(gram.matrix) >= np.diag(expected) / DIAGONAL * (1 - 1e-9))


@pytest.mark.parametrize("items", [1, 2, 3])
@pytest.mark.parametrize("deviation", [0.0, 0.1, 10.0])
def test_tiny_catalogues_and_any_noise_give_finite_numbers(items: int, deviation: float) -> None:
    rng = np.random.default_rng(items)

    def sums(purpose: str, length: int, share: Fraction, contribution: Contribution) -> Noised:
        row = sum(contribution(history) for history in ([0], [0, items - 1], []))
        return Noised(row + deviation * rng.standard_normal(length), deviation, 3)

    gram = learn_gram(sums, items, Settings())
    assert np.isfinite(gram.matrix).all()
    assert np.isfinite(gram.factors).all()
    assert np.diag(gram.matrix).min() > 0


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Settings(items=-1),
        lambda: Settings(rank=0),
        lambda: Settings(popularity_share=Fraction(1)),
        lambda: Settings(popularity_share=Fraction(0)),
        lambda: Recency(pairs=0.0),
        lambda: Recency(history=-1.0),
        lambda: Recency(floor=1.5),
        lambda: learn_gram(exact_sums([]), 0, Settings()),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: object) -> None:
    with pytest.raises(UsageError):
        wrong()  # type: ignore[operator]
