"""The canonical codec: what it accepts re-encodes to the same bytes, what it refuses it refuses before allocating."""

import math
import struct as layout
import tracemalloc
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.codec import (
    Codec,
    Once,
    Reader,
    blob,
    boolean,
    enumeration,
    fixed,
    many,
    optional,
    packed,
    positive,
    rational,
    struct,
    table,
    text,
    u8,
    u16,
    u32,
    u64,
    view,
)
from secagg.errors import DecodeError, UsageError


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Point:
    name: str
    colour: Colour
    at: tuple[int, ...]
    exact: bool
    share: Fraction
    size: float
    tail: bytes

    def __post_init__(self) -> None:
        if self.name == "nobody":
            raise UsageError("nobody is not a name")


POINT = struct(
    Point,
    name=text(20),
    colour=enumeration(Colour),
    at=many(u32, 5),
    exact=boolean,
    share=rational,
    size=positive,
    tail=fixed(2),
)


@dataclass(frozen=True)
class Row:
    number: int
    key: bytes
    tail: bytes


ROW = struct(Row, number=u16, key=fixed(3), tail=fixed(2))
A_ROW = Row(7, b"key", b"in")
A_POINT = Point("alice", Colour.BLUE, (1, 2**32 - 1), True, Fraction(1, 3), 0.5, b"ab")

naturals = st.integers(0, 2**64 - 1)
finite = st.floats(min_value=0, exclude_min=True, allow_infinity=False)
ratios = st.builds(Fraction, naturals, st.integers(1, 2**64 - 1))
rows = st.builds(Row, st.integers(0, 2**16 - 1), st.binary(min_size=3, max_size=3), st.binary(min_size=2, max_size=2))
CASES: list[tuple[str, Codec[Any], st.SearchStrategy[Any]]] = [
    ("u8", u8, st.integers(0, 255)),
    ("u16", u16, st.integers(0, 2**16 - 1)),
    ("u32", u32, st.integers(0, 2**32 - 1)),
    ("u64", u64, naturals),
    ("boolean", boolean, st.booleans()),
    ("positive", positive, finite),
    ("rational", rational, ratios),
    ("fixed", fixed(7), st.binary(min_size=7, max_size=7)),
    ("blob", blob(9), st.binary(max_size=9)),
    ("long blob", blob(1 << 32), st.binary(max_size=40)),
    ("view", view(9), st.binary(max_size=9)),
    ("text", text(40), st.text(st.characters(codec="utf-8"), max_size=10)),
    ("enumeration", enumeration(Colour), st.sampled_from(Colour)),
    ("many", many(blob(3), 6), st.lists(st.binary(max_size=3), max_size=6).map(tuple)),
    ("rows", many(ROW, 6), st.lists(rows, max_size=6).map(tuple)),
    ("table", table(ROW, 6), st.lists(rows, max_size=6).map(tuple)),
    (
        "struct",
        POINT,
        st.builds(
            Point,
            st.text("abc", max_size=20),
            st.sampled_from(Colour),
            st.lists(st.integers(0, 2**32 - 1), max_size=5).map(tuple),
            st.booleans(),
            ratios,
            finite,
            st.binary(min_size=2, max_size=2),
        ),
    ),
]
every_codec = pytest.mark.parametrize(
    ("codec", "values"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)


@every_codec
@given(data=st.data())
def test_decoding_undoes_encoding(codec: Codec[Any], values: st.SearchStrategy[Any], data: st.DataObject) -> None:
    value = data.draw(values)
    encoded = codec.encode(value)
    assert len(encoded) >= codec.least
    for form in (encoded, memoryview(encoded)):
        decoded = codec.decode(form)
        assert decoded == value
        assert codec.encode(decoded) == encoded


@every_codec
@given(data=st.data())
def test_every_truncation_and_every_tail_is_refused(
    codec: Codec[Any], values: st.SearchStrategy[Any], data: st.DataObject
) -> None:
    encoded = codec.encode(data.draw(values))
    for cut in range(len(encoded)):
        with pytest.raises(DecodeError):
            codec.decode(encoded[:cut])
    with pytest.raises(DecodeError, match="trailing"):
        codec.decode(encoded + b"\0")


@every_codec
@given(data=st.data(), junk=st.binary(max_size=60))
@pytest.mark.thinned(2)
def test_what_is_accepted_is_canonical(
    codec: Codec[Any], values: st.SearchStrategy[Any], data: st.DataObject, junk: bytes
) -> None:
    with suppress(DecodeError):
        assert codec.encode(codec.decode(junk)) == junk
    encoded = bytearray(codec.encode(data.draw(values)))
    if encoded:
        encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    with suppress(DecodeError):
        assert codec.encode(codec.decode(bytes(encoded))) == encoded


def test_numbers_are_big_endian_and_of_fixed_width() -> None:
    assert [codec.encode(258 % (1 << 8 * codec.least)).hex() for codec in (u8, u16, u32, u64)] == [
        "02", "0102", "00000102", "0000000000000102",
    ]  # fmt: skip


@pytest.mark.parametrize("byte", [2, 3, 128, 255])
def test_a_boolean_is_zero_or_one(byte: int) -> None:
    with pytest.raises(DecodeError, match="boolean"):
        boolean.decode(bytes([byte]))


@pytest.mark.parametrize("value", [0.0, -0.0, -1.0, -5e-324, math.nan, -math.nan, math.inf, -math.inf])
def test_a_positive_number_is_finite_and_above_zero(value: float) -> None:
    with pytest.raises(DecodeError, match="positive"):
        positive.decode(layout.pack(">d", value))


def test_signalling_and_odd_nans_are_refused() -> None:
    for bits in (0x7FF0000000000001, 0x7FFFFFFFFFFFFFFF, 0xFFF8000000000000, 0xFFFFFFFFFFFFFFFF):
        with pytest.raises(DecodeError):
            positive.decode(bits.to_bytes(8, "big"))


@pytest.mark.parametrize("terms", [(2, 4), (0, 2), (0, 0), (1, 0), (5, 5), (2**63, 2**63)])
def test_a_rational_is_reduced(terms: tuple[int, int]) -> None:
    with pytest.raises(DecodeError, match="reduced"):
        rational.decode(layout.pack(">QQ", *terms))


@pytest.mark.parametrize("raw", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"ab\xe2\x82"])
def test_text_is_strict_utf8(raw: bytes) -> None:
    with pytest.raises(DecodeError, match="UTF-8"):
        text(20).decode(u32.encode(len(raw)) + raw)


@pytest.mark.parametrize("name", ["", "RED", "green", "red "])
def test_an_unknown_word_is_refused(name: str) -> None:
    with pytest.raises(DecodeError, match="unknown colour"):
        enumeration(Colour).decode(text(64).encode(name))


def test_what_a_class_refuses_is_undecodable() -> None:
    encoded = POINT.encode(A_POINT).replace(text(20).encode("alice"), text(20).encode("nobody"))
    with pytest.raises(DecodeError, match="invalid Point: nobody"):
        POINT.decode(encoded)


@pytest.mark.parametrize(
    ("codec", "announced", "reason"),
    [
        (blob(10), u32.encode(11), "announced"),
        (blob(2**32 - 1), u32.encode(2**32 - 1), "wanted"),
        (blob(2**40), u64.encode(2**40), "wanted"),
        (blob(2**40), u64.encode(2**64 - 1), "announced"),
        (text(2**31), u32.encode(2**31), "wanted"),
        (view(2**31), u32.encode(2**31), "wanted"),
        (view(10), u32.encode(2**31), "announced"),
        (many(u8, 2**32 - 1), u32.encode(2**32 - 1), "announced"),
        (many(u64, 10_000_000), u32.encode(10_000_000), "announced"),
        (many(fixed(5), 5), u32.encode(6), "announced"),
        (table(ROW, 5), u32.encode(6), "announced"),
        (table(ROW, 2**32 - 1), u32.encode(2**31), "announced"),
        (many(many(u8, 9), 2**32 - 1), u32.encode(2**31), "announced"),
    ],
)
def test_announced_sizes_are_refused_before_anything_is_allocated(
    codec: Codec[Any], announced: bytes, reason: str
) -> None:
    data = announced + bytes(30)
    tracemalloc.start()
    with pytest.raises(DecodeError, match=reason):
        codec.decode(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000


@pytest.mark.parametrize(
    ("codec", "value"),
    [
        (fixed(4), b"abc"),
        (fixed(4), b"abcde"),
        (blob(3), b"abcd"),
        (view(3), b"abcd"),
        (text(3), "äö"),
        (many(u8, 2), (1, 2, 3)),
        (many(ROW, 2), (A_ROW, A_ROW, A_ROW)),
        (table(ROW, 2), (A_ROW, A_ROW, A_ROW)),
        (table(ROW, 2), table(ROW, 3).decode(table(ROW, 3).encode((A_ROW, A_ROW, A_ROW)))),
        (table(ROW, 2), (replace(A_ROW, key=b"kkk2"), replace(A_ROW, key=b"kk"))),
        (many(ROW, 2), (A_ROW, replace(A_ROW, key=b"kk"))),
        (many(ROW, 2), (replace(A_ROW, key=b"kkk2"), replace(A_ROW, key=b"kk"))),
        (many(ROW, 2), (A_ROW, replace(A_ROW, number=1 << 16))),
        (ROW, replace(A_ROW, tail=b"")),
    ],
)
def test_what_could_not_be_read_is_not_written(codec: Codec[Any], value: object) -> None:
    with pytest.raises(UsageError):
        codec.encode(value)


@pytest.mark.parametrize(("item", "values"), [(ROW, (A_ROW, replace(A_ROW, number=8))), (text(9), ("alice", ""))])
def test_what_was_written_once_is_written_the_same(item: Codec[Any], values: tuple[Any, ...]) -> None:
    """Also where the items have a length of their own, and where another codec is asked to write them."""
    once, named = Once(item, values), Once(item, {"first": values[0], "last": values[1]})
    for keys in ([], [0], [1, 0], [1, 1, 0]):
        some = tuple(values[key] for key in keys)
        assert once.some(keys) == named.some([("first", "last")[key] for key in keys]) == some
        for most in (3, 1 << 20):
            assert many(item, most).encode(once.some(keys)) == many(item, most).encode(some)
    with pytest.raises(UsageError, match="at most 2"):
        many(item, 2).encode(once.some([0, 0, 1]))
    other = optional(item)
    assert many(other, 2).encode(once.some([0, 1])) == many(other, 2).encode(values)


def test_rows_are_a_sequence_of_what_they_hold() -> None:
    values = tuple(replace(A_ROW, number=number) for number in range(4))
    held = table(ROW, 4).decode(many(ROW, 4).encode(values))
    assert held == values == tuple(held)
    assert hash(held) == hash(values)
    assert (held[1], held[-1], held[1:3], len(held)) == (values[1], values[3], values[1:3], 4)
    assert held != values[:3]
    assert held != 4
    wider = struct(Row, number=u32, key=fixed(3), tail=fixed(2))
    for item in (ROW, wider):
        assert many(item, 4).encode(held) == many(item, 4).encode(values)
    with pytest.raises(UsageError, match="one size"):
        packed(text(9), ["alice"])


def test_rows_are_no_view_of_what_they_were_read_from() -> None:
    encoded = bytearray(table(ROW, 4).encode((A_ROW,)))
    held = table(ROW, 4).decode(memoryview(encoded))
    encoded[-1] ^= 1
    assert held == (A_ROW,)


def test_an_item_is_written_once() -> None:
    written = list[str]()

    def write(out: bytearray, value: str) -> None:
        written.append(value)
        text(9).write(out, value)

    item = replace(text(9), write=write)
    once = Once(item, ["alice", "bob"])
    for _ in range(3):
        many(item, 2).encode(once.some([0, 1]))
    assert written == ["alice", "bob"]


def test_a_view_is_no_copy_and_cannot_change() -> None:
    """Of bytes it is where they lie; whatever somebody could write to is copied, also behind a view that is not
    writable."""
    codec, value = view(1 << 20), bytes(range(256)) * 256
    encoded = codec.encode(value)
    tracemalloc.start()
    seen = codec.decode(encoded)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(seen, memoryview)
    assert seen.obj is encoded
    assert peak < 10_000
    for form in (lambda data: data, memoryview, lambda data: memoryview(data).toreadonly()):
        data = bytearray(encoded)
        seen = codec.decode(form(data))
        data[-1] ^= 1
        assert seen == value


def test_a_reader_takes_what_is_there_and_no_more() -> None:
    reader = Reader(b"abcdef")
    assert bytes(reader.take(4)) == b"abcd"
    assert reader.left == 2
    with pytest.raises(DecodeError, match="3 bytes wanted, 2 left"):
        reader.take(3)
    assert bytes(reader.take(2)) == b"ef"
    assert bytes(reader.take(0)) == b""


@pytest.mark.parametrize(
    ("codec", "value"),
    [(u8, 256), (u16, -1), (u32, 2**32), (u64, 2**64), (rational, Fraction(2**64)), (rational, Fraction(1, 2**64)),
     (rational, Fraction(-1))],
    ids=["u8", "u16", "u32", "u64", "numerator", "denominator", "sign"],
)  # fmt: skip
def test_a_number_beyond_its_field_is_wrong_use(codec: Codec[Any], value: object) -> None:
    with pytest.raises(UsageError, match="a value that its field does not hold"):
        codec.encode(value)
