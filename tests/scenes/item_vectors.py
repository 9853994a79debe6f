"""Vectors of items that no encoder has made."""

from __future__ import annotations

import numpy as np

from recsys.text.coordinates import Coordinates
from recsys.text.vectors import ItemVectors


def vectors(count: int, *, width: int = 6, seed: int = 0, encoder: str = "an encoder") -> ItemVectors:
    rows = np.random.default_rng(seed).standard_normal((count, width))
    return ItemVectors((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), encoder)


def coordinates(count: int, most: int = 4) -> Coordinates:
    return Coordinates.of(vectors(count), most)
