"""A tokenizer is made of parts whose work is bounded; all others are refused in a line, and so is a library's panic."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tokenizers", reason="NOT TESTED: tokenizers are needed, pip install 'secagg[large]'")

from tokenizers import Tokenizer as Library

from recsys.text.directory import read_directory
from recsys.text.tokenizing import Tokenizer
from secagg.errors import UsageError
from tests.scenes.encoders import encoder, put

TEXTS = ["Alien (1979). Horror, Sci-Fi", "the war", "zzz  a  b"]
SPACES = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
DOUBLING = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
PATTERN = {"type": "Split", "pattern": {"Regex": "(a|a|aa)+$"}, "behavior": "Isolated", "invert": False}


def sequence(*parts: Any) -> Any:
    return {"type": "Sequence", "normalizers": list(parts)}


def charsmap(*texts: bytes, trie: bytes = b"") -> Any:
    held = len(trie).to_bytes(4, "little") + trie + b"".join(text + b"\0" for text in texts)
    return {"type": "Precompiled", "precompiled_charsmap": b64encode(held).decode()}


def template(*, ids: int = 1, repeated: int = 1) -> Any:
    text = {"Sequence": {"id": "A", "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, *[text] * repeated],
        "pair": [text, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2] * ids, "tokens": ["[CLS]"] * ids}},
    }


def with_parts(folder: Path, **parts: Any) -> Tokenizer:
    known = json.loads((encoder(folder) / "tokenizer.json").read_text())
    put(folder, "tokenizer.json", {**known, **parts, "model": {**known["model"], **parts.get("model", {})}})
    return Tokenizer(read_directory(folder))


def test_tokens_are_those_of_the_library(tmp_path: Path) -> None:
    made = Tokenizer(read_directory(encoder(tmp_path)))
    ids, there = made(TEXTS)
    library = Library.from_file(str(tmp_path / "tokenizer.json"))
    for text, some, places in zip(TEXTS, ids, there, strict=True):
        assert some[: sum(places)] == library.encode(text).ids


@pytest.mark.parametrize(
    "parts",
    [
        {"normalizer": sequence({"type": "NFKC"}, SPACES, {"type": "Lowercase"})},
        {"pre_tokenizer": {"type": "Metaspace", "replacement": "_", "prepend_scheme": "always", "split": True}},
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}]}},
        {"post_processor": template()},
        {"model": {"type": "Unigram", "unk_id": 0, "vocab": [["a", 0.0], ["type", -1.0]]}},
        {"padding": {"strategy": {"Fixed": 10**8}, "direction": "Left", "pad_to_multiple_of": 8, "pad_id": 9**9,
                     "pad_type_id": 7, "pad_token": "x"},
         "truncation": {"direction": "Left", "max_length": 1, "strategy": "OnlySecond", "stride": 0}},
    ],
)  # fmt: skip
def test_parts_that_are_taken(parts: Any, tmp_path: Path) -> None:
    ids, there = with_parts(tmp_path, **parts)(TEXTS)
    assert len(ids) == len(there) == len(TEXTS)
    assert len(ids[0]) <= 24


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"normalizer": DOUBLING}, "nothing is replaced but spaces in a row"),
        ({"normalizer": sequence(sequence(SPACES, DOUBLING))}, "nothing is replaced but spaces in a row"),
        ({"normalizer": {**SPACES, "content": "  "}}, "by one character"),
        ({"normalizer": {"type": "Prepend", "prepend": "a"}}, "a normalizer is one of"),
        ({"normalizer": {"prepend": "a"}}, "is not the file of a tokenizer"),  # the library guesses what it is
        ({"normalizer": sequence({"prepend": "a"})}, "is not the file of a tokenizer"),
        ({"normalizer": sequence(*[{"type": "Lowercase"}] * 300)}, "its rules are longer"),
        ({"normalizer": charsmap(b"a" * 65)}, "make more of a text"),
        ({"normalizer": sequence(charsmap(b"a"), charsmap(b"a"))}, "make more of a text"),
        ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "/////w=="}}, "is not the file of a tokenizer"),
        ({"pre_tokenizer": PATTERN}, "a pre_tokenizer is one of"),
        ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [PATTERN]}}, "a pre_tokenizer is one of"),
        ({"pre_tokenizer": {"type": "FixedLength", "length": 0}}, "a pre_tokenizer is one of"),
        ({"post_processor": {"type": "Sequence", "processors": []}}, "a post_processor is one of"),
        ({"post_processor": template(ids=1000)}, "its rules are longer"),
        ({"model": {"type": "BPE", "merges": [], "dropout": 0.5}}, "a model is one of WordPiece, Unigram"),
        ({"model": {"continuing_subword_prefix": "#" * 5000}}, "its rules are longer"),
        ({"model": {"max_input_chars_per_word": 201}}, "max_input_chars_per_word is at most 200"),
        ({"model": {"max_input_chars_per_word": None}}, "is not the file of a tokenizer"),
    ],
)  # fmt: skip
def test_parts_that_are_refused(parts: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        with_parts(tmp_path, **parts)


@pytest.mark.parametrize(
    "parts", [{"post_processor": template(ids=30)}, {"post_processor": template(repeated=3)}], ids=["ids", "repeated"]
)
def test_more_tokens_than_are_looked_at(parts: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="makes more tokens of some text than the encoder looks at"):
        with_parts(tmp_path, **parts)(["a " * 20])


def test_a_panic_of_the_library_is_a_line_and_a_stop_is_a_stop(tmp_path: Path, capfd: Any) -> None:
    made = with_parts(tmp_path, normalizer=charsmap(b"abc", trie=b"\xff" * 8))
    with pytest.raises(UsageError, match="makes nothing of some text: index out of bounds"):
        made(TEXTS)
    assert "panicked" in capfd.readouterr().err  # which the library writes by itself
    with pytest.raises(KeyboardInterrupt), made._refused("is stopped"):
        raise KeyboardInterrupt


def test_of_a_long_text_the_first_characters(tmp_path: Path) -> None:
    made = Tokenizer(read_directory(encoder(tmp_path)))
    assert made([" " * (1 << 13) + "alien"]) == made([""])
    assert made([" " * ((1 << 13) - 5) + "alien"]) == made(["alien"])
