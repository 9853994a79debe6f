"""A ledger under two names: whoever holds it by one of them, holds it by the other, in this process and in others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dp.ledger import Ledger
from secagg.errors import SecAggError
from tests.scenes import ledger as scene
from tests.scenes.ledger import KEY, planned

OPEN = """
import sys
from dp.ledger import Ledger
from secagg.errors import SecAggError
from tests.scenes.ledger import KEY
try:
    Ledger.open(sys.argv[1], KEY).close()
except SecAggError as error:
    print(error)
"""


def opened_elsewhere(path: Path) -> str:
    """What another process says that opens it; nothing if it can."""
    root = Path(__file__).parents[3]
    words = [sys.executable, "-c", OPEN, str(path)]
    return subprocess.run(words, capture_output=True, text=True, check=True, cwd=root).stdout


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_another_name_of_a_locked_ledger(link: object, tmp_path: Path) -> None:
    """Two writers of one budget would spend it twice. The control: once it is closed, one of them may."""
    path, other = tmp_path / "ledger.db", tmp_path / "other.db"
    ledger = scene.new(path)
    link(path, other)  # type: ignore[operator]
    with pytest.raises(SecAggError):
        Ledger.open(other, KEY)
    assert opened_elsewhere(other) != ""
    assert opened_elsewhere(path) != ""
    ledger.reserve(planned())  # and the first goes on
    ledger.close()
    if link is os.link:
        assert opened_elsewhere(other) == ""
        again = Ledger.open(other, KEY)
        assert again.knows(planned())
        again.close()
