"""Windows: a budget for the events of one person within a stretch of time, which comes back when they are forgotten.

Streams have no end, so no budget for all that a person ever does would last. Here the unit is all events of one person
whose times lie within some ``length`` seconds. An event is ``kept`` so long: after that nothing that a person
contributes to a sum may follow from it, other than through what came out of earlier sums. So the events of a window
that begins at s are in sums of times from s on, below s + length + kept. The releases of every such stretch of time
are together within the budget (``dp.window_filter``), and a release that is older than that is charged to nobody's
window any more.

Times are whole seconds of one clock: that by which events are dated, whatever it began with. A secure sum's time
follows from its number, which is in the plan that clients sign, and each client goes by it when it decides which events
it may use (``Window.may_hold``). So nobody's clock is trusted: a server that jumps ahead has sums of later times, and
in them no event of the time before. The releases of one party say their time themselves, like their noise.
"""

from __future__ import annotations

from dataclasses import dataclass

from dp.secure_sum import SecureSum
from dp.turns import said
from dp.verify_ledger import within
from secagg.errors import BudgetError, UsageError

LATEST = 1 << 73
"""The last second, which is after the last of 2^32 sums."""
_MOST = 1 << 40


@dataclass(frozen=True, slots=True)
class Window:
    """How long the events of one unit lie apart at the most, how long each is kept, and when sums are.

    >>> window = Window(length=7 * 86_400, kept=86_400, start=1_000_000, every=3600)
    >>> window.words, window.span, window.most_releases
    ('all events of one person within 7 days', 691200, 192)
    >>> window.time_of(2), window.number_at(1_010_000)
    (1007200, 2)
    >>> [window.may_hold(event=1_000_000, time=time) for time in (999_999, 1_000_000, 1_086_399, 1_086_400)]
    [False, True, True, False]
    """

    length: int
    """The events of one person within so many seconds are the unit."""
    kept: int
    """For so many seconds, from its own time on, an event may be in sums."""
    start: int = 0
    """The time of sum number 0."""
    every: int = 1
    """The seconds from one number to the next."""

    def __post_init__(self) -> None:
        for name, least in (("length", 1), ("kept", 1), ("start", 0), ("every", 1)):
            if not least <= getattr(self, name) <= _MOST:
                raise UsageError(f"{name} is {least} to {_MOST} whole seconds")

    @property
    def span(self) -> int:
        """Two releases of times that lie so far apart, or farther, are charged to no window both."""
        return self.length + self.kept

    @property
    def most_releases(self) -> int:
        """The most sums, one of each number, that are charged to one window."""
        return -(-self.span // self.every)

    @property
    def words(self) -> str:
        """What the unit is."""
        return within(self.length)

    def time_of(self, number: int) -> int:
        """The time of the sum of that number."""
        return self.start + number * self.every

    def number_at(self, time: int) -> int:
        """The number of the last sum whose time is not after ``time``."""
        if time < self.start:
            raise UsageError(f"the first sum is at second {self.start}")
        return (time - self.start) // self.every

    def may_hold(self, event: int, time: int) -> bool:
        """Whether what is computed from an event of that time may go into a sum of that time. Of what was computed
        from several, ask for the first and for the last."""
        return event <= time < event + self.kept

    def charged_at(self, what: SecureSum) -> int:
        """The time of a sum, by the number that its plan has."""
        if said(what.plan)[:4] != what.round.to_bytes(4, "big"):
            raise BudgetError(f"sum {what.round} has another number in its plan")
        return self.time_of(what.round)
