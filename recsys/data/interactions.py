"""Who took which item when: the one form in which data goes through this package.

Users and items are numbered from zero; ``user_ids`` and ``item_ids`` say what the numbers stand for. Events lie in one
block per user, by time, and in the order of the file where times are equal. So a history is a slice, and "the last
event" means one thing.

Where a user's last events have one time, that order is nobody's doing: MovieLens' files put the smallest number first,
so "the last" would be the newest film of those that were rated in one second. ``ties_drawn`` takes another order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from secagg.errors import UsageError

History: TypeAlias = NDArray[np.int32]
"""One user's items, oldest first."""


@dataclass(frozen=True, slots=True, eq=False)
class Interactions:
    """Events of all users. Build one with ``of``; the arrays are read-only.

    >>> events = Interactions.of(users=[1, 0, 1], items=[5, 5, 2], times=[30, 10, 20], item_count=6)
    >>> [history.tolist() for history in events.histories()]
    [[5], [2, 5]]
    """

    starts: NDArray[np.int64]
    """The events of user u are those from starts[u] up to starts[u + 1]."""
    items: NDArray[np.int32]
    times: NDArray[np.int64]
    ratings: NDArray[np.float32]
    user_ids: Sequence[str]
    item_ids: Sequence[str]

    def __post_init__(self) -> None:
        if len(self.starts) != len(self.user_ids) + 1 or self.starts[0] != 0 or (np.diff(self.starts) < 0).any():
            raise UsageError("starts does not divide the events among the users")
        if not len(self.items) == len(self.times) == len(self.ratings) == self.starts[-1]:
            raise UsageError("items, times and ratings have one entry for each event")
        if len(self.items) and not 0 <= self.items.min() <= self.items.max() < len(self.item_ids):
            raise UsageError("an item is not in the catalogue")
        for array in (self.starts, self.items, self.times, self.ratings):
            array.flags.writeable = False

    @classmethod
    def of(
        cls,
        users: ArrayLike,
        items: ArrayLike,
        times: ArrayLike | None = None,
        ratings: ArrayLike | None = None,
        *,
        user_ids: Sequence[str] | None = None,
        item_ids: Sequence[str] | None = None,
        user_count: int = 0,
        item_count: int = 0,
    ) -> Interactions:
        """Events in the order of a file. Without ids, the numbers are the ids."""
        who, what = np.asarray(users, np.int64), np.asarray(items, np.int32)
        when = np.zeros(len(who), np.int64) if times is None else np.asarray(times, np.int64)
        liked = np.ones(len(who), np.float32) if ratings is None else np.asarray(ratings, np.float32)
        user_count = user_count or int(who.max(initial=-1)) + 1
        item_count = item_count or int(what.max(initial=-1)) + 1
        user_ids = user_ids if user_ids is not None else [str(number) for number in range(user_count)]
        item_ids = item_ids if item_ids is not None else [str(number) for number in range(item_count)]
        if len(who) and not 0 <= who.min() <= who.max() < len(user_ids):
            raise UsageError("a user has no id")
        order = np.lexsort((when, who))  # stable: equal times stay in the order of the file
        starts = np.concatenate(([0], np.cumsum(np.bincount(who, minlength=len(user_ids)))))
        return cls(starts.astype(np.int64), what[order], when[order], liked[order], user_ids, item_ids)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def user_count(self) -> int:
        return len(self.user_ids)

    @property
    def item_count(self) -> int:
        return len(self.item_ids)

    @property
    def users(self) -> NDArray[np.int64]:
        """The user of each event."""
        return np.repeat(np.arange(self.user_count), np.diff(self.starts))

    def history(self, user: int) -> History:
        return self.items[self.starts[user] : self.starts[user + 1]]

    def histories(self) -> Iterator[History]:
        return (self.history(user) for user in range(self.user_count))

    def where(self, chosen: NDArray[np.bool_]) -> Interactions:
        """The chosen events. All users and items keep their numbers."""
        starts = np.concatenate(([0], np.cumsum(chosen)))[self.starts]
        return Interactions(
            starts, self.items[chosen], self.times[chosen], self.ratings[chosen], self.user_ids, self.item_ids
        )

    def of_users(self, chosen: Sequence[int] | NDArray[np.int64]) -> Interactions:
        """The chosen users, numbered anew in that order. All items keep their numbers."""
        blocks = [np.arange(self.starts[user], self.starts[user + 1]) for user in chosen]
        events = np.concatenate([np.empty(0, np.int64), *blocks])
        starts = np.concatenate(([0], np.cumsum([len(block) for block in blocks]))).astype(np.int64)
        user_ids = [self.user_ids[user] for user in chosen]
        return Interactions(
            starts, self.items[events], self.times[events], self.ratings[events], user_ids, self.item_ids
        )

    def ties_drawn(self, seed: int) -> Interactions:
        """The same events; those of one user at one time stand in an order that is drawn from ``seed``.

        Each event's place follows from the seed and the numbers of its user and item: no other user moves it. Events
        without times have all one time, and would all be mixed.

        >>> events = Interactions.of(users=[0] * 6, items=range(6), times=[1, 5, 5, 5, 5, 9])
        >>> [events.ties_drawn(seed).history(0).tolist() for seed in (1, 2)]
        [[0, 4, 3, 1, 2, 5], [0, 2, 3, 1, 4, 5]]
        """
        order = np.lexsort((_drawn(seed, self.users, self.items), self.times, self.users))
        return Interactions(
            self.starts, self.items[order], self.times[order], self.ratings[order], self.user_ids, self.item_ids
        )

    @property
    def timed(self) -> bool:
        """Whether events have times, and not all the same."""
        return len(self.times) > 0 and bool(self.times.min() < self.times.max())

    def popularity(self) -> NDArray[np.int64]:
        """How often each item occurs."""
        return np.bincount(self.items, minlength=self.item_count)


def _drawn(seed: int, users: NDArray[np.int64], items: NDArray[np.int32]) -> NDArray[np.uint64]:
    """A number for each event that looks random: splitmix64 (Steele, Lea and Flood 2014), over one after the other."""
    found = np.full(len(users), seed, np.uint64)
    for part in (users, items):
        found = (found + part.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        found = (found ^ (found >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        found = (found ^ (found >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        found ^= found >> np.uint64(31)
    return found
