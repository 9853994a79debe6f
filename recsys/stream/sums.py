"""Sums of what is new in a stream: the journal moves with them.

The number of a sum says when it is: so many seconds after the first, for each one before it. Before anything is
computed for a sum, the journal has given it its events; when it is out, or has failed, the journal is told who was in
it. A restart does that once more, with the same outcome: a sum that had begun is finished with what was put into it
(``recsys.pending_sum``), or, if nothing had left a client, is computed anew from the same events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from recsys.aggregator import Aggregator, Request, Result, Update
from recsys.stream.journal import StreamJournal
from secagg.errors import ThresholdError, UsageError


@dataclass(frozen=True, slots=True)
class Schedule:
    """Sum ``number`` is at ``begin + number * every``, in seconds since 1970.

    >>> Schedule(begin=1000, every=60).moment(2)
    1120
    """

    begin: int
    every: int

    def __post_init__(self) -> None:
        if self.begin < 0 or self.every < 1:
            raise UsageError("sums of a stream begin at a moment since 1970, and are a second or more apart")

    def moment(self, number: int) -> int:
        return self.begin + number * self.every


class StreamSums:
    """An aggregator for sums of a stream's events. ``names`` are the clients', by their numbers in the journal."""

    def __init__(
        self, aggregator: Aggregator, journal: StreamJournal, names: Sequence[str], schedule: Schedule
    ) -> None:
        self._aggregator, self._journal, self._schedule = aggregator, journal, schedule
        self._numbers = {name: number for number, name in enumerate(names)}

    def aggregate(self, request: Request, update: Update) -> Result:
        self._journal.begin(request.number, self._schedule.moment(request.number))
        try:
            result = self._aggregator.aggregate(request, update)
        except ThresholdError:
            self._journal.out(request.number, ())
            raise
        self._journal.out(request.number, {self._numbers[name] for name in result.survivors})
        return result
