"""Events up to a moment and after it, and a table of what there is to take.

MovieLens has films that came later. In a made-up population all items are there from the start, and users know nothing
of its table of items (``recsys.data.synthetic.catalogue``). So a tenth of its items, which are drawn, comes at the
moment: what was taken of them before is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.studies.large.config import Config
from recsys.config import Source
from recsys.data import movielens
from recsys.data.cold import ColdSplit, cold
from recsys.data.interactions import Interactions
from recsys.data.items import Items
from recsys.data.synthetic import catalogue, population
from recsys.sources import HABITS
from secagg.errors import UsageError

LATER = 10
"""One of so many made-up items comes later."""


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    split: ColdSplit
    items: Items


def data_of(config: Config, seed: int) -> Data:
    """``seed``: of the order of events of one time, where there are such."""
    events, items = loaded(config)
    if config.data == Source.MOVIELENS:
        return Data(cold(events.ties_drawn(seed + 1), config.ends), items)
    return Data(cold(later(events, config.ends, config.data_seed), config.ends), items)


def loaded(config: Config) -> tuple[Interactions, Items]:
    """All events, and the table of items."""
    if config.data == Source.MOVIELENS:
        found = movielens.load(config.path)
        if found.items is None:
            raise UsageError(f"{config.path} has no list of films")
        return found.interactions, found.items
    made = config.users, config.items, config.data_seed, HABITS[config.habits]  # type: ignore[index]
    return population(*made), catalogue(*made)


def later(events: Interactions, moment: int, seed: int) -> Interactions:
    """The same, but that some items are only there from the moment on.

    >>> events = Interactions.of(users=[0] * 20, items=range(20), times=range(20))
    >>> left = later(events, 20, seed=0)
    >>> len(left), left.item_count
    (18, 20)
    """
    drawn = np.random.default_rng(seed).permutation(events.item_count)[: events.item_count // LATER]
    return events.where(~np.isin(events.items, drawn) | (events.times >= moment))
