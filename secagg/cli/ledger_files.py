"""Ledgers and keys as the commands about ledgers are told them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dp.ledger.file import FILE
from secagg.errors import UsageError
from secagg.foreign import named_file

RunDir = Annotated[Path, typer.Argument(help=f"A run's directory with its {FILE}, or a ledger.", metavar="RUN_DIR")]

_KEY_FILE_BYTES = 1 << 12


def file_of(path: Path) -> Path:
    """The ledger of a run's directory, or the one that this is."""
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise UsageError(f"there is no ledger at {file}")
    return file


def key_in(path: Path | None) -> bytes | None:
    """The key in a file, if one is named."""
    return None if path is None else hexadecimal(named_file(path, most=_KEY_FILE_BYTES).decode(errors="replace"))


def hexadecimal(text: str) -> bytes:
    """A key or a head."""
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(found) != 32:
        raise UsageError("a key or head is 64 hexadecimal digits")
    return found
