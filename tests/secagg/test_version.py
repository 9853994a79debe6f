"""One version: of the command, of the package, and in pyproject.toml."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import secagg
from secagg import version
from secagg.cli import main

ROOT = Path(__file__).resolve().parents[2]
HERE = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_everything_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert secagg.__version__ == HERE
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"secagg {HERE}\n"
    done = subprocess.run(
        [sys.executable, "-m", "secagg", "--version"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"secagg {HERE}\n"


def test_where_there_is_no_source_tree_it_is_what_was_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(version, "version", {"secagg": "7.8.9"}.__getitem__)
    monkeypatch.setattr(version, "_PROJECT", tmp_path / "pyproject.toml")
    assert version.found() == "7.8.9"
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "another"\nversion = "1"\n')
    assert version.found() == "7.8.9"
