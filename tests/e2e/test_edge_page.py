"""The page in a browser: it recommends what the model does, in both forms, and asks for nothing that is not its own.

It needs chromium, and onnxruntime-web, which ``npm install --prefix build/web onnxruntime-web`` brings.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.browser import CHROMIUM, Page, browser, recommended_after, served
from recsys.models.mf import MatrixFactorisation
from recsys.serving import ServedModel

pytest.importorskip("onnxruntime", reason="NOT TESTED: models for devices need onnxruntime, pip install 'secagg[edge]'")

from recsys.edge.forms import form_of
from recsys.edge.web import library_of, pages

WEB = Path(__file__).resolve().parents[2] / "build" / "web" / "node_modules" / "onnxruntime-web" / "dist"
HOSTILE = "</script><img src=x onerror=\"document.title='caught'\">"
TITLES = [HOSTILE, *(f"Film {number:03}, or what happened in the meantime" for number in range(1, 200))]

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="NOT TESTED: the page needs chromium"),
    pytest.mark.skipif(not WEB.is_dir(), reason=f"NOT TESTED: the page needs onnxruntime-web in {WEB}"),
]


def model() -> MatrixFactorisation:
    made = MatrixFactorisation(width=8)
    made.begin(len(TITLES), seed=0)
    made.vector = np.random.default_rng(0).standard_normal(made.vector.size).astype(np.float32)
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("page")
    onnx = form_of(model()).onnx
    for name, data in {**pages(TITLES, "A model.", library_of(WEB), onnx), "model.onnx": onnx}.items():
        (place / name).write_bytes(data)
    return place


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with served(folder) as found:
        yield found


def chosen(page: Page, title: str) -> None:
    """Type the beginning of a title, and press the first button that it brings."""
    page.ask(
        f"""new Promise((done) => {{
            const search = document.getElementById("search");
            search.value = {json.dumps(title[:8])};
            search.dispatchEvent(new Event("input"));
            new MutationObserver(done).observe(document.getElementById("found"), {{ childList: true }});
            document.querySelector("#matches button").click();
        }}).then(() => 1)"""
    )


def texts(page: Page, place: str) -> Any:
    return page.ask(f"Array.from(document.querySelectorAll('#{place} li'), (one) => one.firstChild.textContent)")


@pytest.mark.parametrize("form", ["folder", pytest.param("file", marks=pytest.mark.long)])
def test_it_recommends_what_the_model_does(form: str, folder: Path, page: Page, address: str) -> None:
    expected = ServedModel(model(), TITLES)
    page.requests.clear()
    page.call("Page.navigate", url=f"{address}/index.html" if form == "folder" else (folder / "page.html").as_uri())
    recommended_after(page)
    history: list[str] = []
    for title in (None, TITLES[7], TITLES[100], HOSTILE):
        if title is not None:
            chosen(page, title)
            history.append(title)
        assert texts(page, "chosen") == history
        assert texts(page, "found") == [name for name, _ in expected.recommend(history).items]
    page.ask("const s = document.getElementById('search'); s.value = 'film'; s.dispatchEvent(new Event('input')); 1")
    assert page.ask("document.getElementById('hint').textContent") == "8 of 197 names"
    for place in ("found", "chosen", "matches"):  # no name's direction of writing changes what is beside it
        assert page.ask(f"document.querySelectorAll('#{place} li').length") > 0
        assert page.ask(f"document.querySelectorAll('#{place} li:not(:has(bdi))').length") == 0
    assert page.ask("document.images.length") == 0
    assert page.ask("document.title") == "Recommendations on this device"
    own = (f"{address}/", "blob:null/", (folder / "page.html").as_uri())
    assert page.requests
    assert [one for one in page.requests if not one.startswith(own)] == []


@pytest.mark.long
@pytest.mark.parametrize("form", ["folder", "file"])
def test_nothing_leaves_the_page(form: str, folder: Path, page: Page, address: str, tmp_path: Path) -> None:
    """The control: a page without a policy, from the same place, gets an answer from the same address."""
    (folder / "plain.html").write_text("<title>plain</title>")
    (tmp_path / "plain.html").write_text("")
    with served(tmp_path) as other:
        ask = f"fetch('{other}/plain.html', {{mode: 'no-cors'}}).then(() => 'answered', () => 'refused')"
        own = address if form == "folder" else folder.as_uri()
        for name, answer in (("plain.html", "answered"), ("page.html", "refused")):
            page.call("Page.navigate", url=f"{own}/{name}")
            page.ask("new Promise((done) => setTimeout(done, 200)).then(() => 1)")
            assert page.ask(ask) == answer


@pytest.mark.long
@pytest.mark.parametrize(("width", "height"), [(320, 640), (1280, 800)])
def test_it_fits_and_everything_has_a_name(width: int, height: int, page: Page, address: str, tmp_path: Path) -> None:
    page.call("Page.navigate", url=f"{address}/index.html")
    recommended_after(page)
    chosen(page, TITLES[7])
    page.ask("const s = document.getElementById('search'); s.value = 'film'; s.dispatchEvent(new Event('input')); 1")
    (tmp_path / "page.png").write_bytes(page.drawn(width, height))
    assert page.ask("document.documentElement.scrollWidth") <= width
    tree = page.call("Accessibility.getFullAXTree")["nodes"]
    named = [one for one in tree if one.get("role", {}).get("value") in ("button", "searchbox", "heading", "list")]
    assert len(named) > 10
    assert [one for one in named if one["role"]["value"] != "list" and not one.get("name", {}).get("value")] == []
    small = "Array.from(document.querySelectorAll('button, input')).filter((one) => one.offsetHeight < 44).length"
    assert page.ask(small) == 0
