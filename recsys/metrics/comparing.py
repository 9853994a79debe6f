"""How sure a difference is: between two models over the same users, and between runs over seeds.

Users differ far more from each other than models do. So two models are compared user by user, and what is uncertain is
the mean of those differences had other users been drawn: the paired bootstrap (Efron and Tibshirani 1993, "An
Introduction to the Bootstrap", percentile interval). It says nothing about another noise seed; ``over_seeds`` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from recsys.metrics.ranking import Evaluation
from secagg.errors import UsageError

_BLOCK = 1 << 22  # users drawn at once


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean, its standard error, and where it lies with the confidence asked for."""

    mean: float
    error: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"


def difference(
    one: Evaluation, other: Evaluation, name: str, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """``one`` minus ``other`` in a metric such as "NDCG@10", over the users of both, who must be the same.

    >>> users, better = np.arange(100), np.linspace(0.0, 1.0, 100)
    >>> print(difference(Evaluation(users, {"HR@10": better}, {}, 0), Evaluation(users, {"HR@10": better / 2}, {}, 0),
    ...                  "HR@10"))
    +0.2500 [+0.2218, +0.2782]
    """
    for evaluation in (one, other):
        evaluation.mean(name)  # it is there, and somebody was measured
    if not np.array_equal(one.users, other.users):
        raise UsageError("the two were not measured on the same users")
    if resamples < 2:
        raise UsageError(f"an interval takes more than {resamples} resamples")
    gaps = one.values[name] - other.values[name]
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    step = max(1, _BLOCK // len(gaps))
    for start in range(0, resamples, step):
        some = means[start : start + step]
        some[:] = gaps[rng.integers(len(gaps), size=(len(some), len(gaps)))].mean(axis=1)
    low, high = np.quantile(means, _tails(confidence))
    return Interval(float(gaps.mean()), float(means.std(ddof=1)), float(low), float(high))


def over_seeds(values: Sequence[float], *, confidence: float = 0.95) -> Interval:
    """The mean of independent runs, with Student's interval.

    >>> print(over_seeds([0.030, 0.032, 0.031, 0.029, 0.033]))
    +0.0310 [+0.0290, +0.0330]
    """
    if len(values) < 2:
        raise UsageError("an interval takes at least two runs")
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))
    reach = error * float(special.stdtrit(len(values) - 1, _tails(confidence)[1]))
    return Interval(mean, error, mean - reach, mean + reach)


def _tails(confidence: float) -> tuple[float, float]:
    if not 0 < confidence < 1:
        raise UsageError(f"a confidence lies between 0 and 1, not at {confidence}")
    return (1 - confidence) / 2, (1 + confidence) / 2
