"""What every loader returns: the events, and an account of the lines that did not become one.

A line is left out for one of two reasons, both counted and reported with their line numbers. Either it does not say who
took what ("bad"), or the same user took the same item before ("repeated"): of these, only the first by time is kept, in
the order of the file where times are equal. An item that is in a user's past can therefore never be held out as the
user's future, and what is kept does not depend on what comes later.

A table of items, if there is one, says which items there are, and in which order, whatever the users did. An event
about an item that it lacks is left out, too; its user stays. Without a table the list of items comes from the events:
one user's unique item is an entry of it, which everybody can see who sees the list, or its length.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recsys.data.interactions import Interactions
from recsys.data.items import Items
from secagg.errors import UsageError

KEPT_ROWS = 5000
"""So many lines are kept by number; all are counted."""
LARGEST = 2**53
"""Whole numbers up to here are the same as floats."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A line (or record of a Parquet file), counted from 1, that is not an event."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """How many lines, and the first of them."""

    count: int = 0
    rows: tuple[BadRow, ...] = ()

    def plus(self, found: Iterable[BadRow]) -> LeftOut:
        new = list(found)
        return LeftOut(self.count + len(new), (*self.rows, *new[: KEPT_ROWS - len(self.rows)]))


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A data set as its file has it."""

    source: str
    interactions: Interactions
    bad: LeftOut = LeftOut()
    repeated: LeftOut = LeftOut()
    unlisted: LeftOut = LeftOut()
    """events about items that are not in the table of items. How many there are tells about the users: a note for
    whoever has the data anyway."""
    items: Items | None = None
    """the table of items, or None if the items are those that occur"""
    bad_titles: LeftOut = LeftOut()

    @property
    def bad_rows(self) -> tuple[BadRow, ...]:
        """The first of the bad lines; ``bad.count`` is how many there are."""
        return self.bad.rows

    def report(self, rows: int = 5) -> list[str]:
        """Lines for people: what was loaded, what was not, and why.

        >>> events = Interactions.of([0, 0, 1], [0, 1, 1])
        >>> print(*Loaded("ratings.csv", events, LeftOut().plus([BadRow(7, "3 fields, not 4")])).report(), sep="\\n")
        ratings.csv: 3 events of 2 users and 2 items
        1 bad row left out: line 7: 3 fields, not 4
        """
        events = self.interactions
        first = f"{self.source}: {len(events)} events of {events.user_count} users and {events.item_count} items"
        said = [
            f"{_counted(left.count, what)} left out: "
            + "; ".join(f"line {row.line}: {row.reason}" for row in left.rows[:rows])
            + ("; ..." if left.count > rows else "")
            for what, left in (
                ("bad row", self.bad),
                ("repeated event", self.repeated),
                ("event about an item that is not in the table of items", self.unlisted),
                ("bad line of titles", self.bad_titles),
            )
            if left.count
        ]
        return [first, *said]


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """The good lines of a file: one entry for each, in the order of the file."""

    users: NDArray[np.int32]
    items: NDArray[np.int32]
    times: NDArray[np.int64]
    ratings: NDArray[np.float32]
    lines: NDArray[np.int64]
    user_ids: Sequence[str]
    item_ids: Sequence[str]


def finish(
    path: Path,
    columns: Columns,
    bad: LeftOut,
    items: Items | None = None,
    bad_titles: LeftOut = LeftOut(),
) -> Loaded:
    """Leave out events about unknown items and repeated events, and refuse a file that has none at all."""
    unlisted = LeftOut()
    if items is not None:
        columns, unlisted = _listed(columns, items)
    if not len(columns.users):
        first = (*bad.rows, *unlisted.rows)[:1]
        why = f": line {first[0].line}: {first[0].reason}" if first else ""
        raise UsageError(f"{path} holds no events{why}")
    kept, repeated = _first_by_time(columns)
    interactions = Interactions.of(
        columns.users[kept],
        columns.items[kept],
        columns.times[kept],
        columns.ratings[kept],
        user_ids=columns.user_ids,
        item_ids=columns.item_ids,
    )
    return Loaded(path.name, interactions, bad, repeated, unlisted, items, bad_titles)


def _counted(count: int, what: str) -> str:
    """
    >>> _counted(2, "event about an item")
    '2 events about an item'
    """
    first, *rest = what.split(" about ", 1)
    return " about ".join([f"{count} {first}{'s' if count > 1 else ''}", *rest])


def _listed(columns: Columns, listed: Items) -> tuple[Columns, LeftOut]:
    """The events about items of the table, numbered as it has them, and the other lines. All users stay."""
    numbers = {item: number for number, item in enumerate(listed.ids)}
    renumbered = np.array([numbers.get(item, -1) for item in columns.item_ids], np.int32)
    items = renumbered[columns.items] if len(columns.items) else columns.items
    known = items >= 0
    reason = "the item is not in the table of items"
    lines = columns.lines[~known]
    kept = Columns(
        columns.users[known],
        items[known],
        columns.times[known],
        columns.ratings[known],
        columns.lines[known],
        columns.user_ids,
        listed.ids,
    )
    return kept, LeftOut(len(lines), tuple(BadRow(int(line), reason) for line in lines[:KEPT_ROWS]))


def _first_by_time(columns: Columns) -> tuple[NDArray[np.int64] | slice, LeftOut]:
    """Positions of each (user, item)'s first event, in the order of the file, and the other lines."""
    pairs = columns.users.astype(np.int64) * len(columns.item_ids) + columns.items
    ordered = np.sort(pairs)
    if (ordered[1:] != ordered[:-1]).all():  # nearly always, and much faster to find out
        return slice(None), LeftOut()
    order = np.lexsort((columns.times, pairs))
    again = np.concatenate(([False], pairs[order][1:] == pairs[order][:-1]))
    lines = np.sort(columns.lines[order[again]])
    reason = "this user took this item before"
    rows = tuple(BadRow(int(line), reason) for line in lines[:KEPT_ROWS])
    return np.sort(order[~again]), LeftOut(len(lines), rows)
