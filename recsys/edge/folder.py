"""The folder that a device has of a model, and what of it is believed.

    manifest.json    what the others are, with the length and SHA-256 of each; what was promised about the model
    items.json       the ids of all items, in the order of their numbers
    model.onnx       the graph, from numbers of items to scores (``recsys.edge.graphs``)
    model.tflite     the same for LiteRT (``recsys.edge.lite``)
    index.usearch    for approximate search: all items' vectors, where scores are products with them
    index.html ...   a page for browsers (``recsys.edge.web``), and all that it needs
    signature.json   the deployment's signature on the manifest, if it signed that (``recsys.edge.signature``)

Nothing in it is about one user. The manifest's hashes find what was damaged or mixed up on the way, and whoever alters
all of it is not noticed, unless the manifest's own SHA-256, or the key under which it is signed, came on another way.
So a folder is read as a stranger's: only these names, plain files and no links, each of a bounded length and compared
with its hash before anything in it is looked at; a graph of known operations that reads no other file. What is left is
the code of those who parse a graph (onnx, ONNX Runtime), and as much time and memory as a graph asks for.

An index is parsed by code that believes what it reads, and of a file of LiteRT nobody knows which operations it has.
They are read only by who knows the manifest's SHA-256.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from recsys.serving import ServedModel
from secagg.errors import DecodeError, StorageError, UsageError
from secagg.files import read_file, write_file
from secagg.foreign import as_declared, parse_json

if TYPE_CHECKING:
    from usearch.index import Index

MANIFEST, ITEMS, GRAPH, INDEX, LITE = "manifest.json", "items.json", "model.onnx", "index.usearch", "model.tflite"
INDEX_PAGE, ONE_FILE, TITLES, STYLE, CODE = "index.html", "page.html", "titles.json", "page.css", "page.js"
SIGNATURE = "signature.json"
LIBRARY = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
"""Of onnxruntime-web: the library with what loads WebAssembly, and that."""
FORMAT = 1
_MOST_GRAPH = (1 << 30) + (1 << 24)
_MOST = {ITEMS: 1 << 26, GRAPH: _MOST_GRAPH, LITE: _MOST_GRAPH, INDEX: 1 << 33}
_PAGE = (INDEX_PAGE, ONE_FILE, TITLES, STYLE, CODE, *LIBRARY)
"""What is for browsers, and is not read here."""
_MOST_MANIFEST = 1 << 20


@dataclass(frozen=True, slots=True)
class Content:
    """What a file must be."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Head:
    """Where a ledger stands, and by whose key."""

    key: str
    head: str


@dataclass(frozen=True, slots=True)
class Manifest:
    model: str
    """the name of its class"""
    items: int
    precision: str
    """float32, or int8: tables of bytes, with a scale for each row"""
    trained: str
    """the SHA-256 of the model that it was made of, which is on the run's record"""
    files: Mapping[str, Content]
    guarantee: tuple[str, ...] = ()
    """what is promised to those whose data it was trained on, a sentence for each ledger; empty: nothing"""
    public: tuple[str, ...] = ()
    """what the promise takes as public"""
    outside: tuple[str, ...] = ()
    """what was computed from users' data and is charged to no budget"""
    ledgers: Mapping[str, Head] = field(default_factory=dict)
    """those of the run's own directory"""
    format: int = FORMAT


def write(
    folder: Path,
    files: Mapping[str, bytes | memoryview],
    manifest: Manifest,
    sign: Callable[[bytes], bytes] | None = None,
) -> str:
    """Make the folder, and the manifest last. Returns the manifest's SHA-256. ``UsageError`` if there is such a
    folder, or a file is longer than is read. ``sign`` makes the content of ``signature.json`` for a manifest."""
    if long := [name for name, data in files.items() if len(data) > _MOST.get(name, len(data))]:
        raise UsageError(f"the model is too large for a device: {long[0]} has more than {_MOST[long[0]]} bytes")
    text = json.dumps(asdict(manifest), indent=1, allow_nan=False).encode()
    signature = None if sign is None else sign(text)
    try:
        folder.mkdir()
    except FileExistsError:
        raise UsageError(f"{folder} exists already") from None
    except FileNotFoundError:
        raise UsageError(f"there is no {folder.parent} to make {folder.name} in") from None
    except OSError as error:
        raise StorageError(f"cannot make {folder}: {error.strerror}") from None
    for name, data in files.items():
        write_file(folder / name, data, private=False)
    if signature is not None:
        write_file(folder / SIGNATURE, signature, private=False)
    write_file(folder / MANIFEST, text, private=False)
    return sha256(text).hexdigest()


def content(data: bytes | memoryview) -> Content:
    return Content(len(data), sha256(data).hexdigest())


def is_folder(folder: Path) -> bool:
    return (folder / MANIFEST).is_file()


def load_manifest(folder: Path, digest: str | None = None) -> Manifest:
    """``DecodeError`` if it is none of this format, or not the one whose SHA-256 is ``digest``."""
    return read_manifest(folder, digest)[0]


def read_manifest(folder: Path, digest: str | None = None) -> tuple[Manifest, str]:
    """The same, and its SHA-256."""
    path = folder / MANIFEST
    try:
        found = content(data := read_file(path, most=_MOST_MANIFEST)).sha256
        if digest is not None and found != digest.lower():
            raise DecodeError("its SHA-256 is another one than was given")
        record = parse_json(data)
        if isinstance(record, dict) and (version := record.get("format")) != FORMAT:
            raise DecodeError(f"this release reads folders of format {FORMAT}, and not {str(version)[:20]!r}")
        manifest: Manifest = as_declared(Manifest, record)
    except FileNotFoundError:
        raise UsageError(f"there is no {MANIFEST} in {folder}") from None
    except DecodeError as error:
        raise DecodeError(f"{path} is not the manifest of a model for devices: {error}") from None
    known = (*_MOST, *_PAGE)
    if not {ITEMS, GRAPH} <= manifest.files.keys() <= set(known):
        raise DecodeError(f"{path} names other files than {', '.join(known)}")
    return manifest, found


def load(folder: Path, digest: str | None = None) -> ServedModel:
    """The model, which scores by ONNX Runtime; ``digest``: only if that is the SHA-256 of its manifest."""
    from recsys.edge.graphs import check
    from recsys.edge.on_device import on_device

    manifest = load_manifest(folder, digest)
    graph, ids = file_of(folder, manifest, GRAPH), _ids(folder, manifest)
    check(graph)
    return ServedModel(on_device(graph), ids)


def load_lite(folder: Path, digest: str) -> ServedModel:
    """The model, which scores by LiteRT, of a folder whose manifest has this SHA-256. ``UsageError`` if it was exported
    without."""
    from recsys.edge.on_lite import OnLiteRt

    manifest = load_manifest(folder, digest)
    if LITE not in manifest.files:
        raise UsageError(f"{folder} was exported without a file for LiteRT")
    return ServedModel(OnLiteRt(file_of(folder, manifest, LITE)), _ids(folder, manifest))


def _ids(folder: Path, manifest: Manifest) -> tuple[str, ...]:
    ids: tuple[str, ...] = as_declared(tuple[str, ...], parse_json(file_of(folder, manifest, ITEMS)), ITEMS)
    if len(ids) != manifest.items or len(set(ids)) != len(ids):
        raise DecodeError(f"{folder / ITEMS} has other items than the manifest says")
    return ids


def load_index(folder: Path, digest: str) -> Index:
    """The index of a folder whose manifest has this SHA-256. ``UsageError`` if it was exported without one."""
    from recsys.edge.approximate import opened

    manifest = load_manifest(folder, digest)
    if INDEX not in manifest.files:
        raise UsageError(f"{folder} was exported without an index for approximate search")
    return opened(file_of(folder, manifest, INDEX), manifest.items)


def file_of(folder: Path, manifest: Manifest, name: str) -> bytes:
    """The bytes of one of the files. ``DecodeError`` if it is another one than the manifest says."""
    path, said = folder / name, manifest.files[name]
    try:
        data = read_file(path, most=min(max(said.bytes, 0), _MOST[name]))
    except FileNotFoundError:
        raise UsageError(f"there is no {path}") from None
    if content(data) != said:
        raise DecodeError(f"{path} is damaged, or another one: its length or SHA-256 is not that of {MANIFEST}")
    return data
