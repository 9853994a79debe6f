"""The table of extras is that of pyproject.toml, and whoever lacks one gets a line that installs it."""

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest

from secagg import extras
from secagg.errors import MissingExtraError, UsageError
from secagg.extras import EXTRAS, bringing, hint, installed, need, needing

ROOT = Path(__file__).resolve().parents[2]
ASKED = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
BESIDES = {"flwr[simulation]": {"ray"}}
DISTRIBUTIONS = {"nacl": "pynacl"}
NOT_IMPORTED = {"all", "dev", "docs", "release"}
"""They bring tools, or what the others bring."""


def asked(extra: str) -> set[str]:
    """Names of the distributions that an extra asks for, in pyproject.toml."""
    found = set()
    for line in ASKED[extra]:
        if inner := re.fullmatch(r"secagg\[(.*)\]", line):
            found |= {name for one in inner[1].split(",") for name in asked(one)}
        else:
            found.add(re.split(r"[\[<>=]", line)[0])
            found |= BESIDES.get(line.partition(">")[0], set())
    return found


def test_the_table_is_that_of_the_project() -> None:
    assert EXTRAS.keys() == ASKED.keys() - NOT_IMPORTED
    for extra, modules in EXTRAS.items():
        assert {DISTRIBUTIONS.get(module, module.replace("_", "-")) for module in modules} == asked(extra), extra


def test_who_lacks_an_extra_is_told_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    need("dp", "this")
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "scipy" else object())
    with pytest.raises(MissingExtraError) as found:
        need("dp", "this")
    assert str(found.value) == hint("dp", "this")
    assert isinstance(found.value, ImportError)  # who caught that, still does
    assert isinstance(found.value, UsageError)
    need("ckks", "that")


def test_imports_say_so_too_and_other_errors_stay_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModuleNotFoundError, match="turtles"), needing("dp", "this"):
        import turtles  # type: ignore[import-not-found]
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=re.escape("this needs the extra [dp]: ")), needing("dp", "this"):
        import turtles
    outer = pytest.raises(MissingExtraError, match=re.escape("the whole needs the extra [recsys]: "))
    with outer, needing("recsys", "the whole"), needing("train", "a part"):
        import turtles  # noqa: F401


def test_the_command_is_for_this_python_and_from_where_this_library_comes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    for folder in (here, elsewhere):
        folder.mkdir()
        (folder / "pip").touch()
    monkeypatch.setattr(sys, "executable", str(here / "python"))
    monkeypatch.setenv("PATH", f"/nowhere:{here}:{elsewhere}")
    assert extras.command("dp") == f"pip install -e '{ROOT}[dp]'"
    monkeypatch.setenv("PATH", f"{elsewhere}:{here}")
    assert extras.command("dp").startswith(f"{here / 'python'} -m pip install")
    monkeypatch.setenv("PATH", str(here))
    (tmp_path / "site" / "secagg").mkdir(parents=True)
    monkeypatch.setattr(extras, "__file__", str(tmp_path / "site" / "secagg" / "extras.py"))
    origin = {"url": (tmp_path / "a b").as_uri(), "dir_info": {}}
    monkeypatch.setattr(extras, "distribution", lambda name: _Installed(json.dumps(origin)))
    assert extras.command("dp") == "pip install 'secagg[dp]'"  # it was there once
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "pyproject.toml").touch()
    assert extras.command("dp") == f"pip install '{tmp_path / 'a b'}[dp]'"
    monkeypatch.setattr(extras, "distribution", lambda name: _Installed(None))
    assert extras.command("dp") == "pip install 'secagg[dp]'"
    monkeypatch.setattr(extras, "distribution", lambda name: distribution("a-distribution-that-is-not-there"))
    assert extras.command("dp") == "pip install 'secagg[dp]'"


class _Installed:
    def __init__(self, origin: str | None) -> None:
        self.origin = origin

    def read_text(self, name: str) -> str | None:
        return self.origin if name == "direct_url.json" else None


def test_a_module_names_the_smallest_extra_that_brings_it() -> None:
    assert {bringing(module) for modules in EXTRAS.values() for module in modules} <= EXTRAS.keys()
    assert [bringing(name) for name in ("numba", "scipy.stats", "torch", "matplotlib.figure", "os")] == [
        "lattice", "dp", "train", "train", None,
    ]  # fmt: skip


DOORS = {
    "protocols.adapters.flower": "flower",
    "protocols.adapters.nvflare": "nvflare",
    "protocols.engines.ray": "ray",
    "dp.training": "train",
}
WITHOUT = """
import sys
from importlib import import_module
for module in sys.argv[1].split(","):
    sys.modules[module] = None
for door in sys.argv[2].split(","):
    try:
        import_module(door)
    except ImportError as error:
        print(type(error).__name__, str(error))
"""


def test_doors_without_their_extra_name_it() -> None:
    modules = ",".join({module for found in EXTRAS.values() for module in found})
    words = [sys.executable, "-c", WITHOUT, modules, ",".join(DOORS)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    said = done.stdout.splitlines()
    assert len(said) == len(DOORS)
    for line, extra in zip(said, DOORS.values(), strict=True):
        assert line.startswith("MissingExtraError")
        assert f"needs the extra [{extra}]: " in line


def test_what_is_there_is_found() -> None:
    assert installed("numpy")
    assert not installed("turtles_all_the_way")
