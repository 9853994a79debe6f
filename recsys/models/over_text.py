"""Models whose items are what their texts say, in place of a table with a row for each item's number.

An item is its coordinates t (``recsys.text.coordinates``), which are public and stand still. Learnt is what is made of
them, which is as large for ten items as for a million:

    item       a linear map of t
    user       ``TwoTower``: the mean of the items of the history, the later ones weighing more, and a small network on
               it. ``SasRecOverText``: the attention of ``recsys.models.sasrec`` over these items
    score      user . item + how popular items are with such a text + how popular this one is

The last part is a number for each item (``popular``); without it nothing learnt is about any single item. The loss is
that of ``recsys.models.sasrec``: each place of a history foretells the item that follows, by a softmax over it and some
sampled negatives. What a history comes to is computed on the device.

An item that nobody has taken has a score by its text. One that comes after training is added by ``with_items``, and
counts as being as popular as items are on average.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from recsys.data.interactions import History
from recsys.data.items import Items
from recsys.models.batches import MOST_PLACES, latest
from recsys.models.draws import Draws
from recsys.models.neural import Neural, Towers, tensors
from recsys.models.recommender import Local
from recsys.models.sasrec import Attention, foretold, next_items
from recsys.models.store import ModelState
from recsys.text.coordinates import COORDINATES, Coordinates
from recsys.text.vectors import ItemVectors
from secagg.errors import UsageError

CENTRAL = Local(epochs=60, batch=64, rate=0.003)
_MOST_BLOCKS = 64


class OverText(Neural):
    """
    text: all items.
    width: numbers for each item, and in each place.
    recent: how many of a user's latest items are looked at.
    negatives: drawn for each user, for all places.
    dropout: in plain training; there is none under privacy.
    popular: whether each item has a number for how popular it is.
    central: how ``fit`` trains, with Adam.
    """

    SETTINGS: ClassVar[tuple[str, ...]] = ("width", "recent", "negatives", "dropout", "popular")

    def __init__(
        self,
        text: Coordinates,
        width: int = 32,
        *,
        recent: int = 50,
        negatives: int = 500,
        dropout: float = 0.4,
        popular: bool = True,
        central: Local = CENTRAL,
    ) -> None:
        super().__init__(central)
        if min(width, recent, negatives) < 1 or recent > MOST_PLACES or not 0 <= dropout < 1:
            raise UsageError(f"width, recent (at most {MOST_PLACES}) and negatives are above 0, dropout in [0, 1)")
        self.text, self.width, self.recent = text, width, recent
        self._rows = torch.from_numpy(text.rows.copy())  # the same for all copies of this model, and no part of one
        self.negatives, self.dropout, self.popular = negatives, dropout, popular

    @classmethod
    def configured(
        cls, settings: Mapping[str, Any], items: Items | None = None, vectors: ItemVectors | None = None
    ) -> Self:
        """From TOML: arguments of the constructor but ``text`` and ``central``, and how many ``coordinates`` items
        have."""
        known = {*signature(cls).parameters, "coordinates"} - {"text", "central"}
        if strange := settings.keys() - known:
            raise UsageError(f"model.settings are {', '.join(sorted(known))}, and not {min(strange)[:40]!r}")
        if vectors is None:
            raise UsageError("this model needs model.encoder: its items are vectors of their texts")
        given = dict(settings)
        return cls(Coordinates.of(vectors, given.pop("coordinates", COORDINATES)), **given)

    @abstractmethod
    def _user(self) -> nn.Module:
        """Makes vectors of the places of a history from those of its items."""

    def _build(self, item_count: int) -> nn.Module:
        if len(self.text) != item_count:
            raise UsageError(f"there are vectors of {len(self.text)} items, and the model has {item_count}")
        return _Towers(self._user(), self.text.rows.shape[1], self.width, item_count if self.popular else 0)

    def _examples(self, histories: Sequence[History], draws: Draws) -> tuple[NDArray[Any], ...]:
        return next_items(histories, self.recent, self._item_count, self.negatives, draws)

    def _losses(self, module: Any, *examples: Tensor) -> Tensor:
        seen, there, following, others = examples
        said = self._said(seen), self._said(following), self._said(others)
        return self._foretold(module, said, there, following, others)

    def _foretold(
        self,
        module: Any,
        said: tuple[Tensor, Tensor, Tensor],
        there: Tensor,
        following: Tensor,
        others: Tensor,
        each_for: float = 1.0,
    ) -> Tensor:
        """The loss of each example, from the coordinates of the items that are seen, that follow, and of others, each
        of which stands for so many."""
        items = module.outputs(said[1], following), module.outputs(said[2], others)
        return foretold(module(said[0], there), there, *items, each_for)

    def _score(self, module: Any, histories: Sequence[History]) -> Tensor:
        ids, there = tensors(latest(histories, self.recent, filler=0))
        targets, bias = module.outputs(self._rows, torch.arange(len(self.text)))
        return F.linear(module(self._said(ids), there)[:, -1], targets, bias)

    def towers(self) -> Towers:
        """With vectors of ``width`` numbers in the place of coordinates."""
        module: Any = self._begun
        return Towers.of(module.user, *module.outputs(self._rows, torch.arange(len(self.text))))

    def _said(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self._rows)

    def with_items(self, vectors: ItemVectors) -> Self:
        """A model that knows more items, numbered after those that it has: by vectors of the same encoder."""
        learnt = dict(self._begun.state_dict())
        settings = {name: getattr(self, name) for name in self.SETTINGS}
        model = type(self)(self.text.also(vectors), central=self._central, **settings)
        model.begin(len(model.text), seed=0)
        if self.popular:
            bias = learnt["popularity"]
            learnt["popularity"] = torch.cat([bias, bias.mean().expand(len(vectors))])
        model._begun.load_state_dict(learnt)
        return model

    def state(self) -> ModelState:
        state, text = super().state(), self.text
        arrays = {"rows": text.rows, "centre": text.centre, "axes": text.axes}
        return ModelState({**state.settings, "encoder": text.encoder}, {**state.arrays, **arrays})

    @classmethod
    def from_state(cls, state: ModelState) -> Self:
        settings, arrays = dict(state.settings), state.arrays
        text = Coordinates(arrays["rows"], arrays["centre"], arrays["axes"], str(settings.pop("encoder")))
        return super().from_state(ModelState(settings | {"text": text}, arrays))


class TwoTower(OverText):
    """
    >>> import numpy as np
    >>> from recsys.data.synthetic import population
    >>> vectors = ItemVectors(np.random.default_rng(0).standard_normal((100, 8), np.float32), "an encoder")
    >>> model = TwoTower(Coordinates.of(vectors, 4), width=4, recent=20, central=Local(epochs=1, batch=64, rate=0.01))
    >>> model.fit(population(users=50, items=100))
    >>> model.scores([np.array([3, 1], np.int32), np.array([], np.int32)]).shape
    (2, 100)
    """

    def _user(self) -> nn.Module:
        return _Pooled(self.width, self.dropout)


class SasRecOverText(OverText):
    """With ``blocks`` of attention, of so many ``heads``; the rest as in ``TwoTower``."""

    SETTINGS = (*OverText.SETTINGS, "blocks", "heads")

    def __init__(
        self,
        text: Coordinates,
        width: int = 32,
        *,
        blocks: int = 2,
        heads: int = 1,
        recent: int = 50,
        negatives: int = 500,
        dropout: float = 0.4,
        popular: bool = True,
        central: Local = CENTRAL,
    ) -> None:
        super().__init__(
            text, width, recent=recent, negatives=negatives, dropout=dropout, popular=popular, central=central
        )
        if not 1 <= blocks <= _MOST_BLOCKS or heads < 1 or width % heads:
            raise UsageError(f"there are 1 to {_MOST_BLOCKS} blocks, and width is a multiple of heads")
        self.blocks, self.heads = blocks, heads

    def _user(self) -> nn.Module:
        return Attention(self.width, self.recent, self.blocks, self.heads, self.dropout)


class _Towers(nn.Module):  # type: ignore[misc]  # torch goes untyped here
    def __init__(self, user: nn.Module, coordinates: int, width: int, popular: int) -> None:
        super().__init__()
        self.user, self.items = user, nn.Linear(coordinates, width, bias=False)
        self.liked = nn.Linear(coordinates, 1, bias=False)
        if popular:
            self.popularity = nn.Parameter(torch.zeros(popular))

    def forward(self, said: Tensor, there: Tensor) -> Tensor:
        """What each place knows, from itself and those before it."""
        return self.user(self.items(said), there)

    def outputs(self, said: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors and biases of items as what follows."""
        bias = self.liked(said).squeeze(-1)
        if hasattr(self, "popularity"):
            bias = bias + F.embedding(ids, self.popularity.unsqueeze(1)).squeeze(-1)
        return self.items(said), bias


class _Pooled(nn.Module):  # type: ignore[misc]
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.fading = nn.Parameter(torch.tensor([2.0]))  # of an item's weight .88 is left with each later one
        self.layers = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.dropout, self.norm = nn.Dropout(dropout), nn.LayerNorm(width)

    def forward(self, items: Tensor, there: Tensor) -> Tensor:
        """A faded mean over each place and those before it, and what the network makes of it."""
        numbers = torch.arange(items.shape[1])
        ages = numbers.unsqueeze(1) - numbers
        faded = (F.logsigmoid(self.fading) * ages.clamp(min=0)).exp()
        weights = faded * ((ages >= 0) & there.unsqueeze(1))
        pooled = weights @ self.dropout(items) / weights.sum(2, keepdim=True).clamp(min=1e-6)
        return self.norm(pooled + self.layers(pooled))
