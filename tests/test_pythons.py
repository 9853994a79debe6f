"""The Pythons that are promised to users are those on which the public CI runs the tests."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_promised_python_is_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    language = "Programming Language :: Python :: "
    promised = [word.removeprefix(language) for word in project["classifiers"] if word.startswith(language)]
    matrix = re.search(r"python: \[(.*)\]", (ROOT / ".github/workflows/test.yml").read_text())
    assert matrix is not None
    assert re.findall(r'"([^"]+)"', matrix[1]) == promised
    oldest, newest = promised[0], promised[-1]
    assert project["requires-python"] == f">={oldest},<3.{int(newest.removeprefix('3.')) + 1}"
    assert f"Python {oldest} to {newest}" in (ROOT / "README.md").read_text()
