"""Files of strangers: what is announced is compared with what is there, before anything is allocated or computed."""

from __future__ import annotations

import io
import json
import tomllib
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secagg.errors import DecodeError, UsageError
from secagg.foreign import as_declared, named_file, parse_array, parse_json, parse_toml

ARRAYS = [
    *(np.arange(3), np.array(5.0), np.zeros((0, 3)), np.array("a text"), np.array([True]), np.zeros((2, 1, 2), ">f4")),
    *(np.asfortranarray(np.arange(6).reshape(2, 3)), np.array(["a", "bc"]), np.array([1j]), np.array(b"x")),
]


def npy(array: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def announcing(shape: str, kind: str = "<f8", data: bytes = bytes(64)) -> bytes:
    """An array that says it is of that shape."""
    head = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': ({shape}), }}"
    head += " " * max(0, 117 - len(head)) + "\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode() + data


def peak(work: Callable[[], object]) -> int:
    """Bytes allocated at most."""
    tracemalloc.start()
    try:
        work()
    finally:
        _, found = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return found


def refused(work: Callable[[], object]) -> None:
    with pytest.raises(DecodeError) as error:
        work()
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 200


# Arrays


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype} {array.shape}")
def test_what_numpy_writes_is_read(array: np.ndarray[Any, Any]) -> None:
    found = parse_array(npy(array))
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert found.flags.f_contiguous == array.flags.f_contiguous
    assert found.flags.writeable
    np.testing.assert_array_equal(found, array)


ODD_ARRAYS = {
    "2^40 numbers": announcing("1099511627776,"),
    "2^70 numbers": announcing("1073741824, 1099511627776"),
    "a side too many": announcing("4,"),
    "a side too few": announcing("16,"),
    "65 dimensions": announcing("1," * 65, data=bytes(8)),
    "objects": announcing("8,", "|O8"),
    "bytes without names": announcing("8,", "|V8"),
    "no such kind": announcing("8,", "<f7"),
    "text of 10^9 characters": announcing("1,", "<U999999999"),
    "a date": announcing("8,", "<M8"),
    "cut short": announcing("8,")[:-1],
    "something after it": announcing("8,") + b"x",
    "another length of the head": announcing("8,").replace(b"\x76\x00", b"\x77\x00", 1),
    "version 3": announcing("8,").replace(b"\x01\x00", b"\x03\x00", 1),
    "an archive": b"PK\x03\x04" + npy(np.zeros(3)),
    "a pickle": b"\x80\x04]\x94.",
    "nothing": b"",
}


@pytest.mark.parametrize("what", ODD_ARRAYS)
def test_odd_arrays_are_refused(what: str) -> None:
    assert peak(lambda: refused(lambda: parse_array(ODD_ARRAYS[what]))) < 1 << 20


def test_control_numpy_believes_what_is_announced() -> None:
    """It asks for as much memory as it is told to, and for the rest later."""
    with pytest.raises(MemoryError):
        np.load(io.BytesIO(announcing("1099511627776,")))

    def load() -> None:
        with pytest.raises(ValueError, match="array data"):
            np.load(io.BytesIO(announcing("20000000,")))

    assert peak(load) > 100_000_000


# JSON


ODD_JSON = {
    "nesting": b"[" * 100_000,
    "nesting that is closed": b"[" * 500 + b"]" * 500,
    "objects in objects": b'{"a":' * 900 + b"1" + b"}" * 900,
    "10^400": b"1" + b"0" * 400,
    "10^5000": b"1" + b"0" * 5000,
    "2^63": b"9223372036854775808",
    "1e999": b"-1e999",
    "NaN": b"NaN",
    "Infinity": b"[Infinity]",
    "half of a surrogate pair": b'{"a": "\\ud800"}',
    "half of one in a name": b'{"\\udfff": 1}',
    "half of one in UTF-8": b'"\xed\xa0\x80"',
    "a long name": b'{"' + b"a" * 201 + b'": 1}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf1",
    "NUL": b'"\x00"',
    "a name twice": b'{"a": 1, "b": {}, "a": 1}',
    "a name twice within": b'[{"a": {"b": 1, "b": 2}}]',
    "two values": b"1 2",
    "nothing": b"",
}


@pytest.mark.parametrize("what", ODD_JSON)
def test_odd_json_is_refused(what: str) -> None:
    refused(lambda: parse_json(ODD_JSON[what]))


def test_control_the_parser_lets_these_in() -> None:
    for what in ("nesting that is closed", "10^400", "1e999", "NaN", "half of a surrogate pair", "UTF-16"):
        json.loads(ODD_JSON[what])
    with pytest.raises(RecursionError):
        json.loads(ODD_JSON["nesting"])


def test_json() -> None:
    value = {"a": [1, -2.5, None, True, "\x00 \U0001f600"], "b": {"c": 9223372036854775807}}
    assert parse_json(json.dumps(value).encode()) == value
    assert parse_json(b"[" * 32 + b"]" * 32) is not None


class Color(StrEnum):
    RED = "red"


@dataclass(frozen=True)
class Thing:
    name: str
    size: float
    inner: tuple[int, ...] = ()
    pair: tuple[int, int] | None = None
    more: Mapping[str, float] = ()  # type: ignore[assignment]
    other: Any = None

    def __post_init__(self) -> None:
        if self.size < 0:
            raise UsageError("sizes are not below zero")


def test_types_are_those_that_are_declared() -> None:
    whole = {"name": "a", "size": 1, "inner": [1, 2], "pair": [3, 4], "more": {"x": 0.5}, "other": [1, "2"]}
    assert as_declared(Thing, whole) == Thing("a", 1, (1, 2), (3, 4), {"x": 0.5}, [1, "2"])
    wrong: list[dict[str, Any]] = [
        *({"name": 1}, {"size": "1"}, {"size": True}, {"inner": 3}, {"inner": [1.5]}, {"inner": [True]}),
        *({"pair": [1]}, {"pair": [1, 2, 3]}, {"pair": 3}, {"more": {"x": "1"}}, {"more": []}, {"unknown": 1}),
        *({"size": -1}, {"name": None}),
    ]
    for change in wrong:
        refused(lambda change=change: as_declared(Thing, whole | change))
    refused(lambda: as_declared(Thing, {"name": "a"}))
    refused(lambda: as_declared(Thing, []))
    assert (as_declared(bytes, "0a"), as_declared(Fraction, "1/2"), as_declared(Color, "red")) == (
        b"\n",
        0.5,
        Color.RED,
    )
    for hint, text in ((bytes, "0A"), (bytes, "0"), (bytes, "x"), (Fraction, "2/4"), (Color, "green"), (Color, 1)):
        refused(lambda hint=hint, text=text: as_declared(hint, text))


# TOML


ODD_TOML = {
    "a key of many parts": b"a." * 500_000 + b"a = 1",
    "parts in quotes": b'"\\"".' * 500_000 + b"a = 1",
    "parts in simple quotes": b"'a' . " * 33 + b"a = 1",
    "a table of many parts": b"[" + b"a." * 40 + b"a]",
    "arrays in arrays": b"a = " + b"[" * 100_000,
    "a number of digits": b"a = " + b"9" * 5000,
    "not UTF-8": b"a = '\xff'",
    "NUL": b"a = '\x00'",
}


@pytest.mark.parametrize("what", ODD_TOML)
def test_odd_toml_is_refused(what: str) -> None:
    refused(lambda: parse_toml(ODD_TOML[what]))


def test_toml() -> None:
    text = b'"a.b.c" = "1.2.3.4"\n[x.y]\nnumbers = [' + b"0.5, " * 100 + b"]\nwords = '''" + b"... " * 100 + b"'''\n"
    assert parse_toml(text) == tomllib.loads(text.decode())
    assert parse_toml(b"a." * 31 + b"a = 1") == tomllib.loads("a." * 31 + "a = 1")


def test_control_the_time_of_long_keys_grows_with_their_square(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in comparisons of parts: twice the parts take four times as many."""

    class Part(str):
        compared = 0
        __slots__ = ()

        def __hash__(self) -> int:
            Part.compared += 1
            return super().__hash__()

    counts = []
    for parts in (200, 400):
        Part.compared = 0
        with monkeypatch.context() as patch:
            parse_part = tomllib._parser.parse_key_part  # type: ignore[attr-defined]

            def counting(src: str, pos: int, parse: Any = parse_part) -> tuple[int, str]:
                pos, part = parse(src, pos)
                return pos, Part(part)

            patch.setattr("tomllib._parser.parse_key_part", counting)
            tomllib.loads("a." * parts + "a = 1")
        counts.append(Part.compared)
    assert counts[1] > 3.5 * counts[0]


# Files


def test_a_file_that_is_too_long(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert named_file(path, most=5) == b"12345"
    with pytest.raises(UsageError, match="longer than 4 bytes"):
        named_file(path, most=4)
    path.unlink()
    for one in (path, tmp_path, tmp_path / "a\0b"):
        with pytest.raises(UsageError, match="cannot read"):
            named_file(one, most=5)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="this system has no endless file")
def test_an_endless_file() -> None:
    with pytest.raises(UsageError, match="longer"):
        named_file(Path("/dev/zero"), most=1000)
