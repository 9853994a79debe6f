"""A run goes on with the data and the configuration that it was begun with, wherever they are, and with no others."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys import run_start, same_inputs
from recsys.assembly import prepare
from recsys.config import Config
from recsys.data.items import Items
from recsys.data.split import Split
from recsys.run_record import Run
from recsys.run_start import existing_run
from recsys.same_inputs import MAY_CHANGE, check_configuration, check_inputs, keep_inputs
from recsys.sources import data_of
from recsys.text.vectors import ItemVectors
from secagg.crypto.keys import KEY_BYTES
from secagg.errors import StorageError, UsageError
from secagg.files import read_private
from tests.controls import switch_off
from tests.scenes.recommender import config
from tests.scenes.tables import csv
from tests.scenes.whole_runs import Killed, contents, go

ROUNDS = 2


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return Path(csv(tmp_path / "a.csv"))


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """Files of the same name with other content are read anew."""
    data_of.cache_clear()
    yield
    data_of.cache_clear()


def asked(table: Path, *changes: str) -> Config:
    return config(
        "data.source=table",
        f"data.path={table}",
        "data.time=time",
        "clients.count=4",
        "protocol.dropout=0.34",
        *changes,
    )


def stop_after(rounds: int) -> Callable[[Run], None]:
    def watch(run: Run) -> None:
        if len(run.rounds) == rounds:
            raise Killed

    return watch


@pytest.fixture
def begun(table: Path, tmp_path: Path) -> Path:
    """A run that was stopped after its first round."""
    with pytest.raises(Killed):
        go(asked(table), folder := tmp_path / "run", watch=stop_after(1))
    data_of.cache_clear()
    return folder


def changed(table: Path, how: Callable[[list[str]], list[str]]) -> None:
    header, *rows = table.read_text().splitlines()
    table.write_text("\n".join([header, *how(rows)]) + "\n")


CHANGES: dict[str, Callable[[list[str]], list[str]]] = {
    "half of the rows": lambda rows: [*rows[: len(rows) // 2], *(_later(row) for row in rows[len(rows) // 2 :])],
    "one time": lambda rows: [_later(rows[0]), *rows[1:]],
    "one row less": lambda rows: rows[1:],
}


def _later(row: str) -> str:
    user, item, time, *more = row.split(",")
    return ",".join([user, item, str(int(time) + 1), *more])


@pytest.mark.parametrize("change", CHANGES)
def test_other_events_of_the_same_users_are_refused(change: str, begun: Path, table: Path) -> None:
    changed(table, CHANGES[change])
    before = contents(begun)
    with pytest.raises(UsageError, match=r"run was begun on other data .* take a new directory") as refused:
        go(asked(table), begun)
    assert "\n" not in str(refused.value)
    assert contents(begun) == before


def test_without_the_check_it_goes_on(begun: Path, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control, with half of the rows changed: the run ends, and nobody is told."""
    changed(table, CHANGES["half of the rows"])
    switch_off(monkeypatch, same_inputs, "check_inputs", "kept[_DATA] != expected[_DATA]")
    switch_off(monkeypatch, same_inputs, "check_inputs", "kept != expected")
    monkeypatch.setattr(run_start, "check_inputs", same_inputs.check_inputs)
    assert len(go(asked(table), begun).rounds) == ROUNDS


def test_the_same_data_in_another_place_go_on(begun: Path, table: Path) -> None:
    changed(table, lambda rows: rows[::-1])  # in another order of rows, they are the same events
    there = table.rename(table.with_name("b.csv"))
    run = go(asked(there, "protocol.workers=2"), begun)
    assert (len(run.rounds), run.ended) == (ROUNDS, "all rounds are done")
    kept = json.loads((begun / "config.json").read_bytes())
    assert kept == json.loads(json.dumps(run.config))
    assert (kept["data"]["path"], kept["protocol"]["workers"]) == (str(there), 2)


def test_what_changed_is_named(begun: Path, table: Path) -> None:
    before = contents(begun)
    several = ("training.rate=0.2", "training.rounds=3", "model.settings.width=3", "seed=1", "title=mine")
    for changes, said in (
        (
            ("training.rate=0.2",),
            "configuration: training.rate was 0.1 and is 0.2. Set that back, or take a new",
        ),
        (("privacy.mode=local",), "privacy.mode was 'none' and is 'local'"),
        (("model.settings.depth=2",), "model.settings.depth was not set and is 2"),
        (("data.items=x.csv",), "data.items was not set and is set"),
        (("title=mine",), "title was 'a small run' and is 'mine'"),
        (("title=mine", "seed=1"), "configuration: seed was 0 and is 1. Set that back"),
        (several, "; and 1 more. Set that back"),
    ):
        with pytest.raises(UsageError) as refused:
            existing_run(begun, asked(table, *changes))
        assert said in str(refused.value)
    with pytest.raises(UsageError, match="another configuration"):
        go(asked(table, "seed=1"), begun)
    assert contents(begun) == before


OTHERS = {"data.user": "who", "data.seed": 7, "clients.count": 7, "privacy.beside": True, "network.dropout": 0.5}


def test_only_what_is_named_may_change() -> None:
    first = config()
    plain = json.loads(json.dumps(first.plain()))
    check_configuration(Path("run"), json.dumps(plain).encode(), first)
    for section, name in (key.split(".") for key in MAY_CHANGE):
        assert name in plain[section]
    for key, value in OTHERS.items():
        section, name = key.split(".")
        other = {**plain, section: {**plain[section], name: value}}
        with pytest.raises(UsageError, match=f"another configuration: {key} was"):
            check_configuration(Path("run"), json.dumps(other).encode(), first)
    for kept in (b"", b"[]", b'{"data": 1}', b'{"more": 1}'):
        with pytest.raises(UsageError, match="another configuration, which cannot be read"):
            check_configuration(Path("run"), kept, first)


def test_a_configuration_that_was_changed_by_hand_is_noticed(begun: Path, table: Path) -> None:
    path = begun / "config.json"
    path.write_text(path.read_text().replace('"rate": 0.1,', '"rate": 0.2,'))
    other = asked(table, "training.rate=0.2")
    assert existing_run(begun, other) is not None
    with pytest.raises(UsageError, match=r"config\.json was changed since the run was begun"):
        go(other, begun)


@pytest.mark.parametrize(("kept", "why"), [(None, "is gone"), (0, "is damaged"), (97, "is damaged")])
def test_without_a_mark_a_run_does_not_go_on(kept: int | None, why: str, begun: Path, table: Path) -> None:
    path = begun / "private" / "inputs"
    path.unlink() if kept is None else path.write_bytes(bytes(kept))
    with pytest.raises(StorageError, match=why):
        go(asked(table), begun)


def test_a_run_that_has_ended_is_not_that_of_other_data(begun: Path, table: Path) -> None:
    go(asked(table), begun, keep_secrets=False)
    before = contents(begun)
    data_of.cache_clear()
    changed(table, CHANGES["one row less"])
    with pytest.raises(UsageError, match="begun on other data"):
        go(asked(table), begun)
    assert contents(begun) == before
    (begun / "private" / "inputs").unlink()  # as of an earlier release
    assert go(asked(table), begun).ended


def test_the_mark_tells_nothing_without_its_random_number(begun: Path, table: Path, tmp_path: Path) -> None:
    """It is private, another one in each run, and no file has a digest of the data."""
    with pytest.raises(Killed):
        go(asked(table), tmp_path / "other", watch=stop_after(1))
    marks = [read_private(folder / "private" / "inputs") for folder in (begun, tmp_path / "other")]
    parts = [mark[at : at + KEY_BYTES] for mark in marks for at in (0, KEY_BYTES, 2 * KEY_BYTES)]
    assert len(set(parts)) == 6
    plain = same_inputs._data(prepare(asked(table)))
    files = [path for path in begun.rglob("*") if path.is_file()]
    for path in files:
        data = path.read_bytes()
        for part in (plain, *([] if path.name == "inputs" else parts)):
            assert part not in data
            assert part.hex().encode() not in data
    assert os.stat(begun / "private" / "inputs").st_mode & 0o777 == 0o600


def test_all_that_a_run_is_about_is_marked(tmp_path: Path) -> None:
    """Each part by itself: with another one of it the run is not gone on with."""
    texts = Items.of(["a"], ["Up (2009)"], ["comedy"], texts=["A house flies away."])
    rows = np.ones((1, 1), np.float32)
    first = replace(prepare(config()), items=texts, vectors=ItemVectors(rows, "one"))
    keep_inputs(tmp_path, first)
    check_inputs(tmp_path, replace(first, items=replace(texts), vectors=ItemVectors(-rows, "one")))
    clients, split = first.client_data, first.split

    def of_all(**changes: Any) -> Split:
        return replace(split, **{name: replace(getattr(split, name), **changes) for name in ("train", "valid", "test")})

    others = [
        *(replace(first, items=replace(texts, **{name: other})) for name, other in OTHER_ITEMS.items()),
        replace(first, vectors=ItemVectors(rows, "another")),
        replace(first, client_data=replace(clients, members=clients.members[::-1])),
        replace(first, split=of_all(user_ids=split.train.user_ids[::-1])),
        replace(first, split=of_all(item_ids=split.train.item_ids[::-1])),
        *(
            replace(first, split=replace(split, **{part: replace(events, **{name: array + array.dtype.type(1)})}))
            for part, events in (("train", split.train), ("valid", split.valid), ("test", split.test))
            for name, array in (("times", events.times), ("ratings", events.ratings))
        ),
    ]
    for other in others:
        with pytest.raises(UsageError, match="begun on other data"):
            check_inputs(tmp_path, other)


OTHER_ITEMS: dict[str, Any] = {
    "titles": ("Down",),
    "genres": (("comedy", "drama"),),
    "years": (2010,),
    "texts": ("A house stays.",),
}
