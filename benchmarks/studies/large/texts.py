"""Models over texts of which items come later, and what texts say without any model.

``ByText`` learns from the items that somebody in training took, as if there were no others: neither their texts nor
their numbers are in it. The others are added to what was trained (``with_items``). ``Alike`` learns nothing: a score is
the mean cosine of an item's vector to those of the history.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.studies.large.models import ALIKE, ATTENTION, TOWERS
from recsys.data.interactions import History, Interactions
from recsys.models.over_text import OverText, SasRecOverText, TwoTower
from recsys.models.recommender import Recommender
from recsys.text.coordinates import COORDINATES, Coordinates
from recsys.text.vectors import ItemVectors


class ByText:
    """``made`` is told the vectors of the items that somebody took, ``vectors`` are those of all."""

    def __init__(self, vectors: ItemVectors, made: Callable[[ItemVectors], OverText]) -> None:
        self._vectors, self._made = vectors, made

    def fit(self, train: Interactions, seed: int = 0) -> None:
        taken = train.popularity() > 0
        order, count = np.argsort(~taken, kind="stable"), int(taken.sum())
        self._place = np.argsort(order).astype(np.int32)
        ids = [train.item_ids[item] for item in order[:count]]
        model = self._made(_some(self._vectors, order[:count]))
        model.fit(replace(train, items=self._place[train.items], item_ids=ids), seed)
        self.model = model.with_items(_some(self._vectors, order[count:])) if count < len(order) else model

    def scores(self, histories: Sequence[History]) -> NDArray[np.float32]:
        return self.model.scores([self._place[history] for history in histories])[:, self._place]


class Alike:
    """
    >>> model = Alike(ItemVectors(np.float32([[1, 0], [0.8, 0.6], [0, 1]]), "an encoder"))
    >>> model.scores([np.array([0, 2], np.int32), np.array([], np.int32)])[1].tolist()
    [0.0, 0.0, 0.0]
    >>> (10 * model.scores([np.array([0, 2], np.int32)])).round().tolist()
    [[5.0, 7.0, 5.0]]
    """

    def __init__(self, vectors: ItemVectors) -> None:
        self._rows = vectors.rows

    def fit(self, train: Interactions) -> None:
        """Nothing is learnt."""

    def scores(self, histories: Sequence[History]) -> NDArray[np.float32]:
        means = [self._rows[history].sum(axis=0) / max(1, len(history)) for history in histories]
        scores: NDArray[np.float32] = np.stack(means) @ self._rows.T
        return scores


MODELS: Mapping[str, Callable[[ItemVectors], Recommender]] = {
    ALIKE: Alike,
    TOWERS: lambda vectors: ByText(vectors, lambda some: TwoTower(Coordinates.of(some, COORDINATES))),
    ATTENTION: lambda vectors: ByText(vectors, lambda some: SasRecOverText(Coordinates.of(some, COORDINATES))),
}
"""New models by name, with settings as they are by default."""


def _some(vectors: ItemVectors, items: NDArray[np.int64]) -> ItemVectors:
    """The vectors of these items, with all that belongs to each."""
    each = [name for name in ("rows", "states", "there") if hasattr(vectors, name)]
    return replace(vectors, **{name: getattr(vectors, name)[items] for name in each})
