"""Which items of a history spoke for an item that a model recommends, in one of two ways.

    exact           The score is a sum over the items of the history, and a part that belongs to none of them, such as
                    popularity. A model whose scores are such sums has a method that says so (``Additive``). What an
                    item adds is what it adds as the history stands: where a model gives all items of a history one
                    weight together, the others would add more without it.
    leave-one-out   Any other model is asked once more for each item, with a history in which that item never occurs.
                    The item spoke for what then has a lower score. Such differences add up to nothing in particular,
                    and of two items that say the same each is missed little.

Integrated gradients would add up. They need a model that can be differentiated by its history, and a history to begin
at that stands for none; and what they find belongs to a path between the two, along which there are only parts of
items. Leaving out needs ``scores`` alone, is one way for all models, and anybody can check it with a shorter history.

All of it follows from the model and the history, on the device: whoever has a released model explains at no cost in
privacy. What is shown is about the user's own items, and is as private as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from recsys.data.interactions import History
from recsys.metrics.ranking import Scorer, scores_of
from secagg.errors import UsageError

_NUMBERS_AT_ONCE = 1 << 24
_NEARLY = 1e-3
"""of the largest score: the sum of a score's parts may differ from it by so much, for they are in single precision"""
_ROUNDING = 1e-5
"""of the largest score: what leaves a score so nearly the same changed nothing"""


class How(StrEnum):
    EXACT = "exact"
    LEAVE_ONE_OUT = "leave-one-out"


@runtime_checkable
class Additive(Protocol):
    """A model whose scores are sums over the items of a history."""

    def contributions(
        self, history: History, items: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Of the scores of ``items``, what each item of the history adds, one row for each of ``np.unique(history)``;
        and what belongs to no item of the history. Both together are the scores."""


@dataclass(frozen=True, slots=True, eq=False)
class Explained:
    """What each item of a history adds to the scores of some items."""

    how: How
    own: NDArray[np.int32]
    """the items of the history, each once, ascending"""
    added: NDArray[np.float32]
    """a row for each of these, a column for each item that is explained"""
    apart: NDArray[np.float32] | None
    """of each item that is explained, what belongs to no item of the history; None if left out one by one"""


def explained(model: Scorer, history: History, items: NDArray[np.int64], item_count: int) -> Explained:
    """Why a model gives ``items`` their scores, which are numbers.

    >>> class Neighbours:
    ...     def scores(self, histories):
    ...         return np.float32([[len(one) + 10 * (2 in one) for _ in range(4)] for one in histories])
    >>> found = explained(Neighbours(), np.int32([2, 0]), np.array([3]), 4)
    >>> found.how.value, found.own.tolist(), found.added.tolist()
    ('leave-one-out', [0, 2], [[1.0], [11.0]])
    """
    own = np.unique(history)
    if isinstance(model, Additive):
        added, apart = (np.asarray(part) for part in model.contributions(history, items))
        if added.shape != (len(own), len(items)) or apart.shape != (len(items),):
            raise UsageError(f"contributions of {len(own)} items to {len(items)}, but the model's are {added.shape}")
        scores = scores_of(model, [history], item_count)[0]
        largest = np.abs(scores, where=np.isfinite(scores), out=np.zeros_like(scores)).max(initial=0)
        if not (np.abs(added.sum(axis=0) + apart - scores[items]) <= _NEARLY * largest).all():
            raise UsageError("the model's contributions do not add up to its scores")
        return Explained(How.EXACT, own, added, apart)
    return Explained(How.LEAVE_ONE_OUT, own, _missed(model, history, own, items, item_count), None)


def _missed(
    model: Scorer, history: History, own: NDArray[np.int32], items: NDArray[np.int64], item_count: int
) -> NDArray[np.float32]:
    """How much lower the scores are without each item. All histories are asked at once, if there is room for that."""
    missing = [None, *own]
    step = max(1, _NUMBERS_AT_ONCE // max(item_count, len(history)))
    rows = list[NDArray[np.float32]]()
    for start in range(0, len(missing), step):
        asked = [history if one is None else history[history != one] for one in missing[start : start + step]]
        rows.append(scores_of(model, asked, item_count)[:, items])
    found = np.concatenate(rows)
    missed: NDArray[np.float32] = found[0] - found[1:]
    missed[np.abs(missed) <= _ROUNDING * np.abs(found[0]).max(initial=0)] = 0
    return missed
