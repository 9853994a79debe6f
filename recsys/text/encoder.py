"""A text encoder: a transformer that makes one vector of norm 1 of each text.

The network is that of transformers, with the weights that ``recsys.text.directory`` has read; dropout is 0 everywhere,
so it computes the same in training mode and outside of it. The tokenizer is that of ``recsys.text.tokenizing``.
Neither looks for anything in a cache or on a network: both are handed bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from recsys.text.directory import CONFIG, WEIGHTS, Directory, Layout, Pooling
from secagg.errors import UsageError
from secagg.extras import needing

with needing("large", "a text encoder"):
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load
    from torch import Tensor, nn
    from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel

    from recsys.text.tokenizing import Tokenizer

_AT_ONCE = 64
"""How many texts are encoded at once."""
_WITHOUT_DROPOUT = {
    Layout.BERT: {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    Layout.DISTILBERT: {"dropout": 0.0, "attention_dropout": 0.0},
}
_OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}

Watch = Callable[[int, int], None]
"""Is called with how many texts are done, and how many there are."""


class Encoder:
    def __init__(self, found: Directory) -> None:
        """``UsageError`` if weights and tokenizer are not those that the configuration speaks of."""
        self._found = found
        self._tokenizer = Tokenizer(found)
        self.network = _network(found)

    def __call__(self, texts: Sequence[str], watch: Watch = lambda done, all_of_them: None) -> NDArray[np.float32]:
        """A row for each text, of norm 1. Texts of like length are encoded together, a batch at a time."""
        order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
        rows = np.empty((len(texts), self.network.config.hidden_size), np.float32)
        for first in range(0, len(texts), _AT_ONCE):
            batch = order[first : first + _AT_ONCE]
            with torch.no_grad():
                rows[batch] = self.encoded(*self.tokens([texts[number] for number in batch])).numpy()
            watch(min(first + _AT_ONCE, len(texts)), len(texts))
        if not np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-3):  # nor is a number that is none
            raise UsageError(f"{self._found.path}: the encoder makes no vector of some text, but zeros or overflow")
        return rows

    def tokens(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """The numbers of each text's tokens, filled up to the same length, and which places hold a token."""
        tokens, there = self._tokenizer(texts)
        return torch.tensor(tokens), torch.tensor(there).bool()

    def encoded(self, tokens: Tensor, there: Tensor) -> Tensor:
        """One vector for each text. (Only a mask of four dimensions, which is added, goes through ``torch.vmap``.)"""
        places = self.network(input_ids=tokens, attention_mask=added_mask(there)).last_hidden_state
        return pooled(places, there, self._found.pooling)


def added_mask(there: Tensor) -> Tensor:
    """What is added to attention, so that nothing looks at places without a token."""
    return torch.zeros(there.shape).masked_fill(~there, torch.finfo(torch.float32).min)[:, None, None, :]


def pooled(places: Tensor, there: Tensor, pooling: Pooling) -> Tensor:
    """One vector of norm 1 for each text, from those of its tokens."""
    if pooling is Pooling.FIRST:
        found = places[:, 0]
    else:
        found = (places * there.unsqueeze(2)).sum(1) / there.sum(1, keepdim=True).clamp(min=1)
    return nn.functional.normalize(found, dim=1)


def _network(found: Directory) -> nn.Module:
    """With all its weights; what an encoder has no use for (a pooler, a head) stays out."""
    where = found.path / WEIGHTS
    try:
        weights = _named(load(found.weights), found.layout)
    except (SafetensorError, KeyError) as error:  # a KeyError: a type of numbers that torch has not
        raise UsageError(f"{where} is not a file of safetensors: {str(error)[:100]}") from None
    with torch.device("meta"):  # sizes without memory: a configuration may speak of more than is there
        wanted = _made(found).state_dict()
    for name, one in wanted.items():
        if name not in weights:
            raise UsageError(f"{where} has no weights called {name}, which {CONFIG} speaks of")
        if weights[name].shape != one.shape or not weights[name].is_floating_point():
            raise UsageError(f"{where}: {name} has another shape, or other numbers, than {CONFIG} says")
    with torch.random.fork_rng(devices=[]):  # it draws weights, which are thrown away
        network = _made(found)
    network.load_state_dict({name: weights[name].float() for name in wanted})
    return network.eval()


def _made(found: Directory) -> nn.Module:
    settings = {**found.settings, **_WITHOUT_DROPOUT[found.layout]}
    if found.layout is Layout.BERT:
        return BertModel(BertConfig(**settings), add_pooling_layer=False)
    return DistilBertModel(DistilBertConfig(**settings))


def _named(weights: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """By the names of the bare network: files of networks with a head have a prefix, old ones other names."""
    found: dict[str, Tensor] = {}
    for name, one in weights.items():
        bare = name.removeprefix(f"{layout}.")
        for old, new in _OLD_NAMES.items():
            bare = bare.replace(old, new)
        found[bare] = one
    return found
