"""The keys of what is sealed at rest, for every command that reads or writes it: from an option, or the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secagg.at_rest import KEY_FILE, KEYS, Keyring

KeyringFile = Annotated[
    Path | None,
    typer.Option(
        "--keyring", help=f"File with the keys of what is sealed at rest; default: what ${KEY_FILE} or ${KEYS} says."
    ),
]
"""The option: ``keyring: KeyringFile = None``."""


def keys_of(file: Path | None) -> Keyring | None:
    """The keys in this file, or those that the environment gives; None if there are none: all is plain then."""
    return Keyring.of_environment() if file is None else Keyring.load(file)
