"""Vectors of items in few coordinates: what is different between them, each direction of it on one scale.

The vectors of an encoder are nearly alike: most of each is what all texts have in common, and of the rest a few
directions are all that is seen in a product. So the mean is taken off, and the principal directions that are left are
made equally long ("whitened": Su et al. 2021, "Whitening sentence representations for better semantics and faster
retrieval"). All of that follows from the public table and the encoder. An item that comes later is put on the same
axes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from recsys.text.vectors import ItemVectors
from secagg.errors import UsageError

COORDINATES = 64
"""So many an item has where nothing else is said."""

_LEAST = 1e-6
"""Directions with less than so much of the largest variance are rounding errors."""


@dataclass(frozen=True, slots=True, eq=False)
class Coordinates:
    rows: NDArray[np.float32]
    """one for each item, of norm 1 on average"""
    centre: NDArray[np.float32]
    """what is taken from a vector"""
    axes: NDArray[np.float32]
    """what it is multiplied with then"""
    encoder: str
    """the digest of the encoder that made the vectors"""

    def __post_init__(self) -> None:
        shapes = (self.rows.ndim, self.axes.shape) == (2, (self.centre.size, self.rows.shape[-1]))
        if not shapes or not all(one.dtype == np.float32 and np.isfinite(one).all() for one in self._arrays):
            raise UsageError("coordinates are rows of finite numbers in float32, and their axes")
        for one in self._arrays:
            one.flags.writeable = False

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def _arrays(self) -> tuple[NDArray[np.float32], ...]:
        return self.rows, self.centre, self.axes

    @classmethod
    def of(cls, vectors: ItemVectors, most: int) -> Self:
        """In at most so many coordinates.

        >>> rows = np.float32([[1, 0, 0], [-1, 0, 0], [0, 0.1, 0], [0, -0.1, 0]])
        >>> Coordinates.of(ItemVectors(rows, "an encoder"), most=2).rows.round(2).tolist()
        [[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]
        """
        if most < 1:
            raise UsageError("there is at least one coordinate")
        rows = vectors.rows.astype(np.float64)
        centre = rows.mean(axis=0)
        variances, directions = np.linalg.eigh((rows - centre).T @ (rows - centre) / len(rows))
        kept = np.flatnonzero(variances > _LEAST * max(variances[-1], _LEAST))[::-1][:most]
        if not len(kept):
            raise UsageError("the vectors of all items are the same: their texts say nothing of them")
        directions = directions[:, kept]
        largest = np.abs(directions).argmax(axis=0)  # an eigenvector has no sign of its own
        axes = directions * np.sign(directions[largest, np.arange(len(kept))]) / np.sqrt(variances[kept] * len(kept))
        rows = (rows - centre) @ axes
        return cls(rows.astype(np.float32), centre.astype(np.float32), axes.astype(np.float32), vectors.encoder)

    def also(self, vectors: ItemVectors) -> Self:
        """With the rows of other items after these; ``UsageError`` if another encoder has made their vectors."""
        if vectors.encoder != self.encoder:
            raise UsageError("these are vectors of another encoder than the one whose vectors the model was trained on")
        rows = np.concatenate([self.rows, (vectors.rows - self.centre) @ self.axes])
        return replace(self, rows=rows)
