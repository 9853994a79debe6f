"""One list of exit codes: help, README and what commands do."""

from pathlib import Path

import pytest

from secagg import errors
from secagg.cli import main
from secagg.cli.exit_codes import MEANINGS, code_of, sentence
from secagg.errors import SecAggError

ROOT = Path(__file__).resolve().parents[2]


def words(text: str) -> str:
    return " ".join(text.replace("`", "").split())


def test_the_readme_has_the_list() -> None:
    assert words(sentence()) in words((ROOT / "README.md").read_text())


def test_help_has_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert words(sentence()) in words(capsys.readouterr().out)


def test_each_error_has_a_code_that_means_something() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, SecAggError)]
    found = {kind.__name__: code_of(kind("reason")) for kind in kinds}
    assert set(found.values()) <= MEANINGS.keys() - {0}
    assert (found["UsageError"], found["MissingExtraError"], found["BudgetError"], found["PeerError"]) == (2, 6, 3, 4)
