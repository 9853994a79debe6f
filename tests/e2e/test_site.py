"""The documentation site, built as ``make docs`` does it: no warning, no broken link, nothing fetched, no page
that is wider than a phone.

The build executes the notebooks. Controls: a link and a page that are broken are found.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from benchmarks.browser import ALONE, CHROMIUM

pytest.importorskip("sphinx", reason="NOT TESTED: the site needs Sphinx, pip install 'secagg[docs]'")
pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
PHONE = 400
FRAMES = """<!doctype html><html><body><script>
const wide = {}, pages = %s;
const next = () => {
  const page = pages.shift();
  if (!page) { document.documentElement.dataset.found = JSON.stringify(wide); return; }
  const frame = document.createElement("iframe");
  frame.style = "border: 0; width: %dpx; height: 800px";
  frame.onload = () => {
    wide[page] = frame.contentDocument.documentElement.scrollWidth;
    frame.remove();
    next();
  };
  frame.src = page;
  document.body.append(frame);
};
next();
</script></body></html>"""


class Page(HTMLParser):
    """What a page points at, what it loads, and what in it can be pointed at."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.names: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.names |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        elif tag == "link" and "stylesheet" in found.get("rel", ""):
            self.loaded.append(found["href"])
        elif "src" in found:
            self.loaded.append(found["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs", "-d", str(folder / "trees")]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    built = subprocess.run(
        [*command, ".", str(folder / "html")], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    return folder / "html"


def read(site: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text("utf-8")) for path in site.rglob("*.html")}


def broken(pages: dict[Path, Page]) -> list[str]:
    found = []
    for path, page in pages.items():
        for link in [*page.links, *page.loaded]:
            if re.match(r"[a-z]+:", link):
                continue
            target, _, name = unquote(link).partition("#")
            there = (path.parent / target.partition("?")[0]).resolve() if target else path
            if not there.is_file() or (name and there in pages and name not in pages[there].names):
                found.append(f"{path.name}: {link}")
    return found


def test_links_lead_somewhere_and_nothing_is_fetched(site: Path) -> None:
    pages = read(site)
    assert len(pages) > 30
    assert broken(pages) == []
    assert [one for page in pages.values() for one in page.loaded if re.match(r"([a-z]+:)?//", one)] == []


def test_the_search_knows_the_words_of_a_newcomer(site: Path) -> None:
    words = json.loads(re.sub(r"^Search\.setIndex\(|\)$", "", (site / "searchindex.js").read_text("utf-8")))["terms"]
    assert words.keys() >= {"dropout", "epsilon", "flower", "csv", "resum", "ledger", "verifi"}
    assert "zebra" not in words


@pytest.mark.skipif(CHROMIUM is None, reason="NO BROWSER: apt-get install chromium, to see the site")
def test_no_page_is_wider_than_a_phone(site: Path, tmp_path: Path) -> None:
    wide = widths(site, sorted(site.glob("**/*.html")), tmp_path)
    assert {page: width for page, width in wide.items() if width > PHONE} == {}
    (site / "wide.html").write_text("<div style='width: 500px'>wide</div>")
    assert widths(site, [site / "wide.html"], tmp_path) == {"wide.html": 500 + 8}


def widths(site: Path, pages: list[Path], folder: Path) -> dict[str, int]:
    names = [page.relative_to(site).as_posix() for page in pages]
    (site / "frames.html").write_text(FRAMES % (json.dumps(names), PHONE))
    command = [
        str(CHROMIUM),
        *ALONE,
        "--allow-file-access-from-files",
        f"--user-data-dir={folder}/browser",
        "--virtual-time-budget=600000",
        "--dump-dom",
    ]
    shown = subprocess.run(
        [*command, (site / "frames.html").as_uri()], capture_output=True, text=True, check=True, timeout=300
    )
    (site / "frames.html").unlink()
    found = re.search('data-found="(.*?)"', shown.stdout)
    assert found is not None, shown.stderr
    return dict(json.loads(unescape(found[1])))


def test_control_what_leads_nowhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<a href="b.html#there"></a><a href="b.html#gone"></a><a href="gone.html"></a>')
    (tmp_path / "b.html").write_text('<p id="there"><img src="gone.png">')
    assert sorted(broken(read(tmp_path))) == ["a.html: b.html#gone", "a.html: gone.html", "b.html: gone.png"]
