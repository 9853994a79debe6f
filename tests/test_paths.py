"""Wherever the public API takes a path, text does as well."""

from __future__ import annotations

import inspect
import tarfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import secagg
from dp.ledger.file import read
from recsys.config import Config
from recsys.data import Interactions, movielens, tables
from recsys.data.split import Split, leave_last_out
from recsys.export import export
from recsys.metrics.ranking import evaluate
from recsys.models import store
from recsys.models.popularity import ItemPop
from recsys.other_runs import RunList
from recsys.report import Account, write_report
from recsys.run_record import Run
from recsys.run_start import existing_run
from recsys.serving import ServedModel
from secagg import Identity, Ledger, Roster, SqliteJournal
from tests.scenes import runs

DOORS = [
    "dp.audit", "dp.ledger", "dp.ledger.file", "dp.ledger.verify", "protocols.adapters.nvflare.site",
    "protocols.journal", "protocols.roster", "protocols.tree", "recsys.config", "recsys.data.download",
    "recsys.data.movielens", "recsys.data.partition", "recsys.data.split", "recsys.data.tables", "recsys.export",
    "recsys.metrics.ranking", "recsys.models.store", "recsys.other_runs", "recsys.report", "recsys.report.account",
    "recsys.run", "recsys.run_record", "recsys.secure_aggregator",
]  # fmt: skip
INTERNAL = {"fetch_archive", "Spent.load", "Ledger.__init__"}
"""What nobody calls from outside."""


def public(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Functions, and methods of classes, that a module offers."""
    for name, found in vars(module).items():
        if name.startswith("_") or getattr(found, "__module__", "") != module.__name__:
            continue
        if inspect.isfunction(found):
            yield name, found
        elif inspect.isclass(found):
            for inner, method in vars(found).items():
                plain = getattr(method, "__func__", method)
                if inspect.isfunction(plain) and (inner == "__init__" or not inner.startswith("_")):
                    yield f"{name}.{inner}", plain


def narrow(function: Any) -> list[str]:
    """Parameters that take a ``Path`` and no text."""
    kinds = {name: str(kind) for name, kind in inspect.get_annotations(function).items() if name != "return"}
    return [name for name, kind in kinds.items() if "Path" in kind.split(" | ") and "str" not in kind.split(" | ")]


def test_signatures() -> None:
    offered = [(name, found) for door in DOORS for name, found in public(import_module(door))]
    offered += [(name, getattr(secagg, name)) for name in secagg.__all__ if inspect.isfunction(getattr(secagg, name))]
    assert len(offered) > 60
    assert {name for name, found in offered if narrow(found)} == INTERNAL
    assert narrow(lambda: None) == []


def test_control_a_narrow_signature_is_found() -> None:
    def takes(path: Path, other: str | Path, more: Path | None = None) -> Path: ...  # type: ignore[empty-body]

    assert narrow(takes) == ["path", "more"]


def test_keys_rosters_journals_and_ledgers(tmp_path: Path) -> None:
    alice = Identity.generate("alice")
    alice.save(f"{tmp_path}/alice.key")
    assert Identity.load(f"{tmp_path}/alice.key").key.public == alice.key.public
    Roster.of([alice]).save(f"{tmp_path}/roster.toml")
    assert Roster.load(f"{tmp_path}/roster.toml").names == ("alice",)
    SqliteJournal(f"{tmp_path}/alice.db").close()
    runs.make(tmp_path, "distributed")
    Ledger.open(f"{tmp_path}/{runs.FILE}", runs.KEY).close()
    assert len(read(f"{tmp_path}/{runs.FILE}")) > 1


def test_a_run_and_its_report(tmp_path: Path) -> None:
    (run := tmp_path / "run").mkdir()
    made = runs.make(run, "local")
    assert Run.load(str(run)).title == made.title
    made.save(str(run), runs.KEY)
    assert Account.load(str(run)).run.title == made.title
    assert write_report(str(run)).exists()
    assert "run.json" in export(str(run), f"{tmp_path}/run.tar", model=False)
    assert tarfile.is_tarfile(tmp_path / "run.tar")
    (tmp_path / "run.toml").write_text("seed = 7")
    assert Config.load(f"{tmp_path}/run.toml").seed == 7
    assert existing_run(f"{tmp_path}/new", Config()) is None
    with RunList(f"{tmp_path}/state").locked():
        assert (tmp_path / "state").is_dir()


def test_data_and_models(tmp_path: Path) -> None:
    lines = [f"u{user},i{item}" for user in range(3) for item in range(4)]
    (tmp_path / "events.csv").write_text("\n".join(["user,item", *lines]))
    found = tables.load(f"{tmp_path}/events.csv").interactions
    assert isinstance(found, Interactions)
    (tmp_path / "items.csv").write_text("item\ni0\ni1\n")
    assert tables.items(f"{tmp_path}/items.csv").ids == ("i0", "i1")
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,4.0,1\n1,2,4.0,2\n")
    assert len(movielens.load(str(tmp_path)).interactions) == 2
    for part, item in (("train", 1), ("valid", 2), ("test", 3)):
        (tmp_path / f"{part}.csv").write_text(f"user,item\nu,i{item}\n")
    assert len(Split.load(*(f"{tmp_path}/{part}.csv" for part in ("train", "valid", "test"))).train) == 1
    split = leave_last_out(found)
    (model := ItemPop()).fit(split.train)
    store.save(ServedModel(model, split.train.item_ids), f"{tmp_path}/model.safetensors")
    served = store.load(f"{tmp_path}/model.safetensors")
    assert list(served.item_ids) == list(split.train.item_ids)
    evaluate(model, split).write_csv(f"{tmp_path}/users.csv", split.train.user_ids)
    assert np.loadtxt(tmp_path / "users.csv", dtype=str, delimiter=",").shape[0] == 4


@pytest.mark.parametrize("path", ["nowhere/at/all", Path("nowhere/at/all")])
def test_errors_name_it_the_same(path: str | Path) -> None:
    for load in (Identity.load, Roster.load, Config.load, Run.load, store.load):
        with pytest.raises(secagg.UsageError, match="nowhere/at/all"):
            load(path)
