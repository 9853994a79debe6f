"""MovieLens (Harper and Konstan 2015, "The MovieLens Datasets"), from a folder as its archive unpacks.

    layout                ratings       fields separated by   titles
    latest-small, 20m...  ratings.csv   "," with a header     movies.csv
    1m, 10m               ratings.dat   "::"                  movies.dat
    100k                  u.data        tab                   u.item

Which one it is, the files tell. Lines are user, item, rating, time: users and items are whole numbers, the rating is a
number, the time is whole seconds since 1970 (written "964982703" or "964982703.0"; a fraction makes a line bad). Users
and items are numbered by ascending id. The table of items is the list of titles (``recsys.data.films``); without that
file, items are those that occur.

A file is read in blocks. Numpy parses a block at once, and if it finds anything odd, the block is read again line by
line, to name the bad ones. So 20 million lines take less than a minute and 2 GiB, and nothing is let through that the
slow way refuses.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recsys.data import films
from recsys.data.items import Items
from recsys.data.loaded import LARGEST, BadRow, Columns, LeftOut, Loaded, finish
from secagg.errors import UsageError

_PIECE_BYTES = 1 << 24
_HEADER = b"userId,movieId,rating,timestamp"
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class _Layout:
    ratings: str
    separator: bytes
    header: bytes
    titles: str


_LAYOUTS = (
    _Layout("ratings.csv", b",", _HEADER, "movies.csv"),
    _Layout("ratings.dat", b"::", b"", "movies.dat"),
    _Layout("u.data", b"\t", b"", "u.item"),
)


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    """Good lines, column by column."""

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    ratings: NDArray[np.float32]
    times: NDArray[np.int64]
    lines: NDArray[np.int64]

    @classmethod
    def of(cls, table: NDArray[np.float64], lines: NDArray[np.int64]) -> _Block:
        users, items, ratings, times = table.T
        return cls(
            users.astype(np.int64), items.astype(np.int64), ratings.astype(np.float32), times.astype(np.int64), lines
        )


def load(folder: str | Path, *, listed: Items | None = None) -> Loaded:
    """The ratings in a folder of MovieLens, with the films' titles, years and genres if they lie there, too.

    ``listed`` takes the place of that list, in its own order.

    >>> from tempfile import mkdtemp
    >>> folder = Path(mkdtemp())
    >>> _ = (folder / "u.data").write_text("1\\t50\\t5\\t881250949\\n1\\t172\\t5\\t881250949\\n7\\t50\\t?\\t1\\n")
    >>> loaded = load(folder)
    >>> loaded.interactions.item_ids, loaded.bad_rows
    (('50', '172'), (BadRow(line=3, reason="rating '?' is not a number"),))
    """
    folder = Path(folder)
    layouts = [layout for layout in _LAYOUTS if (folder / layout.ratings).is_file()]
    if len(layouts) != 1:
        known = ", ".join(layout.ratings for layout in layouts or _LAYOUTS)
        raise UsageError(f"{folder} is not a folder of MovieLens: {'more than one' if layouts else 'none'} of {known}")
    (layout,) = layouts
    path, bad_titles = folder / layout.ratings, LeftOut()
    try:
        columns, bad = _read(path, layout)
        if listed is None and (folder / layout.titles).is_file():
            listed, bad_titles = films.read(folder / layout.titles)
    except OSError as error:
        raise UsageError(f"{error.filename or path} cannot be read: {error.strerror}") from None
    return finish(path, columns, bad, listed, bad_titles)


def _read(path: Path, layout: _Layout) -> tuple[Columns, LeftOut]:
    blocks, bad = [_Block.of(np.empty((0, 4)), np.empty(0, np.int64))], LeftOut()
    for first, text in _pieces(path, layout):
        block, found = _parse(text, first, layout.separator)
        blocks.append(block)
        bad = bad.plus(found)
    user_ids, users = _numbered([block.users for block in blocks])
    item_ids, items = _numbered([block.items for block in blocks])
    columns = Columns(
        users,
        items,
        np.concatenate([block.times for block in blocks]),
        np.concatenate([block.ratings for block in blocks]),
        np.concatenate([block.lines for block in blocks]),
        tuple(map(str, user_ids.tolist())),
        tuple(map(str, item_ids.tolist())),
    )
    return columns, bad


def _numbered(blocks: list[NDArray[np.int64]]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """All ids, ascending, and the place of each among them."""
    ids = np.unique(np.concatenate([np.unique(block) for block in blocks]))
    return ids, np.concatenate([np.searchsorted(ids, block).astype(np.int32) for block in blocks])


def _pieces(path: Path, layout: _Layout) -> Iterator[tuple[int, bytes]]:
    """The lines after the header in large pieces, and the number of each piece's first line."""
    line = 1
    with path.open("rb") as file:
        if layout.header:
            header = file.readline(1000).removeprefix(_BOM).strip()
            if header != layout.header:
                raise UsageError(f"{path} does not start with the header {layout.header.decode()}")
            line = 2
        rest = b""
        while more := file.read(_PIECE_BYTES):
            whole, newline, rest = (rest + more).rpartition(b"\n")
            if newline:
                yield line, whole + newline
            line += whole.count(b"\n") + len(newline)
        if rest:
            yield line, rest


def _parse(text: bytes, first: int, separator: bytes) -> tuple[_Block, list[BadRow]]:
    """Numpy first. Where the lines are not all in order, one by one."""
    count = text.count(b"\n") + (not text.endswith(b"\n"))
    if not text.strip() or (separator != b"," and b"," in text):
        return _parse_slowly(text, first, separator)
    try:
        table = np.loadtxt(
            io.BytesIO(text.replace(separator, b",")), delimiter=",", comments=None, ndmin=2, encoding="latin-1"
        )
    except ValueError:
        return _parse_slowly(text, first, separator)
    whole = table[:, [0, 1, 3]] if table.shape == (count, 4) else np.array([np.nan])
    if not ((np.abs(whole) < LARGEST) & (whole == np.floor(whole))).all() or not np.isfinite(table).all():
        return _parse_slowly(text, first, separator)
    return _Block.of(table, np.arange(first, first + count)), []


def _parse_slowly(text: bytes, first: int, separator: bytes) -> tuple[_Block, list[BadRow]]:
    rows, lines, bad = [], [], []
    for line, row in enumerate(text.removesuffix(b"\n").split(b"\n"), first):
        try:
            rows.append(_numbers(row.decode("latin-1").rstrip("\r").split(separator.decode())))
            lines.append(line)
        except ValueError as error:
            bad.append(BadRow(line, str(error)))
    return _Block.of(np.array(rows).reshape(-1, 4), np.array(lines, np.int64)), bad


def _numbers(fields: list[str]) -> tuple[float, ...]:
    if len(fields) != 4:
        raise ValueError("an empty line" if fields == [""] else f"{len(fields)} fields, not 4")
    numbers = []
    for name, text in zip(("user", "item", "rating", "time"), fields, strict=True):
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(f"{name} {text[:40]!r} is not a number")
        if name != "rating" and not (abs(number) < LARGEST and number.is_integer()):
            raise ValueError(f"{name} {text[:40]!r} is not a whole number")
        numbers.append(number)
    return tuple(numbers)
