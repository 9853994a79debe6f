"""The ledger of one privacy budget: a file that is charged before anything is released.

    check    a plan whose worst case the budget does not allow is refused
    reserve  the worst case, before the first message that the release can come out of
    commit   what really happened, before the release
    abort    nothing was released: the reservation is given back

What returns is on the disk; a crash leaves a reservation standing, so it may over-count by a release and never
under-counts. Every call may be made again with the same facts, after a restart or not: it changes nothing then.

One SQLite file that is the whole ledger whenever nothing is being written: entries, which are only added, and one
signature of how many there are and of the root of the tree over them (``dp.ledger.heads``), which is overwritten with
each entry. So all of it is signed, and no part of it that ends earlier. SQLite's rollback journal beside it is what
undoes an entry that was not finished: it is synced first, then the file, and then it is made void, before an entry
counts as written. The file is locked to one process at a time. A ledger that is ``shared`` is locked for each entry
instead: its writer reads what others have written and prepares, signs and writes its own entry in one transaction.

With a keyring each entry and the signature are sealed at rest (``secagg.at_rest``), row by row, and each is bound to
its number. ``reseal`` seals a ledger that is plain, brings a sealed one under another key, or makes it plain again.

An older copy that comes back is whole in itself: only somebody who remembers a ``head`` can tell. A client that keeps
its own budget does so in a ledger of its own, with its own key.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from stat import S_ISREG
from typing import Any, Self

from dp.arrivals import Arrivals
from dp.events import Event, Guarantee
from dp.filter import RESOLUTION, Budget, Kind, PrivacyCost
from dp.ledger.entries import Chargeable, Steps, name_of, parse, unsigned, worst
from dp.ledger.heads import SignedHead
from dp.ledger.state import Genesis, LedgerState, PreparedEntry, Row, replay, taken
from dp.secure_sum import SecureSum
from dp.turns import Turns
from dp.window_filter import WindowFilter
from dp.windows import Window
from secagg.at_rest import Keyring, is_sealed, open_if_sealed
from secagg.crypto.keys import SigningKey
from secagg.errors import BudgetError, PeerError, SecAggError, StorageError, UsageError
from secagg.files import creating

FILE = "ledger.db"
"""The name of a run's ledger in its directory."""

_SCHEMA = (
    "CREATE TABLE entries (number INTEGER PRIMARY KEY, body BLOB NOT NULL)",
    "CREATE TABLE head (place INTEGER PRIMARY KEY CHECK (place = 0), signature BLOB NOT NULL)",
    "CREATE TRIGGER no_update BEFORE UPDATE ON entries BEGIN SELECT RAISE(ABORT, 'append-only'); END",
    "CREATE TRIGGER no_delete BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'append-only'); END",
)
_INSERT = "INSERT INTO entries VALUES (?, ?)"
_SIGN = "INSERT OR REPLACE INTO head VALUES (0, ?)"
_SINCE = """
SELECT number, body, iif(number = (SELECT max(number) FROM entries), (SELECT signature FROM head), x'')
FROM entries WHERE number >= ? ORDER BY number
"""
"""Selects entries with their numbers, all from one state of the file; the last one with the signature of the head."""
_PATIENCE, _READERS_PATIENCE = 60.0, 2.0
"""Seconds to wait while others write an entry: before writing one, and before reading."""

_INTERRUPTED = (
    "an entry of the ledger was interrupted while it was written: its owner opens it with the key, which undoes that"
)
_OUTSIDE = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
}
"""SQLite's errors that are not about what the file holds."""


class Ledger:
    """The open ledger of one budget. ``create`` makes a new one, ``open`` goes on with one that is there.

    >>> import tempfile
    >>> from fractions import Fraction
    >>> from dp.events import Gaussian, PoissonSample, Relation, Release, Trust, Unit
    >>> example = Guarantee(Unit.EXAMPLE, Relation.ZERO_OUT, Trust.LOCAL)
    >>> step = Release(Gaussian(Fraction(1)), PoissonSample(Fraction(1, 100)), example)
    >>> budget = Budget.suited(step, Fraction(2), Fraction(1, 10**5), slack=Fraction(0))
    >>> key = SigningKey(bytes(32))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     ledger = Ledger.create(f"{folder}/ledger.db", key, budget, example, run="training", elsewhere="the rest")
    ...     ledger.charge(step, 100)
    ...     head = ledger.head
    ...     ledger.close()
    ...     again = Ledger.open(f"{folder}/ledger.db", key, pinned=head)
    ...     print(round(again.epsilon, 2))
    ...     again.close()
    1.3
    """

    def __init__(
        self,
        path: Path,
        key: SigningKey,
        database: sqlite3.Connection,
        state: LedgerState,
        shared: bool,
        held: ExitStack,
        keys: Keyring | None,
        version: int,
    ) -> None:
        """Not for callers: ``create`` or ``open``."""
        self.path, self._held, self._keys = path, held, keys
        self._key, self._db, self._known, self._shared, self._sound = key, database, state, shared, True
        self._process, self._version = os.getpid(), version

    @classmethod
    def create(
        cls,
        path: str | Path,
        key: SigningKey,
        budget: Budget,
        guarantee: Guarantee,
        *,
        run: str,
        elsewhere: str,
        data: bytes = b"",
        turns: Turns | None = None,
        arrivals: Arrivals | None = None,
        window: Window | None = None,
        shared: bool = False,
        keys: Keyring | None = None,
    ) -> Self:
        """A new ledger. An existing file is refused: what it holds would be forgotten.

        ``elsewhere`` says what this budget does not cover, ``data`` whose data it is about (``data_mark``). With
        ``turns`` each client has the whole budget, and is charged for the sums whose turn it is; with ``arrivals`` for
        those that name it; with ``window`` each window has. After a crash there is a whole ledger or none.
        """
        genesis = Genesis(run, elsewhere, guarantee, budget, key.public, data, turns, arrivals, window)
        path, state = Path(path), LedgerState(genesis)
        try:
            with creating(path) as draft, closing(_connected(draft, "rw")) as database, _errors():
                database.execute("BEGIN IMMEDIATE")
                for statement in _SCHEMA:
                    database.execute(statement)
                database.execute(_INSERT, (0, _kept(state.genesis.body(), keys, 0)))
                database.execute(_SIGN, (_kept(state.signed_by(key).signature, keys, None),))
                database.execute("COMMIT")
        except FileExistsError:
            raise UsageError(f"there is a ledger at {path} already") from None
        return cls.open(path, key, shared=shared, keys=keys)

    @classmethod
    def open(
        cls,
        path: str | Path,
        key: SigningKey,
        *,
        pinned: bytes | None = None,
        shared: bool = False,
        keys: Keyring | None = None,
    ) -> Self:
        """Go on with a ledger. ``pinned`` is a head seen earlier: a file that does not contain it is refused.

        With ``shared``, others who have its key may write at the same time. Otherwise they are locked out until
        ``close``.
        """
        path = Path(path)
        with ExitStack() as held:
            held.enter_context(_whole(path))
            database = held.enter_context(closing(_connected(path, "rw", _PATIENCE if shared else 0)))
            with _errors():
                for setting in _SHARED if shared else _ALONE:
                    database.execute(setting)
            version = _version(database)  # before anything is read: others may seal what they share at any moment
            state = replay(_rows(database, keys), key.public, pinned)
            return cls(path, key, database, state, shared, held.pop_all(), keys, version)

    @property
    def head(self) -> bytes:
        """The root over all entries. Whoever remembers it can tell whether an older ledger comes back."""
        return self._state.head

    @property
    def signed_head(self) -> SignedHead:
        """The head as this ledger's owner signs it for others."""
        self._check_sound()
        return self._state.signed_by(self._key)

    def check_head(self, head: SignedHead) -> None:
        """Raise ``PeerError`` unless this is a head that this ledger has, or once had."""
        self._check_sound()
        self._state.check_head(head)

    @property
    def owner(self) -> bytes:
        """The public key that signs its heads."""
        return self._known.genesis.owner

    @property
    def guarantee(self) -> Guarantee:
        return self._known.genesis.guarantee

    @property
    def budget(self) -> Budget:
        return self._known.genesis.budget

    @property
    def data(self) -> bytes:
        """The mark of the data that the budget is about (``data_mark``)."""
        return self._known.genesis.data

    @property
    def turns(self) -> Turns | None:
        """Who takes turns, if clients do."""
        return self._known.genesis.turns

    @property
    def of_each(self) -> Turns | Arrivals | None:
        """What says who is charged for a sum, where the budget is that of each client."""
        return self._known.genesis.of_each

    @property
    def window(self) -> Window | None:
        """What the unit is, if it is the events of one person within a window."""
        return self._known.genesis.window

    @property
    def shared(self) -> bool:
        """Whether others may write to it at the same time."""
        return self._shared

    @property
    def epsilon(self) -> float:
        """What all that is committed or reserved comes to, at the budget's delta. Where each client is charged
        for its own sums: for the client that it is most for; of windows: for the one that it is most for, whenever
        that was."""
        return _shown(self._state.filter.reached)

    def epsilon_at(self, time: int) -> float:
        """What of it still counts at that second, where the budget is for windows. It is not before the latest
        release."""
        return _shown(self._windows.reached_at(time))

    def room_at(self, cost: PrivacyCost, time: int) -> int:
        """The first second, from ``time`` on, at which so much may be reserved, where the budget is for windows;
        ``BudgetError`` if it is dearer than all of the budget."""
        return self._windows.room_at(cost, time)

    @property
    def _windows(self) -> WindowFilter:
        if not isinstance(found := self._state.filter, WindowFilter):
            raise UsageError("this budget is not for windows: what is spent does not come back")
        return found

    @property
    def spent(self) -> PrivacyCost:
        """The cost of all that is committed. Where each client is charged for its own sums: the most of any; of
        windows: of what is charged to one with the latest release."""
        return self._state.filter.spent

    def entries(self) -> Iterator[dict[str, Any]]:
        """All entries from the first on."""
        self._check_sound()
        return (parse(body) for body, _signature in _rows(self._db, self._keys))

    def contains(self, head: bytes) -> bool:
        """Whether ``head`` was once this ledger's head."""
        self._check_sound()
        return head in self._state.heads

    def reserved_by(self, head: bytes, what: Chargeable) -> bool:
        """Whether this release was reserved when ``head`` was this ledger's head."""
        self._check_sound()
        heads, name = self._state.heads, name_of(what)
        known = zip(heads[: heads.index(head) + 1] if head in heads else (), self.entries(), strict=False)
        return any(entry["phase"] == "reserve" and entry["release"] == name for _head, entry in known)

    def knows(self, what: Chargeable) -> bool:
        """Whether this release is reserved or committed: its cost is counted, and would not be a second time."""
        self._check_sound()
        return name_of(what) in self._state.records

    def sum_of(self, session: bytes, round_: int) -> SecureSum | None:
        """What is reserved for the sum of this round of a session, if any is."""
        self._check_sound()
        return self._state.sum_of(session, round_)

    def number_taken(self, what: Chargeable) -> bool:
        """Whether clients take turns, and the number of this sum is on record under another plan."""
        self._check_sound()
        return self._state.number_taken(what)

    def committed(self, what: Chargeable) -> bool:
        """Whether this release took place, as far as a ledger can tell: it was paid for, and may be known."""
        self._check_sound()
        record = self._state.records.get(name_of(what))
        if record is None or record.happened is None:
            return False
        return not isinstance(what, Steps) or what.count <= taken(record)

    def check(self, what: Chargeable) -> None:
        """Raise ``BudgetError`` unless ``reserve`` would be allowed."""
        self._check_sound()
        _reservation(self._state, what)

    def check_cost(self, cost: PrivacyCost) -> None:
        """Raise ``BudgetError`` unless so much more may be reserved, whatever it is for; where each client is
        charged for its own sums, for every one of them; of windows: at the time of the latest release."""
        self._check_sound()
        self._state.filter.reserve("what is asked for", cost)

    def reserve(self, what: Chargeable) -> None:
        """Set the worst case aside."""
        self._append(lambda state: _reservation(state, what))

    def commit(self, what: Chargeable) -> None:
        """Say what happened to what was reserved. A release happens once: another set of survivors is refused.

        Of a schedule it is said how many of its steps are taken by now, again and again, and never more than all.
        """
        self._append(lambda state: _commitment(state, what))

    def abort(self, what: Chargeable, reason: str) -> None:
        """Give back what was reserved, if anything. Only if nothing was released, and nothing can be any more."""
        name = name_of(what)
        self._append(lambda state: state.abort(name, reason) if name in state.records else None)

    def charge(self, event: Event, count: int = 1, samples: int = 0, time: int | None = None) -> None:
        """Reserve and commit at once: for steps that are taken in any case. Charged anew with every call. ``time``:
        where the budget is for windows.

        Under a budget for a schedule these are further steps of the one that is reserved, which costs nothing more;
        beyond its last step, and without a schedule, they are refused.
        """
        if self.budget.kind is Kind.SCHEDULE:
            self._append(lambda state: state.further(event, count))
            return
        steps = Steps(f"steps/{os.urandom(16).hex()}", event, count, samples, time)
        self.reserve(steps)
        self.commit(steps)

    def close(self) -> None:
        """Let others write; what is asked of it from now on is refused. Nothing is left beside the file."""
        self._sound = False
        if os.getpid() == self._process:  # the journal may be in use, and a fork has no lock
            with suppress(sqlite3.Error):  # others are at work: the last of them sees to it
                for setting in _TIDY:
                    self._db.execute(setting)
        self._held.close()

    @property
    def _state(self) -> LedgerState:
        """The state with all that is in the file; of a ledger that is closed or broken, the last state known."""
        if self._sound:
            self._catch_up()
        return self._known

    def _catch_up(self) -> None:
        """Read what others have written into a shared ledger."""
        if self._shared:
            before, self._sound = self._sound, False  # it stays unsound if one of their entries is wrong
            with _errors():
                rows = _since(self._db, len(self._known.heads), self._keys)
            if rows:
                self._known.read_all(rows)
            self._sound = before

    def _check_sound(self) -> None:
        if os.getpid() != self._process:  # a fork inherits what was read, and not the lock
            raise StorageError("the ledger was opened by another process: open it in this one")
        if not self._sound:
            raise StorageError("the ledger is closed, or could not be written: open it again to see what it holds")

    def _append(self, prepare: Callable[[LedgerState], PreparedEntry | None]) -> None:
        """Write the entry that ``prepare`` returns, if it returns one: all of it is on the disk then, or nothing.

        Nobody else writes between its preparation and that. What fails half-way is undone when the file is closed.
        """
        self._check_sound()
        self._sound = False  # until it is known what is on the disk
        with _errors():
            self._db.execute("BEGIN IMMEDIATE")
            if _version(self._db) != self._version:
                raise StorageError("the ledger was sealed, or made plain, meanwhile: open it again")
            self._catch_up()
            try:
                entry = prepare(self._known)
            except SecAggError:  # a refusal
                self._db.execute("ROLLBACK")
                self._sound = True
                raise
            if entry is not None:
                number, signature = len(self._known.heads), self._known.signed_by(self._key, entry).signature
                self._db.execute(_INSERT, (number, _kept(entry.body, self._keys, number)))
                self._db.execute(_SIGN, (_kept(signature, self._keys, None),))
            self._db.execute("COMMIT")
        if entry is not None:
            self._known.apply(entry)
        self._sound = True


def _shown(reached: int | None) -> float:
    return float("inf") if reached is None else reached / RESOLUTION


def _reservation(state: LedgerState, what: Chargeable) -> PreparedEntry | None:
    """The entry that reserves ``what``, or None if it is reserved. Other facts under the same name are refused."""
    record = state.records.get(name_of(what))
    if record is None:
        return state.reserve(what)
    if record.reserved != worst(state.named(what)):
        raise BudgetError(f"release {name_of(what)} was reserved with other facts")
    return None


def _commitment(state: LedgerState, what: Chargeable) -> PreparedEntry | None:
    """The entry that commits ``what``, or None if it is committed. Other facts under the same name are refused."""
    record = state.records.get(name_of(what))
    if record is None or record.happened is None:
        return state.commit(what)
    if state.genesis.budget.kind is Kind.SCHEDULE:
        planned = record.reserved
        if not (isinstance(what, Steps) and isinstance(planned, Steps) and what.count <= taken(record)):
            return state.commit(what)
        return None if what == replace(planned, count=what.count) else state.commit(what)
    if unsigned(record.happened) != unsigned(what):
        raise BudgetError(f"release {name_of(what)} was committed with other facts")
    return None


def read(path: str | Path, keys: Keyring | None = None) -> list[Row]:
    """Body and signature of each entry in a file that nobody is writing to. Nothing is written, there or beside it."""
    path = Path(path)
    with _whole(path), closing(_connected(path, "ro", _READERS_PATIENCE)) as database:
        return _rows(database, keys)


def plain_copy(rows: Sequence[Row]) -> bytes:
    """The file of a plain ledger that has these rows, as ``read`` gives them."""
    with closing(sqlite3.connect(":memory:")) as database, _errors():
        for statement in _SCHEMA:
            database.execute(statement)
        database.executemany(_INSERT, enumerate(body for body, _signature in rows))
        database.execute(_SIGN, (rows[-1][1],))
        database.commit()
        return database.serialize()


def reseal(path: str | Path, opening: Keyring, sealing: Keyring | None) -> bool:
    """Bring all of a ledger under the newest key of ``sealing``, or none; False if it is there already.

    ``opening`` opens what is sealed now. It is one transaction: after a crash, or if anything is wrong with the ledger,
    all of it is as it was. Whoever has it open meanwhile, under other keys, is refused from then on.
    """
    path = Path(path)
    with _whole(path), closing(_connected(path, "rw")) as database, _errors():
        database.execute("BEGIN EXCLUSIVE")
        found = _checked(database)
        kept = [data for _number, *both in found for data in both if data]
        if all(not is_sealed(data) if sealing is None else sealing.under_newest(data) for data in kept):
            return False
        rows = _opened(found, opening if any(map(is_sealed, kept)) else None)
        replay(rows)
        database.execute("DROP TRIGGER no_update")
        database.execute("DROP TRIGGER no_delete")
        for number, (body, _signature) in enumerate(rows):
            database.execute("UPDATE entries SET body = ? WHERE number = ?", (_kept(body, sealing, number), number))
        database.execute(_SIGN, (_kept(rows[-1][1], sealing, None),))
        for statement in _SCHEMA[2:]:
            database.execute(statement)
        database.execute("COMMIT")
    return True


def is_ledger(path: str | Path) -> bool:
    """Whether this is a database with the tables of a ledger. An entry that a crash interrupted is undone."""
    try:
        with _whole(Path(path)), closing(_connected(Path(path), "rw", _READERS_PATIENCE)) as database:
            return _schema(database) == _SCHEMA
    except (PeerError, UsageError):
        return False


def is_sealed_ledger(path: str | Path) -> bool:
    """Whether anything in a ledger is sealed. An entry that a crash interrupted is undone."""
    path = Path(path)
    with _whole(path), closing(_connected(path, "rw")) as database, _errors():
        return any(is_sealed(body) for _number, body, _signature in _checked(database))


_SHARED = ("PRAGMA journal_mode = PERSIST",)
"""Settings of an open ledger: a void journal stays in place between two entries, which spares three syncs of each."""
_ALONE = ("PRAGMA locking_mode = EXCLUSIVE", *_SHARED, "BEGIN EXCLUSIVE", "COMMIT")
_TIDY = ("PRAGMA locking_mode = NORMAL", "PRAGMA journal_mode = DELETE")


def _connected(path: Path, mode: str, patience: float = 0) -> sqlite3.Connection:
    """Open an existing file for writing (``rw``) or reading (``ro``).

    The writer undoes an entry that a crash interrupted; a reader refuses the file.
    """
    with _errors(), ExitStack() as undo:
        where = f"{path.absolute().as_uri()}?mode={mode}"
        database = sqlite3.connect(where, uri=True, isolation_level=None, timeout=patience)
        undo.callback(database.close)
        for setting in ("synchronous = EXTRA", "secure_delete = ON", "trusted_schema = OFF"):
            database.execute(f"PRAGMA {setting}")
        undo.pop_all()
    return database


_open: Counter[tuple[int, int]] = Counter()
"""How often this process has a ledger open, by device and inode."""
_looking = threading.Lock()


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Refuse a file that is no ledger, or of which SQLite would look for a part in a write-ahead log.

    To close a file lifts all of a process's locks on it, whichever of its descriptors they were taken through. So a
    file that is open here is not looked at a second time.
    """
    try:
        with _looking:
            found = path.stat()
            inode = found.st_dev, found.st_ino
            if not S_ISREG(found.st_mode):
                raise PeerError("this is no ledger, and no file")
            if not _open[inode]:
                with path.open("rb") as file:
                    start = file.read(20)
                if start.startswith(b'{"body":'):
                    raise UsageError("this is the export of a ledger, which verify_ledger.py verifies")
                if not start.startswith(b"SQLite format 3\0"):
                    raise PeerError("this is no ledger, or it has been altered")
                if 2 in start[18:20]:
                    raise PeerError("the ledger has a write-ahead log: it is of an older version of this library")
            _open[inode] += 1
    except OSError as error:
        raise StorageError(f"the ledger cannot be read or written: {error.strerror}") from None
    try:
        yield
    finally:
        with _looking:
            _open[inode] -= 1


def _rows(database: sqlite3.Connection, keys: Keyring | None) -> list[Row]:
    with _errors():
        database.execute("BEGIN")
        rows = _opened(_checked(database), keys)
        database.execute("COMMIT")
    return rows


def _schema(database: sqlite3.Connection) -> tuple[str, ...]:
    with _errors():
        return tuple(sql for (sql,) in database.execute("SELECT sql FROM sqlite_master ORDER BY rowid"))


def _version(database: sqlite3.Connection) -> int:
    """A number that changes when a ledger is sealed anew, since its triggers are made again for that."""
    with _errors():
        [(version,)] = database.execute("PRAGMA schema_version")
    return int(version)


_Kept = tuple[int, bytes, bytes]
"""The number of an entry, its body and the signature, as they are in the file."""


def _checked(database: sqlite3.Connection) -> list[_Kept]:
    """All that is in a ledger; ``PeerError`` for a database of another kind, or one that is not whole."""
    if _schema(database) != _SCHEMA or database.execute("PRAGMA integrity_check(1)").fetchall() != [("ok",)]:
        raise PeerError("this is no ledger, or it has been altered")
    return _from(database, 0)


def _since(database: sqlite3.Connection, first: int, keys: Keyring | None) -> list[Row]:
    return _opened(_from(database, first), keys)


def _from(database: sqlite3.Connection, first: int) -> list[_Kept]:
    rows: list[_Kept] = database.execute(_SINCE, (first,)).fetchall()
    if any(
        number != expected or type(body) is not bytes or type(signature) is not bytes
        for expected, (number, body, signature) in enumerate(rows, first)
    ):
        raise PeerError("entries of the ledger are missing")
    return rows


def _opened(rows: Sequence[_Kept], keys: Keyring | None) -> list[Row]:
    return [
        (open_if_sealed(body, keys, _what(number)), signature and open_if_sealed(signature, keys, _what(None)))
        for number, body, signature in rows
    ]


def _what(number: int | None) -> str:
    """What is sealed, in words: an entry by its number, or the signature."""
    return "the signature of a ledger" if number is None else f"entry {number} of a ledger"


def _kept(data: bytes, keys: Keyring | None, number: int | None) -> bytes:
    return data if keys is None else keys.seal(data, _what(number))


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter: of a message that quotes what was altered
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK)
        if code == sqlite3.SQLITE_READONLY_ROLLBACK:
            raise StorageError(_INTERRUPTED) from None
        if code & 0xFF in _OUTSIDE:
            raise StorageError(f"the ledger cannot be read or written: {error}") from None
        raise PeerError(f"this is no ledger, or it has been altered: {error}") from None
