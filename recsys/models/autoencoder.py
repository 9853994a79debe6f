"""A linear autoencoder over whole histories, small enough to be learnt under noise.

    taste  = sum over the history of weight_i * item_i            the newer the item, the more weight
    score  = taste . item_j + bias_j

One table serves both ways (tied weights), so what is learnt from noisy gradients is learnt once. Training hides some
of each history and raises the multinomial likelihood of what is hidden (Liang et al. 2018, "Variational autoencoders
for collaborative filtering", without the variational part and the layers). The table starts near zero: the first steps
learn popularity, by the bias, and every direction that the table takes afterwards is one that users agree on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from recsys.data.interactions import History
from recsys.models.batches import latest
from recsys.models.draws import Draws
from recsys.models.neural import Neural, Towers
from recsys.models.recommender import Local
from secagg.errors import UsageError

CENTRAL = Local(epochs=20, batch=64, rate=0.01)


class Autoencoder(Neural):
    """
    width: numbers for each item.
    recent: how many of a user's latest items count.
    fading: the weight of an item is that to the power of its age in events.
    hidden: the share of a history that is hidden in training, item by item.
    spread: standard deviation of the table at the beginning.
    central: how ``fit`` trains, with Adam.

    >>> from recsys.data.synthetic import population
    >>> model = Autoencoder(width=4, central=Local(epochs=2, batch=64, rate=0.01))
    >>> model.fit(population(users=50, items=100))
    >>> model.scores([np.array([3, 1], np.int32), np.array([], np.int32)]).shape
    (2, 100)
    """

    SETTINGS = ("width", "recent", "fading", "hidden", "spread")

    def __init__(
        self,
        width: int = 16,
        *,
        recent: int = 100,
        fading: float = 0.9,
        hidden: float = 0.5,
        spread: float = 0.1,
        central: Local = CENTRAL,
    ) -> None:
        super().__init__(central)
        if width < 1 or recent < 2 or not (0 < fading <= 1 and 0 < hidden < 1 and spread > 0):
            raise UsageError("width is above 0, recent above 1, fading in (0, 1], hidden in (0, 1), spread above 0")
        self.width, self.recent, self.fading, self.hidden, self.spread = width, recent, fading, hidden, spread

    def _build(self, item_count: int) -> nn.Module:
        return _Tied(item_count, self.width, self.spread)

    def _examples(self, histories: Sequence[History], draws: Draws) -> tuple[NDArray[Any], ...]:
        """Items, their weights in what is seen, and in what is to be foretold; the latter add up to 1, or all are 0."""
        ids, there = latest(histories, self.recent, filler=0)
        hidden = there & (draws.uniform(self.recent) < self.hidden)
        wanted = hidden / np.maximum(1, hidden.sum(1, keepdims=True))
        return ids, self._weights(there & ~hidden), wanted.astype(np.float32)

    def _weights(self, seen: NDArray[np.bool_]) -> NDArray[np.float32]:
        """By age, of norm 1."""
        weights = seen * self.fading ** np.arange(self.recent - 1, -1, -1)
        norms = np.sqrt(np.square(weights).sum(1, keepdims=True))
        scaled: NDArray[np.float32] = (weights / np.maximum(norms, 1e-12)).astype(np.float32)
        return scaled

    def _losses(self, module: Any, *examples: Tensor) -> Tensor:
        ids, weights, wanted = examples
        likelihoods = module(ids, weights).log_softmax(1).gather(1, ids)
        return -(likelihoods * wanted).sum(1)

    def _score(self, module: Any, histories: Sequence[History]) -> Tensor:
        ids, there = latest(histories, self.recent, filler=0)
        return module(torch.from_numpy(ids), torch.from_numpy(self._weights(there)))

    def towers(self) -> Towers:
        module: Any = self._begun
        return Towers.of(None, module.items, module.bias)

    def contributions(
        self, history: History, items: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What the weighted vectors of the latest items add to the taste, and the bias, which belongs to none."""
        module: Any = self._begun
        ids, there = latest([history], self.recent, filler=0)
        own, table = np.unique(history), module.items.detach().numpy()
        vectors = np.zeros((len(own), self.width), np.float32)
        weighted = self._weights(there)[0, :, None] * table[ids[0]]
        np.add.at(vectors, np.searchsorted(own, ids[there]), weighted[there[0]])
        added: NDArray[np.float32] = vectors @ table[items].T
        return added, module.bias.detach().numpy()[items]


class _Tied(nn.Module):  # type: ignore[misc]  # torch goes untyped here
    def __init__(self, item_count: int, width: int, spread: float) -> None:
        super().__init__()
        self.items = nn.Parameter(spread / width**0.5 * torch.randn(item_count, width))
        self.bias = nn.Parameter(torch.zeros(item_count))

    def forward(self, ids: Tensor, weights: Tensor) -> Tensor:
        taste = (F.embedding(ids, self.items) * weights.unsqueeze(2)).sum(1)
        return F.linear(taste, self.items, self.bias)
