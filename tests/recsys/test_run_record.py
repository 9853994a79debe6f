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
from secagg.crypto.keys import SigningKey
from secagg.errors import AlteredError, DecodeError, StorageError, UsageError
from tests.scenes.runs import KEY, put

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
    owner=KEY.public.hex(),
)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    RUN.save(tmp_path, KEY)
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
    run.save(folder, KEY)
    assert Run.load(folder) == run


def test_a_value_that_is_no_number_is_not_written(tmp_path: Path) -> None:
    RUN.save(tmp_path, KEY)
    for value in (float("nan"), float("inf"), 1e101):
        with pytest.raises(UsageError, match="beyond"):
            Quality("x", {"HR@10": value})
    with pytest.raises(ValueError, match="not JSON compliant"):
        replace(RUN, config={"rate": float("nan")}).save(tmp_path, KEY)
    assert Run.load(tmp_path) == RUN


def test_without_a_record_there_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no run"):
        Run.load(tmp_path)


def test_a_record_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    RUN.save(tmp_path, KEY)
    data = (tmp_path / FILE).read_bytes()
    for length in range(0, len(data), 7):
        (tmp_path / FILE).write_bytes(data[:length])
        with pytest.raises(DecodeError):
            Run.load(tmp_path)


@pytest.mark.parametrize("other", [FORMAT + 1, FORMAT - 1, None, "x" * 1000])
def test_a_record_of_another_format_is_refused(other: Any, tmp_path: Path) -> None:
    RUN.save(tmp_path, KEY)
    record = json.loads((tmp_path / FILE).read_bytes())
    assert record.pop("format") == FORMAT
    (tmp_path / FILE).write_text(json.dumps(record if other is None else record | {"format": other}))
    with pytest.raises(DecodeError, match=f"reads directories of format {FORMAT}, and not") as raised:
        Run.load(tmp_path)
    assert len(str(raised.value)) < 300


def test_every_byte_of_a_record_is_signed(tmp_path: Path) -> None:
    RUN.save(tmp_path, KEY)
    data = (tmp_path / FILE).read_bytes()
    for place in range(0, len(data), 5):
        altered = bytearray(data)
        altered[place] ^= 1
        (tmp_path / FILE).write_bytes(altered)
        with pytest.raises((AlteredError, DecodeError)):
            Run.load(tmp_path)
    (tmp_path / FILE).write_bytes(data.replace(b'"epsilon": 1.0', b'"epsilon": 0.5'))
    with pytest.raises(AlteredError, match=r"run\.json was altered, or is not signed by the key of its run"):
        Run.load(tmp_path)
    for unsigned in ({}, {"signature": "0" * 128}):
        (tmp_path / FILE).write_text(json.dumps(json.loads(data) | unsigned))
        with pytest.raises(AlteredError):
            Run.load(tmp_path)


def test_a_record_is_signed_by_the_key_beside_it(tmp_path: Path) -> None:
    """Another one's signature is right, too; so is a record with the same facts that was put together otherwise."""
    RUN.save(tmp_path, SigningKey(bytes(32)))
    assert Run.load(tmp_path).owner == SigningKey(bytes(32)).public.hex()
    (tmp_path / "ledger.pub").write_text(KEY.public.hex() + "\n")
    with pytest.raises(AlteredError, match=r"by another key than ledger\.pub"):
        Run.load(tmp_path)
    RUN.save(tmp_path, KEY)
    assert Run.load(tmp_path) == RUN
    (tmp_path / "ledger.pub").unlink()
    (tmp_path / "ledger.pub").symlink_to(tmp_path / FILE)
    with pytest.raises(StorageError, match="it is a link"):
        Run.load(tmp_path)


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
    RUN.save(tmp_path, KEY)
    whole = json.loads((tmp_path / FILE).read_bytes())
    is_change = isinstance(wrong, dict) and len(wrong) == 1 and wrong != {"rounds": []}
    put(tmp_path, whole | wrong if is_change else wrong)
    with pytest.raises(DecodeError, match="not the record"):
        Run.load(tmp_path)
