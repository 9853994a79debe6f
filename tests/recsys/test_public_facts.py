"""What one user did shows in noised sums, in what is outside of the guarantee or said to be public, and nowhere else.

Two files that differ in the lines of one user only: in one of them few, in the other a thing that nobody else has,
extreme times, many lines, of all kinds, before everybody else's; or nothing that can be used. All that a run works out
of the file is compared. Controls take one measure away at a time, and the comparison names what leaks then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from dp.ledger.file import read
from dp.ledger.state import replay
from recsys import assembly as preparing
from recsys import config as configuring
from recsys import run as running
from recsys.aggregator import LazyVectors, Request, Result, Update
from recsys.assembly import Prepared
from recsys.config import Config
from recsys.data import tables
from recsys.federated import Federation
from recsys.ideal_aggregator import IdealAggregator
from recsys.models.recommender import SharedModel
from recsys.models.store import read as read_model
from recsys.other_runs import RunList
from recsys.public_facts import EVERYTHING, HELD_OUT, INTERACTIONS, ITEMS, SILOS, WHO, WHO_IN_SILOS
from recsys.report import write_report
from recsys.requested_sums import LearnsFromSums
from recsys.run import _record, train
from recsys.run_record import UNKNOWN
from recsys.run_start import StartedRun
from secagg.at_rest import Folder
from secagg.crypto.keys import SigningKey
from secagg.errors import UsageError
from tests.controls import switch_off
from tests.scenes.recommender import SECRET, ledger_for, same_secrets
from tests.scenes.recommender import config as small

DOCS = Path(__file__).parents[2] / "docs"
UNBEGUN = StartedRun(Folder(Path()), b"", SigningKey(bytes(32)), {}, UNKNOWN)
OTHERS = [f"user-{number:02}" for number in range(40)]
MALLORY = "mallory"
CATALOGUE = [f"item-{number:03}" for number in range(120)][::-1]
FEW = [f"{MALLORY},item-003,50", f"{MALLORY},item-001,60", f"{MALLORY},item-002,70"]
"""What else this user might have done:"""
EXTREME = [
    f"{MALLORY},secret,{-(2**52)}",
    f"{MALLORY},item-119,{2**52}",
    *(f"{MALLORY},item-{number:03},{number}" for number in range(100)),
    f"{MALLORY},,5",
    f"{MALLORY},item-003,2024-05-01",
]
DATES = [f"{MALLORY},item-00{number},2024-05-0{number}" for number in (1, 2, 3)]
NOTHING = [f"{MALLORY},secret,1"]
SAME_NUMBER = [f"{MALLORY},item-11{number},{number * 10**9}" for number in range(3)]


def others() -> list[str]:
    rng = np.random.default_rng(3)
    return [
        f"{user},item-{item:03},{10 * step + int(rng.integers(10))}"
        for user in OTHERS
        for step, item in enumerate(rng.choice(30, size=12, replace=False))
    ]


def asked(folder: Path, *changes: str) -> Config:
    return small(
        "data.source=table",
        f"data.path={folder / 'events.csv'}",
        f"data.items={folder / 'items.csv'}",
        "data.time=time",
        "data.users=1",
        "clients.count=4",
        "training.rounds=1",
        "privacy.steps=1",
        *changes,
    )


def write(folder: Path, mallory: list[str]) -> None:
    (folder / "items.csv").write_text("\n".join(["item", *CATALOGUE]) + "\n")
    (folder / "events.csv").write_text("\n".join(["user,item,time", *mallory, *others()]) + "\n")
    preparing.data_of.cache_clear()


DISTRIBUTED, LOCAL = "privacy.mode=distributed", "privacy.mode=local"
IN_SILOS = (DISTRIBUTED, "privacy.n_min=100")
SUMS = ("model.name=private-ease", "model.settings={}")
DEVICES = ("clients.kind=devices", "protocol.adversary=curious")
EASE = (*SUMS, *DEVICES)
MF = ("model.name=mf", "model.settings={}", *DEVICES)
TIME = ("data.held_out=time", "data.valid_from=90", "data.test_from=100")
KINDS: Mapping[str, tuple[str, ...]] = {
    "local": (LOCAL,),
    "distributed": IN_SILOS,
    "both": ("privacy.mode=both",),
    "by time": (LOCAL, *TIME),
    "by ratio": (*IN_SILOS, "data.held_out=ratio"),
    "sums over silos": (*IN_SILOS, *SUMS),
    "sums": (DISTRIBUTED, *EASE),
    "devices in rounds": (DISTRIBUTED, *MF),
    "devices, by time": (DISTRIBUTED, *EASE, *TIME),
}


def facts(config: Config, folder: Path) -> dict[str, object]:
    """All that is worked out of the data before there is noise, but for what is Mallory's own."""
    prepared = preparing.prepare(config)
    split = prepared.split
    mine = split.train.user_ids.index(MALLORY)
    parts = {"train": split.train, "valid": split.valid, "test": split.test}
    record = asdict(_record(prepared, UNBEGUN, {}))
    return {
        "items": tuple(split.train.item_ids),
        "users": tuple(split.train.user_ids),
        "clients": [
            (name, *members)
            for name, members in zip(prepared.client_data.names, prepared.client_data.members, strict=True)
        ],
        "others": [
            (name, user, part.history(user).tolist())
            for name, part in parts.items()
            for user in range(split.train.user_count)
            if user != mine
        ],
        "form": prepared.encoding,
        "noise": (prepared.distributed, prepared.locally, prepared.planned_clients),
        "record": record,
        "public": prepared.taken_as_public,
        "sent": sent(prepared, mine, folder),
    }


def sent(prepared: Prepared, mine: int, folder: Path) -> dict[str, NDArray[np.float64]]:
    """What the clients of others add, and silos for others."""
    found: dict[str, NDArray[np.float64]] = {}

    class Kept(IdealAggregator):
        def aggregate(self, request: Request, update: Update) -> Result:
            def kept(name: str) -> NDArray[np.float64] | LazyVectors:
                made, users = update(name), prepared.client_data.users(name)
                vectors = list(made) if isinstance(made, LazyVectors) else [made]
                for user, vector in zip(users, vectors, strict=isinstance(made, LazyVectors)):
                    if user != mine if isinstance(made, LazyVectors) else mine not in users:
                        found[f"{request.number} {name} {user}"] = vector.copy()
                return LazyVectors(len(vectors), lambda: vectors) if isinstance(made, LazyVectors) else made

            result = super().aggregate(replace(request, noise=None), kept)
            # What is learnt from a sum is private; here the sums are not noised, so the next one must not see it.
            return replace(result, vector=np.zeros_like(result.vector))

    aggregator, model = Kept(SECRET), prepared.model()
    if not prepared.in_rounds:
        cast(LearnsFromSums, model).learn(prepared.sums(aggregator), prepared.split.train.item_count)
        return found
    ledger = None
    if prepared.locally is not None:
        names, unit = prepared.client_data.names, prepared.locally.guarantee.unit
        privacy = prepared.config.privacy
        local = preparing.LocalPrivacy(prepared.locally.settings, privacy.share, privacy.steps, privacy.rate, unit)
        ledger = ledger_for(folder / "ledger.db", local.event(prepared.client_data.examples(names, unit)))
    federation: Federation = prepared.federation(cast(SharedModel, model), aggregator, SECRET, ledger)
    federation.advance()
    if ledger is not None:
        ledger.close()
        (folder / "ledger.db").unlink()
    return found


def differing(folder: Path, changes: tuple[str, ...], one: list[str], two: list[str]) -> set[str]:
    """Names of the facts that tell the two files apart."""
    config = asked(folder, *changes)
    seen = []
    for lines in (one, two):
        write(folder, lines)
        seen.append(facts(config, folder))
    return {name for name, value in seen[0].items() if not same(value, seen[1][name])}


def same(one: Any, other: Any) -> bool:
    """A sum of numbers that a library adds up may come out otherwise in its last bits."""
    if isinstance(one, dict) and any(isinstance(value, np.ndarray) for value in one.values()):
        return one.keys() == other.keys() and all(
            one[name].shape == other[name].shape and np.allclose(one[name], other[name], rtol=0, atol=1e-5)
            for name in one
        )
    return bool(one == other)


@pytest.mark.thinned(4)
@pytest.mark.parametrize("kind", KINDS)
def test_what_one_user_did_shows_nowhere(kind: str, tmp_path: Path) -> None:
    for lines in (EXTREME, DATES, NOTHING):
        assert differing(tmp_path, KINDS[kind], FEW, lines) == set()


@pytest.mark.long
def test_on_devices_that_train_by_themselves_the_number_of_interactions_is_public(tmp_path: Path) -> None:
    """Control: another number changes delta, and with it everybody's noise; and the run says that it is public."""
    assert differing(tmp_path, (LOCAL, *MF), FEW, SAME_NUMBER) == set()
    assert "noise" in differing(tmp_path, (LOCAL, *MF), FEW, EXTREME)
    assert preparing.prepare(asked(tmp_path, LOCAL, *MF)).taken_as_public == (WHO, INTERACTIONS)


def test_a_device_with_nothing_to_train_on_does_not_train_by_itself(tmp_path: Path) -> None:
    write(tmp_path, NOTHING)
    prepared = preparing.prepare(asked(tmp_path, LOCAL, *MF))
    mine = prepared.split.train.user_ids.index(MALLORY)
    assert len(prepared.client_data.names) == len(OTHERS)
    assert len(sent(prepared, mine, tmp_path)) == len(OTHERS)


# Controls: one measure less


def test_control_without_a_catalogue_the_list_of_items_is_published(tmp_path: Path) -> None:
    changes = (*IN_SILOS, "data.items=")
    assert {"items", "form", "record"} <= differing(tmp_path, changes, FEW, EXTREME)
    assert ITEMS in preparing.prepare(asked(tmp_path, *changes)).taken_as_public


def test_control_moments_that_follow_from_the_data_move_what_is_held_out_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = (*IN_SILOS, "data.held_out=time")
    with pytest.raises(UsageError, match="needs data"):
        differing(tmp_path, changes, FEW, EXTREME)
    condition = "self.private and self.data.held_out is HoldOut.TIME and not self.data.test_from"
    switch_off(monkeypatch, configuring.Config, "__post_init__", condition)
    assert {"others", "sent"} <= differing(tmp_path, changes, FEW, EXTREME)


def test_control_numbers_in_the_order_of_the_file_tell_who_came_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_come = property(lambda self: tuple(self._numbers))
    monkeypatch.setattr(tables._Numbers, "ids", first_come)
    late = [*others()[:5], *FEW]
    assert "users" in differing(tmp_path, KINDS["local"], FEW, late)


def test_control_one_kind_of_time_for_all_makes_the_lines_of_others_bad(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch_off(monkeypatch, tables._Clock, "read", "self._dates.setdefault(user, is_date)", IN_ALL)
    assert {"others", "sent"} <= differing(tmp_path, KINDS["local"], FEW, DATES)


IN_ALL = "self._dates.setdefault(0, is_date)"


def test_control_devices_that_are_left_out_renumber_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    switch_off(monkeypatch, preparing, "client_data_of", "config.locally or not config.private", "True")
    assert {"clients", "form", "sent"} & differing(tmp_path, KINDS["sums"], FEW, NOTHING)


def test_control_exact_counts_are_seen_in_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    switch_off(monkeypatch, running, "_record", "config.private")
    monkeypatch.setitem(globals(), "_record", running._record)
    assert differing(tmp_path, KINDS["local"], FEW, EXTREME) == {"record"}


def test_control_silos_by_taste_follow_from_all_users(tmp_path: Path) -> None:
    changes = (*IN_SILOS, "clients.spread=dirichlet", "clients.alpha=5.0")
    assert "clients" in differing(tmp_path, changes, FEW, EXTREME)
    assert SILOS in preparing.prepare(asked(tmp_path, *changes)).taken_as_public


# Whole runs


@pytest.mark.parametrize("kind", ["local", "distributed"])
def test_a_run_leaves_no_more_than_that(kind: str, tmp_path: Path) -> None:
    """All of run.json but what is noised and charged, or stands under "outside of the guarantee"."""
    seen = []
    for folder, lines in ((tmp_path / "one", FEW), (tmp_path / "two", EXTREME)):
        write(tmp_path, lines)
        prepared = preparing.prepare(asked(tmp_path, *KINDS[kind]))
        if seen:  # the same secret, hence the same graphs and lots
            same_secrets(tmp_path / "one", folder)
        run_list = RunList(folder.with_name(f"{folder.name}.state"))
        how: dict[str, Any] = {"machine": {}, "run_list": run_list}
        run = asdict(train(prepared, folder, keep_secrets=True, **how))
        results = run.pop("results")
        assert run.pop("model")  # which was trained under the guarantee
        assert all(set(result) == {"name", "metrics", "note"} for result in results)
        for entry in run["rounds"]:
            assert entry.pop("seconds")
            entry.pop("exact")
            assert not entry.pop("measured") or kind == "distributed"  # of noised counts there may be no mean
        seen.append(run)
    assert seen[0] == seen[1]


def test_all_who_have_to_say_it_say_what_is_public(tmp_path: Path) -> None:
    write(tmp_path, FEW)
    prepared = preparing.prepare(asked(tmp_path, LOCAL, "data.items="))
    assert prepared.taken_as_public == (WHO, ITEMS)
    run_list = RunList(tmp_path / "state")
    run = train(prepared, tmp_path / "run", machine={}, run_list=run_list)
    assert run.public == prepared.taken_as_public
    said = "; ".join(run.public)
    assert f"Taken as public: {said}." in write_report(tmp_path / "run").read_text().replace("&#x27;", "'")
    assert f"Taken as public: {said}" in genesis(tmp_path / "run" / "ledger.db")
    header, _ = read_model(tmp_path / "run" / "model.safetensors")
    assert header["public"] == list(run.public)


def genesis(path: Path) -> str:
    return replay(read(path)).genesis.elsewhere


def test_what_can_be_public_is_in_the_documents() -> None:
    text = " ".join((DOCS / "privacy.md").read_text().split())
    for words in EVERYTHING:
        assert words in text


def test_what_nobody_of_the_made_up_population_has_is_an_item_all_the_same() -> None:
    prepared = preparing.prepare(small(DISTRIBUTED, "data.users=8", "data.item_count=900", "clients.count=2"))
    train = prepared.split.train
    assert (train.item_count, prepared.taken_as_public) == (900, (WHO_IN_SILOS,))
    assert (train.popularity() == 0).any()


def test_without_privacy_nothing_is_promised_and_counts_are_told(tmp_path: Path) -> None:
    write(tmp_path, FEW)
    prepared = preparing.prepare(asked(tmp_path, "data.items="))
    record: Any = _record(prepared, UNBEGUN, {})
    assert (prepared.taken_as_public, record.data["training events"]) == ((), len(prepared.split.train))
    assert record.data["notes"] == list(prepared.notes)


def test_files_of_a_split_are_taken_as_they_are(tmp_path: Path) -> None:
    rows = [f"{user},item-00{number}" for user in ("a", "b", "c", "d") for number in (1, 2)]
    (tmp_path / "train.csv").write_text("\n".join(["user,item", *rows]) + "\n")
    (tmp_path / "test.csv").write_text("user,item\na,item-003\n")
    (tmp_path / "items.csv").write_text("\n".join(["item", *CATALOGUE]) + "\n")
    changes = ["data.source=split", *(f"data.{name}={tmp_path / name}.csv" for name in ("train", "test"))]
    config = small(*changes, f"data.items={tmp_path / 'items.csv'}", "clients.count=2", *IN_SILOS)
    prepared = preparing.prepare(config)
    assert prepared.taken_as_public == (WHO_IN_SILOS, HELD_OUT)
    assert tuple(prepared.split.train.item_ids) == tuple(CATALOGUE)
