"""Commands remember runs, and keep what can be computed again, in places of the test's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from secagg import cli


@pytest.fixture(autouse=True)
def state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    return folder


@pytest.fixture
def secagg(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Calls a command of ``secagg ledger``: its exit code, and what it printed and complained."""

    def call(*words: object) -> tuple[int, str, str]:
        code = cli.main(["ledger", *map(str, words)])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call
