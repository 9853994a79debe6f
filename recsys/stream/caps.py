"""How many events of one user count within a sliding window: of those that come, which may stay.

A window is any interval [s, s + W) of whole seconds. With a cap of c no window has more than c events of a user. Events
may come in any order of their times; what stayed stays.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence


def has_room(times: Sequence[int], time: int, window: int, cap: int) -> bool:
    """Whether one more event fits beside those at ``times``, which are in order.

    >>> has_room([0, 5], 9, window=10, cap=2), has_room([0, 5], 10, window=10, cap=2)
    (False, True)
    """
    place = bisect_right(times, time)
    first = max(0, place - cap)
    near = [*times[first:place], time, *times[place : place + cap]]  # cap + 1 in a row that hold the new one
    return all(late - early >= window for early, late in zip(near, near[cap:], strict=False))


class Capped:
    """Times of one user's events, of which so many fit into each window.

    >>> user = Capped([0], window=10, cap=2)
    >>> [user.add(time) for time in (5, 9, 10, 11)], user.times
    ([True, False, True, False], [0, 5, 10])
    """

    def __init__(self, times: Sequence[int], window: int, cap: int) -> None:
        self.times, self._window, self._cap = sorted(times), window, cap

    def add(self, time: int) -> bool:
        """Whether there was room; then it is taken."""
        if not has_room(self.times, time, self._window, self._cap):
            return False
        insort(self.times, time)
        return True
