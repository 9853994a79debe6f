"""``secagg config``: a file to start from, or all keys for a program."""

import json
from pathlib import Path

import pytest

from recsys.config import Config
from secagg.cli import main


def test_what_it_prints_is_a_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config"]) == 0
    (path := tmp_path / "mine.toml").write_text(capsys.readouterr().out)
    assert Config.load(path) == Config()


def test_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--json"]) == 0
    found = {key["name"]: key for key in json.loads(capsys.readouterr().out)["keys"]}
    assert found["privacy.epsilon"]["default"] == Config().privacy.epsilon
    assert set(found["privacy.mode"]["values"]) == {"none", "local", "distributed", "both"}
