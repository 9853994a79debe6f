"""A journal whose process ends by SIGKILL at a moment: before a write, before a piece of a file, or at the end of one.

For scripts that tests run in a process of their own.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from protocols import journal as module
from protocols.journal import SqliteJournal


def end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class _Doomed:
    """A database that counts its writes."""

    def __init__(self, database: Any, tick: Callable[[], None]) -> None:
        self._database, self._tick = database, tick

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    def execute(self, *statement: Any) -> Any:
        if statement[0].split()[0] != "SELECT":
            self._tick()
        return self._database.execute(*statement)


def doom(journal: SqliteJournal, moments: int) -> Callable[[], int]:
    """From now on the process lives for so many moments more; how many are left, tells what is returned."""
    left, add, unlink = [moments], module.add_file, Path.unlink

    def tick() -> None:
        if not left[0]:
            end()
        left[0] -= 1

    def adding(path: Path, pieces: Iterable[bytes]) -> None:
        def each() -> Iterable[bytes]:
            for piece in pieces:
                tick()
                yield piece
            tick()

        add(path, each())

    def removing(path: Path, **options: Any) -> None:
        tick()
        unlink(path, **options)

    module.add_file, Path.unlink = adding, removing  # type: ignore[assignment, method-assign]
    journal._db = _Doomed(journal._db, tick)  # type: ignore[assignment]
    return lambda: left[0]
