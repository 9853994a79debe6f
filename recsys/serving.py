"""What a trained model is for: the best items for one user, by the ids that people use.

Known and new users are the same to a model: it is told the history, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from recsys.data.interactions import History
from recsys.explaining import How, explained
from recsys.metrics.ranking import Scorer, in_list, scores_of
from secagg.errors import UsageError


@dataclass(frozen=True, slots=True)
class Reasons:
    """Why an item is recommended: which items of the history spoke for it, and how much (``recsys.explaining``)."""

    items: tuple[tuple[str, float], ...]
    """those that spoke for it most, the most first; of equals the one taken last; none that spoke against it"""
    others: float | None
    """what all other items of the history add, together; None after leave-one-out, where nothing adds up"""
    apart: float | None
    """what of the score belongs to no item of the history, such as popularity; None after leave-one-out"""


@dataclass(frozen=True, slots=True)
class Recommended:
    """Items with their scores, best first; and the part of the history that the model could not use."""

    items: tuple[tuple[str, float], ...]
    unknown: tuple[str, ...]
    """ids that the model has never heard of, in the order of the history"""
    how: How | None = None
    """whether reasons are exact or by leaving out; None: nobody asked for any"""
    reasons: tuple[Reasons, ...] = ()
    """one for each of ``items``, if asked for"""


@dataclass(frozen=True, slots=True, eq=False)
class ServedModel:
    """A trained model, and the ids of its items in the order of its scores.

    >>> class Model:
    ...     def scores(self, histories):
    ...         return np.float32([[1, 3, 2 * len(one)] for one in histories])
    >>> found = ServedModel(Model(), ["salt", "tea", "oil"]).recommend(["tea", "fish"], k=1, explain=3)
    >>> found.items, found.unknown
    ((('oil', 2.0),), ('fish',))
    >>> found.how.value, found.reasons[0].items
    ('leave-one-out', (('tea', 2.0),))
    """

    model: Scorer
    item_ids: Sequence[str]
    _numbers: Mapping[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "item_ids", tuple(self.item_ids))
        object.__setattr__(self, "_numbers", {name: number for number, name in enumerate(self.item_ids)})

    def recommend(
        self, history: Sequence[str], k: int = 10, *, exclude_seen: bool = True, explain: int = 0
    ) -> Recommended:
        """The ``k`` best items for whoever took ``history``, oldest first.

        Unknown ids do not stop it (catalogues change more often than models), but they are handed back. The list is
        shorter than ``k`` where the user has seen the rest.

        ``explain``: with each of them, up to so many items of the history that spoke for it most. What was taken
        several times is one item; unknown ids speak for nothing.
        """
        if k < 1:
            raise UsageError(f"recommend at least 1 item, not {k}")
        if isinstance(explain, bool) or not isinstance(explain, int | np.integer) or explain < 0:
            raise UsageError(f"explain by a number of items of the history, from 0 on, not {explain!r}")
        seen, unknown = self.numbered(history)
        scores = scores_of(self.model, [seen], len(self.item_ids))[0].copy()
        if exclude_seen:
            scores[seen] = -np.inf
        listed = np.flatnonzero(in_list(scores[None], k)[0])
        best = listed[np.argsort(-scores[listed], kind="stable")]
        items = tuple((self.item_ids[item], float(scores[item])) for item in best)
        if not explain:
            return Recommended(items, unknown)
        return Recommended(items, unknown, *self._explained(seen, best, int(explain)))

    def numbered(self, history: Sequence[str]) -> tuple[History, tuple[str, ...]]:
        """The numbers of those ids that the model knows, and the ids that it does not know, each in their order."""
        numbers = self._numbers
        seen = np.array([numbers[name] for name in history if name in numbers], np.int32)
        return seen, tuple(name for name in history if name not in numbers)

    def _explained(self, history: History, items: NDArray[np.int64], most: int) -> tuple[How, tuple[Reasons, ...]]:
        found = explained(self.model, history, items, len(self.item_ids))
        last = np.zeros(len(self.item_ids), np.int64)
        last[history] = np.arange(len(history))
        reasons = []
        for column in range(len(items)):
            added = found.added[:, column]
            order = np.lexsort((-last[found.own], -added))[:most]
            order = order[added[order] > 0]
            named = tuple((self.item_ids[found.own[row]], float(added[row])) for row in order)
            if found.apart is None:
                reasons.append(Reasons(named, None, None))
            else:
                others = float(np.delete(added, order).sum())
                reasons.append(Reasons(named, others, float(found.apart[column])))
        return found.how, tuple(reasons)
