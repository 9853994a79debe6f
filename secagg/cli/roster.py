"""``secagg roster``: the names and public keys of all clients, which a deployment hands to each of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group
from rich.table import Table

from protocols.roster import Identity, Roster, load_signer
from secagg.cli.keyring import KeyringFile, keys_of
from secagg.cli.output import Json, emit, facts, row
from secagg.crypto.keys import check_on_curve
from secagg.errors import PeerError, UsageError
from secagg.signed_versions import Signatory, What

app = typer.Typer(
    name="roster", suggest_commands=False, help="Who takes part: names and public keys, handed out by the deployment."
)


@app.command()
def build(
    out: Annotated[Path, typer.Option(help="The file to make; an existing one is never overwritten.")],
    clients: Annotated[
        list[str] | None, typer.Argument(metavar="NAME=HEXKEY", help="Clients and the keys they announced.")
    ] = None,
    identity: Annotated[list[Path] | None, typer.Option(help="A client's identity file, where it is at hand.")] = None,
    keyring: KeyringFile = None,
    as_json: Json = False,
) -> None:
    """Put clients into a roster. Everybody who is to run rounds together needs this very file."""
    named = [_named(text) for text in clients or ()]
    keys = keys_of(keyring) if identity else None
    named += [(one.name, one.key.public) for one in (Identity.load(path, keys) for path in identity or ())]
    if len({name for name, _ in named}) != len(named):
        raise UsageError("a client is named twice")
    roster = Roster.build(dict(named))
    roster.save(out)
    _tell(as_json, roster, out)


@app.command()
def sign(
    file: Annotated[Path, typer.Argument(help="A roster.")],
    key: Annotated[Path, typer.Option(help="The deployment's own identity, as secagg keys new made it.")],
    out: Annotated[Path, typer.Option(help="The file to make; an existing one is never overwritten.")],
    version: Annotated[
        int | None, typer.Option(help="Its number; default: one more than the last one that this key signed.")
    ] = None,
    keyring: KeyringFile = None,
    as_json: Json = False,
) -> None:
    """Sign a roster as the deployment's next version. Clients whose policy is signed_by = NAME=HEXKEY take no other,
    and none that is older than the newest they have seen. What was signed last is remembered in KEY.versions."""
    signer = load_signer(key, keys_of(keyring))
    roster = Roster.load(file).signed(signer, version)
    roster.save(out)
    _tell(as_json, roster, out, str(signer.signatory))


@app.command()
def show(
    file: Annotated[Path, typer.Argument(help="A roster.")],
    signed_by: Annotated[
        str | None,
        typer.Option(metavar="NAME=HEXKEY", help="The deployment: a roster that it did not sign is refused."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show a roster, and the digest that its clients can compare with each other."""
    roster = Roster.load(file)
    if signed_by is not None:
        Signatory.parse(signed_by).check(What.ROSTER, roster.version, roster.whole)
    _tell(as_json, roster, file, signed_by)


def _named(text: str) -> tuple[str, bytes]:
    name, _, key = text.partition("=")
    if not re.fullmatch(r"[0-9A-Fa-f]{64}", key):
        raise UsageError(f"{text!r} is not NAME=HEXKEY, with a key of 64 hexadecimal digits")
    public = bytes.fromhex(key)
    try:
        check_on_curve(public, culprit=name)
    except PeerError as error:
        raise UsageError(str(error)) from None
    return name, public


def _tell(as_json: bool, roster: Roster, file: Path, signed_by: str | None = None) -> None:
    keys = [key.hex() for key in roster.keys]
    table = Table("client", box=None, pad_edge=False)
    table.columns[0].overflow = "fold"
    table.add_column("public key", no_wrap=True, min_width=64)
    for name, key in zip(roster.names, keys, strict=True):
        row(table, name, key)
    answer: dict[str, object] = {
        "file": str(file),
        "digest": roster.digest.hex(),
        "clients": [{"name": name, "public_key": key} for name, key in zip(roster.names, keys, strict=True)],
    }
    shown: dict[str, object] = {"digest": answer["digest"], "clients": len(roster)}
    if roster.version is not None:
        answer["version"] = shown["version"] = roster.version.number
        answer["signed_by"] = signed_by
        shown["signed by"] = signed_by or "not checked: --signed-by NAME=HEXKEY"
    emit(as_json, answer, Group(table, "", facts(shown)))
