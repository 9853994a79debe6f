"""``secagg seal``: encrypt at rest what is on the disk, or bring it under a newer key; ``secagg unseal`` undoes it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secagg.at_rest import KEY_FILE, Keyring, add_key
from secagg.cli.keyring import KeyringFile, keys_of
from secagg.cli.output import Json, emit, facts
from secagg.errors import UsageError

app = typer.Typer()

Paths = Annotated[
    list[Path] | None, typer.Argument(help="Directories of runs, ledgers, journals and identities.", metavar="PATH...")
]


@app.command()
def seal(
    paths: Paths = None,
    keyring: KeyringFile = None,
    new_key: Annotated[
        Path | None, typer.Option(help="First make a key, and put it on top of this file, which is made if need be.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Bring all that is in PATHS under the newest key, whether it is plain, or sealed under an older one.

    It can be interrupted at any moment, and done again. A run that is being trained is left alone: it is locked. What
    is sealed, and what is not, is in docs/at_rest.md.
    """
    if new_key is not None:
        if keyring is not None:
            raise UsageError("--new-key names the file of keys: it goes without --keyring")
        add_key(new_key)
        keyring = new_key
    keys = needed(keyring)
    tell(paths or [], keys, keys, as_json)


def needed(file: Path | None) -> Keyring:
    """The keys; refused if there are none."""
    keys = keys_of(file)
    if keys is None:
        raise UsageError(
            f"there is no key: --keyring or {KEY_FILE} names its file, and secagg seal --new-key makes one"
        )
    return keys


def tell(paths: list[Path], opening: Keyring, sealing: Keyring | None, as_json: bool) -> None:
    """Do it, and say what was done."""
    from recsys.sealing import reseal

    done = [reseal(path, opening, sealing) for path in paths]
    found = {
        "changed": [str(path) for one in done for path in one.changed],
        "removed": [str(path) for one in done for path in one.removed],
        "mixed": [str(path) for one in done for path in one.mixed],
        "left": [str(path) for one in done for path in one.left],
    }
    answer = {"key": None if sealing is None else sealing.newest, **found}
    names = {
        "changed": "sealed" if sealing is not None else "plain again",
        "mixed": "were plain beside sealed ones",
        "left": "left as they are",
    }
    shown = {"key": answer["key"]} if sealing is not None else {}
    shown |= {
        names.get(name, name): ", ".join(some) or "nothing" for name, some in found.items() if some or name == "changed"
    }
    emit(as_json, answer, facts(shown))
