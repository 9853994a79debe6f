"""Private matrix factorisation: item factors from the two sums of private EASE, user factors on the device.

With the tastes F F' and the popularity p of the denoised Gram matrix (``private_gram``), frozen from then on:

    item i has the bias log p_i and the factor v_i = F_i / sqrt(p_i mean(p)): what is special about it, not how popular;
    a user has u = (sum_j w_j v_j v_j' + ridge)^-1 sum_j w_j v_j over the own history, weighted by recency;
    the score is log p_i + u' v_i.

F has at most ``settings.rank`` columns; those that noise hides are near zero.

Optionally some of the budget goes to a third sum, for a map M from a user's factor to that of the next item: the normal
equations of the regression of v_next on u, over each user's last events, drawn to M = 1 by a ridge of the size of the
noise. That is to be compared with spending everything on the Gram matrix, which is the default and was better in
made-up populations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import sqrt
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from recsys.data.interactions import History, Interactions
from recsys.data.items import Items
from recsys.models.private_ease import on_device, tie_breaks
from recsys.models.private_gram import Settings, learn_gram
from recsys.models.private_pairs import Recency
from recsys.models.private_sums import Noised, Sums, exact_sums
from recsys.models.store import ModelState
from recsys.text.vectors import ItemVectors
from secagg.assumptions import fraction
from secagg.errors import UsageError

RIDGE = 0.05

_LEAST = 0.02  # of the largest popularity
_TARGETS = 5
"""How many of a user's last events the map is learnt from."""


class PrivateMf:
    """
    >>> model = PrivateMf(Settings(items=2, rank=1))
    >>> model.fit(Interactions.of(users=[0, 0, 1, 1, 2], items=[0, 1, 0, 1, 2]))
    >>> model.scores([np.array([0], np.int32)]).shape
    (1, 3)
    """

    factors: NDArray[np.float32]
    """of the chosen items"""
    bias: NDArray[np.float32]
    """of the chosen items, 0 for the least popular"""
    map: NDArray[np.float32]
    """from a user's factor to the one that is scored with"""
    items: NDArray[np.int64]
    popularity: NDArray[np.float32]
    """of all items, noised"""

    def __init__(self, settings: Settings = Settings(), map_share: Fraction = Fraction(0)) -> None:  # noqa: B008
        if not 0 <= map_share < 1 - settings.share(featured=False):
            raise UsageError("the map's share leaves something to the pairs")
        self.settings, self.map_share = settings, map_share

    @classmethod
    def configured(
        cls, fields: Mapping[str, Any], described: Items | None = None, vectors: ItemVectors | None = None
    ) -> Self:
        """From TOML: ``map_share``, and the fields of ``Settings``. A table of items says nothing to this model."""
        fields = dict(fields)
        share = fraction(fields.pop("map_share", 0))
        return cls(Settings.of(fields), share)

    def learn(self, sums: Sums, item_count: int) -> None:
        """From two sums, or three with a map, whose shares add up to the whole budget."""
        settings = self.settings
        gram = learn_gram(sums, item_count, settings, kept=self.map_share)
        items = gram.chosen.items
        popular = np.maximum(gram.liking, _LEAST * gram.liking.max())
        factors = gram.factors / np.sqrt(popular * popular.mean())[:, None]
        self.factors, self.items = factors.astype(np.float32), items
        self.bias = np.log(popular / popular.min()).astype(np.float32)
        self.popularity = gram.popularity.astype(np.float32)
        self.map = np.eye(settings.rank, dtype=np.float32)
        if self.map_share:
            places = gram.chosen.places
            length = settings.rank**2 + settings.rank * (settings.rank + 1) // 2
            equations = sums(
                "map", length, self.map_share, lambda history: map_row(history, places, factors, settings.recency)
            )
            self.map = solve_map(equations, settings.rank).astype(np.float32)

    def fit(self, train: Interactions) -> None:
        """Without privacy: from exact sums, in which each user counts in full."""
        self.learn(exact_sums(list(train.histories())), train.item_count)

    def scores(self, histories: Sequence[History]) -> NDArray[np.float32]:
        self._learnt()
        rows = on_device(histories, self.items, len(self.popularity), self.settings.recency)
        users = user_factors(rows, self.factors.astype(np.float64)).astype(np.float32) @ self.map
        return with_others((self.bias + users @ self.factors.T).astype(np.float32), self.items, self.popularity)

    def state(self) -> ModelState:
        self._learnt()
        arrays: dict[str, NDArray[Any]] = {
            name: getattr(self, name) for name in ("factors", "bias", "map", "items", "popularity")
        }
        return ModelState({"settings": self.settings.state(), "map_share": str(self.map_share)}, arrays)

    @classmethod
    def from_state(cls, state: ModelState) -> Self:
        model = cls(Settings.of(state.settings["settings"]), fraction(state.settings["map_share"]))
        model.factors, model.bias, model.map = (state.arrays[name] for name in ("factors", "bias", "map"))
        model.items, model.popularity = state.arrays["items"], state.arrays["popularity"]
        if model.map.shape != 2 * model.factors.shape[1:]:  # sizes are those of numbers that are there
            raise UsageError("the map is from factors to factors")
        return model

    def _learnt(self) -> None:
        if not hasattr(self, "factors"):
            raise UsageError("learn or fit the model first")


def with_others(
    scores: NDArray[np.float32], items: NDArray[np.int64], popularity: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Scores of all items: 0 for those not chosen. Popularity decides between equals, also for a user without history.

    >>> with_others(np.float32([[0.5]]), np.array([1]), np.float32([3, 0, -1])).argsort()
    array([[2, 0, 1]])
    """
    everything = np.tile(tie_breaks(popularity), (len(scores), 1))
    everything[:, items] += scores
    return everything


def user_factors(rows: NDArray[np.float64], factors: NDArray[np.float64]) -> NDArray[np.float64]:
    """One for each row of weights over the chosen items, by ridge regression of 1 on the factors of its items.

    >>> user_factors(np.array([[1.0, 0.0]]), np.array([[1.0], [5.0]])).round(3)
    array([[0.952]])
    """
    rank = factors.shape[1]
    solved = np.empty((len(rows), rank))
    for user, row in enumerate(rows):
        own = np.flatnonzero(row)
        weighted = factors[own] * row[own, None]
        solved[user] = np.linalg.solve(weighted.T @ factors[own] + RIDGE * np.eye(rank), weighted.sum(axis=0))
    return solved


def map_row(
    history: History, places: NDArray[np.int64], factors: NDArray[np.float64], recency: Recency | None
) -> NDArray[np.float64]:
    """What a user adds to the normal equations: u v' and the upper triangle of u u', over the last events; norm 1.

    >>> map_row(np.array([0, 1], np.int32), np.array([0, 1]), np.array([[1.0], [0.5]]), None).round(3)
    array([0.465, 0.885])
    """
    rank = factors.shape[1]
    items = np.flatnonzero(places >= 0)
    ends = [end for end in range(max(len(history) - _TARGETS, 1), len(history)) if places[history[end]] >= 0]
    rows = on_device([history[:end] for end in ends], items, len(places), recency)
    users, targets = user_factors(rows, factors), factors[places[history[ends]]].reshape(-1, rank)
    row = np.concatenate(((users.T @ targets).ravel(), (users.T @ users)[np.triu_indices(rank)]))
    norm = float(np.linalg.norm(row))
    return row / norm if norm else row


def solve_map(equations: Noised, rank: int) -> NDArray[np.float64]:
    """The ridge regression. Noise moves the eigenvalues of a matrix by up to 2 deviation sqrt(rank): so much ridge.

    >>> solve_map(Noised(np.array([6.0, 3.0]), 0.0, 10), 1).round(3)
    array([[2.]])
    """
    square = np.zeros((rank, rank))
    square[np.triu_indices(rank)] = equations.vector[rank**2 :]
    square += np.triu(square, 1).T
    values, vectors = np.linalg.eigh(square)
    ridge = 2 * equations.deviation * sqrt(rank) + 1e-6 * max(float(values[-1]), 1.0)
    inverse = (vectors / (np.maximum(values, 0) + ridge)) @ vectors.T
    solved: NDArray[np.float64] = inverse @ (equations.vector[: rank**2].reshape(rank, rank) + ridge * np.eye(rank))
    return solved
