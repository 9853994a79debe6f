"""Whoever opens a connection to SQLite closes it.

From Python 3.13 on, a connection that is collected while it is open is a ``ResourceWarning``, in whichever test runs at
that moment. Here every Python says so, and of the test in which it was opened (``tests/conftest.py``): an adapter or a
run that leaves one open fails it. What a test opens itself lives as long as the test, and is closed for it.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

_OWNED_BY_CALLERS = ("protocols/journal.py", "dp/ledger/file.py", "tests/connections.py")
_TESTS = Path(__file__).parent

_open: dict[int, tuple[Watched, str, bool]] = {}


class Watched(sqlite3.Connection):
    """Kept alive as long as it is open, so that what nobody closes is found whether it was collected or not."""

    def __init__(self, database: Any, *arguments: Any, **more: Any) -> None:
        super().__init__(database, *arguments, **more)
        _open[id(self)] = self, str(database), _is_a_test(_opener())

    def close(self) -> None:
        super().close()
        _open.pop(id(self), None)


def _opener() -> str:
    """The file of the code that asked for a journal, a ledger or a bare connection."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename.endswith(_OWNED_BY_CALLERS) and frame.f_back is not None:
        frame = frame.f_back
    return frame.f_code.co_filename


def _is_a_test(path: str) -> bool:
    return Path(path).is_relative_to(_TESTS)


@contextmanager
def closed(*, tests_too: bool = False) -> Iterator[None]:
    """Fail if code that is no test has opened a connection in here, through ``sqlite3.connect``, and left it open.

    Those of tests are closed, or with ``tests_too`` a failure as well.
    """
    before = set(_open)
    yield
    left = [_open[key] for key in _open.keys() - before]
    for connection, _, _ in left:
        connection.close()
    forgotten = sorted(name for _, name, of_a_test in left if tests_too or not of_a_test)
    assert not forgotten, f"nobody closed {', '.join(forgotten)}"


def watch() -> None:
    """From now on ``sqlite3.connect`` opens connections that ``closed`` knows."""
    sqlite3.connect = partial(sqlite3.connect, factory=Watched)  # type: ignore[assignment]
