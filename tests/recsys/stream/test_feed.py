"""What a run on a stream does before each of its sums."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from recsys.config import Config
from recsys.stream import feed as feeding
from recsys.stream.feed import Feed, silo_of
from recsys.users_in_silos import UsersInSilos
from secagg.errors import StorageError, UsageError
from tests.scenes.streams import append, line

NAMES = ("client-0", "client-1")
BEGIN = 10_000
IN_0, IN_1 = ([name for name in "abcdefgh" if silo_of(name, 2) == silo] for silo in (0, 1))


def config(path: Path, private: bool, **stream: Any) -> Config:
    table = {"kind": "file", "path": str(path), "begin": BEGIN, "every": 100, "replay": 1000, "cap": 3, "ahead": 500}
    return Config.parse(
        {
            "data": {"source": "stream", "items": "items.csv"},
            "clients": {"count": 2},
            "privacy": {"mode": "distributed" if private else "none", "n_min": 100},
            "stream": table | stream,
        }
    )


@contextmanager
def feed(tmp_path: Path, most: int = 9, *, private: bool = False, **stream: Any) -> Iterator[Feed]:
    asked = config(tmp_path / "events.jsonl", private, **stream)
    items = [f"i{number}" for number in range(8)]
    silos = UsersInSilos(100, most)
    with closing(Feed(asked, tmp_path / "stream.db", NAMES, items, silos, lambda doing: None)) as one:
        yield one


def test_a_round_is_trained_on_users_with_new_events_in_their_silos(tmp_path: Path) -> None:
    path, (ann, bob) = tmp_path / "events.jsonl", (IN_0[0], IN_1[0])
    append(path, line(ann, "i1", BEGIN - 5), line(ann, "i2", BEGIN - 4), line(ann, "i1", BEGIN))
    append(path, line(bob, "i3", BEGIN + 50), line(ann, "i4", BEGIN + 60), line(ann, "i5", BEGIN + 140))
    with feed(tmp_path) as one:
        first = one.gathered(0)
        assert [[list(history) for history in first.clients.histories(name)] for name in NAMES] == [[[2, 1]], [[]]]
        assert first.ahead is not None
        assert [list(history) for history in first.ahead.test.histories()] == [[2, 1], []]
        one.journal.out(0, {0, 1})
        second = one.gathered(1)
        assert [[list(history) for history in second.clients.histories(name)] for name in NAMES] == [
            [[2, 1, 4]], [[3]],
        ]  # fmt: skip
        assert second.ahead is not None
        assert [list(history) for history in second.ahead.train.histories()] == [[2, 1], []]
        assert [list(history) for history in second.ahead.test.histories()] == [[4], [3]]
        one.journal.out(1, {0, 1})
        one.gathered(2)
        one.journal.out(2, {0, 1})
        nobody = one.gathered(3)
        assert (nobody.ahead, [len(nobody.clients.users(name)) for name in NAMES]) == (None, [1, 1])


def test_after_a_restart_a_sum_that_was_begun_is_made_from_the_same(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    append(path, line(IN_0[0], "i1", BEGIN))
    with feed(tmp_path) as one:
        one.gathered(0)
    append(path, line(IN_0[0], "i2", BEGIN))
    with feed(tmp_path) as one:
        one.check_reached(0)
        assert list(one.gathered(0).clients.histories("client-0")[0]) == [1]


def test_a_journal_and_a_checkpoint_are_of_one_age(tmp_path: Path) -> None:
    with feed(tmp_path) as one:
        one.check_reached(0)
        for number in range(2):
            one.gathered(number)
            one.journal.out(number, {0, 1})
        one.check_reached(1)  # killed between the journal and the checkpoint
        one.check_reached(2)
        with pytest.raises(StorageError, match="checkpoint is older"):
            one.check_reached(0)
        with pytest.raises(StorageError, match="journal is older"):
            one.check_reached(3)
        one.gathered(2)
        one.check_reached(2)
        for rounds in (1, 3):
            with pytest.raises(StorageError, match="is older"):
                one.check_reached(rounds)


def test_a_silo_with_more_users_than_it_may_have_refuses(tmp_path: Path) -> None:
    append(tmp_path / "events.jsonl", *(line(user, "i1", BEGIN) for user in IN_1))
    with feed(tmp_path, most=len(IN_1)) as one:
        one.gathered(0)
    with feed(tmp_path, most=len(IN_1) - 1) as one, pytest.raises(UsageError, match=r"clients\.most"):
        one.gathered(0)


def test_no_persons_event_keeps_another_out_of_a_private_sum(tmp_path: Path) -> None:
    """One event more, and somebody else's would wait for a later sum. Without privacy it does."""
    path = tmp_path / "events.jsonl"
    append(path, line(IN_0[0], "i1", BEGIN - 2), line(IN_0[0], "i2", BEGIN - 1), line(IN_1[0], "i3", BEGIN))
    for room, others in ((4, [3]), (2, [])):
        with feed(tmp_path, room=room) as one:
            assert list(one.gathered(0).clients.histories("client-1")[0]) == others
        (tmp_path / "stream.db").unlink()
    with feed(tmp_path, private=True, room=4) as one:
        for _ in range(2):  # a sum that was begun takes nothing in, and goes on
            assert list(one.gathered(0).clients.histories("client-1")[0]) == [3]
    (tmp_path / "stream.db").unlink()
    with feed(tmp_path, private=True, room=2) as one:
        for _ in range(2):
            with pytest.raises(StorageError, match=r"is full before sum 0.*stream\.room"):
                one.gathered(0)
        assert one.journal.sums() == (0, False)


def test_by_the_wall_clock_a_sum_waits_for_its_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, now = tmp_path / "events.jsonl", [BEGIN - 3]

    def passes(seconds: float) -> None:
        append(path, line(IN_0[0], f"i{now[0] - BEGIN + 3}", now[0] + 400))  # of a clock that is ahead
        now[0] += 1

    monkeypatch.setattr(feeding, "time", lambda: float(now[0]))
    monkeypatch.setattr(feeding, "sleep", passes)
    with feed(tmp_path, clock="wall") as one:
        found = one.gathered(0)
        assert now == [BEGIN]
        assert found.clients.train.times.tolist() == [BEGIN - 2, BEGIN - 1, BEGIN]  # events of now
        one.journal.out(0, {0, 1})


def test_after_a_pause_sums_whose_moments_have_passed_have_no_later_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor are those lost: they wait in the source, however far ahead of that moment they are."""
    path, ann = tmp_path / "events.jsonl", IN_0[0]
    monkeypatch.setattr(feeding, "time", lambda: BEGIN + 900.0)
    append(path, *(line(ann, f"i{number}", BEGIN + 100 * number) for number in range(8)))
    append(path, line(ann, "i0", BEGIN + 1500))
    with feed(tmp_path, clock="wall") as one:
        for number in range(8):
            new = one.gathered(number).ahead
            assert new is not None
            assert list(new.test.history(0)) == [number]
            one.journal.out(number, {0, 1})
        assert one.journal.counts()["taken in"] == 8
        assert one.journal.counts().get("too far ahead", 0) == 1


def test_journals_of_other_items_silos_or_moments_are_refused(tmp_path: Path) -> None:
    with feed(tmp_path):
        pass
    with pytest.raises(UsageError, match="of another stream"), feed(tmp_path, every=101):
        pass
