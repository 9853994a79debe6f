"""Files of tensors: one encoding of each, which others read; what is kept under a key is read under that key alone."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg import tensors
from secagg.errors import DecodeError, UsageError
from secagg.tensors import decode, encode
from tests.controls import switch_off
from tests.scenes.mutations import LONG, accepted, inputs, peak_of

KEY, OTHER = bytes(range(32)), bytes(32)
KINDS = ["F64", "F32", "F16", "I64", "I32", "U8", "BOOL"]
ARRAYS: dict[str, np.ndarray[Any, Any]] = {
    "b": np.array([True, False]),
    "a": np.arange(6.0, dtype=np.float32).reshape(2, 3),
    "e": np.zeros((0, 3)),
    "s": np.array(5.0),
    "h": np.array([0.5], np.float16),
    "i": np.array([[-1]], np.int64),
    "j": np.array([-1], np.int32),
    "u": np.array([255], np.uint8),
}
HEADER = {"version": 1, "text": "\u00e9\x00\U0001f600\n", "parts": [1, -2.5, None, True, {"a": []}]}


def whole(key: bytes | None = None) -> bytes:
    return b"".join(encode(HEADER, ARRAYS, key))


def refused(data: bytes, key: bytes | None = None) -> None:
    with pytest.raises(DecodeError) as error:
        decode(data, key)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "authenticated"])
def test_what_is_written_is_read(key: bytes | None) -> None:
    header, found = decode(whole(key), key)
    assert header == HEADER
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found[name], array)
        assert not found[name].flags.writeable
    assert decode(b"".join(encode({}, {}, key)), key) == ({}, {})


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "authenticated"])
def test_others_read_it(key: bytes | None) -> None:
    library = pytest.importorskip(
        "safetensors.numpy", reason="NOT TESTED: that safetensors reads it, which is not here"
    )
    found = library.load(whole(key))
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found[name], array)


def test_arrays_are_written_in_one_way_whatever_they_look_like_in_memory() -> None:
    """And without a copy where they look like that."""
    table = np.arange(12.0).reshape(3, 4)
    for other in (np.asfortranarray(table), table.astype(">f8"), np.repeat(table, 2, axis=1)[:, ::2]):
        assert b"".join(encode({}, {"a": other})) == b"".join(encode({}, {"a": table}))
    _, piece = encode({}, {"a": table}, KEY)
    assert np.shares_memory(np.frombuffer(piece, np.uint8), table)
    data = b"".join(encode({}, {"a": table}))
    assert np.shares_memory(decode(data)[1]["a"], np.frombuffer(data, np.uint8))


@pytest.mark.parametrize("kind", ["c16", "f2,f2", "S3", "U3", "O", "i2", "u4", "M8[s]"])
def test_other_kinds_are_not_written(kind: str) -> None:
    with pytest.raises(UsageError, match="is none of those that are kept"):
        encode({}, {"a": np.zeros(2, kind)})


def test_a_name_that_the_format_needs_is_not_an_arrays() -> None:
    with pytest.raises(UsageError):
        encode({}, {"__metadata__": np.zeros(2)})
    with pytest.raises(UsageError, match="no such tensor"):
        encode({}, {"a": np.zeros((1,) * 33)})
    encode({}, {"a": np.zeros((1,) * 32), "b": np.zeros((0, 1 << 20))})
    with pytest.raises(UsageError, match="no side beyond"):
        encode({}, {"a": np.zeros((0, 1 << 21))})
    with pytest.raises(ValueError, match="JSON compliant"):
        encode({"a": float("nan")}, {})


def test_a_header_that_others_would_not_read_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "MOST_HEAD", 200)
    encode({"a": "b" * 100}, {})
    with pytest.raises(UsageError, match="more than 200 bytes"):
        encode({"a": "b" * 200}, {})
    monkeypatch.undo()
    long = b"".join(encode({"a": "b" * 200}, {}))
    read = list[int]()
    parse = tensors.parse_json
    monkeypatch.setattr(tensors, "parse_json", lambda data: read.append(len(data)) or parse(data))  # type: ignore[func-returns-value]
    decode(long)
    assert len(read) == 2
    monkeypatch.setattr(tensors, "MOST_HEAD", 200)
    refused(long)
    assert len(read) == 2


# What others write, and nobody here


def file(head: str, data: bytes = b"") -> bytes:
    return len(head.encode()).to_bytes(8, "little") + head.encode() + data


def tensor(
    kind: str = "U8", shape: object = (1,), start: object = 0, end: object = 1, **more: object
) -> dict[str, Any]:
    return {"dtype": kind, "shape": shape, "data_offsets": [start, end], **more}


def said(metadata: object = None, **parts: object) -> str:
    metadata = {"header": "{}"} if metadata is None else metadata
    text = json.dumps({"__metadata__": metadata, **parts}, separators=(",", ":"))
    return text + " " * (-len(text) % 8)


PLAIN = said(a=tensor())
ODD = {
    "a side of 2^60": file(said(a=tensor(shape=[1 << 60], end=1 << 60)), b"x"),
    "sides whose product is beyond 64 bits": file(said(a=tensor(shape=[1 << 40, 1 << 40], end=1 << 80)), b"x"),
    "a number too many": file(PLAIN, b"xy"),
    "a number too few": file(PLAIN),
    "a gap": file(said(a=tensor(start=1, end=2)), b"xy"),
    "an overlap": file(said(a=tensor(), b=tensor()), b"x"),
    "another order": file(said(b=tensor(), a=tensor(start=1, end=2)), b"xy"),
    "wide ones later": file(said(a=tensor(), b=tensor("F64", (1,), 1, 9)), bytes(9)),
    "one name twice": file(PLAIN.rstrip().replace("}}", '},"a":' + json.dumps(tensor()) + "}"), b"x"),
    "two spaces in it": file(PLAIN.replace(",", ", ", 1), b"x"),
    "more spaces after it": file(PLAIN + " " * 8, b"x"),
    "an unknown field": file(said(a=tensor(more=1)), b"x"),
    "more metadata": file(said({"header": "{}", "more": ""}, a=tensor()), b"x"),
    "no metadata": file(json.dumps({"a": tensor()}, separators=(",", ":")), b"x"),
    "no header": file(said({}, a=tensor()), b"x"),
    "a header that is a list": file(said({"header": "[]"}, a=tensor()), b"x"),
    "a header that is no text": file(said({"header": {}}, a=tensor()), b"x"),
    "a header with spaces": file(said({"header": "{ }"}, a=tensor()), b"x"),
    "a header with a name twice": file(said({"header": '{"a": 1, "a": 1}'}, a=tensor()), b"x"),
    "nesting in the header": file(said({"header": '{"a": ' + "[" * 50 + "]" * 50 + "}"}, a=tensor()), b"x"),
    "a number that is not finite": file(said({"header": '{"a": Infinity}'}, a=tensor()), b"x"),
    "not a truth value": file(said(a=tensor("BOOL")), b"\x02"),
    "bfloat16": file(said(a=tensor("BF16", end=2)), b"xy"),
    "half bytes": file(said(a=tensor("F4", (2,))), b"x"),
    "a list for a kind": file(said(a=tensor(["U8"])), b"x"),  # type: ignore[arg-type]
    "a side that is what is left": file(said(a=tensor(shape=[-1], end=-1)), b"x"),
    "sides below zero": file(said(a=tensor(shape=[-1, -1])), b"x"),
    "a side that is a float": file(said(a=tensor(shape=[1.0])), b"x"),
    "a side that is true": file(said(a=tensor(shape=[True])), b"x"),
    "sides that are text": file(said(a=tensor(shape="1")), b"x"),
    "33 dimensions": file(said(a=tensor(shape=[1] * 33)), b"x"),
    "nothing, by 2^40": file(said(a=tensor(shape=[0, 1 << 40], end=0))),
    "a tensor that is none": file(said(a=1)),
    "a list": file("[]      "),
    "not JSON": file("{       "),
    "a head of 2^63 bytes": b"\xff" * 7 + b"\x7f" + PLAIN.encode(),
    "a head that is longer than the file": file(PLAIN)[:-1],
    "no head": bytes(8),
    "nothing": b"",
    "an archive": b"PK\x03\x04" + bytes(60),
    "an authenticated one": whole(KEY),
}


@pytest.mark.parametrize("what", ODD)
def test_odd_files_are_refused(what: str) -> None:
    assert decode(file(PLAIN, b"x")) == ({}, {"a": np.array([120], np.uint8)})  # the same without what is odd
    refused(ODD[what])
    assert peak_of(lambda: decode(ODD[what])) < 1 << 20


def test_control_others_take_some_of_these() -> None:
    library = pytest.importorskip("safetensors", reason="NOT TESTED: what safetensors reads, which is not here")
    for what in ("one name twice", "another order", "an unknown field", "more metadata", "not a truth value"):
        assert library.deserialize(ODD[what])


def test_cut_short_or_longer() -> None:
    data = whole()
    for place in range(len(data)):
        refused(data[:place])
    for after in (b"\0", b"{}", data):
        refused(data + after)


# Under a key


def test_whatever_is_altered_is_refused() -> None:
    """Each bit of the file, the MAC's included."""
    data = whole(KEY)
    for place in range(len(data)):
        altered = bytearray(data)
        altered[place] ^= 1 << (place % 8)
        refused(bytes(altered), KEY)
        refused(data[:place], KEY)
    refused(data + b"\0", KEY)
    refused(data.replace(b'"mac":"', b'"mac":"0'), KEY)


def test_a_mac_has_one_way_of_being_written() -> None:
    data = whole(KEY)
    place = tensors._MAC_PLACE
    assert data[place].decode() == data[place].decode().lower() != data[place].decode().upper()
    refused(data[: place.start] + data[place].upper() + data[place.stop :], KEY)


def test_another_key_and_none() -> None:
    refused(whole(KEY), OTHER)
    refused(whole(), KEY)
    refused(whole(KEY))


def test_control_without_the_comparison_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytearray(whole(KEY))
    data[-1] ^= 1
    switch_off(monkeypatch, tensors, "decode", "hmac.compare_digest(data[_MAC_PLACE], _mac(key, pieces))", "True")
    for key in (KEY, OTHER):
        assert tensors.decode(bytes(data), key)[0] == HEADER


def test_nothing_is_read_before_the_mac(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even what is no JSON is told from what is."""

    def read(data: bytes) -> None:
        raise AssertionError(data)

    monkeypatch.setattr(tensors, "parse_json", read)
    for data in (whole(OTHER), b"", b"\xff" * 500, *ODD.values()):
        refused(data, OTHER[:-1] + b"x")
    with pytest.raises(AssertionError):  # the control
        decode(whole(KEY), KEY)


@settings(max_examples=5_000 if LONG else 60)
@given(data=inputs(whole()))
def test_what_is_read_is_what_is_written(data: bytes) -> None:
    """Whatever is read has this one encoding, and safetensors reads the same in it."""
    if (found := accepted(lambda: decode(data), DecodeError)) is not None:
        assert b"".join(encode(*found)) == data
        library = pytest.importorskip("safetensors.numpy", reason="NOT TESTED: that safetensors reads it as well")
        others = library.load(data)
        assert {name: array.tobytes() for name, array in others.items()} == {
            name: array.tobytes() for name, array in found[1].items()
        }


NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SHAPES = st.lists(st.integers(0, 3), max_size=3).map(tuple)


@settings(max_examples=1_000 if LONG else 30)
@given(
    header=st.dictionaries(NAMES, st.none() | st.integers(-(2**63), 2**63 - 1) | NAMES | st.floats(-1e308, 1e308)),
    made=st.dictionaries(NAMES, st.tuples(st.sampled_from(KINDS), SHAPES), max_size=4),
    key=st.none() | st.just(KEY),
)
def test_anything_goes_there_and_back(header: dict[str, Any], made: dict[str, Any], key: bytes | None) -> None:
    arrays = {name: np.ones(shape, tensors._KINDS[kind]) for name, (kind, shape) in made.items()}
    again, found = decode(b"".join(encode(header, arrays, key)), key)
    assert again == header
    assert {name: (one.dtype, one.shape) for name, one in found.items()} == {
        name: (one.dtype, one.shape) for name, one in arrays.items()
    }
    assert all((one == 1).all() for one in found.values())
