"""The files of the page, and what may not be in them. ``tests/e2e/test_edge_page.py`` opens it in a browser."""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from gzip import decompress
from hashlib import sha256
from html import unescape
from pathlib import Path

import pytest

from secagg.cli import main
from secagg.errors import UsageError
from tests.scenes.run_with_model import recorded
from tests.scenes.runs import make
from tests.scenes.stored_models import ITEMS, events

pytest.importorskip("onnxruntime", reason="NOT TESTED: models for devices need onnxruntime, pip install 'secagg[edge]'")

from recsys.edge import folder
from recsys.edge.web import LIBRARY, library_of, pages

HOSTILE = ["</script><script>alert(1)</script>", "<img src=x onerror=alert(2)>"]
FILES = pages(HOSTILE, "A <b>model</b>", {name: name.encode() for name in LIBRARY}, b"the model")


def policy(name: str) -> str:
    found = re.search(rb'Content-Security-Policy" content="([^"]*)"', FILES[name])
    assert found is not None
    return unescape(found[1].decode())


def test_no_text_of_others_is_markup() -> None:
    for name in ("index.html", "page.html"):
        assert b"alert" not in FILES[name]
        assert b"A &lt;b&gt;model&lt;/b&gt;" in FILES[name]
    assert json.loads(FILES["titles.json"]) == HOSTILE
    assert not re.search(rb"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", FILES["page.js"])


def test_the_policy_allows_what_is_there_and_nothing_else() -> None:
    for name in ("index.html", "page.html"):
        assert policy(name).startswith("default-src 'none'; ")
        assert "unsafe-inline" not in policy(name)
        assert "http" not in policy(name)
        for part in ("require-trusted-types-for 'script'", "base-uri 'none'", "form-action 'none'"):
            assert part in policy(name)
    assert "connect-src 'self'" in policy("index.html")
    assert "connect-src" not in policy("page.html")
    for name in ("page.js", "page.css"):
        assert f"'sha256-{b64encode(sha256(FILES[name]).digest()).decode()}'" in policy("page.html")
        assert FILES[name] in FILES["page.html"]


def test_one_file_has_all_that_the_page_reads() -> None:
    inside = re.findall(rb'<script type="application/octet-stream" id="([^"]*)">([^<]*)</script>', FILES["page.html"])
    found = {name.decode(): decompress(b64decode(data)) for name, data in inside}
    expected = {name: FILES[name] for name in ("titles.json", *LIBRARY)} | {"model.onnx": b"the model"}
    assert found == expected
    for name in expected:
        assert f'"{name}"'.encode() in FILES["page.js"]


def test_a_folder_without_the_library_is_refused(tmp_path: Path) -> None:
    (tmp_path / LIBRARY[0]).write_bytes(b"")
    with pytest.raises(UsageError, match="not the folder dist of the npm package onnxruntime-web: it has no ort-wasm"):
        library_of(tmp_path)
    (tmp_path / LIBRARY[1]).write_bytes(b"")
    assert library_of(tmp_path) == dict.fromkeys(LIBRARY, b"")


def test_the_command_writes_the_page_with_titles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from recsys.models.popularity import ItemPop

    monkeypatch.chdir(tmp_path)
    for name in ("run", "dist"):
        Path(name).mkdir()
    for name in LIBRARY:
        Path("dist", name).write_bytes(b"library")
    make(Path("run"), "none")
    (model := ItemPop()).fit(events())
    recorded(Path("run"), model)
    Path("items.csv").write_text(f"item,title,year\n{ITEMS[1]},Alien,1979\n{ITEMS[2]},Big,\nother,Nothing,\n")
    words = ["export", "run", "--edge", "--web", "dist"]
    assert main([*words, "--titles", "items.csv", "--out", "device"]) == 0
    assert json.loads(Path("device", "titles.json").read_text())[:4] == [ITEMS[0], "Alien (1979)", "Big", ITEMS[3]]
    manifest = folder.load_manifest(Path("device"))
    names = {path.name for path in Path("device").iterdir()}
    assert manifest.files.keys() == names - {"manifest.json"}
    assert len(names) == 10
    assert "ItemPop, 30 items; trained without privacy" in Path("device", "index.html").read_text()
    assert folder.load(Path("device")).item_ids == tuple(ITEMS)
    assert main(words) == 0
    assert json.loads(Path("run-edge", "titles.json").read_text()) == ITEMS
    for wrong in (["--web", "run"], ["--titles", "items.csv"], ["--web", "dist", "--titles", "missing"]):
        assert main(["export", "run", "--edge", "--out", "other", *wrong]) == 2
        assert not Path("other").exists()
    capsys.readouterr()
    assert main(["export", "run", "--web", "dist"]) == 2
