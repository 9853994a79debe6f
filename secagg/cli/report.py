"""``secagg report``: what a run achieved, what it cost, and who could learn what, as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recsys.report import Account, write_report
from recsys.run_record import FILE
from secagg.at_rest import Folder
from secagg.cli.keyring import KeyringFile, keys_of
from secagg.cli.output import Json, emit, say
from secagg.errors import PeerError

app = typer.Typer()


@app.command()
def report(
    run_dir: Annotated[Path, typer.Argument(help=f"A run's directory, with its {FILE}.", metavar="RUN_DIR")],
    ledger: Annotated[Path | None, typer.Option(help="The ledger that the run shares with others.")] = None,
    out: Annotated[Path | None, typer.Option(help="The file to write; a run that is sealed needs one.")] = None,
    keyring: KeyringFile = None,
    as_json: Json = False,
) -> None:
    """Write the report of a run into its directory, and print where it is. What its ledger says counts.

    The report of a run that is sealed at rest is for reading, and so not sealed: --out says where it is to be.

    Exit code 4: record and ledger differ; the report says in what.
    """
    folder = Folder(run_dir, keys_of(keyring))
    account = Account.load(folder, ledger)
    path = write_report(folder, account, out)
    if as_json:
        emit(as_json, {"report": str(path), **account.figures()}, "")
    else:
        say(str(path))
    if account.differences:
        raise PeerError(f"record and ledger differ: {'; '.join(account.differences[:_NAMED])}")


_NAMED = 3
"""Differences, in a line."""
