"""A text encoder as it lies on a disk, in the layout of Hugging Face's libraries: one directory, and only data in it.

    config.json                  the architecture, bert (also MiniLM) or distilbert, and its sizes
    model.safetensors            the weights
    tokenizer.json               how a text becomes numbers
    modules.json                 optional, with 1_Pooling/config.json and sentence_bert_config.json: how one vector is
                                 made of those of all tokens, and of how many tokens, as sentence-transformers says it

The directory may be a stranger's. Nothing in it is executed, and nothing outside of it is read: weights in a pickle, a
configuration that names code of its own and links are refused, each in one line. Of the configuration only the
fields below are used, each within a bound. The files are read once: the digest is that of the bytes that are used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from os.path import lexists
from pathlib import Path
from typing import Any

from secagg.crypto import labels
from secagg.crypto.keys import digest
from secagg.errors import DecodeError, StorageError, UsageError
from secagg.files import read_file
from secagg.foreign import parse_json

CONFIG, WEIGHTS, TOKENIZER, MODULES = "config.json", "model.safetensors", "tokenizer.json", "modules.json"

_MOST_WEIGHTS, _MOST_TOKENIZER, _MOST_JSON = 1 << 32, 1 << 26, 1 << 20
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_MOST_TOKENS = 512
_POOLING = re.compile(r"[0-9]_Pooling")


class Layout(StrEnum):
    BERT = "bert"
    DISTILBERT = "distilbert"


class Pooling(StrEnum):
    """How one vector is made of those of all tokens."""

    MEAN = "mean"
    FIRST = "first"


_SIZES: Mapping[Layout, Mapping[str, int]] = {
    Layout.BERT: {
        "vocab_size": 1 << 20,
        "hidden_size": 1 << 12,
        "num_hidden_layers": 48,
        "num_attention_heads": 64,
        "intermediate_size": 1 << 14,
        "max_position_embeddings": 1 << 14,
        "type_vocab_size": 16,
    },
    Layout.DISTILBERT: {
        "vocab_size": 1 << 20,
        "dim": 1 << 12,
        "n_layers": 48,
        "n_heads": 64,
        "hidden_dim": 1 << 14,
        "max_position_embeddings": 1 << 14,
    },
}
"""Of each layout the fields that say how large it is, and the most that each may be."""

_ACTIVATION = {Layout.BERT: "hidden_act", Layout.DISTILBERT: "activation"}
_ACTIVATIONS = ("gelu", "gelu_new", "relu", "silu")
_FIXED = {"position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False}
"""What other models of the same name have otherwise."""


@dataclass(frozen=True, slots=True)
class Directory:
    """What was read of an encoder's directory."""

    path: Path
    layout: Layout
    settings: Mapping[str, Any]
    """of the configuration, by its names"""
    pooling: Pooling
    tokens: int
    """so many are looked at, of a longer text the first"""
    tokenizer: bytes = field(repr=False)
    weights: bytes = field(repr=False)

    @property
    def digest(self) -> bytes:
        """Of all that vectors follow from."""
        said = json.dumps([self.layout, self.settings, self.pooling, self.tokens], sort_keys=True).encode()
        return digest(labels.RUN_TEXT, b"encoder", said, self.tokenizer, self.weights)


def read_directory(path: str | Path) -> Directory:
    """``UsageError`` in one line if it is not an encoder of this kind, or asks for more than its data."""
    path = Path(path)
    if not path.is_dir():
        raise UsageError(f"{path} is no directory of a text encoder")
    config = _json(path, CONFIG)
    try:
        layout = Layout(config.get("model_type"))
    except ValueError:
        raise _unfit(path, CONFIG, f"model_type is {' or '.join(Layout)}: other architectures are not known") from None
    for name in (CONFIG, "tokenizer_config.json"):
        if "auto_map" in _json(path, name, optional=True):
            raise _unfit(path, name, "it names code of its own (auto_map), and none is executed")
    settings = _settings(path, layout, config)
    pooling, tokens = _pooled(path, min(settings["max_position_embeddings"], _MOST_TOKENS))
    return Directory(path, layout, settings, pooling, tokens, _tokenizer(path), _weights(path))


def _settings(path: Path, layout: Layout, config: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, most in _SIZES[layout].items():
        value = config.get(name)
        if type(value) is not int or not 1 <= value <= most:
            raise _unfit(path, CONFIG, f"{name} is a whole number from 1 to {most}")
        found[name] = value
    name = _ACTIVATION[layout]
    found[name] = config.get(name, "gelu")
    if found[name] not in _ACTIVATIONS:
        raise _unfit(path, CONFIG, f"{name} is one of {', '.join(_ACTIVATIONS)}")
    if layout is Layout.BERT:
        found["layer_norm_eps"] = config.get("layer_norm_eps", 1e-12)
        if type(found["layer_norm_eps"]) is not float or not 0 < found["layer_norm_eps"] < 1:
            raise _unfit(path, CONFIG, "layer_norm_eps is a number between 0 and 1")
    for name, only in _FIXED.items():
        if config.get(name, only) != only:
            raise _unfit(path, CONFIG, f"{name} is {json.dumps(only)}, if it is there")
    width, heads = list(found.values())[1], list(found.values())[3]
    if width % heads:
        raise _unfit(path, CONFIG, f"{heads} heads do not share {width} numbers evenly")
    return found


def _pooled(path: Path, most: int) -> tuple[Pooling, int]:
    """As sentence-transformers says it; else a mean over as many tokens as there are places for."""
    if not lexists(path / MODULES):
        return Pooling.MEAN, most
    modules = _json(path, MODULES, kind=list)
    pooling = Pooling.MEAN
    for module in modules:
        named = module if isinstance(module, dict) else {}
        kind, place = str(named.get("type")).rpartition(".")[2], named.get("path")
        if kind == "Pooling" and isinstance(place, str) and _POOLING.fullmatch(place):
            if (path / place).is_symlink():
                raise _unfit(path, place, "it is a link")
            modes = {name for name, on in _json(path, f"{place}/{CONFIG}").items() if on is True}
            modes = {name.removeprefix("pooling_mode_") for name in modes if name.startswith("pooling_mode_")}
            if modes not in ({"mean_tokens"}, {"cls_token"}):
                raise _unfit(path, f"{place}/{CONFIG}", "vectors are means over tokens, or that of the first")
            pooling = Pooling.MEAN if modes == {"mean_tokens"} else Pooling.FIRST
        elif not ((kind == "Transformer" and place == "") or kind == "Normalize"):
            raise _unfit(path, MODULES, "there is a part beside the transformer, its pooling and a normalisation")
    said = _json(path, "sentence_bert_config.json", optional=True)
    if said.get("do_lower_case"):
        raise _unfit(path, "sentence_bert_config.json", "do_lower_case is for the tokenizer to know")
    tokens = most if said.get("max_seq_length") is None else said["max_seq_length"]
    if type(tokens) is not int or tokens < 1:
        raise _unfit(path, "sentence_bert_config.json", "max_seq_length is a number of tokens")
    return pooling, min(tokens, most)


def _tokenizer(path: Path) -> bytes:
    if not (path / TOKENIZER).exists():
        raise UsageError(f"{path} has no {TOKENIZER}: without its tokenizer an encoder reads nothing")
    return _bytes(path, TOKENIZER, _MOST_TOKENIZER)


def _weights(path: Path) -> bytes:
    if not (path / WEIGHTS).exists():
        pickled = sorted(one.name for one in path.iterdir() if one.suffix in _PICKLED)
        if pickled:
            raise UsageError(
                f"{path} has its weights in {pickled[0]}, a pickle, which can execute anything: only {WEIGHTS} is read"
            )
        raise UsageError(f"{path} has no {WEIGHTS}: all weights are in that one file")
    return _bytes(path, WEIGHTS, _MOST_WEIGHTS)


def _json(path: Path, name: str, *, kind: type = dict, optional: bool = False) -> Any:
    if optional and not lexists(path / name):
        return kind()
    try:
        found = parse_json(_bytes(path, name, _MOST_JSON))
    except DecodeError as error:
        raise _unfit(path, name, str(error)) from None
    if not isinstance(found, kind):
        raise _unfit(path, name, f"it holds no {kind.__name__}")
    return found


def _bytes(path: Path, name: str, most: int) -> bytes:
    try:
        return read_file(path / name, most=most)
    except FileNotFoundError:
        raise UsageError(f"{path} has no {name}: it is no directory of a text encoder") from None
    except StorageError as error:
        raise UsageError(str(error)) from None


def _unfit(path: Path, name: str, why: str) -> UsageError:
    return UsageError(f"{path / name}: {why}")
