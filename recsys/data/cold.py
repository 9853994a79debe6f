"""Cold start: items and users that training has never seen, because they came later.

One moment, fixed beforehand and public, divides the events of all users. Models learn from what came before it, of the
users who were there. From it on there are

    new items   Whatever nobody took before. A user who took some of them is measured on all of these; the history that
                a model is told is what the user took before the first of them, whenever that was.
    new users   Whoever took nothing before. The first events are what a model may be told of, the ones that follow are
                the targets. A user with too few events, or with no target that training knows, is not measured: so
                those who are measured are the same however many first events a model is told of.

A history can be longer than what training saw of its user, as on a device. Order within one time is that of the file
(``Interactions.ties_drawn`` takes another).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.data.interactions import Interactions
from recsys.data.split import Split
from recsys.data.strong import Newcomers
from secagg.errors import UsageError

FIRST, FOLLOWING = 10, 10


@dataclass(frozen=True, slots=True, eq=False)
class ColdSplit:
    """All parts have the items of the whole catalogue. Users have new numbers in ``train``, and old ones elsewhere."""

    train: Interactions
    for_items: Newcomers
    """targets are new items"""
    for_users: Newcomers
    """of new users: the first events, and those that follow, as far as training knows their items"""

    @property
    def known(self) -> NDArray[np.bool_]:
        """Of each item, whether somebody in training took it."""
        return self.train.popularity() > 0

    @property
    def training(self) -> Split:
        """The users to train on, with nothing held out of them."""
        nothing = self.train.where(np.zeros(len(self.train), np.bool_))
        return Split(self.train, nothing, nothing)


def cold(events: Interactions, moment: int, *, first: int = FIRST, following: int = FOLLOWING) -> ColdSplit:
    """``moment`` is in the unit of the events' times. Of new users so many ``first`` events, and ``following`` ones.

    >>> events = Interactions.of(users=[0, 0, 0, 1, 1], items=[0, 1, 2, 0, 1], times=[1, 2, 5, 5, 6])
    >>> split = cold(events, 5, first=1)
    >>> [part.history(0).tolist() for part in (split.train, split.for_items.history, split.for_items.targets)]
    [[0, 1], [0, 1], [2]]
    >>> [part.history(1).tolist() for part in (split.for_users.history, split.for_users.targets)]
    [[0], [1]]
    """
    if first < 0 or following < 1:
        raise UsageError("new users have a number of first events, and at least one that follows")
    users, late = events.users, events.times >= moment
    present = np.bincount(users[~late], minlength=events.user_count) > 0
    train = events.where(~late).of_users(np.flatnonzero(present))
    if not len(train) or not late.any():
        raise UsageError("at this moment, nothing is left to train on or to measure")
    known = train.popularity() > 0
    place = np.arange(len(events)) - events.starts[users]

    fresh = ~known[events.items]
    begins = np.full(events.user_count, -1)
    of_fresh, where = np.unique(users[fresh], return_index=True)
    begins[of_fresh] = place[fresh][where]  # events lie in order, so the first that is found came first
    before = place < begins[users]

    new = ~present[users]
    told = new & (place < first)
    pairs = users * events.item_count + events.items
    follows = new & (place >= first) & (place < first + following) & known[events.items] & ~np.isin(pairs, pairs[told])
    return ColdSplit(
        train,
        Newcomers(events.where(before), events.where(fresh)),
        Newcomers(events.where(told), events.where(follows)),
    )
