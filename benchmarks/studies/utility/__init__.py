"""What privacy costs in quality: models x budgets x seeds on one data set, with popularity and EASE as references.

Each user is a client, and the budget is that of a user for the whole training (zero-out, noise inside the sums). The
data set and its split are fixed; a seed stands for a first model, an order of training, and noise. So an interval over
seeds says how far another training would come out elsewhere, and the paired bootstrap over users (of each user's mean
over the seeds) how far another population would. The two are not the same, and both are reported.

``out`` holds what is finished (``benchmarks.studies.utility.cells``), table.md and plot.png. The same call goes on
after any stop.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from benchmarks.case import Measured, Say, commit
from benchmarks.studies.utility.cells import (
    AMONG,
    METRICS,
    REFERENCES,
    Kept,
    Outcome,
    fingerprint,
    kept,
    key_of,
    measure,
)
from benchmarks.studies.utility.rows import NOISELESS, Row, plot, table
from recsys.assembly import data_of
from recsys.config import Config as Cell
from recsys.config import Mode, Source
from recsys.metrics.comparing import Interval, difference, over_seeds
from recsys.metrics.ranking import Evaluation
from secagg.errors import UsageError
from secagg.files import write_file

EXACT = 0.0
"""Stands for a budget where there is none."""


@dataclass(frozen=True, slots=True)
class Way:
    """A model's own settings, and those of ``training``; without any, the model is made of sums."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model is trained without privacy and with it: noise asks for fewer numbers, and for fewer rounds.

    What is trained under privacy has settings from synthetic populations alone; without privacy they are the model's
    own. Rounds with drawn cohorts have a tenth of the users. Of ``neumf`` and ``sasrec`` little was tried.
    """

    public: Way = field(default_factory=Way)
    private: Way = field(default_factory=Way)


_ADAM = {"server": "fedadam", "server_rate": 0.003, "rate": 10.0, "clip": 100.0, "draw": "fixed"}
_PLAIN = {"server": "fedavg", "server_rate": 60.0, "rate": 1.0, "clip": 1.0}
_NEURAL = Recipe(
    Way(training={"rounds": 400, **_ADAM}), Way({"width": 8}, {"rounds": 6, **_PLAIN, "server_rate": 10.0})
)

RECIPES: Mapping[str, Recipe] = {
    "private-ease": Recipe(),
    "private-mf": Recipe(),
    "mf": Recipe(
        Way(training={"rounds": 250, **_ADAM, "rate": 100.0, "batch": 1}),
        Way(
            {"width": 16, "loss": "bce", "unseen": 0.01, "ridge": 2.0, "bias": 0.3, "fading": 0.95},
            {"rounds": 10, "rate": 10.0, "batch": 1, "clip": 0.5, "server": "fedavg", "server_rate": 600.0},
        ),
    ),
    "autoencoder": _NEURAL,
    "neumf": _NEURAL,
    "sasrec": _NEURAL,
}


@dataclass(frozen=True, slots=True)
class Config:
    data: str = "synthetic"
    path: str = ""
    users: int = 2000
    items: int = 2000
    """0: as many as go with so many users"""
    data_seed: int = 1
    models: str = ",".join(RECIPES)
    epsilons: str = "8,3,1"
    """Budgets, beside training without privacy, which is always there."""
    seeds: int = 5
    n_min: int = 0
    """A public number of users, for delta; 0 says that the number of users is public."""
    corrupt: str = "0"
    dropout: str = "0"
    """What the noise allows for; with 0 nobody colludes with the server, and nobody is missing."""
    regularisation: float = 200.0
    """of EASE as a reference"""
    out: str = "runs/utility"
    workers: int = 2

    def __post_init__(self) -> None:
        if self.data not in (Source.SYNTHETIC, Source.MOVIELENS) or (self.data == Source.MOVIELENS) != bool(self.path):
            raise UsageError("data is synthetic, or movielens with a path")
        if not set(self.models.split(",")) <= RECIPES.keys():
            raise UsageError(f"models are some of {', '.join(RECIPES)}")
        if self.seeds < 2 or self.workers < 1:
            raise UsageError("an interval takes at least 2 seeds, and somebody works")
        if any(not epsilon > 0 for epsilon in self.budgets) or len(set(self.budgets)) < len(self.budgets):
            raise UsageError("epsilons are above 0 and different, separated by commas")

    @property
    def names(self) -> list[str]:
        return self.models.split(",")

    @property
    def budgets(self) -> list[float]:
        try:
            return [float(word) for word in self.epsilons.split(",")]
        except ValueError:
            raise UsageError("epsilons are numbers, separated by commas") from None


DEFAULTS = Config()


def run(config: Config, say: Say) -> Measured:
    """Measure what is not measured yet, and compare."""
    folder = Path(config.out)
    with kept(folder) as store:
        split, *_ = data_of(reference(config, "ItemPop").data)
        data, users = fingerprint(split), split.train.user_count
        del split
        grid = {key_of(one, data): one for one in _cells(config, users)}
        _fill(grid, store, config.workers, say)
        rows = _rows(config, grid, store)
    others = {store.found[key].commit for key in grid} - {commit()}
    if others:
        say(f"some cells were measured by other commits: {', '.join(sorted(others))}")
    write_file(folder / "table.md", table(rows).encode(), private=False)
    write_file(folder / "plot.png", plot(rows), private=False)
    say(f"{folder / 'table.md'} and plot.png are written")
    return _measured(rows)


# The grid


def _cells(config: Config, users: int) -> Iterator[Cell]:
    """Seed by seed: a grid that was stopped has something to say of each model."""
    yield from (reference(config, name) for name in REFERENCES)
    for seed in range(config.seeds):
        for name in config.names:
            yield from (cell(config, users, name, epsilon, seed) for epsilon in (EXACT, *config.budgets))


def reference(config: Config, name: str) -> Cell:
    settings = {"regularisation": config.regularisation} if name == "EASE" else {}
    return Cell.parse({"title": name, "data": _data(config), "model": {"name": name, "settings": settings}})


def training(way: Way, users: int) -> dict[str, Any]:
    """With the size of cohorts, where they are drawn."""
    cohort = {"size": max(2, users // 10)} if way.training.get("draw") else {}
    return {**way.training, **cohort}


def cell(config: Config, users: int, name: str, epsilon: float, seed: int) -> Cell:
    way = RECIPES[name].private if epsilon else RECIPES[name].public
    table: dict[str, Any] = {
        "title": f"{name}, {said(epsilon)}, seed {seed}",
        "seed": seed,
        "data": _data(config),
        "clients": {"kind": "devices"},
        "model": {"name": name, "settings": dict(way.settings)},
        "training": {"measured": 0.0, **training(way, users)},
        "privacy": {"mode": "none"},
    }
    if epsilon:
        table["privacy"] = {"mode": "distributed", "epsilon": epsilon, "n_min": config.n_min}
        table["protocol"] = {"corrupt": config.corrupt, "dropout": config.dropout}
    return Cell.parse(table)


def said(epsilon: float) -> str:
    """
    >>> said(3.0), said(EXACT)
    ('epsilon 3', 'no privacy')
    """
    return f"epsilon {epsilon:g}" if epsilon else "no privacy"


def _data(config: Config) -> dict[str, Any]:
    if config.data == Source.MOVIELENS:
        return {"source": config.data, "path": config.path}
    return {"source": config.data, "users": config.users, "item_count": config.items, "seed": config.data_seed}


def _fill(grid: Mapping[str, Cell], store: Kept, workers: int, say: Say) -> None:
    todo = {key: one for key, one in grid.items() if key not in store.found}
    say(f"{len(grid)} cells, of which {len(grid) - len(todo)} are there already")
    for outcome in _in_turn(todo, store.folder, workers):
        store.add(outcome)
        del todo[outcome.key]
        left = _seconds_left(todo.values(), store.found.values()) / workers
        score = f"{METRICS[0]} {outcome.metrics[METRICS[0]]:.4f}"
        say(f"{outcome.title}: {score} after {outcome.seconds:.0f} s; {len(todo)} left, about {left / 60:.0f} min")


def _in_turn(todo: Mapping[str, Cell], folder: Path, workers: int) -> Iterator[Outcome]:
    if workers == 1:
        yield from (measure(one, key, folder) for key, one in list(todo.items()))
        return
    pool = ProcessPoolExecutor(workers, get_context("spawn"))
    try:
        for done in as_completed([pool.submit(measure, one, key, folder) for key, one in todo.items()]):
            yield done.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _seconds_left(todo: Iterable[Cell], done: Iterable[Outcome]) -> float:
    """As long as the same model took before, or as long as any did."""
    seconds = defaultdict[str, list[float]](list)
    for one in done:
        seconds[one.config["model"]["name"]].append(one.seconds)
    any_ = mean(mean(each) for each in seconds.values())
    return sum(mean(seconds.get(one.model.name) or [any_]) for one in todo)


# What came out


def _rows(config: Config, grid: Mapping[str, Cell], store: Kept) -> list[Row]:
    """One for each reference, and for each model and budget."""
    keys = defaultdict[tuple[str, float], list[str]](list)
    for key, one in grid.items():
        private = one.privacy.mode is Mode.DISTRIBUTED
        keys[one.model.name, one.privacy.epsilon if private else EXACT].append(key)
    users = {place: _over_users([store.evaluation(key) for key in found]) for place, found in keys.items()}
    rows = []
    for (name, epsilon), found in keys.items():
        outcomes, own = [store.found[key] for key in found], users[name, epsilon]
        against = {} if name == "ItemPop" else {"ItemPop": _gap(own, users["ItemPop", EXACT])}
        if epsilon:
            against[NOISELESS] = _gap(own, users[name, EXACT])
        rows.append(
            Row(
                name,
                epsilon,
                {metric: _interval([one.metrics[metric] for one in outcomes]) for metric in (*METRICS, *AMONG)},
                float(own.values[METRICS[0]].std(ddof=1) / len(own.users) ** 0.5),
                against,
                max(one.epsilon for one in outcomes),
            )
        )
    return rows


def _over_users(runs: list[Evaluation]) -> Evaluation:
    """Each user's mean over the seeds."""
    return Evaluation(runs[0].users, {METRICS[0]: np.mean([one.values[METRICS[0]] for one in runs], axis=0)}, {}, 0)


def _gap(one: Evaluation, other: Evaluation) -> Interval:
    return difference(one, other, METRICS[0])


def _interval(values: list[float]) -> Interval:
    """Of a reference, which has no seeds, the value alone."""
    return over_seeds(values) if len(values) > 1 else Interval(values[0], 0.0, values[0], values[0])


def _measured(rows: list[Row]) -> Measured:
    """Figures are called model/epsilon/metric, with "none" for no privacy; ratios compare means of NDCG@10."""
    figures: dict[str, float] = {}
    ratios: dict[str, float] = {}
    best = {(row.name, row.epsilon): row.metrics[METRICS[0]].mean for row in rows}
    for row in rows:
        place = f"{row.name}/{row.epsilon:g}" if row.epsilon else f"{row.name}/none"
        for metric, found in row.metrics.items():
            figures |= {f"{place}/{metric}": found.mean}
            figures |= {f"{place}/{metric} low": found.low, f"{place}/{metric} high": found.high}
        figures[f"{place}/{METRICS[0]} error over users"] = row.users_error
        for other, gap in row.against.items():
            figures |= {f"{place}/minus {other}": gap.mean}
            figures |= {f"{place}/minus {other} low": gap.low, f"{place}/minus {other} high": gap.high}
        if row.epsilon:
            figures[f"{place}/epsilon charged"] = row.charged
        for other, place_of_other in (
            ("ItemPop", ("ItemPop", EXACT)),
            ("EASE", ("EASE", EXACT)),
            (NOISELESS, (row.name, EXACT)),
        ):
            if best[place_of_other] and (row.name, row.epsilon) != place_of_other and row.name not in REFERENCES:
                ratios[f"{place} vs {other}"] = best[row.name, row.epsilon] / best[place_of_other]
    return Measured(figures, ratios)
