"""EASE: a linear model from a history to scores, in closed form.

Steck 2019, "Embarrassingly Shallow Autoencoders for Sparse Data": item-item weights B with zero diagonal that minimise
|X - X B|^2 + regularisation |B|^2 over the users' 0/1 rows X are, with P = (X'X + regularisation)^-1,

    B_ij = -P_ij / P_jj.

A user's scores are x B for its row x. With a ``reach``, the last items count most: an item with d later events in the
history has floor + (1 - floor) exp(-d / reach) in x, in place of 1 (the weights B are those of 0/1 rows all the same).

Where users are fewer than items, the smaller matrix is factored (Woodbury): with X X' + regularisation = L L' and
V = L^-1 X, P is (1 - V'V) / regularisation. On ml-latest-small (9,724 items, 610 users) that takes a second instead of
a minute. Either matrix is made from sparse rows, block by block. What is factored or inverted is in double precision,
and in place; the weights are kept in single: with m items that take part it is some 16 m^2 bytes in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from recsys.data.interactions import History, Interactions
from recsys.models.store import ModelState
from secagg.errors import UsageError

_BLOCK = 1 << 22
"""numbers of a product that are made at once"""
_ROWS = 512
_SINGULAR = "the regularisation is too small: what it is added to cannot be inverted"


def rows(histories: Sequence[History], item_count: int) -> sparse.csr_array:
    """0/1 rows: what a user took often counts once.

    >>> rows([np.int32([2, 0, 2]), np.int32([])], item_count=3).toarray().tolist()
    [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    """
    starts = np.concatenate(([0], np.cumsum([len(history) for history in histories])))
    items = np.concatenate([np.empty(0, np.int32), *histories])
    matrix = sparse.csr_array((np.ones(len(items), np.float32), items, starts), shape=(len(histories), item_count))
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix


def faded_rows(
    histories: Sequence[History], item_count: int, reach: float = 0.0, floor: float = 0.0
) -> sparse.csr_array:
    """What each item of a history counts, by the events since it was last taken; 1 if ``reach`` is 0.

    >>> faded_rows([np.int32([2, 0, 2])], 3, reach=1.0, floor=0.5).toarray().round(3)
    array([[0.684, 0.   , 1.   ]], dtype=float32)
    """
    if not reach:
        return rows(histories, item_count)
    users = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
    ages = np.concatenate([np.empty(0, np.int64), *(np.arange(len(history))[::-1] for history in histories)])
    taken = users * item_count + np.concatenate([np.empty(0, np.int64), *histories])
    order = np.lexsort((ages, taken))
    last = order[np.diff(taken[order], prepend=-1) != 0]  # the latest of each item comes first
    counted = (floor + (1 - floor) * np.exp(-ages[last] / reach)).astype(np.float32)
    places = taken[last]
    return sparse.csr_array((counted, np.divmod(places, max(item_count, 1))), shape=(len(histories), item_count))


class Ease:
    """``items`` bounds the memory, 4 bytes times its square: so many of the most popular items take part, and all
    others rank below them, by popularity.

    >>> model = Ease(regularisation=1.0)
    >>> model.fit(Interactions.of(users=[0, 0, 1, 1, 2], items=[0, 1, 0, 1, 2]))
    >>> model.scores([np.array([0], np.int32)]).round(2)
    array([[0.  , 0.67, 0.  ]], dtype=float32)
    """

    weights: NDArray[np.float32]
    """B, between the items that take part"""
    part: NDArray[np.int64]
    """their numbers, ascending"""
    popularity: NDArray[np.float32]
    """of all items, as a share of what the most popular one has, and below 1"""

    def __init__(self, regularisation: float = 200.0, items: int = 0, reach: float = 0.0, floor: float = 0.0) -> None:
        if not regularisation > 0 or items < 0:
            raise UsageError("regularisation is above 0, items a number of items, or 0 for all")
        if not (0 <= reach < inf and 0 <= floor <= 1):
            raise UsageError("reach is a number of events, or 0: nothing fades; floor is from 0 to 1")
        self.regularisation, self.items, self.reach, self.floor = regularisation, items, reach, floor

    def fit(self, train: Interactions) -> None:
        self.solve(Cooccurrence.of(train, self.items))

    def solve(self, taken: Cooccurrence) -> None:
        """``fit``, where what follows from the events alone is there already."""
        self.popularity, self.part = taken.popularity, taken.part
        self.weights = taken.weights(self.regularisation)

    def scores(self, histories: Sequence[History]) -> NDArray[np.float32]:
        self._fitted()
        item_count = len(self.popularity)
        scores = np.tile(self.popularity, (len(histories), 1))
        own = faded_rows(histories, item_count, self.reach, self.floor)[:, self.part] @ self.weights
        if len(self.part) < item_count:
            scores += own.min(axis=1, keepdims=True) - 1
        scores[:, self.part] = own
        return scores

    def contributions(
        self, history: History, items: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The weights between items that take part. The scores of all others are popularity, and belong to no item."""
        apart, own = self.scores([history])[0, items], np.unique(history)
        counted = faded_rows([history], len(self.popularity), self.reach, self.floor).toarray()[0]
        places = np.full(len(self.popularity), -1)
        places[self.part] = np.arange(len(self.part))
        takes_part, known = places[items] >= 0, places[own] >= 0
        apart[takes_part] = 0
        added = np.zeros((len(own), len(items)), np.float32)
        weights = self.weights[np.ix_(places[own[known]], places[items[takes_part]])]
        added[np.ix_(known, takes_part)] = counted[own[known], None] * weights
        return added, apart

    def fading(self, reach: float, floor: float) -> Self:
        """The same weights, with histories that fade otherwise."""
        state = self.state()
        return self.from_state(replace(state, settings={**state.settings, "reach": reach, "floor": floor}))

    def state(self) -> ModelState:
        self._fitted()
        settings = {
            "regularisation": self.regularisation,
            "items": self.items,
            "reach": self.reach,
            "floor": self.floor,
        }
        return ModelState(settings, {"weights": self.weights, "part": self.part, "popularity": self.popularity})

    @classmethod
    def from_state(cls, state: ModelState) -> Self:
        model, arrays = cls(**state.settings), state.arrays
        model.weights, model.part, model.popularity = arrays["weights"], arrays["part"], arrays["popularity"]
        return model

    def _fitted(self) -> None:
        if not hasattr(self, "weights"):
            raise UsageError("fit the model first")


@dataclass(frozen=True, slots=True, eq=False)
class Cooccurrence:
    """What EASE needs of the events, whatever the regularisation: which items take part, and X'X, or X and X X' where
    that is the smaller one. Made once, it serves for many regularisations."""

    popularity: NDArray[np.float32]
    part: NDArray[np.int64]
    product: NDArray[np.float32]
    """sums of ones: exact, as long as there are fewer than 2^24 users"""
    taken: sparse.csr_array | None
    """X, if the product is X X'"""

    @classmethod
    def of(cls, train: Interactions, items: int = 0) -> Cooccurrence:
        counts = train.popularity()
        popularity = (counts / (counts.max(initial=0) + 1)).astype(np.float32)
        part = np.sort(np.argsort(-counts, kind="stable")[: items or None])
        taken = rows(list(train.histories()), train.item_count)[:, part]
        if taken.shape[0] < taken.shape[1]:
            return cls(popularity, part, _gram(taken.T.tocsr()), taken)
        return cls(popularity, part, _gram(taken), None)

    def weights(self, regularisation: float) -> NDArray[np.float32]:
        """B."""
        matrix = self.product.astype(np.float64)
        matrix[np.diag_indices(len(matrix))] += regularisation
        if self.taken is None:
            inverse = _inverse(matrix)
        else:
            try:
                lower = linalg.cholesky(matrix, lower=True, overwrite_a=True)
            except linalg.LinAlgError:
                raise UsageError(_SINGULAR) from None
            factor = linalg.solve_triangular(lower, self.taken.toarray(), lower=True).astype(np.float32)
            inverse = -(factor.T @ factor)
            inverse[np.diag_indices(len(inverse))] += 1
        inverse /= -inverse.diagonal().copy()
        np.fill_diagonal(inverse, 0)
        return inverse


def _gram(taken: sparse.csr_array) -> NDArray[np.float32]:
    """X'X, densely, a few of its rows after the other: the sparse product as a whole takes several times its memory."""
    columns, count = taken.T.tocsr(), taken.shape[1]
    product = np.empty((count, count), np.float32)
    step = max(1, _BLOCK // max(1, count))
    for start in range(0, count, step):
        product[start : start + step] = (columns[start : start + step] @ taken).toarray()
    return product


def _inverse(matrix: NDArray[np.float64]) -> NDArray[np.float32]:
    """Of a symmetric positive matrix, which is overwritten: there is one such matrix in double precision at a time."""
    factor, failed = linalg.lapack.dpotrf(matrix.T, lower=True, overwrite_a=True, clean=False)
    if not failed:
        factor, failed = linalg.lapack.dpotri(factor, lower=True, overwrite_c=True)
    if failed:
        raise UsageError(_SINGULAR)
    inverse: NDArray[np.float32] = factor.T.astype(np.float32)  # its upper half; the other is its mirror image
    for start in range(0, len(inverse), _ROWS):
        end = start + _ROWS
        corner = np.triu(inverse[start:end, start:end])
        inverse[start:end, start:end] = corner + np.triu(corner, 1).T
        inverse[end:, start:end] = inverse[start:end, end:].T
    return inverse
