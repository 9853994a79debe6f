"""From a source into the journal: what is refused, and that one user's events move no other's."""

from functools import partial
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.stream.journal import Limits
from recsys.stream.tail import FileTail
from tests.scenes.streams import HOUR, append, intake, line, taken

NOW = 100_000


def test_each_refusal_is_counted_and_the_rest_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    append(path, line("ann", "i1", NOW), "no event\n", line("ann", "tea", NOW), line("ann", "i2", NOW - HOUR.replay))
    append(path, line("ann", "i2", NOW + HOUR.ahead + 1), line("ann", "i1", NOW - 5), line("ann", "i3", NOW + 60))
    append(path, *(line("bob", f"i{number}", NOW - number) for number in range(7)))
    with intake(tmp_path, partial(FileTail, path)) as (one, journal):
        taken(one, NOW)
        assert journal.counts() == {
            "taken in": 7, "unreadable": 1, "of no known item": 1, "too late": 1, "too far ahead": 1, "repeated": 1,
            "over the cap": 2,
        }  # fmt: skip
        journal.begin(0, NOW)
        assert {(event.user, event.time) for event in journal.events(0) if event.user == "ann"} == {("ann", NOW)}


def test_the_cap_looks_at_what_came_in_earlier_batches_and_processes(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    for number in range(12):
        append(path, line("ann", f"i{number}", NOW + 300 * number))
        with intake(tmp_path, partial(FileTail, path)) as (one, journal):
            taken(one, NOW + 300 * number)
            journal.begin(number, NOW + 300 * number)
            journal.out(number, {0})
    with intake(tmp_path, partial(FileTail, path)) as (_, journal):
        assert journal.counts() == {
            "taken in": 5,
            "over the cap": 7,
        }  # none of the last 35 minutes is out of the window
    append(path, line("ann", "i20", NOW + 3600), line("ann", "i21", NOW + 3601))
    with intake(tmp_path, partial(FileTail, path)) as (one, journal):
        taken(one, NOW + 4000)
        assert journal.counts()["taken in"] == 6


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


def test_without_room_the_rest_stays_in_the_source(tmp_path: Path) -> None:
    path, small = tmp_path / "events.jsonl", Limits(window=100, cap=50, replay=100, room=3)
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


EVENTS = st.lists(st.tuples(st.sampled_from(["ann", "bob"]), st.integers(0, 9), st.integers(0, 12_000)), max_size=25)


@settings(max_examples=25, deadline=None)
@given(EVENTS, st.integers(1, 6))
def test_what_one_user_does_moves_no_event_of_another(
    tmp_path_factory: object, events: list[tuple[str, int, int]], sums: int
) -> None:
    """With all events, and with ann's only: hers that are taken in are the same."""
    kept = []
    for users in ({"ann", "bob"}, {"ann"}):
        folder = tmp_path_factory.mktemp("stream")  # type: ignore[attr-defined]
        path = folder / "events.jsonl"
        path.touch()
        with intake(folder, partial(FileTail, path)) as (one, journal):
            found = []
            for number in range(sums):
                some = events[number::sums]
                append(path, *(line(user, f"i{item}", time) for user, item, time in some if user in users))
                taken(one, 2000 * number)
                journal.begin(number, 2000 * number)
                found += [(number, event) for event in journal.events(number) if event.user == "ann"]
                journal.out(number, {0})
            kept.append(found)
    assert kept[0] == kept[1]
