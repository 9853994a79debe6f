"""Coordinates of items: uncorrelated, on one scale, nearly the same on every machine, and those of one encoder."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recsys.text.coordinates import Coordinates
from recsys.text.vectors import ItemVectors
from secagg.errors import UsageError
from tests.scenes.item_vectors import coordinates, vectors


def test_directions_are_uncorrelated_and_equally_long() -> None:
    given = vectors(50)
    stretched = ItemVectors(given.rows * np.float32([9, 4, 2, 1, 0.5, 0.1]) + np.float32(3), "an encoder")
    rows = Coordinates.of(stretched, 4).rows.astype(np.float64)
    np.testing.assert_allclose(rows.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(rows.T @ rows / len(rows), np.eye(4) / 4, atol=1e-5)


def test_the_largest_directions_are_kept() -> None:
    rows = np.zeros((8, 5), np.float32)
    rows[:4, 3], rows[4:, 3] = 1, -1
    rows[::2, 1], rows[1::2, 1] = 0.1, -0.1
    found = Coordinates.of(ItemVectors(rows, ""), 1)
    np.testing.assert_allclose(found.rows[:, 0], np.repeat([1, -1], 4), atol=1e-5)
    assert Coordinates.of(ItemVectors(rows, ""), 9).rows.shape == (8, 2)  # and no rounding errors


def test_rounding_on_another_machine_moves_them_little() -> None:
    given = vectors(50)
    other = ItemVectors(given.rows * (1 + np.float32(1e-6) * vectors(50, seed=1).rows), "an encoder")
    np.testing.assert_allclose(Coordinates.of(other, 4).rows, Coordinates.of(given, 4).rows, atol=1e-3)


def test_later_items_are_put_on_the_same_axes() -> None:
    given = vectors(20)
    found = Coordinates.of(given, 4)
    more = found.also(ItemVectors(given.rows[:3].copy(), "an encoder"))
    assert len(more) == 23
    np.testing.assert_allclose(more.rows[20:], found.rows[:3], atol=1e-5)
    np.testing.assert_array_equal(more.rows[:20], found.rows)


def test_vectors_of_another_encoder_are_refused() -> None:
    with pytest.raises(UsageError, match="vectors of another encoder"):
        coordinates(20).also(vectors(3, encoder="another"))


def test_what_cannot_be_coordinates() -> None:
    with pytest.raises(UsageError, match="their texts say nothing of them"):
        Coordinates.of(ItemVectors(np.ones((5, 3), np.float32), ""), 2)
    with pytest.raises(UsageError, match="at least one coordinate"):
        coordinates(5, most=0)
    fine = coordinates(5)
    for wrong in (
        {"rows": fine.rows[:, :2]},
        {"centre": fine.centre[:2]},
        {"axes": fine.axes.astype(np.float64)},
        {"rows": fine.rows * np.float32(np.nan)},
    ):
        with pytest.raises(UsageError, match="coordinates are rows of finite numbers"):
            replace(fine, **wrong)
