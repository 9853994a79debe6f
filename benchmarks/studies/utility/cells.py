"""One cell of the utility grid: a model, trained once in one way, and measured; and where cells are kept.

A cell is a whole configuration (``recsys.config``) and what is done with it (``Kind``). Its key is a hash of these, of
the data themselves and of how they are divided and measured: a changed grid finds what it needs and nothing else. Sums
with noise are those of a protocol, all of whose parties are here, or of the ideal functionality, with the encoding and
noise of the protocol and without its masks. Every noised sum is charged to a ledger before it is made; a cell that went
over, or whose ledger an auditor's script reads otherwise, ends the benchmark.

In the folder, ``results.jsonl`` has a line for each finished cell, synced when it is there, after
``users/KEY.csv``, its metrics user by user. So whatever stops a grid, what was finished stays finished.
"""

from __future__ import annotations

import csv
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol, cast

import numpy as np

from benchmarks.case import commit
from benchmarks.studies.utility.charged import Charged, Spent, ledger_of, spent
from benchmarks.studies.utility.divided import NEGATIVES, NEGATIVES_SEED, STRONG, WEAK, Divided, divided
from recsys.aggregator import Aggregator
from recsys.assembly import Prepared, model_of, prepare
from recsys.config import Config
from recsys.data.interactions import Interactions
from recsys.ideal_aggregator import IdealAggregator
from recsys.metrics.ranking import Evaluation
from recsys.models.ease import Ease
from recsys.models.knn import ItemKnn
from recsys.models.popularity import ItemPop
from recsys.models.recommender import Recommender, SharedModel
from recsys.requested_sums import LearnsFromSums
from recsys.secure_aggregator import SecureAggregator
from recsys.sentences import EASE, NEAREST, POPULAR, TUNED
from secagg.errors import DecodeError, StorageError, UsageError
from secagg.files import appending
from secagg.foreign import as_declared, parse_json


def _fitted(model: Recommender, data: Divided) -> Recommender:
    model.fit(data.training.train)
    return model


REFERENCES: Mapping[str, Callable[[Divided, Mapping[str, Any]], Recommender]] = {
    POPULAR: lambda data, settings: _fitted(ItemPop(), data),
    NEAREST: lambda data, settings: _fitted(ItemKnn(), data),
    EASE: lambda data, settings: _fitted(Ease(**settings), data),
    TUNED: lambda data, settings: data.tuned(**settings),
}
"""Of all data in one place."""


class Kind(StrEnum):
    """What is done with a configuration."""

    REFERENCE = "reference"
    PRIVATE = "private"
    NOISELESS = "without noise"
    """the same recipe, and no noise"""
    BEST = "best without privacy"
    """another recipe: ``fit``, of all data in one place"""


@dataclass(frozen=True, slots=True)
class Cell:
    """``strong``: users are held out as a whole. ``ideal``: noised sums are those of the ideal functionality."""

    kind: Kind
    config: Config
    strong: bool = False
    ideal: bool = True

    def divided(self) -> Divided:
        return divided(self.config.data, self.strong)

    def key(self, mark: str) -> str:
        """``mark`` stands for the data."""
        plain = self.config.plain()
        for said in ("path", "order"):
            plain["data"].pop(said)  # the mark says more
        if self.kind is not Kind.PRIVATE:
            plain["privacy"] = {"n_min": plain["privacy"]["n_min"]}  # the divisor of means
            plain.pop("protocol"), plain.pop("title")
        if self.kind in (Kind.BEST, Kind.REFERENCE):
            plain = {name: plain[name] for name in ("data", "model", "seed")}
        metrics = STRONG if self.strong else WEAK
        measured = [self.kind, metrics, NEGATIVES, NEGATIVES_SEED, self.ideal or self.kind is not Kind.PRIVATE]
        return sha256(json.dumps([plain, mark, measured], sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is kept of a cell, in one line."""

    key: str
    title: str
    commit: str
    seconds: float
    epsilon: float
    """charged, sum by sum; 0 without privacy"""
    metrics: Mapping[str, float]
    config: Mapping[str, Any]
    verified: float = 0.0
    """the epsilon that the auditor's script finds"""
    kind: str = ""


def measure(cell: Cell, key: str, folder: Path) -> Outcome:
    """Train and measure; metrics of each user are in the folder when this returns."""
    began = perf_counter()
    data, config = cell.divided(), cell.config
    model, cost = trained(cell, data)
    full, metrics = data.scored(model)
    full.write_csv(_users(folder, key), [str(user) for user in range(data.users)])
    took = perf_counter() - began
    kept = config.plain()
    return Outcome(key, config.title, commit(), took, cost.charged, metrics, kept, cost.verified, cell.kind)


class _Seeded(Protocol):
    def fit(self, train: Interactions, seed: int = 0) -> object: ...


def trained(cell: Cell, data: Divided) -> tuple[Recommender, Spent]:
    """A model, and the epsilon that it cost."""
    config = cell.config
    if cell.kind is Kind.REFERENCE:
        return REFERENCES[config.model.name](data, config.model.settings), Spent()
    if cell.kind is Kind.BEST:
        model = model_of(config)
        cast(_Seeded, model).fit(data.training.train, seed=config.seed)
        return model, Spent()
    return of_sums(prepare(config, data.training), cell.kind, cell.ideal)


def of_sums(prepared: Prepared, kind: Kind, ideal: bool) -> tuple[Recommender, Spent]:
    """A model that clients have trained, with noise in the sums or without, and the epsilon that it cost."""
    config = prepared.config
    secret = sha256(f"noise and cohorts of a benchmark, seed {config.seed}".encode()).digest()
    privacy, adder = prepared.distributed, IdealAggregator(secret)
    if kind is Kind.NOISELESS or privacy is None:
        return _learnt(prepared, adder, secret, noiseless=True), Spent()
    with ledger_of(privacy, secret) as ledger:
        real = SecureAggregator(prepared.deployment, secret, ledger=ledger, seed=config.seed)
        model = _learnt(prepared, Charged(adder, ledger) if ideal else real, secret)
        return model, spent(ledger, secret)


def _learnt(prepared: Prepared, aggregator: Aggregator, secret: bytes, noiseless: bool = False) -> Recommender:
    model = prepared.model()
    if prepared.in_rounds:
        federation = prepared.federation(cast(SharedModel, model), aggregator, secret, noiseless=noiseless)
        for _ in range(prepared.config.training.rounds):
            federation.advance()
    else:
        asked = prepared.without_privacy() if noiseless else prepared
        cast(LearnsFromSums, model).learn(asked.sums(aggregator), prepared.split.train.item_count)
    return model


# The folder


class Kept:
    """Finished cells, in a folder that one benchmark at a time writes to."""

    def __init__(self, folder: Path, file: int) -> None:
        self.folder, self._file = folder, file
        self.found: dict[str, Outcome] = {}
        with (folder / _LINES).open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):  # it was being written when everything stopped
                    os.ftruncate(file, os.fstat(file).st_size - len(line))
                    break
                one = _read(line, f"{folder / _LINES}, line {number}")
                self.found[one.key] = one

    def add(self, one: Outcome) -> None:
        """On the disk when this returns."""
        line = json.dumps(asdict(one), allow_nan=False).encode() + b"\n"
        if os.write(self._file, line) != len(line):
            raise StorageError(f"cannot write {self.folder / _LINES}")
        os.fsync(self._file)
        self.found[one.key] = one

    def evaluation(self, key: str, metric: str) -> Evaluation:
        """One metric, user by user."""
        path = _users(self.folder, key)
        try:
            with path.open(newline="") as file:
                rows = [(int(row["user"]), float(row[metric])) for row in csv.DictReader(file)]
        except (OSError, ValueError, KeyError):
            raise StorageError(f"{path} cannot be read: without its line in {_LINES}, it is made again") from None
        users, values = zip(*rows, strict=True)
        return Evaluation(np.array(users), {metric: np.array(values)}, {}, 0)


@contextmanager
def kept(folder: Path) -> Iterator[Kept]:
    """Open a folder, made if it is not there; ``UsageError`` while another benchmark has it open."""
    try:
        (folder / "users").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot use {folder}: {error.strerror}") from None
    with appending(folder / _LINES) as file:
        _lock(file, folder)
        yield Kept(folder, file)


def _lock(file: int, folder: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UsageError(f"another benchmark is writing to {folder}") from None


_LINES = "results.jsonl"


def _users(folder: Path, key: str) -> Path:
    return folder / "users" / f"{key}.csv"


def _read(line: bytes, where: str) -> Outcome:
    try:
        outcome: Outcome = as_declared(Outcome, parse_json(line))
    except DecodeError:
        raise StorageError(f"{where} is not a finished cell") from None
    return outcome
