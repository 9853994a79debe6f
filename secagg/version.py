"""The version of this library, from one place: ``pyproject.toml`` in a checkout, else what was installed from it."""

from __future__ import annotations

import tomllib
from importlib.metadata import version
from pathlib import Path

_PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def found() -> str:
    """The version of the code that runs, whatever is installed beside it.

    >>> found().count(".")
    2
    """
    if _PROJECT.is_file():
        project = tomllib.loads(_PROJECT.read_text("utf-8")).get("project", {})
        if project.get("name") == "secagg":
            return str(project["version"])
    return version("secagg")
