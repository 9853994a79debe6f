"""One data set, one budget: runs that find one another, refuse, or share a ledger; and what cannot be found.

What is attacked: a second run in another directory, on a copy of the data, on the same users in another file, after
files or the whole directory of the first are gone; a shared ledger that is full, gone, of other data, or written by
two at once.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import stat
from contextlib import closing
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from dp import verify_ledger
from dp.ledger import Ledger
from dp.ledger.file import read
from dp.ledger.state import data_mark, replay
from dp.ledger.verify import verify
from recsys import run as running
from recsys import run_start
from recsys.assembly import prepare
from recsys.config import Config
from recsys.data.tables import load
from recsys.other_runs import FILE, KnownRun, LockedRunList, RunList, identity
from recsys.report import Account
from recsys.run_record import UNKNOWN, Run
from recsys.sources import data_of
from secagg.errors import BudgetError, StorageError, UsageError
from tests.controls import switch_off
from tests.scenes.ledger import exported
from tests.scenes.recommender import config
from tests.scenes.tables import csv
from tests.scenes.whole_runs import Killed, contents, go, key_of

PRIVATE = ("protocol.dropout=0.25", "training.rounds=1")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def asked(*changes: str, mode: str = "distributed") -> Config:
    return config(*PRIVATE, f"privacy.mode={mode}", "evaluation.exact=false", *changes)


def of_table(path: str, *changes: str, mode: str = "distributed") -> Config:
    table = ("data.source=table", f"data.path={path}", "data.time=time", "clients.count=4", "privacy.n_min=100")
    return asked(*table, *changes, mode=mode)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def begun(config: Config, folder: Path, state: Path) -> Run:
    """What is on record of a run that has begun, and was killed at once."""

    def watch(run: Run) -> None:
        raise Killed

    with pytest.raises(Killed):
        go(config, folder, state, watch=watch)
    return Run.load(folder)


# A second run


@pytest.mark.thinned(2)
@pytest.mark.parametrize("mode", ["none", "local", "distributed", "both"])
def test_a_second_run_does_not_begin_in_silence(mode: str, tmp_path: Path, state: Path) -> None:
    begun(asked(mode=mode), tmp_path / "one", state)
    before = files(tmp_path)
    with pytest.raises(BudgetError, match=r"1 other run is known on the same data: .*/one \(") as refused:
        go(asked("seed=1", mode=mode), tmp_path / "two", state)
    assert "\n" not in str(refused.value)
    assert files(tmp_path) == before
    assert not (tmp_path / "two").exists()


def test_control_without_the_check_both_show_their_own_epsilon(
    tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch_off(monkeypatch, running, "start", "beside and not (resumed or config.privacy.beside)")
    spent = [go(asked(f"seed={number}"), tmp_path / str(number), state).rounds[-1].epsilon for number in range(2)]
    assert all(epsilon is not None and epsilon > 7.9 for epsilon in spent)


def test_whoever_is_told_begins_and_says_which_others_there_are(tmp_path: Path, state: Path) -> None:
    first = begun(asked(), tmp_path / "one", state)
    assert first.others == UNKNOWN == "other runs on these data: not known here"
    key = (tmp_path / "one" / "ledger.pub").read_text().strip()
    second = begun(asked("seed=1", "privacy.beside=true"), tmp_path / "two", state)
    assert f"whose cost comes on top: {key[:16]} (epsilon 8 per user, distributed noise)" in second.others
    assert second.others.endswith("further runs on these data: not known here")
    for name, run in (("one", first), ("two", second)):
        elsewhere = replay(read(tmp_path / name / "ledger.db")).genesis.elsewhere
        assert elsewhere.startswith(f"this run charges all that leaves it; {run.others}. Taken as public: ")
    third = begun(asked("seed=2", "privacy.beside=true", mode="none"), tmp_path / "three", state)
    assert third.others.count("epsilon 8 per user") == 2
    fourth = begun(asked("seed=3", "privacy.beside=true"), tmp_path / "four", state)
    assert "(without privacy)" in fourth.others


def test_a_run_is_not_beside_itself(tmp_path: Path, state: Path) -> None:
    """Killed, moved, and gone on with."""

    def watch(run: Run) -> None:
        if run.rounds:
            raise Killed

    with pytest.raises(Killed):
        go(asked("training.rounds=2"), tmp_path / "one", state, watch=watch)
    (tmp_path / "one").rename(tmp_path / "there")
    assert go(asked("training.rounds=2"), tmp_path / "there", state).others == UNKNOWN
    with pytest.raises(BudgetError, match="/there "):
        go(asked(), tmp_path / "two", state)


def test_a_run_and_its_copy_do_not_both_go_on(tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has a ledger that says what the run had spent, and one draw of noise for what comes next."""
    begun(asked(), tmp_path / "one", state)
    shutil.copytree(tmp_path / "one", tmp_path / "copy")
    (tmp_path / "copy" / "private" / "name").unlink()
    before = contents(tmp_path / "copy")
    with pytest.raises(StorageError, match=r"copy is a copy of the run in .*/one, which went on there"):
        go(asked(), tmp_path / "copy", state)
    assert contents(tmp_path / "copy") == before
    assert go(asked(), tmp_path / "one", state, keep_secrets=False).ended
    with pytest.raises(StorageError, match=r"copy is a copy of the run in .*/one, which went on there"):
        go(asked(), tmp_path / "copy", state)  # the secrets of the other are deleted
    assert contents(tmp_path / "copy") == before
    monkeypatch.setattr(Path, "samefile", lambda one, other: True)  # the control
    assert go(asked(), tmp_path / "copy", state).others == UNKNOWN


ALL = ("run.json", "ledger.db", "private/sum-0.sealed", "private/checkpoint.safetensors")


@pytest.mark.parametrize(("mode", "gone"), [("local", ("ledger.db",)), ("distributed", ALL), ("both", ALL)])
def test_what_is_deleted_in_a_run_does_not_restart_it(
    mode: str, gone: tuple[str, ...], tmp_path: Path, state: Path
) -> None:
    go(asked(mode=mode), tmp_path / "one", state)
    record = Run.load(tmp_path / "one")
    replace(record, ended="").save(tmp_path / "one", key_of(tmp_path / "one"))
    for name in gone:
        (tmp_path / "one" / name).unlink(missing_ok=True)
    left = contents(tmp_path / "one")
    with pytest.raises(StorageError, match=r"ledger.db is gone"):
        go(asked(mode=mode), tmp_path / "one", state)
    assert contents(tmp_path / "one") == left


def test_control_without_the_list_it_restarts(tmp_path: Path, state: Path) -> None:
    """What the file of the account is for: a run's directory alone cannot know what was deleted in it."""
    begun(asked(), tmp_path / "one", state)
    for name in files(tmp_path / "one") - {"config.json", "private/secret.key", "private/ledger.key", "private/name"}:
        (tmp_path / "one" / name).unlink()
    with pytest.raises(StorageError, match="is gone"):
        go(asked(), tmp_path / "one", state)
    shutil.rmtree(state)
    assert begun(asked(), tmp_path / "one", state).others == UNKNOWN


def test_a_directory_that_is_deleted_is_remembered(tmp_path: Path, state: Path) -> None:
    begun(asked(), tmp_path / "one", state)
    shutil.rmtree(tmp_path / "one")
    with pytest.raises(BudgetError, match=r"/one \("):
        go(asked(), tmp_path / "one", state)
    assert not (tmp_path / "one").exists()


# Which data are the same


def test_the_same_users_are_the_same_data_wherever_they_are(tmp_path: Path, state: Path) -> None:
    """A copy, other events, another order, another split, other clients: the budget is about users."""
    first = csv(tmp_path / "a.csv")
    begun(of_table(first), tmp_path / "one", state)
    (tmp_path / "b.csv").write_text((tmp_path / "a.csv").read_text())
    lines = (tmp_path / "a.csv").read_text().splitlines()
    (tmp_path / "c.csv").write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    others = [
        of_table(str(tmp_path / "b.csv")),
        of_table(str(tmp_path / "c.csv")),
        of_table(csv(tmp_path / "d.csv", shift=3)),
        of_table(csv(tmp_path / "e.csv", extra="u3,i77,9999")),
        of_table(first, "data.held_out=ratio", "clients.count=5", mode="local"),
    ]
    for other in others:
        with pytest.raises(BudgetError, match="known on the same data"):
            go(other, tmp_path / "two", state)
    begun(of_table(csv(tmp_path / "f.csv", users=23)), tmp_path / "fewer", state)  # not found: said in the docs


def test_a_name_brings_data_together_and_tells_them_apart(tmp_path: Path, state: Path) -> None:
    one, two = csv(tmp_path / "a.csv"), csv(tmp_path / "b.csv", users=23)
    begun(of_table(one, "privacy.data=clinic"), tmp_path / "one", state)
    with pytest.raises(BudgetError, match="known on the same data"):
        go(of_table(two, "privacy.data=clinic"), tmp_path / "two", state)
    begun(of_table(one, "privacy.data=another"), tmp_path / "three", state)


def test_the_made_up_population_is_the_same_if_it_is_made_the_same_way() -> None:
    marks = {identity(config(change), []) for change in ("seed=0", "seed=1", "data.seed=2", "data.users=61")}
    assert len(marks) == 3


def test_no_function_of_users_leaves_without_a_key(tmp_path: Path, state: Path) -> None:
    """Neither the identity nor a hash of it is in any file, and two runs' ledgers are marked differently."""
    prepared = prepare(of_table(csv(tmp_path / "a.csv")))
    marks = set()
    for name in ("one", "two"):
        go(of_table(str(tmp_path / "a.csv"), "privacy.beside=true"), tmp_path / name, state)
        secret = (tmp_path / name / "private" / "ledger.key").read_bytes()
        mark = replay(read(tmp_path / name / "ledger.db")).genesis.data
        assert mark == data_mark(secret, prepared.data_identity)
        marks.add(mark)
    assert len(marks) == 2
    identities = [
        prepared.data_identity,
        sha256(prepared.data_identity).digest(),
        data_mark(bytes(32), prepared.data_identity),
    ]
    places = (tmp_path / "one", tmp_path / "two", state)
    for path in (place / name for place in places for name in files(place)):
        data = path.read_bytes()
        assert not any(one in data or one.hex().encode() in data for one in identities), path


def test_users_ids_are_those_of_the_file(tmp_path: Path) -> None:
    events = load(csv(tmp_path / "a.csv"), user="user", item="item", time="time", rating="").interactions
    assert sorted(events.user_ids) == sorted(f"u{user}" for user in range(24))
    assert sorted(prepare(of_table(str(tmp_path / "a.csv"))).split.train.user_ids) == sorted(events.user_ids)


def test_a_run_does_not_go_on_with_other_users(tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They would be charged to a ledger that is about the first ones, and the list would forget these."""
    table, first, second = tmp_path / "a.csv", csv(tmp_path / "b.csv"), csv(tmp_path / "c.csv", users=23)

    def run(path: str, folder: str, *changes: str) -> Run:
        shutil.copy(path, table)
        data_of.cache_clear()
        return begun(of_table(str(table), *changes), tmp_path / folder, state)

    run(first, "one")
    before = contents(tmp_path / "one")
    with pytest.raises(UsageError, match="one was begun on the data of other users"):
        run(second, "one")
    assert contents(tmp_path / "one") == before
    with monkeypatch.context() as patched:
        patched.setattr(run_start, "_check_same", lambda *arguments: None)
        patched.setattr(run_start, "check_inputs", lambda *arguments: None)
        with pytest.raises(UsageError, match=r"ledger\.db is the ledger of other data"):
            run(second, "one")
    switch_off(monkeypatch, run_start, "_ledger", "ledger.data != more['data']")
    monkeypatch.setattr(run_start, "_check_same", lambda *arguments: None)
    monkeypatch.setattr(run_start, "check_inputs", lambda *arguments: None)
    run(second, "one")
    assert run(first, "two", "seed=1").others == UNKNOWN  # the control: in silence


# The file


def test_the_list_is_its_owners_alone(tmp_path: Path) -> None:
    with RunList(tmp_path / "state").locked() as known:
        known.add(bytes(32), KnownRun("name", "folder", "", "promise"))
    assert stat.S_IMODE((tmp_path / "state" / FILE).stat().st_mode) == 0o600
    with RunList(tmp_path / "state").locked() as known:
        assert known.on(bytes(32)) == [KnownRun("name", "folder", "", "promise")]
        assert known.on(bytes(31)) == []


def test_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value, expected in (
        ("XDG_STATE_HOME", str(tmp_path / "a"), tmp_path / "a" / "secagg" / FILE),
        ("XDG_STATE_HOME", "", tmp_path / "home" / ".local" / "state" / "secagg" / FILE),
        ("XDG_STATE_HOME", "relative", tmp_path / "home" / ".local" / "state" / "secagg" / FILE),
    ):
        shutil.rmtree(tmp_path / "home", ignore_errors=True)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.setenv(name, value)
        with RunList().locked():
            pass
        assert expected.is_file()


def test_a_list_that_would_be_another_in_each_directory_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "state")
    monkeypatch.setenv("HOME", "home")
    with pytest.raises(StorageError, match="there is no place for the list"):
        RunList()


def test_a_run_does_not_begin_where_it_cannot_be_remembered(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(StorageError, match="XDG_STATE_HOME"):
        go(asked(), tmp_path / "one", tmp_path / "state")
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / FILE).write_bytes(b"no database" * 100)
    with pytest.raises(StorageError, match="cannot be read"):
        go(asked(), tmp_path / "one", damaged)
    assert not (tmp_path / "one").exists()


@pytest.mark.parametrize(
    "change", ["DELETE FROM key", "UPDATE key SET secret = 'text'", "UPDATE key SET secret = x'ff'"]
)
def test_a_list_without_its_key_is_not_an_empty_one(change: str, tmp_path: Path) -> None:
    """Under another key none of the runs in it would be found."""
    with RunList(tmp_path).locked() as known:
        known.add(bytes(32), KnownRun("name", "folder", "", "promise"))
    with closing(sqlite3.connect(tmp_path / FILE)) as database, database:
        database.execute(change)
    with pytest.raises(StorageError, match="its key is damaged"), RunList(tmp_path).locked():
        pass


def test_what_is_refused_is_not_remembered(tmp_path: Path) -> None:
    run_list = RunList(tmp_path)

    def fails(known: LockedRunList) -> None:
        known.add(bytes(32), KnownRun("name", "folder", "", "promise"))
        raise UsageError("refused")

    with pytest.raises(UsageError), run_list.locked() as known:
        fails(known)
    with run_list.locked() as known:
        assert known.on(bytes(32)) == []


# A ledger that runs share

MODES = ("local", "distributed")


def sharing(folder: Path, seed: int, *changes: str, mode: str = "distributed") -> Config:
    budget = ("privacy.epsilon=3.0", "privacy.budget=5")
    return asked(f"privacy.ledger={folder / 'shared.db'}", *budget, f"seed={seed}", *changes, mode=mode)


@pytest.mark.thinned(2)
@pytest.mark.parametrize("mode", MODES)
def test_runs_that_share_a_ledger_spend_one_budget(mode: str, tmp_path: Path, state: Path) -> None:
    runs = [go(sharing(tmp_path, seed, mode=mode), tmp_path / str(seed), state) for seed in range(2)]
    spent = [run.rounds[-1].epsilon for run in runs]
    assert 0 < spent[0] < spent[1] <= 5  # type: ignore[operator]
    assert spent[1] > 3.1  # type: ignore[operator]
    assert [run.rounds[-1].epsilon_left for run in runs] == [pytest.approx(5 - epsilon) for epsilon in spent]  # type: ignore[operator]
    assert runs[1].others == "1 other run is charged to the same ledger; further runs on these data: not known here"
    key = bytes.fromhex((tmp_path / "shared.pub").read_text())
    rows = read(tmp_path / "shared.db")
    state = verify(rows, key)
    assert (len(state.records), float(state.genesis.budget.epsilon)) == (2, 5)
    assert list(verify_ledger.problems(exported(rows), key, state.head)) == []
    assert stat.S_IMODE((tmp_path / "shared.key").stat().st_mode) == 0o600
    assert not list((tmp_path / "1").glob("*.db"))
    (promise,) = runs[1].spendings
    assert (promise.ledger, promise.key) == (str(tmp_path / "shared.db"), str(tmp_path / "shared.pub"))
    assert (promise.epsilon, promise.part) == (5, 3)
    assert "all runs that share this ledger" in promise.words
    account = Account.load(tmp_path / "1", tmp_path / "shared.db")
    assert account.differences == ()
    assert [one.epsilon for one in account.rounds] == [one.epsilon for one in runs[1].rounds if one.survivors]
    with pytest.raises(StorageError, match="say which it is"):
        Account.load(tmp_path / "1")


def until_refused(folder: Path, state: Path, mode: str = "distributed") -> tuple[int, str]:
    """How many runs there was room for, and what the next one is told."""
    for seed in range(9):
        try:
            go(sharing(folder, seed, mode=mode), folder / str(seed), state)
        except BudgetError as error:
            return seed, str(error)
    raise AssertionError("a budget of 5 has no room for nine times 3")


@pytest.mark.thinned(2)
@pytest.mark.parametrize("mode", MODES)
def test_a_run_for_which_there_is_no_room_writes_nothing(mode: str, tmp_path: Path, state: Path) -> None:
    rooms, said = until_refused(tmp_path, state, mode)
    assert rooms >= 2
    assert "has no room for this run" in said
    before, rows = files(tmp_path), read(tmp_path / "shared.db")
    with pytest.raises(BudgetError, match="no room"):
        go(sharing(tmp_path, rooms, mode=mode), tmp_path / str(rooms), state)
    assert (files(tmp_path), read(tmp_path / "shared.db")) == (before, rows)
    assert not (tmp_path / str(rooms)).exists()


def test_control_without_that_check_it_begins_and_is_stopped_by_the_ledger(
    tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ledger, "check_cost", lambda *arguments: None)
    rooms, said = until_refused(tmp_path, state)
    assert "epsilon could reach" in said
    assert (tmp_path / str(rooms) / "private" / "secret.key").exists()
    reached = replay(read(tmp_path / "shared.db")).filter.reached
    assert reached is not None
    assert reached <= 5 * 10**12


def test_a_run_that_shares_goes_on(tmp_path: Path, state: Path) -> None:
    """Though then there would be no room for it any more, had it to begin."""
    wanted = sharing(tmp_path, 0, "training.rounds=2", "privacy.budget=3")

    def watch(run: Run) -> None:
        if run.rounds:
            raise Killed

    with pytest.raises(Killed):
        go(wanted, tmp_path / "one", state, watch=watch)
    run = go(wanted, tmp_path / "one", state)
    assert len(run.rounds) == 2
    assert len(replay(read(tmp_path / "shared.db")).records) == 2


def test_it_does_not_go_on_with_another_shared_ledger(
    tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which a name can mean in another directory; what was charged to the first would be missing there."""
    wanted, beside = (asked("privacy.ledger=shared.db", *more) for more in ((), ("privacy.beside=true", "seed=7")))

    def watch(run: Run) -> None:
        if run.rounds:
            raise Killed

    for name, one in (("a", wanted), ("b", beside)):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        with pytest.raises(Killed):
            go(one, tmp_path / name / "run", state, watch=watch)
    with pytest.raises(StorageError, match="or another ledger"):
        go(wanted, tmp_path / "a" / "run", state)


def test_a_shared_ledger_is_the_same_by_whatever_path(tmp_path: Path, state: Path) -> None:
    begun(sharing(tmp_path, 0), tmp_path / "one", state)
    run = begun(sharing(tmp_path / "one" / "..", 1), tmp_path / "two", state)
    assert run.others.startswith("1 other run is charged to the same ledger")


def test_another_ledger_is_beside_and_so_is_one_of_its_own(tmp_path: Path, state: Path) -> None:
    go(sharing(tmp_path, 0), tmp_path / "one", state)
    with pytest.raises(BudgetError, match="known on the same data"):
        go(asked(), tmp_path / "two", state)
    with pytest.raises(BudgetError, match="known on the same data"):
        go(asked(f"privacy.ledger={tmp_path / 'other.db'}"), tmp_path / "two", state)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("data.users=70", "is the ledger of other data"),
        ("privacy.mode=local", "about another guarantee"),
        ("privacy.budget=6", "the budget of .* is 5, not 6"),
    ],
)
def test_a_ledger_of_something_else_is_refused(change: str, reason: str, tmp_path: Path, state: Path) -> None:
    go(sharing(tmp_path, 0), tmp_path / "one", state)
    before = files(tmp_path)
    with pytest.raises(UsageError, match=reason):
        go(sharing(tmp_path, 1, change), tmp_path / "two", state)
    assert files(tmp_path) == before


def test_control_without_the_mark_other_data_are_charged_to_it(
    tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(sharing(tmp_path, 0), tmp_path / "one", state)
    monkeypatch.setattr(run_start, "data_mark", lambda secret, data: replay(read(tmp_path / "shared.db")).genesis.data)
    assert go(sharing(tmp_path, 1, "data.users=70"), tmp_path / "two", state).ended


@pytest.mark.parametrize("said", ["/", ".", "x.key", "x.pub", "nowhere/x.db", "a\0b"])
def test_a_file_that_cannot_be_shared_is_refused_before_anything_is_written(
    said: str, tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"privacy\.ledger is a file") as refused:
        go(asked(f"privacy.ledger={json.dumps(said)}"), tmp_path / "one", state)
    assert "\0" not in str(refused.value)
    assert files(tmp_path) == {f"state/{FILE}"}


@pytest.mark.parametrize("gone", [("shared.db",), ("shared.db", "shared.key")])
def test_a_shared_ledger_that_is_gone_is_not_made_anew(gone: tuple[str, ...], tmp_path: Path, state: Path) -> None:
    go(sharing(tmp_path, 0), tmp_path / "one", state)
    for name in gone:
        (tmp_path / name).unlink()
    with pytest.raises(StorageError, match=r"shared.db is gone"):
        go(sharing(tmp_path, 1), tmp_path / "two", state)
    assert not (tmp_path / "shared.db").exists()


def test_without_its_key_a_ledger_is_not_written(tmp_path: Path, state: Path) -> None:
    go(sharing(tmp_path, 0), tmp_path / "one", state)
    (tmp_path / "shared.key").unlink()
    with pytest.raises(UsageError, match=r"there is no .*shared\.key"):
        go(sharing(tmp_path, 1), tmp_path / "two", state)


def test_two_runs_at_the_same_time(tmp_path: Path, state: Path) -> None:
    """One begins and ends between two rounds of the other: neither is locked out, and each sees all that is spent."""
    seen = list[float]()

    def watch(run: Run) -> None:
        if len(run.rounds) == 1 and not seen:
            other = go(sharing(tmp_path, 1, "training.rounds=2"), tmp_path / "two", state)
            seen.extend(one.epsilon for one in other.rounds)  # type: ignore[misc]

    first = go(sharing(tmp_path, 0, "training.rounds=2"), tmp_path / "one", state, watch=watch)
    epsilons = [first.rounds[0].epsilon, *seen, first.rounds[1].epsilon]
    assert epsilons == sorted(set(epsilons))  # type: ignore[type-var]
    state = verify(read(tmp_path / "shared.db"), bytes.fromhex((tmp_path / "shared.pub").read_text()))
    assert len(state.records) == 4


def test_local_rounds_of_two_runs_are_not_taken_for_one(tmp_path: Path, state: Path) -> None:
    for seed in range(2):
        go(sharing(tmp_path, seed, mode="local"), tmp_path / str(seed), state)
    names = list(replay(read(tmp_path / "shared.db")).records)
    assert len(names) == 2
    assert all(name.startswith("round 0 of ") for name in names)
