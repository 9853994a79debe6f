"""Private EASE: a recommender made of two secure, noised sums, at one price and without rounds of training.

The server learns a denoised Gram matrix of the popular items (``private_gram``) and solves EASE from it in closed form
(Steck 2019, "Embarrassingly Shallow Autoencoders for Sparse Data"):

    P = (G + ridge)^-1,    B_ij = -P_ij / P_jj,    B_ii = 0.

B is published, and is all that devices need: a user's scores are the sum of B's rows over the own history, where the
last items weigh most. They are computed on the device, so what a user asks costs no privacy. Of items that were not
chosen nothing is known but their noised popularity, which decides where scores are equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from recsys.data.interactions import History, Interactions
from recsys.models.private_gram import Recency, Settings, last_occurrences, learn_gram
from recsys.models.private_sums import Sums, exact_sums
from recsys.models.store import ModelState
from secagg.assumptions import fraction
from secagg.errors import UsageError

RIDGE = 1.0
"""In units of the Gram matrix' mean diagonal."""

_TIE = 1e-6


class PrivateEase:
    """
    >>> model = PrivateEase(Settings(items=2))
    >>> model.fit(Interactions.of(users=[0, 0, 1, 1, 2], items=[0, 1, 0, 1, 2]))
    >>> model.scores([np.array([0], np.int32)]).argsort()[0]
    array([2, 0, 1])
    """

    weights: NDArray[np.float32]
    """B, between the chosen items"""
    items: NDArray[np.int64]
    """their numbers, ascending"""
    popularity: NDArray[np.float32]
    """of all items, noised"""

    def __init__(self, settings: Settings = Settings()) -> None:  # noqa: B008  # frozen
        self.settings = settings

    @classmethod
    def configured(cls, fields: Mapping[str, Any]) -> Self:
        """From TOML: the fields of ``Settings``, as far as they differ from the defaults."""
        return cls(settings_of(fields))

    def learn(self, sums: Sums, item_count: int) -> None:
        """From two sums, whose shares add up to the whole budget."""
        gram = learn_gram(sums, item_count, self.settings)
        self.weights, self.items = ease(gram.matrix).astype(np.float32), gram.items
        self.popularity = gram.popularity.astype(np.float32)

    def fit(self, train: Interactions) -> None:
        """Without privacy: from exact sums, in which each user counts in full."""
        self.learn(exact_sums(list(train.histories())), train.item_count)

    def scores(self, histories: Sequence[History]) -> NDArray[np.float32]:
        self._learnt()
        rows = on_device(histories, self.items, len(self.popularity), self.settings.recency)
        return with_others(rows.astype(np.float32) @ self.weights, self.items, self.popularity)

    def state(self) -> ModelState:
        self._learnt()
        arrays: dict[str, NDArray[Any]] = {"weights": self.weights, "items": self.items, "popularity": self.popularity}
        return ModelState(settings_state(self.settings), arrays)

    @classmethod
    def from_state(cls, state: ModelState) -> Self:
        model, arrays = cls(settings_of(state.settings)), state.arrays
        model.weights, model.items, model.popularity = arrays["weights"], arrays["items"], arrays["popularity"]
        return model

    def _learnt(self) -> None:
        if not hasattr(self, "weights"):
            raise UsageError("learn or fit the model first")


def ease(gram: NDArray[np.float64]) -> NDArray[np.float64]:
    """EASE's weights from a Gram matrix. Where denoising left an eigenvalue below zero, it is taken as zero.

    >>> ease(np.array([[2.0, 1.0], [1.0, 2.0]]))
    array([[0.  , 0.25],
           [0.25, 0.  ]])
    """
    values, vectors = np.linalg.eigh(gram)
    inverse = (vectors / (np.maximum(values, 0) + RIDGE * np.diag(gram).mean())) @ vectors.T
    weights: NDArray[np.float64] = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return weights


def on_device(
    histories: Sequence[History], items: NDArray[np.int64], item_count: int, recency: Recency | None
) -> NDArray[np.float64]:
    """A row for each history over the chosen items: how much each of its items counts now. Rows add up to 1 at most."""
    weights = np.zeros((len(histories), item_count))
    for row, history in zip(weights, histories, strict=True):
        found, positions = last_occurrences(history)
        if len(found):
            ages = len(history) - 1 - positions
            faded = np.ones(len(found)) if recency is None else recency.weights(ages, recency.history)
            row[found] = faded / faded.sum()
    chosen: NDArray[np.float64] = weights[:, items]
    return chosen


def with_others(
    scores: NDArray[np.float32], items: NDArray[np.int64], popularity: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Scores of all items: 0 for those not chosen. Popularity decides between equals, also for a user without history.

    >>> with_others(np.float32([[0.5]]), np.array([1]), np.float32([3, 0, -1])).argsort()
    array([[2, 0, 1]])
    """
    lowest, highest = float(popularity.min()), float(popularity.max())
    popular = (popularity - lowest) / max(highest - lowest, 1e-12)
    everything = np.tile((_TIE * popular).astype(np.float32), (len(scores), 1))
    everything[:, items] += scores
    return everything


def settings_state(settings: Settings) -> dict[str, Any]:
    """What JSON can hold of them."""
    return asdict(settings) | {"popularity_share": str(settings.popularity_share)}


def settings_of(state: Mapping[str, Any]) -> Settings:
    """From JSON or TOML; what is not said is as by default.

    >>> settings_of({"items": 50, "popularity_share": "1/10", "recency": False})
    Settings(items=50, popularity_share=Fraction(1, 10), recency=None, rank=16)
    """
    fields = dict(state)
    if "popularity_share" in fields:
        fields["popularity_share"] = fraction(fields["popularity_share"])
    if "recency" in fields:
        recency = fields["recency"]
        fields["recency"] = None if recency is None or recency is False else Recency(**recency)
    return Settings(**fields)
