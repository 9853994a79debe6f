"""The pages: each is in the table of contents, each link leads somewhere, and the reference has the whole facade.

Whether the site can be built, and what comes of it, is asked by ``e2e/test_site.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

import secagg
from secagg.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PACKAGES = ["secagg", "dp", "protocols", "recsys"]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(page for name in ("docs", "examples", "tests") for page in (ROOT / name).rglob("*.md"))]
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
TOCTREE = re.compile(r"```\{toctree\}\n(.*?)```", re.DOTALL)
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


def contents(page: Path, root: Path) -> Iterator[str]:
    """What a page's tables of contents name, as patterns of paths below the root, without suffix."""
    for body in TOCTREE.findall(page.read_text("utf-8")):
        for line in body.splitlines():
            name = line[line.rfind("<") + 1 :].rstrip(">")
            if name and not name.startswith(":"):
                yield name[1:] if name.startswith("/") else (page.parent / name).relative_to(root).as_posix()


def left_out(pages: list[Path], root: Path) -> list[str]:
    """Pages that no table of contents names, but for the first one."""
    patterns = [pattern for page in pages for pattern in contents(page, root)]
    names = [page.relative_to(root).with_suffix("").as_posix() for page in pages]
    return [name for name in names if name != "docs/index" and not any(_matches(name, one) for one in patterns)]


def _matches(name: str, pattern: str) -> bool:
    return fnmatch(name, pattern) and name.count("/") == pattern.count("/")


@cache
def anchors(page: Path) -> set[str]:
    """What a heading is called in a link: its words in lower case, joined."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", FENCED.sub("", page.read_text("utf-8")), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", LINK.sub("]", heading).lower()).replace(" ", "-")
        number = next(i for i in range(len(found) + 1) if (f"{slug}-{i}" if i else slug) not in found)
        found.add(f"{slug}-{number}" if number else slug)
    return found


def broken(page: Path) -> list[str]:
    """Links of a page to what is not there: files, and headings of pages."""
    found = []
    for target in LINK.findall(FENCED.sub("", page.read_text("utf-8"))):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        other = page.parent / path if path else page
        if not other.is_file() or (anchor and anchor not in anchors(other)):
            found.append(target)
    return found


def test_every_page_is_in_the_table_of_contents() -> None:
    assert len(PAGES) > 20
    assert left_out(PAGES, ROOT) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    assert broken(page) == []


def test_control_what_is_left_out_or_leads_nowhere_is_found(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    index, there = docs / "index.md", docs / "there.md"
    index.write_text(
        "[a](there.md) [b](gone.md) [c](there.md#a-b-c) [d](there.md#gone) [e](#gone)\n\n```{toctree}\nth*\n```\n"
    )
    there.write_text("# A (`b`) c\n\n```\n# gone\n```\n")
    (docs / "this").mkdir()
    (docs / "this" / "lost.md").write_text("# Lost\n")
    assert broken(index) == ["gone.md", "there.md#gone", "#gone"]
    assert left_out([index, there, docs / "this" / "lost.md"], tmp_path) == ["docs/this/lost"]


def test_the_reference_has_every_command() -> None:
    shown = re.findall(r'^show\("(\w+)"\)$', (DOCS / "reference" / "command.md").read_text("utf-8"), re.MULTILINE)
    assert shown == sorted(COMMANDS)


def test_the_reference_has_the_whole_facade() -> None:
    shown = re.findall(
        r"^\.\. auto\w+:: secagg\.(\w+)$", (DOCS / "reference" / "secagg.md").read_text("utf-8"), re.MULTILINE
    )
    assert sorted(shown) == [name for name in sorted(secagg.__all__) if name != "__version__"]


def test_the_messages_that_are_explained_are_those_of_the_code() -> None:
    sources = [path.read_text("utf-8") for name in PACKAGES for path in (ROOT / name).rglob("*.py")]
    said = re.sub(r'"\n\s+f?"', "", "\n".join(sources))
    messages = re.findall(r"^### `(.*)`$", (DOCS / "refused.md").read_text("utf-8"), re.MULTILINE)
    assert len(messages) > 15
    parts = [part for message in messages for part in message.split("...") if len(part) > 2]
    assert [part for part in parts if part.strip() not in said] == []


def test_a_docstring_is_text_on_the_site_but_for_what_is_quoted_and_what_is_indented() -> None:
    found = spec_from_file_location("conf", DOCS / "conf.py")
    assert found is not None
    assert found.loader is not None
    site = module_from_spec(found)
    found.loader.exec_module(site)
    lines = ["``a_b`` and ``c``s: *all*, |x_1|", "", "    kept *as* it is", "", "    and on", "", ">>> 1 + 1", "2"]
    site.as_restructured_text(None, "", "", None, None, lines)
    assert lines == [
        "``a_b`` and ``c``\\ s: \\*all\\*, \\|x\\_1\\|",
        "",
        ".. code-block:: text",
        "",
        "    kept *as* it is",
        "",
        "    and on",
        "",
        ".. code-block:: pycon",
        "",
        "   >>> 1 + 1",
        "   2",
        "",
    ]
