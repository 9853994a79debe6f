"""The numbers of all formats are in docs/versioning.md, and no bytes change under a number that is pinned."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

import dp.ledger.entries
import protocols.journal
import protocols.wire
import recsys.models.store
import recsys.run_record
from secagg.crypto import labels
from tests.vectors import pins

ROOT = Path(__file__).parents[1]
NUMBERS = {
    "release": tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"],
    "wire": protocols.wire.VERSION,
    "ledger": dp.ledger.entries.SCHEMA,
    "journal": protocols.journal.VERSION,
    "model file": recsys.models.store.VERSION,
    "run folder": recsys.run_record.FORMAT,
}


def test_the_documentation_has_the_numbers_of_the_code() -> None:
    rows = re.findall(
        r"^\| ([a-z ]+) \| ([0-9.]+) \| .+ \|$", (ROOT / "docs" / "versioning.md").read_text(), re.MULTILINE
    )
    assert rows == [(name, str(number)) for name, number in NUMBERS.items()]


def test_no_bytes_have_changed_under_the_same_number() -> None:
    """If this fails, bytes on the wire, in ledgers or in journals have changed: raise the number of that format in the
    code and in docs/versioning.md, then run ``python -m tests.vectors.make``."""
    written: pins.Pins = json.loads(pins.FILE.read_text())
    assert {
        name: (list(numbers)[-1], list(numbers.values())[-1]) for name, numbers in written.items()
    } == pins.measured()


def test_another_label_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where no vector shows it: what is sealed for a ckks round is in none."""
    before = pins.measured()
    for name, format in (("CKKS_BOX", "wire"), ("LEDGER_DATA", "ledger"), ("JOURNAL_LEDGER", "journal")):
        with monkeypatch.context() as patch:
            patch.setattr(labels, name, b"another")
            assert [one for one, found in pins.measured().items() if found != before[one]] == [format]


PINNED: pins.Pins = {"wire": {"wire 3": {"a": "00", "b": "11"}}}


def test_a_pin_is_only_replaced_by_one_of_a_higher_number() -> None:
    for changed in ({"a": "00", "b": "22"}, {"a": "00"}):
        with pytest.raises(ValueError, match="wire 3 is pinned and has changed, so the number must rise: b"):
            pins.renewed(PINNED, {"wire": ("wire 3", changed)})
    with pytest.raises(ValueError, match="numbers only rise"):
        pins.renewed(PINNED, {"wire": ("wire 2", {"a": "33"})})
    raised = pins.renewed(PINNED, {"wire": ("wire 4", {"a": "33"})})
    assert raised == {"wire": {"wire 3": {"a": "00", "b": "11"}, "wire 4": {"a": "33"}}}
    more = pins.renewed(PINNED, {"wire": ("wire 3", {"a": "00", "b": "11", "c": "33"})})
    assert more["wire"]["wire 3"]["c"] == "33"
    follows = pins.renewed({"ledger": {"ledger 4, wire 3": {"a": "00"}}}, {"ledger": ("ledger 4, wire 4", {"a": "11"})})
    assert list(follows["ledger"]) == ["ledger 4, wire 3", "ledger 4, wire 4"]
