"""The canonical encoding of plans (to be hashed), messages (to be sent) and journal records (to be kept).

A codec is declared once and works both ways, so writer and reader cannot disagree::

    ADVERT = struct(Advert, sender=u32, mask_key=fixed(32), ...)

Numbers are big-endian and of fixed width; variable parts carry a length that is checked against a bound and against
what is left before anything is allocated; trailing bytes, unknown values and non-canonical forms raise
``DecodeError``. Values that their own class refuses on construction are undecodable too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from enum import StrEnum
from fractions import Fraction
from functools import cached_property
from itertools import starmap
from operator import attrgetter
from struct import Struct
from struct import error as StructError
from typing import Any, Generic, TypeVar, cast, overload

from secagg.errors import DecodeError, UsageError

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)


class Reader:
    """A cursor over bytes that never reads past their end."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes | memoryview) -> None:
        self._data, self._at = memoryview(data), 0

    def take(self, count: int) -> memoryview:
        if count > self.left:
            raise DecodeError(f"truncated: {count} bytes wanted, {self.left} left")
        piece = self._data[self._at : self._at + count]
        self._at += count
        return piece

    @property
    def left(self) -> int:
        return len(self._data) - self._at


@dataclass(frozen=True, slots=True)
class Codec(Generic[T]):
    """How one type of value is written and read; ``least`` is the size of its smallest encoding.

    ``layout`` is the format, in the letters of Python's ``struct``, of values that have one size and no invalid
    encoding, and empty for others; ``rows`` reads and ``written`` writes several values at once that consist of such
    parts.
    """

    write: Callable[[bytearray, T], None]
    read: Callable[[Reader], T]
    least: int
    layout: str = ""
    rows: Callable[[memoryview], list[T]] | None = None
    written: Callable[[Sequence[T]], bytes] | None = None

    def encode(self, value: T) -> bytes:
        out = bytearray()
        self.write(out, value)
        return bytes(out)

    def decode(self, data: bytes | memoryview) -> T:
        reader = Reader(data)
        value = self.read(reader)
        if reader.left:
            raise DecodeError(f"{reader.left} trailing bytes")
        return value


def _packed(packer: Struct, *values: object) -> bytes:
    try:
        return packer.pack(*values)
    except StructError as error:
        raise UsageError(f"a value that its field does not hold: {error}") from None


def _number(layout: str) -> Codec[int]:
    packer = Struct(layout)

    def write(out: bytearray, value: int) -> None:
        out += _packed(packer, value)

    def read(reader: Reader) -> int:
        number: int = packer.unpack(reader.take(packer.size))[0]
        return number

    return Codec(write, read, packer.size, layout.removeprefix(">"))


u8, u16, u32, u64 = _number(">B"), _number(">H"), _number(">I"), _number(">Q")


def _write_boolean(out: bytearray, value: bool) -> None:
    out.append(value)


def _read_boolean(reader: Reader) -> bool:
    byte = reader.take(1)[0]
    if byte > 1:
        raise DecodeError(f"{byte} is not a boolean")
    return bool(byte)


boolean: Codec[bool] = Codec(_write_boolean, _read_boolean, 1)

_DOUBLE = Struct(">d")


def _write_double(out: bytearray, value: float) -> None:
    out += _DOUBLE.pack(value)


def _read_positive(reader: Reader) -> float:
    value: float = _DOUBLE.unpack(reader.take(8))[0]
    if not (math.isfinite(value) and value > 0):
        raise DecodeError("not a positive number")
    return value


positive: Codec[float] = Codec(_write_double, _read_positive, 8)
"""A finite double above zero. Zero, which has two encodings, is not among them."""


def fixed(size: int) -> Codec[bytes]:
    """A codec for exactly ``size`` bytes."""

    def write(out: bytearray, value: bytes) -> None:
        if len(value) != size:
            raise UsageError(f"{size} bytes expected, not {len(value)}")
        out += value

    return Codec(write, lambda reader: bytes(reader.take(size)), size, f"{size}s")


def blob(most: int) -> Codec[bytes]:
    """A codec for up to ``most`` bytes."""
    raw = _counted(most)
    return Codec(raw.write, lambda reader: bytes(raw.read(reader)), raw.least)


@dataclass(frozen=True, slots=True)
class _Counted:
    """A length and as many bytes."""

    write: Callable[[bytearray, bytes | memoryview], None]
    read: Callable[[Reader], memoryview]
    least: int


def _counted(most: int) -> _Counted:
    length = u32 if most < 1 << 32 else u64

    def write(out: bytearray, value: bytes | memoryview) -> None:
        if len(value) > most:
            raise UsageError(f"{len(value)} bytes, at most {most} allowed")
        length.write(out, len(value))
        out += value

    def read(reader: Reader) -> memoryview:
        size = length.read(reader)
        if size > most:
            raise DecodeError(f"{size} bytes announced, at most {most} allowed")
        return reader.take(size)

    return _Counted(write, read, length.least)


def view(most: int) -> Codec[bytes | memoryview]:
    """A codec for up to ``most`` bytes that are not copied when they are read, written like ``blob``.

    What is read is a view of the data, and keeps all of them in memory: it is for what is used and let go, not for what
    is kept. It cannot change between two looks at it (a hash, say, and a sum), since only ``bytes`` are viewed: of data
    that somebody could write to, a copy is handed out.

    >>> data = view(100).encode(b"a vector")
    >>> view(100).decode(data) == b"a vector", type(view(100).decode(data)).__name__
    (True, 'memoryview')
    >>> type(view(100).decode(memoryview(bytearray(data)))).__name__
    'bytes'
    """
    raw = _counted(most)

    def read(reader: Reader) -> bytes | memoryview:
        piece = raw.read(reader)
        return piece if type(piece.obj) is bytes else bytes(piece)

    return Codec(raw.write, read, raw.least)


def text(most: int) -> Codec[str]:
    """A codec for text of up to ``most`` bytes in UTF-8."""
    raw = blob(most)

    def read(reader: Reader) -> str:
        try:
            return raw.read(reader).decode()
        except UnicodeDecodeError:
            raise DecodeError("not UTF-8") from None

    return Codec(lambda out, value: raw.write(out, value.encode()), read, raw.least)


def enumeration(kind: type[E]) -> Codec[E]:
    """A codec for the members of a ``StrEnum``, by their values."""
    name = text(64)

    def read(reader: Reader) -> E:
        value = name.read(reader)
        try:
            return kind(value)
        except (ValueError, UsageError):
            raise DecodeError(f"unknown {kind.__name__.lower()}") from None

    return Codec(lambda out, value: name.write(out, value.value), read, name.least)


def _announced(item: Codec[Any], most: int, reader: Reader) -> int:
    count = u32.read(reader)
    if count > most or count * item.least > reader.left:
        raise DecodeError(f"{count} items announced: too many")
    return count


def _writer(item: Codec[T], most: int) -> Callable[[bytearray, Sequence[T]], None]:
    def write(out: bytearray, values: Sequence[T]) -> None:
        if len(values) > most:
            raise UsageError(f"{len(values)} items, at most {most} allowed")
        u32.write(out, len(values))
        if type(values) is _Written and values.item is item:
            out += b"".join(values.pieces)
        elif item.written is not None:
            out += packed(item, values)
        else:
            for value in values:
                item.write(out, value)

    return write


def many(item: Codec[T], most: int) -> Codec[tuple[T, ...]]:
    """A codec for up to ``most`` items."""

    def read(reader: Reader) -> tuple[T, ...]:
        count = _announced(item, most, reader)
        if item.rows is not None:
            return tuple(item.rows(reader.take(count * item.least)))
        return tuple([item.read(reader) for _ in range(count)])

    return Codec(_writer(item, most), read, u32.least)


class Rows(Sequence[T]):
    """Records as they are written, one after the other: they are read when somebody looks at one of them."""

    def __init__(self, item: Codec[T], data: bytes) -> None:
        self.item, self.data = item, data

    @cached_property
    def items(self) -> tuple[T, ...]:
        return many(self.item, len(self)).decode(u32.encode(len(self)) + self.data)

    def __len__(self) -> int:
        return len(self.data) // self.item.least

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[T, ...]: ...

    def __getitem__(self, index: int | slice) -> T | tuple[T, ...]:
        return self.items[index]

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self.items == tuple(other)

    def __hash__(self) -> int:
        return hash(self.items)


def packed(item: Codec[T], values: Sequence[T]) -> bytes:
    """Records of one size, one after the other."""
    if isinstance(values, Rows) and values.item is item:
        return values.data
    if item.written is None:
        raise UsageError("only records of one size are packed")
    return item.written(values)


def table(item: Codec[T], most: int) -> Codec[Sequence[T]]:
    """``many`` records of one size and without invalid encodings, which are read when somebody looks at one of them."""

    def read(reader: Reader) -> Rows[T]:
        return Rows(item, bytes(reader.take(_announced(item, most, reader) * item.least)))

    return Codec(_writer(item, most), read, u32.least)


class _Written(tuple[T, ...]):
    """Some items, and what their codec has written for each."""

    item: Codec[T]
    pieces: list[bytes]


class Once(Generic[T]):
    """Items that many are sent some of, each of them written once: ``many`` copies what was written.

    >>> names = Once(text(20), ["alice", "bob", "carol"])
    >>> names.some([0, 2])
    ('alice', 'carol')
    """

    def __init__(self, item: Codec[T], items: Sequence[T] | Mapping[Any, T]) -> None:
        """``item`` is the very codec that ``many`` is given."""
        self._item, self._items = item, items
        self._pieces: Mapping[Any, bytes] | Sequence[bytes]
        if isinstance(items, Mapping):
            self._pieces = {key: item.encode(value) for key, value in items.items()}
        else:
            self._pieces = [item.encode(value) for value in items]

    def some(self, keys: Iterable[Any]) -> tuple[T, ...]:
        """Those at these places, or under these keys."""
        chosen = list(keys)
        some = _Written([self._items[key] for key in chosen])
        some.item, some.pieces = self._item, [self._pieces[key] for key in chosen]
        return some


def optional(item: Codec[T]) -> Codec[T | None]:
    """A codec for a value or None, with a boolean in front."""

    def write(out: bytearray, value: T | None) -> None:
        boolean.write(out, value is not None)
        if value is not None:
            item.write(out, value)

    return Codec(write, lambda reader: item.read(reader) if boolean.read(reader) else None, boolean.least)


def struct(kind: type[T], **fields: Codec[Any]) -> Codec[T]:
    """A codec for a dataclass, field by field in the order given."""
    layout: Mapping[str, Codec[Any]] = fields
    in_order = list(layout) == [field.name for field in dataclass_fields(cast(Any, kind))]
    if len(layout) > 1 and in_order and all(codec.layout for codec in layout.values()):
        return _record(kind, layout)

    def write(out: bytearray, value: T) -> None:
        for name, codec in layout.items():
            codec.write(out, getattr(value, name))

    def read(reader: Reader) -> T:
        values = {name: codec.read(reader) for name, codec in layout.items()}
        try:
            return kind(**values)
        except UsageError as error:
            raise DecodeError(f"invalid {kind.__name__}: {error}") from None

    return Codec(write, read, sum(codec.least for codec in layout.values()))


def _record(kind: type[T], layout: Mapping[str, Codec[Any]]) -> Codec[T]:
    """A codec for a dataclass of fields of one size, all packed at once: messages of thousands of items need it."""
    packer = Struct(">" + "".join(codec.layout for codec in layout.values()))
    values_of, build = attrgetter(*layout), cast(Callable[..., T], kind)
    sizes = [(index, codec.least) for index, codec in enumerate(layout.values()) if codec.layout.endswith("s")]

    def written(values: Sequence[T]) -> bytes:
        if not values:
            return b""
        parts = list(map(values_of, values))
        columns = list(zip(*parts, strict=True))
        for index, size in sizes:  # pack would cut off or fill up
            if other := set(map(len, columns[index])) - {size}:
                raise UsageError(f"{size} bytes expected, not {min(other)}")
        try:
            return b"".join(starmap(packer.pack, parts))
        except StructError as error:
            raise UsageError(f"a value that its field does not hold: {error}") from None

    def write(out: bytearray, value: T) -> None:
        out += written((value,))

    def rows(data: memoryview) -> list[T]:
        try:
            return [build(*values) for values in packer.iter_unpack(data)]
        except UsageError as error:
            raise DecodeError(f"invalid {kind.__name__}: {error}") from None

    return Codec(write, lambda reader: rows(reader.take(packer.size))[0], packer.size, rows=rows, written=written)


@dataclass(frozen=True, slots=True)
class _Ratio:
    numerator: int
    denominator: int


_RATIO = struct(_Ratio, numerator=u64, denominator=u64)


def _read_rational(reader: Reader) -> Fraction:
    ratio = _RATIO.read(reader)
    if ratio.denominator == 0 or math.gcd(ratio.numerator, ratio.denominator) != 1:
        raise DecodeError("not a reduced fraction")
    return Fraction(ratio.numerator, ratio.denominator)


rational: Codec[Fraction] = Codec(
    lambda out, value: _RATIO.write(out, _Ratio(value.numerator, value.denominator)), _read_rational, _RATIO.least
)
"""A non-negative rational with 64-bit terms."""
