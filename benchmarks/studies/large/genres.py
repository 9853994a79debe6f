"""Popularity within genre: what can be had for a new item without learning anything of it.

An item that nobody took counts as being as popular as the known items of its genre are on average. With G_jg the share
of genre g in item j (an item of two genres is half of each, one without any is of a genre of its own kind), p_j the
events of j in training, and as means over items weighted by their shares

    M_g = sum of G_jg p_j over known items,    N_g = sum of G_jg over known items,
    p_jg = p_j if j is known, and M_g / N_g if not,

the score of j is that of a user who first chooses a genre and then an item of it, by popularity:

    sum over g of P_g G_jg p_jg / sum over i of G_ig p_ig.

``personal`` or not says what P_g is:

    no      M_g / sum of M: how often the genre was taken in training. New items stand by what an item of their genres
            has on average.
    yes     (sum of G_ig over the user's history + the same share) / (items of the history + 1): what the user took, and
            one event as everybody's. New items stand by the genres that this user takes, and how many compete there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recsys.data.interactions import History, Interactions
from recsys.data.items import Items


class GenrePopularity:
    """
    >>> table = Items.of(["0", "1", "2", "3"], genres=["War", "Drama", "War", "Drama"])
    >>> events = Interactions.of(users=[0, 1, 2], items=[0, 0, 1], item_count=4)
    >>> for personal in (False, True):
    ...     model = GenrePopularity(table, personal=personal)
    ...     model.fit(events)
    ...     (6 * model.scores([np.array([], np.int32), np.array([1], np.int32)])).round().tolist()
    [[2.0, 1.0, 2.0, 1.0], [2.0, 1.0, 2.0, 1.0]]
    [[2.0, 1.0, 2.0, 1.0], [1.0, 2.0, 1.0, 2.0]]
    """

    def __init__(self, items: Items, *, personal: bool) -> None:
        names = sorted({kind for one in items.genres for kind in one})
        self.personal, self.shares = personal, np.zeros((len(items), len(names) + 1))
        for row, kinds in zip(self.shares, items.genres, strict=True):
            row[[names.index(kind) for kind in kinds] or [-1]] = 1 / max(1, len(kinds))

    def fit(self, train: Interactions) -> None:
        popularity = train.popularity().astype(np.float64)
        known = popularity > 0
        events, of_known = popularity @ self.shares, known @ self.shares
        new = events / np.maximum(of_known, 1e-12)
        each = self.shares * np.where(known[:, None], popularity[:, None], new)
        self._within = each / np.maximum(each.sum(axis=0), 1e-12)
        self._taken = events / events.sum()

    def scores(self, histories: Sequence[History]) -> NDArray[np.float32]:
        liked = np.tile(self._taken, (len(histories), 1))
        if self.personal:
            for row, history in zip(liked, histories, strict=True):
                row += self.shares[history].sum(axis=0)
                row /= len(history) + 1
        scores: NDArray[np.float32] = (liked @ self._within.T).astype(np.float32)
        return scores
