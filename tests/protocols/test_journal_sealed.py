"""Journals and identities that are sealed at rest."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from protocols.journal import MemoryJournal, SqliteJournal
from protocols.roster import Identity
from secagg.at_rest import Keyring
from secagg.errors import AlteredError, PolicyError, SealedError, StorageError, UnsealedError, UsageError, WrongKeyError

OLD, NEW = Keyring([bytes(32)]), Keyring([bytes(range(32)), bytes(32)])
SESSION, DEPLOYMENT = b"a session of 16B", b"a deployment with a telling name"


def filled(path: Path, keys: Keyring | None) -> bytes:
    with closing(SqliteJournal(path, keys=keys)) as journal:
        journal.append(DEPLOYMENT, SESSION, 1, 0, b"first")
        journal.append(DEPLOYMENT, SESSION, 1, 1, b"second")
        return journal.head()


def in_memory() -> bytes:
    journal = MemoryJournal()
    journal.append(DEPLOYMENT, SESSION, 1, 0, b"first")
    journal.append(DEPLOYMENT, SESSION, 1, 1, b"second")
    return journal.head()


def test_nothing_but_sealed_records_and_numbers_is_in_a_sealed_journal(tmp_path: Path) -> None:
    plain, sealed = tmp_path / "plain.db", tmp_path / "sealed.db"
    assert filled(plain, None) == filled(sealed, OLD) == in_memory()
    for text in (SESSION, DEPLOYMENT, in_memory()):
        assert text in plain.read_bytes()
        assert text not in sealed.read_bytes()
    with closing(SqliteJournal(sealed, keys=OLD, pinned=in_memory())) as journal:
        assert journal.records(SESSION, 1) == [b"first", b"second"]
        with pytest.raises(PolicyError, match="already taken"):
            journal.append(DEPLOYMENT, SESSION, 1, 1, b"other")


def test_it_is_opened_with_its_keys_only(tmp_path: Path) -> None:
    plain, sealed = tmp_path / "plain.db", tmp_path / "sealed.db"
    filled(plain, None)
    filled(sealed, OLD)
    with pytest.raises(SealedError):
        SqliteJournal(sealed)
    with pytest.raises(UnsealedError):
        SqliteJournal(plain, keys=OLD)
    with pytest.raises(WrongKeyError):
        SqliteJournal(sealed, keys=Keyring([bytes([9]) * 32]))


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("UPDATE seal SET key = CAST(substr(key, 1, length(key) - 1) || x'00' AS BLOB)", AlteredError),
        ("DELETE FROM seal", UnsealedError),
        ("UPDATE seal SET key = 'text'", PolicyError),
        ("UPDATE log SET session = deployment", PolicyError),
        ("UPDATE log SET link = (SELECT link FROM log WHERE number = 1)", PolicyError),
        ("DELETE FROM log WHERE number = 1", PolicyError),
    ],
)
def test_what_is_altered_is_noticed(tmp_path: Path, statement: str, error: type[Exception]) -> None:
    filled(tmp_path / "journal.db", OLD)
    with closing(sqlite3.connect(tmp_path / "journal.db")) as database, database:
        database.execute(statement)
    with pytest.raises(error):
        SqliteJournal(tmp_path / "journal.db", keys=OLD)


@pytest.mark.parametrize(("before", "after"), [(None, OLD), (OLD, NEW), (OLD, None), (NEW, NEW), (None, None)])
def test_resealed(tmp_path: Path, before: Keyring | None, after: Keyring | None) -> None:
    path = tmp_path / "journal.db"
    head = filled(path, before)
    with closing(SqliteJournal(path, keys=before)) as journal:
        assert journal.reseal(NEW, after) == (before is not after)
    with closing(SqliteJournal(path, keys=after, pinned=head)) as journal:
        assert not journal.reseal(NEW, after)
        assert (journal.records(SESSION, 1), journal.head()) == ([b"first", b"second"], head)
        journal.append(DEPLOYMENT, SESSION, 1, 2, b"third")
    assert (SESSION in path.read_bytes()) == (after is None)


def test_who_has_it_open_while_it_is_sealed_writes_nothing_any_more(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    filled(path, None)
    with closing(SqliteJournal(path)) as client, closing(SqliteJournal(path)) as owner:
        owner.reseal(OLD, OLD)
        with pytest.raises(StorageError, match="was sealed, or made plain, meanwhile"):
            client.append(DEPLOYMENT, SESSION, 1, 2, b"third")
    with closing(SqliteJournal(path, keys=OLD)) as journal:
        assert journal.records(SESSION, 1) == [b"first", b"second"]


def test_identities(tmp_path: Path) -> None:
    alice = Identity.generate("alice")
    alice.save(path := tmp_path / "alice.key", OLD)
    assert Identity.load(path, NEW).key.secret == alice.key.secret
    assert b"alice" not in path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(SealedError):
        Identity.load(path)
    alice.save(tmp_path / "plain.key")
    with pytest.raises(UnsealedError):
        Identity.load(tmp_path / "plain.key", OLD)
    with pytest.raises(UsageError, match="No such file"):
        Identity.load(tmp_path / "nowhere", OLD)
