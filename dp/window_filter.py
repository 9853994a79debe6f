"""A privacy filter for every stretch of time: what is charged to a window comes back when the window has passed.

The events of one window are in releases of a stretch of ``Window.span`` seconds, and the others depend on them only
through what came out of these. So each window has a filter of its own, which adds up what is charged within its stretch
(docs/privacy.md), and all of these filters have to allow a release. Times never go back, so it is enough to ask the one
whose stretch ends with the release: of all stretches that it is in, this one has the most releases before it.

A release is charged to its stretch with what was reserved until it is committed or aborted, whenever that is. So the
most that any stretch came to (``total``) may become less later on, and what is counted now never less than is true.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from dp.filter import Budget, Filter, Kind, PrivacyCost, most_of
from dp.windows import Window
from secagg.errors import BudgetError, UsageError

_NOTHING = PrivacyCost.nothing(Kind.GDP)


@dataclass(frozen=True, slots=True)
class Charge:
    """What a release of that time costs, or may cost at the most as long as it is open."""

    release: str
    time: int
    cost: PrivacyCost


@dataclass(frozen=True, slots=True)
class WindowFilter:
    """What is spent and reserved of a budget of kind gdp, stretch by stretch. Each method returns a new filter, or
    raises ``BudgetError``.

    >>> from fractions import Fraction
    >>> budget = Budget(Fraction(2), Fraction(1, 10**5), slack=Fraction(1, 10**8), kind=Kind.GDP)
    >>> cost = PrivacyCost(budget.limits(), samples=1)
    >>> spent = WindowFilter.of(budget, Window(length=60, kept=40)).reserve("first", cost, time=1000)
    >>> spent.reserve("second", cost, time=1099)
    Traceback (most recent call last):
    secagg.errors.BudgetError: with this release epsilon could reach 2.95357, the budget allows 2; room at second 1100
    >>> spent.reserve("second", cost, time=1100).total == cost
    True
    """

    window: Window
    unspent: Filter = field(repr=False)
    recent: tuple[Charge, ...] = field(default=(), repr=False)
    """All in the stretch that ends with the latest release, in the order of their times."""
    open: Mapping[str, Charge] = field(default_factory=dict, repr=False)
    """Those that are only reserved, however long ago."""
    ends: tuple[tuple[int, PrivacyCost], ...] = field(default=(), repr=False)
    """The last second of a stretch, and what it comes to: of the latest, and of those that may still come to less."""
    most: PrivacyCost = field(default=_NOTHING, repr=False)
    """The most that any other stretch came to."""

    @classmethod
    def of(cls, budget: Budget, window: Window) -> Self:
        if budget.kind is not Kind.GDP:
            raise UsageError("what is charged to a window is counted as mu^2: the budget is of kind gdp")
        return cls(window, Filter.of(budget))

    @property
    def latest(self) -> int:
        """The time before which no release may be any more."""
        return self.ends[-1][0] if self.ends else 0

    @property
    def now(self) -> PrivacyCost:
        """What the stretch that ends with the latest release comes to."""
        return self.ends[-1][1] if self.ends else _NOTHING

    @property
    def spent(self) -> PrivacyCost:
        """The same without what is only reserved."""
        return sum((one.cost for one in self.recent if one.release not in self.open), _NOTHING)

    @property
    def total(self) -> PrivacyCost:
        """The most mu^2, and the most samples, that any stretch came to."""
        return most_of([self.most, *(cost for _end, cost in self.ends)])

    @property
    def reached(self) -> int | None:
        """The epsilon of the dearest stretch."""
        return self._epsilon(self.total)

    def reached_at(self, time: int) -> int | None:
        """The epsilon of what still counts at that time, which is not before the latest release."""
        return self._epsilon(self._before(time))

    def room_at(self, cost: PrivacyCost, time: int) -> int:
        """The first time, from ``time`` on, at which so much may be reserved; ``BudgetError`` if it is dearer than all
        of the budget."""
        alone = self.unspent.reserve("release", cost)
        then = max(time, self.latest)
        before = self._before(then)
        for one in self._still(then):
            if replace(alone, spent=before).allows(_NOTHING):
                break
            before, then = before - one.cost, one.time + self.window.span
        return then

    def reserve(self, release: str, cost: PrivacyCost, time: int | None = None) -> WindowFilter:
        """Set ``cost`` aside for a release of that time, by default the latest, if its stretch is within the budget."""
        time = self.latest if time is None else time
        if release in self.open:
            raise UsageError(f"{release} is reserved already")
        if time < self.latest:
            raise BudgetError(f"a release of second {time} goes back: there is one of second {self.latest}")
        before = self._before(time)
        try:
            total = replace(self.unspent, spent=before).reserve(release, cost).total
        except BudgetError as error:
            raise BudgetError(f"{error}{self._hint(cost, time)}") from None
        charge = Charge(release, time, cost)
        earlier = self.ends[:-1] if self.ends and self.latest == time else self.ends
        return replace(
            self,
            recent=(*self._still(time), charge),
            open={**self.open, release: charge},
            ends=(*earlier, (time, total)),
        )._settled()

    def commit(self, release: str, cost: PrivacyCost) -> WindowFilter:
        """Replace a reservation by what happened, which may not cost more."""
        reserved = self._open(release)
        alone = self.unspent.reserve(release, reserved.cost)
        alone.commit(release, cost)
        return self._changed(reserved, replace(reserved, cost=cost))

    def abort(self, release: str) -> WindowFilter:
        """Give back a reservation for which nothing was released. Its time stays the latest, if it was."""
        return self._changed(self._open(release), None)

    def _changed(self, before: Charge, after: Charge | None) -> WindowFilter:
        saved = before.cost if after is None else before.cost - after.cost
        past, recent = before.time + self.window.span, self.recent
        if self.latest < past:
            place = next(number for number in reversed(range(len(recent))) if recent[number] is before)
            recent = recent[:place] + (() if after is None else (after,)) + recent[place + 1 :]
        return replace(
            self,
            recent=recent,
            open={name: one for name, one in self.open.items() if one is not before},
            ends=tuple((end, cost - saved if before.time <= end < past else cost) for end, cost in self.ends),
        )._settled()

    def _settled(self) -> WindowFilter:
        """The same, and forgotten each stretch but the latest in which nothing is open."""
        *earlier, latest = self.ends
        is_open = [
            any(one.time <= end < one.time + self.window.span for one in self.open.values()) for end, _ in earlier
        ]
        if all(is_open):
            return self
        kept = [one for one, unsettled in zip(earlier, is_open, strict=True) if unsettled]
        settled = [cost for (_end, cost), unsettled in zip(earlier, is_open, strict=True) if not unsettled]
        return replace(self, ends=(*kept, latest), most=most_of([self.most, *settled]))

    def _still(self, time: int) -> tuple[Charge, ...]:
        """Those that are charged to one window with a release of that time."""
        first = time - self.window.span
        gone = next((number for number, one in enumerate(self.recent) if one.time > first), len(self.recent))
        return self.recent[gone:]

    def _before(self, time: int) -> PrivacyCost:
        gone = self.recent[: len(self.recent) - len(self._still(time))]
        return self.now - sum((one.cost for one in gone), _NOTHING)

    def _epsilon(self, total: PrivacyCost) -> int | None:
        return replace(self.unspent, spent=total).reached

    def _hint(self, cost: PrivacyCost, time: int) -> str:
        try:
            return f"; room at second {self.room_at(cost, time)}"
        except BudgetError:
            return ""

    def _open(self, release: str) -> Charge:
        if release not in self.open:
            raise UsageError(f"nothing is reserved for {release}")
        return self.open[release]
