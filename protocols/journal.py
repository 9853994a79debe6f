"""What a client must remember across a crash, written before it speaks.

A journal is an append-only list of sealed records, numbered within each (session, round), under one hash chain. The
client seals and opens the records; a journal sees ciphertext. A long frame stands beside its record, under a key that
was drawn for it and is in the record, so that it is written once and never copied, and destroyed with the record.
A journal's promises are:

- ``append`` returns only when the record is durable, and a step is taken once.
- A round is begun once, by its step 0, and the rounds of a session only ascend. Whatever is destroyed, that is not
  forgotten.
- A value that outlives rounds (``Kept``) is written in the transaction that writes a record, or neither is. The value
  that was kept under its name before is destroyed.
- Beginning a round destroys the records of all other rounds of its session and of its deployment, in the same
  transaction. So of one deployment at most one round can be opened, the one begun last: not one that was abandoned.
- ``head`` moves with every write, also when something is destroyed, so that who remembers a head can tell when an older
  copy of the file comes back.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from secagg.at_rest import KEY_FILE, Keyring
from secagg.crypto import labels
from secagg.crypto.keys import digest
from secagg.crypto.seal import opened_once, sealed_once
from secagg.errors import AtRestError, PeerError, PolicyError, SealedError, StorageError, UnsealedError, UsageError
from secagg.files import add_file, hold_private, keep_only, read_private

VERSION = 2
"""The format of a journal's file, and of the records in it."""

EMPTY_HEAD = bytes(32)
OVER = (1 << 32) - 1
"""The step of a link that says that a round's records are destroyed."""


@dataclass(frozen=True, slots=True)
class Beside:
    """A long frame that is kept beside its record, and the key under which it is sealed where it outlives the process.

    The key is drawn for this frame, and is in its record.
    """

    frame: bytes = field(repr=False)
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Kept:
    """A value that outlives rounds, under a name of its own: a session and a deployment, of which it is round
    ``number``, one more than that of the value whose place it takes."""

    name: bytes
    number: int
    record: bytes
    beside: Beside | None = None


class Journal(Protocol):
    durable: ClassVar[bool]
    """Whether what is kept outlives the process, and whatever run it is part of, until somebody deletes a file."""
    keeps_values: ClassVar[bool]
    """Whether ``append`` takes a value that outlives rounds."""

    def records(self, session: bytes, round_: int) -> list[bytes]:
        """The records of a round that lives, in order; nothing if it was not begun, or is over."""

    def append(
        self,
        deployment: bytes,
        session: bytes,
        round_: int,
        step: int,
        record: bytes,
        beside: Beside | None = None,
        kept: Kept | None = None,
    ) -> None:
        """Keep a record for good before returning. Step 0 begins a round, later ones go on with it where it stands.

        ``PolicyError``: the step was taken, one before it is missing, or the round is over. Then nothing is kept.
        """

    def frame(self, session: bytes, round_: int, step: int, key: bytes) -> bytes:
        """The frame beside a record, which has its key. ``PolicyError``: it is not there, or another one is."""

    def retire(self, session: bytes, before: int) -> None:
        """Destroy the records of the session's rounds before ``before``; that they took place is not forgotten."""

    def last_round(self, session: bytes) -> int | None:
        """The highest round of this session that was ever begun."""

    def head(self) -> bytes:
        """The hash chain's last link."""


def chained(head: bytes, deployment: bytes, session: bytes, round_: int, step: int, record_digest: bytes) -> bytes:
    """The next link of a journal's hash chain."""
    place = round_.to_bytes(4, "big") + step.to_bytes(4, "big")
    return digest(labels.JOURNAL_RECORD, head, deployment, session, place, record_digest)


def check_next(round_: int, step: int, taken: int, last: int | None) -> None:
    """Refuse a step that is not next: ``taken`` is how many of this round's are there, ``last`` the session's round."""
    if step == 0 and last is not None and round_ <= last:
        raise PolicyError(f"this session is past round {round_}: it is over, or was begun already")
    if step != taken:
        raise PolicyError(f"step {step} of round {round_} was already taken, or the round is over")


class MemoryJournal:
    """For simulations, and for clients that may forget a round when their process ends."""

    durable: ClassVar[bool] = False
    keeps_values: ClassVar[bool] = True

    def __init__(self) -> None:
        self._records: dict[tuple[bytes, int], list[bytes]] = {}
        self._frames: dict[tuple[bytes, int, int], bytes] = {}
        self._deployments: dict[tuple[bytes, int], bytes] = {}
        self._last: dict[bytes, int] = {}
        self._head = EMPTY_HEAD

    def records(self, session: bytes, round_: int) -> list[bytes]:
        return list(self._records.get((session, round_), ()))

    def append(
        self,
        deployment: bytes,
        session: bytes,
        round_: int,
        step: int,
        record: bytes,
        beside: Beside | None = None,
        kept: Kept | None = None,
    ) -> None:
        self._check(deployment, session, round_, step)
        if kept is not None:
            self._check(kept.name, kept.name, kept.number, 0)
        self._add(deployment, session, round_, step, record, beside)
        if kept is not None:
            self._add(kept.name, kept.name, kept.number, 0, kept.record, kept.beside)

    def _check(self, deployment: bytes, session: bytes, round_: int, step: int) -> None:
        place = session, round_
        taken = len(self._records[place]) if self._deployments.get(place) == deployment else 0
        check_next(round_, step, taken, self._last.get(session))

    def _add(
        self, deployment: bytes, session: bytes, round_: int, step: int, record: bytes, beside: Beside | None
    ) -> None:
        place = session, round_
        if step == 0:
            self._destroy([key for key, of in self._deployments.items() if of == deployment or key[0] == session])
            self._records[place], self._deployments[place], self._last[session] = [], deployment, round_
        self._records[place].append(record)
        if beside is not None:
            self._frames[*place, step] = beside.frame
        self._head = chained(self._head, deployment, session, round_, step, sha256(record).digest())

    def retire(self, session: bytes, before: int) -> None:
        over = [key for key in self._records if key[0] == session and key[1] < before]
        for place in over:
            self._head = chained(self._head, self._deployments[place], *place, OVER, sha256().digest())
        self._destroy(over)

    def _destroy(self, rounds: list[tuple[bytes, int]]) -> None:
        for place in rounds:
            del self._records[place], self._deployments[place]
        self._frames = {key: frame for key, frame in self._frames.items() if key[:2] not in rounds}

    def frame(self, session: bytes, round_: int, step: int, key: bytes) -> bytes:
        if (session, round_, step) not in self._frames:
            raise PolicyError(_LOST)
        return self._frames[session, round_, step]

    def last_round(self, session: bytes) -> int | None:
        return self._last.get(session)

    def head(self) -> bytes:
        return self._head


class ForgetfulJournal(MemoryJournal):
    """Remembers that steps were taken, and not what was said: for the thousands of clients of a simulation.

    A client can go on with it as long as it lives, and never again: what it said, it can neither repeat nor contradict.
    """

    keeps_values: ClassVar[bool] = False

    def records(self, session: bytes, round_: int) -> list[bytes]:
        return []

    def append(
        self,
        deployment: bytes,
        session: bytes,
        round_: int,
        step: int,
        record: bytes,
        beside: Beside | None = None,
        kept: Kept | None = None,
    ) -> None:
        if kept is not None:
            raise UsageError("a journal that forgets keeps no value")
        super().append(deployment, session, round_, step, b"")

    def head(self) -> bytes:
        raise UsageError("a journal that forgets has no history to pin")


class SqliteJournal:
    """A durable journal in one file, for one client; each long frame of a round that lives has a file beside it.

    ``pinned`` is a head seen earlier: a file that does not contain it has been rolled back and is refused. Every
    append is synced to disk. What is destroyed is overwritten in the file. While a transaction lasts, SQLite keeps the
    pages that it changes in a second file beside it (``-journal``), which a crash may leave behind, which undoes the
    unfinished transaction when the journal is next opened, and which is deleted and not overwritten: what a disk gives
    back of deleted files, sealed as it is, is out of reach here.

    A frame's file (``alice.db-0123456789abcdef.frame`` beside ``alice.db``) is written and synced inside the
    transaction that writes its record; its name is synced when SQLite syncs the folder, to commit. So a frame without a
    record was never said: it is removed when the journal is next opened. A frame's file is deleted and not overwritten:
    the key that opens it was in the record, and is destroyed there.

    With a keyring what would stand in clear beside the sealed records is sealed, too: deployments, sessions and links
    of the chain, by AES-SIV, which makes the same of the same, so that they are found. Its key is drawn for this
    journal, and kept in it, sealed under the keyring (``secagg.at_rest``). Heads are what they would be without.
    ``reseal`` seals a journal that is plain, brings a sealed one under another key, or makes it plain again.

    Whoever opens it closes it: ``with closing(SqliteJournal(path)) as journal``.
    """

    durable: ClassVar[bool] = True
    keeps_values: ClassVar[bool] = True

    def __init__(self, path: str | Path, *, pinned: bytes | None = None, keys: Keyring | None = None) -> None:
        self._version = 0
        with ExitStack() as undo:
            try:
                hold_private(Path(path))  # nobody else's business, sealed or not
                self._path = Path(path).absolute()  # or SQLite takes ":memory:" for no file at all
                self._db = sqlite3.connect(
                    self._path, isolation_level=None, check_same_thread=False
                )  # a client has a lock
                undo.callback(self.close)
                self._db.executescript(_PRAGMAS)
                with self._transaction():
                    self._hidden = self._find_tables(path, keys)
                    self._version = self._schema_version()
                self._check_chain(pinned)
                with self._transaction():  # nobody is about to write a record
                    self._remove_orphans()
            except AtRestError:
                raise
            except (OSError, sqlite3.Error, StorageError) as error:
                raise UsageError(f"cannot open journal {path}: {error}") from None
            undo.pop_all()

    def _find_tables(self, path: str | Path, keys: Keyring | None) -> _Hidden:
        """Make them in a new file; of another version, or somebody else's, they are refused."""
        [(version,)], [(tables,)] = self._read("PRAGMA user_version"), self._read("SELECT count(*) FROM sqlite_master")
        if (version, tables) == (0, 0):
            self._db.execute(_SCHEMA)
            self._db.execute(f"PRAGMA user_version = {VERSION}")
            if keys is not None:
                self._db.execute(_SEAL_SCHEMA)
                self._db.execute(_SEAL, (keys.seal(os.urandom(_HIDING_BYTES), _HIDING),))
        elif version != VERSION:
            raise UsageError(f"{path} is not a journal of this version of secagg")
        sealed = self._sealed_key()
        if keys is None and sealed is not None:
            raise SealedError(f"{path} is sealed, and no key was given: {KEY_FILE} names the file that has it")
        if keys is not None and sealed is None:
            raise UnsealedError(f"{path} is not sealed, and a key was given: secagg seal, if you know whose it is")
        return _Hidden(None if keys is None or sealed is None else keys.open(sealed, _HIDING))

    def _sealed_key(self) -> bytes | None:
        """What opens a journal that is sealed, as it is in the file; None of one that is plain."""
        rows = self._read("SELECT key FROM seal") if self._read(_IS_SEALED) else []
        if rows and type(rows[0][0]) is not bytes:
            raise PolicyError("the journal has been altered")
        return rows[0][0] if rows else None

    def reseal(self, opening: Keyring, sealing: Keyring | None) -> bool:
        """Bring the journal under the newest key of ``sealing``, or none; False if it is there already.

        ``opening`` opens it if it is sealed now. It is one transaction: after a crash all of it is as it was. Whoever
        has it open meanwhile writes nothing any more. Afterwards it is to be closed.
        """
        with self._transaction():
            sealed = self._sealed_key()
            if sealed is None if sealing is None else sealed is not None and sealing.under_newest(sealed):
                return False
            if sealing is not None and sealed is not None:
                self._db.execute(_SEAL, (sealing.seal(opening.open(sealed, _HIDING), _HIDING),))
                return True
            after = _Hidden(None if sealing is None else os.urandom(_HIDING_BYTES))
            for number, *values in self._read("SELECT number, deployment, session, link FROM log"):
                shown = (self._hidden.show(what, one) for what, one in zip(_HIDES, values, strict=True))
                again = (after.hide(what, one) for what, one in zip(_HIDES, shown, strict=True))
                self._db.execute(
                    "UPDATE log SET deployment = ?, session = ?, link = ? WHERE number = ?", (*again, number)
                )
            if sealing is None:
                self._db.execute("DROP TABLE seal")
            else:
                self._db.execute(_SEAL_SCHEMA)
                self._db.execute(_SEAL, (sealing.seal(after.key, _HIDING),))
        return True

    def _schema_version(self) -> int:
        """A number that changes when the journal is sealed, or made plain."""
        [(version,)] = self._read("SELECT schema_version FROM pragma_schema_version")
        return int(version)

    def _check_chain(self, pinned: bytes | None) -> None:
        head, seen = EMPTY_HEAD, pinned in (None, EMPTY_HEAD)
        try:
            rows = self._db.execute(
                "SELECT deployment, session, link, round, step, digest, record FROM log ORDER BY number"
            )
            for *hidden, round_, step, record_digest, record in rows:
                deployment, session, link = (self._hidden.show(*one) for one in zip(_HIDES, hidden, strict=True))
                head = chained(head, deployment, session, round_, step, record_digest)
                if head != link or (record is not None and sha256(record).digest() != record_digest):
                    raise PolicyError("the journal has been altered")
                seen = seen or head == pinned
        except (sqlite3.Error, TypeError, AttributeError, OverflowError):  # other tables, or other types in them
            raise PolicyError("the journal has been altered") from None
        if not seen:
            raise PolicyError("the journal has been rolled back: it does not contain the pinned head")

    def records(self, session: bytes, round_: int) -> list[bytes]:
        query = "SELECT record FROM log WHERE session = ? AND round = ? AND record IS NOT NULL ORDER BY step"
        return [record for (record,) in self._read(query, self._session(session), round_)]

    def append(
        self,
        deployment: bytes,
        session: bytes,
        round_: int,
        step: int,
        record: bytes,
        beside: Beside | None = None,
        kept: Kept | None = None,
    ) -> None:
        with self._transaction():
            over = self._written(deployment, session, round_, step, record, beside)
            if kept is not None:
                over += self._written(kept.name, kept.name, kept.number, 0, kept.record, kept.beside)
        self._remove(over)

    def _written(
        self, deployment: bytes, session: bytes, round_: int, step: int, record: bytes, beside: Beside | None
    ) -> list[tuple[bytes]]:
        """Write a record in a transaction; of which records it has taken the place."""
        record_digest, over = sha256(record).digest(), list[tuple[bytes]]()
        hidden = self._hidden.hide(_DEPLOYMENT, deployment), self._session(session)
        [(taken,)] = self._read(_TAKEN, *hidden, round_)
        check_next(round_, step, taken, self.last_round(session))
        if step == 0:
            over = self._read(_SUPERSEDED, *hidden)
            self._db.execute(_SUPERSEDE, hidden)
        link = chained(self.head(), deployment, session, round_, step, record_digest)
        if beside is not None:
            add_file(self._beside(record_digest), sealed_once(beside.key, beside.frame))
        self._db.execute(_INSERT, (*hidden, round_, step, record_digest, record, self._hidden.hide(_LINK, link)))
        return over

    def frame(self, session: bytes, round_: int, step: int, key: bytes) -> bytes:
        rows = self._read(_DIGEST, self._session(session), round_, step)
        try:
            return opened_once(key, read_private(self._beside(*rows[0])))
        except (IndexError, FileNotFoundError):
            raise PolicyError(_LOST) from None
        except PeerError:
            raise PolicyError("a frame beside the journal is another one, or has been altered") from None

    def _beside(self, record_digest: bytes) -> Path:
        """Where the frame of this record is, if it has one."""
        return self._path.with_name(f"{self._path.name}-{record_digest.hex()[:16]}.frame")

    def _remove(self, digests: Iterable[tuple[bytes]]) -> None:
        """The frames of records that are destroyed, which nobody can open any more."""
        with suppress(OSError):  # then whoever opens the journal next removes them
            for (record_digest,) in digests:
                self._beside(record_digest).unlink(missing_ok=True)

    def _remove_orphans(self) -> None:
        """Frames whose records are destroyed, or were never written."""
        names = re.compile(re.escape(self._path.name) + r"-[0-9a-f]{16}\.frame")
        living = self._read("SELECT digest FROM log WHERE record IS NOT NULL")
        keep_only(self._path.parent, names, {self._beside(record_digest).name for (record_digest,) in living})

    def retire(self, session: bytes, before: int) -> None:
        hidden, none = self._session(session), sha256().digest()
        with self._transaction():
            over = self._read(_RETIRED, hidden, before)
            for deployment, round_ in self._read(_LIVING, hidden, before):
                link = chained(self.head(), self._hidden.show(_DEPLOYMENT, deployment), session, round_, OVER, none)
                last = self._hidden.hide(_LINK, link)
                self._db.execute(_INSERT, (deployment, hidden, round_, OVER, none, None, last))
            self._db.execute("UPDATE log SET record = NULL WHERE session = ? AND round < ?", (hidden, before))
        self._remove(over)

    def _session(self, session: bytes) -> bytes:
        """A session as it is in the file."""
        return self._hidden.hide(_SESSION, session)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing: what is not on disk must not be seen by this process either."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            if self._version and self._schema_version() != self._version:
                raise StorageError("the journal was sealed, or made plain, meanwhile: open it again")
            yield
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise StorageError(f"the journal cannot be written: {error}") from None
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def last_round(self, session: bytes) -> int | None:
        [(last,)] = self._read("SELECT max(round) FROM log WHERE session = ?", self._session(session))
        return last  # type: ignore[no-any-return]  # the schema says so

    def head(self) -> bytes:
        rows = self._read("SELECT link FROM log ORDER BY number DESC LIMIT 1")
        return self._hidden.show(_LINK, rows[0][0]) if rows else EMPTY_HEAD

    def _read(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise StorageError(f"the journal cannot be read: {error}") from None

    def close(self) -> None:
        self._db.close()


class _Hidden:
    """What makes of a value that stands beside the records what is in the file: without a key the same value."""

    def __init__(self, key: bytes | None) -> None:
        self.key = key or b""
        self._cipher = None if key is None else AESSIV(key)

    def hide(self, what: bytes, value: bytes) -> bytes:
        return value if self._cipher is None else self._cipher.encrypt(value, [what])

    def show(self, what: bytes, hidden: bytes) -> bytes:
        try:
            return hidden if self._cipher is None else self._cipher.decrypt(hidden, [what])
        except (InvalidTag, ValueError):
            raise PolicyError("the journal has been altered") from None


_HIDES = _DEPLOYMENT, _SESSION, _LINK = b"deployment", b"session", b"link"
"""What a cipher's values are, so that none can stand in the place of another."""
_HIDING, _HIDING_BYTES = "the key of a journal", 64
_IS_SEALED = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'seal'"
_SEAL_SCHEMA = "CREATE TABLE seal (place INTEGER PRIMARY KEY CHECK (place = 0), key BLOB NOT NULL)"
_SEAL = "INSERT OR REPLACE INTO seal VALUES (0, ?)"
_LOST = "a frame that this journal kept is not there any more: it cannot be said again"
_RETIRED = "SELECT digest FROM log WHERE session = ? AND round < ? AND record IS NOT NULL"
_LIVING = "SELECT DISTINCT deployment, round FROM log WHERE session = ? AND round < ? AND record IS NOT NULL"
_DIGEST = "SELECT digest FROM log WHERE session = ? AND round = ? AND step = ? AND record IS NOT NULL"
_TAKEN = "SELECT count(record) FROM log WHERE deployment = ? AND session = ? AND round = ?"
_SUPERSEDED = "SELECT digest FROM log WHERE (deployment = ? OR session = ?) AND record IS NOT NULL"
_SUPERSEDE = "UPDATE log SET record = NULL WHERE (deployment = ? OR session = ?) AND record IS NOT NULL"
_INSERT = "INSERT INTO log (deployment, session, round, step, digest, record, link) VALUES (?, ?, ?, ?, ?, ?, ?)"
_PRAGMAS = """
PRAGMA journal_mode = DELETE;
PRAGMA synchronous = EXTRA;
PRAGMA secure_delete = ON;
"""
_SCHEMA = """
CREATE TABLE log (
    number     INTEGER PRIMARY KEY,
    deployment BLOB NOT NULL,
    session    BLOB NOT NULL,
    round      INTEGER NOT NULL,
    step       INTEGER NOT NULL,
    digest     BLOB NOT NULL,
    record     BLOB,
    link       BLOB NOT NULL,
    UNIQUE (session, round, step)
)
"""
