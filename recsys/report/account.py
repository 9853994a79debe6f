"""What a report is about: the record of a run, and what the ledgers beside it say was spent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path
from typing import Any, Self

from dp.filter import UNITS
from dp.ledger.book import Book, replay
from dp.ledger.entries import parse
from dp.ledger.file import read
from protocols import registry
from protocols.registry import Protocol
from recsys.record import Result, Round, Run, Spending
from secagg.errors import DecodeError, StorageError

TRUSTS = {"none": [], "local": ["local"], "distributed": ["distributed"], "both": ["distributed", "local"]}
"""Mode of a run -> whose noise is promised."""

METRIC = "NDCG@10"
"""What plots show, if it was measured."""


@dataclass(frozen=True, slots=True)
class Spent:
    """A promise, and what its ledger says about it."""

    promise: Spending
    book: Book
    entries: tuple[Mapping[str, Any], ...]
    """Without the first, which is the promise."""

    @property
    def epsilon(self) -> float:
        reached = self.book.filter.reached
        return inf if reached is None else reached / UNITS


@dataclass(frozen=True, slots=True)
class Point:
    """How good the model was when so many rounds were done and so much was spent."""

    rounds: int
    epsilon: float | None
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Account:
    run: Run
    protocol: Protocol
    spent: tuple[Spent, ...]

    @classmethod
    def load(cls, folder: Path) -> Self:
        run = Run.load(folder)
        name = run.protocol.get("name")
        if run.mode not in TRUSTS or name not in registry.names():
            raise DecodeError(f"the record of the run in {folder} has an unknown mode or protocol")
        if sorted(promise.trust for promise in run.spendings) != TRUSTS[run.mode]:
            raise DecodeError(f"the record of the run in {folder} does not promise what its mode {run.mode!r} is about")
        return cls(run, registry.find(name), tuple(_spent(folder, promise) for promise in run.spendings))

    @property
    def rounds(self) -> list[Round]:
        """Those that were not given up."""
        return [entry for entry in self.run.rounds if entry.survivors]

    @property
    def exact(self) -> list[Point]:
        """By whoever sees all data: after rounds, or else in the end."""
        rounds = enumerate(self.rounds, 1)
        found = [Point(done, entry.epsilon, entry.exact) for done, entry in rounds if entry.exact]
        if not found and self.own is not None:
            found = [Point(len(self.rounds), self.epsilon, self.own.metrics)]
        return found

    @property
    def measured(self) -> list[Point]:
        """By clients in a round, of the model that the round before had left."""
        before = [0.0 if self.spent else None, *(entry.epsilon for entry in self.rounds)]
        rounds = enumerate(zip(self.rounds, before, strict=False))
        return [Point(done, epsilon, entry.measured) for done, (entry, epsilon) in rounds if entry.measured]

    @property
    def metrics(self) -> list[str]:
        """All that was measured, in the order of its appearance."""
        sources = [point.values for point in (*self.exact, *self.measured)]
        sources += [result.metrics for result in self.run.results]
        return list(dict.fromkeys(name for source in sources for name in source))

    @property
    def metric(self) -> str | None:
        """The one that plots show."""
        return METRIC if METRIC in self.metrics else next(iter(self.metrics), None)

    @property
    def own(self) -> Result | None:
        """The result of the run's own model, which is the last to come."""
        return self.run.results[-1] if self.run.ended and self.run.results else None

    @property
    def others(self) -> list[Result]:
        return [result for result in self.run.results if result is not self.own]

    @property
    def epsilon(self) -> float | None:
        """Spent, against the server, of the first budget."""
        return self.spent[0].epsilon if self.spent else None

    @property
    def epsilon_outsiders(self) -> float | None:
        """The same against those who see no more than models."""
        said = [entry.epsilon_outsiders for entry in self.run.rounds[-1:]]
        return said[0] if self.spent and said and said[0] is not None else self.epsilon

    def figures(self) -> dict[str, object]:
        """What programs are told in the end."""
        return {
            "mode": self.run.mode,
            "rounds": len(self.rounds),
            "ended": self.run.ended,
            "results": {result.name: dict(result.metrics) for result in self.run.results},
            "epsilon": _known(self.epsilon),
            "epsilon_outsiders": _known(self.epsilon_outsiders),
            "budgets": [
                {
                    "ledger": each.promise.ledger,
                    "guarantee": f"{each.promise.unit}, {each.promise.relation}, {each.promise.trust}",
                    "epsilon": _known(each.epsilon),
                    "budget": each.promise.epsilon,
                    "delta": each.promise.delta,
                    "head": each.book.head.hex(),
                }
                for each in self.spent
            ],
        }


def _spent(folder: Path, promise: Spending) -> Spent:
    path = folder / promise.ledger
    if not path.is_file():
        raise StorageError(f"the ledger of the run is missing: {path}")
    rows = read(path)
    book = replay(rows)
    guarantee, budget = book.genesis.guarantee, book.genesis.budget
    kept = (guarantee.unit, guarantee.relation, guarantee.trust, float(budget.epsilon), float(budget.delta))
    if kept != (promise.unit, promise.relation, promise.trust, promise.epsilon, promise.delta):
        raise StorageError(f"{path} is the ledger of another promise than that of the run")
    return Spent(promise, book, tuple(parse(body) for body, _signature in rows[1:]))


def _known(epsilon: float | None) -> float | None:
    return epsilon if epsilon is not None and isfinite(epsilon) else None
