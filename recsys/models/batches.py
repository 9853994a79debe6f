"""Users, a batch at a time: what training everywhere in this package goes through."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from recsys.data.interactions import History
from recsys.models.recommender import Local


def batches(
    histories: Sequence[History], local: Local, seed: int
) -> Iterator[tuple[list[History], np.random.Generator]]:
    """Everyone once an epoch, in a fresh order; with the generator for whatever else is drawn on the way.

    >>> users = [np.array([user]) for user in range(5)]
    >>> [len(batch) for batch, _ in batches(users, Local(epochs=2, batch=3), seed=0)]
    [3, 2, 3, 2]
    """
    rng = np.random.default_rng(seed)
    for _ in range(local.epochs):
        order = rng.permutation(len(histories))
        for first in range(0, len(order), local.batch):
            yield [histories[user] for user in order[first : first + local.batch]], rng
