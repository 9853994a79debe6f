"""From the directory of a run that has ended to the folder for devices (``recsys.edge.folder``).

The model's file, the run's record and its ledgers are read, and nothing of what is private.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from dp.ledger.file import read
from dp.ledger.state import replay
from recsys.edge.folder import GRAPH, INDEX, ITEMS, LITE, Head, Manifest, content, write
from recsys.edge.forms import form_of
from recsys.edge.web import library_of, pages
from recsys.export import check_ended
from recsys.models.store import load_in
from recsys.run_record import LEDGERS, MODEL, Run
from secagg.at_rest import AnyFolder, Folder
from secagg.errors import UsageError


def export(
    folder: AnyFolder,
    out: str | Path,
    *,
    int8: bool = False,
    index: bool = False,
    lite: bool = False,
    web: str | Path | None = None,
    titles: str | Path | None = None,
    sign: Callable[[bytes], bytes] | None = None,
) -> tuple[Manifest, str]:
    """Write the run's model for devices into the new folder ``out``; returns its manifest, and the SHA-256 of that.

    ``int8``: with bytes for numbers, a quarter of the size. ``index``: with one for approximate search. ``lite``:
    for LiteRT, too. ``web``: with a page for browsers, by the library in this folder; ``titles`` is a table with what
    it calls the items, or else it calls them by their ids. ``sign``: with the deployment's signature
    (``recsys.edge.signature.signing``). ``UsageError`` if the model has no form for devices, or no such vectors.
    """
    folder, out = Folder.of(folder), Path(out)
    run = Run.load(folder)
    run.check_kept(folder)
    check_ended(folder, run)
    served = load_in(folder, MODEL)
    form = form_of(served.model, int8=int8)
    files = {ITEMS: json.dumps(list(served.item_ids), ensure_ascii=False).encode(), GRAPH: form.onnx}
    if index:
        if form.vectors is None:
            raise UsageError(f"scores of {type(served.model).__name__} are no products of vectors: there is no index")
        from recsys.edge.approximate import built

        files[INDEX] = built(form.vectors)
    if lite:
        from recsys.edge.lite import converted

        files[LITE] = converted(form.onnx)
    promised = tuple(spending.words for spending in run.spendings)
    if web is not None:
        origin = f"{type(served.model).__name__}, {len(served.item_ids)} items; "
        origin += "; ".join(promised) or "trained without privacy"
        files |= pages(_titles(served.item_ids, titles), origin, library_of(Path(web)), form.onnx)
    states = {name: replay(read(folder / name, folder.keys)) for name in LEDGERS if folder.exists(name)}
    manifest = Manifest(
        model=type(served.model).__name__,
        items=len(served.item_ids),
        precision="int8" if int8 else "float32",
        trained=run.model,
        files={name: content(data) for name, data in files.items()},
        guarantee=promised,
        public=run.public,
        outside=run.outside,
        ledgers={name: Head(state.genesis.owner.hex(), state.head.hex()) for name, state in states.items()},
    )
    return manifest, write(out, files, manifest, sign)


def _titles(ids: Sequence[str], path: str | Path | None) -> list[str]:
    """What people call the items, as far as a table says so."""
    if path is None:
        return list(ids)
    from recsys.sources import items_of

    table = items_of(path)
    said = zip(table.ids, table.titles, table.years, strict=True)
    called = {name: f"{title} ({year})" if year else title for name, title, year in said if title}
    return [called.get(name, name) for name in ids]
