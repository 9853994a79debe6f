"""``secagg bench``: measure one case; ratios are taken within the run."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Annotated

import typer
from rich.table import Table

from benchmarks.case import CASES, QUICK, Report, run_case
from secagg.cli.output import Json, emit, row, say
from secagg.errors import UsageError

app = typer.Typer()


@app.command(epilog="\n\n".join(f"{name}: {what}" for name, what in CASES.items()))
def bench(
    case: Annotated[str, typer.Argument()],
    settings: Annotated[list[str] | None, typer.Option("--set", help="key=value, over the case's defaults.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A small version of the case, where there is one.")] = False,
    as_json: Json = False,
) -> None:
    """Run a benchmark, one of those below, and print its configuration, figures and ratios."""
    if quick and case not in QUICK:
        raise UsageError(f"there is no quick version of {case!r}, but of {', '.join(QUICK)}")
    small = QUICK[case] if quick else ()
    report = run_case(case, [*small, *(settings or [])], partial(say, aside=True))
    emit(as_json, asdict(report), _table(report))


def _table(report: Report) -> Table:
    table = Table(title=f"{report.case} at {report.commit}", caption=f"{report.machine}")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in {**report.figures, **{f"ratio {name}": value for name, value in report.ratios.items()}}.items():
        row(table, name, f"{value:,.4g}")
    return table
