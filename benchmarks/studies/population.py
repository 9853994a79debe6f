"""How near the made-up population comes to what is known of real data: density, tail, what models gain over ItemPop.

For each size, and mean over seeds, which are populations of their own: the density, the Gini coefficient of items'
numbers of events, and the NDCG@10 of ItemKNN, EASE (lambda 200), tuned EASE and MF, each over ItemPop's (a ratio of
means). Everybody's last event is the test, the one before it is for validation; all items are ranked. With each figure
come its standard error over seeds, as a share of it, and how far it is off where the real value is known
(``recsys.data.synthetic.FACTS``): .1 is a tenth too high.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from benchmarks.case import Measured, Say
from recsys.config import Population
from recsys.data.interactions import Interactions
from recsys.data.split import leave_last_out
from recsys.data.synthetic import FACTS, population
from recsys.metrics.ranking import Scorer, evaluate
from recsys.models.ease import Ease
from recsys.models.knn import ItemKnn
from recsys.models.mf import MatrixFactorisation
from recsys.models.popularity import ItemPop
from recsys.models.recommender import Recommender
from recsys.models.tuned_ease import tuned_ease
from recsys.sources import HABITS
from secagg.errors import UsageError

MODELS = {"ItemKNN": ItemKnn, "EASE": Ease, "MF": MatrixFactorisation}
TUNED = "tuned EASE"


@dataclass(frozen=True, slots=True)
class Config:
    sizes: str = "610x9724,943x1682,6040x3706,4000x1000"
    """users x items"""
    habits: str = "calibrated"
    """calibrated or first"""
    models: str = "ItemKNN,EASE,tuned EASE,MF"
    seeds: int = 10

    def __post_init__(self) -> None:
        if self.habits not in list(Population) or self.seeds < 2:
            raise UsageError("habits are calibrated or first, and an error over seeds takes two of them")
        if not set(self.named) <= {*MODELS, TUNED}:
            raise UsageError(f"models are some of {', '.join((*MODELS, TUNED))}")
        if not self.shapes:
            raise UsageError("there is a size")

    @property
    def named(self) -> list[str]:
        return self.models.split(",")

    @property
    def shapes(self) -> list[tuple[int, int]]:
        try:
            return [(int(users), int(items)) for users, items in (one.split("x") for one in self.sizes.split(","))]
        except ValueError:
            raise UsageError("sizes are like 943x1682, separated by commas") from None


DEFAULTS = Config()


def run(config: Config, say: Say) -> Measured:
    figures, ratios = dict[str, float](), dict[str, float]()
    for users, items in config.shapes:
        found = defaultdict[str, list[float]](list)
        for seed in range(config.seeds):
            events = population(users, items, seed, HABITS[Population(config.habits)])
            for name, value in _facts(events, config.named).items():
                found[name].append(value)
            say(f"{users} x {items}, seed {seed}")
        for name, values in found.items():
            each = np.array(values)
            if name in config.named:  # a ratio of means, with the error of the delta method
                popular = np.array(found["ItemPop"])
                mean = float(each.mean() / popular.mean())
                spread = float((each - mean * popular).std(ddof=1) / popular.mean())
            else:
                mean, spread = float(each.mean()), float(each.std(ddof=1))
            place = f"{users}x{items}/{name}"
            (ratios if name in config.named else figures)[place] = mean
            figures[f"{place} error"] = spread / sqrt(config.seeds) / mean if mean else 0.0
            if real := FACTS.get((users, items), {}).get(name):
                figures[f"{place} off"] = mean / real - 1
    return Measured(figures, ratios)


def gini(counts: NDArray[np.int64]) -> float:
    """0 where all items are taken as often, near 1 where one item is taken by everybody and no other by anybody.

    >>> gini(np.array([3, 3, 3])), gini(np.array([0, 0, 0, 8]))
    (0.0, 0.75)
    """
    ordered, size = np.sort(counts), len(counts)
    return float((2 * np.arange(1, size + 1) - size - 1) @ ordered / (size * ordered.sum()))


def _facts(events: Interactions, named: list[str]) -> dict[str, float]:
    split = leave_last_out(events)

    def gain(model: Scorer) -> float:
        return evaluate(model, split).mean("NDCG@10")

    def fitted(model: Recommender) -> Recommender:
        model.fit(split.train)
        return model

    density = len(events) / (events.user_count * events.item_count)
    found = {"density": density, "Gini": gini(events.popularity()), "ItemPop": gain(fitted(ItemPop()))}
    for name in named:
        found[name] = gain(tuned_ease(split) if name == TUNED else fitted(MODELS[name]()))
    return found
