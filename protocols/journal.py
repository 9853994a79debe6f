"""What a client must remember across a crash, written before it speaks.

A journal is an append-only list of sealed records, numbered within each (session, round), under one hash chain. The
client seals and opens the records; a journal sees ciphertext. Its promises are: ``append`` returns only when the
record is durable, a step is taken once, and ``head`` moves with every write, so that a deployment which remembers a
head can tell when an older copy of the file comes back.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

from secagg import labels
from secagg.errors import PolicyError, StorageError, UsageError
from secagg.keys import digest

EMPTY_HEAD = bytes(32)


class Journal(Protocol):
    def records(self, session: bytes, round_: int) -> list[bytes]:
        """The records of a round that is not retired, in order."""

    def append(self, session: bytes, round_: int, step: int, record: bytes) -> None:
        """Keep a record for good before returning; ``PolicyError`` if this step was taken already."""

    def retire(self, session: bytes, before: int) -> None:
        """Destroy the records of the rounds before ``before``; that these rounds took place is not forgotten."""

    def last_round(self, session: bytes) -> int | None:
        """The highest round of this session in which anything was ever written."""

    def head(self) -> bytes:
        """The hash chain's last link."""


def chained(head: bytes, session: bytes, round_: int, step: int, record_digest: bytes) -> bytes:
    """The next link of a journal's hash chain."""
    place = round_.to_bytes(4, "big") + step.to_bytes(4, "big")
    return digest(labels.JOURNAL_RECORD, head, session, place, record_digest)


class MemoryJournal:
    """For simulations, and for clients that may forget a round when their process ends."""

    def __init__(self) -> None:
        self._records: dict[tuple[bytes, int], list[bytes]] = {}
        self._last: dict[bytes, int] = {}
        self._head = EMPTY_HEAD

    def records(self, session: bytes, round_: int) -> list[bytes]:
        return list(self._records.get((session, round_), ()))

    def append(self, session: bytes, round_: int, step: int, record: bytes) -> None:
        taken = self._records.setdefault((session, round_), [])
        if step != len(taken):
            raise PolicyError(f"step {step} of round {round_} was already taken, or an earlier one is missing")
        taken.append(record)
        self._last[session] = max(round_, self._last.get(session, 0))
        self._head = chained(self._head, session, round_, step, sha256(record).digest())

    def retire(self, session: bytes, before: int) -> None:
        for key in [key for key in self._records if key[0] == session and key[1] < before]:
            del self._records[key]

    def last_round(self, session: bytes) -> int | None:
        return self._last.get(session)

    def head(self) -> bytes:
        return self._head


class ForgetfulJournal:
    """Remembers that steps were taken, and not what was said: for the thousands of clients of a simulation.

    A client can go on with it as long as it lives, and never again: what it said, it can neither repeat nor contradict.
    """

    def __init__(self) -> None:
        self._steps: dict[tuple[bytes, int], int] = {}

    def records(self, session: bytes, round_: int) -> list[bytes]:
        return []

    def append(self, session: bytes, round_: int, step: int, record: bytes) -> None:
        if step != self._steps.get((session, round_), 0):
            raise PolicyError(f"step {step} of round {round_} was already taken, or an earlier one is missing")
        self._steps[session, round_] = step + 1

    def retire(self, session: bytes, before: int) -> None:
        """There is nothing to destroy."""

    def last_round(self, session: bytes) -> int | None:
        return max((round_ for of, round_ in self._steps if of == session), default=None)

    def head(self) -> bytes:
        raise UsageError("a journal that forgets has no history to pin")


class SqliteJournal:
    """A durable journal in one file, for one client.

    ``pinned`` is a head seen earlier: a file that does not contain it has been rolled back and is refused. Every
    append is synced to disk; retired records are overwritten.
    """

    def __init__(self, path: str | Path, *, pinned: bytes | None = None) -> None:
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # nobody else's business, sealed or not
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise UsageError(f"cannot open journal {path}: {error}") from None
        self._check_chain(pinned)

    def _check_chain(self, pinned: bytes | None) -> None:
        head, seen = EMPTY_HEAD, pinned in (None, EMPTY_HEAD)
        try:
            rows = self._db.execute("SELECT session, round, step, digest, record, link FROM log ORDER BY number")
            for session, round_, step, record_digest, record, link in rows:
                head = chained(head, session, round_, step, record_digest)
                if head != link or (record is not None and sha256(record).digest() != record_digest):
                    raise PolicyError("the journal has been altered")
                seen = seen or head == pinned
        except (sqlite3.Error, TypeError, AttributeError, OverflowError):  # other tables, or other types in them
            raise PolicyError("the journal has been altered") from None
        if not seen:
            raise PolicyError("the journal has been rolled back: it does not contain the pinned head")

    def records(self, session: bytes, round_: int) -> list[bytes]:
        query = "SELECT record FROM log WHERE session = ? AND round = ? AND record IS NOT NULL ORDER BY step"
        return [record for (record,) in self._read(query, session, round_)]

    def append(self, session: bytes, round_: int, step: int, record: bytes) -> None:
        record_digest = sha256(record).digest()
        with self._transaction():
            link = chained(self.head(), session, round_, step, record_digest)
            values = (session, round_, step, record_digest, record, link)
            try:
                self._db.execute(_INSERT, values)
            except sqlite3.IntegrityError:
                raise PolicyError(f"step {step} of round {round_} was already taken") from None

    def retire(self, session: bytes, before: int) -> None:
        with self._transaction():
            self._db.execute("UPDATE log SET record = NULL WHERE session = ? AND round < ?", (session, before))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing: what is not on disk must not be seen by this process either."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise StorageError(f"the journal cannot be written: {error}") from None
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def last_round(self, session: bytes) -> int | None:
        [(last,)] = self._read("SELECT max(round) FROM log WHERE session = ?", session)
        return last  # type: ignore[no-any-return]  # the schema says so

    def head(self) -> bytes:
        rows = self._read("SELECT link FROM log ORDER BY number DESC LIMIT 1")
        return rows[0][0] if rows else EMPTY_HEAD

    def _read(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise StorageError(f"the journal cannot be read: {error}") from None

    def close(self) -> None:
        self._db.close()


_INSERT = "INSERT INTO log (session, round, step, digest, record, link) VALUES (?, ?, ?, ?, ?, ?)"
_SCHEMA = """
PRAGMA synchronous = EXTRA;
PRAGMA secure_delete = ON;
CREATE TABLE IF NOT EXISTS log (
    number  INTEGER PRIMARY KEY,
    session BLOB NOT NULL,
    round   INTEGER NOT NULL,
    step    INTEGER NOT NULL,
    digest  BLOB NOT NULL,
    record  BLOB,
    link    BLOB NOT NULL,
    UNIQUE (session, round, step)
);
"""
