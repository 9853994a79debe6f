"""MovieLens' list of films, in its three forms: a table of items with titles, years and genres.

    file         encoding   separated by   after id and title
    movies.csv   UTF-8      "," quoted     genres, separated by "|"
    movies.dat   see below  "::"           the same
    u.item       Latin-1    "|"            two dates and an address, then 0 or 1 for each of 19 genres

MovieLens 10M writes movies.dat in UTF-8, MovieLens 1M in Latin-1: what is not UTF-8 as a whole is taken for the latter.

The year stands in brackets at the end of a title. Items are in ascending order of their ids. GroupLens lists films with
at least one rating or tag. The list is public because they published it, and is the same whatever is in the file of
ratings beside it.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

from recsys.data.items import Items
from recsys.data.loaded import BadRow, LeftOut
from secagg.errors import UsageError

NAMES = ("movies.csv", "movies.dat", "u.item")
"""What such a file is called, by which its form is known."""

_DIGITS = 16
_FIRST_FLAG = 5
_FLAGS = (
    "",  # unknown
    *("Action", "Adventure", "Animation", "Children", "Comedy", "Crime", "Documentary", "Drama", "Fantasy"),
    *("Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)


def read(path: str | Path) -> tuple[Items | None, LeftOut]:
    """The films, or None where no line names one; and the lines that name none.

    >>> from tempfile import mkdtemp
    >>> path = Path(mkdtemp()) / "movies.dat"
    >>> _ = path.write_text("7::Two (1999)::Comedy|War\\nx\\n")
    >>> films, bad = read(path)
    >>> films.ids, films.titles, films.years, films.genres, bad.count
    (('7',), ('Two',), (1999,), (('Comedy', 'War'),), 1)
    """
    path = Path(path)
    if path.name not in NAMES:
        raise UsageError(f"{path} is not called as MovieLens calls its list of films: {', '.join(NAMES)}")
    found, bad = dict[str, tuple[str, str]](), LeftOut()
    quoted = path.suffix == ".csv"
    try:
        with path.open(encoding=_encoding(path), errors="replace", newline="") as file:
            for line, cells in enumerate(_cells(file, path.suffix), 1):
                if quoted and line == 1:
                    continue
                if len(cells) >= 2 and cells[0].isdecimal() and len(cells[0]) <= _DIGITS:
                    found[str(int(cells[0]))] = cells[1], _genres(cells, path.suffix)
                else:
                    bad = bad.plus([BadRow(line, f"{path.name} has no item and title here")])
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    ids = sorted(found, key=int)
    if not ids:
        return None, bad
    return Items.of(ids, [found[one][0] for one in ids], [found[one][1] for one in ids]), bad


def _encoding(path: Path) -> str:
    if path.suffix == ".dat":
        try:
            path.read_bytes().decode()
        except UnicodeDecodeError:
            return "latin-1"
        return "utf-8"
    return "utf-8-sig" if path.suffix == ".csv" else "latin-1"


def _cells(file: Iterable[str], suffix: str) -> Iterator[list[str]]:
    """Of each line; none for what the parser refuses, such as a field of more than 128 KiB."""
    if suffix != ".csv":
        separator = "::" if suffix == ".dat" else "|"
        yield from (line.rstrip("\r\n").split(separator) for line in file)
        return
    reader = csv.reader(file)
    while True:
        try:
            yield next(reader)
        except csv.Error:
            yield []
        except StopIteration:
            return


def _genres(cells: list[str], suffix: str) -> str:
    if suffix == ".item":
        return "|".join(name for name, flag in zip(_FLAGS, cells[_FIRST_FLAG:], strict=False) if flag == "1")
    return cells[2] if len(cells) > 2 else ""
