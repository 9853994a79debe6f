"""How a command answers: a table for people, or one JSON object on the last line for programs.

All that a command prints goes through here, because most of it can come from strangers (the folder of somebody else's
run, say): each line consists of characters that are seen, so that a terminal shows it and obeys nothing in it. Texts
are no markup either.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from secagg.printable import printable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.table import Table
    from rich.text import Text

WIDTH = 80
"""Columns of a terminal that running text is wrapped for."""

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on the last line.")]
"""The flag that every command takes: ``as_json: Json = False``."""


def say(line: str, *, aside: bool = False) -> None:
    """Print one line; ``aside``: to the standard error. ``ReaderGone`` if nobody reads it."""
    try:
        print(printable(line), file=sys.stderr if aside else sys.stdout, flush=True)
    except BrokenPipeError as error:
        raise ReaderGone from error


class ReaderGone(Exception):
    """Whoever read the output, like ``head``, has seen enough."""


def say_at_once(*lines: str) -> None:
    """Print lines to the standard error, even in the middle of another print: Python's own buffer is passed by."""
    os.write(2, "".join(f"{printable(line)}\n" for line in lines).encode(errors="backslashreplace"))


def emit(as_json: bool, answer: Mapping[str, object], human: RenderableType) -> None:
    """Print ``answer`` as JSON, or ``human`` (anything rich can render)."""
    if as_json:
        say(json.dumps(answer, allow_nan=False))
    else:
        terminal().print(Visible(human), crop=False)  # a command to copy is one line, however long


def terminal(*, aside: bool = False) -> Console:
    """Where tables go, each in ``Visible``; ``aside``: to the standard error."""
    from rich.console import Console

    return Console(stderr=aside, markup=False, emoji=False)


class Visible:
    """Anything rich can render, with whatever is not seen in it written out."""

    def __init__(self, shown: RenderableType) -> None:
        self._shown = shown

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.segment import Segment

        for text, style, control in console.render(self._shown, options):
            yield Segment("\n".join(map(printable, text.split("\n"))), style, control)


def line(words: object, *, whole: bool = False) -> Text:
    """One line as it is, and not as rich's markup; ``whole``: never broken up, however long."""
    from rich.text import Text

    return Text(printable(str(words)), no_wrap=whole or None, overflow="ignore" if whole else None)


def row(table: Table, *cells: str) -> None:
    """Add a row in which each cell is one line."""
    table.add_row(*map(line, cells))


def program() -> str:
    """How this program was called, for commands to copy: by its name, if a shell finds that."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return f"{quote(sys.executable)} -m secagg"
    known = any(os.access(Path(place) / "secagg", os.X_OK) for place in os.get_exec_path())
    return "secagg" if known or called.name != "secagg" else quote(str(called))


def as_argument(path: Path) -> str:
    """A path in a command to copy, which is no option whatever it is called."""
    return quote(f"./{path}" if str(path).startswith("-") else str(path))


def facts(values: Mapping[str, object]) -> RenderableType:
    """Named facts, one a line."""
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="bold")
    grid.add_column(overflow="fold")
    for name, value in values.items():
        row(grid, name.replace("_", " "), str(value))
    return grid
