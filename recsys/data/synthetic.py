"""A made-up population, so that everything here runs without anybody's data.

How a user comes to the next item, in order of time:

    long tail   An item's weight is log-normal; the heaviest are cut to one weight, for no film is seen by everybody.
    hits        With some probability, higher for the first events, the next item is drawn from the whole catalogue by
                weight, otherwise from the topic that the user is at.
    sessions    A user stays with a topic for a while, then picks another of the favourites.
    drift       The favourites are a sequence, and the window to pick from moves along it as events go by.
    tastes      A topic is a favourite by its weight, and by how near it is to the user in a space of a few dimensions.
    once        An item that the user has had is passed over.

So items that are near in time are alike, the last items say most about the next one, heavy users go from the hits to
the niches. How many events a user has is log-normal above a minimum, in evenly spaced quantiles: sizes hardly depend on
the seed, only on who has which.

``CALIBRATED`` was fitted by hand to ``FACTS``, of real data of several sizes, and to nothing that a private model did,
and is frozen; docs/population.md says how near it comes, and what misses. ``FIRST`` are the habits of earlier figures,
which were fitted to ``TARGETS``, at one size: there their density, tail and ratio of EASE are right, but with fewer and
denser items a user's last events say too little.

A seed gives the same population wherever numpy's generator and elementary functions give the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from recsys.data.interactions import Interactions
from recsys.data.items import Items
from secagg.errors import UsageError

TARGETS = {"density": 0.0170, "gini": 0.716, "ratio": 2.06, "popular": 0.0194}
"""Of MovieLens latest-small (610 users, 9,724 items that were rated), for ``FIRST``. The density is events / (users *
items); the Gini coefficient is that of the number of events of an item. The other two hold out everybody's last event,
ranked among all items that the user has not had: "popular" is the NDCG@10 of ranking by popularity, "ratio" is EASE's
(lambda 200) divided by that.

Means over 240 seeds of ``population(610, 9724, seed, FIRST)``: density .0168, Gini .722, popular .0186 +- .0003, EASE
.0400 +- .0004 (standard errors), so a ratio of 2.15. One seed has 610 held-out events and one set of hits: the ratio of
one alone has a standard deviation of a quarter. Quantiles of the number of events of users are 38, 69, 157 and 1589 (a
quarter, the half, three quarters, 99 percent), where the data have 35, 70, 168 and 1256."""

FACTS: Mapping[tuple[int, int], Mapping[str, float]] = {
    (610, 9724): {"density": 0.0170, "Gini": 0.716, "ItemKNN": 1.90, "EASE": 2.17, "tuned EASE": 3.49},
    (943, 1682): {"density": 0.0630, "Gini": 0.63, "ItemKNN": 1.40, "EASE": 1.59, "tuned EASE": 2.32, "MF": 1.41},
    (6040, 3706): {"density": 0.0447, "Gini": 0.63, "EASE": 2.7},
}
"""Of users x items of ml-latest-small, ml-100k and ml-1m, for ``CALIBRATED``. A model stands for its NDCG@10 over that
of ranking by popularity: everybody's last event is the test, the one before it is for validation, and all items are
ranked that the user has not had. Of ml-latest-small everything is measured here (means over ten orders of events of one
time). Of the other two the number of events is published (100,000 and 1,000,209); the ratios, and that both Gini
coefficients are about .63, were told to us by people who have the data."""

_USERS, _ITEMS = 610, 9724
_GROWTH = 0.19
"""Items grow as users to this power, as from latest-small to MovieLens 20M (138,493 users, 26,744 items)."""
_LARGE = 4000
_BLOCK_USERS = 2000
_FAVOURITES = 64
GENRES = 18
"""in the made-up table of items"""
_OWN_WORDS, _PLAIN_WORDS = 3, 60
_TABLE = 0x7461626C65
"""what keeps its draws apart from the population's"""
_EPOCH = 820454400  # 1996, when MovieLens began
_YEARS = 20 * 365 * 86400


@dataclass(frozen=True, slots=True)
class Habits:
    """What the population is like."""

    least: int = 20
    """events of a user"""
    extra: float = 52.0
    """events above that, the median; less in a small catalogue"""
    small: float = 3000.0
    """a catalogue is small with fewer items than these"""
    shrink: float = 0.5
    """events above the least are as the number of items to this power in a small catalogue"""
    spread: float = 1.5
    """standard deviation of the logarithm of these"""
    tail: float = 1.9
    """standard deviation of the logarithm of an item's weight"""
    head: float = 3.05
    """so many standard deviations above the median the weights are cut"""
    topic_items: int = 0
    """0: as many as there are topics, the square root of the number of items"""
    dimensions: int = 2
    """of the space of tastes"""
    taste: float = 1.9
    """how much being near counts"""
    stay: float = 0.935
    """probability that the next item is of the same topic"""
    window: float = 3.0
    """mean place of the next topic in the sequence of favourites, from where the window begins"""
    drift: float = 20.0
    """events until the window moves by one favourite"""
    hits: float = 0.215
    """probability of an item from the whole catalogue"""
    more_hits: float = 0.23
    """that is higher by so much in a catalogue e times as large as 4,000 items, in one of e^2 times twice as much"""
    first_hits: float = 0.25
    """more of these at the start"""
    first: float = 10.0
    """events until that is down to 1/e"""

    def __post_init__(self) -> None:
        if not (self.least >= 1 and self.topic_items >= 0 and self.dimensions >= 1):
            raise UsageError("events and dimensions are at least 1, items of a topic at least 0")
        if not (self.extra > 0 and self.window > 0 and self.drift > 0 and self.first > 0 and self.small > 0):
            raise UsageError("extra, small, window, drift and first are above 0")
        if not 0.05 <= self.hits <= self.hits + self.first_hits <= 1:
            raise UsageError("hits is at least 0.05, so that nobody runs out of items, and with first_hits at most 1")
        if not 0 <= self.stay < 1:
            raise UsageError("stay is a probability below 1")
        if not (self.shrink >= 0 and self.more_hits >= 0):
            raise UsageError("shrink and more_hits are not below 0")

    def extra_among(self, items: int) -> float:
        """The median of events above the least, in a catalogue of so many items."""
        size: float = (items / self.small) ** self.shrink
        return self.extra * min(1.0, size)

    def hits_among(self, items: int) -> float:
        """The probability of an item from the whole catalogue, once a user has begun."""
        return min(1 - self.first_hits, self.hits + self.more_hits * max(0.0, log(items / _LARGE)))

    def topics_among(self, items: int) -> int:
        """How many topics there are."""
        return max(4, items // self.topic_items if self.topic_items else round(items**0.5))


CALIBRATED = Habits()

FIRST = Habits(
    extra=50.0,
    small=9724.0,
    shrink=1 / 3,
    topic_items=100,
    dimensions=6,
    taste=1.2,
    stay=0.85,
    window=4.0,
    hits=0.39,
    more_hits=0.0,
)


def population(users: int, items: int = 0, seed: int = 0, habits: Habits = CALIBRATED) -> Interactions:
    """So many users, who took items over time. Without ``items``, their number grows slowly with that of the users.

    >>> events = population(users=200, items=1000, seed=1)
    >>> events.user_count, events.item_count, int(np.diff(events.starts).min())
    (200, 1000, 20)
    """
    if users < 1:
        raise UsageError("a population has at least one user")
    items = items or round(_ITEMS * (users / _USERS) ** _GROWTH)
    if items < 4 * habits.least:
        raise UsageError(f"a population has at least {4 * habits.least} items, four times a user's least events")
    wanted, world, rng = _begun(users, items, seed, habits)
    who, what = np.empty(wanted.sum(), np.int32), np.empty(wanted.sum(), np.int32)
    filled = 0
    for first in range(0, users, _BLOCK_USERS):
        block_users, block_items = _histories(wanted[first : first + _BLOCK_USERS], world, habits, rng)
        block = slice(filled, filled + len(block_users))
        who[block], what[block] = first + block_users, block_items
        filled = block.stop
    return Interactions.of(who, what, _times(wanted, rng), user_count=users, item_count=items)


def catalogue(users: int, items: int, seed: int = 0, habits: Habits = CALIBRATED) -> Items:
    """A made-up table of the items of that ``population``, whose users never looked into it.

    There are ``GENRES`` genres, which have places in the space of tastes like the topics. A topic's items are of the
    genre that is nearest to it, and every second one of the second nearest, too. A title is two words; the first is one
    of three that belong to the topic, or in every second title one that says nothing, like the second.

    >>> table = catalogue(200, 1000, seed=1)
    >>> len(table), table.titles[0], table.genres[0]
    (1000, 'ron sen', ('Genre 0',))
    """
    _, world, _ = _begun(users, items, seed, habits)
    rng = np.random.default_rng([seed, _TABLE])
    topic = np.empty(items, np.int64)
    topic[world.by_topic] = np.repeat(np.arange(len(world.places)), np.diff(world.topic_starts))
    genres = rng.standard_normal((GENRES, habits.dimensions))
    apart = np.linalg.norm(world.places[:, None] - genres, axis=2)
    nearest = np.argsort(apart, axis=1)[topic, :2]
    both, says, which = rng.random(items) < 0.5, rng.random(items) < 0.5, rng.integers(_OWN_WORDS, size=items)
    plain = rng.integers(_PLAIN_WORDS, size=(items, 2))
    firsts = np.where(says, _PLAIN_WORDS + topic * _OWN_WORDS + which, plain[:, 0])
    return Items.of(
        [str(number) for number in range(items)],
        [f"{_word(int(one))} {_word(int(other))}" for one, other in zip(firsts, plain[:, 1], strict=True)],
        ["|".join(f"Genre {kind}" for kind in row[: 1 + two]) for row, two in zip(nearest, both, strict=True)],
    )


def _word(number: int) -> str:
    """Another for each number.

    >>> [_word(number) for number in (0, 1, 20, 400)]
    ['ban', 'ben', 'lan', 'radan']
    """
    syllables = [consonant + vowel for consonant in "bdfglmnprstv" for vowel in "aeiou"]
    high, low = divmod(number, len(syllables))
    return syllables[low] + (_word(high - 1) if high else "n")


def _begun(users: int, items: int, seed: int, habits: Habits) -> tuple[NDArray[np.int64], _World, np.random.Generator]:
    """How many events each user has, where the items are, and what the rest is drawn with."""
    rng = np.random.default_rng(seed)
    return _activity(users, items, habits, rng), _World.draw(items, habits, rng), rng


def _activity(users: int, items: int, habits: Habits, rng: np.random.Generator) -> NDArray[np.int64]:
    """How many events each user has."""
    extra = habits.extra_among(items) * np.exp(habits.spread * _normal_quantiles(users))
    counts: NDArray[np.int64] = np.minimum(habits.least + extra, items / 4).astype(np.int64)
    return rng.permutation(counts)


def _normal_quantiles(count: int) -> NDArray[np.float64]:
    inverse = NormalDist().inv_cdf
    return np.array([inverse((rank + 0.5) / count) for rank in range(count)])


@dataclass(frozen=True, slots=True, eq=False)
class _World:
    """Items by topic, and where the topics are."""

    by_topic: NDArray[np.int64]
    """items, topic by topic"""
    topic_starts: NDArray[np.int64]
    weights: NDArray[np.float64]
    """running sum of the weights in that order, from 0"""
    places: NDArray[np.float64]
    """of the topics, in the space of tastes"""

    @classmethod
    def draw(cls, items: int, habits: Habits, rng: np.random.Generator) -> _World:
        topics = habits.topics_among(items)
        weights = np.exp(habits.tail * rng.permutation(np.minimum(_normal_quantiles(items), habits.head)))
        topic = rng.integers(topics, size=items)
        by_topic = np.argsort(topic, kind="stable")
        starts = np.searchsorted(topic[by_topic], np.arange(topics + 1))
        running = np.concatenate(([0.0], np.cumsum(weights[by_topic])))
        return cls(by_topic, starts, running, rng.standard_normal((topics, habits.dimensions)))


def _histories(
    wanted: NDArray[np.int64], world: _World, habits: Habits, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Users and items of all events, in order of time within each user.

    Everybody takes more steps than there are events to come, for items may be passed over. Whoever is short of events
    then goes on from there, with twice as many steps for each event missing.
    """
    items = len(world.by_topic)
    favourites = _favourites(len(wanted), world, habits, rng)
    going, taken = np.arange(len(wanted)), np.empty(0, np.int64)  # user * items + item
    so_far, ample = np.zeros(len(wanted), np.int64), 2
    done = []
    while len(going):
        who, step = _steps(going, (wanted - so_far)[going] * ample + 8)
        stepped = who * items + _step(who, step, so_far, favourites, world, habits, rng)
        taken = _firsts(np.concatenate((taken, stepped)))
        users = taken // items
        so_far = np.maximum(so_far, np.bincount(users, minlength=len(wanted)))
        short = (so_far < wanted)[users]
        done.append(taken[~short])
        taken, going, ample = taken[short], going[(so_far < wanted)[going]], ample * 2
    pairs = np.concatenate(done)
    users = pairs // items
    order = np.argsort(users, kind="stable")
    users, pairs = users[order], pairs[order]
    _, step = _steps(np.arange(len(wanted)), so_far)
    kept = step < wanted[users]
    return users[kept], pairs[kept] % items


def _step(
    who: NDArray[np.int64],
    step: NDArray[np.int64],
    so_far: NDArray[np.int64],
    favourites: NDArray[np.int64],
    world: _World,
    habits: Habits,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """The item that each step leads to."""
    position = so_far[who] + step
    topic = _topics(who, step, position, favourites, habits, rng)
    low, high = world.weights[world.topic_starts[topic]], world.weights[world.topic_starts[topic + 1]]
    hit = rng.random(len(who)) < habits.hits_among(len(world.by_topic)) + habits.first_hits * np.exp(
        -position / habits.first
    )
    low[hit], high[hit] = 0, world.weights[-1]
    spot = low + rng.random(len(who)) * (high - low)
    found = np.searchsorted(world.weights, spot, side="right") - 1
    return world.by_topic[np.minimum(found, len(world.by_topic) - 1)]


def _firsts(pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Without those that came before, otherwise in the same order."""
    order = np.argsort(pairs, kind="stable")
    again = np.concatenate(([False], pairs[order][1:] == pairs[order][:-1]))
    return pairs[np.sort(order[~again])]


def _steps(users: NDArray[np.int64], counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each user as often as counted, and beside it 0, 1, 2 ..."""
    before = np.cumsum(counts) - counts
    return np.repeat(users, counts), np.arange(counts.sum()) - np.repeat(before, counts)


def _favourites(users: int, world: _World, habits: Habits, rng: np.random.Generator) -> NDArray[np.int64]:
    """A row of topics for each user."""
    tastes = rng.standard_normal((users, habits.dimensions))
    mass = np.diff(world.weights[world.topic_starts])
    liking = mass * np.exp(habits.taste * (tastes @ world.places.T))
    running = np.cumsum(liking, axis=1)
    running /= running[:, -1:]
    rows = np.arange(users)[:, None]  # user u's distribution lies between u and u + 1: one search for all
    spots = rng.random((users, _FAVOURITES)) + rows
    found = np.searchsorted((running + rows).ravel(), spots.ravel(), side="right").reshape(spots.shape)
    favourites: NDArray[np.int64] = np.minimum(found - rows * len(mass), len(mass) - 1)
    return favourites


def _topics(
    who: NDArray[np.int64],
    step: NDArray[np.int64],
    position: NDArray[np.int64],
    favourites: NDArray[np.int64],
    habits: Habits,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """The topic that the user is at, step by step."""
    fresh = (rng.random(len(who)) >= habits.stay) | (step == 0)
    choice = (position / habits.drift + rng.exponential(habits.window, len(who))).astype(np.int64)
    picked = favourites[who, choice % _FAVOURITES]
    since = np.maximum.accumulate(np.where(fresh, np.arange(len(who)), 0))
    topics: NDArray[np.int64] = picked[since]
    return topics


def _times(wanted: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Seconds since 1970. Everybody begins some time in twenty years, and then waits for seconds, or hours, or days."""
    waits = np.maximum(rng.exponential(2.0, int(wanted.sum())) ** 4, 1).astype(np.int64)
    passed = np.cumsum(waits)
    ends = np.cumsum(wanted)
    begins = _EPOCH + rng.integers(_YEARS, size=len(wanted)) - passed[ends - wanted]
    times: NDArray[np.int64] = passed + np.repeat(begins, wanted)
    return times
