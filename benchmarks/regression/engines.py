"""What cores and machines buy: a server's removal of masks, crowds of simulated clients, trees of cohorts.

Ray runs on this machine, with as many workers as threads, and listens on 127.0.0.1. Times of one core and of several
are taken in turn; so are, beside them, the seconds that all cores together worked, and the load that was there before.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from statistics import median
from time import perf_counter, process_time
from typing import Any

import numpy as np

from benchmarks.case import Measured, Say
from benchmarks.memory import peak, start_peak
from benchmarks.rounds import LENIENT, people
from protocols.engines import Engine, Hosted, add_masks_on
from protocols.engines.local import Threads
from protocols.pairwise.parameters import parameters_of
from protocols.plan import RoundPlan
from protocols.server import serve
from protocols.simulation.network import Faults
from protocols.simulation.trees import grown, simulate_tree
from protocols.simulation.workers import simulate_on_workers
from protocols.tree import Terms
from secagg.encoding import Encoding
from secagg.errors import UsageError
from secagg.extras import need

_PARTS = {"removal", "crowd", "tree"}
_SECRET = b"benchmark secret, not a secret.."


@dataclass(frozen=True, slots=True)
class Config:
    parts: str = "removal,crowd,tree"
    workers: int = 2
    d: int = 1_000_000
    masks: int = 1000
    repeats: int = 5
    crowd: str = "1000,5000"
    crowd_d: int = 10_000
    drop: float = 0.02
    tree: int = 5000
    cohort: int = 500

    def __post_init__(self) -> None:
        if not set(self.parts.split(",")) <= _PARTS:
            raise UsageError(f"parts are some of {', '.join(sorted(_PARTS))}")
        if min(self.workers, self.d, self.masks, self.repeats, self.crowd_d) < 1:
            raise UsageError("workers, d, masks, repeats and crowd_d are at least 1")
        if not all(size.isdecimal() and int(size) >= 20 for size in self.crowd.split(",")):
            raise UsageError("crowd is a list of numbers of clients, 20 or more, separated by commas")
        if not 0 <= self.drop < 0.1 or not 20 <= self.cohort < self.tree:
            raise UsageError("drop is in [0, 0.1), a cohort has at least 20 clients and a tree more than one cohort")


DEFAULTS = Config()


def run(config: Config, say: Say) -> Measured:
    need("ray", "the comparison of engines")
    from protocols.engines.ray import OnRay

    figures: dict[str, float] = {"load": os.getloadavg()[0]}
    ratios: dict[str, float] = {}
    parts = config.parts.split(",")
    with OnRay(config.workers) as ray:
        if "removal" in parts:
            _removal(config, {"threads": Threads(config.workers), "ray": ray}, figures, ratios, say)
        if "crowd" in parts:
            _crowds(config, ray, figures, ratios, say)
        if "tree" in parts:
            _tree(config, ray, figures, ratios, say)
    return Measured(figures, ratios)


def _removal(
    config: Config, engines: dict[str, Engine], figures: dict[str, float], ratios: dict[str, float], say: Say
) -> None:
    say(f"removal: {config.masks} masks of {config.d} coordinates, one core and {config.workers}")
    seeds = [os.urandom(32) for _ in range(config.masks)]
    alone, expected = Threads(1), np.zeros(config.d, np.uint32)
    add_masks_on(alone, expected, seeds[::2], seeds[1::2])

    def once(engine: Engine) -> tuple[float, float]:
        target = np.zeros(config.d, np.uint32)
        gc.collect()
        began, worked = perf_counter(), process_time()
        add_masks_on(engine, target, seeds[::2], seeds[1::2])
        took = perf_counter() - began, process_time() - worked
        if not np.array_equal(target, expected):
            raise RuntimeError("the masks are wrong")
        return took

    for name, engine in engines.items():
        once(engine)  # processes are started, modules are imported
        pairs = [(once(alone), once(engine)) for _ in range(config.repeats)]
        ratios[f"removal_speedup_{name}"] = median(one[0] / many[0] for one, many in pairs)
        figures[f"removal_{name}_s"] = median(many[0] for _, many in pairs)
        figures["removal_one_core_s"] = median(one[0] for one, _ in pairs)
        if name == "threads":  # of other processes this one does not know
            ratios["removal_cpu_threads"] = median(many[1] / one[1] for one, many in pairs)


def _crowds(config: Config, ray: Engine, figures: dict[str, float], ratios: dict[str, float], say: Say) -> None:
    sizes = [int(size) for size in config.crowd.split(",")]
    for n in sizes:
        identities, roster = people(n)
        plan = RoundPlan.propose(
            "secagg+", roster, Encoding.integers(config.crowd_d, 16), min_contributors=min(50, n // 2)
        )
        degree = parameters_of(plan).degree
        gone = roster.names[:: max(round(1 / config.drop), 1)] if config.drop else ()
        say(f"crowd: n = {n}, k = {degree}, d = {config.crowd_d}, {len(gone)} gone before UPLOAD")
        watched = _Watched(ray)
        start_peak()
        began = perf_counter()
        ran = simulate_on_workers(
            serve(plan, roster, engine=ray),
            identities,
            _Update(config.crowd_d),
            policy=LENIENT,
            engine=watched,
            secret=_SECRET,
            faults=Faults(dropouts=dict.fromkeys(gone, "upload")),
        )
        figures[f"crowd_{n}_s"] = perf_counter() - began
        _check(ran.outcome.total, ran.outcome.survivors, config.crowd_d)
        here, there = peak(), [peak(pid) for pid in watched.pids]
        figures[f"crowd_{n}_degree"] = degree
        figures[f"crowd_{n}_server_mib"] = here / 2**20
        figures[f"crowd_{n}_worker_mib"] = max(there) / 2**20
        figures[f"crowd_{n}_all_mib"] = (here + sum(there)) / 2**20
        figures[f"crowd_{n}_survivors"] = len(ran.outcome.survivors)


def _tree(config: Config, ray: Engine, figures: dict[str, float], ratios: dict[str, float], say: Say) -> None:
    tree = grown(config.tree, config.cohort, _SECRET, Terms(config.cohort // 2), Terms(2, "secagg", corrupt="0"))
    say(f"tree: {config.tree} clients in {tree.cohorts(0)} cohorts, d = {config.crowd_d}")
    start_peak()
    began = perf_counter()
    ran = simulate_tree(
        tree,
        Encoding.integers(config.crowd_d, 16),
        _Update(config.crowd_d),
        engine=ray,
        secret=_SECRET,
        round_=0,
    )
    figures["tree_s"] = perf_counter() - began
    figures["tree_root_mib"] = peak() / 2**20
    figures["tree_worker_mib"] = max(ray.map(_peak, range(4 * ray.workers))) / 2**20
    figures["tree_cohorts"] = tree.cohorts(0)
    figures["tree_clients"] = ran.total.weight
    names = [name for one in ran.rounds[0] if not isinstance(one, str) for name in one.outcome.survivors]
    _check(ran.total.vector, names, config.crowd_d)


@dataclass(frozen=True, slots=True)
class _Update:
    """A client's vector, made where the client is."""

    length: int

    def __call__(self, name: str) -> np.ndarray[Any, np.dtype[np.int64]]:
        number = int(name.rpartition("-")[2])
        return np.random.default_rng(number).integers(-(1 << 15) + 1, 1 << 15, self.length)


def _check(total: np.ndarray[Any, Any], names: Iterable[str], length: int) -> None:
    """A benchmark of a wrong sum is worth nothing."""
    expected, update = np.zeros(length, np.int64), _Update(length)
    for name in names:
        expected += update(name)
    if not np.array_equal(total, expected):
        raise RuntimeError("the sum is wrong")


class _Watched(Engine):
    """An engine of which it is known in which processes it keeps things."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self.workers, self.pids = engine, engine.workers, list[int]()

    def map(self, work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        return self._engine.map(work, items)

    def host(self, make: Callable[[], Any]) -> Hosted[Any]:
        placed = self._engine.host(make)
        self.pids.append(placed.ask(_pid, None)())
        return placed


def _peak(_item: int) -> int:
    return peak()


def _pid(_kept: object, _argument: None) -> int:
    return os.getpid()
