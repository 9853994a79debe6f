"""One cell of the utility grid: a model, trained once under one budget, and measured; and where cells are kept.

A cell is a whole configuration (``recsys.config``), and its key is a hash of that, of the data itself and of how it is
measured: a changed grid finds what it needs and nothing else. Sums are those of the ideal functionality, with the
encoding and noise of the protocol and without its masks. Every noised sum is charged to the budget before it is made,
as it would be in a ledger; a cell that went over would end the benchmark.

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
from dp.calibrate import release_of
from dp.filter import RESOLUTION, Filter, PrivacyCost
from recsys.aggregator import Aggregator, Request, Result, Update
from recsys.assembly import DistributedNoise, Prepared, data_of, prepare
from recsys.config import Config
from recsys.data.negatives import frozen
from recsys.data.split import Split
from recsys.ideal_aggregator import IdealAggregator
from recsys.metrics.ranking import Evaluation, evaluate
from recsys.models.ease import Ease
from recsys.models.popularity import ItemPop
from recsys.models.recommender import Recommender, SharedModel
from recsys.requested_sums import LearnsFromSums
from secagg.errors import DecodeError, StorageError, UsageError
from secagg.files import appending
from secagg.foreign import as_declared, parse_json

REFERENCES: Mapping[str, Callable[..., Recommender]] = {"ItemPop": ItemPop, "EASE": Ease}
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


def fingerprint(split: Split) -> str:
    """Which data this is, whatever it is called and wherever it lies."""
    found = sha256()
    for part in (split.train, split.valid, split.test):
        for array in (part.starts, part.items):
            found.update(array.tobytes())
    return found.hexdigest()


def key_of(config: Config, data: str) -> str:
    plain = config.plain()
    plain["data"].pop("path")  # the fingerprint says more
    measured = [METRICS, NEGATIVES, NEGATIVES_SEED]
    return sha256(json.dumps([plain, data, measured], sort_keys=True).encode()).hexdigest()[:32]


def measure(config: Config, key: str, folder: Path) -> Outcome:
    """Train and measure; metrics of each user are in the folder when this returns."""
    began, spent = perf_counter(), 0.0
    if config.model.name in REFERENCES:
        split, *_ = data_of(config.data)
        model = REFERENCES[config.model.name](**config.model.settings)
        model.fit(split.train)
    else:
        prepared = prepare(config)
        split = prepared.split
        model, spent = trained(prepared)
    full, metrics = scored(model, split)
    full.write_csv(_users(folder, key), [str(user) for user in range(split.train.user_count)])
    return Outcome(key, config.title, commit(), perf_counter() - began, spent, metrics, config.plain())


def scored(model: Recommender, split: Split) -> tuple[Evaluation, dict[str, float]]:
    """With all items ranked, user by user; and the means, those against negatives too."""
    full = evaluate(model, split)
    among = evaluate(model, split, negatives=frozen(split, NEGATIVES, NEGATIVES_SEED))
    metrics = {name: full.mean(name) for name in METRICS}
    return full, metrics | {long: among.mean(name) for long, name in zip(AMONG, METRICS, strict=True)}


def trained(prepared: Prepared) -> tuple[Recommender, float]:
    """A model, and the epsilon that it cost."""
    config = prepared.config
    secret = sha256(f"noise and cohorts of a benchmark, seed {config.seed}".encode()).digest()
    aggregator = Charged(IdealAggregator(secret), prepared.distributed)
    model = prepared.model()
    if prepared.in_rounds:
        federation = prepared.federation(cast(SharedModel, model), aggregator, secret)
        for _ in range(config.training.rounds):
            federation.advance()
    else:
        cast(LearnsFromSums, model).learn(prepared.sums(aggregator), prepared.split.train.item_count)
    return model, aggregator.epsilon


class Charged:
    """Adds up what the budget allows, and nothing else (``BudgetError``)."""

    def __init__(self, aggregator: Aggregator, privacy: DistributedNoise | None) -> None:
        self._adder, self._privacy = aggregator, privacy
        self._filter = None if privacy is None else Filter.of(privacy.budget)

    def aggregate(self, request: Request, update: Update) -> Result:
        if self._privacy is not None and self._filter is not None:
            charge = _cost(request, self._privacy)
            self._filter = self._filter.reserve(str(request.number), charge).commit(str(request.number), charge)
        return self._adder.aggregate(request, update)

    @property
    def epsilon(self) -> float:
        reached = 0 if self._filter is None else self._filter.reached
        if reached is None:
            raise UsageError("what was summed up has no bounded cost")
        return reached / RESOLUTION


def _cost(request: Request, privacy: DistributedNoise) -> PrivacyCost:
    """Of one sum from which nobody is missing."""
    encoding, noise, clients = request.encoding, request.noise, len(request.cohort)
    if noise is None:
        raise UsageError("a sum without noise has no place under a budget")
    event = release_of(encoding, noise, clients, clients, privacy.guarantee)
    return PrivacyCost.of(event, samples=noise.samples(clients, encoding.coordinates))


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
