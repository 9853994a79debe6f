"""The page about embedding lists the public API as it is, all of it and nothing else."""

import re
from pathlib import Path

import secagg

PAGE = Path(__file__).resolve().parents[2] / "docs" / "embedding.md"


def test_the_page_lists_the_public_names() -> None:
    table = PAGE.read_text("utf-8").partition("| from `secagg` |")[2].partition("\n\n")[0]
    listed = [name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert sorted(listed) == sorted(secagg.__all__)


def test_client_and_server_stay_short() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert [len(block.splitlines()) < 50 for block in blocks] == [True] * 3
