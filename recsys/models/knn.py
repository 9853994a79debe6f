"""ItemKNN: items are near when the same users took them, and a user is recommended what is near the history.

The similarity of two items is the shrunk cosine of their columns of 0/1 (Deshpande and Karypis 2004, "Item-based top-N
recommendation algorithms"; shrinkage after Bell and Koren 2007),

    takers of both / (sqrt(takers of i * takers of j) + shrinkage),

and for each item j only the most similar items count. The score of j adds up their similarities over the history.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsys.data.interactions import History, Interactions
from recsys.metrics.ranking import in_list
from recsys.models.ease import rows
from recsys.models.store import ModelState
from secagg.errors import UsageError

_BLOCK = 1 << 22  # similarities worked out at once


class ItemKnn:
    """
    >>> model = ItemKnn(neighbours=5, shrinkage=0.0)
    >>> model.fit(Interactions.of(users=[0, 0, 1, 1, 2], items=[0, 1, 0, 1, 2]))
    >>> model.scores([np.array([0], np.int32)]).round(2)
    array([[0., 1., 0.]], dtype=float32)
    """

    similarities: sparse.csr_array
    """One column for each item j, with its nearest items."""

    def __init__(self, neighbours: int = 100, shrinkage: float = 10.0) -> None:
        if neighbours < 1 or shrinkage < 0:
            raise UsageError("neighbours are at least 1, shrinkage at least 0")
        self.neighbours, self.shrinkage = neighbours, shrinkage

    def fit(self, train: Interactions) -> None:
        taken = rows(list(train.histories()), train.item_count)
        columns = taken.T.tocsr()
        length = np.sqrt(np.diff(columns.indptr)).astype(np.float32)
        nearest = []
        step = max(1, _BLOCK // max(1, train.item_count))
        for start in range(0, train.item_count, step):
            some = np.arange(start, min(start + step, train.item_count))
            near = (columns[some] @ taken).toarray()
            near /= np.maximum(length[some, None] * length + np.float32(self.shrinkage), np.float32(1e-9))
            near[np.arange(len(some)), some] = 0
            nearest.append(sparse.csr_array(np.where(in_list(near, self.neighbours), near, 0)))
        self.similarities = sparse.vstack(nearest).T.tocsr()

    def scores(self, histories: Sequence[History]) -> NDArray[np.float32]:
        self._fitted()
        scores: NDArray[np.float32] = (rows(histories, self.similarities.shape[0]) @ self.similarities).toarray()
        return scores

    def contributions(
        self, history: History, items: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The similarities."""
        self._fitted()
        added: NDArray[np.float32] = self.similarities[np.unique(history)][:, items].toarray()
        return added, np.zeros(len(items), np.float32)

    def state(self) -> ModelState:
        self._fitted()
        near = self.similarities
        arrays = {"data": near.data, "indices": near.indices, "indptr": near.indptr}
        return ModelState({"neighbours": self.neighbours, "shrinkage": self.shrinkage}, arrays)

    @classmethod
    def from_state(cls, state: ModelState) -> Self:
        model, arrays = cls(**state.settings), state.arrays
        items = len(arrays["indptr"]) - 1
        near = sparse.csr_array((arrays["data"], arrays["indices"], arrays["indptr"]), shape=(items, items))
        near.check_format()
        model.similarities = near
        return model

    def _fitted(self) -> None:
        if not hasattr(self, "similarities"):
            raise UsageError("fit the model first")
