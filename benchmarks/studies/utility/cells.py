"""One cell of the utility grid: a model, trained once under one budget, and measured; and where cells are kept.

A cell is a whole configuration (``recsys.config``), and its key is a hash of that, of the data itself and of how it is
measured: a changed grid finds what it needs and nothing else. Sums are those of a protocol, all of whose parties are
here, or of the ideal functionality, with the encoding and noise of the protocol and without its masks. Every noised sum
is charged to a ledger before it is made; a cell that went over, or whose ledger an auditor's script reads otherwise,
ends the benchmark.

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
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import numpy as np

from benchmarks.case import commit
from benchmarks.studies.utility.charged import Charged, Spent, ledger_of, spent
from recsys.aggregator import Aggregator
from recsys.assembly import Prepared, prepare
from recsys.config import Config
from recsys.data.negatives import frozen
from recsys.data.split import Split
from recsys.ideal_aggregator import IdealAggregator
from recsys.metrics.ranking import Evaluation, evaluate
from recsys.models.ease import Ease
from recsys.models.knn import ItemKnn
from recsys.models.popularity import ItemPop
from recsys.models.recommender import Recommender, SharedModel
from recsys.models.tuned_ease import tuned_ease
from recsys.requested_sums import LearnsFromSums
from recsys.secure_aggregator import SecureAggregator
from recsys.sentences import EASE, NEAREST, POPULAR, TUNED
from recsys.sources import data_of
from secagg.errors import DecodeError, StorageError, UsageError
from secagg.files import appending
from secagg.foreign import as_declared, parse_json


def _fitted(model: Recommender, split: Split) -> Recommender:
    model.fit(split.train)
    return model


REFERENCES: Mapping[str, Callable[[Split, Mapping[str, Any]], Recommender]] = {
    POPULAR: lambda split, settings: _fitted(ItemPop(), split),
    NEAREST: lambda split, settings: _fitted(ItemKnn(), split),
    EASE: lambda split, settings: _fitted(Ease(**settings), split),
    TUNED: lambda split, settings: tuned_ease(split, **settings),
}
"""Of all data in one place."""
METRICS = ("NDCG@10", "HR@10")
NEGATIVES, NEGATIVES_SEED = 99, 0
AMONG = tuple(f"{name} of {NEGATIVES + 1}" for name in METRICS)
"""The same metrics, against negatives that were drawn once and for all."""


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


def fingerprint(split: Split) -> str:
    """Which data this is, whatever it is called and wherever it lies."""
    found = sha256()
    for part in (split.train, split.valid, split.test):
        for array in (part.starts, part.items):
            found.update(array.tobytes())
    return found.hexdigest()


def key_of(config: Config, data: str, ideal: bool = True) -> str:
    """``ideal``: whether sums are those of the ideal functionality, which matters where there is noise."""
    plain = config.plain()
    for said in ("path", "order"):
        plain["data"].pop(said)  # the fingerprint says more
    measured = [METRICS, NEGATIVES, NEGATIVES_SEED, ideal or not config.private]
    return sha256(json.dumps([plain, data, measured], sort_keys=True).encode()).hexdigest()[:32]


def measure(config: Config, key: str, folder: Path, ideal: bool) -> Outcome:
    """Train and measure; metrics of each user are in the folder when this returns."""
    began, cost = perf_counter(), Spent()
    if config.model.name in REFERENCES:
        split, *_ = data_of(config.data)
        model = REFERENCES[config.model.name](split, config.model.settings)
    else:
        prepared = prepare(config)
        split = prepared.split
        model, cost = trained(prepared, ideal)
    full, metrics = scored(model, split)
    full.write_csv(_users(folder, key), [str(user) for user in range(split.train.user_count)])
    took = perf_counter() - began
    return Outcome(key, config.title, commit(), took, cost.charged, metrics, config.plain(), cost.verified)


def scored(model: Recommender, split: Split) -> tuple[Evaluation, dict[str, float]]:
    """With all items ranked, user by user; and the means, those against negatives too."""
    full = evaluate(model, split)
    among = evaluate(model, split, negatives=frozen(split, NEGATIVES, NEGATIVES_SEED))
    metrics = {name: full.mean(name) for name in METRICS}
    return full, metrics | {long: among.mean(name) for long, name in zip(AMONG, METRICS, strict=True)}


def trained(prepared: Prepared, ideal: bool) -> tuple[Recommender, Spent]:
    """A model, and the epsilon that it cost."""
    config = prepared.config
    secret = sha256(f"noise and cohorts of a benchmark, seed {config.seed}".encode()).digest()
    privacy, adder = prepared.distributed, IdealAggregator(secret)
    if privacy is None:
        return _trained(prepared, adder, secret), Spent()
    with ledger_of(privacy, secret) as ledger:
        real = SecureAggregator(prepared.deployment, secret, ledger=ledger, seed=config.seed)
        model = _trained(prepared, Charged(adder, ledger) if ideal else real, secret)
        return model, spent(ledger, secret)


def _trained(prepared: Prepared, aggregator: Aggregator, secret: bytes) -> Recommender:
    model = prepared.model()
    if prepared.in_rounds:
        federation = prepared.federation(cast(SharedModel, model), aggregator, secret)
        for _ in range(prepared.config.training.rounds):
            federation.advance()
    else:
        cast(LearnsFromSums, model).learn(prepared.sums(aggregator), prepared.split.train.item_count)
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

    def evaluation(self, key: str) -> Evaluation:
        """The first of the metrics, user by user."""
        path = _users(self.folder, key)
        try:
            with path.open(newline="") as file:
                rows = [(int(row["user"]), float(row[METRICS[0]])) for row in csv.DictReader(file)]
        except (OSError, ValueError, KeyError):
            raise StorageError(f"{path} cannot be read: without its line in {_LINES}, it is made again") from None
        users, values = zip(*rows, strict=True)
        return Evaluation(np.array(users), {METRICS[0]: np.array(values)}, {}, 0)


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
