"""``secagg report``: what a run achieved, what it cost, and who could learn what, as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recsys.record import FILE
from recsys.report import Account, write_report
from secagg.cli.output import Json, emit, say

app = typer.Typer()


@app.command()
def report(
    run_dir: Annotated[Path, typer.Argument(help=f"A run's directory, with its {FILE}.", metavar="RUN_DIR")],
    as_json: Json = False,
) -> None:
    """Write the report of a run into its directory, and print where it is."""
    path = write_report(run_dir)
    if as_json:
        emit(as_json, {"report": str(path), **Account.load(run_dir).figures()}, "")
    else:
        say(str(path))
