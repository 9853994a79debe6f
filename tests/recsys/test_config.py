"""Configurations: read strictly, refused in one line, and back again unchanged."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from recsys.config import ClientKind, Clients, Config, Data, Mode, Privacy, Source, Training
from recsys.network import Network
from recsys.optimisers import Rule
from secagg.assumptions import Adversary
from secagg.errors import UsageError
from tests.scenes.examples import EXAMPLES


def test_an_empty_file_is_the_default() -> None:
    assert Config.parse({}) == Config()


def test_values_become_what_they_mean() -> None:
    table = {
        "seed": 4,
        "clients": {"kind": "devices"},
        "training": {"server": "fedadam", "clip": 2, "draw": "poisson", "size": 30},
        "privacy": {"mode": "distributed", "epsilon": 3},
        "protocol": {"adversary": "curious", "dropout": 0.2},
        "network": {"deadline": 5},
        "model": {"settings": {"width": 3}},
    }
    config = Config.parse(table)
    assert (config.clients.kind, config.training.server, config.privacy.mode) == (
        ClientKind.DEVICES,
        Rule.FEDADAM,
        Mode.DISTRIBUTED,
    )
    assert (config.training.clip, type(config.training.clip)) == (2.0, float)
    assert (config.protocol.adversary, config.protocol.dropout) == (Adversary.CURIOUS, "0.2")
    assert config.network == Network(deadline=5.0)
    assert config.model.settings == {"width": 3}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_can_be_read(path: Path) -> None:
    assert Config.load(path, ["data.path=somewhere"]).data.path == "somewhere"


def test_there_is_an_example_for_each_mode() -> None:
    assert {Config.load(path).privacy.mode for path in EXAMPLES} == set(Mode)


def test_what_is_right_beside_what_is_refused_is_not() -> None:
    times = {"held_out": "time", "valid_from": 8, "test_from": "2024-05-01"}
    assert Config.parse({"data": times}).data.valid_from == "8"
    assert Config.parse({"data": {"held_out": "time"}, "privacy": {"mode": "none"}}).data.test_from == ""
    assert Config.parse({"privacy": {"n_min": 100}, "training": {"measured": 0}}).privacy.n_min == 100
    assert Config.parse({"privacy": {"mode": "distributed"}, "training": {"measured": 0.1}}).training.measured == 0.1


def test_what_is_written_down_is_read_again() -> None:
    config = Config.parse({"training": {"rounds": 3}}, ["clients.kind=devices", "privacy.mode=none"])
    assert Config.parse(json.loads(json.dumps(config.plain()))) == config


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("training.rounds=3", Config(training=Training(rounds=3))),
        ("training.rate = 0.5", Config(training=Training(rate=0.5))),
        ("privacy.mode=none", Config(privacy=Privacy(mode=Mode.NONE))),
        ('privacy.mode="none"', Config(privacy=Privacy(mode=Mode.NONE))),
        ("data.path=a folder/with=signs", Config(data=Data(path="a folder/with=signs"))),
        ("data.source=table", Config(data=Data(source=Source.TABLE))),
        ("title=x", Config(title="x")),
        ("clients.count=7", Config(clients=Clients(count=7))),
    ],
)
def test_changes_come_on_top(change: str, found: Config) -> None:
    assert Config.parse({}, [change]) == found


def test_the_last_change_counts() -> None:
    config = Config.parse({"training": {"rounds": 3}}, ["training.rounds=4", "training.rounds=5"])
    assert config.training.rounds == 5


def streamed(**sections: dict[str, Any]) -> dict[str, Any]:
    """A configuration of a stream, with changes."""
    table: dict[str, dict[str, Any]] = {"data": {"source": "stream"}, "privacy": {"mode": "distributed"}}
    return {name: {**table.get(name, {}), **sections.get(name, {})} for name in table.keys() | sections.keys()}


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"trainnig": {}}, "unknown key trainnig: there are title, seed, data"),
    ({"training": {"runds": 3}}, "unknown key training.runds: there are rounds, draw"),
    ({"model": {"setings": {}}}, "unknown key model.setings: there are name, encoder, settings "),
    ({"training": 3}, "training is a section"),
    ({"model": {"settings": 3}}, "model.settings is a section"),
    ({"training": {"rounds": "3"}}, "training.rounds is a whole number, not '3'"),
    ({"training": {"rounds": 3.0}}, "training.rounds is a whole number"),
    ({"training": {"rounds": True}}, "training.rounds is a whole number"),
    ({"training": {"rate": "fast"}}, "training.rate is a number"),
    ({"training": {"rate": True}}, "training.rate is a number"),
    ({"title": 3}, "title is text"),
    ({"privacy": {"mode": "total"}}, "privacy.mode is none or local or distributed or both, not 'total'"),
    ({"privacy": {"mode": 3}}, "privacy.mode is none or"),
    ({"training": {"rounds": 0}}, "at least 1"),
    ({"training": {"rate": 0.0}}, "above zero"),
    ({"training": {"rate": float("inf")}}, "training.rate is a finite number"),
    ({"training": {"clip": float("nan")}}, "training.clip is a finite number"),
    ({"training": {"proximal": -1.0}}, "proximal"),
    ({"training": {"proximal": 0.1}, "privacy": {"mode": "local"}}, "training.proximal is of no use"),
    ({"privacy": {"epsilon": 0.0}}, "privacy.epsilon is above zero"),
    ({"privacy": {"epsilon": float("inf")}}, "privacy.epsilon is a finite number"),
    ({"privacy": {"delta": 1.0}}, "delta"),
    ({"privacy": {"n_min": 2}}, "privacy.n_min is at least 100"),
    ({"privacy": {"n_min": 99}}, "privacy.n_min is at least 100"),
    ({"privacy": {"n_min": -100}}, "n_min not below zero"),
    ({"data": {"held_out": "time"}}, "needs data.valid_from and data.test_from"),
    ({"data": {"held_out": "time", "test_from": 9}}, "go together"),
    ({"data": {"source": "split", "order": 1}}, "data.order is for events with times"),
    ({"data": {"source": "table", "order": 1}}, "data.order is for events with times"),
    ({"data": {"order": -1}}, "seeds are from 0"),
    ({"data": {"valid_from": 8, "test_from": 9}}, "are for data.held_out = time"),
    ({"data": {"items": "items.csv"}}, "data.items is for files"),
    ({"data": {"catalogue": "items.csv"}}, "data.catalogue is called data.items now"),
    ({"data": {"items": 500}}, "data.items names a table of items now: how many are made up is data.item_count"),
    ({"training": {"measured": 0.1}}, "training.measured is of no use with privacy.mode = local"),
    ({"privacy": {"mode": "both"}, "training": {"measured": 0.1}}, "training.measured is of no use"),
    ({"privacy": {"share": 0.0}}, "privacy.share"),
    ({"privacy": {"share": 1.5}}, "privacy.share"),
    ({"privacy": {"steps": 0}}, "at least one step"),
    ({"privacy": {"mode": "distributed"}, "training": {"weight_bound": 2}}, "every client counts once"),
    ({"privacy": {"mode": "both"}, "training": {"weight_bound": 2}}, "every client counts once"),
    ({"privacy": {"mode": "distributed"}, "training": {"scaffold": True}}, "training.scaffold is not for"),
    ({"clients": {"count": 1}}, "clients.count"),
    ({"clients": {"kind": "devices"}}, "only mf"),
    ({"network": {"dropout": 1.0}}, "network.dropout"),
    ({"network": {"latency": 0}}, "network.latency"),
    ({"protocol": {"workers": 0}}, "workers"),
    ({"stream": {"every": 60}}, "section stream is for data.source = stream"),
    (streamed(stream={"every": 0}), "stream.every, window"),
    (streamed(stream={"events": 0.0}), "stream.every, window"),
    (streamed(stream={"begin": -1}), "stream.begin, ahead"),
    (streamed(stream={"kind": "file"}), "needs stream.path"),
    (streamed(stream={"kind": "dataset"}), "needs stream.path"),
    (streamed(stream={"kind": "kafka", "topic": "events"}), "needs stream.servers"),
    (streamed(stream={"kind": "file", "path": "events.jsonl"}), "needs stream.begin"),
    (streamed(stream={"kind": "file", "path": "events.jsonl", "begin": 1}), "needs data.items"),
    (streamed(stream={"clock": "wall"}), "stream.clock is recorded"),
    (streamed(data={"items": "items.csv"}), "data.items is for files"),
    (streamed(clients={"kind": "devices"}), "clients are silos"),
    (streamed(clients={"spread": "dirichlet"}), "clients are silos"),
    (streamed(privacy={"mode": "local"}), "distributed or none"),
    (streamed(privacy={"ledger": "shared.db"}), "distributed or none"),
    (streamed(clients={"overlap": 2}), "distributed or none"),
    (streamed(training={"draw": "fixed", "size": 5}), "is everyone"),
    (streamed(training={"sampled": 0.5}), "is everyone"),
    (streamed(privacy={"mode": "none"}, training={"personal": ["bias"]}), "without an end"),
    (streamed(training={"measured": 0.1}), "clients measure nothing"),
    (streamed(training={"patience": 2}), "clients measure nothing"),
    (streamed(stream={"frozen": 3}, evaluation={"exact": False}), "is measured exactly"),
    ({"seed": -1}, "seeds are"),
    ({"data": {"seed": 1 << 32}}, "seeds are"),
]


@pytest.mark.parametrize(("table", "reason"), WRONG)
def test_what_cannot_be_meant_is_refused(table: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as refused:
        Config.parse(table)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("change", ["training.rounds", "title.of=3", "training.rounds.of=3", "nothing=3", "=3", ".=3"])
def test_changes_that_change_nothing_are_refused(change: str) -> None:
    with pytest.raises(UsageError):
        Config.parse({"title": "x", "training": {"rounds": 3}}, [change])


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    with pytest.raises(UsageError, match="No such file"):
        Config.load(path)
    with pytest.raises(UsageError, match="cannot read"):
        Config.load(tmp_path)
    for text in (b"seed = ", b"\xff", b"a = " + b"[" * 5000):
        path.write_bytes(text)
        with pytest.raises(UsageError, match="is not a TOML file"):
            Config.load(path)
    path.write_text(tomllib.loads('text = "[training]\\nrounds = 3\\n"')["text"])
    assert Config.load(path, ["seed=2"]) == Config(seed=2, training=Training(rounds=3))
