"""Items that a user did not take: drawn anew for every training step, or once and for all for measuring.

For training, a negative is any item but those in the user's TRAINING history. Held-out items are among them, as often
as any other item. Several published code bases leave them out; then "never drawn as a negative" gives away what is
held out, and a scorer that learns nothing but that reaches HR@10 = 1. ``sample`` cannot do that: it is given nothing
but the training history.

For measuring, ``frozen`` draws for each user from what is in none of the three parts. No model sees these.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recsys.data.interactions import History
from recsys.data.split import Split
from secagg.errors import UsageError


def sample(history: History, item_count: int, count: int, rng: np.random.Generator) -> NDArray[np.int32]:
    """``count`` items, each drawn uniformly from all that are not in the history; an item may come again.

    >>> sample(np.array([0, 2], np.int32), item_count=4, count=5, rng=np.random.default_rng(0)).tolist()
    [3, 3, 3, 1, 1]
    """
    taken = np.unique(history)
    if len(taken) >= item_count:
        raise UsageError("this user has taken every item: there are no negatives")
    return _not_taken(rng.integers(item_count - len(taken), size=count), taken)


def negatives(
    histories: Sequence[History], item_count: int, uniform: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """A row for each history: items that are not in it, one for each number from 0 to below 1. And for which histories
    there are such items; in the rows of others are zeros.

    >>> rows, some = negatives([np.array([0, 2], np.int32)], 4, np.array([[0.3, 0.7]]))
    >>> rows.tolist(), some.tolist()
    ([[1, 3]], [True])
    """
    rows, some = np.zeros(uniform.shape, np.int64), np.zeros(len(histories), np.bool_)
    for user, history in enumerate(histories):
        taken = np.unique(history)
        if len(taken) < item_count:
            ranks = (uniform[user] * (item_count - len(taken))).astype(np.int64)
            rows[user], some[user] = _not_taken(ranks, taken), True
    return rows, some


def frozen(split: Split, count: int = 99, seed: int = 0) -> NDArray[np.int32]:
    """A row for each user: different items, uniformly from those that the user has in no part of the split."""
    rng = np.random.default_rng(seed)
    items = split.train.item_count
    found = np.empty((split.train.user_count, count), np.int32)
    for user in range(split.train.user_count):
        parts = (split.train, split.valid, split.test)
        taken = np.unique(np.concatenate([part.history(user) for part in parts]))
        if items - len(taken) < count:
            raise UsageError(f"user {split.train.user_ids[user]} has fewer than {count} items left as negatives")
        found[user] = _not_taken(rng.choice(items - len(taken), count, replace=False), taken)
    return found


def _not_taken(ranks: NDArray[np.int64], taken: NDArray[np.int32]) -> NDArray[np.int32]:
    """The items of these ranks among all that are not taken."""
    return (ranks + np.searchsorted(taken - np.arange(len(taken)), ranks, side="right")).astype(np.int32)
