"""The record of a run: whole on the disk or not there, read strictly, and the same again."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.run_record import FILE, FORMAT, Quality, Round, Run, Spending
from secagg.errors import DecodeError, UsageError

ROUND = Round(0, "training", 6, 5, {"upload": 1}, 100, 200, {"updates": 0.5}, {"HR@10": 0.1}, {}, 1.0, 7.0, "ab")
SPENDING = Spending("ledger.db", "user", "zero-out", "distributed", 8.0, 1e-5, 1, "words")
RUN = Run(
    title="a run",
    config={"seed": 0, "training": {"rounds": 1}},
    data={"users": 60},
    protocol={"name": "secagg"},
    mode="distributed",
    measured_under="noise",
    spendings=(SPENDING,),
    rounds=(ROUND, replace(ROUND, number=1, epsilon=None)),
    results=(Quality("ItemPop", {"HR@10": 0.25}, "a reference"),),
    machine={"cores": 2},
)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    RUN.save(tmp_path)
    assert Run.load(tmp_path) == RUN
    assert os.listdir(tmp_path) == [FILE]


NAMES = st.text(max_size=8)
VALUES = st.dictionaries(NAMES, st.floats(-1e100, 1e100), max_size=3)
COUNTS = st.integers(0, 2**60)


@settings(max_examples=20)
@given(
    rounds=st.lists(
        st.builds(
            Round,
            number=COUNTS,
            purpose=NAMES,
            planned=st.integers(2**59, 2**60),
            survivors=st.integers(0, 2**59),
            silent=st.dictionaries(NAMES, COUNTS, max_size=2),
            bytes_up=COUNTS,
            bytes_down=COUNTS,
            seconds=VALUES,
            measured=VALUES,
            exact=VALUES,
            epsilon=st.none() | st.floats(0, 500),
        ),
        max_size=3,
    ),
    results=st.lists(st.builds(Quality, name=NAMES, metrics=VALUES, note=NAMES), max_size=2),
    ended=NAMES,
)
def test_any_record_is(rounds: list[Round], results: list[Quality], ended: str, tmp_path_factory: Any) -> None:
    folder: Path = tmp_path_factory.getbasetemp()
    run = replace(RUN, rounds=tuple(rounds), results=tuple(results), ended=ended)
    run.save(folder)
    assert Run.load(folder) == run


def test_a_value_that_is_no_number_is_not_written(tmp_path: Path) -> None:
    RUN.save(tmp_path)
    for value in (float("nan"), float("inf"), 1e101):
        with pytest.raises(UsageError, match="beyond"):
            Quality("x", {"HR@10": value})
    with pytest.raises(ValueError, match="not JSON compliant"):
        replace(RUN, config={"rate": float("nan")}).save(tmp_path)
    assert Run.load(tmp_path) == RUN


def test_without_a_record_there_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no run"):
        Run.load(tmp_path)


def test_a_record_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    RUN.save(tmp_path)
    data = (tmp_path / FILE).read_bytes()
    for length in range(0, len(data), 7):
        (tmp_path / FILE).write_bytes(data[:length])
        with pytest.raises(DecodeError):
            Run.load(tmp_path)


@pytest.mark.parametrize("other", [FORMAT + 1, FORMAT - 1, None, "x" * 1000])
def test_a_record_of_another_format_is_refused(other: Any, tmp_path: Path) -> None:
    RUN.save(tmp_path)
    record = json.loads((tmp_path / FILE).read_bytes())
    assert record.pop("format") == FORMAT
    (tmp_path / FILE).write_text(json.dumps(record if other is None else record | {"format": other}))
    with pytest.raises(DecodeError, match=f"reads directories of format {FORMAT}, and not") as raised:
        Run.load(tmp_path)
    assert len(str(raised.value)) < 300


WRONG = [
    [],
    "run",
    None,
    {},
    {"rounds": []},
    {"rounds": 3, "results": [], "spendings": []},
    {"rounds": [3], "results": [], "spendings": []},
    {"rounds": ["number"], "results": [], "spendings": []},
    {"more": 1},
    {"title": 3},
    {"rounds": None},
    {"results": [{"name": "x"}]},
    {"results": [{"name": "x", "metrics": {}, "colour": "red"}]},
    {"spendings": [{"ledger": "x"}]},
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_what_is_no_record_is_refused(wrong: Any, tmp_path: Path) -> None:
    RUN.save(tmp_path)
    whole = json.loads((tmp_path / FILE).read_bytes())
    is_change = isinstance(wrong, dict) and len(wrong) == 1 and wrong != {"rounds": []}
    (tmp_path / FILE).write_text(json.dumps(whole | wrong if is_change else wrong))
    with pytest.raises(DecodeError, match="not the record"):
        Run.load(tmp_path)
