"""The user's own tables, CSV, Parquet or Arrow (``recsys.data.arrow``): which column is what, the caller says.

    user, item   any text or whole number; it is the id
    time         optional; whole numbers in any unit, or dates and times as ISO 8601 writes them (kept as microseconds
                 since 1970, in UTC where no zone is given), but not both for one user. Without it, the order of the
                 file is the order of time.
    rating       optional; a number. Without it, 1.

Users and items are numbered in the order of their ids, as text: who came first, or took what first, moves nobody else.
A line that cannot be read is left out and reported with its number, also one with a quotation mark that swallows the
lines after it; its user, if that can be read, stays. A table of items (``items``), if there is one, says which items
there are, and in which order, and what is known of them (``recsys.data.items``).
"""

from __future__ import annotations

import csv
import math
from array import array
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from recsys.data import arrow
from recsys.data.items import DESCRIBED, LATEST_YEAR, Items
from recsys.data.loaded import LARGEST, BadRow, Columns, LeftOut, Loaded, finish
from secagg.errors import UsageError

_Row: TypeAlias = tuple[int, Sequence[Any] | str]
"""Line number, and the cells of the wanted columns or what is wrong with the line as a whole."""


def load(
    path: str | Path,
    *,
    user: str = "user",
    item: str = "item",
    time: str = "",
    rating: str = "",
    separator: str = ",",
    listed: Items | None = None,
) -> Loaded:
    """Events of a file or folder of Parquet or Arrow, or of a text file whose first line names the columns. What it
    takes of memory are 28 bytes for each event, whatever else is in the file.

    ``listed`` are all items there are; without it they are those that occur.

    >>> from tempfile import mkdtemp
    >>> path = Path(mkdtemp()) / "bought.csv"
    >>> _ = path.write_text("who,what,when\\nann,tea,2024-05-01\\nbob,tea,2024-05-03\\nann,,2024-05-03\\n")
    >>> loaded = load(path, user="who", item="what", time="when")
    >>> loaded.interactions.user_ids, loaded.bad_rows
    (('ann', 'bob'), (BadRow(line=4, reason='item is empty'),))
    """
    path = Path(path)
    names = [name for name in (user, item, time, rating) if name]
    users, items = _Numbers(), _Numbers()
    clock = _Clock()
    who, what, when, liked, lines = array("i"), array("i"), array("q"), array("f"), array("q")
    bad = LeftOut()
    for line, cells in _rows(path, names, separator):
        if isinstance(cells, str):
            bad = bad.plus([BadRow(line, cells)])
            continue
        rest = list(cells)
        try:
            number = users.of(identifier("user", rest.pop(0)))
            name = identifier("item", rest.pop(0))
            moment = clock.read(number, rest.pop(0)) if time else 0
            value = _number(rest.pop(0)) if rating else 1.0
        except ValueError as error:
            bad = bad.plus([BadRow(line, str(error))])
            continue
        who.append(number)
        what.append(items.of(name))
        when.append(moment)
        liked.append(value)
        lines.append(line)
    columns = Columns(
        users.places[np.array(who, np.int32)],
        items.places[np.array(what, np.int32)],
        np.array(when, np.int64),
        np.array(liked, np.float32),
        np.array(lines, np.int64),
        users.ids,
        items.ids,
    )
    return finish(path, columns, bad, listed)


def items(path: str | Path, *, item: str = "item", separator: str = ",") -> Items:
    """All items there are, in the order of the file, with its columns title, genres, year and text if it has them.
    Here a bad line is an error.

    >>> from tempfile import mkdtemp
    >>> path = Path(mkdtemp()) / "goods.csv"
    >>> _ = path.write_text("what,price,genres\\ntea,3,drink|leaf\\njam,5,sweet\\n")
    >>> found = items(path, item="what")
    >>> found.ids, found.genres
    (('tea', 'jam'), (('drink', 'leaf'), ('sweet',)))
    """
    path = Path(path)
    lines: dict[str, int] = {}
    titles, genres, years, texts = list[str](), list[str](), list[int](), list[str]()
    for line, cells in _rows(path, [item], separator, optional=DESCRIBED):
        if isinstance(cells, str):
            raise UsageError(f"{path}, line {line}: {cells}")
        try:
            name = identifier("item", cells[0])
            title, kinds, year, text = map(_description, DESCRIBED, cells[1:])
            years.append(_year(year))
        except ValueError as error:
            raise UsageError(f"{path}, line {line}: {error}") from None
        if lines.setdefault(name, line) != line:
            raise UsageError(f"{path}, line {line}: item {name} is in line {lines[name]} already")
        titles.append(title)
        genres.append(kinds)
        texts.append(text)
    if not lines:
        raise UsageError(f"{path} lists no items")
    return Items.of(list(lines), titles, genres, years, texts)


def mapping(path: str | Path, *, user: str = "user", silo: str = "silo", separator: str = ",") -> dict[str, str]:
    """Each user's silo, for ``recsys.data.partition.natural``. Here a bad line is an error.

    >>> from tempfile import mkdtemp
    >>> path = Path(mkdtemp()) / "hospitals.csv"
    >>> _ = path.write_text("patient,hospital\\n17,north\\n18,south\\n")
    >>> mapping(path, user="patient", silo="hospital")
    {'17': 'north', '18': 'south'}
    """
    path = Path(path)
    found: dict[str, str] = {}
    for line, cells in _rows(path, [user, silo], separator):
        if isinstance(cells, str):
            raise UsageError(f"{path}, line {line}: {cells}")
        try:
            name, home = identifier(user, cells[0]), identifier(silo, cells[1])
        except ValueError as error:
            raise UsageError(f"{path}, line {line}: {error}") from None
        if found.setdefault(name, home) != home:
            raise UsageError(f"{path}, line {line}: {user} {name} is in {found[name]} already")
    return found


class _Numbers:
    """Ids and the numbers they get, for now in the order in which they come, and in the end in that of the ids."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def of(self, identifier: str) -> int:
        return self._numbers.setdefault(identifier, len(self._numbers))

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(sorted(self._numbers))

    @property
    def places(self) -> NDArray[np.int32]:
        """The final number of each, by the number that it got first."""
        final = {name: number for number, name in enumerate(self.ids)}
        return np.array([final[name] for name in self._numbers], np.int32)


class _Clock:
    """Reads times, all of one user of the kind of that user's first: nobody's file makes another's lines bad."""

    def __init__(self) -> None:
        self._dates: dict[int, bool] = {}

    def read(self, user: int, cell: object) -> int:
        moment, is_date = moment_of(cell)
        if self._dates.setdefault(user, is_date) != is_date:
            raise ValueError("time is a date in some of this user's lines and a number in others")
        return moment


def moment_of(cell: object) -> tuple[int, bool]:
    """The time as a number, and whether it was written as a date."""
    moment = _from_text(cell) if isinstance(cell, str) else cell
    if isinstance(moment, date):
        if not isinstance(moment, datetime):
            moment = datetime(moment.year, moment.month, moment.day)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return (moment - arrow.EPOCH) // timedelta(microseconds=1), True
    if isinstance(moment, int | float) and abs(moment) < LARGEST and moment == int(moment):
        return int(moment), False
    raise ValueError("time is empty" if cell is None else f"time {str(cell)[:40]!r} is not a whole number")


def _from_text(text: str) -> float | datetime:
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(f"time {text[:40]!r} is neither a number nor a date") from None


def identifier(name: str, cell: object) -> str:
    """What a cell calls a user or an item. ``ValueError`` says what is wrong with it; ``name`` is the column's."""
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        raise ValueError(f"{name} is empty")
    text = _text_of(name, cell)
    if "\n" in text or "\r" in text:
        raise ValueError(f"{name} goes over several lines")
    if "\N{REPLACEMENT CHARACTER}" in text:
        raise ValueError(f"{name} is not UTF-8")
    return text


def _number(cell: object) -> float:
    try:
        number = float(cell) if isinstance(cell, str | int | float) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not abs(number) < 1e38:  # of what single precision holds
        raise ValueError(f"rating {str(cell)[:40]!r} is not a number")
    return number


def _description(name: str, cell: object) -> str:
    """A cell that need not say anything."""
    return "" if cell is None else _text_of(name, cell)


def _text_of(name: str, cell: object) -> str:
    if not isinstance(cell, str | int) or isinstance(cell, bool):
        raise ValueError(f"{name} {str(cell)[:40]!r} is neither text nor a whole number")
    return str(cell).strip()


def _year(text: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(LATEST_YEAR))):
        raise ValueError(f"year {text[:40]!r} is not a year")
    return int(text)


def _rows(path: Path, names: list[str], separator: str, optional: Sequence[str] = ()) -> Iterator[_Row]:
    """Cells of the columns ``names``, and then of the ``optional`` ones: nothing where the table lacks them."""
    try:
        if arrow.is_arrow(path):
            yield from _batches(path, names, optional)
        else:
            yield from _text(path, names, separator, optional)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or 'damaged'}") from None


def _text(path: Path, names: list[str], separator: str, optional: Sequence[str]) -> Iterator[_Row]:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.reader(file, delimiter=separator, strict=True)
        header = next(reader, [])
        places = [arrow.place(path, header, name) for name in names]
        others = [arrow.place(path, header, name) if name in header else None for name in optional]
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                until = f" (up to line {reader.line_num})" if reader.line_num > line else ""
                yield line, f"{error}{until}"
                continue
            if len(cells) == len(header):
                described = ["" if place is None else cells[place] for place in others]
                yield line, [cells[place] for place in places] + described
            else:
                yield line, f"{len(cells)} fields, not {len(header)}" if cells else "an empty line"


def _batches(path: Path, names: list[str], optional: Sequence[str]) -> Iterator[_Row]:
    line = 0
    for file in arrow.files(path):
        for batch in arrow.rows(file, names, optional):
            for cells in batch:
                yield (line := line + 1), cells
