"""Self-attention over a history: what comes next depends on what came last, and before it.

Kang and McAuley 2018, "Self-Attentive Sequential Recommendation", small: a few causal blocks over a user's latest
items, items and outputs sharing one table, here with a bias for popularity. Each place foretells the item that follows;
the loss is the softmax over it and some sampled negatives (Klenitskiy and Vasilev 2023, "Turning dross into gold loss",
found the original's single negative to be what holds it back). Normalisation comes before each part of a block (Xiong
et al. 2020), which spares a warm-up.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from recsys.data.interactions import History
from recsys.data.negatives import negatives
from recsys.models.batches import MOST_PLACES, latest
from recsys.models.draws import Draws
from recsys.models.neural import Neural, Towers, tensors
from recsys.models.recommender import Local
from secagg.errors import UsageError

CENTRAL = Local(epochs=60, batch=64, rate=0.003)

_MOST_BLOCKS = 64


class SasRec(Neural):
    """
    width: numbers for each item, and in each place.
    recent: how many of a user's latest items are looked at.
    negatives: drawn for each user, for all places.
    dropout: in plain training; there is none under privacy.
    central: how ``fit`` trains, with Adam.

    >>> import numpy as np
    >>> from recsys.data.synthetic import population
    >>> model = SasRec(width=8, recent=10, negatives=20, central=Local(epochs=1, batch=64, rate=0.01))
    >>> model.fit(population(users=50, items=100))
    >>> model.scores([np.array([3, 1], np.int32), np.array([], np.int32)]).shape
    (2, 100)
    """

    SETTINGS = ("width", "blocks", "heads", "recent", "negatives", "dropout")

    def __init__(
        self,
        width: int = 32,
        *,
        blocks: int = 2,
        heads: int = 1,
        recent: int = 50,
        negatives: int = 500,
        dropout: float = 0.4,
        central: Local = CENTRAL,
    ) -> None:
        super().__init__(central)
        if not 1 <= blocks <= _MOST_BLOCKS:
            raise UsageError(f"there are 1 to {_MOST_BLOCKS} blocks, not {blocks}")
        if min(width, heads, recent, negatives) < 1 or width % heads or not 0 <= dropout < 1:
            raise UsageError("width (a multiple of heads), heads, recent, negatives are above 0, dropout in [0, 1)")
        if recent > MOST_PLACES:
            raise UsageError(f"recent is at most {MOST_PLACES}")
        self.width, self.blocks, self.heads, self.recent = width, blocks, heads, recent
        self.negatives, self.dropout = negatives, dropout

    def _build(self, item_count: int) -> nn.Module:
        return _Attentive(item_count, self.width, self.recent, self.blocks, self.heads, self.dropout)

    def _examples(self, histories: Sequence[History], draws: Draws) -> tuple[NDArray[Any], ...]:
        return next_items(histories, self.recent, self._item_count, self.negatives, draws)

    def _losses(self, module: Any, *examples: Tensor) -> Tensor:
        seen, there, following, others = examples
        return foretold(module(seen, there), there, module.outputs(following), module.outputs(others))

    def _score(self, module: Any, histories: Sequence[History]) -> Tensor:
        ids, there = tensors(latest(histories, self.recent, filler=0))
        return F.linear(module(ids, there)[:, -1], module.items, module.bias)

    def towers(self) -> Towers:
        module: Any = self._begun
        return Towers.of(module.attention, module.items, module.bias)


def next_items(
    histories: Sequence[History], recent: int, item_count: int, negative_count: int, draws: Draws
) -> tuple[NDArray[Any], ...]:
    """Of each history the latest items, whether they are there, what follows each, and items that it does not have."""
    ids, there = latest(histories, recent + 1, filler=0)
    others, some = negatives(histories, item_count, draws.uniform(negative_count))
    there &= some[:, None]  # who has everything teaches nothing
    return ids[:, :-1], there[:, :-1], ids[:, 1:], others


def foretold(
    places: Tensor,
    there: Tensor,
    following: tuple[Tensor, Tensor],
    others: tuple[Tensor, Tensor],
    each_for: float = 1.0,
) -> Tensor:
    """The loss of each history: at each place a softmax over the item that follows it and others, each of which stands
    for so many. Items are vectors and biases."""
    targets, bias = following
    right = (places * targets).sum(2, keepdim=True) + bias.unsqueeze(2)
    targets, bias = others
    wrong = places @ targets.mT + bias.unsqueeze(1) + log(each_for)
    losses = torch.cat([right, wrong], 2).logsumexp(2) - right.squeeze(2)
    return (losses * there).sum(1) / there.sum(1).clamp(min=1)


class Attention(nn.Module):  # type: ignore[misc]  # torch goes untyped here
    """Blocks over the vectors of a history's items, and a vector for each of its places."""

    def __init__(self, width: int, length: int, blocks: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.places = nn.Parameter(0.1 * torch.randn(length, width) / width**0.5)
        self.blocks = nn.ModuleList(_Block(width, heads, dropout) for _ in range(blocks))
        self.dropout, self.norm = nn.Dropout(dropout), nn.LayerNorm(width)

    def forward(self, items: Tensor, there: Tensor) -> Tensor:
        """What each place knows, from itself and those before it."""
        length = items.shape[1]
        itself = torch.eye(length, dtype=torch.bool)  # a place before the first item sees nothing else
        visible = torch.tril(torch.ones(length, length, dtype=torch.bool)) & there.unsqueeze(1) | itself
        state = self.dropout((items + self.places) * there.unsqueeze(2))
        for block in self.blocks:
            state = block(state, visible.unsqueeze(1))
        return self.norm(state)


class _Attentive(nn.Module):  # type: ignore[misc]
    def __init__(self, item_count: int, width: int, length: int, blocks: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.items = nn.Parameter(0.1 * torch.randn(item_count, width) / width**0.5)
        self.bias = nn.Parameter(torch.zeros(item_count))
        self.attention = Attention(width, length, blocks, heads, dropout)

    def forward(self, ids: Tensor, there: Tensor) -> Tensor:
        """What each place knows, from itself and those before it."""
        return self.attention(F.embedding(ids, self.items), there)

    def outputs(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors and biases of items as what follows."""
        return F.embedding(ids, self.items), F.embedding(ids, self.bias.unsqueeze(1)).squeeze(2)


class _Block(nn.Module):  # type: ignore[misc]
    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_layers = nn.LayerNorm(width), nn.LayerNorm(width)
        self.wanted, self.offered = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.mixed = nn.Linear(width, width)
        self.layers = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, state: Tensor, visible: Tensor) -> Tensor:
        normed = self.before_attention(state)
        query, (key, value) = self.wanted(normed), self.offered(normed).chunk(2, dim=2)
        query, key, value = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (query, key, value))
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=visible).transpose(1, 2).flatten(2)
        state = state + self.dropout(self.mixed(found))
        return state + self.dropout(self.layers(self.before_layers(state)))
