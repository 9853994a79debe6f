"""What a stream's journal promises: all of a step or nothing, one sum for an event, and no other file in its place."""

import sqlite3
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from recsys.stream.events import Position
from recsys.stream.journal import EXPIRED, OVER, Limits, StreamJournal, Taken
from secagg.errors import StorageError, UsageError
from tests.scenes.streams import HOUR, journal


def event(user: str, offset: int, time: int = 100, item: int = 0, client: int = 0, part: str = "a") -> Taken:
    return Taken(user, item, time, client, part, Position(offset))


def new(kept: StreamJournal, number: int) -> list[str]:
    return [one.user for one in kept.events(number) if one.new]


def test_events_wait_until_their_client_is_in_a_sum_that_is_out(tmp_path: Path) -> None:
    with journal(tmp_path) as kept:
        kept.take_in([event("ann", 0), event("bob", 1, client=1), event("cy", 2)], {"a": Position(3)}, {"late": 2})
        kept.begin(0, 200)
        assert (new(kept, 0), kept.acknowledged()["a"].offset) == (["ann", "cy", "bob"], 0)
        kept.out(0, {0})
        assert kept.acknowledged()["a"].offset == 1  # bob's
        kept.take_in([event("dan", 3)], {"a": Position(4)}, {})
        kept.begin(1, 300)
        assert new(kept, 1) == ["dan", "bob"]
        kept.out(1, set())  # it failed
        kept.begin(2, 400)
        assert new(kept, 2) == ["dan", "bob"]
        kept.out(2, {0, 1})
        assert kept.acknowledged()["a"].offset == 4
        assert kept.counts() == {"late": 2, "taken in": 4}
        assert kept.sums() == (3, False)


def test_what_was_in_a_sum_is_replayed_with_what_is_new_until_it_is_too_old(tmp_path: Path) -> None:
    with journal(tmp_path) as kept:
        kept.take_in([event("ann", 0, 100, 1), event("bob", 1, 100, 2)], {"a": Position(2)}, {})
        kept.begin(0, 200)
        kept.out(0, {0})
        kept.take_in([event("ann", 2, 300, 3)], {"a": Position(3)}, {})
        kept.begin(1, 100 + HOUR.replay - 1)
        assert [(one.user, one.item, one.new) for one in kept.events(1)] == [("ann", 1, False), ("ann", 3, True)]
        kept.out(1, {0})
        kept.take_in([event("ann", 3, 400, 4)], {"a": Position(4)}, {})
        kept.begin(2, 100 + HOUR.replay)
        assert [one.item for one in kept.events(2)] == [3, 4]


def test_what_waits_too_long_is_dropped_and_counted(tmp_path: Path) -> None:
    with journal(tmp_path) as kept:
        kept.take_in([event("ann", 0, 100), event("ann", 1, 101)], {"a": Position(2)}, {})
        kept.begin(0, 100 + HOUR.replay)
        assert (len(new(kept, 0)), kept.counts()[EXPIRED]) == (1, 1)


def test_the_newest_up_to_the_cap_count_and_the_rest_is_dropped(tmp_path: Path) -> None:
    with journal(tmp_path, Limits(replay=3600, cap=3)) as kept:
        events = [event("ann", number, time, number) for number, time in enumerate((105, 101, 104, 101, 103))]
        kept.take_in([*events, event("bob", 5, 50)], {"a": Position(6)}, {})
        kept.begin(0, 200)
        assert [one.item for one in kept.events(0) if one.user == "ann"] == [4, 2, 0]
        assert kept.counts() == {"taken in": 6, OVER: 2}
        kept.out(0, {0})
        kept.take_in([event("ann", 6, 102, 6), event("ann", 7, 103, 7)], {"a": Position(8)}, {})
        kept.begin(1, 300)
        assert [(one.item, one.new) for one in kept.events(1)] == [(7, True), (2, False), (0, False)]
        assert (kept.counts()[OVER], HOUR.room - kept.room()) == (3, HOUR.room)


def test_nothing_is_taken_in_while_a_sum_is_open(tmp_path: Path) -> None:
    """What is computed of it after a restart would be from other events."""
    with journal(tmp_path) as kept:
        kept.begin(0, 200)
        assert kept.room() == 0
        with pytest.raises(StorageError, match="a sum is open"):
            kept.take_in([event("ann", 0)], {"a": Position(1)}, {})
        kept.out(0, set())
        assert kept.room() == HOUR.room
        kept.take_in([event("ann", 0)], {"a": Position(1)}, {})
        assert kept.room() == HOUR.room - 1
        kept.begin(1, 100 + HOUR.replay)
        kept.out(1, set())
        assert kept.room() == HOUR.room


def test_a_place_is_taken_in_once(tmp_path: Path) -> None:
    with journal(tmp_path) as kept:
        kept.take_in([event("ann", 0)], {"a": Position(1)}, {})
        for events, position in (([event("ann", 0)], 2), ([], 0)):
            with pytest.raises(StorageError, match="already"):
                kept.take_in(events, {"a": Position(position)}, {})
        with pytest.raises(UsageError, match="before the position"):
            kept.take_in([event("ann", 5)], {"a": Position(5)}, {})
        assert (kept.counts(), kept.positions()) == ({"taken in": 1}, {"a": Position(1)})
        kept.take_in([Taken("ann", 1, 100, 0, "a", Position(0, 1))], {"a": Position(1, 1, "m")}, {})
        assert kept.positions() == {"a": Position(1, 1, "m")}


def test_sums_go_upwards_in_number_and_time_and_one_is_open(tmp_path: Path) -> None:
    with journal(tmp_path) as kept:
        kept.begin(3, 200)
        kept.begin(3, 200)  # after a restart
        for number, moment in ((4, 300), (2, 200), (3, 201)):
            with pytest.raises(StorageError):
                kept.begin(number, moment)
        kept.out(3, {1})
        kept.out(3, {1})
        with pytest.raises(StorageError, match="came out otherwise"):
            kept.out(3, {0, 1})
        for number, moment in ((4, 199), (2, 300)):
            with pytest.raises(StorageError, match="is not next"):
                kept.begin(number, moment)
        kept.begin(4, 200)
        for wrong in (lambda: kept.out(9, set()), lambda: list(kept.events(9))):
            with pytest.raises(UsageError, match="was not begun"):
                wrong()


def test_after_a_restart_everything_is_where_it_was(tmp_path: Path) -> None:
    with journal(tmp_path) as kept:
        kept.take_in([event("ann", 0)], {"a": Position(1, 2, "mark")}, {})
        kept.begin(0, 200)
    with journal(tmp_path) as kept:
        assert (kept.positions(), kept.sums(), new(kept, 0)) == ({"a": Position(1, 2, "mark")}, (1, True), ["ann"])


def test_a_step_that_fails_changes_nothing(tmp_path: Path) -> None:
    """The disk is full: of positions, events and counts all or none."""
    with journal(tmp_path) as kept:
        [(pages,)] = kept._read("PRAGMA page_count")
        kept._read(f"PRAGMA max_page_count = {pages}")
        events = [event(f"user {number}", number) for number in range(5000)]
        with pytest.raises(StorageError, match="cannot be written"):
            kept.take_in(events, {"a": Position(5000)}, {"late": 1})
        assert (kept.positions(), kept.counts(), kept.room()) == ({}, {}, HOUR.room)


def test_another_stream_or_version_is_refused_and_so_is_a_second_process(tmp_path: Path) -> None:
    path = tmp_path / "stream.db"
    with journal(tmp_path) as kept:
        kept.begin(0, 1)
        with pytest.raises(StorageError, match="locked"):
            StreamJournal(path, HOUR, about="a test")
    assert path.stat().st_mode & 0o777 == 0o600
    for limits, about in ((Limits(3600, 6), "a test"), (HOUR, "another")):
        with pytest.raises(UsageError, match="of another stream"):
            StreamJournal(path, limits, about=about)
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(UsageError, match="of this version"):
        StreamJournal(path, HOUR, about="a test")
    path.write_bytes(b"something else" * 99)
    with pytest.raises(StorageError, match="cannot open"):
        StreamJournal(path, HOUR, about="a test")


@pytest.mark.parametrize("wrong", [{"cap": 0}, {"replay": 0}, {"room": 0}, {"ahead": -1}])
def test_limits_are_numbers_that_mean_something(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        Limits(**{"cap": 1, "replay": 1} | wrong)


class Lives(RuleBasedStateMachine):
    """Events of four users of two clients come, sums are begun, come out with some clients or fail, and the process
    ends now and then: each event is new in one sum that is out at most, and in exactly one in the end."""

    def __init__(self) -> None:
        super().__init__()
        memory = Path("/dev/shm")
        self.folder = TemporaryDirectory(dir=memory if memory.is_dir() else None)
        self.limits = Limits(replay=100_000, cap=10_000)
        self.kept = self.opened()
        self.offset = self.number = 0
        self.released = dict[int, int]()

    def opened(self) -> StreamJournal:
        return StreamJournal(Path(self.folder.name) / "stream.db", self.limits, about="lives")

    @precondition(lambda self: not self.kept.sums()[1])
    @rule(users=st.lists(st.integers(0, 3), max_size=4))
    def take_in(self, users: list[int]) -> None:
        events = [
            Taken(f"u{user}", self.offset + place, 5, user % 2, "a", Position(self.offset + place))
            for place, user in enumerate(users)
        ]
        self.offset += len(users)
        self.kept.take_in(events, {"a": Position(self.offset)}, {})

    @precondition(lambda self: not self.kept.sums()[1])
    @rule()
    def begin(self) -> None:
        self.kept.begin(self.number, 10)

    @precondition(lambda self: self.kept.sums()[1])
    @rule(clients=st.sets(st.integers(0, 1)))
    def out(self, clients: set[int]) -> None:
        for one in self.kept.events(self.number):
            if one.new and one.client in clients:
                self.released[one.item] = self.released.get(one.item, 0) + 1
        self.kept.out(self.number, clients)
        self.number += 1

    @rule()
    def killed(self) -> None:
        self.kept.close()
        self.kept = self.opened()

    @invariant()
    def never_twice(self) -> None:
        assert all(times == 1 for times in self.released.values())
        first_missing = next((item for item in range(self.offset) if item not in self.released), self.offset)
        acknowledged = self.kept.acknowledged().get("a", Position())
        assert acknowledged.offset == first_missing

    def teardown(self) -> None:
        for _ in range(2):
            if not self.kept.sums()[1]:
                self.kept.begin(self.number, 10)
            self.out({0, 1})
        assert self.released == dict.fromkeys(range(self.offset), 1)
        self.kept.close()
        self.folder.cleanup()


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=8, stateful_step_count=15, deadline=None)
