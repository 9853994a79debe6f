"""``secagg protocols``: says of every registered protocol what its own description says."""

import json

import pytest

from protocols import registry
from protocols.parameters import rules_of
from secagg import cli

SAID = ("name", "paper", "threat_model", "server_learns", "cost")


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["protocols", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {
        "protocols": [
            {key: getattr(registry.find(name), key) for key in SAID} | {"adversary": rules_of(name).against}
            for name in registry.names()
        ]
    }


def test_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["protocols"]) == 0
    words = capsys.readouterr().out.split()
    for name in registry.names():
        for key in SAID:
            assert set(getattr(registry.find(name), key).split()) <= set(words)


@pytest.mark.parametrize("argument", ["secagg", "--nosuch"])
def test_wrong_arguments(capsys: pytest.CaptureFixture[str], argument: str) -> None:
    assert cli.main(["protocols", argument]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert argument in line


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["protocols", "--help"]) == 0
    assert "Usage: secagg protocols" in capsys.readouterr().out
