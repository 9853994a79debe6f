"""``secagg config``: every key of a configuration file, with its meaning and its default."""

from __future__ import annotations

from dataclasses import asdict

import typer

from recsys.documented import as_toml, keys
from secagg.cli.output import Json, emit, say

app = typer.Typer()


@app.command()
def config(as_json: Json = False) -> None:
    """Print a configuration for train with every key at its default, and what it means above it.

    The output is such a file itself: secagg config > mine.toml
    """
    if as_json:
        emit(as_json, {"keys": [asdict(key) for key in keys()]}, "")
        return
    for line in as_toml().splitlines():
        say(line)
