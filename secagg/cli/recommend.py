"""``secagg recommend``: the best items for one history, by a trained model, on this machine."""

from __future__ import annotations

from codecs import BOM_UTF8
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recsys.run_record import FILE
from secagg.cli.keyring import KeyringFile, keys_of
from secagg.cli.output import Json, emit, line, row
from secagg.errors import DecodeError, UsageError
from secagg.extras import installed, need
from secagg.foreign import as_declared, named_file, parse_json
from secagg.signed_versions import Signatory

if TYPE_CHECKING:
    from rich.console import RenderableType

    from recsys.edge.signature import SignedManifest
    from recsys.serving import Recommended, ServedModel

app = typer.Typer()

_MOST_BYTES = 1 << 24
_SHOWN = 20
_KNOWN = "a folder that is known: --manifest with what export told, or --signed-by"


@app.command()
def recommend(
    path: Annotated[Path, typer.Argument(help="A run's directory, or a folder that secagg export --edge wrote.")],
    history: Annotated[
        Path, typer.Option(help="What the user took, oldest first: ids of items, one a line, or a JSON list.")
    ],
    k: Annotated[int, typer.Option("-k", help="How many items.")] = 10,
    explain: Annotated[int, typer.Option(help="With each, up to so many items of the history that spoke for it.")] = 0,
    manifest: Annotated[
        str | None, typer.Option(help="SHA-256 of the folder's manifest.json: another one is refused.")
    ] = None,
    signed_by: Annotated[
        str | None,
        typer.Option(metavar="NAME=HEXKEY", help="The deployment: a folder that it did not sign is refused."),
    ] = None,
    remember: Annotated[
        Path | None, typer.Option(help="With --signed-by: a file that keeps the newest number; older ones are refused.")
    ] = None,
    litert: Annotated[
        bool, typer.Option("--litert", help="By the folder's file for LiteRT; needs --manifest or --signed-by.")
    ] = False,
    approximate: Annotated[
        bool,
        typer.Option("--approximate", help="By the folder's index, about right; needs --manifest or --signed-by."),
    ] = False,
    keyring: KeyringFile = None,
    as_json: Json = False,
) -> None:
    """Recommend items to whoever took those in a file. Nothing is sent anywhere, and nothing is kept.

    Any history will do, also one that no model was trained on, or an empty one. A folder for devices needs the extra
    edge, or litert, and not torch. Its hashes are checked; what of a stranger's folder is believed is in docs/edge.md.
    """
    taken, signed = ids_in(history), _signed(path, signed_by, remember, manifest)
    manifest = manifest if signed is None else signed.sha256
    if approximate:
        if litert:
            raise UsageError("an index is searched by what ONNX Runtime says: --litert goes without --approximate")
        found = _approximately(path, manifest, taken, k, explain)
    else:
        found = served(path, manifest, keyring, litert=litert).recommend(taken, k, explain=explain)
    if signed is not None and remember is not None:
        signed.keep(remember)
    emit(as_json, _answer(found), _shown(found))


def ids_in(path: Path) -> list[str]:
    """The ids in a file: a JSON list of texts, or one a line, where spaces around them and empty lines say nothing."""
    data = named_file(path, most=_MOST_BYTES).removeprefix(BOM_UTF8)
    try:
        if data.lstrip().startswith(b"["):
            return list(as_declared(tuple[str, ...], parse_json(data)))
        return [text for one in data.decode().splitlines() if (text := one.strip())]
    except (DecodeError, UnicodeDecodeError):
        raise UsageError(f"{path} is no list of ids: one a line, in UTF-8, or a JSON list of texts") from None


def served(path: Path, known: str | None, keyring: Path | None = None, *, litert: bool = False) -> ServedModel:
    """The model of a folder for devices, by LiteRT if that is asked for or alone is there; or of a run that has
    ended."""
    from recsys.edge import folder

    if folder.is_folder(path):
        alone = (path / folder.LITE).exists() and installed("ai_edge_litert") and not installed("onnxruntime")
        if not (litert or alone):
            return folder.load(path, known)
        if known is None:
            raise UsageError(f"LiteRT reads {_KNOWN}")
        return folder.load_lite(path, known)
    from recsys.run_record import MODEL, Run

    if known is not None or litert:
        raise UsageError(f"there is no {folder.MANIFEST} in {path}")
    if not (path / FILE).exists():
        raise UsageError(f"there is no model in {path}: neither {FILE} nor {folder.MANIFEST}")
    from secagg.at_rest import Folder

    run_folder = Folder(path, keys_of(keyring))
    run = Run.load(run_folder)
    if not run.ended:
        raise UsageError(f"the run in {path} has not ended")
    run.check_kept(run_folder)
    need("train", "the model of a run")
    from recsys.models.store import load_in

    return load_in(run_folder, MODEL)


def _signed(path: Path, signed_by: str | None, remember: Path | None, known: str | None) -> SignedManifest | None:
    """What the deployment signed of a folder, if that is asked for."""
    if signed_by is None:
        if remember is not None:
            raise UsageError("--remember keeps the newest number of what is signed: it goes with --signed-by")
        return None
    if known is not None:
        raise UsageError("a signed manifest has the SHA-256 that was signed: --manifest goes without --signed-by")
    from recsys.edge.signature import signed

    return signed(path, Signatory.parse(signed_by), remember)


def _approximately(path: Path, known: str | None, taken: list[str], k: int, explain: int) -> Recommended:
    if explain:
        raise UsageError("reasons need all scores: --explain goes without --approximate")
    if known is None:
        raise UsageError(f"an index is read of {_KNOWN}")
    model = served(path, known)
    from recsys.edge.approximate import recommend as approximately
    from recsys.edge.folder import load_index

    return approximately(model, load_index(path, known), taken, k)


def _answer(found: Recommended) -> dict[str, object]:
    items: list[dict[str, object]] = [{"item": name, "score": score} for name, score in found.items]
    for one, why in zip(items, found.reasons, strict=False):
        one["because"] = [{"item": name, "adds": adds} for name, adds in why.items]
        one |= {name: value for name, value in (("others", why.others), ("apart", why.apart)) if value is not None}
    how = {} if found.how is None else {"how": found.how.value}
    return {"items": items, "unknown": list(found.unknown), **how}


def _shown(found: Recommended) -> RenderableType:
    from rich.console import Group
    from rich.table import Table

    table = Table("item", "score", *(["because of"] if found.how else []))
    for place, (name, score) in enumerate(found.items):
        why = found.reasons[place].items if found.reasons else ()
        because = ", ".join(f"{item} ({adds:+.3g})" for item, adds in why) or "nothing in the history"
        row(table, name, f"{score:.4g}", *([because] if found.how else []))
    told = [line(f"not known to the model: {', '.join(found.unknown[:_SHOWN])}")] if found.unknown else []
    if len(found.unknown) > _SHOWN:
        told.append(line(f"and {len(found.unknown) - _SHOWN} more"))
    return Group(table, *told)
