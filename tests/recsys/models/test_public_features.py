"""Features follow from the table of items: genres, years and words, and nothing where nothing is said."""

import numpy as np
import pytest

from recsys.data.items import Items
from recsys.models.public_features import described, maps
from recsys.text.coordinates import Coordinates
from tests.scenes.item_vectors import vectors

TABLE = Items.of(
    ["1", "2", "3", "4"],
    ["Red Sea (1960)", "Red Planet (1964)", "The Planet (2000)", ""],
    ["War|Drama", "War", "Drama", ""],
)


def kernels(items: Items) -> list[np.ndarray]:
    return [(one @ one.T).toarray() for one in maps(items)]


def test_kernels_are_as_defined() -> None:
    genres, years, both, words = kernels(TABLE)
    assert genres[0, 1] == pytest.approx(np.sqrt(0.5))
    assert genres[1, 2] == 0
    assert years[0, 1] == pytest.approx(np.exp(-((4 / 8) ** 2) / 2), abs=0.01)
    assert years[0, 2] == pytest.approx(0, abs=1e-3)
    np.testing.assert_allclose(both, genres * years, atol=1e-12)
    red, sea = np.log(4 / 2), 0.0  # a word of one title makes nothing alike
    assert sea == 0
    assert words[0, 1] == pytest.approx(red / np.hypot(red, np.log(4 / 2)))
    for kernel in (genres, years, both, words):
        assert not kernel[3].any()
        assert np.linalg.eigvalsh(kernel).min() > -1e-9


def test_features_of_popularity_begin_with_one() -> None:
    found = described(TABLE)
    assert (found[:, 0] == 1).all()
    assert found[:, 1:3].tolist() == [[1, 1], [0, 1], [1, 0], [0, 0]]
    assert not found[3, 1:].any()


@pytest.mark.parametrize(
    "items",
    [
        Items.of(["1", "2"], years=[1990, 1991]),
        Items.of(["1", "2"], genres=["x", "y|x"]),
        Items.of(["1", "2"], titles=["same word", "word same"]),
        Items.of(["1"], titles=["alone"]),
    ],
)
def test_a_table_may_lack_columns(items: Items) -> None:
    assert described(items).shape[0] == len(items)
    for one in maps(items):
        assert np.isfinite(one.data).all()
        assert one.shape[0] == len(items)


def test_texts_are_alike_by_the_cosine_of_their_coordinates() -> None:
    table = Items.of([str(item) for item in range(9)], titles=["a title"] * 9)
    *four, texts = maps(table, vectors(9))
    assert len(four) == 4
    rows = Coordinates.of(vectors(9), 64).rows.astype(np.float64)
    norms = np.linalg.norm(rows, axis=1)
    np.testing.assert_allclose((texts @ texts.T).toarray(), rows @ rows.T / np.outer(norms, norms), atol=1e-5)
