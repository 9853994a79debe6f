"""The smallest model that clients can train: a number for each item, the same for everybody."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from typing import Self

import numpy as np
from numpy.typing import NDArray

from recsys.data.interactions import History, Interactions
from recsys.models.recommender import Local


class Bias:
    """Moves towards how often items occur in the histories that it is trained on."""

    def begin(self, item_count: int, seed: int) -> None:
        self._vector = np.random.default_rng(seed).normal(0, 0.01, item_count).astype(np.float32)

    @property
    def vector(self) -> NDArray[np.float32]:
        return self._vector.copy()

    @vector.setter
    def vector(self, vector: NDArray[np.float32]) -> None:
        self._vector = vector.copy()

    def with_vector(self, vector: NDArray[np.float32]) -> Self:
        model = copy(self)
        model.vector = vector
        return model

    def train(self, histories: Sequence[History], local: Local, seed: int) -> None:
        anchor = self._vector.copy()
        for _ in range(local.epochs):
            taken = np.bincount(np.concatenate(histories), minlength=len(self._vector)) / len(histories)
            pull = local.proximal * (self._vector - anchor) + (0 if local.drift is None else local.drift)
            self._vector = (self._vector + local.rate * (taken - self._vector - pull)).astype(np.float32)

    def changes(self, histories: Sequence[History], local: Local, seed: int) -> Iterator[NDArray[np.float64]]:
        for history in histories:
            model = self.with_vector(self.vector)
            model.train([history], local, seed)
            yield model.vector.astype(np.float64) - self._vector

    def fit(self, train: Interactions) -> None:
        self.begin(train.item_count, 0)
        self.train(list(train.histories()), Local(epochs=50, rate=0.2), 0)

    def scores(self, histories: Sequence[History]) -> NDArray[np.float32]:
        return np.tile(self._vector, (len(histories), 1))
