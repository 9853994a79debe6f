"""Whatever ends a process, and whenever: each event is new in one sum that is out, and no sum comes out as two.

Here a process ends by an exception at each step that writes anything, one after the other. In the long version it is
killed by the system, at random points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.studies.flow import kills
from recsys.pending_sum import PendingSums
from recsys.secure_aggregator import SecureAggregator
from recsys.stream.journal import StreamJournal
from secagg.files import private_folder

EVENTS = 24


class Killed(BaseException):
    pass


class Steps:
    """Counts what is written, and ends the process before or after one of these."""

    def __init__(self, last: int) -> None:
        self._left = last

    def __call__(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **named: Any) -> Any:
            self._count()
            result = work(*arguments, **named)
            self._count()
            return result

        return step

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise Killed

    def writing(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same for a context, which ends while what is written has no name yet, or has it."""

        @contextmanager
        def step(*arguments: Any, **named: Any) -> Iterator[Any]:
            with work(*arguments, **named) as found:
                yield found
                self._count()
            self._count()

        return step


def lived(folder: Path, patch: pytest.MonkeyPatch, last: int) -> bool:
    """Whether a process came to its end before that step."""
    steps = Steps(last)
    with patch.context() as during:
        for of, name in (
            (StreamJournal, "take_in"), (StreamJournal, "begin"), (StreamJournal, "out"),
            (SecureAggregator, "delete_pending"), (kills, "write_file"), (kills, "create_file"),
        ):  # fmt: skip
            during.setattr(of, name, steps(getattr(of, name)))
        during.setattr(PendingSums, "writing", steps.writing(PendingSums.writing))
        try:
            kills.live(folder, EVENTS, finish=True)
        except Killed:
            return False
    return True


def summed_up(folder: Path) -> tuple[int, int, int]:
    """How many events are in no sum, how many in more than one, and how many sums came out as two."""
    outcomes = [path.read_bytes() for path in folder.glob("out-*")]
    totals = np.sum([np.frombuffer(one, "<i8")[:EVENTS] for one in outcomes if one], axis=0)
    return int((totals == 0).sum()), int((totals > 1).sum()), len(list(folder.glob("changed-*")))


def killed_at_each_step(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """One process after another, each a step longer than the one before, with more of the stream for each."""
    private_folder(folder / "private")
    last, written = 0, 0
    while True:
        more = min(EVENTS, written + 2)
        kills._append(folder / "events.jsonl", written, more)
        written = more
        if lived(folder, patch, last % 15) and written == EVENTS:
            return
        last += 1


def test_no_step_loses_an_event_or_sums_it_up_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed_at_each_step(tmp_path, monkeypatch)
    assert summed_up(tmp_path) == (0, 0, 0)


def test_without_what_was_kept_of_a_sum_it_comes_out_as_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PendingSums, "read", lambda self, number: None)
    killed_at_each_step(tmp_path, monkeypatch)
    lost, _, changed = summed_up(tmp_path)
    assert lost or changed


def test_without_the_journal_saying_which_events_they_are_in_two_sums(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told that a sum failed, whoever was in it."""
    out = StreamJournal.out
    monkeypatch.setattr(
        StreamJournal, "out", lambda self, number, clients: out(self, number, () if number % 2 == 0 else clients)
    )
    killed_at_each_step(tmp_path, monkeypatch)
    assert summed_up(tmp_path)[1] > 0


@pytest.mark.long
def test_two_hundred_processes_are_killed(tmp_path: Path) -> None:
    found = kills.found(tmp_path, events=2000, kills=200, seed=1)
    assert (found.lost, found.twice, found.changed) == (0, 0, 0)
    assert found.amid > 20
