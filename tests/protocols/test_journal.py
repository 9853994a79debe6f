"""Both journals keep the same promises."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from protocols.journal import EMPTY_HEAD, Journal, MemoryJournal, SqliteJournal
from secagg.errors import PolicyError, UsageError

A, B = b"a" * 16, b"b" * 16


@pytest.fixture(params=["memory", "sqlite"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Journal:
    return MemoryJournal() if request.param == "memory" else SqliteJournal(tmp_path / "journal.db")


def test_what_is_written_is_read(journal: Journal) -> None:
    assert (journal.records(A, 0), journal.last_round(A), journal.head()) == ([], None, EMPTY_HEAD)
    for step, record in enumerate([b"one", b"", b"three"]):
        journal.append(A, 5, step, record)
    journal.append(B, 2, 0, b"other")
    assert journal.records(A, 5) == [b"one", b"", b"three"]
    assert (journal.records(B, 2), journal.records(A, 2), journal.records(B, 5)) == ([b"other"], [], [])
    assert (journal.last_round(A), journal.last_round(B)) == (5, 2)


def test_a_step_is_taken_once(journal: Journal) -> None:
    journal.append(A, 0, 0, b"one")
    head = journal.head()
    with pytest.raises(PolicyError, match="step 0 of round 0 was already taken"):
        journal.append(A, 0, 0, b"two")
    assert (journal.records(A, 0), journal.head()) == ([b"one"], head)
    journal.append(A, 0, 1, b"two")


def test_retired_rounds_are_gone_but_not_forgotten(journal: Journal) -> None:
    for round_ in (1, 2, 3):
        journal.append(A, round_, 0, b"a secret, sealed")
        journal.append(B, round_, 0, b"another")
    head = journal.head()
    journal.retire(A, 3)
    assert (journal.records(A, 1), journal.records(A, 2), len(journal.records(A, 3))) == ([], [], 1)
    assert len(journal.records(B, 1)) == 1
    journal.retire(A, 9)
    assert (journal.records(A, 3), journal.last_round(A), journal.head()) == ([], 3, head)


def test_the_head_moves_with_every_write(journal: Journal) -> None:
    heads = [journal.head()]
    for place in ((A, 0, 0), (A, 0, 1), (A, 1, 0), (B, 0, 0)):
        journal.append(*place, b"the same record")
        heads.append(journal.head())
    assert len(set(heads)) == len(heads)


def test_both_journals_have_the_same_head(tmp_path: Path) -> None:
    memory, file = MemoryJournal(), SqliteJournal(tmp_path / "journal.db")
    for journal in (memory, file):
        journal.append(A, 0, 0, b"one")
        journal.append(B, 7, 0, b"two")
    assert memory.head() == file.head()


Reopen = Callable[..., SqliteJournal]


@pytest.fixture
def reopen(tmp_path: Path) -> Reopen:
    return lambda **options: SqliteJournal(tmp_path / "journal.db", **options)


def test_a_file_is_there_after_a_restart(reopen: Reopen) -> None:
    journal = reopen()
    journal.append(A, 0, 0, b"one")
    journal.append(A, 1, 0, b"two")
    journal.retire(A, 1)
    head = journal.head()
    journal.close()
    again = reopen(pinned=head)
    assert (again.records(A, 1), again.records(A, 0), again.last_round(A), again.head()) == ([b"two"], [], 1, head)


@pytest.mark.parametrize("known", range(4))
def test_every_head_ever_seen_may_be_pinned(reopen: Reopen, known: int) -> None:
    journal = reopen()
    heads = [journal.head()]
    for step in range(3):
        journal.append(A, 0, step, b"record")
        heads.append(journal.head())
    journal.close()
    reopen(pinned=heads[known]).close()


def test_an_unknown_head_is_refused(reopen: Reopen) -> None:
    reopen().append(A, 0, 0, b"record")
    with pytest.raises(PolicyError, match="rolled back"):
        reopen(pinned=bytes([1]) * 32)


def test_no_directory(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot open journal"):
        SqliteJournal(tmp_path / "nowhere" / "journal.db")


def test_not_a_journal(tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear Sir or Madam, this has never been a database. " * 100)
    with pytest.raises(UsageError, match="cannot open journal"):
        SqliteJournal(path)


def test_another_table_of_that_name(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE log (message TEXT)")
    database.close()
    with pytest.raises((UsageError, PolicyError)):
        SqliteJournal(path)


def test_retired_records_are_overwritten_in_the_file(tmp_path: Path) -> None:
    path, record = tmp_path / "journal.db", b"0123456789abcdef" * 20
    journal = SqliteJournal(path)
    journal.append(A, 0, 0, record)
    assert record in path.read_bytes()
    journal.retire(A, 1)
    journal.close()
    assert record[:16] not in path.read_bytes()
