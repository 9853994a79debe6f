"""Events of one time: an order that is drawn, event by event, and moved by nobody else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.interactions import Interactions


@st.composite
def events(draw: st.DrawFn) -> Interactions:
    """Five users with some different items each, at times that are often equal; ratings tell events apart."""
    pairs = draw(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 30)), min_size=1, max_size=60, unique=True))
    times = draw(st.lists(st.integers(0, 3), min_size=len(pairs), max_size=len(pairs)))
    users, items = zip(*pairs, strict=True)
    return Interactions.of(users, items, times, np.arange(len(pairs)), user_count=5, item_count=31)


@given(events=events(), seed=st.integers(0, 2**32 - 1))
def test_a_drawn_order_moves_events_of_one_time_only(events: Interactions, seed: int) -> None:
    drawn = events.ties_drawn(seed)
    assert drawn.times.tolist() == events.times.tolist()
    assert drawn.starts.tolist() == events.starts.tolist()
    one, other = (each.ratings[np.lexsort((each.items, each.times, each.users))] for each in (events, drawn))
    assert one.tolist() == other.tolist()


@given(events=events(), seed=st.integers(0, 2**32 - 1), gone=st.integers(0, 4))
def test_a_user_moves_nobody_elses_order(events: Interactions, seed: int, gone: int) -> None:
    others = events.where(events.users != gone).ties_drawn(seed)
    for user in range(5):
        assert user == gone or others.history(user).tolist() == events.ties_drawn(seed).history(user).tolist()


def test_each_of_some_events_is_the_last_as_often_as_any_other() -> None:
    """Of 3,000 users with three events of one time each: within 6 deviations of 1,000 (false alarm below 1e-7)."""
    users = np.repeat(np.arange(3000), 4)
    events = Interactions.of(users, np.tile([7, 1, 3, 2], 3000), np.tile([1, 5, 5, 5], 3000))
    last = events.ties_drawn(1).items[3::4]
    assert np.bincount(last, minlength=4)[1:].tolist() == pytest.approx([1000] * 3, abs=6 * np.sqrt(3000 * 2 / 9))
    assert (events.ties_drawn(2).items[3::4] != last).mean() == pytest.approx(2 / 3, abs=6 * np.sqrt(2 / 9 / 3000))
