"""The documentation site: ``make docs``. Sources are this tree's Markdown files, where they are, so that a link that
works in the tree works on the site. Nothing is fetched while it is built, and nothing while it is read.
"""

from __future__ import annotations

import os
import re
import sys
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

project = "secagg"
release = version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
html_title = f"secagg {version}"

root_doc = "docs/index"
include_patterns = ["*.md", "docs/**.md", "examples/**.md", "tests/**.md"]
exclude_patterns = ["build", "dist", "runs", "**/.*", "**/__pycache__"]
templates_path = ["_templates"]

extensions = ["sphinx.ext.autodoc", "myst_nb"]
html_theme = "furo"
html_additional_pages = {"index": "to_contents.html"}  # the root of the site leads to its first page
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_search_scorer = str(ROOT / "docs" / "search_scorer.js")

highlight_language = "text"  # of indented blocks, which are commands and messages as often as Python
myst_heading_anchors = 4

nb_execution_mode = "force"
nb_execution_timeout = 600
nb_execution_show_tb = True
nb_execution_in_temp = True

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_type_aliases = {"ArrayLike": "ArrayLike", "NDArray": "NDArray"}
python_maximum_signature_line_length = 60
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"
add_module_names = False

nitpicky = True  # a type of ours in a signature must be explained on some page, but for these
nitpick_ignore_regex = [
    ("py:.*", r"(?!(secagg|dp|protocols|recsys)\.).*"),  # others' types
    ("py:.*", r"protocols\.engines\..*"),  # type variables
    ("py:.*", r"protocols\.(wire\.Messages|rounds\..*)"),  # what only somebody needs who adds a protocol
    ("py:.*", r"dp\.ledger\.state\..*"),
    ("py:.*", r"recsys\.(aggregator|assembly|callers|federated|optimisers|other_runs|participation|report)\..*"),
    ("py:.*", r"recsys\.models\.(private_gram|private_pairs|private_sums)\..*"),
]


def setup(app: Sphinx) -> None:
    from pygments.lexers.special import TextLexer

    state = TemporaryDirectory()  # notebooks train: that is nothing which this account should remember
    app.connect("build-finished", lambda _app, _error: state.cleanup())
    os.environ |= {
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "COLUMNS": "80",
        "XDG_STATE_HOME": state.name,
    }
    app.add_lexer("mermaid", TextLexer)
    app.connect("autodoc-process-docstring", as_restructured_text)
    app.connect("autodoc-skip-member", skip_what_the_facade_has)


def as_restructured_text(
    _app: object, _what: str, _name: str, _obj: object, _options: object, lines: list[str]
) -> None:
    """Our docstrings are plain text: an indented block stands as it is, and only double backticks mean anything."""
    lines[:] = [line for block in _blocks(lines) for line in [*_marked_up(block), ""]]


def _blocks(lines: list[str]) -> list[list[str]]:
    """What stands between empty lines; indented blocks that follow one another are one."""
    blocks: list[list[str]] = []
    for text in "\n".join(lines).strip("\n").split("\n\n"):
        block = text.strip("\n").split("\n")
        if blocks and block[0].startswith(" ") and blocks[-1][0].startswith(" "):
            blocks[-1] += ["", *block]
        else:
            blocks.append(block)
    return blocks


def _marked_up(block: list[str]) -> list[str]:
    if block[0].startswith(">>>"):
        return [".. code-block:: pycon", "", *("   " + line for line in block)]
    if block[0].startswith(" "):
        return [".. code-block:: text", "", *block]
    return _escaped("\n".join(block)).split("\n")


def _escaped(text: str) -> str:
    said = ""
    for part in re.split(r"(``.+?``)", text, flags=re.DOTALL):
        if part.startswith("``"):
            said += part
        else:  # a literal ends before a letter only if something invisible is between them
            said += "\\ " * bool(said and re.match(r"\w", part)) + re.sub(r"([\\*`_|])", r"\\\1", part)
    return said


def skip_what_the_facade_has(
    app: Sphinx, what: str, name: str, obj: Any, skip: bool | None, _options: object
) -> bool | None:
    """The facade's names are on its own page, and nowhere a second time."""
    import secagg

    if what == "module" and app.env.docname != "docs/reference/secagg" and getattr(secagg, name, None) is obj:
        return True
    return skip
