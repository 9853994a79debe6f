"""A run on a stream, whole: its ledger is about windows, its report shows the model beside one that is frozen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dp.ledger.file import read
from dp.ledger.state import replay
from recsys.assembly import prepare
from recsys.config import Config
from recsys.federated import ClientData
from recsys.other_runs import RunList
from recsys.report import write_report
from recsys.run import train
from recsys.run_record import Run
from recsys.stream.feed import Feed
from recsys.stream.journal import StreamJournal
from secagg.at_rest import Folder, Keyring
from secagg.errors import StorageError, UsageError

pytest.importorskip("torch", reason="NOT TESTED: training needs torch, pip install 'secagg[train]'")

DAY = 86_400
TABLE: dict[str, Any] = {
    "data": {"source": "stream", "users": 120, "item_count": 40},
    "clients": {"count": 4},
    "model": {"settings": {"width": 2, "recent": 10}},
    "training": {"rounds": 6, "measured_every": 1},
    "stream": {
        "begin": DAY, "every": 3600, "window": 3600, "replay": 7200, "events": 80.0, "change": DAY + 9000, "frozen": 2,
    },
    "privacy": {"mode": "distributed", "epsilon": 8.0},
    "protocol": {"workers": 1, "dropout": "0.25"},
}  # fmt: skip


def trained(folder: Path, *changes: str) -> Run:
    prepared = prepare(Config.parse(json.loads(json.dumps(TABLE)), changes))
    return train(prepared, folder / "run", machine={}, run_list=RunList(folder / "state"))


def test_the_budget_is_that_of_a_window_and_comes_back(tmp_path: Path) -> None:
    run = trained(tmp_path)
    assert (run.ended, len(run.rounds)) == ("all rounds are done", 6)
    genesis = replay(read(tmp_path / "run" / "ledger.db")).genesis
    assert genesis.window is not None
    window = genesis.window
    assert (window.length, window.kept, window.start, window.every) == (3600, 7200, DAY, 3600)
    assert (genesis.guarantee.unit, window.most_releases) == ("user-window", 3)
    spent = [one.epsilon for one in run.rounds]
    assert spent[2:] == [spent[2]] * 4  # three sums are the budget, and each later one has room again
    assert 7.9 < (spent[2] or 0) <= 8
    assert [one.unit for one in run.spendings] == ["user-window"]
    assert "user" not in run.spendings[0].words
    assert "when each event of the stream was read" in run.public
    assert list(run.rounds[1].exact) == ["HR@10", "NDCG@10"]
    assert list(run.rounds[2].exact) == ["HR@10", "NDCG@10", "HR@10, frozen", "NDCG@10, frozen"]
    report = write_report(tmp_path / "run").read_text()
    assert "of a model without later events" in report
    assert "exact, before the round" in report
    left = {path.name for path in (tmp_path / "run" / "private").iterdir()}
    assert not {"stream.db", "frozen.safetensors", "secret.key"} & left


class Killed(BaseException):
    pass


@pytest.mark.parametrize("place", ["begin", "out", "acknowledge"])
def test_a_run_that_was_killed_goes_on_and_uses_each_event_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """What is new in each sum, with a kill after the journal has moved, is what it is without one."""
    whole = new_in_sums(tmp_path / "whole", monkeypatch, "")
    assert new_in_sums(tmp_path / "killed", monkeypatch, place) == whole
    assert len(whole) >= 4
    assert all(whole)


def new_in_sums(folder: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> list[list[tuple[str, int]]]:
    """Users and items that are new in each sum, by the journal, in a run that is killed once."""
    found, killed = dict[int, list[tuple[str, int]]](), [place == ""]
    with monkeypatch.context() as patch:
        for of, name in ((StreamJournal, "begin"), (StreamJournal, "out"), (Feed, "acknowledge")):
            patch.setattr(of, name, stopped(getattr(of, name), name == place, killed))
        begin = StreamJournal.begin

        def seen(self: StreamJournal, number: int, moment: int) -> None:
            begin(self, number, moment)
            new = sorted((one.user, one.item) for one in self.events(number) if one.new)
            if self.sums()[1]:  # else it is out, and made from what is on disk
                assert found.setdefault(number, new) == new

        patch.setattr(StreamJournal, "begin", seen)
        changes = ("training.rounds=4", "privacy.mode=none", "stream.frozen=0", "network.dropout=0.1")
        while True:
            try:
                assert trained(folder, *changes).ended == "all rounds are done"
                return [found[number] for number in sorted(found)]
            except Killed:
                pass


def stopped(work: Any, here: bool, killed: list[bool]) -> Any:
    """The process ends when this is done for the third time."""
    calls = [0]

    def step(self: Any, *arguments: Any) -> Any:
        result = work(self, *arguments)
        calls[0] += here
        if here and calls[0] == 3 and not killed[0]:
            killed[0] = True
            raise Killed
        return result

    return step


def test_without_its_journal_a_run_does_not_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = [False]
    with monkeypatch.context() as patch:
        patch.setattr(Feed, "acknowledge", stopped(Feed.acknowledge, True, killed))
        with pytest.raises(Killed):
            trained(tmp_path, "privacy.mode=none")
    (tmp_path / "run" / "private" / "stream.db").unlink()
    with pytest.raises(StorageError, match="journal is older than the checkpoint, or gone"):
        trained(tmp_path, "privacy.mode=none")


def test_a_stream_is_for_models_that_train_and_for_runs_that_are_not_sealed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a stream goes on"):
        prepare(Config.parse(TABLE | {"model": {"name": "private-ease"}}))
    prepared = prepare(Config.parse(TABLE, ["privacy.mode=none"]))
    sealed = Folder(tmp_path / "run", Keyring([bytes(32)]))
    with pytest.raises(UsageError, match="not sealed at rest"):
        train(prepared, sealed, machine={}, run_list=RunList(tmp_path / "state"))


def test_a_training_goes_on_with_the_same_clients_and_items() -> None:
    prepared = prepare(Config.parse(TABLE, ["privacy.mode=none"]))
    from recsys.ideal_aggregator import IdealAggregator
    from recsys.models.recommender import SharedModel

    model: SharedModel = prepared.model()  # type: ignore[assignment]
    federation = prepared.federation(model, IdealAggregator(bytes(32)), bytes(32))
    data = prepared.client_data
    federation.on(data)
    with pytest.raises(UsageError, match="same clients and items"):
        federation.on(ClientData(data.names[1:], data.members[1:], data.train, data.held_out))
