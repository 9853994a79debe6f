"""From a source into the journal: what is refused, and that one user's events move no other's."""

from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.stream.journal import OVER, Limits
from recsys.stream.tail import FileTail
from tests.scenes.streams import HOUR, append, intake, line, taken

NOW = 100_000


def test_each_refusal_is_counted_and_the_rest_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    append(path, line("ann", "i1", NOW), "no event\n", line("ann", "tea", NOW), line("ann", "i2", NOW - HOUR.replay))
    append(path, line("ann", "i2", NOW + HOUR.ahead + 1), line("ann", "i3", NOW + 60))
    append(path, *(line("bob", f"i{number}", NOW - number) for number in range(7)))
    with intake(tmp_path, partial(FileTail, path)) as (one, journal):
        taken(one, NOW)
        assert journal.counts() == {
            "taken in": 9, "unreadable": 1, "of no known item": 1, "too late": 1, "too far ahead": 1, OVER: 2,
        }  # fmt: skip
        journal.begin(0, NOW)
        assert {(event.user, event.time) for event in journal.events(0) if event.user == "ann"} == {("ann", NOW)}


def test_a_recorded_stream_is_read_up_to_the_moment(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    append(path, *(line("ann", f"i{number}", NOW + 10 * number) for number in range(4)))
    with intake(tmp_path, partial(FileTail, path)) as (one, journal):
        taken(one, NOW + 10, until=True)
        assert journal.counts() == {"taken in": 2}
    with intake(tmp_path, partial(FileTail, path)) as (one, journal):
        taken(one, NOW + 10, until=True)
        assert journal.counts() == {"taken in": 2}
        taken(one, NOW + 20, until=True)
        assert journal.counts() == {"taken in": 3}
        append(path, line("ann", "i9", NOW))
        taken(one, NOW + 30, until=True)  # late, and in time
        assert journal.counts() == {"taken in": 5}


def test_what_a_source_says_again_is_not_taken_in_again(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    append(path, line("ann", "i1", NOW), line("ann", "i2", NOW))
    with intake(tmp_path, partial(FileTail, path)) as (one, journal):
        taken(one, NOW)
    append(path, line("ann", "i3", NOW))
    with intake(tmp_path, lambda positions: FileTail(path, {})) as (one, journal):  # from the start
        taken(one, NOW)
        assert journal.counts() == {"taken in": 3, "read before": 2}


def test_without_room_the_rest_stays_in_the_source(tmp_path: Path) -> None:
    path, small = tmp_path / "events.jsonl", Limits(replay=100, cap=50, room=3)
    append(path, *(line(f"u{number}", "i1", NOW) for number in range(5)))
    with intake(tmp_path, partial(FileTail, path), small) as (one, journal):
        taken(one, NOW)
        assert (journal.counts(), journal.room()) == ({"taken in": 3}, 0)
        journal.begin(0, NOW + 50)
        journal.out(0, {0})
        taken(one, NOW + 50)
        assert journal.counts() == {"taken in": 3}
        journal.begin(1, NOW + 100)
        journal.out(1, {0})
        taken(one, NOW + 99)
        assert journal.counts() == {"taken in": 5}


TIMES = st.lists(st.tuples(st.sampled_from(["ann", "bob"]), st.integers(0, 9), st.integers(0, 12_000)), max_size=25)


def parts_of_ann(folder: Path, batches: list[list[tuple[str, int, int]]]) -> list[list[tuple[int, int]]]:
    """Of each sum what ann's part is made from, if she has anything new: items and times."""
    path, found = folder / "events.jsonl", []
    path.touch()
    with intake(folder, partial(FileTail, path)) as (one, journal):
        for number, batch in enumerate(batches):
            append(path, *(line(user, f"i{item}", time) for user, item, time in batch))
            taken(one, 2000 * number)
            journal.begin(number, 2000 * number)
            found.append([(event.item, event.time) for event in journal.events(number) if event.user == "ann"])
            journal.out(number, {0})
    return found


@settings(max_examples=20, deadline=None)
@given(TIMES, st.integers(1, 6))
def test_what_one_user_does_moves_nothing_of_another(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[str, int, int]], sums: int
) -> None:
    batches = [events[number::sums] for number in range(sums)]
    without = [[one for one in batch if one[0] == "ann"] for batch in batches]
    made = (parts_of_ann(tmp_path_factory.mktemp("stream"), some) for some in (batches, without))
    assert next(made) == next(made)


@settings(max_examples=20, deadline=None)
@given(TIMES, st.integers(1, 6), st.integers(0, 12_000), st.integers(0, 3000))
def test_events_within_a_window_have_no_say_in_sums_that_are_later_than_they_are_kept(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[str, int, int]], sums: int, start: int, length: int
) -> None:
    """A cap that counted who was let in before, or a queue, would hand their influence on without an end."""
    batches = [[("ann", item, time) for _, item, time in events[number::sums]] for number in range(sums)]
    outside = [[one for one in batch if not start <= one[2] < start + length] for batch in batches]
    made = [parts_of_ann(tmp_path_factory.mktemp("stream"), some) for some in (batches, outside)]
    for number, (whole, less) in enumerate(zip(*made, strict=True)):
        if not start <= 2000 * number < start + length + HOUR.replay:
            assert whole == less
