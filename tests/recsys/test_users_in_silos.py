"""Users as units inside silos: one user moves one vector of bounded length, and no count of users is in anything.

Two worlds that differ in one user's data, however wild, are compared in the integers that each silo puts into a sum.
Controls take a measure away, and the comparison shows it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from dp.events import Holder
from dp.ledger.file import read
from dp.ledger.verify import verify
from recsys.aggregator import LazyVectors, Request, Result, Update
from recsys.assembly import Prepared, prepare
from recsys.config import Config
from recsys.data.interactions import History, Interactions
from recsys.federated import ClientData, Federation
from recsys.ideal_aggregator import IdealAggregator
from recsys.models.autoencoder import Autoencoder
from recsys.models.recommender import Local
from recsys.other_runs import RunList
from recsys.public_facts import WHO_IN_SILOS
from recsys.report import Account, write_report
from recsys.run import train
from recsys.users_in_silos import UsersInSilos, declared
from secagg.encoding import Encoding, Rounding
from secagg.errors import UsageError
from tests.controls import switch_off
from tests.scenes.bias import Bias
from tests.scenes.recommender import SECRET, client_data, config, federation

SILOS = UsersInSilos(users=20, most=5)
LENGTH = 12 + 3
ENCODING = Encoding(LENGTH, 1.0, 24, users=5, rounding=Rounding.NEAREST)


class Kept(IdealAggregator):
    """Keeps the integers that each client puts in, and the users' vectors."""

    def __init__(self) -> None:
        super().__init__(SECRET)
        self.integers, self.vectors = dict[str, NDArray[np.int64]](), dict[str, list[NDArray[np.float64]]]()

    def aggregate(self, request: Request, update: Update) -> Result:
        def kept(name: str) -> LazyVectors:
            made = update(name)
            assert isinstance(made, LazyVectors)
            vectors = self.vectors[name] = [vector.copy() for vector in made]
            self.integers[name] = request.encoding.encode_users(vectors, seed=bytes(32), rng=bytes)
            return LazyVectors(len(vectors), lambda: vectors)

        return super().aggregate(request, kept)


def one_round(clients: ClientData, **more: Any) -> tuple[Kept, Federation]:
    kept = Kept()
    done = federation(clients, kept, encoding=ENCODING, silos=SILOS, **more)
    done.advance()
    return kept, done


def other(clients: ClientData, user: int, items: list[int]) -> ClientData:
    """The same, but for what one user took; nothing of theirs is held out."""

    def changed(events: Interactions, items: list[int]) -> Interactions:
        who, what, when = events.users, events.items, events.times
        stay = who != user
        mine = np.full(len(items), user)
        return Interactions.of(
            np.concatenate([who[stay], mine]),
            np.concatenate([what[stay], np.array(items, np.int32)]),
            np.concatenate([when[stay], np.arange(len(items))]),
            user_count=events.user_count,
            item_count=events.item_count,
        )

    return replace(clients, train=changed(clients.train, items), held_out=changed(clients.held_out, []))


WILD = {"nothing": [], "one item": [11], "all of it a thousand times": list(range(12)) * 1000}


def distance(one: Kept, two: Kept) -> Mapping[str, int]:
    """By how much each silo's integers moved, squared."""
    return {name: int(sum(int(step) ** 2 for step in one.integers[name] - two.integers[name])) for name in one.integers}


@pytest.mark.parametrize("items", WILD.values(), ids=WILD)
def test_one_user_moves_one_silo_by_no_more_than_is_charged(items: list[int]) -> None:
    """Zero-out: both worlds are compared with the one in which that user's vector is zero."""
    clients = client_data((5, 5, 5, 5))
    before, after = one_round(clients)[0], one_round(other(clients, 7, items))[0]
    moved = distance(before, after)
    assert {name for name, how_far in moved.items() if how_far} <= {"silo-1"}
    most = ENCODING.sensitivity().l2_squared
    for kept in (before, after):
        without = [vector for place, vector in enumerate(kept.vectors["silo-1"]) if place != 2]
        rest = ENCODING.encode_users(without, seed=bytes(32), rng=bytes)
        assert sum(int(step) ** 2 for step in kept.integers["silo-1"] - rest) <= most
    for place in (0, 1, 3, 4):
        np.testing.assert_array_equal(before.vectors["silo-1"][place], after.vectors["silo-1"][place])


def test_control_users_who_train_together_move_further(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a silo's update does: what one user has changes what is added for others."""
    clients = client_data((5, 5, 5, 5))
    switch_off(monkeypatch, Bias, "changes", "[history]", "histories")
    before, after = one_round(clients)[0], one_round(other(clients, 7, WILD["all of it a thousand times"]))[0]
    assert distance(before, after)["silo-1"] > 4 * ENCODING.sensitivity().l2_squared


class Batched(Bias):
    """As matrix products round: the scores of a user follow from the size of a batch and the place in it."""

    def scores(self, histories: Sequence[History]) -> NDArray[np.float32]:
        return np.array([np.roll(self.vector, len(histories) * place) for place in range(len(histories))])


def test_what_is_measured_of_a_user_does_not_follow_from_who_has_something_held_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def differ() -> bool:
        before, after = (one_round(each, model=Batched())[0] for each in (clients, other(clients, 2, [11])))
        return any(
            not np.array_equal(one, two)
            for name in before.vectors
            for place, (one, two) in enumerate(zip(before.vectors[name], after.vectors[name], strict=True))
            if (name, place) != ("silo-0", 2)
        )

    clients = client_data((5, 5, 5, 5))
    assert not differ()
    call = "measure(_Numbers(model), train, held_out{})"
    switch_off(monkeypatch, Federation, "_table", call.format(", everybody=True"), call.format(""))
    assert differ()


class Overflowing(Bias):
    """No number for whoever took a lot."""

    def scores(self, histories: Sequence[History]) -> NDArray[np.float32]:
        scores = super().scores(histories)
        scores[[len(history) > 100 for history in histories]] = np.float32([np.nan, np.inf] * 6)
        return scores


def test_scores_that_are_no_numbers_end_no_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """The round, and what others add, go on as if that user had been measured like anybody."""
    clients = client_data((5, 5, 5, 5))
    wild = other(clients, 7, WILD["all of it a thousand times"])
    before, after = one_round(clients, model=Overflowing())[0], one_round(wild, model=Overflowing())[0]
    assert {name for name, how_far in distance(before, after).items() if how_far} == {"silo-1"}
    assert np.isfinite(np.concatenate(after.vectors["silo-1"])).all()
    switch_off(monkeypatch, Federation, "_table", "_Numbers(model)", "model")
    with pytest.raises(UsageError, match="not all numbers"):
        one_round(wild, model=Overflowing())


def test_the_mean_is_over_the_declared_users_and_not_over_a_count() -> None:
    """One user in one silo has left, and each of the others moves the model as before."""
    whole, fewer = client_data((5, 5, 5, 5)), client_data((5, 5, 5, 5))
    fewer = replace(fewer, members=(fewer.members[0][:4], *fewer.members[1:]))
    start = one_round(whole, local=Local(rate=1e-30))[1].state.vector
    for clients in (whole, fewer):
        kept, done = one_round(clients)
        total = np.sum([vector for vectors in kept.vectors.values() for vector in vectors], axis=0)[:12]
        moved = done.state.vector - start
        np.testing.assert_allclose(moved, total / 20, atol=1e-5)
        assert np.abs(moved - total / 19).max() > 1e-3


@pytest.mark.parametrize("model", [Bias, lambda: Autoencoder(width=2, recent=5)], ids=["bias", "autoencoder"])
@pytest.mark.parametrize("steps", [1, 2])
def test_a_run_with_one_user_less_is_the_run_without_that_users_vectors(model: Callable[[], Any], steps: int) -> None:
    """In each round, from the model that both runs had: others' integers are the same, wherever they stand now."""
    whole = client_data((5, 5, 5, 5))
    fewer = replace(whole, members=(whole.members[0], whole.members[1][1:], *whole.members[2:]))
    local, length = Local(epochs=steps, rate=0.5), len(one_model(model).vector) + 3
    encoding = replace(ENCODING, length=length, clip_inf=0.0)
    runs = [
        federation(each, Kept(), model=model(), encoding=encoding, silos=SILOS, local=local, measured_every=2)
        for each in (whole, fewer)
    ]
    for _ in range(3):
        for run in runs:
            run.advance()
        one, two = (cast(Kept, run._aggregator) for run in runs)
        gone = encoding.encode_users(one.vectors["silo-1"][:1], seed=bytes(32), rng=bytes)
        assert gone.any()
        for name in whole.names:
            np.testing.assert_array_equal(one.integers[name] - two.integers[name], gone if name == "silo-1" else 0)
        runs[1].resume(replace(runs[1].state, vector=runs[0].state.vector))


def one_model(make: Callable[[], Any]) -> Any:
    made = make()
    made.begin(12, 0)
    return made


def test_measured_values_are_means_over_users() -> None:
    clients = client_data((5, 5, 5, 5))
    _, of_users = one_round(clients)
    of_silos = federation(clients)
    of_silos.advance()
    for name, value in of_users.state.rounds[0].measured.items():
        assert value == pytest.approx(of_silos.state.rounds[0].measured[name], abs=1e-4)


def test_the_encoding_and_the_training_are_of_the_same_kind() -> None:
    clients = client_data((5, 5, 5, 5))
    with pytest.raises(UsageError, match="one vector for each client or for each user"):
        federation(clients, encoding=ENCODING)
    with pytest.raises(UsageError, match="one vector for each client or for each user"):
        federation(clients, encoding=replace(ENCODING, users=0), silos=SILOS)


def test_what_is_declared_is_at_least_one_of_each() -> None:
    for wrong in ({"users": 0}, {"most": 0}, {"overlap": 0}):
        with pytest.raises(UsageError):
            UsersInSilos(**({"users": 5, "most": 5} | wrong))


# Configurations


def table(folder: Path, users: int) -> str:
    rows = [f"u{user:03},i{(user * 7 + step) % 30:02},{step}" for user in range(users) for step in range(6)]
    (folder / "items.csv").write_text("\n".join(["item", *(f"i{number:02}" for number in range(30))]) + "\n")
    (folder / "events.csv").write_text("\n".join(["user,item,time", *rows]) + "\n")
    return str(folder / "events.csv")


def asked(folder: Path, *changes: str, users: int = 130) -> Config:
    files = ("data.source=table", f"data.path={table(folder, users)}", f"data.items={folder / 'items.csv'}")
    how = ("data.time=time", "privacy.mode=distributed", "training.rounds=1", "clients.count=4")
    return config(*files, *how, "privacy.n_min=100", "protocol.dropout=0.25", *changes)


SUMS = ("model.name=private-ease", "model.settings={}")


def test_real_silos_need_a_public_number_of_users(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the public number of users or a lower bound of it"):
        asked(tmp_path, "privacy.n_min=0")
    for mode in ("none", "local", "both"):
        asked(tmp_path, "privacy.n_min=0", f"privacy.mode={mode}")
    assert asked(tmp_path, "privacy.n_min=0", "clients.kind=devices").users_in_silos is False


@pytest.mark.parametrize(
    ("changes", "silos", "expected"),
    [
        ((), 4, (100, 100, 1)),
        (("clients.most=40",), 4, (100, 40, 1)),
        (("privacy.n_min=1000",), 7, (1000, 572, 1)),
        (("data.source=synthetic", "data.users=101", "privacy.n_min=0", "data.time=", "data.items="), 4, (101, 26, 1)),
        (("clients.overlap=3",), 4, (100, 100, 3)),
    ],
)
def test_what_is_declared_follows_from_the_configuration(
    changes: tuple[str, ...], silos: int, expected: tuple[int, int, int], tmp_path: Path
) -> None:
    found = declared(asked(tmp_path, *changes), silos)
    assert (found.users, found.most, found.overlap) == expected


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (("clients.most=32",), "client-0 has more than 32 users, the most that a silo may have"),
        (("clients.most=32", *SUMS, "privacy.mode=none"), "client-0 has more than 32 users"),
        (("clients.overlap=5",), "clients.overlap is 5, and there are 4 silos"),
        (("clients.overlap=0",), "clients.overlap at least 1"),
        (("clients.most=-1",), "not below zero"),
        (("clients.overlap=2", "privacy.mode=local"), "clients.overlap is for privacy.mode = distributed over silos"),
        (("clients.overlap=2", "clients.kind=devices"), "clients.overlap is for privacy.mode = distributed over silos"),
        (("privacy.delta=0.02",), "more than one over the number of units, 100"),
    ],
)
def test_what_cannot_be_is_refused(changes: tuple[str, ...], reason: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=reason):
        prepare(asked(tmp_path, *changes))


def test_cohorts_that_vary_in_size_are_no_difference_of_record_and_ledger(tmp_path: Path) -> None:
    """Of 4 silos each is drawn by itself: no number of clients, or of colluders, is that of all sums."""
    drawn = (
        "training.draw=poisson",
        "training.size=3",
        "training.rounds=4",
        "protocol.corrupt=0.3",
        "protocol.dropout=0.1",
    )
    run = train(prepare(asked(tmp_path, *drawn)), tmp_path / "run", machine={}, run_list=RunList(tmp_path / "state"))
    assert len({one.planned for one in run.rounds}) > 1
    account = Account.load(tmp_path / "run")
    assert account.differences == ()
    assert {spent.promise.colluders for spent in account.spent} == {1}


def test_noise_is_for_one_user_whatever_silos_there_are(tmp_path: Path) -> None:
    """What is charged: delta by the declared users, the norm of one user's vector, colluders who know their noise."""
    prepared = prepare(asked(tmp_path, *SUMS))
    found = prepared.distributed
    assert found is not None
    assert found.guarantee.holder is Holder.SILO
    assert found.budget.delta == Fraction(1, 100 * 100)
    assert found.found.noise.colluders == 1
    encoding = found.found.encoding
    assert (encoding.users, encoding.clip_l2) == (100, 1.0)
    assert found.found.noise.variance >= Fraction(
        found.found.noise_multiplier
    ) ** 2 * encoding.sensitivity().l2_squared * (1 - Fraction(1, 10**6))


@pytest.mark.parametrize("kind", [(), SUMS], ids=["in rounds", "sums"])
def test_no_count_of_users_leaves(kind: tuple[str, ...], tmp_path: Path) -> None:
    """More users, in other silos: the same plan, the same record but for what is noised, counted by nobody."""
    seen = []
    for number, users in enumerate((130, 123)):
        folder = tmp_path / str(users)
        folder.mkdir()
        prepared = prepare(replace(asked(folder, *kind, users=users), title="the same"))
        seen.append(public(prepared, folder / "run", RunList(folder / "state")))
        assert not counted(json.dumps(seen[-1]), users), number
    assert seen[0] == seen[1]


def public(prepared: Prepared, folder: Path, run_list: RunList) -> dict[str, Any]:
    """All of a run's record that is not noised, and the plans in its ledger."""
    run = asdict(train(prepared, folder, machine={}, run_list=run_list))
    run.pop("config")
    run.pop("model")  # made of noised sums
    run.pop("owner")  # drawn
    for entry in run["rounds"]:
        for noised in ("measured", "head", "seconds", "bytes_up", "bytes_down"):
            entry.pop(noised)
    rows = list[Any]()
    verify(read(folder / "ledger.db"), also=lambda what: rows.append(what))
    facts = [{name: str(value) for name, value in asdict(one).items() if name in FACTS} for one in rows]
    return {**run, "facts": facts}


FACTS = ("planned", "noise", "dimension", "l2_squared", "l1", "users", "overlap", "rounding", "ring_bits", "survivors")


def counted(text: str, users: int) -> bool:
    return f" {users}" in text or f'"{users}"' in text


def test_a_model_of_sums_is_told_the_declared_users(tmp_path: Path) -> None:
    """By which it takes its sizes: 130 are there."""
    prepared = prepare(asked(tmp_path, *SUMS))
    found = prepared.sums(IdealAggregator(SECRET))("any", 2, Fraction(1), lambda history: np.zeros(2))
    assert found.users == 100


def test_a_ledger_of_silos_says_that_the_silo_sees_its_users_data(tmp_path: Path) -> None:
    run = train(prepare(asked(tmp_path, *SUMS)), tmp_path / "run", machine={}, run_list=RunList(tmp_path / "state"))
    (promise,) = run.spendings
    assert promise.holder == "silo"
    assert promise.words.endswith("the user's own silo sees its data")
    state = verify(read(tmp_path / "run" / "ledger.db"))
    assert state.genesis.guarantee.holder is Holder.SILO
    (kept,) = Account.load(tmp_path / "run").spent
    assert kept.promise.words == promise.words
    text = write_report(tmp_path / "run").read_text()
    for part in (
        "4 silos trained one recommender together (table, 100 declared users, 30 items)",
        "Adding up one bounded vector for each of them: nobody else can check.",
        f"Taken as public: {WHO_IN_SILOS}",
    ):
        assert part in text


def test_who_may_be_in_several_silos_is_promised_the_same_for_more_noise(tmp_path: Path) -> None:
    prepared = [prepare(asked(tmp_path, *SUMS, f"clients.overlap={overlap}")) for overlap in (1, 2)]
    once, twice = (one.distributed.found for one in prepared if one.distributed is not None)
    assert twice.deviation == pytest.approx(2 * once.deviation, rel=0.05)
    folder = tmp_path / "run"
    (promise,) = train(prepared[1], folder, machine={}, run_list=RunList(tmp_path / "state")).spendings
    assert "for each user inside up to 2 silos, against the server with up to 1 other silo" in promise.words
    assert promise.words.endswith("the user's own silos see their data")
    (kept,) = Account.load(folder).spent
    assert kept.promise.words == promise.words
