"""A page that recommends in a browser: whoever opens it types what they took, and nothing leaves the page.

The library onnxruntime-web computes; its files come from its package at npm, and are in no package of ours. As a folder
the page is served by any web server; as one file, in which all others are, it is opened from the disk.

Titles may be a stranger's: they are data in JSON, and the page shows them as text and nothing else. Its policy (Content
Security Policy) allows what is in the folder or the file, and no other address: what it does not allow, the browser
does not do, whatever was in a title or a model. Markup out of texts is refused as well (Trusted Types).
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from gzip import compress
from hashlib import sha256
from html import escape
from pathlib import Path
from string import Template

from recsys.edge.folder import CODE, GRAPH, INDEX_PAGE, LIBRARY, ONE_FILE, STYLE, TITLES
from secagg.errors import UsageError
from secagg.foreign import named_file

_MOST_BYTES = 1 << 27
_HERE = Path(__file__).with_name("page")
_NOWHERE = "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"


def library_of(folder: Path) -> dict[str, bytes]:
    """The files of onnxruntime-web in the folder ``dist`` of its package."""
    if missing := [name for name in LIBRARY if not (folder / name).is_file()]:
        raise UsageError(f"{folder} is not the folder dist of the npm package onnxruntime-web: it has no {missing[0]}")
    return {name: named_file(folder / name, most=_MOST_BYTES) for name in LIBRARY}


def pages(titles: Sequence[str], origin: str, library: Mapping[str, bytes], model: bytes) -> dict[str, bytes]:
    """The page beside its files, to be served, and the page with all of them in itself, compressed. ``origin`` says of
    which model it is, and what is promised."""
    style, code = ((_HERE / name).read_text("utf-8") for name in (STYLE, CODE))
    files = {TITLES: json.dumps(list(titles)).encode(), **library}
    own = f"{_NOWHERE}; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; connect-src 'self'"
    linked = f'<link rel="stylesheet" href="{STYLE}">', f'<script type="module" src="{CODE}"></script>'
    alone = f"{_NOWHERE}; script-src {_hash(code)} blob: 'wasm-unsafe-eval'; style-src {_hash(style)}"
    data = "\n".join(
        f'<script type="application/octet-stream" id="{name}">{b64encode(compress(one, 6, mtime=0)).decode()}</script>'
        for name, one in {**files, GRAPH: model}.items()
    )
    inside = f"<style>{style}</style>", f'<script type="module">{code}</script>'
    return {
        INDEX_PAGE: _filled(own, origin, *linked),
        ONE_FILE: _filled(alone, origin, *inside, data),
        STYLE: style.encode(),
        CODE: code.encode(),
        **files,
    }


def _filled(policy: str, origin: str, style: str, script: str, data: str = "") -> bytes:
    text = Template((_HERE / "page.html").read_text("utf-8"))
    parts = {"policy": escape(policy), "origin": escape(origin), "style": style, "script": script, "data": data}
    return text.substitute(parts).encode()


def _hash(text: str) -> str:
    """How a policy names a text that stands in the page."""
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
