"""Which items go together, learnt from two noised sums over users: popularity, then pairs of popular items.

    1  popularity   A user who took k items adds 1 / sqrt(k) for each. The items of the largest noised sums are chosen,
                    as many as a public rule says.
    2  item pairs   A user adds, for each two chosen items that were taken, a weight that is larger the nearer the two
                    are in the history; all of it divided by its L2 norm. Of the symmetric matrix only one triangle
                    travels; its diagonal (single items) is made small, for pairs are what the budget is for.

No cap on a history's length is needed: the norm of what a user adds is at most 1 whatever the history, which is all
that the noise must hide, and items of a heavy user count for less. Repeated items count once, where they occurred last.

What follows is computed from the two sums, so it costs nothing more: ``private_denoising`` takes noise away, and the
diagonal is a straight line through popularity, drawn nearer to its noised value the less noise that has.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from recsys.data.interactions import History
from recsys.models.private_denoising import denoise
from recsys.models.private_sums import Noised, Sums
from secagg.errors import UsageError

DIAGONAL = 0.2
"""Weight of a single item, relative to that of two neighbours."""

_MOST_ITEMS = 1000


@dataclass(frozen=True, slots=True)
class Recency:
    """How much weight is left at a distance of some events: from 1 exponentially down to ``floor``."""

    pairs: float = 20.0
    """events between two items of a pair"""
    history: float = 15.0
    """events since an item of the history, when scoring"""
    floor: float = 0.2

    def __post_init__(self) -> None:
        if not (self.pairs > 0 and self.history > 0 and 0 <= self.floor <= 1):
            raise UsageError("recency fades over a positive number of events, to a floor between 0 and 1")

    def weights(self, distances: NDArray[np.int64], reach: float) -> NDArray[np.float64]:
        faded: NDArray[np.float64] = self.floor + (1 - self.floor) * np.exp(-distances / reach)
        return faded


@dataclass(frozen=True, slots=True)
class Settings:
    """The constants were fixed on made-up populations, before a private model was measured on real data."""

    items: int = 0
    """how many are chosen; 0: 8 sqrt(users), at most 1,000"""
    popularity_share: Fraction = Fraction(3, 20)
    """of the squared noise budget"""
    recency: Recency | None = Recency()
    """None: histories have no order"""
    rank: int = 16

    def __post_init__(self) -> None:
        if self.items < 0 or self.rank < 1:
            raise UsageError("items are a number of items, or 0 for the rule; the rank is at least 1")
        if not 0 < self.popularity_share < 1:
            raise UsageError("popularity gets a share of the budget between 0 and 1, and pairs the rest")

    def chosen(self, users: int, item_count: int) -> int:
        """How many items take part: a function of public numbers.

        >>> [Settings().chosen(users, item_count=10_000) for users in (610, 2_000, 20_000)]
        [198, 358, 1000]
        """
        return min(self.items or min(round(8 * sqrt(users)), _MOST_ITEMS), item_count)


@dataclass(frozen=True, slots=True, eq=False)
class Gram:
    """What is known of items, from the two sums."""

    popularity: NDArray[np.float64]
    """of all items, as noised"""
    items: NDArray[np.int64]
    """the chosen ones, ascending"""
    matrix: NDArray[np.float64]
    """of the chosen items, denoised; the diagonal is how often each occurs"""
    liking: NDArray[np.float64]
    """the popularity part of the matrix is liking liking'"""
    factors: NDArray[np.float64]
    """its tastes are factors factors', but for a rest"""


def learn_gram(sums: Sums, item_count: int, settings: Settings, pairs_share: Fraction | None = None) -> Gram:
    """Both sums. ``pairs_share`` is what the second may use, if not all that the first left."""
    if item_count < 1:
        raise UsageError("there are no items")
    share = settings.popularity_share
    popularity = sums("popularity", item_count, share, lambda history: popularity_row(history, item_count))
    size = settings.chosen(popularity.users, item_count)
    items = np.sort(np.argsort(-popularity.vector, kind="stable")[:size])
    places = np.full(item_count, -1)
    places[items] = np.arange(size)
    pairs = sums(
        "item pairs",
        size * (size + 1) // 2,
        pairs_share if pairs_share is not None else 1 - share,
        lambda history: pairs_row(history, places, size, settings.recency),
    )
    return _gram(popularity, items, pairs, settings.rank)


def popularity_row(history: History, item_count: int) -> NDArray[np.float64]:
    """What a user adds to the first sum: norm 1, or 0 without a history.

    >>> popularity_row(np.array([2, 0, 2, 3, 1], np.int32), 5)
    array([0.5, 0.5, 0.5, 0.5, 0. ])
    """
    row = np.zeros(item_count)
    row[history] = 1.0
    return row / sqrt(max(row.sum(), 1.0))


def pairs_row(history: History, places: NDArray[np.int64], size: int, recency: Recency | None) -> NDArray[np.float64]:
    """What a user adds to the second sum: the upper triangle row by row, of norm at most 1.

    A user with hardly a pair adds less than 1, for a lone item must not weigh as much as all of another's pairs.

    >>> pairs_row(np.array([1, 0], np.int32), np.array([0, 1]), 2, None).round(3)
    array([0.192, 0.962, 0.192])
    """
    items, positions = last_occurrences(history)
    known = places[items] >= 0
    here, positions = places[items[known]], positions[known]
    order = np.argsort(here)
    here, positions = here[order], positions[order]
    first, second = np.triu_indices(len(here))
    if recency is None:
        weights = np.ones(len(first))
    else:
        weights = recency.weights(np.abs(positions[first] - positions[second]), recency.pairs)
    weights[first == second] *= DIAGONAL
    row = np.zeros(size * (size + 1) // 2)
    row[here[first] * (2 * size - here[first] - 1) // 2 + here[second]] = weights
    return row / max(sqrt(float((weights**2).sum())), 1.0)


def last_occurrences(history: History) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each item of a history, and how far from the start it occurred last.

    >>> [part.tolist() for part in last_occurrences(np.array([7, 3, 7], np.int32))]
    [[3, 7], [1, 2]]
    """
    items, from_end = np.unique(np.asarray(history, np.int64)[::-1], return_index=True)
    return items, len(history) - 1 - from_end


def _gram(popularity: Noised, items: NDArray[np.int64], pairs: Noised, rank: int) -> Gram:
    size = len(items)
    noised = np.zeros((size, size))
    noised[np.triu_indices(size)] = pairs.vector
    noised += np.triu(noised, 1).T
    below = denoise(noised, pairs.deviation, rank)
    matrix = below.pairs.copy()
    np.fill_diagonal(matrix, _occurrences(np.diag(noised) / DIAGONAL, pairs.deviation / DIAGONAL, below.liking))
    return Gram(popularity.vector, items, matrix, below.liking, below.factors)


def _occurrences(noised: NDArray[np.float64], deviation: float, liking: NDArray[np.float64]) -> NDArray[np.float64]:
    """How often each item occurs: a line through the popularity, and what of the rest is not noise."""
    line = liking * max(float(noised @ liking), 0.0) / max(float(liking @ liking), 1e-12)
    rest = noised - line
    signal = max(float((rest**2).mean()) - deviation**2, 0.0)
    occurrences = line + rest * (signal / (signal + deviation**2) if signal else 0.0)
    least = 0.02 * max(float(occurrences.mean()), 1e-12)
    # In a matrix of products of users' rows, no entry of the popularity part exceeds its diagonal.
    bounded: NDArray[np.float64] = np.maximum(np.maximum(occurrences, least), liking**2)
    return bounded
