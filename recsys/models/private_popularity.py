"""How popular each item most likely is, from noised popularity: empirical Bayes.

The logarithm of an item's popularity p is taken to be normal, around what the item is like:

    log p ~ N(F beta, tau^2),    observed = p + N(0, deviation^2),

where F is a row of public features for each item (``public_features.described``), or 1 for all. The most likely beta
and tau come from the observations themselves (EM, with log p on a grid of its own for each item); the answer is the
posterior mean of each p, which is above zero. Items that another sum counts once more are ``refined``. All of it is a
function of noised sums alone, so it costs nothing more.

EM climbs slowly where noise hides most, so it begins at the moments: the mean of the observations is that of p, and
their variance that of p and the noise. Few steps follow, for the most likely tau of thousands of hidden items is not
what the order of the best ones is about.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log, sqrt

import numpy as np
from numpy.typing import NDArray

from recsys.models.private_sums import Noised
from secagg.errors import UsageError

GRID = 60
STEPS = 25
MISFIT = 0.05
"""of the variance of a second count: so much times its square"""
_LOWEST, _REACH = 1e-3, 6.0
"""of the noise's deviation: where the grid begins at the earliest, and how far from what was seen it goes"""
_EXACT, _TINY = 1e-9, 1e-12
_LEAST_SPREAD = 0.3
"""of tau^2"""
_RIDGE = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Believed:
    """What is known of the popularity of some items."""

    values: NDArray[np.float64]
    """a row for each item: what its popularity may be"""
    chances: NDArray[np.float64]
    """the logarithm of how likely each of these is, but for a constant"""

    @property
    def means(self) -> NDArray[np.float64]:
        return _means(self.chances, self.values)

    def of(self, items: NDArray[np.int64]) -> Believed:
        """Of the chosen items."""
        return Believed(self.values[items], self.chances[items])


def believed(observed: Noised, features: NDArray[np.float64] | None = None) -> Believed:
    """From noised popularity, and features of each item if there are any.

    >>> believed(Noised(np.array([8.0, 0.5, -1.0, 0.2]), 1.0, 10)).means.round(1)
    array([7.8, 0.4, 0.2, 0.3])
    """
    seen = observed.vector
    if not len(seen):
        raise UsageError("there are no items")
    deviation = max(observed.deviation, _EXACT * float(np.abs(seen).max()), _TINY)
    if features is None:
        features = np.ones((len(seen), 1))
    if features.ndim != 2 or len(features) != len(seen) or not (features[:, 0] == 1).all():
        raise UsageError("features have a row for each item, and begin with 1")
    lowest = np.log(np.maximum(seen - _REACH * deviation, _LOWEST * deviation))
    logs = np.linspace(lowest, np.log(np.maximum(seen, 0) + _REACH * deviation), GRID, axis=1)
    values = np.exp(logs)
    likelihood = -(((seen[:, None] - values) / deviation) ** 2) / 2
    beta: NDArray[np.float64] = np.zeros(features.shape[1])
    spread = _spread(seen, deviation)
    beta[0] = log(_mean(seen, deviation)) - spread / 2
    ridge = np.full(len(beta), _RIDGE)
    ridge[0] = 1e-6
    for _ in range(STEPS):
        prior = -((logs - (features @ beta)[:, None]) ** 2) / (2 * spread)
        first = _means(likelihood + prior, logs)
        beta = np.asarray(
            np.linalg.solve(features.T @ features + spread * np.diag(ridge), features.T @ first), np.float64
        )
        centre = (features @ beta)[:, None]
        spread = max(float(_means(likelihood + prior, (logs - centre) ** 2).mean()), _LEAST_SPREAD)
    return Believed(values, likelihood - (logs - (features @ beta)[:, None]) ** 2 / (2 * spread))


def refined(before: Believed, counted: NDArray[np.float64], deviation: float) -> NDArray[np.float64]:
    """The means when the items were ``counted`` once more, in other units, with noise of this deviation and a misfit.

    >>> before = believed(Noised(np.array([8.0, 0.5, -1.0, 0.2]), 1.0, 10))
    >>> refined(before, np.array([4.0, 1.0, 0.0, 1.0]), 0.1).round(1)
    array([7.7, 1.7, 0.1, 1.7])
    """
    means = before.means
    unit = max(float(counted @ means), 0.0) / float(means @ means)
    expected = unit * before.values
    variance = deviation**2 + MISFIT * expected**2 + _TINY
    likelihood = -((counted[:, None] - expected) ** 2 / variance + np.log(variance)) / 2
    return Believed(before.values, before.chances + likelihood).means


def _mean(seen: NDArray[np.float64], deviation: float) -> float:
    return max(float(seen.mean()), deviation / sqrt(len(seen)))


def _spread(seen: NDArray[np.float64], deviation: float) -> float:
    """The tau^2 of a log-normal distribution with the mean and the variance that were seen."""
    mean = _mean(seen, deviation)
    variance = max(float(seen.var()) - deviation**2, mean**2 / 2)
    return max(log(1 + variance / mean**2), _LEAST_SPREAD)


def _means(chances: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    weights = np.exp(chances - chances.max(axis=1, keepdims=True))
    means: NDArray[np.float64] = (weights * values).sum(axis=1) / weights.sum(axis=1)
    return means
