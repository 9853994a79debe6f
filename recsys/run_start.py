"""How a run begins: what is refused before anything is written, its secret, and its ledgers.

One data set has one budget. So before a run writes anything it looks for others on the same data
(``recsys.other_runs``), and refuses to begin beside them unless it is told to, or shares their ledger and there is room
for all that it plans. A run that was begun and whose ledger, or whose whole directory, is gone does not begin anew in
silence.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from dp.events import Guarantee
from dp.filter import Budget
from dp.ledger import Ledger
from dp.ledger.state import data_mark
from recsys.config import Config, Mode
from recsys.other_runs import KnownRun, LockedRunList
from recsys.pending_sum import SUM
from recsys.run_record import CONFIG, FILE, LEDGER, LOCAL_LEDGER, PUBLIC_KEY, Run, as_kept
from recsys.same_inputs import check_configuration, check_inputs, keep_inputs
from recsys.sentences import SHARED, SHARING, elsewhere, known_others, promised, refusal
from secagg.at_rest import AnyFolder, Folder, Keyring, read_sealed
from secagg.crypto import labels
from secagg.crypto.keys import KEY_BYTES, SigningKey, derive
from secagg.errors import BudgetError, StorageError, UsageError
from secagg.files import DRAFT, alone, create_file, private_folder, sweep, synced, write_file

if TYPE_CHECKING:
    from recsys.assembly import Prepared
    from recsys.budgets import DistributedNoise, LocalNoise

_LINK = re.compile("[0-9a-f]{64}")
PRIVATE = "private"
"""The directory within that of a run which nobody else gets."""
SECRET, KEY, NAME, CHECKPOINT = "secret.key", "ledger.key", "name", "checkpoint.safetensors"
STREAM, FROZEN = "stream.db", "frozen.safetensors"
"""In it: all randomness of the parties; what signs the ledgers; how the list of runs calls this one, by which a copy is
known when the key of the run that it was copied from is deleted; what a run goes on with. With a stream: its journal,
and the model that is not trained on, if one is measured."""


@dataclass(frozen=True, slots=True)
class StartedRun:
    """What a run works with."""

    private: Folder
    """the run's private directory"""
    secret: bytes
    key: SigningKey
    """signs the record, and the run's own ledgers"""
    ledgers: Mapping[Mode, Ledger]
    other_runs: str
    """what is known of other runs on the same data"""


def start(prepared: Prepared, folder: Folder, before: Run | None, runs: LockedRunList, held: ExitStack) -> StartedRun:
    """Refuse a run that must not begin, before anything is written. Then make its secret and its ledgers, or find them.

    ``before`` is the record of the run if it was begun; ``held`` keeps the directory locked and the ledgers open.
    """
    config, data = prepared.config, prepared.data_identity
    private, name = folder.within(PRIVATE), _name(folder)
    found = runs.on(data)
    _check_same(folder, name, data, runs)
    resumed = before is not None or private.exists(CHECKPOINT) or name in [one.name for one in found]
    if resumed:
        check_inputs(private, prepared)
    if gone := [path for path in (private / SECRET, private / KEY) if resumed and not path.exists()]:
        raise StorageError(f"{gone[0]} is gone: this run cannot go on")
    shared = _shared_path(config.privacy.ledger) if config.privacy.ledger else None
    sharing = [one for one in found if shared is not None and one.ledger == str(shared)]
    beside = [one for one in found if one.name != name and one not in sharing]
    if beside and not (resumed or config.privacy.beside):
        raise BudgetError(refusal(beside))
    if shared is not None:
        _check_shared(prepared, shared, folder.keys, resumed, sharing)
    _make(folder.path)
    held.enter_context(alone(folder.path))  # two processes would use the same secret and the same files
    _claim(folder, config)
    private_folder(private.path)
    sweep(folder.path)
    sweep(private.path)
    secret, ledger_secret = _secret(private, SECRET), _secret(private, KEY)
    if not resumed:
        keep_inputs(private, prepared)
    key, said = _key(ledger_secret), known_others(beside, len([one for one in sharing if one.name != name]))
    if before is not None:
        before.check_owner(key.public, f"{private / KEY}")
    private.create(NAME, key.public.hex().encode(), private=True)
    if shared is not None:
        ledgers = {config.privacy.mode: _shared(prepared, shared, folder.keys, held)}
    else:
        ledgers = {}
        write_file(folder / PUBLIC_KEY, f"{key.public.hex()}\n".encode(), private=False)
        for mode, file, budget, guarantee in budgets(prepared):
            more = {
                "run": config.title,
                "elsewhere": elsewhere(prepared, beside),
                "data": data_mark(ledger_secret, data),
                "turns": prepared.turns(secret) if mode is Mode.DISTRIBUTED else None,
                "arrivals": None if (buffers := prepared.buffers(secret)) is None else buffers.arrivals,
                "window": prepared.window,
            }
            made = _ledger(folder / file, key, budget, guarantee, folder.keys, resumed, more)
            ledgers[mode] = held.enter_context(closing(made))
    if before is not None:
        _check_reached(before, ledgers)
    where = str(shared or (folder / LEDGER).absolute()) if ledgers else ""
    runs.add(data, KnownRun(key.public.hex(), str(folder.path.absolute()), where, promised(ledgers.values())))
    return StartedRun(private, secret, key, ledgers, said)


def delete_secrets(folder: AnyFolder) -> None:
    """Delete what only a run that goes on needs: with it, noise can be taken off what was released, and ledgers can be
    forged. What a disk or a backup keeps of deleted files cannot be reached from here."""
    private = Folder.of(folder) / PRIVATE
    if not private.is_dir() or private.is_symlink():
        return
    private_folder(private)
    sweep(private)
    try:
        for path in private.iterdir():
            if path.name in (SECRET, KEY, CHECKPOINT, STREAM, f"{STREAM}-wal", FROZEN) or SUM.fullmatch(path.name):
                path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"cannot delete what is in {private}: {error.strerror}") from None
    synced(private)


def existing_run(folder: AnyFolder, config: Config) -> Run | None:
    """The record of this run, or None if nothing is on record yet. Refuses a directory that holds anything else."""
    folder = Folder.of(folder)
    try:
        if not folder.path.exists():
            _check_can_be_made(folder.path)
            return None
        found = folder.read(CONFIG) if folder.exists(CONFIG) else None
        if folder.exists(SECRET):
            raise UsageError(
                f"{folder} was begun by an earlier release, which kept secrets among what is shared: take a new "
                f"directory (and delete {folder / SECRET}, with which the noise can be taken off)"
            )
        if found is None and any(not DRAFT.fullmatch(file.name) for file in folder.path.iterdir()):
            raise UsageError(f"{folder} is not empty, and holds no run: take a new directory (--out)")
    except OSError as error:
        raise UsageError(f"cannot use {folder}: {error.strerror}") from None
    if found is not None:
        check_configuration(folder.path, found, config)
    return Run.load(folder) if folder.exists(FILE) else None


def _check_can_be_made(folder: Path) -> None:
    """Refuse a directory that cannot be made, before anything slow is done. It is not made here."""
    parent = next(one for one in folder.absolute().parents if one.exists())
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UsageError(f"cannot use {folder}: {parent} is not to be written to")


def _name(folder: Folder) -> str:
    """The name of this run in the list of runs; empty if it was not begun. Refuses to go on if others can read its
    secrets."""
    private = folder.within(PRIVATE)
    if private.path.is_symlink() or private.path.exists():
        private_folder(private.path)
        if private.exists(KEY):
            return _key(_read(private, KEY)).public.hex()
    return ""


def _check_same(folder: Folder, name: str, data: bytes, runs: LockedRunList) -> None:
    """Refuse to continue a run on other data than it was begun on, or beside a copy of it."""
    if name and (other := runs.called(name)) is not None:
        if other not in runs.on(data):
            raise UsageError(f"{folder} was begun on the data of other users: take a new directory")
        original = Folder(other.folder, folder.keys)
        with suppress(OSError):  # it is not there any more: the run was moved
            if not original.path.samefile(folder.path) and original.within(PRIVATE).read(NAME) == name.encode():
                raise StorageError(
                    f"{folder} is a copy of the run in {original}, which went on there: what both release would be "
                    "charged once. Go on there, or take a new directory"
                )


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot use {folder}: {error.strerror}") from None


def _claim(folder: Folder, config: Config) -> None:
    asked = as_kept(config.plain())
    if not folder.exists(CONFIG) or folder.read(CONFIG) != asked:
        folder.write(CONFIG, asked, private=False)


def _secret(private: Folder, name: str) -> bytes:
    """The secret in this file. It is made once, even if several processes try, and only its owner can read it."""
    if not private.exists(name):
        private.create(name, os.urandom(KEY_BYTES), private=True)
    return _read(private, name)


def _read(private: Folder, name: str) -> bytes:
    try:
        return _checked(private.read(name, private=True), private / name)
    except FileNotFoundError:
        raise StorageError(f"cannot read {private / name}: it is gone") from None


def _checked(secret: bytes, path: Path) -> bytes:
    if len(secret) != KEY_BYTES:
        raise StorageError(f"{path}, the secret of a run or of a ledger, is damaged")
    return secret


def _key(secret: bytes) -> SigningKey:
    """The key that signs the ledgers of this secret."""
    return SigningKey(derive(secret, labels.SIMULATED, b"ledger"))


def budgets(prepared: Prepared) -> list[tuple[Mode, str, Budget, Guarantee]]:
    """The ledgers of a run: mode, file, budget and guarantee of each. The first is always called ledger.db."""
    found, local_name = [], LEDGER
    if (distributed := prepared.distributed) is not None:
        found.append((Mode.DISTRIBUTED, LEDGER, distributed.budget, distributed.guarantee))
        local_name = LOCAL_LEDGER
    if (locally := prepared.locally) is not None:
        found.append((Mode.LOCAL, local_name, locally.budget, locally.guarantee))
    return found


def _ledger(
    path: Path,
    key: SigningKey,
    budget: Budget,
    guarantee: Guarantee,
    keys: Keyring | None,
    resumed: bool,
    more: Mapping[str, Any],
) -> Ledger:
    if not path.exists():
        if resumed:
            raise StorageError(f"{path} is gone, and with it what was spent: this run cannot go on")
        return Ledger.create(path, key, budget, guarantee, keys=keys, **more)
    ledger = Ledger.open(path, key, keys=keys)
    if ledger.data != more["data"]:
        ledger.close()
        raise UsageError(f"{path} is the ledger of other data: this run was begun on other users")
    return ledger


def _check_reached(before: Run, ledgers: Mapping[Mode, Ledger]) -> None:
    """Refuse a ledger that does not hold what the run released: what it cost would not be counted."""
    head = next((one.head for one in reversed(before.rounds) if one.head), "")
    first = next(iter(ledgers.values()), None)  # to which the record points
    if head and first is not None and not first.contains(bytes.fromhex(head) if _LINK.fullmatch(head) else b""):
        raise StorageError(f"{first.path} is older than the record of this run, or another ledger: put the latest back")


# A ledger that runs share


def _shared_path(said: str) -> Path:
    """The absolute path of a shared ledger. Refused if it, or the key files beside it, cannot be there."""
    try:
        path = Path(said).resolve()
        if path.name and path.suffix not in (".key", ".pub") and path.parent.is_dir() and not path.is_dir():
            return path
    except (OSError, ValueError, RuntimeError):  # a link to itself, a path that no file can have
        pass
    raise UsageError(f"privacy.ledger is a file, not .key or .pub, in a directory that is there, and not {said!r}")


SEALED_AS = "the secret of a shared ledger"
"""What the file with that secret is sealed as."""


def _shared_secret(path: Path, keys: Keyring | None) -> bytes:
    """The secret of the shared ledger at this path."""
    file = path.with_suffix(".key")
    try:
        return _checked(read_sealed(file, keys, SEALED_AS, private=True), file)
    except FileNotFoundError:
        raise StorageError(f"cannot read {file}: it is gone") from None


def _check_shared(
    prepared: Prepared, path: Path, keys: Keyring | None, resumed: bool, sharing: Sequence[KnownRun]
) -> None:
    """Refuse a shared ledger of other data or another guarantee, and one without room for this run. Writes nothing."""
    mine, asked = _mine(prepared), prepared.config.privacy.budget
    if not path.exists():
        if resumed or sharing or path.with_suffix(".key").exists():
            raise StorageError(f"{path} is gone, and with it what was spent by the runs that share it")
        return
    with closing(_opened(path, keys)) as ledger:
        if ledger.data != data_mark(_shared_secret(path, keys), prepared.data_identity):
            raise UsageError(f"{path} is the ledger of other data")
        if ledger.guarantee != mine.guarantee:
            raise UsageError(f"{path} is about another guarantee than that of this run")
        if asked and ledger.budget.epsilon != mine.planned.suited(mine.budget, asked).epsilon:
            raise UsageError(f"the budget of {path} is {float(ledger.budget.epsilon):g}, not {asked:g}")
        if not resumed:
            try:
                ledger.check_cost(mine.planned.cost(ledger.budget))
            except BudgetError as error:
                reached = f"{ledger.epsilon:.6g}"
                raise BudgetError(f"{path}, at epsilon {reached}, has no room for this run: {error}") from None


def _shared(prepared: Prepared, path: Path, keys: Keyring | None, held: ExitStack) -> Ledger:
    if not path.exists():
        privacy, mine = prepared.config.privacy, _mine(prepared)
        drawn = os.urandom(KEY_BYTES)
        create_file(path.with_suffix(".key"), drawn if keys is None else keys.seal(drawn, SEALED_AS), private=True)
        secret = _shared_secret(path, keys)
        write_file(path.with_suffix(".pub"), f"{_key(secret).public.hex()}\n".encode(), private=False)
        budget = mine.planned.suited(mine.budget, privacy.budget or privacy.epsilon)
        made = Ledger.create(
            path,
            _key(secret),
            budget,
            mine.guarantee,
            run=SHARING,
            elsewhere=SHARED,
            data=data_mark(secret, prepared.data_identity),
            shared=True,
            keys=keys,
        )
        return held.enter_context(closing(made))
    return held.enter_context(closing(_opened(path, keys)))


def _opened(path: Path, keys: Keyring | None) -> Ledger:
    key = path.with_suffix(".key")
    if not key.exists():
        raise UsageError(f"{path} can be written with its secret only: there is no {key}")
    return Ledger.open(path, _key(_shared_secret(path, keys)), shared=True, keys=keys)


def _mine(prepared: Prepared) -> DistributedNoise | LocalNoise:
    """The one guarantee of a run that shares a ledger."""
    return cast("DistributedNoise | LocalNoise", prepared.distributed or prepared.locally)
