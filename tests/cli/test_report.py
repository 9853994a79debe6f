"""``secagg report``: where the report is, what programs are told, and how it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from secagg import cli
from tests.scenes import runs


def secagg(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = cli.main(["report", *map(str, words)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_it_says_where_the_report_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs.make(tmp_path, "none")
    assert secagg(capsys, tmp_path) == (0, f"{tmp_path / 'report.html'}\n", "")
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")


def test_programs_are_told_the_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = runs.make(tmp_path, "distributed", rounds=3)
    code, out, _ = secagg(capsys, tmp_path, "--json")
    answer = json.loads(out.splitlines()[-1])
    assert (code, answer["report"], answer["mode"]) == (0, str(tmp_path / "report.html"), "distributed")
    assert (answer["rounds"], answer["ended"]) == (3, run.ended)
    assert answer["epsilon"] == answer["epsilon_outsiders"] == run.rounds[-1].epsilon
    assert answer["results"]["ItemPop"]["NDCG@10"] == 0.0194
    [budget] = answer["budgets"]
    assert (budget["guarantee"], budget["budget"]) == ("user, zero-out, distributed", 8.0)
    assert len(budget["head"]) == 64


@pytest.mark.parametrize(
    ("words", "reason"), [(["nowhere"], "there is no run in nowhere"), ([], "RUN_DIR"), (["--now"], "--now")]
)
def test_wrong_use(
    words: list[str], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, error = secagg(capsys, *words)
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert reason in error
    assert list(tmp_path.iterdir()) == []


def test_damage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs.make(tmp_path, "distributed", rounds=1)
    ledger = bytearray((tmp_path / "ledger.db").read_bytes())
    ledger[ledger.index(b'"phase":"commit"') + 10] ^= 1
    (tmp_path / "ledger.db").write_bytes(ledger)
    code, out, error = secagg(capsys, tmp_path)
    assert (code, out, error.count("\n")) == (4, "", 1)
    (tmp_path / "ledger.db").unlink()
    assert secagg(capsys, tmp_path)[0] == 1
    (tmp_path / "run.json").write_text("{")
    code, out, error = secagg(capsys, tmp_path)
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert not (tmp_path / "report.html").exists()


def test_a_record_that_is_not_believed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """There is a report, which says so, and an exit code."""
    run = runs.make(tmp_path, "distributed", rounds=2)
    replace(run, rounds=(run.rounds[0], replace(run.rounds[1], epsilon=0.5))).save(tmp_path, runs.KEY)
    code, out, error = secagg(capsys, tmp_path, "--json")
    answer = json.loads(out.splitlines()[-1])
    assert (code, error.count("\n"), len(answer["differences"])) == (4, 1, 1)
    assert "epsilon after round 1 is 0.5, says the record" in error
    assert answer["epsilon"] == run.rounds[1].epsilon
    assert "Record and ledger differ" in (tmp_path / "report.html").read_text()
