"""What of an update travels: a linear map to fewer coordinates, the same for all clients of a round, and its way back.

    RandomK     some coordinates, drawn anew each round
    LowRank     of tables of the vector their products with a random matrix of few columns, drawn anew each round
    Ranges      these coordinates, in each round; the others are frozen

A sketch is public. It stands in the plan (``secagg.encoding.Encoding.sketch``), and what it draws follows from the
plan's session and round: so masks hide no less than without it, and the sum of sketches is the sketch of the sum. A
client's vector is clipped after it, so no bound rests on how exactly a map is computed.

``lift`` gives a vector of the full length again. Of ``RandomK`` and ``LowRank`` it is unbiased over what they draw, if
it is to be: it multiplies by length / kept, or a table by columns / rank, and so it does with noise that is in the sum.
Where clients keep what a sketch has lost for their next updates (``Encoding.feedback``) nothing is multiplied.

The first two can also take turns: with an ``order``, a public seed, each round has another part of one permutation of
the coordinates, or of one orthonormal basis of a table's rows. So whatever does not travel now travels in a later turn,
after the same number of rounds for all of it, and nothing is multiplied either. That is for clients that go on from
what they have not sent yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from secagg.codec import Codec, Reader, blob, many, struct, u32, u64
from secagg.crypto import labels
from secagg.crypto.keys import digest
from secagg.crypto.prg import Prg
from secagg.errors import DecodeError, UsageError

MOST_PARTS = 1024
"""Tables or ranges of one sketch, at most."""

ORDER_BYTES = 32

_MOST_NUMBERS = 1 << 24
_BLOCK = 1 << 16  # coordinates of a table that are doubles at a time


class Linear(Protocol):
    """A sketch of vectors of one length in one round."""

    def apply(self, vector: NDArray[Any]) -> NDArray[Any]:
        """What travels of a vector of finite numbers."""

    def lift(self, sketched: NDArray[np.float64], unbiased: bool) -> NDArray[np.float64]:
        """A vector of the full length of what has travelled."""


@dataclass(frozen=True, slots=True)
class RandomK:
    """``kept`` coordinates, each set of so many as likely as any other, drawn anew each round. With an ``order``, a
    public seed of 32 bytes, part number ``turn`` of one permutation of all of them: part 0 begins with its first, each
    other one where the last one ended, and what follows on the last coordinate is the first.

    >>> linear = RandomK(2).at(6, seed=bytes(32))
    >>> linear.apply(np.arange(6))
    array([0, 4])
    >>> linear.lift(np.array([5.0, 7.0]), unbiased=True).tolist()
    [15.0, 0.0, 0.0, 0.0, 21.0, 0.0]
    >>> [RandomK(4, order=bytes(32), turn=t).at(6, b"").apply(np.arange(6)).tolist() for t in range(3)]
    [[0, 2, 4, 5], [1, 3, 4, 5], [0, 1, 2, 3]]
    """

    kept: int
    order: bytes = b""
    turn: int = 0

    def __post_init__(self) -> None:
        _check_turn(self.order, self.turn)

    def next_turn(self) -> RandomK:
        """That of the next round: the next part, if there is an order."""
        return replace(self, turn=_after(self.turn)) if self.order else self

    def width(self, length: int) -> int:
        """How many coordinates travel of a vector of this length; ``UsageError`` if it has no such sketch."""
        if not 1 <= self.kept <= length:
            raise UsageError(f"of {length} coordinates 1 to {length} are kept, not {self.kept}")
        return self.kept

    def at(self, length: int, seed: bytes) -> Linear:
        if not self.order:
            return _Places(chosen(self.kept, length, seed), length, length / self.kept)
        return _Places(_in_turn(self.turn, self.kept, length, self.order), length, 1.0)


@dataclass(frozen=True, slots=True)
class Table:
    """``rows`` times ``columns`` coordinates from ``start`` on, row by row, that travel as ``rows`` times ``rank``."""

    start: int
    rows: int
    columns: int
    rank: int

    def __post_init__(self) -> None:
        if self.start < 0 or min(self.rows, self.columns) < 1:
            raise UsageError("a table has a place in the vector, rows and columns")
        if not 1 <= self.rank <= self.columns:
            raise UsageError(f"a table of {self.columns} columns has a rank of 1 to {self.columns}, not {self.rank}")

    @property
    def stop(self) -> int:
        return self.start + self.rows * self.columns


@dataclass(frozen=True, slots=True)
class LowRank:
    """Of each table U the product U A: A has ``rank`` orthonormal columns, drawn anew each round, the same for all
    clients; what is in no table travels as it is. With an ``order``, a public seed of 32 bytes, they are those of part
    number ``turn`` of one orthonormal basis, as ``RandomK`` has parts of a permutation.

    A is computed in floating point, so two machines may differ in its last bits. That costs as much accuracy as these
    bits are worth, and nothing else.

    >>> sketch = LowRank((Table(start=1, rows=50, columns=8, rank=2),))
    >>> sketch.width(403)
    103
    >>> linear = sketch.at(403, seed=bytes(32))
    >>> once = linear.lift(linear.apply(np.arange(403.0)), unbiased=False)
    >>> bool(np.allclose(linear.lift(linear.apply(once), unbiased=False), once)), once[[0, 401, 402]].tolist()
    (True, [0.0, 401.0, 402.0])
    """

    tables: tuple[Table, ...]
    order: bytes = b""
    turn: int = 0

    def __post_init__(self) -> None:
        _check_turn(self.order, self.turn)
        object.__setattr__(self, "tables", tuple(self.tables))
        if not 1 <= len(self.tables) <= MOST_PARTS:
            raise UsageError(f"a sketch has 1 to {MOST_PARTS} tables, not {len(self.tables)}")
        if any(left.stop > right.start for left, right in pairwise(self.tables)):
            raise UsageError("tables stand one after the other in a vector")
        if sum(table.columns * (table.columns if self.order else table.rank) for table in self.tables) > _MOST_NUMBERS:
            of = "columns" if self.order else "rank"
            raise UsageError(f"the matrices of a sketch have {_MOST_NUMBERS} numbers at most, columns times {of}")

    def next_turn(self) -> LowRank:
        """That of the next round: the next part, if there is an order."""
        return replace(self, turn=_after(self.turn)) if self.order else self

    def width(self, length: int) -> int:
        """How many coordinates travel of a vector of this length; ``UsageError`` if it has no such sketch."""
        if self.tables[-1].stop > length:
            raise UsageError(f"the tables do not fit into {length} coordinates: they end at {self.tables[-1].stop}")
        return length - sum(table.rows * (table.columns - table.rank) for table in self.tables)

    def at(self, length: int, seed: bytes) -> Linear:
        prg = _stream(self.order or seed)
        if not self.order:
            drawn = (_orthonormal(table.columns, table.rank, prg) for table in self.tables)
            return _Products(self.tables, tuple(drawn), length, unbiased=True)
        bases = ((table, _orthonormal(table.columns, table.columns, prg)) for table in self.tables)
        parts = (basis[:, _part(self.turn, table.rank, table.columns)] for table, basis in bases)
        return _Products(self.tables, tuple(parts), length, unbiased=False)


@dataclass(frozen=True, slots=True)
class Ranges:
    """The coordinates from each start to before each stop: all others are frozen, and come back as zeros.

    >>> linear = Ranges(((0, 1), (3, 5))).at(6, seed=bytes(32))
    >>> linear.apply(np.arange(6)).tolist(), linear.lift(np.ones(3), unbiased=True).tolist()
    ([0, 3, 4], [1.0, 0.0, 0.0, 1.0, 1.0, 0.0])
    """

    ranges: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "ranges", tuple((start, stop) for start, stop in self.ranges))
        if not 1 <= len(self.ranges) <= MOST_PARTS:
            raise UsageError(f"a sketch has 1 to {MOST_PARTS} ranges, not {len(self.ranges)}")
        ends = [end for both in self.ranges for end in both]
        if ends[0] < 0 or any(start >= stop for start, stop in self.ranges) or ends != sorted(ends):
            raise UsageError("ranges are not empty, and stand one after the other in a vector")

    def next_turn(self) -> Ranges:
        """That of the next round, which is the same."""
        return self

    def width(self, length: int) -> int:
        """How many coordinates travel of a vector of this length; ``UsageError`` if it has no such sketch."""
        if self.ranges[-1][1] > length:
            raise UsageError(f"the ranges do not fit into {length} coordinates: they end at {self.ranges[-1][1]}")
        return sum(stop - start for start, stop in self.ranges)

    def at(self, length: int, seed: bytes) -> Linear:
        return _Places(np.concatenate([np.arange(start, stop) for start, stop in self.ranges]), length, 1.0)


Sketch: TypeAlias = RandomK | LowRank | Ranges
"""Each is frozen, and says its ``width`` for a ``length``, and what it is ``at`` a round, whose ``seed`` is public."""


def chosen(count: int, length: int, seed: bytes) -> NDArray[np.int64]:
    """Distinct places in a vector, ascending: each set of so many is as likely as any other.

    Numbers below ``length`` are drawn one after the other until there are so many different ones. If that is more than
    half, the others are drawn.

    >>> chosen(3, 10, bytes(32)).tolist(), chosen(10, 10, bytes(32)).tolist() == list(range(10))
    ([3, 4, 8], True)
    """
    prg, drawn = _stream(seed), np.zeros(length, bool)
    fewer = min(count, length - count)
    missing = fewer
    while missing:  # no more words than that, so none is left over
        words = np.frombuffer(prg(8 * missing), "<u8") & np.uint64((1 << (length - 1).bit_length()) - 1)
        drawn[words[words < length].astype(np.int64)] = True
        missing = fewer - int(np.count_nonzero(drawn))
    return np.flatnonzero(drawn if fewer == count else ~drawn)


def _stream(seed: bytes) -> Prg:
    return Prg(digest(labels.SKETCH, seed))


def _check_turn(order: bytes, turn: int) -> None:
    if len(order) not in (0, ORDER_BYTES) or not 0 <= turn < 1 << 32 or (turn and not order):
        raise UsageError(f"turns, from 0 to below 2^32, are of an order of {ORDER_BYTES} bytes")


def _after(turn: int) -> int:
    return (turn + 1) % (1 << 32)


def _part(turn: int, count: int, length: int) -> NDArray[np.int64]:
    """Which places of an order have this turn."""
    return (turn * count % length + np.arange(count)) % length


def _in_turn(turn: int, count: int, length: int, order: bytes) -> NDArray[np.int64]:
    """The places of a part, ascending, of the permutation that sorts words that are drawn for all coordinates.

    Only the words with which the part begins and ends are looked for, in a quarter of the time of a sort. Should one of
    them be there twice, with probability below 2^-38 for 10^7 coordinates, all are sorted, equal ones as they stand.
    """
    words, first = np.frombuffer(_stream(order)(8 * length), "<u8"), turn * count % length
    spans = [(first, min(first + count, length)), (0, max(first + count - length, 0))]
    ranked = np.partition(words, [rank for start, stop in spans if stop for rank in (start, stop - 1)])
    inside = np.zeros(length, bool)
    for start, stop in spans:
        if stop:
            inside |= (words >= ranked[start]) & (words <= ranked[stop - 1])
    places = np.flatnonzero(inside)
    if len(places) == count:
        return places
    return np.sort(np.argsort(words, kind="stable")[_part(turn, count, length)])


def _orthonormal(rows: int, count: int, prg: Prg) -> NDArray[np.float64]:
    """Orthonormal columns of a random span: for its distribution no column of a table is another than any other one, in
    whatever direction it points, so that its mean projection is rank / columns in each."""
    words = np.frombuffer(prg(8 * rows * count), "<i8").astype(np.float64)
    columns: NDArray[np.float64] = np.linalg.qr((words + 0.5).reshape(rows, count))[0]
    return columns


@dataclass(frozen=True, slots=True)
class _Places:
    """The coordinates at ``places``, and zeros elsewhere."""

    places: NDArray[np.int64]
    length: int
    factor: float

    def apply(self, vector: NDArray[Any]) -> NDArray[Any]:
        return vector[self.places]

    def lift(self, sketched: NDArray[np.float64], unbiased: bool) -> NDArray[np.float64]:
        vector = np.zeros(self.length)
        vector[self.places] = sketched * self.factor if unbiased else sketched
        return vector


@dataclass(frozen=True, slots=True)
class _Products:
    """Each table times its matrix, between what stands around them."""

    tables: tuple[Table, ...]
    matrices: tuple[NDArray[np.float64], ...]
    length: int
    unbiased: bool
    """whether it can be, over what is drawn"""

    def apply(self, vector: NDArray[Any]) -> NDArray[Any]:
        parts, at = [], 0
        for table, matrix in zip(self.tables, self.matrices, strict=True):
            rows = vector[table.start : table.stop].reshape(table.rows, table.columns)
            product = np.empty((table.rows, table.rank))
            step = max(1, _BLOCK // table.columns)
            for first in range(0, table.rows, step):
                np.matmul(rows[first : first + step].astype(np.float64), matrix, out=product[first : first + step])
            parts += [vector[at : table.start], product.reshape(-1)]
            at = table.stop
        return np.concatenate([*parts, vector[at:]])

    def lift(self, sketched: NDArray[np.float64], unbiased: bool) -> NDArray[np.float64]:
        parts, at, of = [], 0, 0
        for table, matrix in zip(self.tables, self.matrices, strict=True):
            first = of + table.start - at
            last = first + table.rows * table.rank
            factor = table.columns / table.rank if unbiased and self.unbiased else 1.0
            rows = sketched[first:last].reshape(table.rows, table.rank) @ (matrix.T * factor)
            parts += [sketched[of:first], rows.reshape(-1)]
            at, of = table.stop, last
        return np.concatenate([*parts, sketched[of:]])


@dataclass(frozen=True, slots=True)
class _Range:
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class _Written:
    """All kinds in one structure, of which one part is not empty."""

    kept: int = 0
    tables: Sequence[Table] = ()
    ranges: Sequence[_Range] = ()
    order: bytes = b""
    turn: int = 0

    def __post_init__(self) -> None:
        if (self.kept > 0) + bool(self.tables) + bool(self.ranges) != 1:
            raise UsageError("a sketch is of one kind")
        if self.ranges and (self.order or self.turn):
            raise UsageError("ranges take no turns")


_WRITTEN = struct(
    _Written,
    kept=u64,
    tables=many(struct(Table, start=u64, rows=u64, columns=u64, rank=u64), MOST_PARTS),
    ranges=many(struct(_Range, start=u64, stop=u64), MOST_PARTS),
    order=blob(ORDER_BYTES),
    turn=u32,
)


def written(sketch: Sketch) -> _Written:
    """A sketch as the wire has it."""
    match sketch:
        case RandomK(kept, order, turn):
            return _Written(kept=kept, order=order, turn=turn)
        case LowRank(tables, order, turn):
            return _Written(tables=tables, order=order, turn=turn)
        case Ranges(ranges):
            return _Written(ranges=[_Range(*both) for both in ranges])


def _read(reader: Reader) -> Sketch:
    parts = _WRITTEN.read(reader)
    try:
        if parts.tables:
            return LowRank(tuple(parts.tables), parts.order, parts.turn)
        if parts.ranges:
            return Ranges(tuple((one.start, one.stop) for one in parts.ranges))
        return RandomK(parts.kept, parts.order, parts.turn)
    except UsageError as error:
        raise DecodeError(f"invalid sketch: {error}") from None


SKETCH: Codec[Sketch] = Codec(lambda out, sketch: _WRITTEN.write(out, written(sketch)), _read, _WRITTEN.least)
