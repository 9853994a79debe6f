"""A two-tower model over texts whose encoder is tuned by adapters in its last layers (``recsys.text.adapters``).

It is ``recsys.models.over_text.TwoTower``, whose items are coordinates of vectors of an encoder, and it begins as that
model over the frozen encoder: an adapter's change is zeros then. The vector that is trained, and travels, has the
adapters' factors and the towers' numbers. All else of the encoder is frozen, and what is below its last layers is
computed once (``recsys.text.layers``).

To encode all items that an example speaks of would take minutes for each step. So the loss is a sum of two:

    towers     that of ``TwoTower``, over all places and negatives, with the items as the round's encoder has them:
               their coordinates are computed once a round, and no gradient goes through them
    adapters   the same for the last few places and negatives, ``encoded`` in all, which go through the last layers.
               Each of the few negatives stands for as many as make up the towers' number of them

So an example costs the same for everybody, and says about the encoder as much as ``encoded`` texts can say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Adam

from dp.training import Settings
from recsys.data.interactions import History, Interactions
from recsys.data.items import Items
from recsys.models.draws import Draws
from recsys.models.neural import Towers, alone, trained
from recsys.models.over_text import CENTRAL, OverText, TwoTower
from recsys.models.recommender import Local
from recsys.models.store import ModelState
from recsys.text.adapters import Adapted, Adapter, drawn, write_adapter
from recsys.text.coordinates import COORDINATES, Coordinates
from recsys.text.vectors import ItemVectors
from secagg.errors import UsageError

if TYPE_CHECKING:
    from recsys.text.layers import LayeredVectors

_MOST_TABLES, _MOST_AT_ONCE = 2, 16
_MOST_RANK, _MOST_ENCODED, _MOST_MAPS = 256, 64, 3 * 48
TARGETS = ("q", "v")


class TunedEncoder(TwoTower):
    """
    vectors: all items, with what it takes to tune their encoder; None for a model that only gives scores.
    adapter: ffa-lora, fed-sb, or lora, whose sums are not the clients' mean.
    rank, alpha: of each change, and what it is multiplied with is alpha / rank.
    targets: the maps of each layer's attention that are adapted, of q, k and v.
    encoded: how many items of an example go through the encoder: half of them, and one more, the last of the history,
    and the others negatives.
    The rest is as in ``TwoTower``.
    """

    SETTINGS = (*OverText.SETTINGS, "adapter", "rank", "alpha", "targets", "encoded")

    def __init__(
        self,
        text: Coordinates,
        vectors: LayeredVectors | None = None,
        width: int = 32,
        *,
        adapter: str = Adapter.FFA_LORA,
        rank: int = 8,
        alpha: float = 16.0,
        targets: Sequence[str] = TARGETS,
        encoded: int = 8,
        recent: int = 50,
        negatives: int = 500,
        dropout: float = 0.4,
        popular: bool = True,
        central: Local = CENTRAL,
        places: Sequence[Sequence[Any]] = (),
    ) -> None:
        super().__init__(
            text, width, recent=recent, negatives=negatives, dropout=dropout, popular=popular, central=central
        )
        if adapter not in list(Adapter):
            raise UsageError(f"adapter is one of {', '.join(Adapter)}")
        if not (1 <= rank <= _MOST_RANK and 0 < alpha <= 1000):
            raise UsageError(f"rank is from 1 to {_MOST_RANK}, and alpha above 0 and at most 1000")
        if not (targets and set(targets) <= {"q", "k", "v"} and len(set(targets)) == len(targets)):
            raise UsageError("targets are some of q, k and v")
        if not 3 <= encoded <= _MOST_ENCODED or encoded // 2 > recent or encoded // 2 > negatives:
            raise UsageError(f"encoded is from 3 to {_MOST_ENCODED}, and half of it at most recent, and negatives")
        if len(places) > _MOST_MAPS:
            raise UsageError(f"at most {_MOST_MAPS} maps are adapted")
        self.adapter, self.rank, self.alpha, self.encoded = str(adapter), rank, float(alpha), encoded
        self.targets = list(targets)
        self._layered, self._seed = vectors, 0
        self._centre, self._axes = torch.from_numpy(text.centre.copy()), torch.from_numpy(text.axes.copy())
        self._tables: dict[bytes, Tensor] = {}  # of all copies of this model
        self.places = [list(one) for one in places] or self._found_places()
        """Of each adapted map its name in the encoder, and how many numbers it takes and gives."""

    @classmethod
    def configured(
        cls, settings: Mapping[str, Any], items: Items | None = None, vectors: ItemVectors | None = None
    ) -> Self:
        """From TOML: arguments of the constructor, and how many ``coordinates`` items have; ``layers`` and ``tokens``
        have made the vectors."""
        known = {*signature(cls).parameters, "coordinates", "layers", "tokens"} - {
            "text",
            "central",
            "vectors",
            "places",
        }
        if strange := settings.keys() - known:
            raise UsageError(f"model.settings are {', '.join(sorted(known))}, and not {min(strange)[:40]!r}")
        given = {name: value for name, value in settings.items() if name not in ("layers", "tokens")}
        text = Coordinates.of(_layered(vectors), given.pop("coordinates", COORDINATES))
        return cls(text, _layered(vectors), **given)

    @property
    def caution(self) -> str:
        """What people should know of sums of this model's changes."""
        return Adapter(self.adapter).caution

    @property
    def adapted(self) -> list[Adapted]:
        """The adapters, in the order of ``places``."""
        return _adapted(self._begun)

    def begin(self, item_count: int, seed: int) -> None:
        super().begin(item_count, seed)
        drawn(self.adapted, seed)

    def with_vector(self, vector: NDArray[np.float32]) -> Self:
        model = super().with_vector(vector)
        if self._layered is None and _factors(model.adapted) != _factors(self.adapted):
            raise UsageError("a model from a file has items as its adapters made them: other adapters need the encoder")
        return model

    def train(self, histories: Sequence[History], local: Local, seed: int) -> None:
        self._encode()
        super().train(histories, local, seed)

    def changes(self, histories: Sequence[History], local: Local, seed: int) -> Iterator[NDArray[np.float64]]:
        self._encode()
        return super().changes(histories, local, seed)

    def fit(self, train: Interactions, seed: int = 0) -> None:
        """With the items encoded anew before each epoch."""
        self.begin(train.item_count, seed)
        optimizer = Adam(trained(self._begun), lr=self._central.rate)
        for epoch in range(self._central.epochs):
            self._encode()
            self._descend(list(train.histories()), optimizer, replace(self._central, epochs=1), seed + epoch)

    def train_privately(self, histories: Sequence[History], settings: Settings, *args: Any, **how: Any) -> Settings:
        self._encode()
        return super().train_privately(
            histories, replace(settings, physical_batch=min(settings.physical_batch, _MOST_AT_ONCE)), *args, **how
        )

    def scores(self, histories: Sequence[History]) -> NDArray[np.float32]:
        self._encode()
        return super().scores(histories)

    def towers(self) -> Towers:
        self._encode()
        return super().towers()

    def with_items(self, vectors: ItemVectors) -> Self:
        """A model that knows more items, and gives scores: by their ``layered_vectors``, with as many layers and
        tokens. What is frozen of the encoder is not in a model's file, and comes with them."""
        self._encode()
        layered = _layered(vectors)
        if layered.encoder != self.text.encoder:
            raise UsageError("these are vectors of another encoder than the one whose last layers the model has tuned")
        if layered.top.names(tuple(self.targets)) != [name for name, *_ in self.places]:
            raise UsageError("these are vectors by another number of last layers than the model has tuned")
        top = self._top(layered)
        _copy(self.adapted, _adapted(top))
        rows = np.concatenate([self._rows.numpy(), self._coordinates(top, layered)])
        settings = {name: getattr(self, name) for name in self.SETTINGS}
        model = type(self)(replace(self.text, rows=rows), central=self._central, places=self.places, **settings)
        model.begin(len(rows), seed=0)
        learnt = {name: one for name, one in self._begun.state_dict().items() if not name.startswith("top.")}
        if self.popular:
            bias = learnt["popularity"]
            learnt["popularity"] = torch.cat([bias, bias.mean().expand(len(vectors))])
        model._begun.load_state_dict(learnt, strict=False)
        _copy(self.adapted, model.adapted)
        return model

    def named(self) -> dict[str, NDArray[np.float32]]:
        """The parts of the vector by their names, for runtimes that carry named arrays."""
        parts = [(name, one) for name, one in self._begun.named_parameters() if one.requires_grad]
        return {name: one.detach().numpy().copy() for name, one in parts}

    def with_named(self, arrays: Mapping[str, NDArray[np.float32]]) -> Self:
        """Another model with these parts; ``UsageError`` if they are not those of this one."""
        own = self.named()
        if {name: one.shape for name, one in own.items()} != {name: one.shape for name, one in arrays.items()}:
            raise UsageError("the arrays are of another model, or of adapters of another rank")
        return self.with_vector(np.concatenate([np.float32(arrays[name]).ravel() for name in own]))

    def write_adapter(self, folder: str | Path) -> None:
        """The trained adapters as two files in a directory, in the format of PEFT (``PeftModel.from_pretrained``)."""
        write_adapter(Path(folder), dict(zip([name for name, *_ in self.places], self.adapted, strict=True)))

    def state(self) -> ModelState:
        self._encode()
        state = super().state()
        frozen = [one.detach().flatten() for one in self._frozen]
        return ModelState(
            {**state.settings, "places": self.places},
            {**state.arrays, "rows": self._rows.numpy(), "frozen": torch.cat([*frozen, torch.zeros(0)]).numpy()},
        )

    @classmethod
    def from_state(cls, state: ModelState) -> Self:
        model = super().from_state(state)
        frozen = torch.from_numpy(state.arrays["frozen"].copy())
        with torch.no_grad():
            for part, numbers in zip(model._frozen, frozen.split([one.numel() for one in model._frozen]), strict=True):
                part.copy_(numbers.view_as(part))
        return model

    @property
    def _frozen(self) -> list[nn.Parameter]:
        """Of the adapters what was drawn and is not trained."""
        parts = [part for one in self.adapted for part in (one.down, one.up)]
        return [part for part in parts if not part.requires_grad]

    def _examples(self, histories: Sequence[History], draws: Draws) -> tuple[NDArray[Any], ...]:
        """As in ``TwoTower``, and the items that go through the encoder."""
        seen, there, following, others = super()._examples(histories, draws)
        last = self.encoded // 2
        encoded = [seen[:, -last:][:, :1], following[:, -last:], others[:, : self.encoded - last - 1]]
        return seen, there, following, others, np.concatenate(encoded, axis=1)

    def _losses(self, module: Any, *examples: Tensor) -> Tensor:
        *towers, encoded = examples
        layered, last = _layered(self._layered), self.encoded // 2
        states, places = layered.states[encoded].float(), layered.there[encoded]
        vectors = module.top(states.flatten(0, 1), places.flatten(0, 1)).unflatten(0, encoded.shape)
        said = (vectors - self._centre) @ self._axes
        parts = said[:, :last], said[:, 1 : last + 1], said[:, last + 1 :]
        there, following, others = towers[1][:, -last:], encoded[:, 1 : last + 1], encoded[:, last + 1 :]
        each_for = towers[3].shape[1] / others.shape[1]
        return super()._losses(module, *towers) + self._foretold(module, parts, there, following, others, each_for)

    def _at_once(self) -> int:
        return min(_MOST_AT_ONCE, super()._at_once())

    def _build(self, item_count: int) -> nn.Module:
        module: Any = super()._build(item_count)
        module.top = self._top(self._layered)
        return module

    def _top(self, layered: LayeredVectors | None) -> nn.Module:
        how = (Adapter(self.adapter), self.rank, self.alpha)
        if layered is None:
            return nn.ModuleList(Adapted(None, inputs, outputs, *how) for _, inputs, outputs in self.places)
        return layered.top.adapted(tuple(self.targets), *how)

    def _found_places(self) -> list[list[Any]]:
        top = _layered(self._layered).top
        names, adapted = top.names(tuple(self.targets)), _adapted(self._top(self._layered))
        return [[name, one.down.shape[1], one.up.shape[0]] for name, one in zip(names, adapted, strict=True)]

    def _encode(self) -> None:
        """Bring the coordinates of all items up to date with the encoder."""
        if self._layered is None:
            return  # a model from a file, which has them
        name = sha256(_factors(self.adapted)).digest()
        if name not in self._tables:
            with alone(0):
                rows = self._coordinates(self._begun.top, self._layered)
            while len(self._tables) >= _MOST_TABLES:
                self._tables.pop(next(iter(self._tables)))
            self._tables[name] = torch.from_numpy(rows)
        self._rows = self._tables[name]

    def _coordinates(self, top: Any, layered: LayeredVectors) -> NDArray[np.float32]:
        from recsys.text.layers import vectors_by  # which loads the encoders' libraries

        rows = (vectors_by(top, layered.states, layered.there) - self.text.centre) @ self.text.axes
        return rows.astype(np.float32, copy=False)


def _layered(vectors: ItemVectors | None) -> LayeredVectors:
    if vectors is None or not hasattr(vectors, "states"):
        raise UsageError("this needs an encoder whose last layers are tuned: vectors of items by layered_vectors")
    return cast("LayeredVectors", vectors)


def _adapted(module: nn.Module) -> list[Adapted]:
    return [one for one in module.modules() if isinstance(one, Adapted)]


def _factors(adapted: Sequence[Adapted]) -> bytes:
    factors = (one for part in adapted for one in (part.down, part.up, part.between) if one is not None)
    return b"".join(one.detach().numpy().tobytes() for one in factors)


def _copy(adapted: Sequence[Adapted], to: Sequence[Adapted]) -> None:
    """The factors of these to others; what is frozen below them stays."""
    for one, other in zip(adapted, to, strict=True):
        factors = {name: part for name, part in one.state_dict().items() if not name.startswith("base.")}
        other.load_state_dict(factors, strict=False)
