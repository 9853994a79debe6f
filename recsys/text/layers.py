"""An encoder in two parts: what its lower layers make of each item's text, once, and its last layers, to be tuned.

The lower layers are frozen, so what they make of a text (the hidden state of each token) is computed once and kept as
vectors are (``recsys.text.vectors``). Texts are cut off after a few tokens: ``tokens`` times the encoder's width times
two bytes are kept for each item.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from recsys.data.items import Items
from recsys.text.directory import Layout, Pooling, read_directory
from recsys.text.vectors import ItemVectors, computed_once, text_of
from secagg.crypto import labels
from secagg.crypto.keys import digest
from secagg.errors import UsageError
from secagg.extras import needing

if TYPE_CHECKING:
    from recsys.text.encoder import Watch

with needing("large", "tuning a text encoder"):
    import torch
    from torch import Tensor, nn

    from recsys.text.adapters import Adapted, Adapter
    from recsys.text.encoder import Encoder, added_mask, pooled

LAYERS, TOKENS = 1, 24
"""How many of the last layers are tuned, and of how many tokens of a text, where nothing else is said."""

_AT_ONCE = 64
_PLACES = {
    Layout.BERT: ("encoder.layer.{}.attention.self", {"q": "query", "k": "key", "v": "value"}),
    Layout.DISTILBERT: ("transformer.layer.{}.attention", {"q": "q_lin", "k": "k_lin", "v": "v_lin"}),
}
"""Where attention is in a layer of so many, and what its maps are called."""

TARGETS = ("q", "k", "v")
"""The maps of a layer's attention that can be adapted."""


@dataclass(frozen=True, slots=True, eq=False)
class LayeredVectors(ItemVectors):
    """Vectors of items as the frozen encoder makes them, and what it takes to tune its last layers."""

    states: Tensor
    """the hidden state of each token of each item below the last layers, (items, tokens, width) float16"""
    there: Tensor
    """which places hold a token"""
    top: Top
    """the last layers, as they are frozen"""


class Top(nn.Module):  # type: ignore[misc]  # torch goes untyped here
    """The last layers of an encoder: from the hidden states below them to one vector of norm 1 for each text."""

    def __init__(self, layers: nn.ModuleList, first: int, layout: Layout, pooling: Pooling) -> None:
        super().__init__()
        self.layers, self.first, self.layout, self.pooling = layers, first, layout, pooling
        self.requires_grad_(False)

    def forward(self, states: Tensor, there: Tensor) -> Tensor:
        mask = added_mask(there)
        for layer in self.layers:
            states = layer(states, mask)
        return pooled(states, there, self.pooling)

    def adapted(self, targets: tuple[str, ...], adapter: Adapter, rank: int, alpha: float) -> Top:
        """A copy in which these maps of each layer have an adapter; all else is shared with this one."""
        copy = deepcopy(self, {id(one): one for one in self.parameters()})
        for name in copy.places(targets):
            where, _, last = name.rpartition(".")
            module = copy.get_submodule(where)
            base = getattr(module, last)
            setattr(module, last, Adapted(base, base.in_features, base.out_features, adapter, rank, alpha))
        return copy

    def places(self, targets: tuple[str, ...]) -> list[str]:
        """The names of these maps among the parts of this module."""
        return [f"layers.{name}" for _, name in self._named(targets)]

    def names(self, targets: tuple[str, ...]) -> list[str]:
        """The names that they have in the whole encoder."""
        return [name for name, _ in self._named(targets)]

    def _named(self, targets: tuple[str, ...]) -> list[tuple[str, str]]:
        where, called = _PLACES[self.layout]
        within = where.partition("{}.")[2]
        return [
            (f"{where.format(self.first + number)}.{called[target]}", f"{number}.{within}.{called[target]}")
            for number in range(len(self.layers))
            for target in TARGETS
            if target in targets
        ]


def layered_vectors(
    items: Items,
    encoder: str | Path,
    layers: int = LAYERS,
    tokens: int = TOKENS,
    watch: Watch = lambda done, all_of_them: None,
) -> LayeredVectors:
    """The items by the encoder in that directory, whose last ``layers`` are to be tuned, of ``tokens`` of each text."""
    texts = [text_of(items, item) for item in range(len(items))]
    found = read_directory(encoder)
    most = list(found.settings.values())[2]
    if not (type(layers) is int and 1 <= layers <= most):
        raise UsageError(f"layers is from 1 to {most}: so many has the encoder")
    if not (type(tokens) is int and 1 <= tokens <= found.tokens):
        raise UsageError(f"tokens is from 1 to {found.tokens}: so many the encoder looks at")
    found = replace(found, tokens=tokens)
    whole = Encoder(found)
    stack = whole.network.encoder.layer if found.layout is Layout.BERT else whole.network.transformer.layer
    top = Top(nn.ModuleList(stack[-layers:]), most - layers, found.layout, found.pooling).eval()
    ids, there = whole.tokens(texts)

    def compute() -> NDArray[np.float16]:
        states = np.zeros((*ids.shape, whole.network.config.hidden_size), np.float16)
        for first in range(0, len(ids), _AT_ONCE):
            some = slice(first, first + _AT_ONCE)
            with torch.no_grad():
                made = whole.network(
                    input_ids=ids[some], attention_mask=added_mask(there[some]), output_hidden_states=True
                )
            states[some] = made.hidden_states[-1 - layers].numpy()
            watch(min(first + _AT_ONCE, len(ids)), len(ids))
        if not np.isfinite(states).all():
            raise UsageError(f"{found.path}: the encoder makes no finite numbers of some text")
        return states

    def name(what: bytes) -> bytes:
        said = (text.encode() for text in texts)
        return digest(labels.RUN_TEXT, what, found.digest, layers.to_bytes(4, "big"), *said)

    states = torch.from_numpy(np.require(computed_once(name(b"states"), compute), requirements="W"))
    rows = computed_once(name(b"vectors of states"), lambda: vectors_by(top, states, there))
    return LayeredVectors(rows, found.digest.hex(), states, there, top)


def vectors_by(top: nn.Module, states: Tensor, there: Tensor) -> NDArray[np.float32]:
    """The vectors of all items by these last layers, without a gradient."""
    rows = list[Tensor]()
    with torch.no_grad():
        for first in range(0, len(states), _AT_ONCE):
            some = slice(first, first + _AT_ONCE)
            rows.append(top(states[some].float(), there[some]))
    vectors: NDArray[np.float32] = torch.cat(rows).numpy()
    return vectors
