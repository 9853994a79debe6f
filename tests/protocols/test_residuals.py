"""What clients keep of their updates where plans have feedback: it is neither lost nor repeated, whenever they die, and
each unit's is its own."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dp.noise import Family, NoiseSpec
from protocols.client import Client
from protocols.journal import Beside, ForgetfulJournal, Kept, MemoryJournal, SqliteJournal
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.residuals import Residuals
from secagg.encoding import Encoding
from secagg.errors import PolicyError, SecAggError, StorageError, UsageError
from secagg.sketches import LowRank, RandomK, Table
from tests.controls import switch_off
from tests.scenes.residuals import (
    LENGTH,
    LONG,
    NAMES,
    POLICY,
    SOME,
    client,
    left,
    planned,
    summed,
    updates,
    uploading,
)  # fmt: skip

ROOT = Path(__file__).parents[2]
UPDATES = updates()


def everybody() -> dict[str, Client]:
    return {name: client(name) for name in NAMES}


# From round to round.


def test_what_has_been_summed_and_what_is_left_are_all_updates() -> None:
    clients, plan, said = everybody(), planned(), np.zeros(LENGTH)
    for number in range(1, 7):
        said += summed(plan, clients, UPDATES)
        plan = plan.next_round()
        rest = sum(clients[name].residual(plan).astype(float) for name in NAMES)
        assert np.allclose(said + rest, number * sum(UPDATES.values()), atol=1e-3)


def test_a_training_can_begin_with_what_is_left() -> None:
    """A copy: whoever writes into it changes nothing."""
    clients, plan = everybody(), planned()
    assert not clients["ann"].residual(plan).any()
    summed(plan, clients, UPDATES)
    rest = clients["ann"].residual(plan.next_round())
    kept = rest.copy()
    rest[:] = 7
    assert np.array_equal(clients["ann"].residual(plan.next_round()), kept)
    assert np.count_nonzero(kept) == LENGTH - 5
    assert set(kept[kept != 0]) <= set(UPDATES["ann"].astype(np.float32))


def test_who_has_nothing_to_contribute_keeps_what_was_left() -> None:
    clients, plan = everybody(), planned()
    summed(plan, clients, UPDATES)
    kept = clients["bob"].residual(plan.next_round())
    summed(plan.next_round(), clients, {**UPDATES, "bob": None})
    assert np.array_equal(clients["bob"].residual(plan.next_round().next_round()), kept)


def test_a_round_without_an_upload_leaves_what_was_left() -> None:
    clients, plan = everybody(), planned()
    summed(plan, clients, UPDATES)
    kept = clients["cat"].residual(plan.next_round())
    summed(plan.next_round(), clients, UPDATES, cat="share")
    assert np.array_equal(clients["cat"].residual(plan.next_round().next_round()), kept)
    summed(plan.next_round().next_round(), clients, UPDATES)
    assert not np.array_equal(clients["cat"].residual(plan.next_round().next_round().next_round()), kept)


def test_a_start_that_is_refused_leaves_the_round_that_is_under_way_what_it_has() -> None:
    """A server that lies sends a plan that no client takes, or a client's next training fails: the upload that comes
    then has what was left before in it, so that is not sent again."""
    ann, frame, plan = uploading(MemoryJournal())
    before = ann.residual(plan)
    with pytest.raises(PolicyError):
        ann.start(replace(plan, roster=bytes(32)), UPDATES["ann"])
    with pytest.raises(UsageError):
        ann.start(plan.next_round(), np.full(LENGTH, np.nan))
    ann.receive(frame)
    assert np.allclose(ann.residual(plan.next_round()), left(plan, before), atol=1e-6)


def test_what_a_round_would_have_left_is_not_what_another_one_leaves() -> None:
    """One that is given up for a round without feedback, or for one without an update."""
    for encoding, update in ((replace(SOME, feedback=False), UPDATES["ann"]), (SOME, None)):
        ann, _, plan = uploading(MemoryJournal())
        before = ann.residual(plan)
        summed(planned(encoding, bytes([9]) * 16), everybody() | {"ann": ann}, {**UPDATES, "ann": update})
        assert np.array_equal(ann.residual(plan), before)


def test_a_round_without_feedback_between_two_with_it_changes_nothing() -> None:
    clients, plan = everybody(), planned()
    summed(plan, clients, UPDATES)
    kept = clients["dan"].residual(plan.next_round())
    plain = planned(replace(SOME, feedback=False), bytes([9]) * 16)
    summed(plain, clients, UPDATES)
    assert np.array_equal(clients["dan"].residual(plan.next_round()), kept)


def test_deployments_side_by_side_have_residuals_of_their_own_and_sessions_of_one_share_them() -> None:
    """Whoever chooses sessions cannot make a client send the same thing twice."""
    journals = {name: MemoryJournal() for name in NAMES}
    here = {name: client(name, journals[name], deployment="here") for name in NAMES}
    there = {name: client(name, journals[name], deployment="there") for name in NAMES}
    first, second = planned(), planned(session=bytes([1]) * 16)
    summed(first, here, UPDATES)
    assert not there["ann"].residual(second).any()
    kept = here["ann"].residual(first)
    assert np.array_equal(here["ann"].residual(second), kept)
    summed(second, there, UPDATES)
    assert np.array_equal(here["ann"].residual(first), kept)
    said = summed(first.next_round(), here, UPDATES)
    assert said.any()


# Users of silos.


@dataclass
class Users:
    """Vectors of users with names."""

    vectors: dict[str, Any]

    @property
    def names(self) -> list[str]:
        return list(self.vectors)

    def __len__(self) -> int:
        return len(self.vectors)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.vectors.values())


SILOS = replace(SOME, users=4)
OF_SILOS = replace(POLICY, users=4)


def left_of(users: Mapping[str, Any], *rounds: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """What is left of the first users after some rounds of one silo, the others being empty."""
    clients, plan = {name: client(name, policy=OF_SILOS) for name in NAMES}, planned(SILOS)
    for of_ann in rounds:
        summed(plan, clients, {name: Users(dict(of_ann) if name == "ann" else {}) for name in NAMES})
        plan = plan.next_round()
    return {user: clients["ann"].residual(plan, user) for user in users}


def test_each_users_residual_follows_from_its_own_vectors_and_its_name() -> None:
    """Not from its place, from how many others there are, or from what they have."""
    x, y, z = normal(3)
    alone = left_of({"x": x}, {"x": x}, {"x": y})["x"]
    assert alone.any()
    for first, second in (
        ({"x": x, "z": z}, {"z": z, "x": y}),
        ({"z": z, "x": x}, {"x": y}),
        ({"a": y, "b": z, "x": x}, {"x": y, "a": np.full(LENGTH, np.nan), "b": 1e30 * z}),
    ):
        assert np.array_equal(left_of({"x": x}, first, second)["x"], alone)
    assert not np.array_equal(left_of({"x": x}, {"z": x}, {"x": y})["x"], alone)


def normal(count: int) -> np.ndarray:
    return np.random.default_rng(5).normal(size=(count, LENGTH))


def test_of_a_user_who_is_not_there_nothing_is_left() -> None:
    x, y, _ = normal(3)
    found = left_of({"x": x, "y": y}, {"x": x, "y": y}, {"y": y})
    assert not found["x"].any()
    assert found["y"].any()


def test_a_silo_with_nothing_to_contribute_keeps_what_its_users_have_left() -> None:
    clients, plan, (x, _, _) = {name: client(name, policy=OF_SILOS) for name in NAMES}, planned(SILOS), normal(3)
    summed(plan, clients, {name: Users({"x": x}) for name in NAMES})
    kept = clients["ann"].residual(plan, "x")
    summed(plan.next_round(), clients, {name: None if name == "ann" else Users({"x": x}) for name in NAMES})
    assert kept.any()
    assert np.array_equal(clients["ann"].residual(plan, "x"), kept)


@pytest.mark.parametrize(
    ("update", "said"),
    [
        ([np.zeros(LENGTH)], "pass vectors that have names"),
        (np.zeros((2, LENGTH)), "pass vectors that have names"),
        (type("Twins", (Users,), {"names": ["x", "x"]})({"x": [0.0] * LENGTH, "y": [0.0] * LENGTH}), "the same name"),
        (Users({"x" * 1025: [0.0] * LENGTH}), "at most 1024 bytes"),
    ],
)
def test_users_without_names_of_their_own_are_refused(update: Any, said: str) -> None:
    ann, plan = client("ann", policy=OF_SILOS), planned(SILOS)
    with pytest.raises(UsageError, match=said):
        ann.start(plan, update)
    assert ann.start(plan, Users({"x": np.zeros(LENGTH)}))
    assert client("ann", policy=OF_SILOS).start(plan, Users({"x" * 1024: np.zeros(LENGTH)}))


# What is refused.


def test_a_client_that_has_not_agreed_to_it_takes_no_plan_with_feedback(monkeypatch: pytest.MonkeyPatch) -> None:
    ann = client("ann", policy=replace(POLICY, feedback=False))
    with pytest.raises(PolicyError, match="keeps nothing of its updates"):
        ann.check(planned())
    ann.check(planned(replace(SOME, feedback=False)))
    switch_off(monkeypatch, Policy, "check", "plan.encoding.feedback and not self.feedback")
    ann.check(planned())


OTHERS = {
    "length": Encoding(LENGTH + 1, clip_l2=100.0, sketch=RandomK(5), feedback=True),
    "sketch": Encoding(LENGTH, clip_l2=100.0, sketch=LowRank((Table(0, 3, 4, 1),)), feedback=True),
    "none": Encoding(LENGTH, clip_l2=100.0, bits=4, feedback=True),
}


@pytest.mark.parametrize("other", OTHERS)
def test_what_is_left_of_other_vectors_is_refused_before_the_data_are_touched(
    other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients, plan = everybody(), planned()
    summed(plan, clients, UPDATES)
    changed = planned(OTHERS[other], bytes([1]) * 16)
    for asked in (clients["ann"].check, clients["ann"].residual):
        with pytest.raises(PolicyError, match="another model is another deployment"):
            asked(changed)
    clients["ann"].check(planned(replace(SOME, sketch=RandomK(7), clip_l2=3.0, bits=8), bytes([1]) * 16))
    switch_off(
        monkeypatch,
        Residuals,
        "check",
        "(found.family, found.length) != (family := _family(encoding), encoding.length)",
    )
    clients["ann"].check(changed)


def test_what_was_left_earlier_is_not_taken_for_what_is_left_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever can write to the file cannot put back a residual of which a part has been sent since."""

    def put_back() -> Client:
        journal = MemoryJournal()
        clients, plan = everybody() | {"ann": client("ann", journal)}, planned()
        summed(plan, clients, UPDATES)
        name = clients["ann"]._residuals._name
        (old,) = journal.records(name, 0)
        summed(plan.next_round(), clients, UPDATES)
        journal._records[name, 1] = [old]
        return client("ann", journal)

    with pytest.raises(PolicyError, match="altered"):
        put_back().residual(planned())
    switch_off(monkeypatch, Residuals, "_associated", "u32.encode(number)", "b''")
    assert put_back().residual(planned()).any()


def test_with_feedback_a_sum_is_charged_as_without() -> None:
    noise = NoiseSpec(Family.SKELLAM, Fraction(10**9), dropouts=1, colluders=1)
    fed, plain = (planned(replace(SOME, feedback=feedback), noise=noise).secure_sum(4) for feedback in (True, False))
    assert (fed.l1, fed.l2_squared, fed.dimension) == (plain.l1, plain.l2_squared, plain.dimension)


def test_a_journal_that_forgets_keeps_no_residual() -> None:
    ann = client("ann", ForgetfulJournal())
    with pytest.raises(UsageError, match="keeps values beside rounds"):
        ann.check(planned())
    with pytest.raises(UsageError, match="keeps no value"):
        ForgetfulJournal().append(b"d", b"s", 0, 0, b"", None, Kept(b"n", 0, b"r"))


def test_a_round_with_feedback_is_resumed_with_its_update() -> None:
    ann, plan = client("ann"), planned()
    first = ann.start(plan, UPDATES["ann"])
    with pytest.raises(UsageError, match="resumed by start"):
        ann.encoded()
    with pytest.raises(UsageError, match="resumed by start"):
        ann.resume(plan, bytes)
    assert ann.start(plan, UPDATES["ann"]) == first
    with pytest.raises(UsageError, match="no feedback"):
        ann.residual(planned(replace(SOME, feedback=False)))


def test_somebody_elses_residual_does_not_open() -> None:
    journal = MemoryJournal()
    clients = everybody() | {"ann": client("ann", journal)}
    summed(planned(), clients, UPDATES)
    bob = client("bob", journal)
    with pytest.raises(PolicyError, match="not this client's"):
        bob.residual(planned())


def test_an_older_residual_in_the_place_of_a_newer_one_does_not_open() -> None:
    journal = MemoryJournal()
    clients, plan = everybody() | {"ann": client("ann", journal)}, planned()
    name = clients["ann"]._residuals._name
    summed(plan, clients, UPDATES)
    [older] = journal.records(name, 0)
    summed(plan.next_round(), clients, UPDATES)
    journal._records[name, 1] = [older]
    with pytest.raises(PolicyError, match="not this client's, or has been altered"):
        clients["ann"].residual(plan)


# Dying.


class Dying:
    """A database that fails at a statement that writes; what it had written is what a crash would leave."""

    def __init__(self, database: Any, more: int) -> None:
        self._database, self.more = database, more

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    def execute(self, *statement: Any) -> Any:
        if statement[0].split()[0] not in ("SELECT", "ROLLBACK"):
            if self.more == 0:
                raise sqlite3.OperationalError("the disk is gone")
            self.more -= 1
        return self._database.execute(*statement)


WRITES = ("begin", "write the upload", "destroy what was left", "write what is left", "commit")


@pytest.mark.parametrize("write", range(len(WRITES)), ids=WRITES)
def test_an_upload_and_what_it_leaves_are_written_together_or_not(write: int, tmp_path: Path) -> None:
    path = tmp_path / "ann.db"
    with closing(SqliteJournal(path)) as journal:
        ann, frame, plan = uploading(journal)
        before = ann.residual(plan)
        journal._db = Dying(journal._db, write)  # type: ignore[assignment]
        with pytest.raises(StorageError, match="the disk is gone"):
            ann.receive(frame)
        with pytest.raises(UsageError, match="no round is under way"):
            ann.receive(frame)
    with closing(SqliteJournal(path)) as journal:
        again = client("ann", journal)
        assert np.array_equal(again.residual(plan), before)
        again.start(plan, UPDATES["ann"])
        again.receive(frame)
        assert np.allclose(again.residual(plan), left(plan, before), rtol=1e-6)


def test_after_the_upload_a_restart_sends_the_same_and_keeps_the_same(tmp_path: Path) -> None:
    path = tmp_path / "ann.db"
    with closing(SqliteJournal(path)) as journal:
        ann, frame, plan = uploading(journal)
        before = ann.residual(plan)
        said = ann.receive(frame)
        assert np.allclose(ann.residual(plan), left(plan, before), rtol=1e-6)
        after = ann.residual(plan)
    with closing(SqliteJournal(path)) as journal:
        again = client("ann", journal)
        assert again.start(plan, 5 * UPDATES["ann"]) == said
        assert again.receive(frame) == said
        assert np.array_equal(again.residual(plan), after)


def test_control_an_upload_that_is_written_alone_is_sent_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were what is left written later, a crash between would leave in it what has been sent."""
    switch_off(monkeypatch, SqliteJournal, "append", "kept is not None")
    with closing(SqliteJournal(tmp_path / "ann.db")) as journal:
        ann, frame, plan = uploading(journal)
        before = ann.residual(plan)
        ann.receive(frame)
        assert np.array_equal(ann.residual(plan), before)


KEPT = Kept(b"k" * 32, 0, b"first", Beside(b"a long first value" * 9, b"1" * 32))


def test_a_value_takes_the_place_of_the_one_before_and_nothing_is_left_of_that(tmp_path: Path) -> None:
    with closing(SqliteJournal(tmp_path / "a.db")) as journal:
        journal.append(b"d" * 32, b"s" * 16, 0, 0, b"record", None, KEPT)
        assert journal.frame(KEPT.name, 0, 0, b"1" * 32) == b"a long first value" * 9
        head = journal.head()
        journal.append(
            b"d" * 32, b"s" * 16, 0, 1, b"record", None, replace(KEPT, number=1, record=b"second", beside=None)
        )
        assert (journal.records(KEPT.name, 0), journal.records(KEPT.name, 1)) == ([], [b"second"])
        assert not list(tmp_path.glob("*.frame"))
        assert b"first" not in (tmp_path / "a.db").read_bytes()
        journal.append(b"e" * 32, b"t" * 16, 0, 0, b"another deployment")
        journal.retire(b"s" * 16, 1)
        assert journal.records(KEPT.name, 1) == [b"second"]
    with closing(SqliteJournal(tmp_path / "a.db", pinned=head)) as journal:
        assert journal.records(KEPT.name, 1) == [b"second"]


def test_both_journals_keep_values_alike(tmp_path: Path) -> None:
    heads = []
    with closing(SqliteJournal(tmp_path / "a.db")) as durable:
        for journal in (MemoryJournal(), durable):
            journal.append(b"d" * 32, b"s" * 16, 0, 0, b"record", None, KEPT)
            with pytest.raises(PolicyError):  # a value of that number is there: neither is written
                journal.append(b"d" * 32, b"s" * 16, 0, 1, b"record", None, KEPT)
            assert (journal.records(b"s" * 16, 0), journal.records(KEPT.name, 0)) == ([b"record"], [b"first"])
            heads.append(journal.head())
    assert heads[0] == heads[1]


def test_an_altered_value_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "ann.db"
    with closing(SqliteJournal(path)) as journal:
        ann, frame, _ = uploading(journal)
        name = ann._residuals._name
        ann.receive(frame)
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        (old,) = file.execute("SELECT record FROM log WHERE session = ? AND record IS NOT NULL", (name,)).fetchone()
        file.execute("UPDATE log SET record = ? WHERE session = ? AND record IS NOT NULL", (old[:-1] + b"x", name))
    with pytest.raises(PolicyError, match="altered"):
        SqliteJournal(path)


def test_nothing_of_a_residual_can_be_read_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "ann.db"
    with closing(SqliteJournal(path)) as journal:
        ann, frame, plan = uploading(journal)
        ann.receive(frame)
        kept = ann.residual(plan).tobytes()
    files = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert not any(kept[at : at + 4] in files for at in range(0, len(kept), 4) if any(kept[at : at + 4]))


KILLED = """
import sys
import numpy as np
from pathlib import Path
from protocols.journal import SqliteJournal
from tests.scenes import residuals as scene
from tests.scenes.doomed_journal import doom, end
path = Path(sys.argv[1])
journal = SqliteJournal(path / "ann.db")
ann, frame, plan = scene.uploading(journal, scene.LONG)
(path / "heard").write_bytes(frame)
(path / "plan").write_bytes(plan.encode())
np.save(path / "before.npy", ann.residual(plan))
left = doom(journal, int(sys.argv[2]))
ann.receive(frame)
print(left(), flush=True)
end()
"""


@pytest.mark.long
@pytest.mark.parametrize("moment", range(13))
def test_killed_between_what_is_left_and_the_upload(moment: int, tmp_path: Path) -> None:
    """Begin, the upload's file, its tag and its end, write, destroy what was left, a file, its tag and its end, write,
    commit, remove what was left before: after the restart either nothing was uploaded, and what was left before is
    there, or both have happened. Once it is uploaded, what is left is the same in either case, and so are the files."""
    ran = [sys.executable, "-c", KILLED, tmp_path, str(moment)]
    died = subprocess.run(ran, cwd=ROOT, capture_output=True, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    assert (died.stdout == b"") == (moment < 12)
    plan = RoundPlan.decode((tmp_path / "plan").read_bytes())
    frame, before = (tmp_path / "heard").read_bytes(), np.load(tmp_path / "before.npy")
    with closing(SqliteJournal(tmp_path / "ann.db")) as journal:
        ann = client("ann", journal)
        uploaded = len(journal.records(ann._session(plan), plan.round)) == 4
        assert uploaded == (moment > 10)
        found = ann.residual(plan)
        assert np.array_equal(found, before) != uploaded
        ann.start(plan, updates(LONG)["ann"])
        said = ann.receive(frame)
        assert ann.receive(frame) == said
        assert np.allclose(ann.residual(plan), left(plan, before), rtol=1e-6)
        assert np.array_equal(found, ann.residual(plan)) == uploaded
    assert len(list(tmp_path.glob("*.frame"))) == 2


def test_a_copy_of_a_client_with_the_same_journal_does_not_send_the_rest_twice(tmp_path: Path) -> None:
    """Two processes that have begun with the same rest: the journal takes one upload, and what is left is of that."""
    with closing(SqliteJournal(tmp_path / "ann.db")) as journal, closing(SqliteJournal(tmp_path / "ann.db")) as other:
        ann, frame, plan = uploading(journal)
        copy = client("ann", other)
        copy.start(plan, 3 * UPDATES["ann"])
        before = ann.residual(plan)
        ann.receive(frame)
        with pytest.raises(SecAggError):
            copy.receive(frame)
        assert np.allclose(ann.residual(plan), left(plan, before), rtol=1e-6)


IN_TURN = [RandomK(5, bytes(32)), LowRank((Table(0, 3, 4, 2),), bytes(32)), RandomK(4, bytes(32), 7)]


@pytest.mark.parametrize("sketch", IN_TURN, ids=str)
def test_in_turn_all_of_a_constant_vector_has_been_sent_after_as_many_rounds(sketch: Any) -> None:
    """Three parts of 5 of 12 coordinates, two of 2 of 4 columns, three of 4 of 12: then each has been sent, and of the
    first round's vectors nothing is left."""
    clients, plan = everybody(), planned(replace(SOME, sketch=sketch))
    said = summed(plan, clients, UPDATES)
    nothing = {name: np.zeros(LENGTH) for name in NAMES}
    for _ in range(2 if isinstance(sketch, RandomK) else 1):
        assert not np.allclose(said, sum(UPDATES.values()), atol=1e-3)
        plan = plan.next_round()
        said += summed(plan, clients, nothing)
    assert np.allclose(said, sum(UPDATES.values()), atol=1e-3)
    assert np.allclose(clients["ann"].residual(plan), 0, atol=1e-6)
    assert plan.next_round().encoding.sketch != plan.encoding.sketch
