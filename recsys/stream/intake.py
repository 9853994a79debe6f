"""From a source into the journal: events are read strictly, and what is none that could be in a sum is refused.

Of what is read, in this order,

    unreadable         is what is no event
    of no known item   what the catalogue does not list
    too late           what was so long ago that it could be in no sum (``Limits.replay``)
    too far ahead      what says a moment too far in the future (``Limits.ahead``). Less than that is one of now

is refused and counted, whatever else there was: each is judged alone. A message is known by its place in its part, so
one that a source says again is not taken in again. An event that a producer writes twice is two events.

The clock is an argument, and no event's doing: events of a user who lies about time are refused, or are of now. Where a
recorded stream is read (``until``), a part is read up to the first event that is later than the moment. That one stays
in the source. Whoever writes such a record says what is read by when: the pace of reading is taken as public.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace

from recsys.stream.events import Message, Position, Source, parse
from recsys.stream.journal import Limits, StreamJournal, Taken
from secagg.errors import DecodeError

BATCH = 10000
"""So many messages are taken in by one transaction, at the most."""

UNREADABLE, UNKNOWN, LATE, AHEAD = "unreadable", "of no known item", "too late", "too far ahead"
AGAIN = "read before"


class Intake:
    """``items``: the number of each item of the catalogue. ``client_of``: the number of the client that has a user."""

    def __init__(
        self,
        source: Source,
        journal: StreamJournal,
        limits: Limits,
        items: Mapping[str, int],
        client_of: Callable[[str], int] = lambda user: 0,
    ) -> None:
        self._source, self._journal, self._limits = source, journal, limits
        self._items, self._client_of = items, client_of
        self._held = dict[str, list[Message]]()
        """what was read of a part, from the first event on that is later than the last moment"""

    def take(self, now: int, *, until: bool = False, clock: int | None = None) -> int:
        """Take in some of what is there now, as of ``now`` (with ``until``, of what is not later). Gives how many
        messages that were: 0 once there are none, or no room for any (``StreamJournal.room``), which stay in the
        source. ``clock``: what is too far ahead is so by this one; None: by ``now``."""
        if not (most := min(BATCH, self._journal.room())):
            return 0
        held, self._held = self._held, {}
        latest = (now if clock is None else clock) + self._limits.ahead
        done = sum(self._taken(messages, now, until, latest) for messages in held.values())
        return done + self._taken(self._source.read(most, self._held.keys()), now, until, latest)

    def acknowledge(self) -> None:
        """Tell the source what it may forget."""
        self._source.acknowledge(self._journal.acknowledged())

    def _taken(self, messages: list[Message], now: int, until: bool, latest: int) -> int:
        refused, reached, positions = Counter[str](), self._journal.positions(), dict[str, Position]()
        found = list[Taken]()
        for message in messages:
            part = message.part
            if part in self._held:
                self._held[part].append(message)
                continue
            if part in reached and message.at.order < reached[part].order:
                refused[AGAIN] += 1
                continue
            one = self._read(message, now, latest)
            if isinstance(one, Taken) and one.time > now:  # of now, but in a record a later one
                if until:
                    self._held[part] = [message]
                    continue
                one = replace(one, time=now)
            reached[part] = positions[part] = message.after
            if isinstance(one, str):
                refused[one] += 1
            else:
                found.append(one)
        if positions:
            self._journal.take_in(found, positions, refused)
        return sum(refused.values()) + len(found)

    def _read(self, message: Message, now: int, latest: int) -> Taken | str:
        """The event, or why it is refused."""
        try:
            event = parse(message.data)
        except DecodeError:
            return UNREADABLE
        if (item := self._items.get(event.item)) is None:
            return UNKNOWN
        if event.time <= now - self._limits.replay:
            return LATE
        if event.time > latest:
            return AHEAD
        return Taken(event.user, item, event.time, self._client_of(event.user), message.part, message.at)
