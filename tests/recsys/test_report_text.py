"""Every text of a record, wherever it stands, comes into the report as text: tried with all of them, one by one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from recsys.report import markup, write_report
from recsys.run_record import FILE
from secagg.errors import SecAggError
from tests.scenes import runs

EVIL = "<script src=x>alert('\x1b[2J\x00\u202e')</script>\"&'"
SHOWN = "<script src=x>alert('\\u001b[2J\\u0000\\u202e')</script>\"&'"
KEPT = {"mode", "ledger", "unit", "relation", "trust"}
"""Fields that are refused with any other text than the ledger's, or the library's own."""


class Page(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.text += "".join(value or "" for name, value in attrs if name in ("aria-label", "content"))

    def handle_data(self, data: str) -> None:
        self.text += data


def evil(tree: Any, field: str = "") -> Any:
    """Every text, and every name in a mapping that the record leaves open."""
    if isinstance(tree, str):
        return tree if field in KEPT else EVIL
    if isinstance(tree, list):
        return [evil(part, field) for part in tree]
    if isinstance(tree, dict):
        open_names = field in ("config", "machine", "training")
        return {EVIL + name if open_names else name: evil(part, name) for name, part in tree.items()}
    return tree


def texts(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    for part in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from texts(part)


def made(folder: Path, mode: str = "distributed") -> dict[str, Any]:
    more = {"public": ("the catalogue",), "outside": ("exact ranks",), "others": "others", "machine": {"a": "b"}}
    runs.make(folder, mode, rounds=2, **more)
    found: dict[str, Any] = json.loads((folder / FILE).read_text())
    return found


def test_html_in_every_text(tmp_path: Path) -> None:
    record = made(tmp_path)
    honest = Page(write_report(tmp_path).read_text())
    changed = evil(record)
    changed["protocol"]["name"] = record["protocol"]["name"]
    assert sum(text == EVIL for text in texts(changed)) > 20
    runs.put(tmp_path, changed)
    html = write_report(tmp_path).read_text()
    found = Page(html)
    assert "script" not in found.tags
    assert set(found.tags) <= set(honest.tags)
    assert found.text.count(SHOWN) > 20
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", html)


def test_control_unescaped_it_is_a_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = made(tmp_path, "none")
    runs.put(tmp_path, record | {"title": EVIL})
    monkeypatch.setattr(markup, "escape", str)
    assert "script" in Page(write_report(tmp_path).read_text()).tags


def test_another_mode_is_refused(tmp_path: Path) -> None:
    runs.put(tmp_path, made(tmp_path) | {"mode": EVIL})
    with pytest.raises(SecAggError) as error:
        write_report(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.thinned(4)
@pytest.mark.parametrize("field", sorted(KEPT - {"mode"}))
def test_the_others_are_those_of_the_ledger(tmp_path: Path, field: str) -> None:
    """What the record says of them shows at most where it differs."""
    record = made(tmp_path)
    honest = Page(write_report(tmp_path).read_text())
    record |= {"spendings": [{**record["spendings"][0], field: EVIL}]}
    runs.put(tmp_path, record)
    found = Page(write_report(tmp_path).read_text())
    assert "script" not in found.tags
    assert honest.text.count("What was promised, and to whom") == found.text.count("What was promised, and to whom") > 0
