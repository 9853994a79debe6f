"""Streams of events: lines in a file, a journal, a Kafka cluster in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from recsys.stream.events import Message, Position, Source
from recsys.stream.intake import Intake
from recsys.stream.journal import Limits, StreamJournal

ROOT = Path(__file__).parents[2]
ITEMS = {f"i{number}": number for number in range(50)}
HOUR = Limits(replay=3600, cap=5, ahead=60)


def line(user: str, item: str, time: int) -> str:
    return json.dumps({"user": user, "item": item, "time": time}) + "\n"


def append(path: Path, *lines: str) -> None:
    with path.open("a") as file:
        file.writelines(lines)


def read_all(source: Source, most: int = 1000) -> list[Message]:
    """All that is there now."""
    found = list[Message]()
    while read := source.read(most):
        found += read
    return found


def after(messages: list[Message]) -> dict[str, Position]:
    """Where to go on when all of these were read."""
    return {message.part: message.after for message in messages}


@contextmanager
def journal(folder: Path, limits: Limits = HOUR) -> Iterator[StreamJournal]:
    opened = StreamJournal(folder / "stream.db", limits, about="a test")
    try:
        yield opened
    finally:
        opened.close()


@contextmanager
def intake(
    folder: Path,
    source: Callable[[Mapping[str, Position]], Source],
    limits: Limits = HOUR,
    client_of: Callable[[str], int] = lambda user: 0,
) -> Iterator[tuple[Intake, StreamJournal]]:
    """A journal, and a source that goes on where the journal says."""
    with journal(folder, limits) as kept:
        opened = source(kept.positions())
        try:
            yield Intake(opened, kept, limits, ITEMS, client_of), kept
        finally:
            opened.close()


def taken(one: Intake, now: int, *, until: bool = False) -> None:
    """Take in all that is there."""
    while one.take(now, until=until):
        pass


@contextmanager
def cluster() -> Iterator[str]:
    """The addresses of a cluster's brokers."""
    words = [sys.executable, str(ROOT / "examples" / "stream-kafka" / "cluster.py")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.communicate()
