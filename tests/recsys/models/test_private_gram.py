"""The matrix is put together from the two sums as described, and from nothing else."""

from fractions import Fraction
from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.interactions import History
from recsys.data.items import Items
from recsys.models import private_gram
from recsys.models.private_gram import Settings, kernel, learn_gram, popularity_row
from recsys.models.private_pairs import DIAGONAL, Chosen, pairs_row
from recsys.models.private_sums import Contribution, Noised, exact_sums
from recsys.text.vectors import ItemVectors
from secagg.errors import UsageError
from tests.controls import switch_off

ITEMS = 12
ROUNDING = 1e-9
histories = st.lists(st.integers(0, ITEMS - 1), max_size=40).map(lambda items: np.array(items, np.int32))
TABLE = Items.of([str(item) for item in range(100)], years=[1950 + item // 2 for item in range(100)])


@given(history=histories)
def test_popularity_has_norm_one_or_is_nothing(history: np.ndarray) -> None:
    row = popularity_row(history, ITEMS)
    assert np.linalg.norm(row) == pytest.approx(1) if len(history) else not row.any()
    assert set(np.flatnonzero(row)) == set(history.tolist())


def test_without_the_division_by_the_norm_a_user_adds_more_than_noise_hides(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = np.arange(ITEMS, dtype=np.int32)
    assert np.linalg.norm(popularity_row(everything, ITEMS)) <= 1 + ROUNDING
    switch_off(monkeypatch, private_gram, "popularity_row", "sqrt(max(row.sum(), 1.0))", "1.0")
    assert np.linalg.norm(private_gram.popularity_row(everything, ITEMS)) > 1.5


@pytest.mark.parametrize(("items", "size", "share"), [(None, 38, Fraction(3, 20)), (TABLE, 58, Fraction(9, 20))])
def test_two_sums_are_asked_for_and_their_shares_are_the_whole(items: Items | None, size: int, share: Fraction) -> None:
    asked: list[tuple[str, int, Fraction]] = []

    def sums(purpose: str, length: int, part: Fraction, contribution: Contribution) -> Noised:
        asked.append((purpose, length, part))
        return Noised(np.arange(length, dtype=float), 0.75 / sqrt(part), 25)

    gram = learn_gram(sums, 100, Settings(), items)
    assert asked == [("popularity", 100, share), ("item pairs", size * (size + 1) // 2 + 1, 1 - share)]
    assert gram.chosen.items.tolist() == list(range(100 - size, 100))


def test_more_noise_means_fewer_items() -> None:
    sizes = [Settings().chosen(4000, multiplier, 5000) for multiplier in (0.0, 0.5, 0.7, 1.6, 4.4)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == sizes[1] > sizes[2] > sizes[-1] > 150
    assert Settings(items=7).chosen(4000, 0.7, 5) == 5


def test_exact_sums_give_the_weighted_gram_matrix() -> None:
    """With tens of thousands of users, nothing but the sampling of few of them is taken away."""
    rng = np.random.default_rng(0)
    taken: list[History] = [rng.choice(ITEMS, size, replace=False).astype(np.int32) for size in rng.integers(2, 9, 50)]
    gram = learn_gram(exact_sums(taken), ITEMS, Settings(items=5))
    counts = sum(np.bincount(history, minlength=ITEMS) / sqrt(len(history)) for history in taken)
    chosen = gram.chosen
    assert chosen.items.tolist() == sorted(np.argsort(-counts)[:5].tolist())
    np.testing.assert_allclose(gram.popularity, counts / counts[chosen.items].sum(), rtol=1e-3)
    total = sum(pairs_row(history, chosen, Settings().recency) for history in taken)
    assert np.all(np.diag(gram.matrix) >= total[chosen.pairs : -1] / DIAGONAL * (1 - 1e-9))
    assert np.allclose(gram.matrix, gram.matrix.T)
    assert gram.liking.sum() ** 2 == pytest.approx(total[-1] * 1000)


def test_one_user_moves_each_sum_by_its_own_vector() -> None:
    """What others add does not depend on it, given what was released before: the popularity."""
    rng = np.random.default_rng(1)
    taken = [rng.choice(ITEMS, 6, replace=False).astype(np.int32) for _ in range(30)]
    vectors = list[list[np.ndarray]]()
    for world in (taken, [*taken[:-1], np.int32([])]):
        found = list[np.ndarray]()

        def sums(
            purpose: str,
            length: int,
            share: Fraction,
            contribution: Contribution,
            world: list[History] = world,
            found: list[np.ndarray] = found,
        ) -> Noised:
            found.append(np.stack([contribution(history) for history in world]))
            return Noised(np.linspace(1, 2, length), 1.0, 30)  # the same release in both worlds

        learn_gram(sums, ITEMS, Settings(items=6))
        vectors.append(found)
    for one, other in zip(*vectors, strict=True):
        np.testing.assert_array_equal(one[:-1], other[:-1])
        assert not other[-1].any()
        assert np.linalg.norm(one[-1]) <= 1 + ROUNDING


def test_kernels_are_centred_on_the_chosen_items() -> None:
    chosen = Chosen.of(np.array([0, 3, 50, 99]), np.linspace(2, 1, 100))
    for one in private_gram.maps(TABLE):
        found = kernel(one, chosen)
        np.testing.assert_allclose(found, found.T, atol=1e-12)
        np.testing.assert_allclose(found @ chosen.popularity, 0, atol=1e-12)


def test_vectors_of_texts_are_features_where_nothing_else_is_said() -> None:
    items = 6
    table = Items.of([str(item) for item in range(items)], texts=["a text"] * items)
    vectors = ItemVectors(np.eye(items, 4, dtype=np.float32) + np.float32(0.1), "an encoder")

    def sums(purpose: str, length: int, share: Fraction, contribution: Contribution) -> Noised:
        return Noised(sum(contribution(history) for history in ([0], [0, 1], [2])), 0.1, 3)

    assert len(learn_gram(sums, items, Settings(), table, vectors=vectors).maps) == 5
    assert not learn_gram(sums, items, Settings(), table).maps


@pytest.mark.parametrize("items", [1, 2, 3])
@pytest.mark.parametrize("deviation", [0.0, 0.1, 10.0, 1e6])
@pytest.mark.parametrize("featured", [False, True])
def test_tiny_catalogues_and_any_noise_give_finite_numbers(items: int, deviation: float, featured: bool) -> None:
    rng = np.random.default_rng(items)
    table = Items.of([str(item) for item in range(items)], titles=["A b (1999)"] * items) if featured else None

    def sums(purpose: str, length: int, share: Fraction, contribution: Contribution) -> Noised:
        row = sum(contribution(history) for history in ([0], [0, items - 1], []))
        return Noised(row + deviation * rng.standard_normal(length), deviation, 3)

    gram = learn_gram(sums, items, Settings(), table)
    assert np.isfinite(gram.matrix).all()
    assert np.isfinite(gram.factors).all()
    assert np.diag(gram.matrix).min() > 0


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Settings(items=-1),
        lambda: Settings(rank=0),
        lambda: Settings(popularity_share=Fraction(1)),
        lambda: Settings(popularity_share=Fraction(-1, 9)),
        lambda: learn_gram(exact_sums([]), 0, Settings()),
        lambda: learn_gram(exact_sums([]), 99, Settings(), TABLE),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: object) -> None:
    with pytest.raises(UsageError):
        wrong()  # type: ignore[operator]
