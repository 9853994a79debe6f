"""DP-SGD of the linear autoencoder in one place, as fast as a study needs it: the sums are those that silos would make.

The gradient of one user has rank two in the table (the error times the taste, and the history times the error's own
taste), so its norm, and the sum of all clipped ones, come without any gradient being written out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.interactions import Interactions
from recsys.models.autoencoder import Autoencoder
from recsys.models.batches import latest
from recsys.models.draws import Draws

MOMENTUM = 0.9
_AT_ONCE = 256
"""Users whose scores are there at once: so that they fit a core's cache."""


@dataclass(frozen=True, slots=True)
class Recipe:
    rate: float
    momentum: float = MOMENTUM
    clip: float = 0.1
    width: int = 8
    fading: float = 0.95
    hidden: float = 0.5
    recent: int = 100

    def model(self) -> Autoencoder:
        return Autoencoder(self.width, recent=self.recent, fading=self.fading, hidden=self.hidden)


class Training:
    """What steps on one population share."""

    def __init__(self, train: Interactions, recipe: Recipe) -> None:
        self._recipe, self._item_count = recipe, train.item_count
        self._histories = list(train.histories())
        self._items, self._there = latest(self._histories, recipe.recent, filler=0)
        self._ages = recipe.fading ** np.arange(recipe.recent - 1, -1, -1)

    def run(self, noise: NDArray[np.float32], gap: int, seed: int) -> Autoencoder:
        """The model after a step for each row of ``noise``, which is added to the sum of its step. Each user takes part
        in every ``gap``-th step, in an order by ``seed``."""
        recipe, model = self._recipe, self._recipe.model()
        model.begin(self._item_count, seed)
        vector = torch.from_numpy(model.vector.copy())
        velocity = torch.zeros_like(vector)
        order = np.random.default_rng(seed).permutation(len(self._histories))
        cohorts = np.array_split(order, gap)
        for step, row in enumerate(noise):
            cohort = cohorts[step % gap]
            total = self.total(vector, cohort, seed * len(noise) + step) + torch.from_numpy(row)
            velocity = recipe.momentum * velocity + total / len(cohort)
            vector = vector - recipe.rate * velocity
        model.vector = vector.numpy()
        return model

    def total(self, vector: Tensor, cohort: NDArray[np.int64], seed: int) -> Tensor:
        """The sum of the clipped gradients of these users. What of a history is hidden follows from it and the seed."""
        recipe, bias_start = self._recipe, -self._item_count
        drawn = Draws(seed, [self._histories[user] for user in cohort]).uniform(recipe.recent)
        there = self._there[cohort]
        hidden = there & (drawn < recipe.hidden)
        seen = (there & ~hidden) * self._ages
        parts = (
            self._items[cohort],
            (seen / np.maximum(np.linalg.norm(seen, axis=1, keepdims=True), 1e-12)).astype(np.float32),
            (hidden / np.maximum(hidden.sum(axis=1, keepdims=True), 1)).astype(np.float32),
        )
        table, bias = vector[:bias_start].view(-1, recipe.width), vector[bias_start:]
        sums = _Sums(torch.zeros_like(table), torch.zeros_like(bias))
        for first in range(0, len(cohort), _AT_ONCE):
            items, weights, wanted = (torch.from_numpy(part[first : first + _AT_ONCE]) for part in parts)
            _add_clipped(sums, table, bias, items, weights, wanted, recipe.clip)
        return torch.cat([sums.table.flatten(), sums.bias])


@dataclass(frozen=True, slots=True, eq=False)
class _Sums:
    table: Tensor
    bias: Tensor


def _add_clipped(
    sums: _Sums, table: Tensor, bias: Tensor, items: Tensor, weights: Tensor, wanted: Tensor, clip: float
) -> None:
    """Add the clipped gradients of some users to the sums.

    With the error e of the likelihoods, the history h and the taste t = h . table, a user's gradient is e in the bias
    and e t' + h (e . table)' in the table.
    """
    taste = (F.embedding(items, table) * weights.unsqueeze(2)).sum(1)
    error = torch.addmm(bias, taste, table.T).softmax(1) * (wanted.sum(1, keepdim=True) > 0)
    error.scatter_add_(1, items, -wanted)
    back = error @ table
    crossed = (error.gather(1, items) * weights).sum(1) * (taste * back).sum(1)
    squared = error.square().sum(1) * (1 + taste.square().sum(1)) + _squares(weights) * _squares(back) + 2 * crossed
    factors = (clip / squared.clamp_min(1e-30).sqrt()).clamp_max(1).unsqueeze(1)
    error *= factors
    sums.bias.add_(error.sum(0))
    sums.table.addmm_(error.T, taste)
    moved = weights.unsqueeze(2) * (factors * back).unsqueeze(1)
    sums.table.index_add_(0, items.flatten(), moved.flatten(0, 1))


def _squares(rows: Tensor) -> Tensor:
    return rows.square().sum(1)


def correlated(
    matrix: NDArray[np.float64], deviation: float, length: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """A row for each step: C^-1 Z, for Z of this standard deviation."""
    independent = rng.standard_normal((len(matrix), length))
    rows: NDArray[Any] = deviation * np.linalg.solve(matrix, independent)
    return rows.astype(np.float32)
