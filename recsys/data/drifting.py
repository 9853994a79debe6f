"""A made-up stream whose users change their tastes at one moment, so that what was learnt before is worth less after.

Each user has a few favourite topics, each item is in one topic, and in each topic some items are taken more often than
others. An event is an item of a favourite topic, or now and then any item. At the change a part of the items goes to
other topics, and what is taken often within a topic is drawn anew: what goes with what is not what it was.

The events of a stretch of time follow from the seed and from which stretch it is, so that a stream can be gone on with
anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from secagg.errors import UsageError

_FAVOURITES = 3
_ANY = 0.1
"""The probability of an item of no particular topic."""
_TAIL = 1.5
"""Standard deviation of the logarithm of how often an item is taken."""
_SPREAD = 1.0
"""The same of how much a user does."""
_WORLD, _USERS, _EVENTS = 0x776F726C64, 0x7573657273, 0x6576656E7473


@dataclass(frozen=True)
class DriftingTastes:
    """
    users, items: how many there are.
    begin, every: stretch ``n`` is from begin + n * every on, for so many seconds.
    events: of all users together in a stretch, on average.
    change: from this moment on tastes are other ones.
    moved: the share of the items that are in another topic then.

    >>> tastes = DriftingTastes(users=50, items=40, begin=1000, every=600, events=100.0, change=2000, seed=1)
    >>> users, items, times = tastes.stretch(2)
    >>> len(users) == len(items) == len(times), all(2200 <= time < 2800 for time in times)
    (True, True)
    """

    users: int
    items: int
    begin: int
    every: int
    events: float
    change: int
    moved: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.users < 1 or self.items < 4 or self.every < 1 or not self.events > 0 or not 0 <= self.moved <= 1:
            raise UsageError("a made-up stream has users, 4 items or more, and events in each of its stretches")

    def stretch(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Users, items and times of the events of one stretch, in order of time."""
        rng = np.random.default_rng([_EVENTS, self.seed, number])
        count = int(rng.poisson(self.events))
        times = np.sort(rng.integers(0, self.every, count)) + self.begin + number * self.every
        users = np.minimum(np.searchsorted(self._activity, rng.random(count), side="right"), self.users - 1)
        topics = self._favourites[users, rng.integers(_FAVOURITES, size=count)]
        anything, spot = rng.random(count) < _ANY, rng.random(count)
        items = np.zeros(count, np.int64)
        for later in (False, True):
            of = (times >= self.change) == later
            by_topic, starts, running = self._worlds[later]
            low, high = running[starts[topics]], running[starts[topics + 1]]
            low[anything], high[anything] = 0.0, running[-1]
            found = np.searchsorted(running, low + spot * (high - low), side="right") - 1
            items[of] = by_topic[np.clip(found, 0, self.items - 1)][of]
        return users, items, times

    @property
    def _topics(self) -> int:
        return max(_FAVOURITES, isqrt(self.items))

    @cached_property
    def _activity(self) -> NDArray[np.float64]:
        """Running share of the events of each user."""
        rng = np.random.default_rng([_USERS, self.seed])
        running: NDArray[np.float64] = np.cumsum(np.exp(_SPREAD * rng.standard_normal(self.users)))
        running /= running[-1]
        return running

    @cached_property
    def _favourites(self) -> NDArray[np.int64]:
        rng = np.random.default_rng([_USERS, self.seed, 1])
        return rng.random((self.users, self._topics)).argsort(axis=1)[:, :_FAVOURITES]

    @cached_property
    def _worlds(self) -> list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]]:
        """Before the change, and after it: items by topic, where topics begin, and the running sum of weights."""
        rng = np.random.default_rng([_WORLD, self.seed])
        topic = np.arange(self.items) % self._topics
        found = []
        for later in (False, True):
            if later:
                moves = rng.random(self.items) < self.moved
                topic = np.where(moves, rng.permutation(topic), topic)
            by_topic = np.argsort(topic, kind="stable")
            starts = np.searchsorted(topic[by_topic], np.arange(self._topics + 1))
            weights = np.exp(_TAIL * rng.standard_normal(self.items))
            found.append((by_topic, starts, np.concatenate(([0.0], np.cumsum(weights[by_topic])))))
        return found
