"""The published ledgers are verified by the stand-alone verifier, and none that was changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dp import verify_ledger

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[2] / "vectors" / "ledger.json").read_text())
LEDGERS = {ledger["name"]: ledger for ledger in VECTORS["ledgers"]}


@pytest.mark.parametrize("name", list(LEDGERS))
def test_a_published_ledger_is_verified(name: str, tmp_path: Path) -> None:
    ledger, path = LEDGERS[name], tmp_path / "export.jsonl"
    owner = ["--key", VECTORS["key"], "--head", ledger["head"]]
    path.write_text("".join(f"{line}\n" for line in ledger["lines"]))
    assert verify_ledger.main([str(path), *owner]) == 0
    for line in range(len(ledger["lines"])):
        wrong = list(ledger["lines"])
        wrong[line] = wrong[line].replace('"number":', '"number":1')
        path.write_text("".join(f"{one}\n" for one in wrong))
        assert verify_ledger.main([str(path), *owner]) == 4
