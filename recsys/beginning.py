"""How a run begins: what is refused before anything is written, its secret, and its ledgers.

One data set has one budget. So before a run writes anything it looks for others on the same data (``recsys.others``),
and refuses to begin beside them unless it is told to, or shares their ledger and there is room for all that it plans.
A run that was begun and whose ledger, or whose whole directory, is gone does not begin anew in silence.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from dp.events import Guarantee
from dp.filter import Budget
from dp.ledger import Ledger
from dp.ledger.book import data_mark
from recsys.config import Config, Mode
from recsys.others import Known, Other
from recsys.prepare import Distributed, Locally, Prepared
from recsys.record import FILE, LEDGER, LOCAL_LEDGER, Run, write_whole
from recsys.sentences import SHARED, SHARING, elsewhere, known_others, promised, refusal
from secagg import labels
from secagg.errors import BudgetError, StorageError, UsageError
from secagg.keys import KEY_BYTES, SigningKey, derive

CHECKPOINT = "checkpoint.npz"


@dataclass(frozen=True, slots=True)
class Begun:
    """What a run has when it begins, or goes on."""

    secret: bytes
    ledgers: Mapping[Mode, Ledger]
    others: str
    """what is known of other runs on the same data"""


def begin(prepared: Prepared, folder: Path, before: Run | None, known: Known, held: ExitStack) -> Begun:
    """Refuse what must not begin, before anything is written; then make or find secret and ledgers."""
    config, data = prepared.config, prepared.data
    path = folder / "secret.key"
    name = _key(_read(path)).public.hex() if path.exists() else ""
    found = known.on(data)
    _check_same(folder, name, data, known)
    begun = before is not None or (folder / CHECKPOINT).exists() or name in [one.name for one in found]
    shared = _shared_path(config.privacy.ledger) if config.privacy.ledger else None
    sharing = [one for one in found if shared is not None and one.ledger == str(shared)]
    beside = [one for one in found if one.name != name and one not in sharing]
    if beside and not (begun or config.privacy.beside):
        raise BudgetError(refusal(beside))
    if shared is not None:
        _check_shared(prepared, shared, begun, sharing)
    _claim(folder, config)
    held.enter_context(_alone(folder))
    secret = _secret(path)
    key, said = _key(secret), known_others(beside, len([one for one in sharing if one.name != name]))
    if shared is not None:
        ledgers = {config.privacy.mode: _shared(prepared, shared, held)}
    else:
        ledgers = {}
        write_whole(folder / "ledger.pub", f"{key.public.hex()}\n".encode())
        for mode, file, budget, guarantee in budgets(prepared):
            more = {"run": config.title, "elsewhere": elsewhere(prepared, beside), "data": data_mark(secret, data)}
            ledgers[mode] = held.enter_context(closing(_ledger(folder / file, key, budget, guarantee, begun, more)))
    where = str(shared or (folder / LEDGER).absolute()) if ledgers else ""
    known.add(data, Other(key.public.hex(), str(folder.absolute()), where, promised(ledgers.values())))
    return Begun(secret, ledgers, said)


def there(folder: Path, config: Config) -> Run | None:
    """The record of this very run, if it was begun here. Any other directory that is not new is refused."""
    path, wanted = folder / "config.json", _plain(config)
    try:
        if not folder.exists():
            return None
        there = path.read_bytes() if path.exists() else None
        if there is None and any(file.name != f".{path.name}.draft" for file in folder.iterdir()):
            raise UsageError(f"{folder} is not empty, and holds no run")
    except OSError as error:
        raise UsageError(f"cannot use {folder}: {error.strerror}") from None
    if there not in (None, wanted):
        raise UsageError(f"{folder} holds a run of another configuration: take a new directory")
    return Run.load(folder) if (folder / FILE).exists() else None


def _check_same(folder: Path, name: str, data: bytes, known: Known) -> None:
    """Refuse to go on with a run on other data than those that it was begun on, or beside a copy of it."""
    if name and (other := known.called(name)) is not None:
        if other not in known.on(data):
            raise UsageError(f"{folder} was begun on the data of other users: take a new directory")
        there, key = Path(other.folder), "secret.key"
        with suppress(OSError):  # it is not there any more: the run was moved
            if not there.samefile(folder) and (there / key).read_bytes() == (folder / key).read_bytes():
                raise StorageError(
                    f"{folder} is a copy of the run in {there}, which went on there: what both release would be "
                    "charged once. Go on there, or take a new directory"
                )


def _claim(folder: Path, config: Config) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot use {folder}: {error.strerror}") from None
    if not (folder / "config.json").exists():
        write_whole(folder / "config.json", _plain(config))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time is at work on a run: two would have one secret, and one set of files."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StorageError(f"{folder} is locked: another process is at work on this run") from None
        yield
    finally:
        os.close(descriptor)


def _plain(config: Config) -> bytes:
    return json.dumps(config.plain(), indent=1).encode()


def _secret(path: Path) -> bytes:
    """Made once, whoever else makes it at the same time, and read by its owner alone."""
    if not path.exists():
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            draft.unlink(missing_ok=True)
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(os.urandom(KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):
                os.link(draft, path)
            draft.unlink()
        except OSError as error:
            raise StorageError(f"cannot write {path}: {error.strerror}") from None
    return _read(path)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from None


def _key(secret: bytes) -> SigningKey:
    """Of ledgers that this secret may write."""
    if len(secret) != KEY_BYTES:
        raise StorageError("the secret of a run, or of a ledger, is damaged")
    return SigningKey(derive(secret, labels.SIMULATED, b"ledger"))


def budgets(prepared: Prepared) -> list[tuple[Mode, str, Budget, Guarantee]]:
    """The ledgers of a run: one of them is always called ledger.db, if there is any."""
    found, local_name = [], LEDGER
    if (distributed := prepared.distributed) is not None:
        found.append((Mode.DISTRIBUTED, LEDGER, distributed.budget, distributed.guarantee))
        local_name = LOCAL_LEDGER
    if (locally := prepared.locally) is not None:
        found.append((Mode.LOCAL, local_name, locally.budget, locally.guarantee))
    return found


def _ledger(
    path: Path, key: SigningKey, budget: Budget, guarantee: Guarantee, begun: bool, more: Mapping[str, Any]
) -> Ledger:
    if not path.exists():
        if begun:
            raise StorageError(f"{path} is gone, and with it what was spent: this run cannot go on")
        return Ledger.create(path, key, budget, guarantee, **more)
    ledger = Ledger.open(path, key)
    if ledger.data != more["data"]:
        ledger.close()
        raise UsageError(f"{path} is the ledger of other data: this run was begun on other users")
    return ledger


# A ledger that runs share


def _shared_path(said: str) -> Path:
    """The same by whatever name; refused where neither it nor what lies beside it can be."""
    try:
        path = Path(said).resolve()
        if path.name and path.suffix not in (".key", ".pub") and path.parent.is_dir() and not path.is_dir():
            return path
    except (OSError, ValueError, RuntimeError):  # a link to itself, a path that no file can have
        pass
    raise UsageError(f"privacy.ledger is a file, not .key or .pub, in a directory that is there, and not {said!r}")


def _check_shared(prepared: Prepared, path: Path, begun: bool, sharing: Sequence[Other]) -> None:
    """Refuse a ledger of something else, and one that has no room for this run. Nothing is written."""
    mine, asked = _mine(prepared), prepared.config.privacy.budget
    if not path.exists():
        if begun or sharing or path.with_suffix(".key").exists():
            raise StorageError(f"{path} is gone, and with it what was spent by the runs that share it")
        return
    with closing(_opened(path)) as ledger:
        if ledger.data != data_mark(_read(path.with_suffix(".key")), prepared.data):
            raise UsageError(f"{path} is the ledger of other data")
        if ledger.guarantee != mine.guarantee:
            raise UsageError(f"{path} is about another guarantee than that of this run")
        if asked and ledger.budget.epsilon != mine.planned.suited(mine.budget, asked).epsilon:
            raise UsageError(f"the budget of {path} is {float(ledger.budget.epsilon):g}, not {asked:g}")
        if not begun:
            try:
                ledger.check_charge(mine.planned.charge)
            except BudgetError as error:
                reached = f"{ledger.epsilon:.6g}"
                raise BudgetError(f"{path}, at epsilon {reached}, has no room for this run: {error}") from None


def _shared(prepared: Prepared, path: Path, held: ExitStack) -> Ledger:
    if not path.exists():
        privacy, mine = prepared.config.privacy, _mine(prepared)
        secret = _secret(path.with_suffix(".key"))
        write_whole(path.with_suffix(".pub"), f"{_key(secret).public.hex()}\n".encode())
        budget = mine.planned.suited(mine.budget, privacy.budget or privacy.epsilon)
        made = Ledger.create(
            path,
            _key(secret),
            budget,
            mine.guarantee,
            run=SHARING,
            elsewhere=SHARED,
            data=data_mark(secret, prepared.data),
            shared=True,
        )
        return held.enter_context(closing(made))
    return held.enter_context(closing(_opened(path)))


def _opened(path: Path) -> Ledger:
    key = path.with_suffix(".key")
    if not key.exists():
        raise UsageError(f"{path} can be written with its secret only: there is no {key}")
    return Ledger.open(path, _key(_read(key)), shared=True)


def _mine(prepared: Prepared) -> Distributed | Locally:
    """The one guarantee of a run that shares a ledger."""
    return cast(Distributed | Locally, prepared.distributed or prepared.locally)
