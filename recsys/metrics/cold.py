"""How good a model is for items and for users that training has never seen (``recsys.data.cold``).

new items   NDCG and Recall of the new items that a user took, with all items ranked; and "among the new" with new
            items alone, which asks only whether a model tells these apart. One that knows nothing of them gives all
            one score, and stands there as chance does.
new users   The same of what a user takes after its first events, of which the model is told so many. Ranked are the
            items that training knows, without those first ones, of which it is told or not: so all lengths of a
            history are compared on the same users, targets and items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.data.cold import ColdSplit
from recsys.data.interactions import History
from recsys.metrics.ranking import Evaluation, Scorer, measure
from recsys.metrics.strong import Among
from secagg.errors import UsageError

AMONG_NEW = "among the new"


def evaluate_new_items(model: Scorer, split: ColdSplit, *, k: int = 10) -> Evaluation:
    """ "NDCG@k" and "Recall@k" of new items, and both "among the new".

    >>> from recsys.data.cold import cold
    >>> from recsys.data.interactions import Interactions
    >>> from recsys.models.popularity import ItemPop
    >>> events = Interactions.of(users=[0, 0, 1, 1, 1], items=[0, 1, 0, 2, 3], times=[1, 2, 1, 8, 9], item_count=5)
    >>> model, split = ItemPop(), cold(events, 5)
    >>> model.fit(split.train)
    >>> [(name, round(float(one[0]), 2)) for name, one in evaluate_new_items(model, split, k=2).values.items()]
    [('NDCG@2', 0.26), ('Recall@2', 0.33), ('NDCG@2 among the new', 0.67), ('Recall@2 among the new', 0.67)]
    """
    asked = split.for_items
    in_all = measure(model, asked.history, asked.targets, k=(k,))
    among = measure(Among(model, ~split.known), asked.history, asked.targets, k=(k,))
    values = _kept(in_all, k) | {f"{name} {AMONG_NEW}": column for name, column in _kept(among, k).items()}
    return Evaluation(in_all.users, values, {}, in_all.skipped)


def evaluate_new_users(model: Scorer, split: ColdSplit, told: int, *, k: int = 10) -> Evaluation:
    """ "NDCG@k" and "Recall@k" where the model is told of the first ``told`` events of each new user."""
    first = int(np.diff(split.for_users.history.starts).max(initial=0))
    if not 0 <= told <= first:
        raise UsageError(f"a model is told of 0 to {first} first events, not of {told}")
    asked = split.for_users
    found = measure(Among(_Told(model, told), split.known), asked.history, asked.targets, k=(k,))
    return Evaluation(found.users, _kept(found, k), {}, found.skipped)


def _kept(found: Evaluation, k: int) -> dict[str, NDArray[np.float64]]:
    return {name: found.values[name] for name in (f"NDCG@{k}", f"Recall@{k}")}


@dataclass(frozen=True, slots=True)
class _Told:
    """A model that hears of the first events only."""

    model: Scorer
    count: int

    def scores(self, histories: Sequence[History]) -> NDArray[np.float32]:
        return self.model.scores([history[: self.count] for history in histories])
