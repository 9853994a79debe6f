"""What a run leaves behind for people: one JSON file, from which the report is drawn.

It is **signed** by the run's key, which signs the run's own ledgers, too: it begins with the 64 hexadecimal digits of
the key and the 128 of the signature, so that one file, replaced at once, has both. Signed is the file with zeros in the
signature's place. Nothing in it is believed before that is verified, and the key compared with the one in ledger.pub
beside it. Whoever holds the key of a run that goes on compares it with that, and a report compares it with the
ledgers'. So who alters a record has to replace the run's key wherever it stands, in signed ledgers, too; where there is
no ledger, only somebody who remembers the key can tell.

It holds no model, no secret and no line about one user; exact quality, where it was asked for, is a statistic over all
of them that no budget covers (``Run.outside``). The ledger beside it says what was spent, and on what.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from math import inf
from pathlib import Path
from typing import Any

from dp.ledger.file import read
from dp.ledger.state import LedgerState
from secagg.at_rest import AnyFolder, Folder
from secagg.crypto import labels
from secagg.crypto.keys import KEY_BYTES, SIGNATURE_BYTES, SigningKey, verify
from secagg.errors import AlteredError, AtRestError, DecodeError, PeerError, StorageError, UsageError
from secagg.files import read_file
from secagg.foreign import as_declared, parse_json

FILE, CONFIG, MODEL = "run.json", "config.json", "model.safetensors"
"""The names of the record, the configuration and the trained model in a run's directory."""
PUBLIC_KEY = "ledger.pub"
"""The file with the run's public key."""
FORMAT = 2
"""The format of a run's directory: its record, its checkpoint, and the names of its files."""
NO_CHECKPOINT = "this is no checkpoint of this run, or it was altered"

_MOST_BYTES = 1 << 24

LEDGERS = LEDGER, LOCAL_LEDGER = "ledger.db", "local.db"
"""The only names of ledgers in a run's directory. The second is for local training, beside noise in the sums."""

TRAINING = "training"
"""The purpose of a sum of one of many rounds."""

UNKNOWN = "other runs on these data: not known here"


def check_drawable(values: Iterable[float]) -> None:
    """Refuse values that are not finite, or too large to draw."""
    if not all(abs(value) <= _LARGEST for value in values):
        raise UsageError(f"a figure is not beyond {_LARGEST:g}")


_LARGEST = 1e100


@dataclass(frozen=True, slots=True)
class Round:
    """One secure sum, as the server saw it."""

    number: int
    purpose: str
    """"training", "popularity", "item pairs" ..."""
    planned: int
    survivors: int
    silent: Mapping[str, int]
    """phase -> how many clients dropped out in it"""
    bytes_up: int
    """by all clients together"""
    bytes_down: int
    seconds: Mapping[str, float]
    """"training" and the protocol's phases"""
    measured: Mapping[str, float] = field(default_factory=dict)
    """"HR@10", "NDCG@10" of the model that the round started from, summed up under the mask by its clients"""
    exact: Mapping[str, float] = field(default_factory=dict)
    """the same of the model after the round, measured on all users' data: outside of any guarantee. In a stream it is
    that of the model before the round, by the events that are new in it"""
    epsilon: float | None = None
    """spent so far, according to the first of the run's ledgers"""
    epsilon_left: float | None = None
    head: str = ""
    """the head of that ledger at this time, where the report finds what had been spent"""
    clock: float = 0.0
    """simulated seconds since the run began, when the round was over; 0 where training takes no time"""
    staleness: Mapping[str, int] = field(default_factory=dict)
    """in asynchronous training: how many clients trained from a version so many versions ago"""

    def __post_init__(self) -> None:
        if not 0 <= self.survivors <= self.planned or self.planned < 1 or min((self.number, *self.silent.values())) < 0:
            raise UsageError("a round is planned for one client or more, of which some or none survive")
        values = (self.clock, *self.seconds.values(), *self.measured.values(), *self.exact.values())
        spent = (self.epsilon, self.epsilon_left)
        check_drawable(
            (
                self.bytes_up,
                self.bytes_down,
                self.clock,
                *values,
                *(value for value in spent if value is not None and value != inf),
            )
        )


@dataclass(frozen=True, slots=True)
class Quality:
    """How good one model is in the end, measured on all users' data: outside of any guarantee."""

    name: str
    metrics: Mapping[str, float]
    """"HR@10", "NDCG@10" ... with full ranking; "HR@10 of 100" ... against 99 negatives"""
    note: str = ""

    def __post_init__(self) -> None:
        check_drawable(self.metrics.values())


@dataclass(frozen=True, slots=True)
class Spending:
    """What a ledger promises, in the terms of ``dp.events``. It is for programs; a report takes it from the ledger."""

    ledger: str
    """its file, beside the record; or a path if runs share the ledger: then everything here is about all of them"""
    unit: str
    relation: str
    trust: str
    epsilon: float
    """the budget"""
    delta: float
    colluders: int = 0
    words: str = ""
    """the promise in one sentence"""
    key: str = "ledger.pub"
    """the file with the ledger's public key, beside this one or a path"""
    part: float | None = None
    """this run's part of a shared budget"""
    holder: str = "device"
    """who has a unit's data: its device, or a silo with many users"""
    within: int | None = None
    """so many seconds, where the unit is the events of one person within a window"""


@dataclass(frozen=True, slots=True)
class Run:
    title: str
    config: Mapping[str, Any]
    data: Mapping[str, Any]
    """"users", "items", "clients", "source"; "declared" where users are not counted, since they are inside silos; and,
    without privacy, counts of events and what was left out"""
    protocol: Mapping[str, Any]
    """"name", "clients", "threshold", "degree", "adversary", "min_contributors" ..."""
    mode: str
    """"none", "local", "distributed" or "both" """
    measured_under: str
    """what protects the values in ``Round.measured``, or that clients send none"""
    public: tuple[str, ...] = ()
    """what the promises take as public (``recsys.public_facts``)"""
    spendings: tuple[Spending, ...] = ()
    outside: tuple[str, ...] = ()
    """what was computed from users' data and is charged to no budget"""
    others: str = UNKNOWN
    """what is known of other runs on the same data"""
    rounds: tuple[Round, ...] = ()
    results: tuple[Quality, ...] = ()
    """reference models first, the run's own model last; empty where nothing is measured exactly"""
    model: str = ""
    """the SHA-256 of the model's file, in hexadecimal; empty until there is one. Where nothing is private, guesses at
    all of the data can be tested by it, as by exact quality"""
    ended: str = ""
    """why the run ended; empty while it goes on"""
    machine: Mapping[str, Any] = field(default_factory=dict)
    format: int = FORMAT
    owner: str = ""
    """the public key that has signed this, in hexadecimal; empty before"""

    def save(self, folder: AnyFolder, key: SigningKey) -> None:
        """Sign the record by the run's key, and write it, whole or not at all, even if the machine crashes."""
        Folder.of(folder).write(FILE, signed(asdict(self), key), private=False)

    def check_kept(self, folder: AnyFolder) -> None:
        """Refuse ledgers beside the record of which it is not signed by the key, and, when the run has ended, a model
        that is not the one on record."""
        folder = Folder.of(folder)
        for name in LEDGERS:
            if folder.exists(name):
                first, *_ = [body for body, _signature in read(folder / name, folder.keys)] or [b""]
                self.check_owner(LedgerState.begun_by(first).genesis.owner, name)
        if not self.ended:
            return
        try:
            found = sha256(folder.read(MODEL))
        except FileNotFoundError:  # it is not handed on with every run
            return
        if found.hexdigest() != self.model:
            raise DecodeError(
                f"{folder / MODEL} was altered, or is the model of another run: its SHA-256 is not that of {FILE}"
            )

    @classmethod
    def load(cls, folder: AnyFolder) -> Run:
        folder = Folder.of(folder)
        path = folder / FILE
        try:
            data = folder.read(FILE, most=_MOST_BYTES)
        except FileNotFoundError:
            raise UsageError(f"there is no run in {folder}: no {FILE}") from None
        except AtRestError:
            raise
        except StorageError as error:  # a link, a pipe, a file that is too long
            raise UsageError(str(error)) from None
        try:
            record = parse_json(data)
            if not isinstance(record, dict):
                raise DecodeError("it has no fields")
            if (found := record.get("format")) != FORMAT:
                raise DecodeError(f"this release reads directories of format {FORMAT}, and not {str(found)[:20]!r}")
        except DecodeError as error:
            raise DecodeError(f"{path} is not the record of a run: {error}") from None
        owner = _signer(data, path)
        _check_key(folder, owner)
        try:
            del record[_SIGNATURE]
            run: Run = as_declared(cls, record)
        except DecodeError as error:
            raise DecodeError(f"{path} is not the record of a run: {error}") from None
        return run

    def check_owner(self, owner: bytes, what: str) -> None:
        """``AlteredError`` unless this key, that of ``what``, has signed the record."""
        if owner.hex() != self.owner:
            raise AlteredError(
                f"{FILE} was signed by another key than that of {what}: it is of another run, or altered"
            )


def as_kept(config: Mapping[str, Any]) -> bytes:
    """The file with what was asked for."""
    return json.dumps(config, indent=1).encode()


_SIGNATURE = "signature"
_BEFORE_KEY, _BETWEEN = b'{\n "owner": "', b'",\n "signature": "'
_KEY_PLACE = slice(len(_BEFORE_KEY), len(_BEFORE_KEY) + 2 * KEY_BYTES)
_SIGNATURE_PLACE = slice(_KEY_PLACE.stop + len(_BETWEEN), _KEY_PLACE.stop + len(_BETWEEN) + 2 * SIGNATURE_BYTES)


def signed(record: Mapping[str, Any], key: SigningKey) -> bytes:
    """The file of a record, signed by this key."""
    first = {"owner": key.public.hex(), _SIGNATURE: "0" * (2 * SIGNATURE_BYTES)}
    data = json.dumps(
        first | {name: value for name, value in record.items() if name not in first}, indent=1, allow_nan=False
    ).encode()
    return _with(data, key.sign(labels.RUN_RECORD, data))


def _with(data: bytes, signature: bytes) -> bytes:
    return data[: _SIGNATURE_PLACE.start] + signature.hex().encode() + data[_SIGNATURE_PLACE.stop :]


def _signer(data: bytes, path: Path) -> bytes:
    """The public key that has signed this record."""
    try:
        owner = bytes.fromhex(data[_KEY_PLACE].decode())
        signature = bytes.fromhex(data[_SIGNATURE_PLACE].decode())
        same = data.startswith(_BEFORE_KEY) and _with(data, signature) == data
        verify(owner, signature, labels.RUN_RECORD, _with(data, bytes(SIGNATURE_BYTES)), culprit=FILE)
    except (ValueError, PeerError):
        same = False
    if not same:
        raise AlteredError(f"{path} was altered, or is not signed by the key of its run")
    return owner


def _check_key(folder: Folder, owner: bytes) -> None:
    """Refuse a record that was signed by another key than that which lies beside it."""
    try:
        kept = read_file(folder / PUBLIC_KEY, most=_MOST_KEY_BYTES)
    except FileNotFoundError:  # it is in the record, and in the ledgers
        return
    if kept.strip() != owner.hex().encode():
        raise AlteredError(
            f"{folder / FILE} was signed by another key than {PUBLIC_KEY}: one of them is of another run"
        )


_MOST_KEY_BYTES = 1 << 12
