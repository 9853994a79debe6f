"""Processes that take in a stream and sum it up, killed at random points, until everything was summed up.

Each event has a coordinate of its own, so the sums themselves say in how many of them it was: in more than one is
twice, in none is lost. One more coordinate is drawn whenever a vector is computed: a sum that comes out again, after a
kill, is the same only if it was said again, and not computed again.
"""

from __future__ import annotations

import json
import os
from contextlib import closing
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from recsys.aggregator import Request
from recsys.deployment import Deployment
from recsys.network import Network
from recsys.secure_aggregator import SecureAggregator
from recsys.stream.intake import Intake
from recsys.stream.journal import Limits, StreamJournal
from recsys.stream.sums import Schedule, StreamSums
from recsys.stream.tail import FileTail
from secagg.crypto.keys import KEY_BYTES
from secagg.encoding import Encoding
from secagg.errors import ThresholdError
from secagg.files import appending, create_file, private_folder, write_file

NAMES = tuple(f"client-{number}" for number in range(5))
_USERS = 40
_LIMITS = Limits(replay=1 << 30, cap=1 << 20)
_SCHEDULE = Schedule(begin=1000, every=10)
_DEPLOYMENT = Deployment("secagg", corrupt="0", dropout="0.4")
_NETWORK = Network(dropout=0.1)
_ROTATIONS = 8
_DRAWN = 1 << 14


@dataclass(frozen=True, slots=True)
class Found:
    """What became of the events, and of the processes."""

    lost: int
    twice: int
    changed: int
    """sums that came out again as other ones"""
    kills: int
    amid: int
    """kills that left a sum whose vectors may have left a client"""
    sums: int
    failed: int
    """sums for which too few clients stayed"""


def found(folder: Path, events: int, kills: int, seed: int) -> Found:
    """Kill so many processes in an empty folder, each after a random time, then let one finish."""
    private_folder(folder / "private")
    rng, stream = np.random.default_rng(seed), folder / "events.jsonl"
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])

    def attempt(seconds: float | None) -> bool:
        """Whether the process was killed."""
        process = context.Process(target=live, args=(folder, events, seconds is None))
        process.start()
        process.join(seconds)
        alive = process.is_alive()
        if alive:
            process.kill()
            process.join()
        elif process.exitcode != 0:
            raise RuntimeError(f"a process ended with {process.exitcode}")
        return alive

    first = events // 4
    _append(stream, 0, first)
    attempt(None)
    began = perf_counter()
    attempt(None)
    longest = 1.5 * (perf_counter() - began)  # a process with nothing to sum up makes one sum
    amid = 0
    for number in range(kills):
        written, more = (first + (events - first) * done // kills for done in (number, number + 1))
        _append(stream, written, more)
        attempt(float(rng.uniform(0, longest)))
        amid += any(folder.glob("private/sum-*.sealed"))
        if number % max(1, kills // _ROTATIONS) == 0:
            _rotate(stream)
    attempt(None)
    outcomes = [path.read_bytes() for path in folder.glob("out-*")]
    totals = sum((np.frombuffer(one, "<i8")[:events] for one in outcomes if one), np.zeros(events, np.int64))
    return Found(
        lost=int((totals == 0).sum()),
        twice=int((totals > 1).sum()),
        changed=len(list(folder.glob("changed-*"))),
        kills=kills,
        amid=amid,
        sums=len(outcomes),
        failed=outcomes.count(b""),
    )


def live(folder: Path, events: int, finish: bool) -> None:
    """Take in and sum up, until somebody ends it; or until nothing waits, and at least one sum was made."""
    with closing(StreamJournal(folder / "stream.db", _LIMITS, about="kills")) as journal:
        source = FileTail(folder / "events.jsonl", journal.positions())
        catalogue = {f"i{number}": number for number in range(events)}
        intake = Intake(source, journal, _LIMITS, catalogue, lambda user: int(user[1:]) % len(NAMES))
        aggregator = SecureAggregator(_DEPLOYMENT, bytes(KEY_BYTES), network=_NETWORK, folder=folder / "private")
        sums, done = StreamSums(aggregator, journal, NAMES, _SCHEDULE), folder / "done"
        while True:
            number = int(done.read_text()) if done.exists() else 0
            begun = journal.sums()[1]  # then nothing is taken in before the next sum
            while intake.take(_SCHEDULE.moment(number)):
                pass
            _sum_up(folder, sums, journal, number, events)
            write_file(done, str(number + 1).encode(), private=False)
            aggregator.delete_pending(number + 1)
            intake.acknowledge()
            if finish and not begun and journal.acknowledged() == journal.positions():
                return


def _sum_up(folder: Path, sums: StreamSums, journal: StreamJournal, number: int, events: int) -> None:
    def update(name: str) -> NDArray[np.float64]:
        vector = np.zeros(events + 1)
        for event in journal.events(number):
            if event.new and NAMES[event.client] == name:
                vector[event.item] += 1
        vector[-1] = int.from_bytes(os.urandom(2), "big") % _DRAWN
        return vector

    try:
        result = sums.aggregate(Request(number, "kills", NAMES, Encoding.integers(events + 1)), update)
        released = result.vector.astype("<i8").tobytes()
    except ThresholdError:
        released = b""
    path = folder / f"out-{number}"
    if not create_file(path, released, private=False) and path.read_bytes() != released:
        create_file(folder / f"changed-{number}", b"", private=False)


def _append(stream: Path, first: int, last: int) -> None:
    with appending(stream) as file:
        for number in range(first, last):
            event = {"user": f"u{number % _USERS}", "item": f"i{number}", "time": 1000}
            os.write(file, json.dumps(event).encode() + b"\n")


def _rotate(stream: Path) -> None:
    older = sorted(stream.parent.glob(f"{stream.name}.*"), key=lambda path: int(path.suffix[1:]), reverse=True)
    for one in older:
        one.rename(stream.with_name(f"{stream.name}.{int(one.suffix[1:]) + 1}"))
    if stream.exists():
        stream.rename(stream.with_name(f"{stream.name}.1"))
