"""A few named facts, one a line, for people."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table
from rich.text import Text


def facts(values: Mapping[str, object]) -> Table:
    """Keys to the left, values to the right, wrapped where they must be and printed as they are (no rich markup)."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="bold")
    grid.add_column(overflow="fold")
    for name, value in values.items():
        grid.add_row(Text(name.replace("_", " ")), Text(str(value)))
    return grid
