"""The tokenizer of an encoder, as tokenizer.json has it: how a text becomes numbers.

The library knows parts that a stranger could take all time or memory with: patterns that are tried in exponentially
many ways, replacements that double a text twenty times, long words that are tried at every place, templates that repeat
it. So only those parts are taken that tokenizers of BERT and MiniLM have, each within a bound, and of a text only the
first characters. What the library is handed is what was checked here, written anew: it reads nothing into the file
that this module has not.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recsys.text.directory import CONFIG, TOKENIZER, Directory
from secagg.errors import DecodeError, UsageError
from secagg.extras import needing
from secagg.foreign import parse_json

with needing("large", "a text encoder"):
    from tokenizers import Encoding
    from tokenizers import Tokenizer as Library

_MOST_CHARACTERS = 1 << 13
"""So many of a text are looked at, whatever it has in tokens."""
_MOST_WORD = 200
"""The most characters of a word that is taken apart."""
_MOST_RULES, _MOST_REPLACED = 1 << 12, 64
"""The most bytes of rules in JSON, and of what stands in the place of one character."""
_PARTS = {
    "normalizer": (
        *("BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Strip", "StripAccents"),
        *("Precompiled", "Replace"),
    ),
    "pre_tokenizer": ("BertPreTokenizer", "Whitespace", "WhitespaceSplit", "Metaspace", "Punctuation"),
    "post_processor": ("BertProcessing", "TemplateProcessing"),
    "model": ("WordPiece", "Unigram"),
}
_INNER = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers"}
"""Where a Sequence has its parts."""
_SPACES = {"Regex": " {2,}"}
"""The one pattern that is replaced."""


class Tokenizer:
    def __init__(self, found: Directory) -> None:
        """``UsageError`` if it is none of the tokenizers that are known, or not one for these weights."""
        self._where, self._tokens = found.path / TOKENIZER, found.tokens
        self._most = found.settings["vocab_size"]
        with self._refused("is not the file of a tokenizer"):
            self._library = Library.from_str(json.dumps(_checked(self._where, found.tokenizer)))
        if (count := self._library.get_vocab_size()) > self._most:
            raise UsageError(f"{self._where} has {count} tokens, and {CONFIG} says {self._most}")
        self._library.enable_truncation(found.tokens)
        self._library.enable_padding()

    def __call__(self, texts: Sequence[str]) -> tuple[list[list[int]], list[list[int]]]:
        """The numbers of each text's tokens, filled up to the same length, and which places hold a token (1)."""
        with self._refused("makes nothing of some text"):
            found: list[Encoding] = self._library.encode_batch([text[:_MOST_CHARACTERS] for text in texts])
        ids, there = [one.ids for one in found], [one.attention_mask for one in found]
        if not all(map(any, there)):
            raise UsageError(f"{self._where} makes no token of some text")
        if len(ids[0]) > self._tokens:
            raise UsageError(f"{self._where} makes more tokens of some text than the encoder looks at")
        if max(map(max, ids)) >= self._most:
            raise UsageError(f"{self._where} has tokens with numbers for which there are no weights")
        return ids, there

    @contextmanager
    def _refused(self, what: str) -> Iterator[None]:
        try:
            yield
        except UsageError:
            raise
        except BaseException as error:  # the library raises nothing narrower, and when it panics not even an Exception
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise UsageError(f"{self._where} {what}: {str(error)[:100]}") from None


def _checked(where: Path, data: bytes) -> dict[str, Any]:
    """What the file says, of parts that are known."""
    try:
        said = parse_json(data)
    except DecodeError as error:
        raise UsageError(f"{where} is not the file of a tokenizer: {error}") from None
    if not isinstance(said, dict) or not isinstance(model := said.get("model"), dict):
        raise UsageError(f"{where} is not the file of a tokenizer: it has no model")
    rules = {name: said.get(name) for name in _PARTS if name != "model"}
    maps = [one for one in _flat("normalizer", rules["normalizer"]) if one["type"] == "Precompiled"]
    for name, part in (*rules.items(), ("model", model)):
        for one in _flat(name, part):
            if one["type"] not in _PARTS[name]:
                raise UsageError(f"{where}: a {name} is one of {', '.join(_PARTS[name])}")
            if one["type"] == "Replace" and (one["pattern"] != _SPACES or len(one["content"]) > 1):
                raise UsageError(f"{where}: nothing is replaced but spaces in a row, and by one character")
    written = len(json.dumps([rules, {**model, "vocab": None}])) - sum(
        len(str(one.get("precompiled_charsmap"))) for one in maps
    )
    if written > _MOST_RULES or len(maps) > 1 or not all(map(_short, maps)):
        raise UsageError(f"{where}: its rules are longer, or make more of a text, than those of tokenizers are")
    if model["type"] == "WordPiece" and not 0 < model.get("max_input_chars_per_word", 100) <= _MOST_WORD:
        raise UsageError(f"{where}: max_input_chars_per_word is at most {_MOST_WORD}")
    return {**rules, "version": "1.0", "added_tokens": said.get("added_tokens", []), "model": model}


def _flat(name: str, part: Any) -> Iterator[dict[str, Any]]:
    """The parts of a part; ``KeyError`` if one does not say what it is."""
    if part is not None and part["type"] == "Sequence" and name in _INNER:
        for one in part[_INNER[name]]:
            yield from _flat(name, one)
    elif part is not None:
        yield part


def _short(charsmap: dict[str, Any]) -> bool:
    """Whether a map of characters has only short replacements: a trie after its length, and texts that end with 0."""
    held = b64decode(charsmap["precompiled_charsmap"])
    texts = held[4 + int.from_bytes(held[:4], "little") :].split(b"\0")
    return max(map(len, texts)) <= _MOST_REPLACED
