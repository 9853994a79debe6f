"""DP-SGD of the linear autoencoder in one place, as fast as a study needs it: the sums are those that silos would make.

The gradient of one user has rank two in the table (the error times the taste, and the history times the error's own
taste), so its norm, and the sum of all clipped ones, come without any gradient being written out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.interactions import Interactions
from recsys.models.autoencoder import Autoencoder
from recsys.models.batches import latest

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
    """What steps on one population share. ``items`` are everybody's latest ones, ``there`` is which places hold one."""

    def __init__(self, train: Interactions, recipe: Recipe) -> None:
        self._recipe, self._train = recipe, train
        known = [latest(history, recipe.recent, filler=0) for history in train.histories()]
        self._items = torch.from_numpy(np.stack([items for items, _ in known]))
        self._there = torch.from_numpy(np.stack([there for _, there in known]))

    @property
    def users(self) -> int:
        return len(self._items)

    @cached_property
    def _ages(self) -> Tensor:
        return self._recipe.fading ** torch.arange(self._recipe.recent - 1, -1, -1).float()

    def run(self, noise: NDArray[np.float32], gap: int, seed: int) -> Autoencoder:
        """The model after a step for each row of ``noise``, which is added to the sum of its step. Each user takes part
        in every ``gap``-th step, in an order by ``seed``."""
        recipe, model = self._recipe, self._recipe.model()
        model.begin(self._train.item_count, seed)
        vector = torch.from_numpy(model.vector.copy())
        generator = torch.Generator().manual_seed(seed)
        cohorts = torch.randperm(self.users, generator=generator).tensor_split(gap)
        velocity = torch.zeros_like(vector)
        for step, row in enumerate(noise):
            cohort = cohorts[step % gap]
            total = self.total(vector, cohort, generator) + torch.from_numpy(row)
            velocity = recipe.momentum * velocity + total / len(cohort)
            vector = vector - recipe.rate * velocity
        model.vector = vector.numpy()
        return model

    def total(self, vector: Tensor, cohort: Tensor, generator: torch.Generator) -> Tensor:
        """The sum of the clipped gradients of these users, each of whose histories is hidden in part, by lot."""
        recipe = self._recipe
        items, there = self._items[cohort], self._there[cohort]
        hidden = there & (torch.rand(there.shape, generator=generator) < recipe.hidden)
        weights = (there & ~hidden) * self._ages
        weights /= weights.norm(dim=1, keepdim=True).clamp_min(1e-12)
        wanted = hidden / hidden.sum(1, keepdim=True).clamp_min(1)
        table, bias = vector[: -self._train.item_count].view(-1, recipe.width), vector[-self._train.item_count :]
        table_sum, bias_sum = torch.zeros_like(table), torch.zeros_like(bias)
        for first in range(0, len(items), _AT_ONCE):
            some = slice(first, first + _AT_ONCE)
            _add_clipped(
                table,
                bias,
                items[some],
                weights[some],
                wanted[some],
                recipe.clip,
                table_sum=table_sum,
                bias_sum=bias_sum,
            )
        return torch.cat([table_sum.flatten(), bias_sum])


def _add_clipped(
    table: Tensor,
    bias: Tensor,
    items: Tensor,
    weights: Tensor,
    wanted: Tensor,
    clip: float,
    *,
    table_sum: Tensor,
    bias_sum: Tensor,
) -> None:
    """Add the clipped gradients of some users to the two sums.

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
    bias_sum += error.sum(0)
    table_sum += error.T @ taste
    moved = weights.unsqueeze(2) * (factors * back).unsqueeze(1)
    table_sum.index_add_(0, items.flatten(), moved.flatten(0, 1))


def _squares(rows: Tensor) -> Tensor:
    return rows.square().sum(1)


def correlated(
    matrix: NDArray[np.float64], deviation: float, length: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """A row for each step: C^-1 Z, for Z of this standard deviation."""
    independent = rng.standard_normal((len(matrix), length))
    rows: NDArray[Any] = deviation * np.linalg.solve(matrix, independent)
    return rows.astype(np.float32)
