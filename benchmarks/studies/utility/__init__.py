"""What privacy costs in quality: models x budgets x seeds on one data set, beside references of all data in one place.

Users are in silos, or on devices of their own; either way the budget is that of a user for the whole training
(zero-out, one noise for all inside the sums). The data set is fixed; a seed stands for a first model, an order of
training, noise, and where events have one time for an order of these, hence another split. So an interval over seeds
says how far another training would come out elsewhere, and the paired bootstrap over users (of each user's mean over
the seeds) how far another population would. The two are not the same, and both are reported.

Presets are the grids that this repository's figures are from (``presets``), through the real protocol.

``out`` holds what is finished (``benchmarks.studies.utility.cells``), table.md and plot.png. The same call goes on
after any stop.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, fields
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
from benchmarks.studies.utility.presets import IDEAL, PRESETS
from benchmarks.studies.utility.rows import GAIN, NOISELESS, Row, plot, table
from recsys.config import ClientKind, Mode, Source
from recsys.config import Config as Cell
from recsys.deployment import Deployment
from recsys.metrics.comparing import Interval, difference, over_seeds
from recsys.metrics.ranking import Evaluation
from recsys.sentences import EASE, NEAREST, POPULAR, TUNED
from recsys.sources import data_of
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
    preset: str = ""
    """one of ``PRESETS``: what is not said has its values"""
    data: str = "synthetic"
    path: str = ""
    users: int = 2000
    items: int = 2000
    """0: as many as go with so many users"""
    data_seed: int = 1
    habits: str = "calibrated"
    """what the made-up population is like: calibrated or first"""
    models: str = ",".join(RECIPES)
    epsilons: str = "8,3,1"
    """Budgets, beside training without privacy, which is always there."""
    seeds: int = 5
    clients: str = "silos"
    """who the clients are: silos or devices"""
    silos: int = 20
    n_min: int = 0
    """A public number of users, for delta; 0 says that the number of users is public."""
    protocol: str = IDEAL
    """whose sums: those of a protocol, or ideal: the same encoding and noise, and no parties"""
    corrupt: str = "0.05"
    dropout: str = "0.1"
    """The shares of clients that the noise allows for. One colludes at least: a client knows its own noise."""
    regularisation: float = 200.0
    """of EASE as a reference"""
    most: int = 10_000
    """Of more items, only so many take part in EASE, plain or tuned, and ItemKNN is left out."""
    out: str = "runs/utility"
    workers: int = 2

    def __post_init__(self) -> None:
        if self.preset:
            if self.preset not in PRESETS:
                raise UsageError(f"presets are {', '.join(PRESETS)}")
            as_by_default = {one.name for one in fields(self) if getattr(self, one.name) == one.default}
            for name, value in PRESETS[self.preset].items():
                if name in as_by_default:
                    object.__setattr__(self, name, value)
        if self.clients not in list(ClientKind) or self.silos < 2:
            raise UsageError("clients are silos, at least two, or devices")
        if self.protocol != IDEAL:
            Deployment(self.protocol)
        if self.data not in (Source.SYNTHETIC, Source.MOVIELENS) or (self.data == Source.MOVIELENS) != bool(self.path):
            raise UsageError("data is synthetic, or movielens with a path")
        if self.data == Source.MOVIELENS and self.clients == ClientKind.SILOS and not self.n_min:
            raise UsageError("over silos n_min is said: how many users there are is no public number")
        if not set(self.models.split(",")) <= RECIPES.keys():
            raise UsageError(f"models are some of {', '.join(RECIPES)}")
        if self.seeds < 2 or self.workers < 1:
            raise UsageError("an interval takes at least 2 seeds, and somebody works")
        if any(not epsilon > 0 for epsilon in self.budgets) or len(set(self.budgets)) < len(self.budgets):
            raise UsageError("epsilons are above 0 and different, separated by commas")

    @property
    def ideal(self) -> bool:
        return self.protocol == IDEAL

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
        found = {order: _data_of(config, order) for order in dict.fromkeys(orders(config))}
        grid = dict[str, Cell]()
        for order, one in _cells(config, next(iter(found.values()))):
            grid[key_of(one, found[order].mark, config.ideal)] = one
        _fill(grid, store, config, say)
        rows = _rows(grid, store)
    others = {store.found[key].commit for key in grid} - {commit()}
    if others:
        say(f"some cells were measured by other commits: {', '.join(sorted(others))}")
    tied = mean(one.tied for one in found.values())
    write_file(folder / "table.md", table(rows, tied).encode(), private=False)
    write_file(folder / "plot.png", plot(rows), private=False)
    say(f"{folder / 'table.md'} and plot.png are written")
    return _measured(rows, f"{config.preset}/" if config.preset else "", tied)


@dataclass(frozen=True, slots=True)
class _Data:
    """What a grid knows of a split."""

    mark: str
    users: int
    items: int
    tied: float
    """the share of tests that a tie in time decides"""


def _data_of(config: Config, order: int) -> _Data:
    split, *_ = data_of(reference(config, POPULAR, order).data)
    return _Data(fingerprint(split), split.train.user_count, split.train.item_count, split.tied_share)


def orders(config: Config) -> list[int]:
    """In which order events of one time stand, seed by seed: each another draw, where there are such events.

    >>> orders(Config()), orders(Config(data="movielens", path="ml-latest-small", n_min=600, seeds=3))
    ([0, 0, 0, 0, 0], [1, 2, 3])
    """
    return [seed + 1 if config.data == Source.MOVIELENS else 0 for seed in range(config.seeds)]


# The grid


def _cells(config: Config, data: _Data) -> Iterator[tuple[int, Cell]]:
    """Each with its order of tied events. Seed by seed: a grid that was stopped has something to say of each model."""
    named = [name for name in REFERENCES if name != NEAREST or data.items <= config.most]
    for order in dict.fromkeys(orders(config)):
        yield from ((order, reference(config, name, order)) for name in named)
    for seed, order in enumerate(orders(config)):
        for name in config.names:
            for epsilon in (EXACT, *config.budgets):
                yield order, cell(config, data.users, name, epsilon, seed)


def reference(config: Config, name: str, order: int = 0) -> Cell:
    settings: dict[str, Any] = {"items": config.most} if name in (EASE, TUNED) else {}
    if name == EASE:
        settings["regularisation"] = config.regularisation
    return Cell.parse({"title": name, "data": _data(config, order), "model": {"name": name, "settings": settings}})


def training(way: Way, users: int) -> dict[str, Any]:
    """With the size of cohorts, where they are drawn."""
    cohort = {"size": max(2, users // 10)} if way.training.get("draw") else {}
    return {**way.training, **cohort}


def cell(config: Config, users: int, name: str, epsilon: float, seed: int) -> Cell:
    """A model that is trained in rounds has its clients on devices where there is no privacy: that is what its recipe
    is for, and what noise over silos, where each user trains alone, takes away from. A model made of exact sums is one
    for all seeds."""
    way = RECIPES[name].private if epsilon else RECIPES[name].public
    devices = config.clients == ClientKind.DEVICES or (not epsilon and way.training)
    order = orders(config)[seed]
    if not (epsilon or way.training):
        seed = order
    table: dict[str, Any] = {
        "title": f"{name}, {said(epsilon)}, seed {seed}",
        "seed": seed,
        "data": _data(config, order),
        "clients": {"kind": "devices"} if devices else {"kind": "silos", "count": config.silos},
        "model": {"name": name, "settings": dict(way.settings)},
        "training": {"measured": 0.0, **training(way, users)},
        "privacy": {"mode": "none"},
    }
    if epsilon:
        table["privacy"] = {"mode": "distributed", "epsilon": epsilon, "n_min": config.n_min}
        table["protocol"] = {"corrupt": config.corrupt, "dropout": config.dropout}
        if not config.ideal:
            table["protocol"]["name"] = config.protocol
    return Cell.parse(table)


def said(epsilon: float) -> str:
    """
    >>> said(3.0), said(EXACT)
    ('epsilon 3', 'no privacy')
    """
    return f"epsilon {epsilon:g}" if epsilon else "no privacy"


def _data(config: Config, order: int) -> dict[str, Any]:
    if config.data == Source.MOVIELENS:
        return {"source": config.data, "path": config.path, "order": order}
    return {
        "source": config.data,
        "users": config.users,
        "item_count": config.items,
        "seed": config.data_seed,
        "habits": config.habits,
    }


def _fill(grid: Mapping[str, Cell], store: Kept, config: Config, say: Say) -> None:
    todo = {key: one for key, one in grid.items() if key not in store.found}
    say(f"{len(grid)} cells, of which {len(grid) - len(todo)} are there already")
    for outcome in _in_turn(todo, store.folder, config):
        store.add(outcome)
        del todo[outcome.key]
        left = _seconds_left(todo.values(), store.found.values()) / config.workers
        score = f"{METRICS[0]} {outcome.metrics[METRICS[0]]:.4f}"
        say(f"{outcome.title}: {score} after {outcome.seconds:.0f} s; {len(todo)} left, about {left / 60:.0f} min")


def _in_turn(todo: Mapping[str, Cell], folder: Path, config: Config) -> Iterator[Outcome]:
    if config.workers == 1:
        yield from (measure(one, key, folder, config.ideal) for key, one in list(todo.items()))
        return
    pool = ProcessPoolExecutor(config.workers, get_context("spawn"))
    try:
        tasks = [pool.submit(measure, one, key, folder, config.ideal) for key, one in todo.items()]
        for done in as_completed(tasks):
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


def _rows(grid: Mapping[str, Cell], store: Kept) -> list[Row]:
    """One for each reference, and for each model and budget."""
    keys = defaultdict[tuple[str, float], list[str]](list)
    for key, one in grid.items():
        private = one.privacy.mode is Mode.DISTRIBUTED
        keys[one.model.name, one.privacy.epsilon if private else EXACT].append(key)
    users = {place: _over_users([store.evaluation(key) for key in found]) for place, found in keys.items()}
    means = {place: float(one.values[METRICS[0]].mean()) for place, one in users.items()}
    rows = []
    for (name, epsilon), found in keys.items():
        outcomes, own = [store.found[key] for key in found], users[name, epsilon]
        others = [] if name == POPULAR else [POPULAR]
        others += [TUNED] if name not in REFERENCES else []
        against = {other: _gap(own, users[other, EXACT]) for other in others}
        gained = 0.0
        if epsilon:
            against[NOISELESS] = _gap(own, users[name, EXACT])
            could = means[name, EXACT] - means[POPULAR, EXACT]
            gained = (means[name, epsilon] - means[POPULAR, EXACT]) / could if could > 0 else 0.0
        rows.append(
            Row(
                name,
                epsilon,
                {metric: _interval([one.metrics[metric] for one in outcomes]) for metric in (*METRICS, *AMONG)},
                float(own.values[METRICS[0]].std(ddof=1) / len(own.users) ** 0.5),
                against,
                gained,
                max(one.epsilon for one in outcomes),
                max(one.verified for one in outcomes),
            )
        )
    return rows


def _over_users(runs: list[Evaluation]) -> Evaluation:
    """Each user's mean over the seeds."""
    return Evaluation(runs[0].users, {METRICS[0]: np.mean([one.values[METRICS[0]] for one in runs], axis=0)}, {}, 0)


def _gap(one: Evaluation, other: Evaluation) -> Interval:
    return difference(one, other, METRICS[0])


def _interval(values: list[float]) -> Interval:
    """Of a reference that has no seeds, the value alone."""
    return over_seeds(values) if len(values) > 1 else Interval(values[0], 0.0, values[0], values[0])


def _measured(rows: list[Row], preset: str, tied: float) -> Measured:
    """Figures are called [preset/]model/epsilon[/what], with "none" for no privacy, and the first metric where nothing
    more is said; ratios compare means of it."""
    figures: dict[str, float] = {f"{preset}share of tests decided by a tie in time": tied}
    ratios: dict[str, float] = {}
    best = {(row.name, row.epsilon): row.metrics[METRICS[0]].mean for row in rows}
    for row in rows:
        place = f"{preset}{row.name}/{row.epsilon:g}" if row.epsilon else f"{preset}{row.name}/none"
        figures[place] = row.metrics[METRICS[0]].mean
        for metric, found in row.metrics.items():
            figures |= {f"{place}/{metric}": found.mean}
            figures |= {f"{place}/{metric} low": found.low, f"{place}/{metric} high": found.high}
        figures[f"{place}/{METRICS[0]} error over users"] = row.users_error
        for other, gap in row.against.items():
            figures |= {f"{place}/minus {other}": gap.mean}
            figures |= {f"{place}/minus {other} low": gap.low, f"{place}/minus {other} high": gap.high}
        if row.epsilon:
            figures |= {f"{place}/epsilon charged": row.charged, f"{place}/epsilon verified": row.verified}
            ratios[f"{place}/{GAIN}"] = row.gained
        for other, place_of_other in (
            *((name, (name, EXACT)) for name in (POPULAR, EASE, TUNED)),
            (NOISELESS, (row.name, EXACT)),
        ):
            if best[place_of_other] and (row.name, row.epsilon) != place_of_other and row.name not in REFERENCES:
                ratios[f"{place} vs {other}"] = best[row.name, row.epsilon] / best[place_of_other]
    return Measured(figures, ratios)
