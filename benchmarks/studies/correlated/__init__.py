"""Would noise that is correlated over steps help a recommender? A study in one place, on made-up populations.

There are two ways of taking part: everybody in every step, and in turns, each user in every ``gap``-th step. In each,
noise is independent from step to step, or made by a banded matrix that was optimised for prefix sums, or for the
iterates of SGD with momentum. All cost the same (epsilon, delta), by exact Gaussian differential privacy. Each side has
its own best rate of those in ``rates``, found on populations that are not used again. What is compared is the NDCG@10
of the last iterate on validation events, on the same populations from the same seeds.

Ratios are of errors in theory, independent over correlated: of all iterates ("rms"), and of the last one. Figures are
means over populations with Student's intervals; "gain" is relative to independent noise of the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import product
from math import sqrt

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.case import Measured, Say
from benchmarks.studies.correlated.matrices import last_error, optimised, root_mean_square, sensitivity, workload
from benchmarks.studies.correlated.training import MOMENTUM, Recipe, Training, correlated
from dp.accountants.gdp import RESOLUTION, largest_total
from recsys.config import Population
from recsys.data import synthetic
from recsys.data.split import Split, leave_last_out
from recsys.metrics.comparing import over_seeds
from recsys.metrics.ranking import evaluate
from recsys.models.popularity import ItemPop
from recsys.sources import HABITS
from secagg.errors import UsageError

MOMENTA = {"independent": None, "prefix": 0.0, "momentum": MOMENTUM}
"""For which iterates each noise was optimised: those of SGD with this momentum."""
_COMPARED, _TUNED = 101, 201
"""The first population of each kind."""


@dataclass(frozen=True, slots=True)
class Config:
    users: int = 1000
    items: int = 500
    habits: str = "first"
    """of the made-up populations: first or calibrated"""
    gaps: str = "1,10"
    """1: everybody in every step; 10: each user in every tenth"""
    epsilons: str = "8,3"
    steps: int = 100
    few_steps: int = 64
    """up to epsilon 3, where everybody is in every step"""
    rates: str = "1,2,4,8,15,30"
    bands: int = 10
    noises: str = "independent,prefix,momentum"
    tuned_on: int = 1
    """populations on which each side's rate is found"""
    compared_on: int = 3
    """populations on which they are compared"""

    def __post_init__(self) -> None:
        if min(self.tuned_on, self.steps, self.few_steps, self.bands, *self.each_gap) < 1 or self.compared_on < 2:
            raise UsageError("there are steps, bands and gaps, a population to tune on and two to compare on")
        if max(self.each_gap) > min(self.users // 2, self.steps):
            raise UsageError("in turns everybody takes part at least once, and nobody alone")
        if self.habits not in set(Population):
            raise UsageError(f"habits are {' or '.join(Population)}")
        if self.each_noise[0] != "independent" or not set(self.each_noise) <= set(MOMENTA):
            raise UsageError(f"noises are independent, and then some of {', '.join(MOMENTA)}")

    @property
    def each_gap(self) -> list[int]:
        return [int(gap) for gap in self.gaps.split(",")]

    @property
    def each_epsilon(self) -> list[float]:
        return [float(epsilon) for epsilon in self.epsilons.split(",")]

    @property
    def each_rate(self) -> list[float]:
        return [float(rate) for rate in self.rates.split(",")]

    @property
    def each_noise(self) -> list[str]:
        return self.noises.split(",")


DEFAULTS = Config()


def run(config: Config, say: Say) -> Measured:
    figures: dict[str, float] = {}
    ratios: dict[str, float] = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for gap, epsilon in product(config.each_gap, config.each_epsilon):
            way = f"gap_{gap}_epsilon_{epsilon:g}"
            found: dict[str, list[float]] = {}
            for noise in config.each_noise:
                side = _side(config, gap, epsilon, noise)
                ratios |= {f"{way}_{noise}_{name}": value for name, value in side.theory().items()}
                rate = side.best_rate()
                found[noise] = [side.ndcg(_COMPARED + number, rate) for number in range(config.compared_on)]
                figures[f"{way}_{noise}_rate"] = rate
                figures |= _named(f"{way}_{noise}_ndcg", found[noise])
                say(f"{way}, {noise}: rate {rate:g}, NDCG@10 {np.mean(found[noise]):.4f}")
            popular = [_popular(config, _COMPARED + number) for number in range(config.compared_on)]
            figures |= _named(f"{way}_independent_over_popular", np.subtract(found["independent"], popular))
            for noise in config.each_noise[1:]:
                gained = np.subtract(found[noise], found["independent"]) / np.mean(found["independent"])
                figures |= _named(f"{way}_{noise}_gain", gained)
    finally:
        torch.set_num_threads(threads)
    return Measured(figures, ratios)


def _named(name: str, values: Sequence[float] | NDArray[np.float64]) -> dict[str, float]:
    interval = over_seeds([float(value) for value in values])
    return {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}


@dataclass(frozen=True, slots=True, eq=False)
class _Side:
    """One way of taking part with one kind of noise."""

    config: Config
    gap: int
    epsilon: float
    matrix: NDArray[np.float64]

    def theory(self) -> dict[str, float]:
        target, independent = workload(len(self.matrix), MOMENTUM), np.eye(len(self.matrix))
        errors = {"rms": root_mean_square, "last": last_error}
        return {
            name: error(target, independent, self.gap) / error(target, self.matrix, self.gap)
            for name, error in errors.items()
        }

    def best_rate(self) -> float:
        populations = range(_TUNED, _TUNED + self.config.tuned_on)
        rates = self.config.each_rate
        if len(rates) == 1:
            return rates[0]
        return max(rates, key=lambda rate: sum(self.ndcg(number, rate) for number in populations))

    def ndcg(self, population: int, rate: float) -> float:
        """On validation events."""
        recipe = Recipe(rate)
        data = _population(self.config, population)
        multiplier = sensitivity(self.matrix, self.gap) / _privacy(self.epsilon, self.config.users)
        length = data.train.item_count * (recipe.width + 1)
        noise = correlated(self.matrix, multiplier * recipe.clip, length, np.random.default_rng(population))
        model = Training(data.train, recipe).run(noise, self.gap, seed=population)
        return evaluate(model, data, on="valid").mean("NDCG@10")


def _side(config: Config, gap: int, epsilon: float, noise: str) -> _Side:
    steps = config.few_steps if gap == 1 and epsilon <= 3 else config.steps
    momentum = MOMENTA[noise]
    matrix = np.eye(steps) if momentum is None else _optimised(steps, momentum, min(config.bands, steps), gap)
    return _Side(config, gap, epsilon, matrix)


@lru_cache
def _optimised(steps: int, momentum: float, bands: int, gap: int) -> NDArray[np.float64]:
    return optimised(workload(steps, momentum), bands, gap)


@lru_cache
def _privacy(epsilon: float, users: int) -> float:
    """The largest mu of Gaussian differential privacy for this epsilon and delta 1 / (100 users)."""
    return sqrt(largest_total(Fraction(str(epsilon)), Fraction(1, 100 * users)) / RESOLUTION)


@lru_cache(16)
def _population(config: Config, number: int) -> Split:
    habits = HABITS[Population(config.habits)]
    return leave_last_out(synthetic.population(config.users, config.items, number, habits))


def _popular(config: Config, number: int) -> float:
    data, model = _population(config, number), ItemPop()
    model.fit(data.train)
    return evaluate(model, data, on="valid").mean("NDCG@10")
