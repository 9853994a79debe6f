"""What privacy costs in quality: models x budgets x seeds on one data set, beside references of all data in one place.

Users are in silos, or on devices of their own; either way the budget is that of a user for the whole training
(zero-out, one noise for all inside the sums). Each private model stands beside its own recipe without noise, beside its
best training without privacy, which is another recipe (``recipes``), and beside the best that there is without privacy
at all: of the rows without noise that with the highest mean on the test, so the comparison is, if anything, too hard.

The data set is fixed; a seed stands for a first model, an order of training, noise, and where events have one time for
an order of these, hence another split. So an interval over seeds says how far another training would come out
elsewhere, and the paired bootstrap over users (of each user's mean over the seeds) how far another population would.
The two are not the same, and both are reported.

``generalisation=strong`` holds out users instead of events (``divided``), one draw of them for all seeds.

Presets are the grids that this repository's figures are from (``presets``).

``out`` holds what is finished (``benchmarks.studies.utility.cells``), table.md and plot.png. The same call goes on
after any stop.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, fields, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from benchmarks.case import Measured, Say, commit
from benchmarks.studies.utility.cells import REFERENCES, Cell, Kept, Kind, Outcome, kept, measure
from benchmarks.studies.utility.presets import IDEAL, PRESETS
from benchmarks.studies.utility.recipes import RECIPES, Way
from benchmarks.studies.utility.rows import BEST_OF_ALL, GAIN, Row, best_without_privacy, plot, table
from recsys.config import ClientKind, Source
from recsys.config import Config as RunConfig
from recsys.data.strong import HELD_OUT
from recsys.deployment import Deployment
from recsys.metrics.comparing import Interval, difference, over_seeds
from recsys.metrics.ranking import Evaluation
from recsys.sentences import EASE, NEAREST, POPULAR, TUNED
from secagg.errors import UsageError
from secagg.files import write_file

WEAKLY, STRONGLY = "weak", "strong"


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
    generalisation: str = WEAKLY
    """weak: each user's last event is held out; strong: users are"""
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
        if self.generalisation not in (WEAKLY, STRONGLY):
            raise UsageError("generalisation is weak or strong")
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
    def strong(self) -> bool:
        return self.generalisation == STRONGLY

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
    found = {order: _data_of(config, order) for order in dict.fromkeys(orders(config))}
    grid = dict[str, Cell]()
    for order, one in cells_of(config, next(iter(found.values()))):
        grid.setdefault(one.key(found[order].mark), one)
    with kept(folder) as store:
        _fill(grid, store, config, say)
        rows = _rows(grid, store)
    others = {store.found[key].commit for key in grid} - {commit()}
    if others:
        say(f"some cells were measured by other commits: {', '.join(sorted(others))}")
    tied = mean(one.tied for one in found.values())
    write_file(folder / "table.md", table(rows, tied).encode(), private=False)
    write_file(folder / "plot.png", plot(rows), private=False)
    say(f"{folder / 'table.md'} and plot.png are written")
    return _measured(rows, "/".join([*filter(None, [config.preset]), *(["strong"] if config.strong else []), ""]), tied)


@dataclass(frozen=True, slots=True)
class _Data:
    """What a grid knows of a split."""

    mark: str
    items: int
    tied: float
    """the share of tests that a tie in time decides"""


def _data_of(config: Config, order: int) -> _Data:
    data = reference(config, POPULAR, order).divided()
    return _Data(data.mark(), data.training.train.item_count, data.tied)


def orders(config: Config) -> list[int]:
    """In which order events of one time stand, seed by seed: each another draw, where there are such events.

    >>> orders(Config()), orders(Config(data="movielens", path="ml-latest-small", n_min=600, seeds=3))
    ([0, 0, 0, 0, 0], [1, 2, 3])
    """
    drawn = config.data == Source.MOVIELENS and not config.strong
    return [seed + 1 if drawn else 0 for seed in range(config.seeds)]


# The grid


def cells_of(config: Config, data: _Data) -> Iterator[tuple[int, Cell]]:
    """Each with its order of tied events. Seed by seed: a grid that was stopped has something to say of each model."""
    named = [name for name in REFERENCES if name != NEAREST or data.items <= config.most]
    for order in dict.fromkeys(orders(config)):
        yield from ((order, reference(config, name, order)) for name in named)
    for seed, order in enumerate(orders(config)):
        for name in config.names:
            if RECIPES[name].best is not None:
                yield order, best(config, name, seed)
            for epsilon in config.budgets:
                yield order, private(config, name, epsilon, seed)
                yield order, noiseless(config, name, epsilon, seed)


def reference(config: Config, name: str, order: int = 0) -> Cell:
    settings: dict[str, Any] = {"items": config.most} if name in (EASE, TUNED) else {}
    if name == EASE:
        settings["regularisation"] = config.regularisation
    table = {"title": name, "data": _data(config, order), "model": {"name": name, "settings": settings}}
    return Cell(Kind.REFERENCE, RunConfig.parse(table), config.strong)


def best(config: Config, name: str, seed: int) -> Cell:
    """Its best training without privacy."""
    table = {
        "title": f"{name}, its best training without privacy, seed {seed}",
        "seed": seed,
        "data": _data(config, orders(config)[seed]),
        "model": {"name": name, "settings": dict(RECIPES[name].best or {})},
    }
    return Cell(Kind.BEST, RunConfig.parse(table), config.strong)


def private(config: Config, name: str, epsilon: float, seed: int) -> Cell:
    """Trained by clients, with noise in their sums."""
    way = RECIPES[name].at(epsilon)
    table: dict[str, Any] = {
        "title": f"{name}, epsilon {epsilon:g}, seed {seed}",
        "seed": seed,
        "data": _data(config, orders(config)[seed]),
        "clients": {"kind": "devices"}
        if config.clients == ClientKind.DEVICES
        else {"kind": "silos", "count": config.silos},
        "model": {"name": name, "settings": dict(way.settings)},
        "training": {"measured": 0.0, **way.training},
        "privacy": {"mode": "distributed", "epsilon": epsilon, "n_min": _public_users(config)},
        "protocol": {"corrupt": config.corrupt, "dropout": config.dropout},
    }
    if not config.ideal:
        table["protocol"]["name"] = config.protocol
    return Cell(Kind.PRIVATE, RunConfig.parse(table), config.strong, config.ideal)


def noiseless(config: Config, name: str, epsilon: float, seed: int) -> Cell:
    """The recipe of that epsilon, without noise. A model made of exact sums is one for all seeds."""
    found = private(config, name, epsilon, seed)
    run = replace(found.config, title=f"{name}, the recipe of epsilon {epsilon:g} without noise, seed {seed}")
    if not RECIPES[name].at(epsilon).training:
        run = replace(run, seed=orders(config)[seed])
    return replace(found, kind=Kind.NOISELESS, config=run)


def _public_users(config: Config) -> int:
    """What is public of the number of users that are trained on; 0: that of the made-up population."""
    if not config.strong:
        return config.n_min
    users = config.n_min or config.users
    return users - 2 * min(HELD_OUT, users // 10)


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
        metric, score = next(iter(outcome.metrics.items()))
        took = f"{metric} {score:.4f} after {outcome.seconds:.0f} s"
        say(f"{outcome.title}: {took}; {len(todo)} left, about {left / 60:.0f} min")


def _in_turn(todo: Mapping[str, Cell], folder: Path, config: Config) -> Iterator[Outcome]:
    if config.workers == 1:
        yield from (measure(one, key, folder) for key, one in list(todo.items()))
        return
    pool = ProcessPoolExecutor(config.workers, get_context("spawn"))
    try:
        tasks = [pool.submit(measure, one, key, folder) for key, one in todo.items()]
        for done in as_completed(tasks):
            yield done.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _seconds_left(todo: Iterable[Cell], done: Iterable[Outcome]) -> float:
    """As long as the same was before, or the same model, or as long as anything."""
    seconds = defaultdict[tuple[str, ...], list[float]](list)
    for one in done:
        for place in ((name := one.config["model"]["name"], one.kind), (name,), ()):
            seconds[place].append(one.seconds)

    def expected(cell: Cell) -> float:
        places = ((name := cell.config.model.name, cell.kind.value), (name,), ())
        return mean(next(seconds[place] for place in places if place in seconds))

    return sum(map(expected, todo))


# What came out


def _rows(grid: Mapping[str, Cell], store: Kept) -> list[Row]:
    """One for each reference, and for each model in each of its ways."""
    ways = defaultdict[tuple[str, Kind, Any], list[str]](list)
    budgets = sorted({one.config.privacy.epsilon for one in grid.values() if one.kind is Kind.PRIVATE}, reverse=True)
    for key, one in grid.items():
        name, epsilon = one.config.model.name, one.config.privacy.epsilon
        made = one.config.training.rounds, one.config.training.server_rate, str(one.config.model.settings)
        which = {Kind.PRIVATE: (epsilon,), Kind.NOISELESS: made}.get(one.kind, ())
        ways[name, one.kind, which].append(key)
    rows, users = [], dict[int, Evaluation]()
    for (name, kind, _), found in ways.items():
        outcomes, first = [store.found[key] for key in found], grid[found[0]].config
        metric = next(iter(outcomes[0].metrics))
        own = _over_users([store.evaluation(key, metric) for key in found], metric)
        same = [one for one in budgets if kind is Kind.NOISELESS and RECIPES[name].at(one) is _way(name, first)]
        row = Row(
            name,
            kind,
            (first.privacy.epsilon,) if kind is Kind.PRIVATE else tuple(same),
            {metric: _interval([one.metrics[metric] for one in outcomes]) for metric in outcomes[0].metrics},
            float(own.values[metric].std(ddof=1) / len(own.users) ** 0.5),
            max(one.epsilon for one in outcomes),
            max(one.verified for one in outcomes),
            all_budgets=len(same) == len(budgets),
        )
        rows.append(row)
        users[id(row)] = own
    return [_compared(row, rows, users) for row in rows]


def _way(name: str, config: RunConfig) -> Way:
    return RECIPES[name].at(config.privacy.epsilon)


def _compared(row: Row, rows: list[Row], users: Mapping[int, Evaluation]) -> Row:
    """With its distances to what it is measured against."""
    others = {POPULAR: next(one for one in rows if one.name == POPULAR)}
    gained = None
    if row.kind is Kind.PRIVATE:
        (epsilon,) = row.epsilons
        own = [one for one in rows if one.name == row.name]
        for one in own:
            if one.kind is Kind.BEST or (one.kind is Kind.NOISELESS and epsilon in one.epsilons):
                others[one.kind] = one
        could = difference(users[id(others[Kind.NOISELESS])], users[id(others[POPULAR])], row.metric)
        if could.low > 0:
            popular = others[POPULAR].score
            gained = (row.score - popular) / (others[Kind.NOISELESS].score - popular)
    if row.kind is not Kind.REFERENCE:
        others[TUNED] = next(one for one in rows if one.name == TUNED)
        others[BEST_OF_ALL] = best_without_privacy(rows)
    gaps = {
        name: difference(users[id(row)], users[id(one)], row.metric) for name, one in others.items() if one is not row
    }
    ratios = {name: row.score / one.score for name, one in others.items() if one is not row and one.score}
    return replace(row, against=gaps, ratios=ratios if row.kind is not Kind.REFERENCE else {}, gained=gained)


def _over_users(runs: list[Evaluation], metric: str) -> Evaluation:
    """Each user's mean over the seeds."""
    return Evaluation(runs[0].users, {metric: np.mean([one.values[metric] for one in runs], axis=0)}, {}, 0)


def _interval(values: list[float]) -> Interval:
    """Of a model that has no seeds, the value alone."""
    return over_seeds(values) if len(values) > 1 else Interval(values[0], 0.0, values[0], values[0])


def _measured(rows: list[Row], preset: str, tied: float) -> Measured:
    """Figures are called [preset/]model/epsilon[/what], with "none" for references and for the best training without
    privacy, and "8 without noise" for the recipe of epsilon 8, and the first metric where nothing more is said; ratios
    compare means of it."""
    figures: dict[str, float] = {f"{preset}share of tests decided by a tie in time": tied}
    ratios: dict[str, float] = {}
    for row in rows:
        for where in row.places:
            place = f"{preset}{where}"
            figures[place] = row.score
            for metric, found in row.metrics.items():
                figures |= {f"{place}/{metric}": found.mean}
                figures |= {f"{place}/{metric} low": found.low, f"{place}/{metric} high": found.high}
            figures[f"{place}/{row.metric} error over users"] = row.users_error
            for other, gap in row.against.items():
                figures |= {f"{place}/minus {other}": gap.mean}
                figures |= {f"{place}/minus {other} low": gap.low, f"{place}/minus {other} high": gap.high}
            ratios |= {f"{place} vs {other}": ratio for other, ratio in row.ratios.items()}
            if row.kind is Kind.PRIVATE:
                figures |= {f"{place}/epsilon charged": row.charged, f"{place}/epsilon verified": row.verified}
                if row.gained is not None:
                    ratios[f"{place}/{GAIN}"] = row.gained
    return Measured(figures, ratios)
