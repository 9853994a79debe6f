"""What is learnt from, what is chosen by, and what is measured on.

    leave_last_out   each user's last event is the test, the one before it the validation
    by_ratio         each user's last tenth, and the tenth before
    by_time          everything from one moment on, for all users. A moment that is a share of the events follows from
                     what all users did: one user more moves what is held out of others. Given as a time, it does not.
    load             the user's own three files

No rule draws lots: the past is learnt from, the future is measured on. "Last" is by time, and where times are equal by
the order of the file; of whom that decides the test is counted (``Split.tied``). Nothing is dropped: users with too few
events stay in ``train``, cold users and items stay where they are, and ``report`` counts them. A user's item in two
parts would be a leak, and is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recsys.data import tables
from recsys.data.interactions import Interactions
from recsys.data.items import Items
from secagg.errors import UsageError


@dataclass(frozen=True, slots=True)
class ColdStart:
    """Users and items of a part that ``train`` has never seen, and in how many of its events."""

    users: int
    items: int
    events: int


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Three parts of one data set, with the same numbers for users and items, and no user's item in two of them."""

    train: Interactions
    valid: Interactions
    test: Interactions
    notes: tuple[str, ...] = field(default=(), kw_only=True)
    """what the rule could not do, for people"""
    tied: NDArray[np.bool_] | None = field(default=None, kw_only=True)
    """of each user, whether events of one time are on both sides of where the test begins: the order of the file, or
    a draw (``Interactions.ties_drawn``), decided which of them are the test. None: the rule takes no order"""

    def __post_init__(self) -> None:
        for part in (self.valid, self.test):
            if not (_same(self.train.user_ids, part.user_ids) and _same(self.train.item_ids, part.item_ids)):
                raise UsageError("the parts of a split number the same users and items")
        pairs = {name: np.sort(_pairs(getattr(self, name))) for name in ("train", "valid", "test")}
        for one, other in combinations(pairs, 2):
            self._check_apart(one, other, _shared(pairs[one], pairs[other]))

    @property
    def tied_share(self) -> float:
        """The share of users whose test a tie in time decides, of those that have one."""
        measured = int((np.diff(self.test.starts) > 0).sum())
        return 0.0 if self.tied is None else int(self.tied.sum()) / max(measured, 1)

    @property
    def interchangeable(self) -> NDArray[np.bool_]:
        """Of each user, whether its one event in test and its one in valid are of the same time.

        >>> events = Interactions.of(users=[0, 0, 0, 1, 1, 1], items=[0, 1, 2, 0, 1, 2], times=[1, 2, 2, 1, 2, 3])
        >>> leave_last_out(events).interchangeable.tolist()
        [True, False]
        """
        if self.tied is None:
            return np.zeros(self.train.user_count, np.bool_)
        both: NDArray[np.bool_] = self.tied & (np.diff(self.test.starts) == 1) & (np.diff(self.valid.starts) == 1)
        return both

    def _check_apart(self, one: str, other: str, shared: NDArray[np.int64]) -> None:
        if len(shared) > 0:
            user, item = divmod(int(shared[0]), self.train.item_count)
            raise UsageError(
                f"{len(shared)} events are in both {one} and {other}, such as user {self.train.user_ids[user]} with "
                f"item {self.train.item_ids[item]}: keep a user's first event with an item only"
            )

    @classmethod
    def load(
        cls,
        train: str | Path,
        valid: str | Path | None,
        test: str | Path,
        *,
        user: str = "user",
        item: str = "item",
        time: str = "",
        rating: str = "",
        separator: str = ",",
        listed: Items | None = None,
    ) -> Split:
        """The user's own files, as ``recsys.data.tables.load`` reads them, with the ids of all of them together, in
        order; or with the items of a table, in its order.

        There may be no ``valid``.

        >>> from tempfile import mkdtemp
        >>> folder = Path(mkdtemp())
        >>> _ = (folder / "past.csv").write_text("user,item\\nann,tea\\nann,jam\\n")
        >>> _ = (folder / "future.csv").write_text("user,item\\nann,oats\\nbob,tea\\n")
        >>> split = Split.load(folder / "past.csv", None, folder / "future.csv")
        >>> print(*split.report(), sep="\\n")
        2 train, 0 valid, 2 test events
        past.csv: 2 events of 1 users and 2 items
        future.csv: 2 events of 2 users and 2 items
        test: 1 users and 1 items that train has never seen, in 2 events
        """
        loaded = [
            tables.load(path, user=user, item=item, time=time, rating=rating, separator=separator, listed=listed)
            if path
            else None
            for path in (train, valid, test)
        ]
        notes = [line for part in loaded if part for line in part.report()]
        parts = [part.interactions if part else None for part in loaded]
        return cls(*_united(parts, listed), notes=tuple(notes))

    def cold_start(self) -> dict[str, ColdStart]:
        """By part: who and what in it is new.

        >>> events = Interactions.of(users=[0, 0, 1, 1, 1], items=[0, 1, 0, 2, 3], times=[1, 2, 1, 2, 3])
        >>> leave_last_out(events, valid=False).cold_start()["test"]
        ColdStart(users=0, items=2, events=2)
        """
        users, items = np.diff(self.train.starts) > 0, self.train.popularity() > 0
        found = {}
        for name, part in (("valid", self.valid), ("test", self.test)):
            new_users, new_items = ~users[part.users], ~items[part.items]
            found[name] = ColdStart(
                len(np.unique(part.users[new_users])),
                len(np.unique(part.items[new_items])),
                int((new_users | new_items).sum()),
            )
        return found

    def report(self) -> list[str]:
        """Lines for people: sizes, what the rule could not do, cold start."""
        sizes = ", ".join(f"{len(getattr(self, name))} {name}" for name in ("train", "valid", "test"))
        cold = [
            f"{name}: {new.users} users and {new.items} items that train has never seen, in {new.events} events"
            for name, new in self.cold_start().items()
            if new.events
        ]
        return [f"{sizes} events", *self.notes, *cold]


def leave_last_out(interactions: Interactions, valid: bool = True) -> Split:
    """Each user's last event is the test; with ``valid``, the one before is the validation.

    >>> split = leave_last_out(Interactions.of(users=[0, 0, 0, 1], items=[4, 2, 3, 1], times=[3, 1, 2, 1]))
    >>> [part.history(0).tolist() for part in (split.train, split.valid, split.test)], split.notes
    ([[2], [3], [4]], ('1 of 2 users have too few events for one in test',))
    """
    sizes = np.diff(interactions.starts)
    enough = sizes >= (3 if valid else 2)
    return _by_rank(interactions, np.where(enough, int(valid), 0), enough.astype(np.int64))


def by_ratio(interactions: Interactions, valid: float = 0.1, test: float = 0.1) -> Split:
    """Each user's last events, in these shares, rounded down.

    >>> split = by_ratio(Interactions.of(users=[0] * 10, items=range(10), times=range(10)))
    >>> split.valid.history(0).tolist(), split.test.history(0).tolist()
    ([8], [9])
    """
    if not (valid >= 0 and test > 0 and valid + test < 1):
        raise UsageError("valid and test are shares of a user's events, and leave something to train on")
    sizes = np.diff(interactions.starts)
    in_test = np.floor(sizes * test + 1e-9).astype(np.int64)
    in_valid = np.floor(sizes * valid + 1e-9).astype(np.int64)
    return _by_rank(interactions, in_valid, in_test)


def by_time(
    interactions: Interactions, valid_from: float = 0.8, test_from: float = 0.9, *, fractions: bool = True
) -> Split:
    """Two moments divide the events of all users: as shares of the events, or as times in the unit of the file.

    Events at one time are never divided.

    >>> events = Interactions.of(users=[0, 1, 0, 1], items=[0, 1, 2, 3], times=[5, 6, 7, 8])
    >>> split = by_time(events, 7, 8, fractions=False)
    >>> [len(part) for part in (split.train, split.valid, split.test)], split.cold_start()["test"].items
    ([2, 1, 1], 1)
    """
    if fractions:
        if not 0 < valid_from <= test_from < 1:
            raise UsageError("valid_from and test_from are shares of the events, in order")
        ordered = np.sort(interactions.times)
        moments = [ordered[min(int(share * len(ordered)), len(ordered) - 1)] for share in (valid_from, test_from)]
    else:
        moments = [valid_from, test_from]
        if valid_from > test_from:
            raise UsageError("valid_from is not after test_from")
    late, latest = (interactions.times >= moment for moment in moments)
    split = Split(interactions.where(~late), interactions.where(late & ~latest), interactions.where(latest))
    if not (len(split.train) and len(split.test)):
        raise UsageError("at these times, nothing is left to train on or to test")
    return split


def _by_rank(interactions: Interactions, in_valid: NDArray[np.int64], in_test: NDArray[np.int64]) -> Split:
    """The last ``in_test`` events of each user, and the ``in_valid`` before them."""
    sizes = np.diff(interactions.starts)
    to_the_end = np.repeat(interactions.starts[1:], sizes) - np.arange(len(interactions))  # 1 for the last event
    test = to_the_end <= np.repeat(in_test, sizes)
    valid = ~test & (to_the_end <= np.repeat(in_test + in_valid, sizes))
    few = int((in_test == 0).sum())
    notes = [f"{few} of {len(sizes)} users have too few events for one in test"] if few else []
    tied = _tied(interactions, in_test)
    if share := int(tied.sum()):
        notes.append(f"of {share} of {len(sizes) - few} users a tie in time decides which event is in test")
    parts = (interactions.where(chosen) for chosen in (~test & ~valid, valid, test))
    return Split(*parts, notes=tuple(notes), tied=tied)


def _tied(interactions: Interactions, in_test: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Of each user, whether the first of so many last events has the time of the one before it."""
    tied = np.zeros(interactions.user_count, np.bool_)
    if interactions.timed:
        begins = interactions.starts[1:] - in_test
        there = (in_test > 0) & (begins > interactions.starts[:-1])
        tied[there] = interactions.times[begins[there]] == interactions.times[begins[there] - 1]
    return tied


def _united(parts: Sequence[Interactions | None], listed: Items | None) -> list[Interactions]:
    """The same events, numbered alike: users by their ids, items as their table has them, or by their ids."""
    user_ids = tuple(sorted({name for part in parts if part for name in part.user_ids}))
    item_ids = listed.ids if listed else tuple(sorted({name for part in parts if part for name in part.item_ids}))
    users = {name: number for number, name in enumerate(user_ids)}
    items = {name: number for number, name in enumerate(item_ids)}
    nothing = Interactions.of([], [], user_ids=user_ids, item_ids=item_ids)
    return [
        nothing
        if part is None
        else Interactions.of(
            np.array([users[name] for name in part.user_ids])[part.users],
            np.array([items[name] for name in part.item_ids])[part.items],
            part.times,
            part.ratings,
            user_ids=user_ids,
            item_ids=item_ids,
        )
        for part in parts
    ]


def _pairs(part: Interactions) -> NDArray[np.int64]:
    return part.users * part.item_count + part.items


def _shared(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    """What ordered arrays have in common; the shorter is looked up in the longer."""
    short, long = sorted((one, other), key=len)
    if not len(short):
        return short
    places = np.minimum(np.searchsorted(long, short), len(long) - 1)
    found: NDArray[np.int64] = short[long[places] == short]
    return found


def _same(ids: Sequence[str], others: Sequence[str]) -> bool:
    return ids is others or (len(ids) == len(others) and all(a == b for a, b in zip(ids, others, strict=True)))
