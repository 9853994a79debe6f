"""The case of streams measures what it says."""

from __future__ import annotations

import pytest

from benchmarks.studies import flow
from secagg.errors import UsageError


def test_a_small_stream_is_taken_in() -> None:
    measured = flow.run(flow.Config(parts="intake", events=5000, users=60), lambda _: None)
    assert measured.figures["events_per_second"] > 0
    assert measured.figures["events_taken"] == 5000


@pytest.mark.long
def test_a_few_processes_are_killed() -> None:
    measured = flow.run(flow.Config(parts="kills", kills=10, killed_events=100), lambda _: None)
    found = measured.figures
    assert (found["kills"], found["kills_lost"], found["kills_twice"], found["kills_changed"]) == (10, 0, 0, 0)


def test_what_is_no_configuration() -> None:
    for wrong in ({"parts": "intake,sleep"}, {"events": 5}, {"kills": 0}):
        with pytest.raises(UsageError):
            flow.Config(**wrong)
