"""Ledgers that are sealed at rest, row by row."""

import sqlite3
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from dp.events import Gaussian, Guarantee, PoissonSample, Relation, Release, Trust, Unit
from dp.filter import Budget
from dp.ledger import file
from dp.ledger.file import Ledger, is_ledger, plain_copy, read, reseal
from dp.ledger.state import LedgerState, replay
from secagg.at_rest import Keyring
from secagg.crypto.keys import SigningKey
from secagg.errors import AlteredError, PeerError, SealedError, StorageError, UnsealedError, WrongKeyError

OLD, NEW = Keyring([bytes(32)]), Keyring([bytes(range(32)), bytes(32)])
KEY = SigningKey(bytes(32))
EXAMPLE = Guarantee(Unit.EXAMPLE, Relation.ZERO_OUT, Trust.LOCAL)
STEP = Release(Gaussian(Fraction(1)), PoissonSample(Fraction(1, 100)), EXAMPLE)


BUDGET = Budget.suited(STEP, Fraction(2), Fraction(1, 10**5), slack=Fraction(0))


def made(path: Path, keys: Keyring | None, *, shared: bool = False) -> Path:
    about = {"run": "a secret title", "elsewhere": "the rest"}
    with closing(Ledger.create(path, KEY, BUDGET, EXAMPLE, **about, shared=shared, keys=keys)) as ledger:  # type: ignore[arg-type]
        ledger.charge(STEP, 100)
        ledger.charge(STEP, 7)
    return path


def test_a_sealed_ledger_is_what_a_plain_one_is(tmp_path: Path) -> None:
    path = made(tmp_path / "ledger.db", OLD)
    for text in (b"secret title", b"epsilon", b"genesis", b"reserve", KEY.public.hex().encode()):
        assert text not in path.read_bytes()
    with closing(Ledger.open(path, KEY, keys=OLD)) as ledger:
        ledger.charge(STEP, 5)
        entries, head = list(ledger.entries()), ledger.head
    assert [entry["number"] for entry in entries] == list(range(7))
    assert replay(read(path, OLD), KEY.public).head == head
    with closing(Ledger.open(path, KEY, keys=NEW, pinned=head)) as ledger:  # which writes under the newest
        ledger.charge(STEP, 5)
    assert len(read(path, NEW)) == 9
    with pytest.raises(WrongKeyError):
        read(path, OLD)


def test_it_is_opened_with_its_keys_only(tmp_path: Path) -> None:
    sealed, plain = made(tmp_path / "sealed.db", OLD), made(tmp_path / "plain.db", None)
    with pytest.raises(SealedError):
        read(sealed)
    with pytest.raises(SealedError):
        Ledger.open(sealed, KEY)
    with pytest.raises(WrongKeyError, match="entry 0 of a ledger is sealed under key"):
        read(sealed, Keyring([bytes([9]) * 32]))
    with pytest.raises(UnsealedError):
        read(plain, OLD)
    with pytest.raises(UnsealedError):
        Ledger.open(plain, KEY, keys=OLD)


def rewritten(path: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        triggers = database.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            database.execute(f"DROP TRIGGER {name}")
        database.execute(statement, values)
        for _, sql in triggers:
            database.execute(sql)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE entries SET body = (SELECT body FROM entries WHERE number = 3) WHERE number = 1", "another file"),
        ("UPDATE entries SET body = body || x'00' WHERE number = 2", "altered"),
        ("UPDATE head SET signature = (SELECT body FROM entries WHERE number = 3)", "another file"),
    ],
)
def test_rows_do_not_change_places(tmp_path: Path, statement: str, said: str) -> None:
    path = made(tmp_path / "ledger.db", OLD)
    rewritten(path, statement.replace("body || x'00'", "CAST(body || x'00' AS BLOB)"))
    with pytest.raises(AlteredError, match=said):
        read(path, OLD)


def test_an_earlier_end_is_noticed_by_the_signature(tmp_path: Path) -> None:
    path = made(tmp_path / "ledger.db", OLD)
    rewritten(path, "DELETE FROM entries WHERE number = 4")
    with pytest.raises(PeerError):
        replay(read(path, OLD))


@pytest.mark.parametrize(("before", "after"), [(None, OLD), (OLD, NEW), (OLD, None), (NEW, NEW), (None, None)])
def test_resealed(tmp_path: Path, before: Keyring | None, after: Keyring | None) -> None:
    path = made(tmp_path / "ledger.db", before)
    rows = read(path, before)
    assert reseal(path, NEW, after) == (before is not after)
    assert not reseal(path, NEW, after)
    assert read(path, after) == rows
    assert is_ledger(path)
    if after is not None:
        assert b"secret title" not in path.read_bytes()
    with closing(Ledger.open(path, KEY, keys=after)) as ledger:
        ledger.charge(STEP, 5)
    with closing(sqlite3.connect(path)) as database, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        database.execute("DELETE FROM entries")


def test_what_is_wrong_is_not_sealed(tmp_path: Path) -> None:
    path = made(tmp_path / "ledger.db", None)
    rewritten(path, "UPDATE entries SET body = CAST(replace(body, 'the rest', 'the best') AS BLOB) WHERE number = 0")
    before = path.read_bytes()
    with pytest.raises(PeerError):
        reseal(path, OLD, OLD)
    text = made(tmp_path / "text.db", None)
    rewritten(text, "UPDATE entries SET body = 'text' WHERE number = 1")
    with pytest.raises(PeerError, match="missing"):
        reseal(text, OLD, OLD)
    mixed = made(tmp_path / "mixed.db", OLD)
    rewritten(mixed, "UPDATE entries SET body = ? WHERE number = 1", read(mixed, OLD)[1][0])
    with pytest.raises(UnsealedError):
        reseal(mixed, NEW, NEW)
    assert path.read_bytes() == before


def test_nobody_reseals_a_ledger_that_is_open_and_sharers_notice(tmp_path: Path) -> None:
    path = made(tmp_path / "ledger.db", None)
    with closing(Ledger.open(path, KEY)), pytest.raises(StorageError, match="locked"):
        reseal(path, OLD, OLD)
    shared = made(tmp_path / "shared.db", None, shared=True)
    with closing(Ledger.open(shared, KEY, shared=True)) as ledger:
        assert reseal(shared, OLD, OLD)
        with closing(Ledger.open(shared, KEY, shared=True, keys=OLD)) as other:
            other.charge(STEP, 1)
        with pytest.raises(StorageError, match="was sealed, or made plain, meanwhile"):
            ledger.charge(STEP, 1)
    assert len(read(shared, OLD)) == 7


def test_a_sharer_without_the_keys_writes_no_plain_entry(tmp_path: Path) -> None:
    shared = made(tmp_path / "shared.db", None, shared=True)
    with closing(Ledger.open(shared, KEY, shared=True)) as ledger:
        reseal(shared, OLD, OLD)
        with pytest.raises(StorageError):
            ledger.charge(STEP, 1)
    assert len(read(shared, OLD)) == 5


def test_one_that_is_sealed_while_it_is_opened_is_not_written_to_in_plain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plain entry among sealed ones would be refused by everybody, for good."""
    shared = made(tmp_path / "shared.db", None, shared=True)

    def meanwhile(*arguments: Any) -> LedgerState:
        monkeypatch.undo()
        assert reseal(shared, OLD, OLD)
        return replay(*arguments)

    monkeypatch.setattr(file, "replay", meanwhile)
    with closing(Ledger.open(shared, KEY, shared=True)) as ledger, pytest.raises(StorageError, match="meanwhile"):
        ledger.charge(STEP, 1)
    assert len(read(shared, OLD)) == 5


def test_a_copy_is_plain(tmp_path: Path) -> None:
    rows = read(made(tmp_path / "ledger.db", OLD), OLD)
    (tmp_path / "copy.db").write_bytes(plain_copy(rows))
    assert read(tmp_path / "copy.db") == rows
    assert not is_ledger(__file__)
