"""Splits: every event in one part, the past before the future, and nothing dropped or leaked in silence."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.data import split as module
from recsys.data.interactions import Interactions
from recsys.data.items import Items
from recsys.data.split import ColdStart, Split, by_ratio, by_time, leave_last_out
from secagg.errors import UsageError
from tests.controls import switch_off

PARTS = ("train", "valid", "test")
RULES: list[Callable[[Interactions], Split]] = [
    leave_last_out,
    lambda events: leave_last_out(events, valid=False),
    by_ratio,
    lambda events: by_ratio(events, 0, 0.5),
]


@st.composite
def events(draw: st.DrawFn) -> Interactions:
    """Some users with some different items each, at times that are often equal."""
    pairs = draw(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30)), min_size=1, max_size=60, unique=True))
    times = draw(st.lists(st.integers(0, 5), min_size=len(pairs), max_size=len(pairs)))
    users, items = zip(*pairs, strict=True)
    return Interactions.of(users, items, times, np.arange(len(pairs)), user_count=5, item_count=31)


@given(events=events(), rule=st.sampled_from(RULES))
def test_each_users_history_is_train_then_valid_then_test(
    events: Interactions, rule: Callable[[Interactions], Split]
) -> None:
    split = rule(events)
    for user, history in enumerate(events.histories()):
        parts = [getattr(split, name).history(user) for name in PARTS]
        assert np.concatenate(parts).tolist() == history.tolist()
        assert len(parts[0]) >= min(len(history), 1)
    assert sorted(np.concatenate([getattr(split, name).ratings for name in PARTS])) == sorted(events.ratings)


@given(events=events(), valid=st.booleans())
def test_leave_last_out_takes_one_or_two_of_those_who_have_more(events: Interactions, valid: bool) -> None:
    split, sizes = leave_last_out(events, valid=valid), np.diff(events.starts)
    enough = sizes >= (3 if valid else 2)
    assert np.diff(split.test.starts).tolist() == enough.astype(int).tolist()
    assert np.diff(split.valid.starts).tolist() == (enough & valid).astype(int).tolist()
    few, notes = int((~enough).sum()), []
    if few:
        notes.append(f"{few} of 5 users have too few events for one in test")
    times = [events.times[events.starts[user] : events.starts[user + 1]].tolist() for user in range(5)]
    timed = len(set(events.times.tolist())) > 1
    tied = [bool(timed and enough[user] and mine[-1] == mine[-2]) for user, mine in enumerate(times)]
    assert split.tied is not None
    assert split.tied.tolist() == tied
    assert split.tied_share == sum(tied) / max(5 - few, 1)
    if sum(tied):
        notes.append(f"of {sum(tied)} of {5 - few} users a tie in time decides which event is in test")
    assert list(split.notes) == notes


def test_by_ratio_rounds_down_exactly() -> None:
    """Also where a product of floats comes out just below a whole number (100 * .29 = 28.999999999999996)."""
    events = Interactions.of(users=[0] * 100 + [1] * 9, items=[*range(100), *range(9)], times=range(109))
    split = by_ratio(events, valid=0.29, test=0.1)
    assert [len(part.history(0)) for part in (split.train, split.valid, split.test)] == [61, 29, 10]
    assert [len(part.history(1)) for part in (split.train, split.valid, split.test)] == [7, 2, 0]
    assert split.notes == ("1 of 2 users have too few events for one in test",)


@given(events=events(), first=st.integers(1, 4), gap=st.integers(0, 3))
def test_by_time_divides_everybody_at_the_same_moments(events: Interactions, first: int, gap: int) -> None:
    try:
        split = by_time(events, first, first + gap, fractions=False)
    except UsageError:
        assert (events.times >= first).all() or (events.times < first + gap).all()
        return
    assert split.train.times.max() < first
    assert all(first <= time < first + gap for time in split.valid.times)
    assert split.test.times.min() >= first + gap
    assert sum(len(getattr(split, name)) for name in PARTS) == len(events)


def test_by_time_takes_shares_of_the_events() -> None:
    events = Interactions.of(users=range(100), items=range(100), times=range(1000, 1100))
    split = by_time(events)
    assert [len(split.train), len(split.valid), len(split.test)] == [80, 10, 10]
    assert split.cold_start() == {"valid": ColdStart(10, 10, 10), "test": ColdStart(10, 10, 10)}


@pytest.mark.parametrize(
    "rule",
    [
        lambda events: by_ratio(events, 0.5, 0.5),
        lambda events: by_ratio(events, -0.1, 0.5),
        lambda events: by_ratio(events, 0.1, 0),
        lambda events: by_ratio(events, float("nan"), 0.1),
        lambda events: by_time(events, 0.9, 0.8),
        lambda events: by_time(events, 0.5, 1),
        lambda events: by_time(events, 2, 1, fractions=False),
        lambda events: by_time(events, 0, 1, fractions=False),
        lambda events: by_time(events, 8, 9, fractions=False),
    ],
)
def test_shares_and_moments_make_sense(rule: Callable[[Interactions], Split]) -> None:
    with pytest.raises(UsageError):
        rule(Interactions.of(users=[0, 0, 0], items=[0, 1, 2], times=[1, 2, 3]))


def test_parts_number_the_same_users_and_items() -> None:
    train = Interactions.of([0], [0], user_ids=["a"], item_ids=["x", "y"])
    for ids in ({"user_ids": ["b"], "item_ids": ["x", "y"]}, {"user_ids": ["a"], "item_ids": ["y", "x"]}):
        other = Interactions.of([0], [1], **ids)
        for parts in ((train, other, other), (train, train.where(np.array([False])), other)):
            with pytest.raises(UsageError, match="number the same users and items"):
                Split(*parts)


@pytest.mark.parametrize(("one", "other"), [("train", "valid"), ("train", "test"), ("valid", "test")])
def test_an_event_in_two_parts_is_a_leak(one: str, other: str) -> None:
    nothing = Interactions.of([], [], user_count=2, item_count=5)
    parts = dict.fromkeys(PARTS, nothing)
    parts[one] = Interactions.of([0, 1, 1], [3, 3, 4], user_count=2, item_count=5)
    parts[other] = Interactions.of([1, 0], [4, 2], user_count=2, item_count=5)
    with pytest.raises(UsageError, match=f"1 events are in both {one} and {other}, such as user 1 with item 4"):
        Split(**parts)


def test_repeated_events_are_refused_before_they_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positive control: with the check switched off, what is held out was trained on."""
    events = Interactions.of(users=[0] * 4, items=[7, 1, 2, 7], times=range(4))
    with pytest.raises(UsageError, match="keep a user's first event with an item only"):
        leave_last_out(events)
    switch_off(monkeypatch, Split, "_check_apart", "len(shared) > 0")
    split = leave_last_out(events)
    assert split.test.items[0] in split.train.items


def write(folder: Path, **files: str) -> list[Path]:
    for name, text in files.items():
        (folder / f"{name}.csv").write_text(text)
    return [folder / f"{name}.csv" for name in files]


def test_own_files_share_their_ids_and_keep_cold_starts(tmp_path: Path) -> None:
    train, valid, test = write(
        tmp_path,
        train="u,i,t\nann,tea,2\nann,jam,1\nbob,tea,1\n?\n",
        valid="u,i,t\nbob,oats,3\n",
        test="u,i,t\nann,oats,4\neve,rum,5\neve,tea,4\n",
    )
    split = Split.load(train, valid, test, user="u", item="i", time="t")
    assert (split.train.user_ids, split.train.item_ids) == (("ann", "bob", "eve"), ("jam", "oats", "rum", "tea"))
    assert [history.tolist() for history in split.train.histories()] == [[0, 3], [3], []]
    assert [history.tolist() for history in split.test.histories()] == [[1], [], [3, 2]]
    assert split.cold_start() == {"valid": ColdStart(0, 1, 1), "test": ColdStart(1, 2, 3)}
    assert split.report() == [
        "3 train, 1 valid, 3 test events",
        "train.csv: 3 events of 2 users and 2 items",
        "1 bad row left out: line 5: 1 fields, not 3",
        "valid.csv: 1 events of 1 users and 1 items",
        "test.csv: 3 events of 2 users and 3 items",
        "valid: 0 users and 1 items that train has never seen, in 1 events",
        "test: 1 users and 2 items that train has never seen, in 3 events",
    ]


def test_own_files_with_a_table_of_items_have_its_items_in_its_order(tmp_path: Path) -> None:
    train, test = write(tmp_path, train="user,item\na,x\na,y\nb,q\n", test="user,item\na,z\n")
    split = Split.load(train, None, test, listed=Items.of(["z", "w", "y", "x"]))
    assert (split.train.user_ids, split.train.item_ids) == (("a", "b"), ("z", "w", "y", "x"))
    assert [history.tolist() for history in split.train.histories()] == [[3, 2], []]
    assert split.test.items.tolist() == [0]
    assert "1 event about an item that is not in the table of items left out: line 4: " in " ".join(split.report())


def test_own_files_may_lack_validation_but_may_not_overlap(tmp_path: Path) -> None:
    train, test = write(tmp_path, train="user,item\na,x\na,y\n", test="user,item\na,z\n")
    for nothing in (None, ""):
        assert len(Split.load(train, nothing, test).valid) == 0
    (leaky,) = write(tmp_path, leaky="user,item\na,z\na,x\n")
    with pytest.raises(UsageError, match="1 events are in both train and test, such as user a with item x"):
        Split.load(train, None, leaky)


def test_the_pairs_of_a_large_catalogue_do_not_collide() -> None:
    """User times catalogue goes beyond 32 bits."""
    count = 1 << 17
    train = Interactions.of([0], [0], user_count=count, item_count=count)
    test = Interactions.of([1 << 15], [0], user_count=count, item_count=count)
    assert len(np.intersect1d(module._pairs(train), module._pairs(test))) == 0
