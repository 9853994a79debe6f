"""ItemPop: everyone is recommended what was taken most. The reference model that a personal one must beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from recsys.data.interactions import History, Interactions
from recsys.models.store import ModelState
from secagg.errors import UsageError


class ItemPop:
    """
    >>> model = ItemPop()
    >>> model.fit(Interactions.of(users=[0, 1, 1], items=[2, 2, 0]))
    >>> model.scores([np.array([], np.int32)])
    array([[1., 0., 2.]], dtype=float32)
    """

    popularity: NDArray[np.float32]

    def fit(self, train: Interactions) -> None:
        self.popularity = train.popularity().astype(np.float32)

    def scores(self, histories: Sequence[History]) -> NDArray[np.float32]:
        self._fitted()
        return np.tile(self.popularity, (len(histories), 1))

    def contributions(
        self, history: History, items: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Nothing, and the popularity."""
        self._fitted()
        return np.zeros((len(np.unique(history)), len(items)), np.float32), self.popularity[items]

    def state(self) -> ModelState:
        self._fitted()
        return ModelState({}, {"popularity": self.popularity})

    @classmethod
    def from_state(cls, state: ModelState) -> Self:
        model = cls(**state.settings)
        model.popularity = state.arrays["popularity"]
        return model

    def _fitted(self) -> None:
        if not hasattr(self, "popularity"):
            raise UsageError("fit the model first")
