"""What a trained model is for: the best items for one user, by the ids that people use.

Known and new users are the same to a model: it is told the history, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from recsys.metrics.ranking import Scorer, in_list, scores_of
from secagg.errors import UsageError


@dataclass(frozen=True, slots=True)
class Recommended:
    """Items with their scores, best first; and the part of the history that the model could not use."""

    items: tuple[tuple[str, float], ...]
    unknown: tuple[str, ...]
    """ids that the model has never heard of, in the order of the history"""


@dataclass(frozen=True, slots=True, eq=False)
class ServedModel:
    """A trained model, and the ids of its items in the order of its scores.

    >>> class Model:
    ...     def scores(self, histories):
    ...         return np.float32([[1, 3, 2]])
    >>> ServedModel(Model(), ["salt", "tea", "oil"]).recommend(["tea", "fish"], k=1)
    Recommended(items=(('oil', 2.0),), unknown=('fish',))
    """

    model: Scorer
    item_ids: Sequence[str]
    _numbers: Mapping[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "item_ids", tuple(self.item_ids))
        object.__setattr__(self, "_numbers", {name: number for number, name in enumerate(self.item_ids)})

    def recommend(self, history: Sequence[str], k: int = 10, *, exclude_seen: bool = True) -> Recommended:
        """The ``k`` best items for whoever took ``history``, oldest first.

        Unknown ids do not stop it (catalogues change more often than models), but they are handed back. The list is
        shorter than ``k`` where the user has seen the rest.
        """
        if k < 1:
            raise UsageError(f"recommend at least 1 item, not {k}")
        numbers = self._numbers
        seen = np.array([numbers[name] for name in history if name in numbers], np.int32)
        scores = scores_of(self.model, [seen], len(self.item_ids))[0].copy()
        if exclude_seen:
            scores[seen] = -np.inf
        listed = np.flatnonzero(in_list(scores[None], k)[0])
        best = listed[np.argsort(-scores[listed], kind="stable")]
        return Recommended(
            tuple((self.item_ids[item], float(scores[item])) for item in best),
            tuple(name for name in history if name not in numbers),
        )
