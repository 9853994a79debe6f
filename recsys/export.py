"""What of a run's directory can be handed on, packed into one file.

Only files whose names stand here are packed, so whatever else lies in the directory stays: what is private above all.
The archive is a plain tar with nothing in it but bytes and names: no owner, no time, no link, so the same files make
the same archive, on every machine.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from dp.ledger.file import plain_copy, read
from recsys.report import FILE as REPORT
from recsys.run_record import CONFIG, FILE, LEDGER, LEDGERS, LOCAL_LEDGER, MODEL, PUBLIC_KEY, Run, as_kept
from secagg.at_rest import AnyFolder, Folder
from secagg.errors import AlteredError, StorageError, UsageError
from secagg.files import reading, writing
from secagg.names import check_name

SHARED = (CONFIG, LEDGER, PUBLIC_KEY, LOCAL_LEDGER, FILE, REPORT)
"""And the model, where it is asked for."""

_LOGS = ("-wal", "-journal")
"""What SQLite keeps beside a file that is being written."""


def export(folder: AnyFolder, out: str | Path, *, model: bool) -> list[str]:
    """Pack the run in ``folder`` into the new file ``out``, and tell which files that were. Nothing is replaced.

    Of a run that is sealed the archive has the files as they are read: it is for others, who have no key.
    """
    folder, out = Folder.of(folder), Path(out)
    run = Run.load(folder)
    run.check_kept(folder)
    name = check_name("the name of a run's directory", folder.path.resolve().name)
    check_ended(folder, run)
    if folder.exists(CONFIG) and folder.read(CONFIG) != as_kept(run.config):
        raise AlteredError(f"{folder / CONFIG} was altered: {FILE} says that something else was asked for")
    wanted = [*SHARED, MODEL] if model else list(SHARED)
    try:
        with writing(out, private=False, replace=False) as file, tarfile.open(fileobj=file, mode="w") as tar:
            return list(_packed(tar, folder, name, wanted))
    except FileExistsError:
        raise UsageError(f"{out} exists already") from None


def _packed(tar: tarfile.TarFile, folder: Folder, name: str, wanted: list[str]) -> Iterator[str]:
    for one in sorted(wanted):
        path = folder / one
        try:
            with reading(path) as (file, status):
                if status.st_nlink != 1:  # it may be a secret, under another name
                    raise StorageError(f"{path} is not packed: the file has another name, too")
                entry = tarfile.TarInfo(f"{name}/{one}")
                plain = file if folder.keys is None or one == PUBLIC_KEY else BytesIO(_unsealed(folder, one))
                entry.size, entry.mode = status.st_size, 0o644
                if isinstance(plain, BytesIO):
                    entry.size = len(plain.getbuffer())
                tar.addfile(entry, plain)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise StorageError(f"cannot pack {path}: {error}") from None
        yield one


def _unsealed(folder: Folder, name: str) -> bytes:
    return plain_copy(read(folder / name, folder.keys)) if name in LEDGERS else folder.read(name)


def check_ended(folder: AnyFolder, run: Run) -> None:
    """``UsageError`` if a run goes on, or its ledgers are not whole."""
    folder = Folder.of(folder)
    if not run.ended:
        raise UsageError(f"the run in {folder} has not ended: its ledger is still being written")
    for ledger in (LEDGER, LOCAL_LEDGER):
        for log in _LOGS:
            if (path := folder / f"{ledger}{log}").exists() and path.stat().st_size:
                raise UsageError(f"{folder / ledger} is being written, or was left by a crash: verify it first")
