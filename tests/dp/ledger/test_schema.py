"""The fields of real entries, the table in the code and the table in docs/ledger.md are the same."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from dp.filter import Budget, Kind
from dp.ledger import Steps
from dp.ledger.entries import FIELDS, Mark, canonical, parse
from dp.ledger.file import read
from secagg.errors import DecodeError
from secagg.foreign import as_declared
from tests.scenes.ledger import ARRIVALS, EXAMPLE, TURNS, WEEKLY, WINDOW, filled, new, step

DOCS = Path(__file__).parents[3] / "docs" / "ledger.md"


def names(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield name
            if name != "event":  # described where it is made
                yield from names(item)
    elif isinstance(value, list):
        for item in value:
            yield from names(item)


def test_every_field_has_a_mark(tmp_path: Path) -> None:
    filled(tmp_path / "sums.db").close()
    budget = Budget.suited(step(), Fraction(2), Fraction(1, 10**5), slack=Fraction(0))
    local = new(tmp_path / "steps.db", guarantee=EXAMPLE, budget=budget)
    local.reserve(Steps("one", step()))
    local.close()
    exact = replace(budget, order=0, kind=Kind.GDP)
    new(tmp_path / "turns.db", budget=exact, turns=TURNS).close()
    new(tmp_path / "arrivals.db", budget=exact, arrivals=ARRIVALS).close()
    new(tmp_path / "windows.db", budget=exact, guarantee=WEEKLY, window=WINDOW).close()
    found = {
        name
        for file in ("sums.db", "steps.db", "turns.db", "arrivals.db", "windows.db")
        for body, _ in read(tmp_path / file)
        for name in names(parse(body))
    }
    assert found == set(FIELDS)


def test_the_documentation_says_the_same() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([\w ]+) \| .+ \|$", DOCS.read_text(), re.MULTILINE)
    assert len(rows) == len(FIELDS)
    assert {name: Mark(mark) for name, mark in rows} == FIELDS


def test_no_floats(tmp_path: Path) -> None:
    filled(tmp_path / "ledger.db").close()
    for body, _signature in read(tmp_path / "ledger.db"):
        assert b"." not in body.replace(b"client-", b"")
        assert canonical(json.loads(body)) == body
    with pytest.raises(DecodeError, match="floats"):
        parse(b'{"a":1.5}')


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"1", b"null", b'{"a": 1}', b'{"b":1,"a":1}', b'{"a":1}\n', b'{"a":1,"a":1}']
)
def test_there_is_one_way_to_write_an_entry(data: bytes) -> None:
    assert parse(b'{"a":1}') == {"a": 1}
    with pytest.raises(DecodeError, match="canonical"):
        parse(data)


@pytest.mark.parametrize("text", ["1e999999999", "1.5", "-1", " 1", "1/0x", ""])
def test_rationals_are_plain(text: str) -> None:
    """An exponent could ask for more digits than there is memory."""
    with pytest.raises(DecodeError):
        as_declared(Fraction, text)
