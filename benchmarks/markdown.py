"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    r"""One line a row; a row that is short is filled with empty cells.

    >>> print(table(["a", "b"], [["1", "2|3"], ["4"]]), end="")
    | a | b |
    | --- | --- |
    | 1 | 2\|3 |
    | 4 |  |
    """
    lines = [titles, ["---"] * len(titles), *([*row, *[""] * (len(titles) - len(row))] for row in rows)]
    escaped = ([" ".join(cell.replace("|", r"\|").split()) for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)
