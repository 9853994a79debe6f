"""How good a model is for users whom it has never seen, with the metrics of Liang et al. 2018.

    capped Recall@k  how many of the n targets are in the list of length k, of min(k, n): what that paper, and those
                     that compare with it, call Recall@k
    NDCG@k           as everywhere in this package

All items that somebody in training took are ranked, without those of the user's history; no others, as if the catalogue
were that of training. Items of equal score are in no order (``recsys.metrics.ranking``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.data.interactions import History
from recsys.data.strong import Newcomers, StrongSplit
from recsys.metrics.ranking import Evaluation, Scorer, measure
from secagg.errors import UsageError

LENGTHS = (20, 50, 100)


def evaluate_newcomers(
    model: Scorer, split: StrongSplit, *, on: str = "test", k: Sequence[int] = LENGTHS
) -> Evaluation:
    """Of each user of "valid" or "test" with a target: "capped Recall@k" and "NDCG@k".

    >>> from recsys.data.strong import strong
    >>> from recsys.data.synthetic import population
    >>> from recsys.models.popularity import ItemPop
    >>> split, model = strong(population(users=100, items=200), liked=0.0), ItemPop()
    >>> model.fit(split.train)
    >>> list(evaluate_newcomers(model, split, k=(20,)).values)
    ['capped Recall@20', 'NDCG@20']
    """
    if on not in ("test", "valid"):
        raise UsageError(f"measure on 'test' or 'valid', not {on!r}")
    asked: Newcomers = split.valid if on == "valid" else split.test
    found = measure(Among(model, split.known), asked.history, asked.targets, k=k)
    wanted = np.diff(asked.targets.starts)[found.users]
    values = dict[str, NDArray[np.float64]]()
    for length in k:
        values[f"capped Recall@{length}"] = found.values[f"Recall@{length}"] * wanted / np.minimum(wanted, length)
        values[f"NDCG@{length}"] = found.values[f"NDCG@{length}"]
    return Evaluation(found.users, values, {}, found.skipped)


@dataclass(frozen=True, slots=True, eq=False)
class Among:
    """A model that calls no item good but some."""

    model: Scorer
    some: NDArray[np.bool_]
    """of each item, whether it is one of these"""

    def scores(self, histories: Sequence[History]) -> NDArray[np.float32]:
        return np.where(~self.some, np.float32(-np.inf), self.model.scores(histories))
