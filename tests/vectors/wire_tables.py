"""The tables of docs/wire.md, from the layouts in ``tests.vectors.verify``: ``python -m tests.vectors.wire_tables``."""

from __future__ import annotations

import re
from pathlib import Path

from tests.vectors.verify import COMMON, PROTOCOLS, Known

PAGE = Path(__file__).parents[2] / "docs" / "wire.md"


def table(known: Known, types: dict[int, str]) -> str:
    numbers = {name: str(number) for number, name in types.items()}
    rows = [
        f"| {numbers.get(name, '')} | `{name}` | {', '.join(f'{field} `{kind}`' for field, kind in fields.items())} |"
        for name, fields in known.items()
    ]
    escaped = [re.sub(r"`([^`]*)`", lambda match: "`" + match[1].replace("|", "\\|") + "`", row) for row in rows]
    return "\n".join(["| number | structure | fields, in order |", "| --- | --- | --- |", *escaped])


def tables() -> dict[str, str]:
    """Name -> table; ``secagg`` and ``secagg+`` have one."""
    found = {"common": table(COMMON, {})}
    return found | {name: table(known, types) for name, (_, known, types) in PROTOCOLS.items() if name != "secagg"}


def renewed(page: str) -> str:
    """The page with each table below the line that names it."""
    for name, text in tables().items():
        mark = f"<!-- table: {name} -->"
        if page.count(mark) != 1:
            raise ValueError(f"the page has no place for the table of {name}")
        before, after = page.split(mark)
        rest = re.sub(r"\A(\n*\|.*)*", "", after)
        page = f"{before}{mark}\n\n{text}{rest}"
    return page


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text()))
