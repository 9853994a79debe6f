"""``secagg export``: what of a run can be handed on, as one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group

from dp.ledger.file import read
from dp.ledger.state import replay
from recsys.export import export as pack
from recsys.run_record import FILE, LEDGERS, Run
from secagg.cli.output import Json, emit, facts, line

app = typer.Typer()


@app.command()
def export(
    run_dir: Annotated[Path, typer.Argument(help=f"A run's directory, with its {FILE}.", metavar="RUN_DIR")],
    out: Annotated[Path | None, typer.Option(help="The new tar file; default: RUN_DIR's name with .tar, here.")] = None,
    model: Annotated[
        bool | None,
        typer.Option("--model/--no-model", help="Pack model.safetensors; default: if the run promises privacy."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Pack what others may see of a run that has ended: configuration, record, report, ledgers and their public key.

    Nothing of RUN_DIR/private is packed. An existing file is never overwritten. A ledger that several runs share is
    not packed: hand on that file and the .pub beside it. Whoever unpacks it checks it with dp/verify_ledger.py, or
    secagg ledger verify, under the key and heads that are printed here: tell them on another way than the archive.
    """
    run = Run.load(run_dir)
    made = out or Path(f"{run_dir.resolve().name}.tar")
    packed = pack(run_dir, made, model=bool(run.spendings) if model is None else model)
    left = [path for one in run.spendings for path in (one.ledger, one.key) if path not in packed]
    states = {name: replay(read(run_dir / name)) for name in LEDGERS if name in packed}
    heads = {name: state.head.hex() for name, state in states.items()}
    keys = {name: state.genesis.owner.hex() for name, state in states.items()}
    answer = {"file": str(made), "packed": packed, "elsewhere": left, "keys": keys, "heads": heads}
    more = {"not packed": ", ".join(left)} if left else {}
    told = [
        text
        for name in states
        for text in (line(f"key and head of {name}:"), line(keys[name], whole=True), line(heads[name], whole=True))
    ]
    emit(as_json, answer, Group(facts({"file": made, "packed": ", ".join(packed), **more}), *told))
