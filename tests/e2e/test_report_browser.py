"""The report in a real browser, on a phone and on a desktop: it opens with the verdict, plots are drawn, and nothing is
wider than the screen, whatever is unfolded.

The browser is Debian's chromium. It may reach nothing: the page is a file, and everything that it does by itself is
switched off. A frame of the screen's width holds the report as it is (a window cannot be as narrow as a phone), and a
script around it measures. Controls: a page that is too wide and plots without their curves are found.
"""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from html import escape, unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.browser import ALONE, CHROMIUM
from recsys.report import write_report
from tests.scenes import runs

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="NO BROWSER: apt-get install chromium, to see the report")

DARK = "--blink-settings=preferredColorScheme=0"
PHONE, DESKTOP, HEIGHT = 400, 1280, 8000
BLUE = {False: (0x0A, 0x58, 0xCA), True: (0x7D, 0xB3, 0xFF)}
"""--curve-0 by day and by night."""

FRAME = """<!doctype html><html><body style="margin: 0">
<iframe style="border: 0; width: %dpx; height: %dpx" srcdoc="%s"></iframe>
<script>
onload = () => {
  const page = document.querySelector("iframe").contentDocument;
  const boxes = [...page.querySelectorAll("svg.plot")].map(svg => svg.getBoundingClientRect());
  const top = one => Math.round(one.getBoundingClientRect().top);
  const first = page.querySelector(".outcome").getBoundingClientRect();
  const verdict = [first.top, first.bottom], parts = [...page.querySelectorAll(".parts h3")].map(top);
  const wide = page.documentElement.scrollWidth;
  page.querySelectorAll("details").forEach(one => { one.open = true; });
  const unfolded = page.documentElement.scrollWidth;
  page.querySelectorAll("details").forEach(one => { one.open = false; });
  const reached = [...page.querySelectorAll("a.term, summary")].filter(one => {
    one.focus();
    return page.activeElement === one;
  });
  page.activeElement.blur();
  page.defaultView.scrollTo(0, 0);
  document.documentElement.dataset.found = JSON.stringify({
    wide, unfolded, verdict, parts,
    words: page.querySelectorAll("a.term, summary").length,
    reached: reached.length,
    plots: boxes.map(box => [box.left, box.top, box.right, box.bottom]),
  });
};
</script></body></html>"""


@dataclass
class Seen:
    found: dict[str, Any]
    picture: np.ndarray[Any, Any]

    def inked(self, *, dark: bool = False) -> list[int]:
        """For each plot, how many pixels have the colour of its curve."""
        boxes = [[round(edge) for edge in box] for box in self.found["plots"]]
        return [
            int((np.abs(self.picture[top:bottom, left:right] - np.array(BLUE[dark])).max(axis=2) < 30).sum())
            for left, top, right, bottom in boxes
        ]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("run")
    runs.make(folder, "both")
    return write_report(folder).read_text()


def look(html: str, folder: Path, width: int, *more: str) -> Seen:
    """Show a page, and measure it."""
    (folder / "frame.html").write_text(FRAME % (width, HEIGHT, escape(html)))
    command = [str(CHROMIUM), *ALONE, *more, f"--user-data-dir={folder}/browser", f"--window-size={DESKTOP},{HEIGHT}"]
    command += [f"--screenshot={folder}/page.png", "--dump-dom", (folder / "frame.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    found = re.search('data-found="(.*?)"', done.stdout)
    assert found is not None
    with Image.open(folder / "page.png") as picture:
        assert picture.size == (DESKTOP, HEIGHT)
        return Seen(json.loads(unescape(found[1])), np.asarray(picture.convert("RGB"), np.int64))


@pytest.mark.thinned(2)
@needs_chromium
@pytest.mark.parametrize(("width", "dark"), [(PHONE, True), (DESKTOP, False)])
def test_plots_are_there_and_nothing_sticks_out(report: str, tmp_path: Path, width: int, dark: bool) -> None:
    seen = look(report, tmp_path, width, *([DARK] if dark else []))
    assert seen.found["wide"] == seen.found["unfolded"] == width
    top, bottom = seen.found["verdict"]
    assert 0 < top < 250
    assert top < bottom < 700, "whole on the first screen of a phone"
    assert bottom < min(seen.found["parts"])
    assert len(seen.found["parts"]) == 4
    assert max(seen.found["parts"]) < min(top for _left, top, _right, _bottom in seen.found["plots"])
    assert seen.found["reached"] == seen.found["words"] > 8
    assert len(seen.found["plots"]) == 3
    for left, top, right, bottom in seen.found["plots"]:
        assert right - left > 250
        assert bottom - top > 150
        assert 0 <= left < right <= width
        assert bottom < HEIGHT
    assert min(seen.inked(dark=dark)) > 300
    background = seen.picture[2, 2]
    assert background.max() < 60 if dark else background.min() > 250
    beside = len({round(top) for _left, top, _right, _bottom in seen.found["plots"]}) == 1
    assert beside == (width == DESKTOP)


@needs_chromium
def test_what_sticks_out_and_what_is_not_drawn_is_found(report: str, tmp_path: Path) -> None:
    broken, replaced = re.subn(r"overflow-x: auto; margin", "margin", report)
    assert replaced == 1
    empty = re.sub(r"var\(--curve-\d\)", "none", broken)
    seen = look(empty, tmp_path, PHONE)
    assert seen.found["wide"] > PHONE
    assert seen.found["unfolded"] > PHONE
    assert seen.inked() == [0, 0, 0]
