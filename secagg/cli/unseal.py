"""``secagg unseal``: make plain again what is sealed at rest."""

from __future__ import annotations

import typer

from secagg.cli.keyring import KeyringFile
from secagg.cli.output import Json
from secagg.cli.seal import Paths, needed, tell

app = typer.Typer()


@app.command()
def unseal(paths: Paths = None, keyring: KeyringFile = None, as_json: Json = False) -> None:
    """Decrypt all that is in PATHS, where it is. It can be interrupted at any moment, and done again."""
    tell(paths or [], needed(keyring), None, as_json)
