"""Events that are read from a file, capped and journaled, one process alone: how many in a second, in which memory."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from time import thread_time

import numpy as np

from benchmarks.memory import extra_of
from recsys.stream.intake import Intake
from recsys.stream.journal import Limits, StreamJournal
from recsys.stream.sums import Schedule
from recsys.stream.tail import FileTail
from secagg.files import writing

_ITEMS = 10_000
_BEGIN, _SECONDS = 1_700_000_000, 14 * 86400
_LIMITS = Limits(replay=86400, cap=30, room=10_000_000)
_SUMS = Schedule(_BEGIN, 3600)
_AT_ONCE = 100_000


@dataclass(frozen=True, slots=True)
class Found:
    per_second: float
    """of this thread's processor"""
    taken: int
    extra_bytes: int
    """the peak of memory beyond what was there before"""


def written(path: Path, events: int, users: int, seed: int) -> None:
    """Two weeks of events, in order of time; a fiftieth of the users make half of them."""
    rng = np.random.default_rng(seed)
    with writing(path, private=False) as file:
        for first in range(0, events, _AT_ONCE):
            count = min(_AT_ONCE, events - first)
            busy = rng.random(count) < 0.5
            user = np.where(busy, rng.integers(0, max(1, users // 50), count), rng.integers(0, users, count))
            item = rng.integers(0, _ITEMS, count)
            time = _BEGIN + (first + np.arange(count)) * _SECONDS // events
            for one in zip(user.tolist(), item.tolist(), time.tolist(), strict=True):
                event = {"user": f"u{one[0]}", "item": f"i{one[1]}", "time": one[2]}
                file.write(json.dumps(event).encode() + b"\n")


def found(folder: Path, events: int, users: int, seed: int) -> Found:
    """Take in a recorded stream hour by hour, with a sum of all that is new after each."""
    written(folder / "events.jsonl", events, users, seed)
    catalogue = {f"i{number}": number for number in range(_ITEMS)}
    seconds, taken = 0.0, 0

    def work() -> None:
        nonlocal seconds, taken
        with closing(StreamJournal(folder / "stream.db", _LIMITS, about="intake")) as journal:
            source = FileTail(folder / "events.jsonl", journal.positions())
            intake = Intake(source, journal, _LIMITS, catalogue)
            for number in range(_SECONDS // _SUMS.every + 2):
                began = thread_time()
                while intake.take(_SUMS.moment(number), until=True):
                    pass
                seconds += thread_time() - began
                journal.begin(number, _SUMS.moment(number))
                journal.out(number, {0})
            taken = journal.counts()["taken in"]

    extra = extra_of(work)
    return Found(events / seconds, taken, extra)
