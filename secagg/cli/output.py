"""How a command answers: a table for people, or one JSON object on the last line for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on the last line.")]
"""The flag that every command takes: ``as_json: Json = False``."""


def emit(as_json: bool, answer: Mapping[str, object], human: RenderableType) -> None:
    """Print ``answer`` as JSON, or ``human`` (anything rich can render)."""
    if as_json:
        print(json.dumps(answer, allow_nan=False))
    else:
        from rich.console import Console

        Console().print(human, crop=False)  # a command to copy is one line, however long


def facts(values: Mapping[str, object]) -> RenderableType:
    """Named facts, one a line, as they are (no rich markup)."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="bold")
    grid.add_column(overflow="fold")
    for name, value in values.items():
        grid.add_row(Text(name.replace("_", " ")), Text(str(value)))
    return grid
