"""From scores to ranks to metrics, for each user.

A user's history goes to the model and is masked from its ranking; all other items are ranked, or, to compare with
papers, only the held-out items and 99 negatives that were drawn once and for all.

With held-out ranks r_1 < r_2 < ... < r_n of one user, of which those up to k are in the list of length k:

    HR@k      1 if r_1 is in the list
    Recall@k  how many are, of n
    NDCG@k    sum of 1 / log2(1 + r_j) over those in the list, relative to the same of the ranks 1 to min(k, n)
    MRR@k     1 / r_1 if it is in the list
    MAP@k     sum of j / r_j over those in the list, divided by min(k, n)

Items of equal score stand in no order, and a model gains or loses nothing by giving many items the same score: each
metric is its exact mean over all orders of equals, as are ranks. Take g equals, of which h are held out, with a other
items and b held-out ones ahead of them all. They share the places a + 1 to a + g, of which the list has the first s.
The held-out ones are in each h of the g places equally often, so

    the i-th place has a held-out item with probability h / g, and is its (1 + b + (i - 1) (h - 1) / (g - 1))-th on
    average if it has one; and none of the first i places has one with probability
    v_i = C(g - i, h) / C(g, h) = product over j < i of (g - h - j) / (g - j),

    rank      a + (g + 1) / (h + 1)                                  of the first: where b = 0
    HR@k      1 - v_s                                                the same
    MRR@k     sum over i = 1 to s of (v_(i-1) - v_i) / (a + i)       the same
    Recall@k  h s / g / n                                            and the sum of it over the user's groups of equals
    NDCG@k    h / g sum of 1 / log2(1 + a + i), over the ideal       the same
    MAP@k     h / g sum of (1 + b + (i - 1) (h - 1) / (g - 1)) / (a + i), over min(k, n)

A model that calls everything equally good has an HR@10 of .10 among 100 items, as chance has.

Nor do events of one user at one time. Where each a user's test and validation is one event, and both have one time,
the model was trained on neither of them: the test is the mean over both orders (``evaluate``). Which of more events of
that time those two are is the draw of ``Interactions.ties_drawn``, and a mean over several of these has to train anew.

What the lists themselves are like, without asking who liked them: coverage@k is the share of all items that somebody
is shown, novelty@k the mean self-information log2(users / takers) of the items that a user is shown (Zhou et al. 2010,
"Solving the apparent diversity-accuracy dilemma of recommender systems"); an item that nobody took counts as taken by
one. Lists break ties by item number.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from recsys.data.interactions import History, Interactions
from recsys.data.split import Split
from secagg.errors import UsageError
from secagg.files import write_file

_BLOCK = 1 << 22  # scores compared at once


class Scorer(Protocol):
    """What can be measured."""

    def scores(self, histories: Sequence[History]) -> NDArray[np.float32]:
        """One row for each history, one column for each item; more is better."""


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """One value for each measured user, by metric: "rank" (of the best held-out item), "HR@10", "NDCG@10" ..."""

    users: NDArray[np.int64]
    """their numbers, in order"""
    values: Mapping[str, NDArray[np.float64]]
    coverage: Mapping[str, float]
    """of all lists together: "coverage@10" ..."""
    skipped: int
    """users without a held-out item to rank"""

    def __post_init__(self) -> None:
        if any(len(column) != len(self.users) for column in self.values.values()):
            raise UsageError("each metric has one value for each user")
        for array in (self.users, *self.values.values()):
            array.flags.writeable = False

    def mean(self, name: str) -> float:
        """Over the measured users."""
        if name not in self.values:
            raise UsageError(f"{name!r} was not measured, but {', '.join(self.values)}")
        if not len(self.users):
            raise UsageError("no user was measured: none has a held-out item")
        return float(self.values[name].mean())

    def summary(self) -> dict[str, float]:
        """All means, coverage, and over how many users."""
        means = {name: self.mean(name) for name in self.values}
        return means | dict(self.coverage) | {"users": len(self.users), "skipped": self.skipped}

    def write_csv(self, path: str | Path, user_ids: Sequence[str]) -> None:
        """Write ``as_csv``, whole or not at all, for its owner alone."""
        write_file(Path(path), self.as_csv(user_ids), private=True)

    def as_csv(self, user_ids: Sequence[str]) -> bytes:
        """One line for each user, for paired tests elsewhere.

        Ranks are exact: with the model and the rest of a user's history they say what was held out.
        """
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["user", *self.values])
        columns = [column.tolist() for column in self.values.values()]
        table.writerows(zip((user_ids[user] for user in self.users), *columns, strict=True))
        return text.getvalue().encode()


def evaluate(
    model: Scorer,
    split: Split,
    *,
    on: str = "test",
    k: Sequence[int] = (10,),
    negatives: NDArray[np.int32] | None = None,
    batch: int = 256,
) -> Evaluation:
    """Measure on "valid" with train as history, or on "test" with train and valid as history.

    ``negatives`` has a row for each user (``recsys.data.negatives.frozen``); without it all items are ranked, and
    coverage and novelty are there too.

    >>> train = Interactions.of(users=[0, 0, 1, 1, 2], items=[0, 1, 0, 2, 0], item_count=4)
    >>> nothing, test = train.where(np.zeros(5, bool)), Interactions.of([0, 1, 2], [2, 3, 3], user_count=3)
    >>> class Popular:
    ...     def scores(self, histories):
    ...         return np.tile(np.float32([3, 1, 1, 0]), (len(histories), 1))
    >>> evaluate(Popular(), Split(train, nothing, test), k=(2,)).values["rank"].tolist()
    [1.0, 2.0, 3.0]
    """
    if on not in ("test", "valid"):
        raise UsageError(f"measure on 'test' or 'valid', not {on!r}")
    history, held_out = (split.train, split.valid) if on == "valid" else (_joined(split.train, split.valid), split.test)
    if negatives is not None:
        found = measure(model, history, held_out, k=k, negatives=negatives, batch=batch)
    else:
        information = np.log2(max(split.train.user_count, 1) / np.maximum(split.train.popularity(), 1))
        found = measure(model, history, held_out, k=k, information=information, batch=batch)
    both = split.interchangeable
    if on == "valid" or not both.any():
        return found
    held_out = split.valid.where(both[split.valid.users])
    swapped = measure(model, _joined(split.train, split.test), held_out, k=k, negatives=negatives, batch=batch)
    return _averaged(found, swapped)


def measure(
    model: Scorer,
    history: Interactions,
    held_out: Interactions,
    *,
    k: Sequence[int] = (10,),
    negatives: NDArray[np.int32] | None = None,
    information: NDArray[np.float64] | None = None,
    batch: int = 256,
    everybody: bool = False,
) -> Evaluation:
    """The same from a history and held-out events, with the same numbers for users and items.

    ``information`` is what showing each item is worth, for coverage and novelty, which need it and full ranking.
    ``everybody``: the model scores all users, also those without a held-out item, each in a batch and a place of its
    own number. A product of matrices rounds a row by its place and by how many there are, so else whether one user has
    something held out could turn two items of another.
    """
    if batch < 1 or not k or min(k) < 1:
        raise UsageError("batch and all k are at least 1")
    users, items = history.user_count, history.item_count
    if (held_out.user_count, held_out.item_count) != (users, items):
        raise UsageError("history and held-out events number their users and items differently")
    if negatives is not None and (information is not None or negatives.ndim != 2 or len(negatives) != users):
        raise UsageError("negatives have one row for each user, and go without coverage and novelty")

    pairs = np.unique(held_out.users * items + held_out.items)
    if np.isin(pairs, history.users * items + history.items).any():
        raise UsageError("a held-out item is in its user's history, which is not ranked")
    owners, targets = np.divmod(pairs, max(items, 1))
    measured, counts = np.unique(owners, return_counts=True)
    starts = np.concatenate(([0], np.cumsum(counts)))

    groups: list[_Equals] = []
    shown = {length: np.zeros(items, np.bool_) for length in k}
    novelty = {length: np.zeros(len(measured), np.float64) for length in k}
    scored = np.arange(users) if everybody else measured
    for first in range(0, len(scored), batch):
        asked = scored[first : first + batch]
        start, end = np.searchsorted(measured, (asked[0], asked[-1] + 1))
        chosen, block = measured[start:end], slice(starts[start], starts[end])
        if not len(chosen):
            continue
        rows, columns = np.searchsorted(chosen, owners[block]), targets[block]
        ranked = _others(history, chosen)
        if negatives is not None:
            among = _among(negatives[chosen], items)
            if among[rows, columns].any() or (among & ~ranked).any():
                raise UsageError("a negative is a held-out item, or in its user's history")
            ranked = among
            ranked[rows, columns] = True
        scores = scores_of(model, [history.history(user) for user in asked], items)[np.isin(asked, chosen)]
        groups.append(_equals(scores, ranked, rows, columns, int(start)))
        if information is not None:
            scores = np.where(ranked, scores, -np.inf)
            for length in k:
                listed = in_list(scores, length)
                who, what = np.nonzero(listed)
                shown[length][what] = True
                entries = np.maximum(np.bincount(who, minlength=len(chosen)), 1)
                told = np.bincount(who, information[what], minlength=len(chosen))
                novelty[length][start:end] = told / entries

    found = _joined_equals(groups)
    values = {"rank": found.first_ranks()}
    for length in k:
        values |= _metrics(found, counts, length)
    coverage = {}
    if information is not None:
        values |= {f"novelty@{length}": novelty[length] for length in k}
        coverage = {f"coverage@{length}": float(shown[length].mean()) for length in k}
    return Evaluation(measured, values, coverage, users - len(measured))


def scores_of(model: Scorer, histories: Sequence[History], items: int) -> NDArray[np.float32]:
    """A model's answer, if it is one: a number or -inf for each history and item."""
    scores = np.asarray(model.scores(histories))
    if scores.shape != (len(histories), items):
        raise UsageError(f"{len(histories)} histories and {items} items, but the model's scores are {scores.shape}")
    if np.isnan(scores).any() or (scores == np.inf).any():
        raise UsageError("the model's scores are not all numbers")
    return scores


def in_list(scores: NDArray[np.float32], length: int) -> NDArray[np.bool_]:
    """Which items make up each row's list: the best ones, the first of equals, never one of score -inf.

    >>> in_list(np.float32([[1, 3, 1, -np.inf]]), 2).astype(int).tolist()
    [[1, 1, 0, 0]]
    """
    length = min(length, scores.shape[1])
    last = np.partition(scores, -length, axis=1)[:, -length, None]
    chosen: NDArray[np.bool_] = scores >= last
    crowded = np.flatnonzero(np.count_nonzero(chosen, axis=1) > length)
    above, level = scores[crowded] > last[crowded], scores[crowded] == last[crowded]
    room = length - np.count_nonzero(above, axis=1)[:, None]
    chosen[crowded] = above | (level & (level.cumsum(axis=1, dtype=np.int32) <= room))
    chosen &= scores > -np.inf
    return chosen


def _averaged(found: Evaluation, other: Evaluation) -> Evaluation:
    """The mean of both for those users that are in the other, too. Novelty and coverage are those of the first."""
    places = np.searchsorted(found.users, other.users)
    values = {name: column.copy() for name, column in found.values.items()}
    for name, column in other.values.items():
        values[name][places] = (values[name][places] + column) / 2
    return Evaluation(found.users, values, found.coverage, found.skipped)


def _joined(first: Interactions, second: Interactions) -> Interactions:
    return Interactions.of(
        np.concatenate([first.users, second.users]),
        np.concatenate([first.items, second.items]),
        np.concatenate([first.times, second.times]),
        user_ids=first.user_ids,
        item_ids=first.item_ids,
    )


def _others(history: Interactions, users: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Row by row, the items that the user has not seen."""
    unseen = np.ones((len(users), history.item_count), np.bool_)
    rows = np.repeat(np.arange(len(users)), history.starts[users + 1] - history.starts[users])
    unseen[rows, np.concatenate([history.history(user) for user in users])] = False
    return unseen


def _among(chosen: NDArray[np.int32], items: int) -> NDArray[np.bool_]:
    if chosen.size and not 0 <= chosen.min() <= chosen.max() < items:
        raise UsageError("a negative is not in the catalogue")
    ranked = np.zeros((len(chosen), items), np.bool_)
    ranked[np.arange(len(chosen))[:, None], chosen] = True
    return ranked


@dataclass(frozen=True, slots=True, eq=False)
class _Equals:
    """Of each user, ascending, and each score that a held-out item has, descending: one entry for each."""

    users: NDArray[np.int64]
    """counted among those that are measured"""
    ahead: NDArray[np.int64]
    """a: ranked items with a higher score"""
    size: NDArray[np.int64]
    """g: ranked items with this score"""
    held: NDArray[np.int64]
    """h: of these, held-out ones"""
    earlier: NDArray[np.int64]
    """b: held-out items with a higher score"""

    def first_ranks(self) -> NDArray[np.float64]:
        """Where each user's best held-out item is expected."""
        first = self.earlier == 0
        ranks: NDArray[np.float64] = self.ahead[first] + (self.size[first] + 1) / (self.held[first] + 1)
        return ranks


def _equals(
    scores: NDArray[np.float32],
    ranked: NDArray[np.bool_],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    start: int,
) -> _Equals:
    """Of the held-out items (rows, columns), with rows ascending. Row 0 is the user number ``start``."""
    ahead, size = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
    step = max(1, _BLOCK // max(1, scores.shape[1]))
    for at in range(0, len(rows), step):
        some = slice(at, at + step)
        others, own = scores[rows[some]], scores[rows[some], columns[some], None]
        ahead[some] = np.count_nonzero((others > own) & ranked[rows[some]], axis=1)
        size[some] = np.count_nonzero((others == own) & ranked[rows[some]], axis=1)
    order = np.lexsort((ahead, rows))
    ahead, size = ahead[order], size[order]
    # Held-out items of one user with as many ahead have equal scores.
    changes = np.ones(len(rows), np.bool_)
    changes[1:] = (np.diff(rows) != 0) | (np.diff(ahead) != 0)
    first = np.flatnonzero(changes)
    held = np.diff(np.append(first, len(rows)))
    earlier = first - np.searchsorted(rows, rows[first])
    return _Equals(rows[first] + start, ahead[first], size[first], held, earlier)


def _joined_equals(groups: Sequence[_Equals]) -> _Equals:
    names = [one.name for one in fields(_Equals)]
    nothing = np.empty(0, np.int64)
    return _Equals(*(np.concatenate([nothing, *(getattr(group, name) for group in groups)]) for name in names))


def _metrics(found: _Equals, counts: NDArray[np.int64], k: int) -> dict[str, NDArray[np.float64]]:
    """Of each user, who has so many held-out items; the mean over all orders of equals."""
    near = found.ahead < k
    users, ahead, size, held, earlier = (getattr(found, one.name)[near] for one in fields(_Equals))
    share = held / size
    before = (held - 1) / np.maximum(size - 1, 1)  # held-out equals in a place ahead of one that has one
    hits, gains, precision, reciprocal = (np.zeros(len(users)) for _ in range(4))
    none = np.ones(len(users))  # v_i: none of the first places has a held-out item
    for i in range(1, k + 1):
        listed = (i <= size) & (ahead + i <= k)
        if not listed.any():
            break
        place = ahead + i
        hits += np.where(listed, share, 0.0)
        gains += np.where(listed, share / np.log2(1 + place), 0.0)
        precision += np.where(listed, share * (1 + earlier + (i - 1) * before) / place, 0.0)
        left = none * np.maximum(size - held - i + 1, 0) / np.maximum(size - i + 1, 1)
        reciprocal += np.where(listed, (none - left) / place, 0.0)
        none = np.where(listed, left, none)

    def total(each: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(users, each, minlength=len(counts)).astype(np.float64)

    first, possible = earlier == 0, np.minimum(counts, k)
    ideal = np.concatenate(([0.0], np.cumsum(1 / np.log2(1 + np.arange(1, k + 1)))))
    return {
        f"HR@{k}": total(np.where(first, 1 - none, 0.0)),
        f"Recall@{k}": total(hits) / counts,
        f"NDCG@{k}": total(gains) / ideal[possible],
        f"MRR@{k}": total(np.where(first, reciprocal, 0.0)),
        f"MAP@{k}": total(precision) / possible,
    }
