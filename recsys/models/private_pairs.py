"""What one user adds to the sum of item pairs: centred, weighted, and of L2 norm at most 1 whatever the history.

Of m chosen items with popularity p (adding up to 1, known to all) and of the user's items among them:

    A_ij   how near items i and j are in the history (``Recency``), with zeros on the diagonal; r its row sums, c their
           total
    C      A - r p' - p r' + c p p': what of A popularity does not explain. Everybody who likes popular items adds the
           same to A, which is known already and would take up most of the norm; of C it is gone.
    S      C with each pair weighted by s_i s_j, where s = (p m)^EMPHASIS. Noise is the same on all pairs of the sum,
           so it is smaller where a pair weighs more: on popular items, which are asked for most.

The vector is the upper triangle of S without its diagonal, row by row; then DIAGONAL for each of the user's items; then
c TOTAL. All of it is divided by its norm if that is more than 1. So the bound holds for every p, which a server may
choose as it likes, and for every history; no cap on a history's length is needed, and items of a heavy user count for
less. (The norm is that of the vector itself, in floating point; who encodes it checks the bound in integers.) Repeated
items count once, where they occurred last.

C is dense, so a vector costs some operations for each of m^2 / 2 pairs: a compiled loop (extra ``[fast]``), or numpy.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from recsys.data.interactions import History
from secagg.compiled import COMPILES, njit
from secagg.errors import UsageError

DIAGONAL = 0.5
"""Weight of a single item, relative to that of two neighbours."""
TOTAL = 1e-3
"""Weight of the sum of all of a user's pairs."""
EMPHASIS = 0.2

_RAREST = 0.01  # of the mean popularity: no pair weighs nothing


@dataclass(frozen=True, slots=True)
class Recency:
    """How much weight is left at a distance of some events: from 1 exponentially down to a floor."""

    pairs: float = 20.0
    """events between two items of a pair"""
    pairs_floor: float = 0.2
    history: float = 8.0
    """events since an item of the history, when scoring"""
    history_floor: float | None = None
    """None: .15, and .1 with features"""

    def __post_init__(self) -> None:
        floors = (self.pairs_floor, self.history_floor or 0.0)
        if not (self.pairs > 0 and self.history > 0 and all(0 <= floor <= 1 for floor in floors)):
            raise UsageError("recency fades over a positive number of events, to a floor between 0 and 1")

    def of_pairs(self, distances: NDArray[np.int64]) -> NDArray[np.float64]:
        return _faded(distances, self.pairs, self.pairs_floor)

    def of_history(self, ages: NDArray[np.int64], *, featured: bool = False) -> NDArray[np.float64]:
        floor = self.history_floor
        if floor is None:
            floor = 0.1 if featured else 0.15
        return _faded(ages, self.history, floor)


def _faded(distances: NDArray[np.int64], reach: float, floor: float) -> NDArray[np.float64]:
    faded: NDArray[np.float64] = floor + (1 - floor) * np.exp(-distances / reach)
    return faded


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """The items that take part, and what each user is told of them."""

    items: NDArray[np.int64]
    """their numbers, ascending"""
    places: NDArray[np.int64]
    """of each item among the chosen ones, or -1"""
    popularity: NDArray[np.float64]
    """of the chosen items"""

    @classmethod
    def of(cls, items: NDArray[np.int64], popularity: NDArray[np.float64]) -> Chosen:
        """From all items' popularity."""
        places = np.full(len(popularity), -1)
        places[items] = np.arange(len(items))
        return cls(items, places, popularity[items] / popularity[items].sum())

    def __len__(self) -> int:
        return len(self.items)

    @property
    def weights(self) -> NDArray[np.float64]:
        """s, by which pairs are weighted.

        >>> Chosen.of(np.array([0, 2]), np.array([3.0, 0.5, 1.0])).weights.round(2)
        array([1.08, 0.87])
        """
        weights: NDArray[np.float64] = np.maximum(self.popularity * len(self), _RAREST) ** EMPHASIS
        return weights

    @property
    def pairs(self) -> int:
        return len(self) * (len(self) - 1) // 2

    @property
    def length(self) -> int:
        """Of what a user adds: pairs, single items, and one total."""
        return self.pairs + len(self) + 1


def pairs_row(history: History, chosen: Chosen, recency: Recency | None) -> NDArray[np.float64]:
    """What a user adds. A user with hardly a pair adds less than 1, for a lone item must not weigh as much as all of
    another's pairs.

    >>> chosen = Chosen.of(np.array([0, 1]), np.array([1.0, 1.0]))
    >>> pairs_row(np.array([1, 0], np.int32), chosen, None).round(3)
    array([0.5  , 0.5  , 0.5  , 0.002])
    """
    items, positions = last_occurrences(history)
    here = chosen.places[items]
    here, positions = here[here >= 0], positions[here >= 0]
    distances = np.abs(positions[:, None] - positions)
    near = np.ones(distances.shape) if recency is None else recency.of_pairs(distances)
    np.fill_diagonal(near, 0)
    row = np.zeros(chosen.length)
    if not len(here):
        return row
    _fill(row, near, here, chosen.popularity, chosen.weights)
    with np.errstate(over="ignore"):  # no BLAS: its threads wait for each other
        norm = float(np.sqrt(np.square(row).sum()))
    if not isfinite(norm):
        return np.zeros(chosen.length)
    return row / max(norm, 1.0)


def last_occurrences(history: History) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each item of a history, and how far from the start it occurred last.

    >>> [part.tolist() for part in last_occurrences(np.array([7, 3, 7], np.int32))]
    [[3, 7], [1, 2]]
    """
    items, from_end = np.unique(np.asarray(history, np.int64)[::-1], return_index=True)
    return items, len(history) - 1 - from_end


def fill_plainly(
    row: NDArray[np.float64],
    near: NDArray[np.float64],
    here: NDArray[np.int64],
    popularity: NDArray[np.float64],
    weights: NDArray[np.float64],
) -> None:
    """The vector before it is divided by its norm. ``near`` is A between the user's items, ``here`` their places."""
    size = len(popularity)
    sums, total = np.zeros(size), near.sum()
    sums[here] = near.sum(axis=1)
    pairs = total * np.outer(popularity, popularity) - np.outer(sums, popularity) - np.outer(popularity, sums)
    pairs[np.ix_(here, here)] += near
    pairs *= np.outer(weights, weights)
    count = size * (size - 1) // 2
    row[:count] = pairs[np.triu_indices(size, 1)]
    row[count + here] = DIAGONAL
    row[-1] = TOTAL * total


@njit("void(f8[::1], f8[:, ::1], i8[::1], f8[::1], f8[::1])", cache=True, nogil=True)
def _fill_compiled(
    row: NDArray[np.float64],
    near: NDArray[np.float64],
    here: NDArray[np.int64],
    popularity: NDArray[np.float64],
    weights: NDArray[np.float64],
) -> None:
    size, own = popularity.size, here.size
    weighted, sums, total = popularity * weights, np.zeros(size), 0.0
    for a in range(own):
        of_item = 0.0
        for b in range(own):
            of_item += near[a, b]
        sums[here[a]] = of_item * weights[here[a]]
        total += of_item
    start = 0
    for i in range(size):
        left, here_too, other = total * weighted[i] - sums[i], weighted[i], start - i - 1
        for j in range(i + 1, size):
            row[other + j] = left * weighted[j] - here_too * sums[j]
        start += size - i - 1
    for a in range(own):
        i = here[a]
        for b in range(own):
            j = here[b]
            if i < j:
                row[i * (2 * size - i - 1) // 2 + j - i - 1] += near[a, b] * weights[i] * weights[j]
        row[size * (size - 1) // 2 + i] = DIAGONAL
    row[row.size - 1] = TOTAL * total


_fill = _fill_compiled if COMPILES else fill_plainly
