"""``secagg export``: what of a run can be handed on, as one file; or its model for devices, as a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group

from dp.ledger.file import read
from dp.ledger.state import replay
from protocols.roster import load_signer
from recsys.export import export as pack
from recsys.run_record import FILE, LEDGERS, Run
from secagg.at_rest import Folder
from secagg.cli.keyring import KeyringFile, keys_of
from secagg.cli.output import Json, emit, facts, line
from secagg.errors import UsageError
from secagg.signed_versions import Signer

app = typer.Typer()


@app.command()
def export(
    run_dir: Annotated[Path, typer.Argument(help=f"A run's directory, with its {FILE}.", metavar="RUN_DIR")],
    out: Annotated[
        Path | None, typer.Option(help="The new file or folder; default: RUN_DIR's name with .tar, or -edge, here.")
    ] = None,
    model: Annotated[
        bool | None,
        typer.Option("--model/--no-model", help="Pack model.safetensors; default: if the run promises privacy."),
    ] = None,
    edge: Annotated[
        bool, typer.Option("--edge", help="The model for devices instead: a folder that secagg recommend reads.")
    ] = False,
    int8: Annotated[bool, typer.Option("--int8", help="With --edge: bytes for numbers, a quarter of it.")] = False,
    index: Annotated[
        bool, typer.Option("--index", help="With --edge: an index for approximate search, for a million items.")
    ] = False,
    litert: Annotated[bool, typer.Option("--litert", help="With --edge: for LiteRT (TensorFlow Lite), too.")] = False,
    web: Annotated[
        Path | None,
        typer.Option(help="With --edge: a page for browsers, by the folder dist of the npm package onnxruntime-web."),
    ] = None,
    titles: Annotated[
        Path | None, typer.Option(help="With --web: a table of items (movies.csv, say) with their titles.")
    ] = None,
    sign: Annotated[
        Path | None, typer.Option(help="With --edge: the deployment's own identity, which signs the folder.")
    ] = None,
    version: Annotated[
        int | None,
        typer.Option(help="With --sign: its number; default: one more than the last one that this key signed."),
    ] = None,
    keyring: KeyringFile = None,
    as_json: Json = False,
) -> None:
    """Pack what others may see of a run that has ended: configuration, record, report, ledgers and their public key.

    Nothing of RUN_DIR/private is packed. An existing file is never overwritten. A ledger that several runs share is
    not packed: hand on that file and the .pub beside it. Of a run that is sealed at rest the archive has plain files.
    Whoever unpacks it checks it with dp/verify_ledger.py, or
    secagg ledger verify, under the key and heads that are printed here: tell them on another way than the archive.

    With --edge it is a folder with the model as ONNX, the ids of its items, and a manifest with hashes, what is
    promised, and the ledgers' heads: docs/edge.md. Nothing in it is about one user.
    """
    if edge:
        if model is not None:
            raise UsageError("--edge is the model and nothing else: --model and --no-model are for the tar file")
        if titles is not None and web is None:
            raise UsageError("--titles are for the page: they go with --web")
        if version is not None and sign is None:
            raise UsageError("--version is the number of what is signed: it goes with --sign")
        how = {"int8": int8, "index": index, "lite": litert, "web": web, "titles": titles}
        folder, signer = Folder(run_dir, keys_of(keyring)), None
        if sign is not None:
            signer = load_signer(sign, folder.keys)
        _for_devices(folder, out or Path(f"{run_dir.resolve().name}-edge"), how, signer, version, as_json)
        return
    if int8 or index or litert or web or titles or sign or version is not None:
        raise UsageError("--int8, --index, --litert, --web, --titles, --sign and --version go with --edge")
    folder = Folder(run_dir, keys_of(keyring))
    run = Run.load(folder)
    made = out or Path(f"{run_dir.resolve().name}.tar")
    packed = pack(folder, made, model=bool(run.spendings) if model is None else model)
    left = [path for one in run.spendings for path in (one.ledger, one.key) if path not in packed]
    states = {name: replay(read(folder / name, folder.keys)) for name in LEDGERS if name in packed}
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


def _for_devices(
    folder: Folder, out: Path, how: dict[str, Any], signer: Signer | None, number: int | None, as_json: bool
) -> None:
    Run.load(folder)
    from recsys.edge.exporting import export as write
    from recsys.edge.signature import signed, signing

    manifest, digest = write(folder, out, **how, sign=None if signer is None else signing(signer, number))
    sizes = {name: one.bytes for name, one in manifest.files.items()}
    promised = list(manifest.guarantee)
    shown: dict[str, object] = {
        "folder": out,
        "model": f"{manifest.model}, {manifest.items} items, {manifest.precision}",
        **{name: f"{size} bytes" for name, size in sizes.items()},
        "promised": " ".join(promised) or "nothing: it was trained without privacy",
    }
    answer: dict[str, object] = {
        "folder": str(out),
        "model": manifest.model,
        "bytes": sizes,
        "guarantee": promised,
        "manifest": digest,
    }
    if signer is not None:
        answer["version"] = shown["version"] = signed(out, signer.signatory).number
        answer["signed_by"] = shown["signed by"] = str(signer.signatory)
    emit(as_json, answer, Group(facts(shown), line("SHA-256 of its manifest.json:"), line(digest, whole=True)))
