"""Users, a batch at a time, and histories in a fixed shape: what training everywhere in this package needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from recsys.data.interactions import History
from recsys.models.recommender import Local

MOST_PLACES = 1 << 10
"""Of so many latest items at most each is looked at beside each other one, whatever a model's file says."""


def batches(
    histories: Sequence[History], local: Local, seed: int
) -> Iterator[tuple[list[History], np.random.Generator]]:
    """Batches in which everyone is once an epoch, in random order; and the generator for whatever else is drawn.

    >>> users = [np.array([user]) for user in range(5)]
    >>> [len(batch) for batch, _ in batches(users, Local(epochs=2, batch=3), seed=0)]
    [3, 2, 3, 2]
    """
    rng = np.random.default_rng(seed)
    for _ in range(local.epochs):
        order = rng.permutation(len(histories))
        for first in range(0, len(order), local.batch):
            yield [histories[user] for user in order[first : first + local.batch]], rng


def known(history: History, item_count: int) -> History:
    """The history, or an empty one if it does not consist of items: what is wrong with one user ends nobody's round.

    >>> [known(np.array(items, np.int32), item_count=5).tolist() for items in ([0, 4], [0, 5], [-1], [[0, 1]])]
    [[0, 4], [], [], []]
    """
    fine = history.ndim == 1 and 0 <= history.min(initial=0) <= history.max(initial=0) < item_count
    return history if fine else history.ravel()[:0]


def own(seed: int, history: Sequence[int] | History) -> np.random.Generator:
    """A generator for what is drawn about one user or interaction. It follows from the seed and their data alone.

    With one generator for all, adding a user would change what is drawn for everybody after: a bound on one example's
    gradient would not bound that.
    """
    return np.random.default_rng([seed, *map(int, history)])


def latest(histories: Sequence[History], length: int, filler: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The last items of each history, filled up to ``length`` at the front, and which places hold an item.

    >>> ids, there = latest([np.array([7, 8, 9], np.int32), np.array([4, 5, 6, 7, 8, 9], np.int32)], 5, filler=0)
    >>> ids.tolist(), there[0].tolist()
    ([[0, 0, 7, 8, 9], [5, 6, 7, 8, 9]], [False, False, True, True, True])
    """
    known = [history[-length:] for history in histories]
    there = np.arange(length) >= length - np.array([len(items) for items in known])[:, None]
    ids = np.full(there.shape, filler, np.int64)
    ids[there] = np.concatenate(known)
    return ids, there
