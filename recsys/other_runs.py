"""Other runs on the same data: the list of all runs that were begun from one account of a machine.

What a run costs its users adds up with what every other run on them costs, so a run has to find the others. It cannot
find all: whoever copies data to another machine leaves no trace here. What it can do is remember the runs that were
begun from this account, in a place that does not go away with a run's directory: one file of the user's state, as the
XDG base directory specification has it ($XDG_STATE_HOME/secagg/runs.db, by default below ~/.local/state). Neighbouring
directories would be no such place: a run may be anywhere, and is deleted more easily than it is forgotten.

**Which data are the same.** What is protected are users (or examples of theirs), so data are the same that are about
the same users: those who are called the same, in whatever file, order and split, and with whatever events. That errs on
the side of finding too much: two data sets whose users are numbered from 1 to 1000 are the same here. A name
(``privacy.data``) tells them apart, and brings together what is called differently. Streams are the same that have one
topic, or a file of one name. Runs over some of the same users
only are not found without such a name. The made-up population is the same if it is made the same way.

**What the file holds.** A random key, and for each run its public key, its directory, its ledger and what it promises,
beside a mark of its data made with the key (``dp.ledger.state.data_mark``). It is its owner's alone (0600), is handed
to nobody, and no part of it goes into a run's directory. It is a safeguard against forgetting and not against its
owner: whoever deletes it, and the runs, begins anew, and is told that nothing is known.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

from dp.ledger.state import data_mark
from recsys.config import Config, Source
from recsys.places import state
from secagg.crypto import labels
from secagg.crypto.keys import KEY_BYTES, digest
from secagg.errors import StorageError
from secagg.files import hold_private

FILE = "runs.db"
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS key (secret BLOB NOT NULL)",
    "CREATE TABLE IF NOT EXISTS runs (data BLOB NOT NULL, name TEXT PRIMARY KEY, folder TEXT NOT NULL, "
    "ledger TEXT NOT NULL, promise TEXT NOT NULL)",
)
_PATIENCE = 60.0


def identity(config: Config, user_ids: Sequence[str]) -> bytes:
    """Identifies the data that a run is about. It follows from who the users are, so it is only written under a key."""
    data = config.data
    if name := config.privacy.data:
        return digest(labels.LEDGER_DATA, b"named", name.encode())
    if data.source is Source.SYNTHETIC:
        made = f"{data.users} users, {data.item_count} items, seed {data.seed}, habits {data.habits}"
        return digest(labels.LEDGER_DATA, b"made up", made.encode())
    if data.source is Source.STREAM:
        stream = config.stream
        made = f"{data.users} users, {data.item_count} items, seed {data.seed}" if config.made_up else ""
        where = f"{stream.kind} {Path(stream.path).name} {stream.topic} {made}"
        return digest(labels.LEDGER_DATA, b"stream", where.encode())
    return digest(labels.LEDGER_DATA, b"users", *sorted(user.encode() for user in user_ids))


@dataclass(frozen=True, slots=True)
class KnownRun:
    """A run on the list."""

    name: str
    """The run's public key in hexadecimal, which is also the key of its ledger if it has one of its own."""
    folder: str
    ledger: str
    """The path of the run's ledger; empty without one."""
    promise: str
    """What the run may cost a user, in words."""


class LockedRunList:
    """The list of runs, while no other process can read or change it."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._db = database
        secrets = [secret for (secret,) in database.execute("SELECT secret FROM key")]
        if not secrets and not database.execute("SELECT name FROM runs").fetchall():
            secrets = [os.urandom(KEY_BYTES)]
            database.execute("INSERT INTO key VALUES (?)", secrets)
        if [(type(secret), len(secret)) for secret in secrets] != [(bytes, KEY_BYTES)]:  # nothing would be found again
            raise sqlite3.DatabaseError("its key is damaged")
        self._key: bytes = secrets[0]

    def on(self, data: bytes) -> list[KnownRun]:
        """All runs on this data, in the order in which they were begun."""
        found = "SELECT name, folder, ledger, promise FROM runs WHERE data = ? ORDER BY rowid"
        return [KnownRun(*row) for row in self._db.execute(found, (data_mark(self._key, data),))]

    def called(self, name: str) -> KnownRun | None:
        """The run of this name, on any data."""
        found = "SELECT name, folder, ledger, promise FROM runs WHERE name = ?"
        return next((KnownRun(*row) for row in self._db.execute(found, (name,))), None)

    def add(self, data: bytes, run: KnownRun) -> None:
        """Add a run, or replace the entry of the run with this name."""
        row = (data_mark(self._key, data), *astuple(run))
        self._db.execute("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?)", row)


class RunList:
    """The file with the list of runs: this account's, or one in ``folder``."""

    def __init__(self, folder: str | Path | None = None) -> None:
        self._path = Path(folder or state()) / FILE

    @contextmanager
    def locked(self) -> Iterator[LockedRunList]:
        """The list, locked until this is left. What was added is on disk then, unless this is left with an error."""
        path = self._path
        try:
            with ExitStack() as held:
                try:
                    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                    hold_private(path)
                except (OSError, StorageError) as error:
                    raise _unusable(path, error) from None
                database = sqlite3.connect(path, isolation_level=None, timeout=_PATIENCE)
                held.callback(database.close)
                database.execute("BEGIN IMMEDIATE")
                for statement in _SCHEMA:
                    database.execute(statement)
                yield LockedRunList(database)
                database.execute("COMMIT")
        except sqlite3.Error as error:
            raise _unusable(path, error) from None


def _unusable(path: Path, error: Exception) -> StorageError:
    return StorageError(
        f"the list of this account's runs, {path}, cannot be read or written: {error} (XDG_STATE_HOME says where it is)"
    )
