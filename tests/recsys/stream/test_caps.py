"""Of one user no window has more events than the cap, whatever the order in which they come; and none is refused that
would fit."""

from hypothesis import given
from hypothesis import strategies as st

from recsys.stream.caps import Capped


def most_in_a_window(times: list[int], window: int) -> int:
    return max(sum(start <= time < start + window for time in times) for start in times)


@given(st.lists(st.integers(0, 60), max_size=40), st.integers(1, 20), st.integers(1, 6))
def test_what_stays_is_what_every_window_has_room_for(times: list[int], window: int, cap: int) -> None:
    user, stayed = Capped([], window, cap), list[int]()
    for time in times:
        fits = most_in_a_window([*stayed, time], window) <= cap
        assert user.add(time) == fits
        stayed += [time] * fits
    assert user.times == sorted(stayed)


def test_the_window_is_open_at_its_end() -> None:
    user = Capped([100], window=10, cap=1)
    assert [user.add(time) for time in (109, 91, 110, 90)] == [False, False, True, True]
