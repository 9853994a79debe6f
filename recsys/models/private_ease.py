"""Private EASE: a recommender made of two secure, noised sums, at one price and without rounds of training.

The server learns a denoised Gram matrix G of the popular items (``private_gram``) and solves EASE from it in closed
form (Steck 2019, "Embarrassingly Shallow Autoencoders for Sparse Data"):

    P = (G + ridge)^-1,    B_ij = -P_ij / P_jj,    B_ii = 0.

Of the other items only the popularity p is known, and what a public table says of them, if there is one. From a chosen
item i to another item j the weight is

    p_j (b + sum over k of c_k K_k,ij),

with the kernels K of ``public_features``, centred on the chosen items. b and all c_k >= 0 are those that come nearest
to B itself, where B is known.

All that is published, and is all that devices need: a user's scores are the sum of the weights from the chosen items of
the own history, where the last ones weigh most. Of the scores of other items, the kernels' part is a mean over the
whole history, with as much weight as its chosen items have: a film that was not chosen has genres, too. Scores are
computed on the device, so what a user asks costs no privacy. Popularity decides where they are equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsys.data.interactions import History, Interactions
from recsys.data.items import Items
from recsys.models.private_denoising import least_squares
from recsys.models.private_gram import Gram, Settings, kernel, learn_gram
from recsys.models.private_pairs import Recency, last_occurrences
from recsys.models.private_sums import Sums, exact_sums
from recsys.models.store import ModelState
from recsys.text.vectors import ItemVectors
from secagg.errors import UsageError

RIDGE = 0.5
"""In units of the Gram matrix' mean diagonal."""

_TIE = 1e-6
_LEAST = 1e-3  # of the largest liking


class PrivateEase:
    """
    >>> model = PrivateEase(Settings(items=2))
    >>> model.fit(Interactions.of(users=[0, 0, 1, 1, 2], items=[0, 1, 0, 1, 2]))
    >>> model.scores([np.array([0], np.int32)]).argsort()[0]
    array([0, 2, 1])
    """

    weights: NDArray[np.float32]
    """B, between the chosen items"""
    items: NDArray[np.int64]
    """their numbers, ascending"""
    popularity: NDArray[np.float32]
    """of all items, as it most likely is"""
    base: float
    """b, of the weights of other items"""
    alike: sparse.csr_array
    """one row for each item: the product of two rows is the sum of c_k K_k, before it is centred"""
    centre: NDArray[np.float32]
    """what is taken from each row to centre it"""
    featured: bool
    """whether a table of items said anything"""

    def __init__(
        self,
        settings: Settings = Settings(),  # noqa: B008  # frozen
        described: Items | None = None,
        vectors: ItemVectors | None = None,
    ) -> None:
        self.settings, self.described, self.vectors = settings, described, vectors

    @classmethod
    def configured(
        cls, fields: Mapping[str, Any], described: Items | None = None, vectors: ItemVectors | None = None
    ) -> Self:
        """From TOML: the fields of ``Settings``, as far as they differ from the defaults; and the table of items, with
        the vectors of their texts."""
        return cls(Settings.of(fields), described, vectors)

    def learn(self, sums: Sums, item_count: int) -> None:
        """From two sums, whose shares add up to the whole budget."""
        gram = learn_gram(sums, item_count, self.settings, self.described, vectors=self.vectors)
        weights = ease(gram.matrix)
        self.base, self.alike, self.centre = others(weights, gram)
        self.featured = bool(gram.maps)
        self.weights, self.items = weights.astype(np.float32), gram.chosen.items
        self.popularity = gram.popularity.astype(np.float32)

    def fit(self, train: Interactions) -> None:
        """Without privacy: from exact sums, in which each user counts in full."""
        self.learn(exact_sums(list(train.histories())), train.item_count)

    def scores(self, histories: Sequence[History]) -> NDArray[np.float32]:
        self._learnt()
        count, recency = len(self.popularity), self.settings.recency
        rows = on_device(histories, np.arange(count), count, recency, featured=self.featured).astype(np.float32)
        own = rows[:, self.items]
        known = own.sum(axis=1, keepdims=True)
        share = known / np.maximum(rows.sum(axis=1, keepdims=True), np.float32(_TIE))
        liked = share * (rows @ self.alike) - known * self.centre
        like = (self.alike @ liked.T).T - (liked @ self.centre)[:, None]
        scores: NDArray[np.float32] = self.popularity * (np.float32(self.base) * known + like)
        scores[:, self.items] = own @ self.weights
        return scores + tie_breaks(self.popularity)

    def contributions(
        self, history: History, items: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """To a chosen item the weights from the other chosen ones; to another what the kernels say. b, and what breaks
        ties, belong to no item."""
        self._learnt()
        own, count = np.unique(history).astype(np.int64), len(self.popularity)
        counted = on_device([history], own, count, self.settings.recency, featured=self.featured)[0].astype(np.float32)
        places = np.full(count, -1)
        places[self.items] = np.arange(len(self.items))
        known, chosen = places[own] >= 0, places[items] >= 0
        in_all = counted[known].sum()
        said, asked = ((self.alike[some].toarray() - self.centre) for some in (own, items))
        added = in_all * self.popularity[items] * (counted[:, None] * said @ asked.T)
        added[:, chosen] = 0
        weights = self.weights[np.ix_(places[own[known]], places[items[chosen]])]
        added[np.ix_(known, chosen)] = counted[known, None] * weights
        base = np.where(chosen, 0, self.popularity[items] * np.float32(self.base) * in_all)
        apart: NDArray[np.float32] = (base + tie_breaks(self.popularity)[items]).astype(np.float32)
        return added, apart

    def state(self) -> ModelState:
        self._learnt()
        alike = self.alike
        arrays: dict[str, NDArray[Any]] = {
            "weights": self.weights,
            "items": self.items,
            "popularity": self.popularity,
            "base": np.array(self.base),
            "featured": np.array(self.featured),
            "centre": self.centre,
            "alike": alike.data,
            "alike_columns": alike.indices.astype(np.int64),
            "alike_rows": alike.indptr.astype(np.int64),
        }
        return ModelState(self.settings.state(), arrays)

    @classmethod
    def from_state(cls, state: ModelState) -> Self:
        model, arrays = cls(Settings.of(state.settings)), state.arrays
        model.weights, model.items, model.popularity = arrays["weights"], arrays["items"], arrays["popularity"]
        model.base, model.centre, model.featured = float(arrays["base"]), arrays["centre"], bool(arrays["featured"])
        shape = (len(model.popularity), len(model.centre))
        model.alike = sparse.csr_array((arrays["alike"], arrays["alike_columns"], arrays["alike_rows"]), shape=shape)
        model.alike.check_format(full_check=True)
        return model

    def _learnt(self) -> None:
        if not hasattr(self, "weights"):
            raise UsageError("learn or fit the model first")


def ease(gram: NDArray[np.float64]) -> NDArray[np.float64]:
    """EASE's weights from a Gram matrix. Where denoising left an eigenvalue below zero, it is taken as zero.

    >>> ease(np.array([[2.0, 1.0], [1.0, 2.0]])).round(3)
    array([[0.   , 0.333],
           [0.333, 0.   ]])
    """
    values, vectors = np.linalg.eigh(gram)
    inverse = (vectors / (np.maximum(values, 0) + RIDGE * np.diag(gram).mean())) @ vectors.T
    weights: NDArray[np.float64] = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return weights


def others(weights: NDArray[np.float64], gram: Gram) -> tuple[float, sparse.csr_array, NDArray[np.float32]]:
    """b; a map of all items whose kernel is the sum of c_k K_k; and the mean of its rows over the chosen items."""
    popularity, pairs = gram.chosen.popularity, ~np.eye(len(gram.chosen), dtype=bool)
    if not pairs.any():
        return 0.0, sparse.csr_array((len(gram.popularity), 1), dtype=np.float32), np.zeros(1, np.float32)
    columns = [np.ones_like(weights), *(kernel(one, gram.chosen) for one in gram.maps)]
    likings = np.maximum(gram.liking, _LEAST * gram.liking.max())
    found = least_squares(
        np.stack([(column * popularity)[pairs] for column in columns], axis=1),
        weights[pairs],
        np.outer(likings, 1 / likings)[pairs],
    )
    parts = [sqrt(one) * part for one, part in zip(found[1:], gram.maps, strict=True) if one > 0]
    stacked = sparse.csr_array(sparse.hstack(parts)) if parts else sparse.csr_array((len(gram.popularity), 1))
    centre = popularity @ stacked[gram.chosen.items]
    return float(found[0]), stacked.astype(np.float32), centre.astype(np.float32)


def on_device(
    histories: Sequence[History],
    items: NDArray[np.int64],
    item_count: int,
    recency: Recency | None,
    *,
    featured: bool = False,
) -> NDArray[np.float64]:
    """A row for each history over the chosen items: how much each of its items counts now. Rows add up to 1 at most."""
    weights = np.zeros((len(histories), item_count))
    for row, history in zip(weights, histories, strict=True):
        found, positions = last_occurrences(history)
        if len(found):
            ages = len(history) - 1 - positions
            faded = np.ones(len(found)) if recency is None else recency.of_history(ages, featured=featured)
            row[found] = faded / faded.sum()
    chosen: NDArray[np.float64] = weights[:, items]
    return chosen


def tie_breaks(popularity: NDArray[np.float32]) -> NDArray[np.float32]:
    """Something small that decides between items of equal scores, also for a user without history.

    >>> tie_breaks(np.float32([3, 1, 2]))
    array([1.e-06, 0.e+00, 5.e-07], dtype=float32)
    """
    lowest, highest = float(popularity.min()), float(popularity.max())
    small: NDArray[np.float32] = (_TIE * (popularity - lowest) / max(highest - lowest, 1e-12)).astype(np.float32)
    return small
