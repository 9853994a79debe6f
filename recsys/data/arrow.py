"""Rows of Parquet and Arrow files, batch by batch: the files may be larger than memory.

A table is one file (``*.parquet``, or ``*.arrow`` and ``*.feather`` in Arrow's file format), or a folder of such files,
which are read in the order of their names. Of a file only the columns that are asked for are read, so many rows at a
time; what an Arrow file has compressed as one batch is in memory as one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from math import floor
from pathlib import Path
from typing import Any

from secagg.errors import UsageError
from secagg.extras import needing

ROWS = 1 << 16
"""So many rows are Python's objects at a time."""
PARQUET, ARROW = (".parquet",), (".arrow", ".feather")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BUFFER = 1 << 20
_ROWS_A_BYTE = 8
"""No column of items is packed more tightly; one value repeated a billion times is."""
_SHOWN = 200
"""Characters of a header in an error's line."""
_UNITS = {"s": Fraction(10**6), "ms": Fraction(10**3), "us": Fraction(1), "ns": Fraction(1, 10**3)}


def is_arrow(path: Path) -> bool:
    """Whether a table is read by this module, by its name."""
    return path.suffix in PARQUET + ARROW or path.is_dir()


def files(path: Path) -> list[Path]:
    """The files of a table, in the order in which they are read."""
    if not path.is_dir():
        return [path]
    found = sorted(one for one in path.iterdir() if one.suffix in PARQUET + ARROW)
    if not found:
        raise UsageError(f"{path} has no file called *{', *'.join(PARQUET + ARROW)}")
    return found


def rows(
    path: Path, names: Sequence[str], optional: Sequence[str] = (), skip: int = 0
) -> Iterator[Sequence[tuple[Any, ...]]]:
    """Batches of rows of one file, after the first ``skip``: the cells of the columns ``names``, and then of the
    ``optional`` ones, nothing where the file lacks them."""
    with needing("recsys", "reading Parquet and Arrow"):
        from pyarrow import ArrowException

    try:
        with _opened(path) as file:
            wanted = [*names, *(name for name in optional if name in file.columns)]
            for name in wanted:
                place(path, file.columns, name)
            if file.rows > _ROWS_A_BYTE * path.stat().st_size:
                raise UsageError(f"{path} cannot be read: it speaks of more rows than fit into its bytes")
            for batch in file.batches(list(dict.fromkeys(wanted))):
                passed = min(skip, batch.num_rows)
                skip, batch = skip - passed, batch.slice(passed)
                nothing = [None] * batch.num_rows
                read = [_cells(batch.column(name)) if name in wanted else nothing for name in (*names, *optional)]
                yield list(zip(*read, strict=True))
    except ArrowException as error:
        raise UsageError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or 'damaged'}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} cannot be read: a name in it is not UTF-8") from None


def place(path: Path, header: Sequence[str], name: str) -> int:
    """Which column is called ``name``."""
    if list(header).count(name) != 1:
        columns = ", ".join(header[:20])[:_SHOWN] or "none"
        raise UsageError(f"{path} has {'no' if name not in header else 'more than one'} column {name} among: {columns}")
    return list(header).index(name)


@dataclass(frozen=True, slots=True)
class _File:
    columns: Sequence[str]
    rows: int
    batches: Callable[[list[str]], Iterator[Any]]


@contextmanager
def _opened(path: Path) -> Iterator[_File]:
    from pyarrow import OSFile
    from pyarrow.ipc import IpcReadOptions, open_file
    from pyarrow.parquet import ParquetFile

    with ExitStack() as held:
        if path.suffix in PARQUET:
            file = held.enter_context(ParquetFile(held.enter_context(path.open("rb")), buffer_size=_BUFFER))
            yield _File(
                file.schema_arrow.names,
                file.metadata.num_rows,
                lambda wanted: file.iter_batches(ROWS, columns=wanted),
            )
            return
        stream = held.enter_context(OSFile(str(path)))
        schema = open_file(stream).schema

        def batches(wanted: list[str]) -> Iterator[Any]:
            some = open_file(
                stream, options=IpcReadOptions(included_fields=[schema.names.index(name) for name in wanted])
            )
            left = _ROWS_A_BYTE * path.stat().st_size
            for number in range(some.num_record_batches):
                batch = some.get_batch(number)
                batch.validate(full=True)  # nothing before this looks at offsets and lengths that a stranger wrote
                if (left := left - batch.num_rows) < 0:
                    raise UsageError(f"{path} cannot be read: it speaks of more rows than fit into its bytes")
                for first in range(0, batch.num_rows, ROWS):
                    yield batch.slice(first, ROWS)

        yield _File(schema.names, 0, batches)


def _cells(column: Any) -> list[Any]:
    """Python's times know microseconds and no less, and the years 1 to 9999; Arrow's text need not be UTF-8."""
    from pyarrow import ArrowInvalid, int64, types

    if types.is_timestamp(column.type):  # since 1970 in UTC, whatever zone it is to be shown in
        unit = _UNITS[column.type.unit]
        return [None if count is None else _moment(count * unit) for count in column.cast(int64()).to_pylist()]
    try:
        cells: list[Any] = column.to_pylist()
    except (ValueError, OverflowError, ArrowInvalid):
        return [_cell(scalar) for scalar in column]
    return cells


def _moment(microseconds: Fraction) -> Any:
    try:
        return EPOCH + timedelta(microseconds=floor(microseconds))
    except OverflowError:
        return _Unreadable()


def _cell(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError):
        return _Unreadable()


class _Unreadable:
    def __str__(self) -> str:
        return "that Python has no value for"
