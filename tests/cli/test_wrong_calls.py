"""A wrong call is refused in one line, and before anything slow is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from secagg.cli import main

ROOT = Path(__file__).resolve().parents[2]

EARLY = [
    ["train"],
    ["train", "missing.toml"],
    ["train", "wrong.toml"],
    ["train", "fine.toml", "--set", "training.runds=3"],
    ["train", "fine.toml", "--set", "training.rounds"],
    ["train", "fine.toml", "--set", "model.name=bert"],
    ["train", "fine.toml", "--set", "protocol.name=rot13"],
    ["train", "fine.toml", "--set", "data.source=movielens", "--set", "data.path=nowhere"],
    ["train", "fine.toml", "--rounds", "3"],
    ["train", "fine.toml", "--out", "fine.toml"],
    ["train", "fine.toml", "--set", "data.source=table"],
    ["train", "fine.toml", "--set", "protocol.name=ckks"],
    ["demo", "--clients", "martians"],
    ["demo", "--set", "training.rounds=many"],
    ["demo", "silos"],
    ["report"],
    ["report", "nowhere"],
    ["export", "nowhere"],
    ["export", "nowhere", "--edge"],
    ["export", "nowhere", "--int8"],
    ["export", "nowhere", "--edge", "--model"],
    ["recommend", "nowhere"],
    ["recommend", "nowhere", "--history", "nowhere"],
    ["recommend", "nowhere", "--history", "fine.toml"],
    ["audit", "--clients", "many"],
    ["audit", "--canaries", "1"],
    ["audit", "--out", "fine.toml"],
    ["bench", "nonsense"],
    ["bench", "pairwise", "--set", "nonsense=1"],
    ["bench", "--quick", "dp"],
    ["ledger", "verify", "nowhere"],
    ["keys", "new"],
    ["nonsense"],
    ["--nonsense"],
]
CALLS = """
import json, sys
from secagg.cli import main
for words in json.loads(sys.argv[1]):
    code = main(words)
    loaded = [name for name in ("torch", "ray", "tenseal", "flwr", "nvflare", "opacus") if name in sys.modules]
    print(json.dumps([words, code, loaded]), flush=True)
"""


def called(calls: list[list[str]], folder: Path) -> list[tuple[list[str], int, list[str]]]:
    (folder / "fine.toml").write_text("[training]\nrounds = 1\n")
    (folder / "wrong.toml").write_text("[training\n")
    words = [sys.executable, "-P", "-c", CALLS, json.dumps(calls)]
    done = subprocess.run(
        words,
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(ROOT), "HOME": str(folder)},
    )
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == len(calls)
    assert all(line.startswith("secagg: ") for line in done.stderr.splitlines())
    return [tuple(json.loads(line)) for line in done.stdout.splitlines() if line.startswith("[[")]


def test_wrong_calls_are_refused_in_a_line_before_torch_is_imported(tmp_path: Path) -> None:
    for words, code, loaded in called(EARLY, tmp_path):
        assert (code, loaded) == (2, []), words
    assert {path.name for path in tmp_path.iterdir()} == {"fine.toml", "wrong.toml"}


@pytest.mark.long
def test_control_what_is_imported_is_seen(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="NOT TESTED: local training needs the extra train")
    [(_, code, loaded)] = called([["train", "fine.toml", "--set", "model.settings={nonsense=1}"]], tmp_path)
    assert code == 2
    assert "torch" in loaded


@pytest.mark.parametrize("words", [["trian"], ["keys", "nww"], ["ledger", "shwo"], ["roster", "biuld"]])
def test_what_may_have_been_meant_is_said_once(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err.count("Did you mean") == 1
