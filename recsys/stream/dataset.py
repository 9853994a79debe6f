"""Recorded events in Parquet or Arrow, one file or a folder of files, read in batches (``recsys.data.arrow``).

Each file is a part, read to its end before the next. A file is known by its size and a digest of its last bytes, where
both formats say what is in it: one that was replaced after some of it was read is an error, and so is one that is gone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Mapping, Set
from datetime import date
from hashlib import sha256
from itertools import islice
from pathlib import Path

from recsys.data import arrow
from recsys.data.tables import moment_of
from recsys.stream.events import Message, Position
from secagg.errors import StorageError

_LAST = 1 << 16
_MICRO = 10**6


class Dataset:
    """Columns with the user, the item, and the time: whole seconds since 1970, or dates and times as Arrow has them."""

    def __init__(
        self,
        path: str | Path,
        positions: Mapping[str, Position],
        *,
        user: str = "user",
        item: str = "item",
        time: str = "time",
    ) -> None:
        self._files = arrow.files(Path(path))
        self._names = [user, item, time]
        self._positions = dict(positions)
        names = [file.name for file in self._files]
        if missing := sorted(positions.keys() - set(names)):
            raise StorageError(f"{missing[0]} was read before, and is not in {path}: what it has would be lost")
        for file in self._files:
            if file.name in positions and positions[file.name].mark != _mark(file):
                raise StorageError(f"{file} was read before, and is another one by now")
        self._rows = self._read()

    def read(self, most: int, without: Set[str] = frozenset()) -> list[Message]:
        if without:
            return []
        return list(islice(self._rows, most))

    def acknowledge(self, positions: Mapping[str, Position]) -> None:
        """A file forgets nothing."""

    def close(self) -> None:
        self._rows.close()

    def _read(self) -> Generator[Message, None, None]:
        for file in self._files:
            mark = _mark(file)
            offset = self._positions.get(file.name, Position()).offset
            for batch in arrow.rows(file, self._names, skip=offset):
                for cells in batch:
                    data, at = _as_json(*cells), Position(offset, mark=mark)
                    yield Message(file.name, at, Position(offset := offset + 1, mark=mark), data)


def _as_json(user: object, item: object, time: object) -> bytes:
    """The event as a line has it. What is no event in a table is none in JSON either."""
    if isinstance(time, date):
        try:
            time = moment_of(time)[0] // _MICRO
        except (ValueError, OverflowError):
            time = None
    return json.dumps({"user": user, "item": item, "time": time}, default=lambda value: None).encode()


def _mark(path: Path) -> str:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _LAST))
            return f"{size}:{sha256(file.read()).hexdigest()[:32]}"
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from None
