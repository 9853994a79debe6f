"""Bringing what is on the disk under another key: the folder of a run, a ledger, a journal or an identity.

To seal what was plain, to change the key, and to go on where either was interrupted is one operation. It looks at each
file in turn and leaves alone what is there already; a file is the old one or the new one, and a database is changed in
one transaction. So it can be killed at any moment, and done again. Until it is through, a run is partly what it was,
and every other command refuses it.

Plain bytes that were replaced or deleted may still be on the disk, in its spare blocks, in snapshots and in backups.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from dp.ledger.file import is_ledger, is_sealed_ledger
from dp.ledger.file import reseal as reseal_ledger
from protocols.journal import SqliteJournal
from protocols.roster import IDENTITY, Identity
from recsys.report import FILE as REPORT
from recsys.run_record import CONFIG, FILE, LEDGERS, MODEL
from recsys.run_start import PRIVATE, SEALED_AS
from secagg.at_rest import Folder, Keyring, files_in, is_sealed, sealed_as
from secagg.crypto.keys import KEY_BYTES
from secagg.errors import SealedError, StorageError, UnsealedError, UsageError
from secagg.files import alone, private_folder, reading, sweep, synced, write_file

_SQLITE = b"SQLite format 3\0"


@dataclass(frozen=True, slots=True)
class Resealed:
    """What was done."""

    changed: tuple[Path, ...]
    """these are as was asked for now, and were not"""
    removed: tuple[Path, ...] = ()
    """reports, which can be drawn again"""
    mixed: tuple[Path, ...] = ()
    """of what was changed: files of a run that were plain beside sealed ones, as an interruption leaves them, or
    somebody who has put them there"""
    left: tuple[Path, ...] = ()
    """files in a run's folder that are not the run's, or are for everybody"""


def reseal(path: str | Path, opening: Keyring, sealing: Keyring | None) -> Resealed:
    """Bring all that is at ``path`` under the newest key of ``sealing``; make it plain, if that is None.

    ``opening`` opens what is sealed. ``UsageError`` for what is none of the things that can be sealed.
    """
    path = Path(path)
    if path.is_symlink():
        raise UsageError(f"{path} is a link: say what it leads to")
    if path.is_dir():
        return _of_run(path, opening, sealing)
    if not path.is_file():
        raise UsageError(f"there is no file or folder at {path}")
    start = _start(path)
    if start.startswith(_SQLITE):
        if is_ledger(path):
            done = [path] if reseal_ledger(path, opening, sealing) else []
            secret = path.with_suffix(".key")
            if secret.is_file() and (_size(secret) == KEY_BYTES or sealed_as(_start(secret)) == SEALED_AS):
                done += [secret] if _of_file(secret, SEALED_AS, opening, sealing) else []
            return Resealed(tuple(done))
        return Resealed((path,) if _of_journal(path, opening, sealing) else ())
    if sealed_as(start) != IDENTITY:
        Identity.load(path)  # or it is refused
    return Resealed((path,) if _of_file(path, IDENTITY, opening, sealing) else ())


def _of_run(path: Path, opening: Keyring, sealing: Keyring | None) -> Resealed:
    if not (path / CONFIG).is_file() and not (path / FILE).is_file():
        raise UsageError(f"{path} is no run: it has neither {CONFIG} nor {FILE}")
    before, after, changed, removed = Folder(path, opening), Folder(path, sealing), list[Path](), list[Path]()
    plain = list[Path]()
    with alone(path):
        if (private := path / PRIVATE).is_symlink() or private.exists():
            private_folder(private)
            sweep(private)
        sweep(path)
        names = [name for name in (CONFIG, FILE, MODEL) if before.exists(name)]
        own = [(before, after, name) for name in names]
        if private.exists():
            inner = before.within(PRIVATE), after.within(PRIVATE)
            own += [(*inner, one.name) for one in files_in(private) if one.parent == private]
        ledgers = [path / name for name in LEDGERS if before.exists(name)]
        for ledger in ledgers:
            _start(ledger)  # a link is refused: it leads to a ledger that is not this run's
        plain += [opens / name for opens, _, name in own if not is_sealed(_start(opens / name))]
        plain += [ledger for ledger in ledgers if not is_sealed_ledger(ledger)]
        for opens, seals, name in own:
            if _of_one(opens, seals, name):
                changed.append(seals / name)
        changed += [ledger for ledger in ledgers if reseal_ledger(ledger, opening, sealing)]
        if sealing is not None and (report := path / REPORT).is_file():
            report.unlink()
            synced(path)
            removed.append(report)
    known = {path / name for name in (CONFIG, FILE, MODEL, *LEDGERS)}
    left = [one for one in files_in(path) if one not in known and one.parent != private]
    mixed = plain if sealing is not None and len(plain) < len(own) + len(ledgers) else []
    return Resealed(tuple(changed), tuple(removed), tuple(mixed), tuple(left))


def _of_one(before: Folder, after: Folder, name: str) -> bool:
    """One file of a run; False if nothing is to be done."""
    start = _start(before / name)
    if after.keys is not None and after.keys.under_newest(start):
        before.read(name)  # whatever is wrong with it is said now
        return False
    try:
        data = before.read(name)
    except UnsealedError:  # that is: plain, and not a sealed file that was altered
        if after.keys is None:
            return False
        data = Folder(before.path).read(name)
    after.write(name, data, private=not (before / name).stat().st_mode & 0o004)  # never open to more than before
    return True


def _of_file(path: Path, what: str, opening: Keyring, sealing: Keyring | None) -> bool:
    """A private file that is in no run's folder."""
    with reading(path, private=True) as (file, _):
        data = file.read()
    if sealing.under_newest(data) if sealing is not None else not is_sealed(data):
        if sealing is not None:
            opening.open(data, what)
        return False
    try:
        data = opening.open(data, what)
    except UnsealedError:
        if sealing is None:
            raise
    write_file(path, data if sealing is None else sealing.seal(data, what), private=True)
    return True


def _of_journal(path: Path, opening: Keyring, sealing: Keyring | None) -> bool:
    try:
        journal = SqliteJournal(path)
    except SealedError:
        journal = SqliteJournal(path, keys=opening)
    with closing(journal):
        return journal.reseal(opening, sealing)


def _start(path: Path) -> bytes:
    try:
        with reading(path) as (file, _):
            return file.read(1 << 11)
    except FileNotFoundError:
        raise StorageError(f"{path} is gone") from None


def _size(path: Path) -> int:
    return path.stat().st_size
