"""All journals keep the same promises."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import closing, nullcontext
from hashlib import sha256
from pathlib import Path
from random import Random
from threading import Event, Thread
from typing import Any

import pytest

from protocols import journal as journal_module
from protocols.journal import EMPTY_HEAD, Beside, ForgetfulJournal, Journal, MemoryJournal, SqliteJournal
from secagg import files
from secagg.at_rest import Keyring
from secagg.errors import PolicyError, StorageError, UsageError
from tests.controls import switch_off

ROOT = Path(__file__).parents[2]

A, B = b"a" * 16, b"b" * 16
D, E = b"d" * 32, b"e" * 32
"""Two deployments."""


def state_journal() -> Journal:
    pytest.importorskip("flwr")
    from flwr.app import RecordDict

    from protocols.adapters.flower.state import StateJournal

    return StateJournal(RecordDict())


@pytest.fixture(params=["memory", "sqlite", "sealed", "state"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Journal:
    makers: dict[str, Callable[[], Journal]] = {
        "memory": MemoryJournal,
        "sqlite": lambda: SqliteJournal(tmp_path / "journal.db"),
        "sealed": lambda: SqliteJournal(tmp_path / "journal.db", keys=Keyring([bytes(32)])),
        "state": state_journal,
    }
    return makers[request.param]()


def test_what_is_written_is_read(journal: Journal) -> None:
    assert (journal.records(A, 0), journal.last_round(A), journal.head()) == ([], None, EMPTY_HEAD)
    for step, record in enumerate([b"one", b"", b"three"]):
        journal.append(D, A, 5, step, record)
    journal.append(E, B, 2, 0, b"other")
    assert journal.records(A, 5) == [b"one", b"", b"three"]
    assert (journal.records(B, 2), journal.records(A, 2), journal.records(B, 5)) == ([b"other"], [], [])
    assert (journal.last_round(A), journal.last_round(B)) == (5, 2)


def test_a_step_is_taken_once(journal: Journal) -> None:
    journal.append(D, A, 0, 0, b"one")
    head = journal.head()
    with pytest.raises(PolicyError, match="this session is past round 0: it is over, or was begun already"):
        journal.append(D, A, 0, 0, b"two")
    assert (journal.records(A, 0), journal.head()) == ([b"one"], head)
    journal.append(D, A, 0, 1, b"two")


def test_retired_rounds_are_gone_but_not_forgotten(journal: Journal) -> None:
    journal.append(D, A, 3, 0, b"a secret, sealed")
    journal.append(E, B, 3, 0, b"another")
    before = journal.head()
    journal.retire(A, 3)
    assert (len(journal.records(A, 3)), journal.head()) == (1, before)  # nothing was destroyed
    journal.retire(A, 4)
    assert (journal.records(A, 3), journal.last_round(A)) == ([], 3)
    assert (head := journal.head()) != before
    journal.retire(A, 4)
    assert journal.head() == head
    assert len(journal.records(B, 3)) == 1
    for step in (0, 1):
        with pytest.raises(PolicyError, match=r"past round 3|step 1 of round 3 .* is over"):
            journal.append(D, A, 3, step, b"again")
    assert (journal.records(A, 3), journal.head()) == ([], head)


def test_a_file_from_before_a_round_was_finished_is_rolled_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its old copy a finished round could be resumed, and its secrets read."""

    def put_back(name: str) -> SqliteJournal:
        path, copy = tmp_path / name, tmp_path / f"{name}.old"
        with closing(SqliteJournal(path)) as journal:
            journal.append(D, A, 0, 0, b"a secret, sealed")
            copy.write_bytes(path.read_bytes())
            journal.retire(A, 1)
            pinned = journal.head()
        SqliteJournal(path, pinned=pinned).close()
        path.write_bytes(copy.read_bytes())
        return SqliteJournal(path, pinned=pinned)

    with pytest.raises(PolicyError, match="rolled back"):
        put_back("real.db")
    monkeypatch.setattr(journal_module, "_LIVING", journal_module._LIVING + " AND 0")
    with closing(put_back("control.db")) as journal:
        assert journal.records(A, 0) == [b"a secret, sealed"]


def living(journal: Journal) -> set[tuple[bytes, int]]:
    return {(session, round_) for session in (A, B) for round_ in range(6) if journal.records(session, round_)}


def test_who_begins_a_round_gives_up_the_others_of_its_deployment(journal: Journal) -> None:
    journal.append(D, A, 0, 0, b"one")
    journal.append(D, A, 0, 1, b"two")
    journal.append(D, A, 2, 0, b"three")
    assert living(journal) == {(A, 2)}
    journal.append(E, B, 0, 0, b"a parallel session")
    assert living(journal) == {(A, 2), (B, 0)}
    journal.append(D, B, 1, 0, b"the same session elsewhere")  # a session, too, has one round at a time
    assert living(journal) == {(B, 1)}
    for session, round_, step in ((A, 2, 0), (A, 2, 1), (A, 1, 0), (A, 0, 0), (A, 0, 2), (B, 0, 0), (B, 0, 1)):
        for deployment in (D, E):
            with pytest.raises(PolicyError):
                journal.append(deployment, session, round_, step, b"back again")
    with pytest.raises(PolicyError, match="step 1 of round 1 was already taken, or the round is over"):
        journal.append(E, B, 1, 1, b"another deployment goes on with it")
    assert living(journal) == {(B, 1)}
    journal.append(D, B, 1, 1, b"goes on")
    journal.append(D, A, 3, 0, b"a later round of the older session")
    assert living(journal) == {(A, 3)}
    assert (journal.last_round(A), journal.last_round(B)) == (3, 1)


def test_without_the_check_a_round_that_was_given_up_is_begun_again(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control. The table of the file has a second one of its own: no step twice."""
    module = journal_module if "Sqlite" in type(journal).__name__ or type(journal) is MemoryJournal else None
    if module is None:
        from protocols.adapters.flower import state as module  # type: ignore[no-redef]
    journal.append(D, A, 0, 0, b"one")
    journal.append(D, B, 0, 0, b"two")
    monkeypatch.setattr(module, "check_next", lambda *_: None)
    if isinstance(journal, SqliteJournal):
        with pytest.raises(StorageError, match="UNIQUE"):
            journal.append(D, A, 0, 0, b"one more")
        journal.append(D, A, 0, 1, b"one more")
    else:
        journal.append(D, A, 0, 0, b"one more")
    assert journal.records(A, 0) == [b"one more"]


def test_a_forgetful_journal_takes_no_step_twice_either() -> None:
    journal = ForgetfulJournal()
    journal.append(D, A, 0, 0, b"one")
    journal.append(D, B, 0, 0, b"two")
    for session, step in ((A, 0), (A, 1), (B, 0)):
        with pytest.raises(PolicyError):
            journal.append(D, session, 0, step, b"again")
    journal.append(D, B, 0, 1, b"goes on")
    assert (journal.records(B, 0), journal.last_round(A)) == ([], 0)


def test_the_head_moves_with_every_write(journal: Journal) -> None:
    heads = [journal.head()]
    for place in ((A, 0, 0), (A, 0, 1), (A, 1, 0), (B, 0, 0)):
        journal.append(D, *place, b"the same record")
        heads.append(journal.head())
    assert len(set(heads)) == len(heads)


def test_both_journals_have_the_same_head(tmp_path: Path) -> None:
    memory, file = MemoryJournal(), SqliteJournal(tmp_path / "journal.db")
    for journal in (memory, file):
        journal.append(D, A, 0, 0, b"one")
        journal.append(E, B, 7, 0, b"two")
    assert memory.head() == file.head()
    memory.append(D, A, 1, 0, b"three")
    file.append(E, A, 1, 0, b"three")
    assert memory.head() != file.head()  # which deployment it was is in the chain


Reopen = Callable[..., SqliteJournal]


@pytest.fixture
def reopen(tmp_path: Path) -> Reopen:
    return lambda **options: SqliteJournal(tmp_path / "journal.db", **options)


def test_a_file_is_there_after_a_restart(reopen: Reopen) -> None:
    journal = reopen()
    journal.append(D, A, 0, 0, b"one")
    journal.append(D, A, 1, 0, b"two")
    head = journal.head()
    journal.close()
    again = reopen(pinned=head)
    assert (again.records(A, 1), again.records(A, 0), again.last_round(A), again.head()) == ([b"two"], [], 1, head)


@pytest.mark.parametrize("known", range(4))
def test_every_head_ever_seen_may_be_pinned(reopen: Reopen, known: int) -> None:
    journal = reopen()
    heads = [journal.head()]
    for step in range(3):
        journal.append(D, A, 0, step, b"record")
        heads.append(journal.head())
    journal.close()
    reopen(pinned=heads[known]).close()


def test_an_unknown_head_is_refused(reopen: Reopen) -> None:
    reopen().append(D, A, 0, 0, b"record")
    with pytest.raises(PolicyError, match="rolled back"):
        reopen(pinned=bytes([1]) * 32)


def test_no_directory(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot open journal"):
        SqliteJournal(tmp_path / "nowhere" / "journal.db")


def test_not_a_journal(tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear Sir or Madam, this has never been a database. " * 100)
    path.chmod(0o600)
    with pytest.raises(UsageError, match=r"cannot open journal .*not a database"):
        SqliteJournal(path)


def test_a_journal_is_its_owners_alone(tmp_path: Path) -> None:
    """Refused as ssh refuses a key: with others in its mode, as a link, of another user."""
    path = tmp_path / "journal.db"
    SqliteJournal(path).close()
    assert path.stat().st_mode & 0o777 == 0o600
    (link := tmp_path / "link.db").symlink_to(path)
    with pytest.raises(UsageError, match=r"cannot open journal .*it is a link"):
        SqliteJournal(link)
    path.chmod(0o640)
    before = path.read_bytes()
    with pytest.raises(UsageError, match=r"cannot open journal .*others can get at it"):
        SqliteJournal(path)
    assert path.read_bytes() == before


OLD = """CREATE TABLE log (number INTEGER PRIMARY KEY, session BLOB NOT NULL, round INTEGER NOT NULL,
step INTEGER NOT NULL, digest BLOB NOT NULL, record BLOB, link BLOB NOT NULL, UNIQUE (session, round, step))"""


@pytest.mark.parametrize("table", ["CREATE TABLE log (message TEXT)", "CREATE TABLE other (message TEXT)", OLD])
def test_another_table_of_that_name(tmp_path: Path, table: str) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as database:
        database.execute(table)
    database.close()
    path.chmod(0o600)
    before = path.read_bytes()
    with pytest.raises(UsageError, match="is not a journal of this version of secagg"):
        SqliteJournal(path)
    assert path.read_bytes() == before


# What is destroyed is no longer in the file.


def left_of(path: Path, records: list[bytes]) -> list[bytes]:
    """Pieces of these records that are still there, at any place."""
    data = path.read_bytes()
    there = {data[i : i + 12] for i in range(len(data) - 11)}
    return [
        piece for record in records for i in range(0, len(record) - 11, 12) if (piece := record[i : i + 12]) in there
    ]


@pytest.mark.parametrize("by", ["a new session", "the next round", "finish"])
def test_what_is_destroyed_is_overwritten_in_the_file(tmp_path: Path, by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records from a line to many pages. The control: SQLite's own habit is to leave them where they are."""

    def destroyed(name: str) -> list[bytes]:
        path, draw = tmp_path / name, Random(name)
        journal = SqliteJournal(path)
        journal.append(E, b"parallel", 0, 0, parallel := draw.randbytes(500))
        records = [draw.randbytes(size) for size in (200, 60_000, 4000, 300, 9000)]
        for step, record in enumerate(records):
            journal.append(D, A, 0, step, record)
        assert all(left_of(path, [record]) for record in records)
        if by == "finish":
            journal.retire(A, 1)
        else:
            journal.append(D, *((B, 0) if by == "a new session" else (A, 1)), 0, draw.randbytes(100))
        assert not journal.records(A, 0)
        assert journal.records(b"parallel", 0) == [parallel]
        journal.close()
        assert not [other for other in tmp_path.iterdir() if other.name.startswith(name + "-")]
        return left_of(path, records)

    assert not destroyed("one.db")
    monkeypatch.setattr(journal_module, "_PRAGMAS", "PRAGMA secure_delete = OFF;")
    assert destroyed("two.db")


def test_a_journal_with_a_write_ahead_log_is_one_file_again(tmp_path: Path) -> None:
    """Somebody's tool has turned one on: the file alone had forgotten what was said. To open it undoes that."""
    path, alone = tmp_path / "journal.db", tmp_path / "alone.db"
    SqliteJournal(path).close()
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA journal_mode = WAL")
        link = journal_module.chained(EMPTY_HEAD, D, A, 0, 0, digest := sha256(b"said").digest())
        other.execute(journal_module._INSERT, (D, A, 0, 0, digest, b"said", link))
        other.commit()
        shutil.copy(path, alone)
        with closing(sqlite3.connect(alone)) as copy:
            assert copy.execute("SELECT count(*) FROM log").fetchall() == [(0,)], "the control"
    with closing(SqliteJournal(path)) as journal:
        journal.append(D, A, 0, 1, b"and more")
        shutil.copy(path, alone)
        assert [each.name for each in tmp_path.iterdir() if each.name.startswith("journal")] == ["journal.db"]
        with closing(SqliteJournal(alone, pinned=journal.head())) as copy_of_it:
            assert copy_of_it.records(A, 0) == [b"said", b"and more"]


def test_of_many_abandoned_sessions_nothing_is_left_in_the_file(tmp_path: Path) -> None:
    """Pages are split, joined and used again: no copy stays behind."""
    path, draw = tmp_path / "journal.db", Random(1)
    journal, given_up, last = SqliteJournal(path), list[bytes](), list[bytes]()
    journal._db.execute("PRAGMA synchronous = OFF")
    for session in range(60):
        given_up += last
        last = [draw.randbytes(draw.choice([20, 300, 1500, 4090, 9000])) for _ in range(draw.randrange(1, 6))]
        for step, record in enumerate(last):
            journal.append(D, session.to_bytes(16, "big"), 0, step, record)
    journal.close()
    assert not left_of(path, given_up)
    assert left_of(path, last)
    assert [len(SqliteJournal(path).records(session.to_bytes(16, "big"), 0)) for session in (0, 58)] == [0, 0]


# Killed while one round gives way to the next.

KILLED = """
import os, signal, sys
from protocols.journal import SqliteJournal
class Doomed:
    def __init__(self, database): self._database, self.left = database, int(sys.argv[2])
    def __getattr__(self, name): return getattr(self._database, name)
    def execute(self, *statement):
        if statement[0].split()[0] != "SELECT":
            if self.left == 0: os.kill(os.getpid(), signal.SIGKILL)
            self.left -= 1
        return self._database.execute(*statement)
journal = SqliteJournal(sys.argv[1])
journal._db.execute("PRAGMA cache_spill = 1")
journal._db.execute("PRAGMA cache_size = 1")  # pages go to the file before the transaction ends
journal._db = Doomed(journal._db)
journal.append(b"d" * 32, b"b" * 16, 0, 0, b"new")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("statements", range(5))
def test_killed_between_destroying_and_writing(tmp_path: Path, statements: int) -> None:
    """Begin, destroy, write, commit: either the old round lives, whole, or the new one does and nothing of the old."""
    path, draw = tmp_path / "journal.db", Random(statements)
    journal, records = SqliteJournal(path), [draw.randbytes(size) for size in (200, 60_000, 4000)]
    for step, record in enumerate(records):
        journal.append(D, A, 0, step, record)
    journal.close()
    died = subprocess.run([sys.executable, "-c", KILLED, path, str(statements)], cwd=ROOT, check=False)
    assert died.returncode == -signal.SIGKILL
    again = SqliteJournal(path)
    if statements < 4:
        assert (again.records(A, 0), again.records(B, 0), again.last_round(B)) == (records, [], None)
        again.append(D, A, 0, 3, b"goes on")
    else:
        assert (again.records(A, 0), again.records(B, 0), again.last_round(A)) == ([], [b"new"], 0)
        assert not left_of(path, records)


def test_where_destroyed_records_are_still_found_after_a_crash(tmp_path: Path) -> None:
    """In the second file, with whose help the destroying is undone; so the round lives on. When it has been destroyed
    for good there is no such file: what is left of it, the disk has."""
    path, draw = tmp_path / "journal.db", Random(7)
    journal, records = SqliteJournal(path), [draw.randbytes(size) for size in (200, 60_000, 4000)]
    for step, record in enumerate(records):
        journal.append(D, A, 0, step, record)
    journal.close()
    died = subprocess.run([sys.executable, "-c", KILLED, path, "3"], cwd=ROOT, check=False)
    assert died.returncode == -signal.SIGKILL
    beside = path.with_name("journal.db-journal")
    assert left_of(beside, records)
    with closing(SqliteJournal(path)) as again:
        assert again.records(A, 0) == records
        again.append(D, B, 0, 0, b"new")
        assert [each for each in tmp_path.iterdir() if left_of(each, records)] == []
    assert list(tmp_path.iterdir()) == [path]


# Long frames stand beside their records.

KEY = bytes(range(32))
LONG = Random(0).randbytes(700_000)
"""A frame of several pieces."""


def frames_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.frame"))


def test_a_frame_lives_as_long_as_its_record(journal: Journal) -> None:
    journal.append(D, A, 0, 0, b"one", Beside(LONG, KEY))
    journal.append(D, A, 0, 1, b"two")
    journal.append(D, A, 0, 2, b"three", Beside(b"", KEY))
    journal.append(E, B, 0, 0, b"a parallel session", Beside(b"its frame", KEY))
    assert [journal.frame(A, 0, step, KEY) for step in (0, 2)] == [LONG, b""]
    with pytest.raises(PolicyError):
        journal.frame(A, 0, 1, KEY)
    journal.append(D, A, 1, 0, b"the next round", Beside(b"next", KEY))
    for session, round_, step in ((A, 0, 0), (A, 0, 2), (A, 2, 0)):
        with pytest.raises(PolicyError):
            journal.frame(session, round_, step, KEY)
    assert (journal.frame(A, 1, 0, KEY), journal.frame(B, 0, 0, KEY)) == (b"next", b"its frame")
    journal.retire(A, 2)
    with pytest.raises(PolicyError):
        journal.frame(A, 1, 0, KEY)
    assert journal.frame(B, 0, 0, KEY) == b"its frame"


def test_a_frame_is_sealed_in_a_file_of_its_own_and_gone_with_its_record(tmp_path: Path) -> None:
    path = tmp_path / ":memory:"
    with closing(SqliteJournal(path)) as journal:
        journal.append(D, A, 0, 0, b"one", Beside(LONG, KEY))
    [file] = frames_in(tmp_path)
    assert (file.stat().st_mode & 0o777, file.stat().st_size) == (0o600, len(LONG) + 16)
    assert not left_of(file, [LONG[:60_000]])
    assert not left_of(path, [LONG[:60_000]])
    with closing(SqliteJournal(path)) as journal:
        assert journal.frame(A, 0, 0, KEY) == LONG
        journal.append(D, A, 1, 0, b"two")
        assert list(tmp_path.iterdir()) == [path]
        journal.append(D, A, 1, 1, b"three", Beside(LONG, KEY))
        journal.append(D, B, 0, 0, b"another session of the deployment", Beside(b"its frame", KEY))
        assert [each.stat().st_size for each in frames_in(tmp_path)] == [len(b"its frame") + 16]
        journal.append(E, B, 1, 0, b"the session in another deployment")
        assert frames_in(tmp_path) == []
        journal.append(E, B, 1, 1, b"four", Beside(LONG, KEY))
        journal.retire(B, 2)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "what", ["altered", "cut off", "empty", "longer", "another", "lost", "a link", "open to others"]
)
def test_another_file_is_no_frame(tmp_path: Path, what: str) -> None:
    with closing(SqliteJournal(tmp_path / "journal.db")) as journal:
        journal.append(D, A, 0, 0, b"one", Beside(b"another frame", bytes(32)))
        [other] = frames_in(tmp_path)
        journal.append(D, A, 0, 1, b"two", Beside(LONG, KEY))
        [file] = {*frames_in(tmp_path)} - {other}
        whole, refused = file.read_bytes(), {"a link": StorageError, "open to others": StorageError}
        if what in ("lost", "a link"):
            file.rename(tmp_path / "moved")
        if what == "a link":
            file.symlink_to(tmp_path / "moved")
        elif what == "open to others":
            file.chmod(0o644)
        elif what != "lost":
            changed = bytes([whole[0] ^ 1]) + whole[1:]
            content = {"altered": changed, "cut off": whole[:-1], "empty": b"", "longer": whole + b"\0"}
            file.write_bytes(content.get(what, other.read_bytes()))
        with pytest.raises(refused.get(what, PolicyError)):
            journal.frame(A, 0, 1, KEY)
        assert journal.frame(A, 0, 0, bytes(32)) == b"another frame"


def test_frames_without_a_record_are_removed_and_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with closing(SqliteJournal(path)) as journal:
        journal.append(D, A, 0, 0, b"one", Beside(b"living", KEY))
    kept = {
        "b.db-0123456789abcdef.frame",
        "a.db-0123456789abcdef.frame.old",
        "xa.db-0123456789abcdef.frame",
        "a.db.key",
    }
    for name in {*kept, "a.db-0123456789abcdef.frame"}:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "a.db-fedcba9876543210.frame").mkdir()
    with closing(SqliteJournal(path)) as journal:
        assert journal.frame(A, 0, 0, KEY) == b"living"
    names = {each.name for each in tmp_path.iterdir()} - {"a.db", "a.db-fedcba9876543210.frame"}
    assert len(names) == len(kept) + 1
    assert names > kept


def test_a_file_that_stands_in_the_way_of_a_frame_is_not_written_to(tmp_path: Path) -> None:
    with closing(SqliteJournal(tmp_path / "a.db")) as journal:
        target = tmp_path / f"a.db-{sha256(b'one').hexdigest()[:16]}.frame"
        (victim := tmp_path / "victim").write_bytes(b"precious")
        target.symlink_to(victim)
        with pytest.raises(StorageError, match="it is there already"):
            journal.append(D, A, 0, 0, b"one", Beside(LONG, KEY))
        assert (victim.read_bytes(), journal.records(A, 0), journal.last_round(A)) == (b"precious", [], None)


def test_nobody_removes_a_frame_whose_record_is_about_to_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever opens the journal meanwhile waits for the record, in vain here. The control looks without waiting."""
    path, add, connect = tmp_path / "a.db", journal_module.add_file, sqlite3.connect
    others = SqliteJournal(path)

    def meanwhile(place: Path, pieces: Iterable[bytes | memoryview]) -> None:
        add(place, pieces)
        monkeypatch.setattr(sqlite3, "connect", lambda *a, **options: connect(*a, timeout=0, **options))
        with pytest.raises(UsageError, match="database is locked"):
            SqliteJournal(path)
        if control:
            others._remove_orphans()

    monkeypatch.setattr(journal_module, "add_file", meanwhile)
    for round_, control in enumerate((False, True)):
        with closing(SqliteJournal(path)) as journal:
            journal.append(D, A, round_, 0, b"record %d" % round_, Beside(LONG, KEY))
            assert [each.exists() for each in (*frames_in(tmp_path), path)] == [True] * (1 if control else 2)
        monkeypatch.setattr(sqlite3, "connect", connect)
    others.close()


def test_whoever_opens_a_journal_waits_before_frames_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may begin to write when the file was found good. The control does not wait for it."""
    path, check, add, connect = tmp_path / "a.db", SqliteJournal._check_chain, journal_module.add_file, sqlite3.connect
    written, go_on = Event(), Event()

    def slow(place: Path, pieces: Iterable[bytes | memoryview]) -> None:
        add(place, pieces)
        written.set()
        assert go_on.wait(60)

    def opened_while_one_writes(control: bool) -> bool:
        """Whether the frame is there when its record is."""
        written.clear()
        go_on.clear()
        record = b"record %d" % control
        with closing(SqliteJournal(path)) as journal, pytest.MonkeyPatch.context() as inside:
            writing = Thread(target=journal.append, args=(D, A, int(control), 0, record, Beside(LONG, KEY)))

            def checked(self: SqliteJournal, pinned: bytes | None) -> None:
                check(self, pinned)
                writing.start()
                assert written.wait(60)
                if control:
                    inside.setattr(SqliteJournal, "_transaction", lambda self: nullcontext())

            inside.setattr(SqliteJournal, "_check_chain", checked)
            inside.setattr(journal_module, "add_file", slow)
            inside.setattr(sqlite3, "connect", lambda *a, **options: connect(*a, timeout=0, **options))
            with nullcontext() if control else pytest.raises(UsageError, match="database is locked"):
                SqliteJournal(path).close()
            go_on.set()
            writing.join()
            assert journal.records(A, int(control)) == [record]
            return len(frames_in(tmp_path)) == 1

    assert opened_while_one_writes(control=False)
    assert not opened_while_one_writes(control=True)


def test_a_frame_is_on_the_disk_before_its_record_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record alone, after a loss of power, would be an upload that can never be said again."""
    synced, sync = set[int](), os.fsync

    def noted(descriptor: int) -> None:
        sync(descriptor)
        synced.add(os.fstat(descriptor).st_ino)

    class Watched:
        def __init__(self, database: Any) -> None:
            self._database = database

        def __getattr__(self, name: str) -> Any:
            return getattr(self._database, name)

        def execute(self, *statement: Any) -> Any:
            if statement[0].startswith("INSERT"):
                [frame] = frames_in(tmp_path)
                before.append(frame.stat().st_ino in synced and frame.stat().st_size == len(LONG) + 16)
            return self._database.execute(*statement)

    before = list[bool]()
    monkeypatch.setattr(os, "fsync", noted)
    with closing(SqliteJournal(tmp_path / "a.db")) as journal:
        monkeypatch.setattr(journal, "_db", Watched(journal._db))
        journal.append(D, A, 0, 0, b"one", Beside(LONG, KEY))
    assert before == [True]


def test_a_frame_that_another_process_removes_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It removes frames of records that it has destroyed, and holds no lock then: a name was seen, and there is no
    file."""
    path, look = tmp_path / "a.db", Path.lstat
    SqliteJournal(path).close()
    frame = tmp_path / "a.db-0123456789abcdef.frame"

    def too_late(self: Path) -> os.stat_result:
        if self == frame:
            self.unlink(missing_ok=True)
        return look(self)

    frame.write_bytes(b"")
    monkeypatch.setattr(Path, "lstat", too_late)
    SqliteJournal(path).close()
    assert not frame.exists()
    switch_off(monkeypatch, files, "keep_only", "suppress(FileNotFoundError)", "suppress()")
    monkeypatch.setattr(journal_module, "keep_only", files.keep_only)
    frame.write_bytes(b"")
    with pytest.raises(UsageError, match="No such file"):
        SqliteJournal(path)


DYING = """
import sys
from protocols.journal import Beside, SqliteJournal
from tests.scenes.doomed_journal import doom, end
journal = SqliteJournal(sys.argv[1])
left = doom(journal, int(sys.argv[2]))
journal.append(b"d" * 32, b"b" * 16, 0, 0, b"new", Beside(bytes(700_000), bytes(32)))
print(left(), flush=True)
end()
"""


@pytest.mark.parametrize("moment", range(11))
def test_killed_while_a_frame_gives_way_to_the_next(tmp_path: Path, moment: int) -> None:
    """Begin, destroy, four pieces and the end of the file, write, commit, remove: the old round lives with its frame,
    or the new one with its own; of the other nothing is left once the journal has been opened again."""
    path = tmp_path / "journal.db"
    with closing(SqliteJournal(path)) as journal:
        journal.append(D, A, 0, 0, b"old", Beside(LONG, KEY))
    died = subprocess.run([sys.executable, "-c", DYING, path, str(moment)], cwd=ROOT, capture_output=True, check=False)
    assert (died.returncode, died.stdout) == (-signal.SIGKILL, b"" if moment < 10 else b"0\n")
    with closing(SqliteJournal(path)) as again:
        assert len(frames_in(tmp_path)) == 1
        assert not left_of(path, [LONG[:1000]])
        if moment < 9:
            assert (again.records(A, 0), again.frame(A, 0, 0, KEY), again.last_round(B)) == ([b"old"], LONG, None)
            again.append(D, B, 0, 0, b"new", Beside(b"once more", KEY))
        else:
            assert (again.records(A, 0), again.frame(B, 0, 0, bytes(32))) == ([], bytes(700_000))


def test_a_disk_that_is_full_keeps_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(SqliteJournal(tmp_path / "a.db")) as journal:
        with monkeypatch.context() as full:
            full.setattr(files, "_written", raising(OSError(errno.ENOSPC, "No space left on device")))
            with pytest.raises(StorageError, match="No space left on device"):
                journal.append(D, A, 0, 0, b"one", Beside(LONG, KEY))
        assert (journal.records(A, 0), journal.last_round(A)) == ([], None)
        journal.append(D, A, 0, 0, b"another record", Beside(LONG, KEY))
    with closing(SqliteJournal(tmp_path / "a.db")) as journal:
        assert len(frames_in(tmp_path)) == 1


def raising(error: OSError) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail
