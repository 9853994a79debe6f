"""One event: who took what when, as a line of JSON that anybody may have written.

    {"user": "ann", "item": "tea", "time": 1714521600}

``user`` and ``item`` are text or whole numbers, ``time`` is in whole seconds since 1970. A line has these three fields
and no others. Whatever else it is, it is refused in one line that quotes nothing, and what reads it goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Protocol

from recsys.data.tables import identifier
from secagg.errors import DecodeError
from secagg.foreign import parse_json

LONGEST = 4096
"""Bytes of an event."""
_LONGEST_ID = 200
_FIELDS = {"user", "item", "time"}
_LATEST = 1 << 40
"""Seconds since 1970, some 35,000 years."""


@dataclass(frozen=True, slots=True)
class Event:
    user: str
    item: str
    time: int


@dataclass(frozen=True, slots=True)
class Position:
    """Where to go on reading a part of a source."""

    offset: int = 0
    generation: int = 0
    """how often the part was begun anew, as a file is that is rotated: offsets of another generation are other ones"""
    mark: str = ""
    """what the source knows the place again by"""

    @property
    def order(self) -> tuple[int, int]:
        """Of two positions, the one with more behind it has the larger one."""
        return self.generation, self.offset


@dataclass(frozen=True, slots=True)
class Message:
    """One event as it was read, and where."""

    part: str
    at: Position
    after: Position
    """where to go on when this was read"""
    data: bytes


class Source(Protocol):
    """Where events come from, in one or several parts, each with an order of its own."""

    def read(self, most: int, without: Set[str] = frozenset()) -> list[Message]:
        """The next messages, some of those that are there now; none if there are none. Of the parts in ``without``
        nothing is read. ``StorageError``: something between the last position and what is there now is gone."""

    def acknowledge(self, positions: Mapping[str, Position]) -> None:
        """What is before these positions is not needed any more."""

    def close(self) -> None: ...


def parse(data: bytes) -> Event:
    """
    >>> parse(b'{"user": 7, "item": "tea", "time": 60}')
    Event(user='7', item='tea', time=60)
    >>> parse(b'{"user": 7, "item": "tea", "time": "noon"}')
    Traceback (most recent call last):
    secagg.errors.DecodeError: time is no whole number of seconds since 1970
    """
    if len(data) > LONGEST:
        raise DecodeError(f"an event of more than {LONGEST} bytes")
    found = parse_json(data)
    if not isinstance(found, dict) or found.keys() != _FIELDS:
        raise DecodeError("an event is an object with user, item and time")
    time = found["time"]
    if type(time) is not int or not 0 <= time < _LATEST:
        raise DecodeError("time is no whole number of seconds since 1970")
    return Event(_id("user", found["user"]), _id("item", found["item"]), time)


def _id(name: str, value: object) -> str:
    try:
        found = identifier(name, value)
    except ValueError:
        raise DecodeError(f"{name} is no text or whole number that can be an id") from None
    if len(found) > _LONGEST_ID:
        raise DecodeError(f"{name} has more than {_LONGEST_ID} characters")
    return found
