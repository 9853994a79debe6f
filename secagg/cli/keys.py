"""``secagg keys``: a client's long-term identity, in a file that only its owner can read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from protocols.roster import Identity
from secagg.cli.keyring import KeyringFile, keys_of
from secagg.cli.output import Json, emit, facts

app = typer.Typer(name="keys", suggest_commands=False, help="A client's long-term identity.")


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="How the roster is to name this client.")],
    out: Annotated[Path, typer.Option(help="The file to make; an existing one is never overwritten.")],
    keyring: KeyringFile = None,
    as_json: Json = False,
) -> None:
    """Make an identity. The public key that it prints goes into the roster, the file stays with the client."""
    identity = Identity.generate(name)
    identity.save(out, keys_of(keyring))
    answer = {"name": identity.name, "public_key": identity.key.public.hex(), "file": str(out)}
    emit(as_json, answer, facts(answer))
