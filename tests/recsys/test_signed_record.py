"""A record that was altered is refused, also where whoever altered it has signed it with another key."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from recsys.export import export
from recsys.report import Account
from recsys.run_record import Run
from secagg.cli import main
from secagg.crypto.keys import SigningKey
from secagg.errors import AlteredError
from tests.scenes import runs
from tests.scenes.recommender import config
from tests.scenes.whole_runs import Killed, go, key_of

STRANGER = SigningKey(bytes([7]) * 32)


@pytest.mark.parametrize("words", [["report"], ["export", "--out", "a.tar"], ["recommend", "--history", "seen.txt"]])
def test_an_altered_epsilon_is_refused(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seen.txt").write_text("1\n")
    (folder := tmp_path / "run").mkdir()
    run = runs.make(folder, "distributed", rounds=2)
    said = json.loads((folder / "run.json").read_bytes())
    said["rounds"][1]["epsilon"] = 0.5
    (folder / "run.json").write_text(json.dumps(said, indent=1))
    assert main([words[0], str(folder), *words[1:]]) == 4
    assert "run.json was altered, or is not signed by the key of its run" in capsys.readouterr().err
    changed = replace(run, rounds=(run.rounds[0], replace(run.rounds[1], epsilon=0.5)))
    changed.save(folder, STRANGER)
    assert main([words[0], str(folder), *words[1:]]) == 4
    assert "by another key than ledger.pub" in capsys.readouterr().err
    for beside in (STRANGER.public.hex(), None):
        (folder / "ledger.pub").unlink()
        if beside:
            (folder / "ledger.pub").write_text(beside)
        assert main([words[0], str(folder), *words[1:]]) == 4
        assert "run.json was signed by another key than that of ledger.db" in capsys.readouterr().err
        (folder / "ledger.pub").touch()


def test_control_without_that_comparison_it_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder := tmp_path / "run").mkdir()
    replace(runs.make(folder, "distributed", rounds=2), title="another").save(folder, STRANGER)
    (folder / "ledger.pub").unlink()
    monkeypatch.setattr(Run, "check_owner", lambda *arguments: None)
    assert Account.load(folder).run.title == "another"
    assert "run.json" in export(folder, tmp_path / "a.tar", model=False)


def test_a_run_goes_on_with_its_own_record_only(tmp_path: Path) -> None:
    """Also where whoever wrote another one has put another key beside it."""
    asked = config("privacy.mode=none", "training.rounds=2", "evaluation.exact=false", "protocol.dropout=0.34")

    def killed(run: Run) -> None:
        if run.rounds:
            raise Killed

    folder = tmp_path / "run"
    with pytest.raises(Killed):
        go(asked, folder, watch=killed)
    run = Run.load(folder)
    assert run.owner == key_of(folder).public.hex()
    before = (folder / "ledger.pub").read_bytes()
    run.save(folder, STRANGER)
    (folder / "ledger.pub").write_text(STRANGER.public.hex() + "\n")
    with pytest.raises(AlteredError, match=r"run\.json was signed by another key than that of .*ledger\.key"):
        go(asked, folder)
    run.save(folder, key_of(folder))
    (folder / "ledger.pub").write_bytes(before)
    assert go(asked, folder).ended
