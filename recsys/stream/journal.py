"""What a client remembers of its stream: one SQLite file, in which all of it moves together.

    positions   how far each part of the source was read
    events      those that wait for a sum, those that are in one, and those that were, until nothing needs them
    sums        which was given events at which moment, and of which clients they came out
    counts      how many events were taken in, or refused and why

An event waits, then it is in sum N (``begin``). When the sum is out (``out``), it is done if its client is in the sum,
and waits again if not. ``begin`` is called before anything is computed, so what a client says of sum N follows from
events that no other sum gets as new. Whoever says it keeps what it said (``recsys.pending_sum``,
``protocols.journal``): a restart asks there first, and computes only if nothing has left. While a sum is open nothing
is taken in, so that this is from the same events.

Of each user those events count that are not older than R seconds, and of these the newest, up to the cap. So what a
user's part of a sum is made from is a function of that user's events within R seconds before the sum, and of where
sums before it ended. No event that is older, and nobody else's, has a say in it: a cap that counted who was let in
before would hand the influence of one event on from window to window.

One process has the file at a time. Every transaction is synced to SQLite's write-ahead log beside the file (``-wal``),
which is emptied into it now and then. What is deleted is overwritten in the file; in the log it stays until that is
written over, or deleted with the last process that closes the journal in peace.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recsys.stream.events import Position
from secagg.errors import StorageError, UsageError
from secagg.files import hold_private

VERSION = 1
TAKEN, EXPIRED, OVER = "taken in", "grown too old for any sum while it waited", "over the cap while it waited"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a journal keeps, in whole seconds of event time and in numbers of events.

    replay, cap: of a user the newest ``cap`` events of the last ``replay`` seconds (R) are in a sum, as new ones or
    replayed. Those beyond the cap are dropped.
    ahead: an event that says a moment so little in the future is one of now; one further ahead is refused. A recorded
    stream has no pause that is longer.
    room: while so many events are kept, of all users together, nothing is read. Batches that were begun are finished.
    """

    replay: int
    cap: int
    ahead: int = 86400
    room: int = 1_000_000

    def __post_init__(self) -> None:
        if min(self.replay, self.cap, self.room) < 1 or self.ahead < 0:
            raise UsageError("a stream's replay, cap and room are at least 1, ahead is not below 0")


@dataclass(frozen=True, slots=True)
class Taken:
    """An event that is taken in. ``item`` is its number in the catalogue, ``client`` that of who has the user."""

    user: str
    item: int
    time: int
    client: int
    part: str
    at: Position


@dataclass(frozen=True, slots=True)
class Kept:
    """An event of a user who has a new one in a sum. ``new``: whether this is one, or is replayed."""

    client: int
    user: str
    item: int
    time: int
    new: bool


class StreamJournal:
    """Whoever opens it closes it. ``about`` says what the numbers in it mean: which items, which clients, say. A file
    with other limits, or about something else, is refused.

    >>> from tempfile import TemporaryDirectory
    >>> folder = TemporaryDirectory()
    >>> journal = StreamJournal(Path(folder.name) / "stream.db", Limits(replay=60, cap=5), about="doctest")
    >>> one = Taken("ann", 3, time=10, client=0, part="a", at=Position(0))
    >>> journal.take_in([one], {"a": Position(1)}, {})
    >>> journal.begin(0, moment=20)
    >>> [(event.user, event.item, event.new) for event in journal.events(0)]
    [('ann', 3, True)]
    >>> journal.acknowledged()["a"].offset, journal.out(0, {0}), journal.acknowledged()["a"].offset
    (0, None, 1)
    >>> journal.close(), folder.cleanup()
    (None, None)
    """

    def __init__(self, path: str | Path, limits: Limits, *, about: str) -> None:
        self._limits = limits
        said = json.dumps({"about": about, **asdict(limits)}, sort_keys=True)
        with ExitStack() as undo:
            try:
                hold_private(Path(path))
                self._db = sqlite3.connect(Path(path).absolute(), isolation_level=None, timeout=0)
                undo.callback(self.close)
                self._db.executescript(_PRAGMAS)
                with self._transaction():
                    self._find_tables(path, said)
            except (OSError, sqlite3.Error, StorageError) as error:
                raise StorageError(f"cannot open the stream's journal {path}: {error}") from None
            undo.pop_all()

    def _find_tables(self, path: str | Path, said: str) -> None:
        [(version,)], [(tables,)] = self._read("PRAGMA user_version"), self._read("SELECT count(*) FROM sqlite_master")
        if (version, tables) == (0, 0):
            for statement in _SCHEMA:
                self._db.execute(statement)
            self._db.execute("INSERT INTO about VALUES (?)", (said,))
            self._db.execute(f"PRAGMA user_version = {VERSION}")
        elif version != VERSION:
            raise UsageError(f"{path} is not a stream's journal of this version of secagg")
        elif self._read("SELECT said FROM about") != [(said,)]:
            raise UsageError(f"{path} is the journal of another stream, of other items, clients or limits")

    # Taking in

    def positions(self) -> dict[str, Position]:
        """Where to go on reading each part of the source."""
        rows = self._read("SELECT part, offset, generation, mark FROM positions")
        return {part: Position(*rest) for part, *rest in rows}

    def counts(self) -> dict[str, int]:
        """How many events were taken in, and how many were not, by why."""
        return dict(self._read("SELECT what, count FROM counts ORDER BY what"))

    def room(self) -> int:
        """How many more events may be taken in now: none while a sum is open."""
        [(kept,)] = self._read("SELECT count FROM kept")
        return 0 if self.sums()[1] else max(0, self._limits.room - int(kept))

    def take_in(self, events: Sequence[Taken], positions: Mapping[str, Position], refused: Mapping[str, int]) -> None:
        """Keep events, and that their parts were read up to these positions; ``refused`` is how many were not kept,
        by why. A position that is not further than before is refused: those events were taken in already."""
        rows = [
            (one.client, one.user, one.item, one.time, one.part, one.at.generation, one.at.offset) for one in events
        ]
        with self._transaction():
            if self.sums()[1]:
                raise StorageError("a sum is open, and made from what was taken in before it")
            before = self.positions()
            for part, position in positions.items():
                if part in before and position.order < before[part].order:
                    raise StorageError(f"{part} was read further than that already")
            for one in events:
                if one.part not in positions or not one.at.order < positions[one.part].order:
                    raise UsageError("an event lies before the position up to which its part was read")
                if one.part in before and one.at.order < before[one.part].order:
                    raise StorageError(f"an event of {one.part} was taken in already")
            self._db.executemany(_INSERT, rows)
            self._db.executemany(
                "INSERT OR REPLACE INTO positions VALUES (?, ?, ?, ?)",
                [(part, one.offset, one.generation, one.mark) for part, one in positions.items()],
            )
            self._db.execute("UPDATE kept SET count = count + ?", (len(rows),))
            beyond = self._read(_BEYOND, json.dumps(sorted({one.user for one in events})), self._limits.cap)
            self._db.executemany("DELETE FROM events WHERE number = ?", [(number,) for number, _ in beyond])
            self._db.execute("UPDATE kept SET count = count - ?", (len(beyond),))
            self._count({TAKEN: len(rows), OVER: sum(waits for _, waits in beyond), **refused})

    # Sums

    def begin(self, number: int, moment: int) -> None:
        """Give all events that wait to a sum; before that, drop what is too old. Sums are numbered upwards, at moments
        that do not go back, and one is open at a time. Of a sum that was begun nothing changes."""
        oldest = moment - self._limits.replay
        with self._transaction():
            if (known := self._sum(number)) is not None:
                if known[0] != moment:
                    raise StorageError(f"sum {number} was begun at another moment")
                return
            last = self._read("SELECT number, moment, clients FROM sums ORDER BY number DESC LIMIT 1")
            if last and (number < last[0][0] or moment < last[0][1] or last[0][2] is None):
                raise StorageError(f"sum {number} is not next: sum {last[0][0]} is open, or later")
            expired = self._deleted("done = 0 AND time <= ?", oldest)
            self._deleted("done = 1 AND time <= ?", oldest)
            self._count({EXPIRED: expired})
            self._db.execute("UPDATE events SET sum = ? WHERE done = 0", (number,))
            self._db.execute("INSERT INTO sums VALUES (?, ?, NULL)", (number, moment))

    def events(self, number: int) -> Iterator[Kept]:
        """All events from which a sum is computed: the new ones, and those of the same users that are replayed; by
        client and user, in order of time."""
        if self._sum(number) is None:
            raise UsageError(f"sum {number} was not begun")
        try:
            for client, user, item, time, new in self._db.execute(_EVENTS, (number,)):
                yield Kept(client, user, item, time, bool(new))
        except sqlite3.Error as error:
            raise StorageError(f"the stream's journal cannot be read: {error}") from None

    def out(self, number: int, clients: Collection[int]) -> None:
        """A sum is out, with these clients in it: their events are done, those of all others wait again. Said again, it
        has to be the same."""
        said = json.dumps(sorted(clients))
        with self._transaction():
            if (known := self._sum(number)) is None:
                raise UsageError(f"sum {number} was not begun")
            if known[1] is not None:
                if known[1] != said:
                    raise StorageError(f"sum {number} came out otherwise before")
                return
            self._db.execute(_DONE, (number, said))
            self._db.execute("UPDATE sums SET clients = ? WHERE number = ?", (said, number))

    def sums(self) -> tuple[int, bool]:
        """How many sums were begun, and whether the last of them is open."""
        rows = self._read("SELECT number, clients IS NULL FROM sums ORDER BY number DESC LIMIT 1")
        return (rows[0][0] + 1, bool(rows[0][1])) if rows else (0, False)

    def acknowledged(self) -> dict[str, Position]:
        """Of each part the place before which no event waits or is in a sum that is not out."""
        found = self.positions()
        for part in found:
            rows = self._read(_FIRST_OPEN, part)
            if rows:
                generation, offset = rows[0]
                found[part] = Position(offset, generation)
        return found

    def _sum(self, number: int) -> tuple[int, str | None] | None:
        rows = self._read("SELECT moment, clients FROM sums WHERE number = ?", number)
        return rows[0] if rows else None

    def _count(self, counts: Mapping[str, int]) -> None:
        self._db.executemany(_COUNT, [(what, count) for what, count in counts.items() if count])

    def _deleted(self, where: str, *values: int) -> int:
        gone = self._db.execute(f"DELETE FROM events WHERE {where}", values).rowcount  # noqa: S608  # two constants
        self._db.execute("UPDATE kept SET count = count - ?", (gone,))
        return gone

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise StorageError(f"the stream's journal cannot be written: {error}") from None
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def _read(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise StorageError(f"the stream's journal cannot be read: {error}") from None

    def close(self) -> None:
        self._db.close()


_PRAGMAS = """
PRAGMA locking_mode = EXCLUSIVE;
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA secure_delete = ON;
PRAGMA cache_size = -16384;
"""
_SCHEMA = (
    "CREATE TABLE about (said TEXT NOT NULL)",
    "CREATE TABLE positions (part TEXT PRIMARY KEY, offset INTEGER NOT NULL, generation INTEGER NOT NULL, "
    "mark TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE events (number INTEGER PRIMARY KEY, client INTEGER NOT NULL, user TEXT NOT NULL, "
    "item INTEGER NOT NULL, time INTEGER NOT NULL, part TEXT NOT NULL, generation INTEGER NOT NULL, "
    "offset INTEGER NOT NULL, sum INTEGER, done INTEGER NOT NULL DEFAULT 0)",
    "CREATE INDEX by_user ON events (user, time)",
    "CREATE INDEX open ON events (part, generation, offset) WHERE done = 0",
    "CREATE INDEX by_time ON events (time) WHERE done = 1",
    "CREATE TABLE sums (number INTEGER PRIMARY KEY, moment INTEGER NOT NULL, clients TEXT)",
    "CREATE TABLE counts (what TEXT PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE kept (count INTEGER NOT NULL)",
    "INSERT INTO kept VALUES (0)",
)
_INSERT = "INSERT INTO events (client, user, item, time, part, generation, offset) VALUES (?, ?, ?, ?, ?, ?, ?)"
_COUNT = "INSERT INTO counts VALUES (?1, ?2) ON CONFLICT (what) DO UPDATE SET count = count + ?2"
_BEYOND = """
SELECT number, done = 0 FROM (
    SELECT number, done, row_number() OVER (PARTITION BY user ORDER BY time DESC, number DESC) AS place
    FROM events WHERE user IN (SELECT value FROM json_each(?))
) WHERE place > ?
"""
_EVENTS = """
SELECT client, user, item, time, sum = ?1 AND done = 0 FROM events
WHERE user IN (SELECT user FROM events WHERE sum = ?1 AND done = 0)
ORDER BY client, user, time, number
"""
_DONE = """
UPDATE events SET done = 1 WHERE sum = ?1 AND client IN (SELECT value FROM json_each(?2))
"""
_FIRST_OPEN = """
SELECT generation, offset FROM events WHERE part = ? AND done = 0 ORDER BY generation, offset LIMIT 1
"""
