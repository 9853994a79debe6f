"""What is tried of each extra alone (``python -m tests.extras``) covers them all."""

import re
import tomllib

from secagg.extras import EXTRAS
from tests.extras import ROOT, SMOKES

ASKED = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def test_each_extra_is_tried_alone() -> None:
    assert SMOKES.keys() == {"base", *EXTRAS}
    assert all(SMOKES.values())


def test_the_page_says_what_each_is_for() -> None:
    table = (ROOT / "docs" / "refused.md").read_text("utf-8").partition("| extra | for |")[2].partition("\n\n")[0]
    rows = [row.split("|")[1] for row in table.splitlines()[2:]]
    assert sorted(name for row in rows for name in re.findall(r"`(\w+)`", row)) == sorted(EXTRAS)


def test_all_brings_all() -> None:
    (everything,) = ASKED["all"]
    assert set(everything.removeprefix("secagg[").removesuffix("]").split(",")) == set(EXTRAS)
