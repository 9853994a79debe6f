"""How long it takes, in simulated time, to train a model as well as rounds that wait for everybody do.

Silos train at paces of their own: log-normal, so that the quartiles are ten times apart (``speeds``), drawn by name and
not by data. The unit of privacy is a user in a silo, noise is inside the sums, and all ways have one epsilon, which no
silo's charges pass:

    waits      cohorts in turns, each round until the last of them has trained
    over       the same with 1.3 times as many called: a round goes on with the first ``size``, the others are dropouts,
               for which the noise of each allows
    async      whoever has trained is in the next sum of ``size`` (``protocols.buffers``). Each silo is in as many sums
               as with turns, times ``room``; all dishonest silos may be in one sum

A sum's own messages take ``messages`` seconds, against ``training`` as the median of training. After each ``every``
sums the model is measured on all users' test events; its quality is the mean of the last ``smooth`` of these. The time
of a way is when that is first as good as in its end (and, which takes luck, as good as it ever was), and ``async`` is
asked when it is as good as that. Encoding, clipping and noise are those of secure sums, added up in the clear: what is
asked is what time does, and not what masks cost.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from statistics import mean, median
from typing import Any, cast

from benchmarks.case import Measured, Say
from recsys.assembly import Prepared, prepare
from recsys.config import Config as RunConfig
from recsys.ideal_aggregator import IdealAggregator
from recsys.metrics.ranking import evaluate
from recsys.models.recommender import SharedModel
from secagg.errors import BudgetError, UsageError

METRIC = "NDCG@10"
WAITS, OVER, ASYNC = "waits", "over", "async"

Curve = list[tuple[float, float]]
"""Simulated seconds, and the quality then."""


@dataclass(frozen=True, slots=True)
class Settings:
    users: int = 6000
    items: int = 300
    silos: int = 60
    size: int = 20
    """silos in a sum"""
    rounds: int = 60
    """of those that wait"""
    seeds: int = 5
    epsilon: float = 8.0
    corrupt: str = "0.02"
    dropout: str = "0.05"
    room: float = 2.0
    staleness: int = 20
    training: float = 60.0
    speeds: float = 1.707
    """ln 10 over the distance of a normal distribution's quartiles"""
    messages: float = 5.0
    server_rate: float = 15.0
    momentum: float = 0.9
    every: int = 2
    smooth: int = 3

    def __post_init__(self) -> None:
        if min(self.seeds, self.every, self.smooth) < 1 or self.room < 1:
            raise UsageError("there is a seed, and something is measured; room is at least 1")
        for way in (WAITS, OVER, ASYNC):
            self.run(way, 0)  # refused here, if at all

    def run(self, way: str, seed: int) -> RunConfig:
        turns = -(-self.rounds * self.size // self.silos)
        ways: dict[str, dict[str, Any]] = {
            WAITS: {"draw": "turns"},
            OVER: {"draw": "turns", "over": 1.3},
            ASYNC: {"draw": "arrivals", "most": int(self.room * turns), "staleness": self.staleness},
        }
        return RunConfig.parse(
            {
                "title": f"{way}, seed {seed}",
                "seed": seed,
                "data": {"users": self.users, "item_count": self.items, "seed": seed, "habits": "first"},
                "clients": {"count": self.silos},
                "model": {"name": "autoencoder", "settings": {"width": 8, "fading": 0.95}},
                "training": {
                    "rounds": self.rounds,
                    "size": self.size,
                    "rate": 1.0,
                    "clip": 0.1,
                    "measured": 0.0,
                    "server": "fedavgm",
                    "server_rate": self.server_rate,
                    "momentum": self.momentum,
                    **ways[way],
                },
                "privacy": {"mode": "distributed", "epsilon": self.epsilon},
                "protocol": {"corrupt": self.corrupt, "dropout": "0.25" if way == OVER else self.dropout},
                "network": {"training": self.training, "speeds": self.speeds, "spread": 0.25},
            }
        )


def run(config: Settings, say: Say) -> Measured:
    figures, ratios = dict[str, float](), dict[str, float]()
    found: dict[str, list[float]] = defaultdict(list)
    for seed in range(config.seeds):
        curves, idle = dict[str, Curve](), dict[str, float]()
        for way in (WAITS, OVER, ASYNC):
            curves[way], idle[way] = _trained(prepare(config.run(way, seed)), config, way, say)
        for way, curve in curves.items():
            found[f"{way}_{METRIC}"].append(curve[-1][1])
            found[f"{way}_best_{METRIC}"].append(best := max(quality for _, quality in curve))
            if way != ASYNC:
                for name, target in ((way, curve[-1][1]), (f"best_of_{way}", best)):
                    taken, other = _reached(curve, target), _reached(curves[ASYNC], target)
                    found[f"{way}_s" if name == way else f"{name}_s"].append(taken)
                    found[f"{ASYNC}_s_to_{name}"].append(other)
                    found[f"{ASYNC}_over_{name}"].append(other / taken)
        found[f"{ASYNC}_silos_in_no_sum"].append(idle[ASYNC])
        said = ", ".join(f"{name} {found[name][-1]:.3g}" for name in found)
        say(f"seed {seed}: {said}")
    for name, values in found.items():
        if median(values) < inf:  # else no figure says that half of the seeds did not come so far
            (ratios if "_over_" in name else figures)[name] = median(values)
    for name in [name for name in found if name.startswith(f"{ASYNC}_over_")]:
        figures[f"reached: {name}"] = mean(value < inf for value in found[name])
    return Measured(figures, ratios)


def _trained(prepared: Prepared, config: Settings, way: str, say: Say) -> tuple[Curve, float]:
    """Quality over time, and which part of the silos was in no sum. Asynchronous training goes on until ``room`` times
    as many sums are made, or too few silos have budget left."""
    model = cast(SharedModel, prepared.model())
    federation = prepared.federation(model, IdealAggregator(bytes(32), simulated=config.messages), bytes(32))
    latest, curve, sums = list[float](), Curve(), 0
    most = config.rounds if way != ASYNC else int(config.rounds * config.room)
    while sums < most:
        try:
            done = federation.advance()
        except BudgetError:
            break
        sums += 1
        if sums % config.every == 0 or sums == most:
            latest.append(evaluate(model, prepared.split).mean(METRIC))
            curve.append((done.clock, mean(latest[-config.smooth :])))
    say(f"{prepared.config.title}: {sums} sums in {curve[-1][0]:,.0f} s, {METRIC} {curve[-1][1]:.4f}")
    sums_of_each = federation.state.called.get("sums")
    return curve, 0.0 if sums_of_each is None else float((sums_of_each == 0).mean())


def _reached(curve: Sequence[tuple[float, float]], target: float) -> float:
    return next((seconds for seconds, quality in curve if quality >= target), inf)
