"""Strong generalisation: a model is measured on users of whom it was told nothing in training.

Liang, Krishnan, Hoffman and Jebara 2018, "Variational autoencoders for collaborative filtering", divide the users, not
the events of each:

    1. Of events with ratings those of at least 4 count as taken. Users with fewer than 5 events go.
    2. Users are drawn for validation and for test, as many for each; those that are left are trained on.
    3. Items are those that somebody in training took: held-out users' other events go, and other items are not ranked.
    4. Of a held-out user with at least 5 events a fifth, drawn at random and rounded down, are targets. The rest is the
       history that a model is told. With fewer there is nothing to find, and the user is not measured.

They hold out 10,000 users each for MovieLens 20M. Where a tenth of the users is less than that, a tenth is held out.

Which user is where, and which events are targets, is drawn: no order of time is kept between history and targets. So
what has come last says less here than under ``leave_last_out``, and models that fade a history gain less by it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.data.interactions import Interactions
from recsys.data.split import Split
from secagg.errors import UsageError

LIKED = 4.0
LEAST = 5
HELD_OUT = 10_000


@dataclass(frozen=True, slots=True, eq=False)
class Newcomers:
    """Users whom no training has seen: what a model is told of them, and what it should find."""

    history: Interactions
    targets: Interactions


@dataclass(frozen=True, slots=True, eq=False)
class StrongSplit:
    """Three groups of users. Items have the numbers of the whole catalogue in all of them."""

    train: Interactions
    valid: Newcomers
    test: Newcomers
    notes: tuple[str, ...] = ()
    """for people"""

    @property
    def known(self) -> NDArray[np.bool_]:
        """Of each item, whether somebody in training took it."""
        return self.train.popularity() > 0

    @property
    def training(self) -> Split:
        """The users to train on, with nothing held out of them."""
        nothing = self.train.where(np.zeros(len(self.train), np.bool_))
        return Split(self.train, nothing, nothing)


def strong(
    events: Interactions, *, liked: float = LIKED, least: int = LEAST, held_out: int = HELD_OUT, seed: int = 0
) -> StrongSplit:
    """``liked``: the least rating that counts. ``held_out``: users for validation, and for test, a tenth at most.

    >>> from recsys.data.synthetic import population
    >>> split = strong(population(users=100, items=200), liked=0.0)
    >>> [part.user_count for part in (split.train, split.valid.history, split.test.targets)]
    [80, 10, 10]
    """
    if least < 1 or held_out < 1:
        raise UsageError("users have at least one event, and somebody is held out")
    liked_events = events.where(events.ratings >= liked)
    enough = np.flatnonzero(np.diff(liked_events.starts) >= least)
    count = min(held_out, len(enough) // 10)
    if not count:
        raise UsageError(f"{len(enough)} users with {least} events of a rating of {liked:g} are too few to divide")
    rng = np.random.default_rng(seed)
    drawn = rng.permutation(enough)
    valid, test, rest = (liked_events.of_users(np.sort(part)) for part in np.split(drawn, (count, 2 * count)))
    known = rest.popularity() > 0
    notes = (
        f"strong generalisation: {rest.user_count} users to train on, {count} each for validation and test, of "
        f"{events.user_count}; {int(known.sum())} items",
    )
    asked = [_newcomers(part.where(known[part.items]), rng) for part in (valid, test)]
    return StrongSplit(rest, asked[0], asked[1], notes)


def _newcomers(events: Interactions, rng: np.random.Generator) -> Newcomers:
    """A fifth of the events of each user with enough of them are targets."""
    sizes = np.diff(events.starts)
    order = np.lexsort((rng.random(len(events)), events.users))
    place = np.empty(len(events), np.int64)
    place[order] = np.arange(len(events)) - np.repeat(events.starts[:-1], sizes)
    chosen = place < np.repeat(np.where(sizes >= LEAST, sizes // 5, 0), sizes)
    return Newcomers(events.where(~chosen), events.where(chosen))
