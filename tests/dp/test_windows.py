"""Windows and their filter, against a search through all windows, second by second."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dp import verify_ledger
from dp.events import Guarantee, Holder, Relation, Trust, Unit
from dp.filter import RESOLUTION, Budget, Kind, PrivacyCost
from dp.window_filter import WindowFilter
from dp.windows import Window
from secagg.errors import BudgetError, UsageError
from tests.controls import switch_off

BUDGET = Budget(Fraction(2), Fraction(1, 10**5), slack=Fraction(1, 10**30), kind=Kind.GDP)
MOST, SAMPLES = BUDGET.limits()[0], BUDGET.samples()
TENTH = PrivacyCost((MOST // 10,), SAMPLES // 100)


def new(length: int = 6, kept: int = 4, budget: Budget = BUDGET) -> WindowFilter:
    return WindowFilter.of(budget, Window(length, kept))


@dataclass
class Everything:
    """The slow and obvious filter: all releases that there ever were, and all windows there can be."""

    window: Window
    releases: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    latest: int = 0

    def stretches(self, more: tuple[int, int, int] | None = None) -> list[tuple[int, int, int]]:
        """The first second of each, its mu^2 and its samples."""
        known = [*self.releases.values(), *([more] if more else [])]
        last = max((time for time, _, _ in known), default=0)
        found = []
        for first in range(-self.window.span, last + 1):
            inside = [(a, b) for time, a, b in known if first <= time < first + self.window.span]
            found.append((first, sum(a for a, _ in inside), sum(b for _, b in inside)))
        return found

    def most(self, more: tuple[int, int, int] | None = None) -> tuple[int, int]:
        found = self.stretches(more)
        return max(a for _, a, _ in found), max(b for _, _, b in found)

    def of_events(self, first: int) -> int:
        """mu^2 of the releases that may hold an event of the window from ``first`` on."""
        events = range(first, first + self.window.length)
        return sum(a for time, a, _ in self.releases.values() if any(self.window.may_hold(e, time) for e in events))


STEPS = st.lists(
    st.tuples(st.sampled_from(["reserve"] * 3 + ["commit", "abort"]), st.integers(0, 9), st.integers(0, 7)),
    max_size=40,
)


@settings(max_examples=60)
@given(STEPS, st.integers(1, 6), st.integers(1, 4))
def test_as_a_search_through_all_windows(steps: list[tuple[str, int, int]], length: int, kept: int) -> None:
    """What is allowed, the most that any window came to, and what counts now: of the filter and of the auditor."""
    spent, time = new(length, kept), 0
    slow, auditor = (
        Everything(spent.window),
        verify_ledger.Windows({"length": length, "kept": kept, "start": 0, "every": 1}),
    )
    for number, (step, which, more) in enumerate(steps):
        names = sorted(spent.open)
        if step == "reserve":
            time, cost = time + which // 3, PrivacyCost((MOST * more // 20,), SAMPLES * which // 30)
            charge = time, MOST * more // 20, cost.samples
            fits = slow.most(charge)[0] <= MOST and slow.most(charge)[1] <= SAMPLES
            if fits:
                spent = spent.reserve(name := str(number), cost, time)
                slow.releases[name] = charge
                auditor.reserve(name, time)
                auditor.charge(name, charge[1:])
            else:
                with pytest.raises(BudgetError):
                    spent.reserve(str(number), cost, time)
                time = max([0, *auditor.times])
        elif names:
            name = names[which % len(names)]
            then, moved, samples = slow.releases[name]
            charge = (then, moved * more // 7, samples * more // 7) if step == "commit" else (then, 0, 0)
            cost = PrivacyCost((charge[1],), charge[2])
            spent = spent.commit(name, cost) if step == "commit" else spent.abort(name)
            slow.releases[name] = charge
            auditor.charge(name, charge[1:])
        most = slow.most()
        assert spent.total == PrivacyCost((most[0],), most[1])
        assert auditor.most() == most
        now = [(a, b) for first, a, b in slow.stretches() if first + length + kept - 1 == spent.latest]
        assert spent.now == PrivacyCost((now[0][0],), now[0][1])
        assert all(slow.of_events(first) <= MOST for first in range(-length, time + 1))


def test_what_is_charged_comes_back_after_length_and_kept() -> None:
    """To the second, and the limit to the unit."""
    full = PrivacyCost((MOST,), 1)
    spent = new().reserve("a", full, 100).commit("a", full)
    for time in (100, 109):
        with pytest.raises(BudgetError, match=r"the budget allows 2; room at second 110$"):
            spent.reserve("b", PrivacyCost((1,), 0), time)
    again = spent.reserve("b", full, 110)
    assert again.total == full
    assert (again.reached_at(110), again.reached_at(119), again.reached_at(120)) == (again.reached, again.reached, 0)
    assert (again.room_at(full, 0), again.room_at(full, 115), again.room_at(full, 130)) == (120, 120, 130)
    with pytest.raises(BudgetError, match=r"the budget allows 2$"):
        again.reserve("c", PrivacyCost((MOST + 1,), 0), 500)
    with pytest.raises(BudgetError):
        again.room_at(PrivacyCost((MOST + 1,), 0), 500)


def test_an_event_is_in_no_release_of_two_stretches() -> None:
    """A window of 6 seconds whose events are kept for 4: its first event can be in a release of second 0, its last one
    in a release of second 8. So releases 9 seconds apart would do; 10 are asked for."""
    window = Window(length=6, kept=4)
    held = [time for time in range(20) if any(window.may_hold(event, time) for event in range(6))]
    assert (held[0], held[-1], window.span) == (0, 8, 10)


def test_control_an_event_that_is_kept_too_long_is_in_more_than_its_budget() -> None:
    """What a client must not do: with events that stay in its buffer a window is in twice as many sums."""
    promised, real = Window(length=6, kept=4), Window(length=6, kept=14)
    spent, slow = WindowFilter.of(BUDGET, promised), Everything(real)
    for time in range(0, 40, 10):
        spent = spent.reserve(str(time), PrivacyCost((MOST,), 1), time)
        slow.releases[str(time)] = time, MOST, 1
    assert spent.total.amounts == (MOST,)
    assert slow.most()[0] == 2 * MOST


def test_times_never_go_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal ones are of one stretch. What was aborted has had its time, too. Control: without the check a stretch that
    is full would take more."""
    full = PrivacyCost((MOST,), 1)
    spent = new().reserve("a", full, 100).reserve("b", full, 110)
    with pytest.raises(BudgetError, match="goes back: there is one of second 110"):
        spent.reserve("c", TENTH, 109)
    with pytest.raises(BudgetError, match="goes back"):
        spent.abort("b").reserve("c", TENTH, 105)
    switch_off(monkeypatch, WindowFilter, "reserve", "time < self.latest")
    spent.abort("b").reserve("c", TENTH, 105)  # with "a" that is more than the budget


def test_out_of_order_and_long_after() -> None:
    """A reservation counts in full in every stretch that it is in, until it is settled, whenever that is."""
    spent = new().reserve("a", TENTH, 0).reserve("b", TENTH, 5).reserve("c", TENTH, 12)
    assert spent.total == TENTH + TENTH
    spent = spent.commit("c", TENTH).reserve("d", TENTH, 200).commit("d", TENTH)
    assert spent.total == TENTH + TENTH
    spent = spent.abort("b")
    assert spent.total == TENTH
    assert spent.commit("a", PrivacyCost((1,), 0)).total == TENTH
    assert [end for end, _ in spent.abort("a").ends] == [200]
    with pytest.raises(UsageError, match="nothing is reserved"):
        spent.abort("b")


def test_a_commit_costs_no_more_than_its_reservation() -> None:
    spent = new().reserve("a", TENTH, 0)
    with pytest.raises(BudgetError, match="costs more"):
        spent.commit("a", PrivacyCost((MOST // 10 + 1,), 0))
    with pytest.raises(BudgetError, match="more samples"):
        spent.commit("a", PrivacyCost(TENTH.amounts, TENTH.samples + 1))
    with pytest.raises(UsageError, match="reserved already"):
        spent.reserve("a", TENTH, 7)
    with pytest.raises(UsageError, match="nothing is reserved"):
        spent.commit("b", TENTH)


def test_samples_come_back_too() -> None:
    """The samples of a stretch are those that its slack of delta is for."""
    spent = new().reserve("a", PrivacyCost((1,), SAMPLES), 0)
    with pytest.raises(BudgetError, match="samples"):
        spent.reserve("b", PrivacyCost((1,), 1), 9)
    assert spent.room_at(PrivacyCost((1,), 1), 3) == 10
    spent.reserve("b", PrivacyCost((1,), 1), 10)


def test_the_budget_is_one_for_as_many_sums_as_a_stretch_has() -> None:
    """Of one budget every hour's sum may take this part, for ever; and no more."""
    window = Window(length=7 * 86_400, kept=86_400, start=5, every=3600)
    part = PrivacyCost((MOST // window.most_releases,), 1)
    spent = WindowFilter.of(BUDGET, window)
    for number in range(2 * window.most_releases + 3):
        spent = spent.reserve(str(number), part, window.time_of(number)).commit(str(number), part)
    assert spent.total.amounts[0] == window.most_releases * (MOST // window.most_releases)
    with pytest.raises(BudgetError):
        spent.reserve("more", part, spent.latest)
    assert (window.number_at(5), window.number_at(window.time_of(9) - 1)) == (0, 8)
    with pytest.raises(UsageError, match="first sum"):
        window.number_at(4)


@pytest.mark.long
def test_a_hundred_thousand_releases() -> None:
    """A stretch of a thousand: what is kept of them is what the stretch has."""
    part, spent = PrivacyCost((MOST // 1000,), 1), new(600, 400)
    for time in range(100_000):
        spent = spent.reserve(str(time), part, time).commit(str(time), part)
    assert (len(spent.recent), len(spent.ends), spent.total.amounts[0]) == (1000, 1, 1000 * (MOST // 1000))


@pytest.mark.parametrize("wrong", [{"length": 0}, {"kept": 0}, {"start": -1}, {"every": 0}, {"length": 1 << 41}])
def test_windows_that_are_none(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="whole seconds"):
        Window(**{"length": 1, "kept": 1, **wrong})


def test_only_mu_squared_is_added_up_window_by_window() -> None:
    """A schedule is one reservation for good; of divergences each stretch would have room at another order."""
    for kind in (Kind.SCHEDULE, Kind.RENYI):
        with pytest.raises(UsageError, match="kind gdp"):
            WindowFilter.of(Budget(Fraction(2), Fraction(1, 10**5), Fraction(0), kind=kind), Window(1, 1))


def _let_in(events: list[int], most: int, seconds: int) -> list[int]:
    """A cap that counts the events that it let in, as one would write it."""
    found: list[int] = []
    for event in events:
        if sum(event - seconds < one for one in found) < most:
            found.append(event)
    return found


def _newest(window: Window, events: list[int], time: int, most: int) -> list[int]:
    return [event for event in events if window.may_hold(event, time)][-most:]


def test_what_decides_which_events_are_there_counts_too() -> None:
    """One event every 9 seconds, and one more before them. Under a cap of one in ten seconds it decides for ever which
    of the others are there; among the newest one that a sum may hold it is forgotten with its time."""
    window, events = Window(length=10, kept=20), list(range(9, 3000, 9))
    caps = [_let_in([*more, *events], 1, 10) for more in ([], [0])]
    times = range(30, 3000)
    assert any(window.may_hold(event, time) for time in times[-20:] for event in {*caps[0]} ^ {*caps[1]})
    read = [[_newest(window, [*more, *events], time, 1) for time in times] for more in ([], [0])]
    assert read[0] == read[1]


# What one window moves


def _contribution(events: Any, clip: float = 1.0) -> Any:
    """What a client sends that cuts to one norm all that it has."""
    total = np.sum(events, axis=0) if len(events) else np.zeros(2)
    return total * min(1.0, clip / max(float(np.linalg.norm(total)), 1e-300))


def test_events_that_vanish_beside_others_move_a_contribution_by_two_norms() -> None:
    """So one norm, that of zero-out, is not what the events of a window move, and a unit that comes or goes cannot be
    had. All that the person contributes, zeroed, moves it by one."""
    other, window = [[1.0, 0.0]], [[-9.0, 0.0]]
    whole, without = _contribution(other + window), _contribution(other)
    assert np.linalg.norm(whole - without) == pytest.approx(2.0)
    assert np.linalg.norm(whole) == pytest.approx(1.0)
    for trust in (Trust.CENTRAL, Trust.LOCAL):
        with pytest.raises(UsageError, match="replace-one"):
            Guarantee(Unit.USER_WINDOW, Relation.ADD_OR_REMOVE, trust)
    assert Guarantee(Unit.USER_WINDOW, Relation.REPLACE_ONE, Trust.DISTRIBUTED, Holder.SILO).relation.stretch == 2


def test_epsilon_of_what_counts() -> None:
    spent = new().reserve("a", TENTH, 0).reserve("b", TENTH, 8)
    alone = new().reserve("a", TENTH, 0)
    assert spent.reached_at(9) == spent.reached
    assert spent.reached_at(10) == alone.reached != spent.reached
    assert spent.reached_at(18) == 0
    assert 0 < (spent.reached or 0) <= 2 * RESOLUTION
