"""Ledgers of windows: what is charged to the events of one window follows from the numbers of sums, and both auditors
see it.

The invariant: whoever keeps the ledger and signs what it likes, no window is charged less than for all releases in it
that may hold its events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from dp import verify_ledger
from dp.accountants import gdp
from dp.events import Everyone, Gaussian, Guarantee, Holder, Relation, Release, Trust, Unit
from dp.filter import RESOLUTION, Budget, Kind
from dp.ledger import Ledger, Steps
from dp.ledger.entries import cost_of, parse
from dp.ledger.file import read
from dp.ledger.state import LedgerState, Row, replay
from dp.ledger.verify import book, verify
from dp.verify_ledger import Audit, Given, columns, problems, statement
from dp.window_filter import WindowFilter
from dp.windows import Window
from secagg.errors import BudgetError, UsageError
from tests.controls import switch_off
from tests.scenes import ledger as scene
from tests.scenes.ledger import (
    KEY,
    WEEKLY,
    WINDOW,
    dated,
    dated_happened,
    exported,
    forged,
    new,
    ours,
    theirs,
)

WORST, COST = (cost_of(what, WEEKLY, Kind.GDP) for what in (dated().worst(), dated_happened()))
MOVED = COST.amounts[0] or 0
DAY = 86_400


def budget_of(releases: int) -> Budget:
    """Room for so many sums that happened and one that is planned in a stretch, and not for one more."""
    delta, slack, moved = Fraction(1, 10**5), Fraction(1, 10**8), (releases - 1) * MOVED + (WORST.amounts[0] or 0)
    epsilon = gdp.least_epsilon(Fraction(moved, RESOLUTION), delta - slack)
    return Budget(Fraction(epsilon, RESOLUTION), delta, slack, kind=Kind.GDP)


ROOM = Budget(Fraction(30), Fraction(1, 10), slack=Fraction(1, 10**3), kind=Kind.GDP)


def both(rows: list[Row]) -> str:
    one, other = ours(rows), theirs(rows)
    assert bool(one) == bool(other), (one, other)
    return one


def rows_of(ledger: Ledger) -> list[Row]:
    ledger.close()
    return read(ledger.path)


def take(ledger: Ledger, *numbers: int) -> None:
    for number in numbers:
        ledger.reserve(dated(number))
        ledger.commit(dated_happened(number))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Room for two sums in a stretch, which is as many as there are in a row."""
    made = new(tmp_path / "ledger.db", budget=budget_of(2), guarantee=WEEKLY, window=WINDOW)
    yield made
    made.close()


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("honest") / "ledger.db"
    made = new(path, budget=ROOM, guarantee=WEEKLY, window=WINDOW)
    take(made, 0, 1, 2, 3)
    made.reserve(dated(4))
    made.abort(dated(4), "too few")
    made.reserve(dated(5))
    made.close()
    return path


@pytest.fixture
def rows(honest: Path) -> list[Row]:
    return read(honest)


def test_the_budget_comes_back_for_ever(ledger: Ledger) -> None:
    take(ledger, *range(8))
    assert ledger.epsilon_at(WINDOW.time_of(7)) == ledger.epsilon < float(ledger.budget.epsilon)
    assert ledger.epsilon_at(WINDOW.time_of(9)) == 0
    with pytest.raises(BudgetError, match=f"room at second {WINDOW.time_of(8)}$"):
        ledger.reserve(dated(7, b"another session "))
    assert ledger.room_at(WORST, WINDOW.time_of(7)) == WINDOW.time_of(8)
    with pytest.raises(BudgetError, match="room at second"):
        ledger.check(dated(7, b"another session "))
    with pytest.raises(BudgetError, match="room at second"):
        ledger.check_cost(WORST)
    take(ledger, 8)
    assert ledger.spent == COST + COST
    assert both(rows_of(ledger)) == ""


def test_control_no_budget_comes_back_for_all_that_a_person_does(tmp_path: Path) -> None:
    made = new(tmp_path / "ledger.db", budget=budget_of(2))
    take(made, 0, 1)
    with pytest.raises(BudgetError, match=r"the budget allows \d+\.?\d*$"):
        made.reserve(dated(2))
    for asked in (lambda: made.epsilon_at(0), lambda: made.room_at(COST, 0)):
        with pytest.raises(UsageError, match="does not come back"):
            asked()
    made.close()


def test_numbers_never_go_back(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor after a restart. Equal ones are charged to one stretch, and what was left out stays left out."""
    take(ledger, 3)
    before = ledger.epsilon
    ledger.close()
    again = Ledger.open(ledger.path, KEY)
    assert (again.window, again.epsilon) == (WINDOW, before)
    with pytest.raises(BudgetError, match="goes back"):
        again.reserve(dated(2))
    again.reserve(dated(3, b"another session "))
    with pytest.raises(BudgetError, match="room at second"):
        again.reserve(dated(4))
    again.abort(dated(3, b"another session "), "too few")
    again.reserve(dated(4))
    again.close()


def test_what_a_keeper_cannot_make_of_sums_that_went_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """4 and 5 are of one stretch, and so would 5 and 6 be: a filter that only looks back sees no stretch with 6."""
    with monkeypatch.context() as patch:
        switch_off(patch, WindowFilter, "reserve", "time < self.latest")
        made = new(tmp_path / "back.db", budget=ROOM, guarantee=WEEKLY, window=WINDOW)
        take(made, 6, 4, 5)
        rows = rows_of(made)
    assert "goes back" in both(rows)
    assert "goes back in time" in theirs(rows)
    switch_off(monkeypatch, verify_ledger.Windows, "reserve", "not self.times or time >= self.times[-1]", "True")
    assert "goes back in time" not in theirs(rows)


def test_more_than_a_stretch_has_room_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sums that are a second too near. A keeper whose own filter forgets them too early says less than there is;
    one that says what there is, is over the budget. When they are a second farther apart there is room."""
    small, near = budget_of(1), replace(WINDOW, every=8 * DAY - 1)
    with monkeypatch.context() as patch:
        switch_off(patch, WindowFilter, "_still", "time - self.window.span", "time - self.window.span + 1")
        made = new(tmp_path / "full.db", budget=small, guarantee=WEEKLY, window=near)
        take(made, 0, 1)
        rows = rows_of(made)
    assert "room at second" in both(rows)
    assert "the sums are wrong" in theirs(rows)
    made = new(tmp_path / "large.db", budget=replace(small, epsilon=Fraction(30)), guarantee=WEEKLY, window=near)
    take(made, 0, 1)
    begun = parse(rows[0][0])
    over = forged(rows_of(made), lambda bodies: bodies[0].update(begun))
    assert "room at second" in both(over)
    assert "exceeds the budget" in theirs(over)
    made = new(tmp_path / "fits.db", budget=small, guarantee=WEEKLY, window=replace(WINDOW, every=8 * DAY))
    take(made, 0, 1)
    assert both(rows_of(made)) == ""


def test_a_number_that_is_not_that_of_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A keeper that says a later one, so that the budget comes back, or that lets its plan end before the number."""
    lies = [replace(dated(0), round=9), dated(0, plan=b"short", plan_digest=scene.digest(scene.labels.PLAN, b"short"))]
    made = new(tmp_path / "moved.db", budget=ROOM, guarantee=WEEKLY, window=WINDOW)
    for lie in lies:
        with pytest.raises(BudgetError, match="another number in its plan"):
            made.reserve(lie)
    with monkeypatch.context() as patch:
        switch_off(patch, Window, "charged_at", "said(what.plan)[:4] != what.round.to_bytes(4, 'big')")
        for lie in reversed(lies):
            made.reserve(lie)
        rows = rows_of(made)
        assert ours(rows) == ""
    assert "another number in its plan" in both(rows)
    assert theirs(rows).count("another number in its plan") == 2
    number = "plan[begins:begins + 4] == facts['round'].to_bytes(4, 'big')"
    switch_off(monkeypatch, verify_ledger.Windows, "time_of", number, "True")
    assert theirs(rows) == ""


def of(bodies: list[dict[str, Any]], number: int) -> Iterator[dict[str, Any]]:
    return (body for body in bodies if body.get("sum", {}).get("round") == number)


CHANGES: dict[str, Callable[[list[dict[str, Any]]], object]] = {
    "a later time of all of a sum": lambda bodies: [one.update(time=one["time"] + 9 * DAY) for one in of(bodies, 3)],
    "a second more": lambda bodies: [one.update(time=one["time"] + 1) for one in of(bodies, 3)],
    "no time": lambda bodies: [one.update(time=None) for one in of(bodies, 3)],
    "another time at its commit": lambda bodies: [one.update(time=one["time"] + 1) for one in [*of(bodies, 3)][1:]],
    "a shorter window": lambda bodies: bodies[0]["window"].update(length=DAY),
    "events that are kept for less": lambda bodies: bodies[0]["window"].update(length=2 * DAY, kept=1),
    "numbers that are farther apart": lambda bodies: bodies[0]["window"].update(every=30 * DAY),
    "another start": lambda bodies: bodies[0]["window"].update(start=1),
    "no window": lambda bodies: bodies[0].update(window=None),
    "all that a person does": lambda bodies: bodies[0].update(unit="user"),
    "that, and no window": lambda bodies: bodies[0].update(unit="user", window=None),
    "persons who come or go": lambda bodies: bodies[0].update(relation="add-or-remove", trust="central"),
    "a total that has come back": lambda bodies: bodies[-1].update(total=[0]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_the_keeper_may_not_say(rows: list[Row], change: str) -> None:
    assert both(rows) == ""
    assert both(forged(rows, CHANGES[change])), change


def test_a_time_where_there_are_no_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = new(tmp_path / "plain.db")
    made.reserve(dated(0))
    lie = forged(rows_of(made), lambda bodies: bodies[1].update(time=1))
    assert both(lie)
    switch_off(monkeypatch, Audit, "charge", "self.windows is not None or body['time'] is None", "True")
    assert theirs(lie) == ""


# What one party releases


LOCAL = Guarantee(Unit.USER_WINDOW, Relation.REPLACE_ONE, Trust.CENTRAL)
STEP = Release(Gaussian(Fraction(4)), Everyone(), LOCAL)


def test_steps_say_their_time(tmp_path: Path) -> None:
    made = new(tmp_path / "steps.db", budget=replace(ROOM, epsilon=Fraction(5)), guarantee=LOCAL, window=WINDOW)
    made.charge(STEP, 2, time=50)
    for wrong in (None, -1, 1 << 74):
        with pytest.raises(UsageError, match="time"):
            made.charge(STEP, time=wrong)
    with pytest.raises(BudgetError, match="goes back"):
        made.charge(STEP, time=49)
    made.charge(STEP, 5, time=50 + 8 * DAY)
    whole = made.budget.limits()[0] // (RESOLUTION // 4)
    with pytest.raises(BudgetError, match=f"room at second {50 + 16 * DAY}$"):
        made.charge(STEP, whole, time=50 + 8 * DAY)
    made.reserve(Steps("open", STEP, time=60 + 8 * DAY))
    with pytest.raises(BudgetError, match="another time"):
        made.commit(Steps("open", STEP, time=61 + 8 * DAY))
    assert both(rows_of(made)) == ""
    plain = new(tmp_path / "plain.db", guarantee=replace(LOCAL, unit=Unit.USER))
    with pytest.raises(UsageError, match="nowhere else"):
        plain.charge(replace(STEP, guarantee=plain.guarantee), time=3)
    plain.close()


def test_a_commit_at_another_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would show up in another stretch than it was reserved in."""
    with monkeypatch.context() as patch:
        switch_off(patch, LedgerState, "commit", "self.time_of(what) != self.time_of(record.reserved)")
        made = new(tmp_path / "steps.db", budget=ROOM, guarantee=LOCAL, window=WINDOW)
        made.reserve(Steps("one", STEP, time=5))
        made.commit(Steps("one", STEP, time=6))
        rows = rows_of(made)
    lie = forged(rows, lambda bodies: bodies[2].update(time=6))
    assert "another time" in both(lie)
    assert "another time" in theirs(lie)
    switch_off(monkeypatch, Audit, "follow", "self.windows.time_of(body) == then", "True")
    assert theirs(lie) == ""


def test_what_a_budget_for_windows_is_not(tmp_path: Path) -> None:
    for wrong, said in [
        ({"guarantee": WEEKLY}, "says how long"),
        ({"window": WINDOW}, "says how long"),
        ({"guarantee": WEEKLY, "window": WINDOW, "budget": scene.BUDGET}, "the kind is gdp"),
        ({"window": WINDOW, "turns": scene.TURNS, "guarantee": WEEKLY}, "and not of both"),
        ({"window": WINDOW, "arrivals": scene.ARRIVALS, "guarantee": WEEKLY}, "and not of both"),
    ]:
        with pytest.raises(UsageError, match=said):
            new(tmp_path / "none.db", **{"budget": ROOM, **wrong})


BEGINNINGS: dict[str, tuple[dict[str, Any], str]] = {
    "with turns": ({}, "of kind gdp that clients do not have"),
    "with arrivals": ({}, "of kind gdp that clients do not have"),
    "of another kind": ({}, "of kind gdp that clients do not have"),
    "without a window": ({"window": None}, "a unit of its own"),
    "of all that a person does": ({"unit": "user"}, "a unit of its own"),
    "of events that come and go": ({"relation": "add-or-remove", "trust": "central"}, "like another one: replace-one"),
    "too long": ({"window": {"length": 1, "kept": 1 << 41, "start": 0, "every": 1}}, "too many seconds"),
    "of no length": ({"window": {"length": 0, "kept": 1, "start": 0, "every": 1}}, "length of window is no count"),
    "of one field more": ({"window": {"length": 1, "kept": 1, "start": 0, "every": 1, "x": 1}}, "other fields"),
}


@pytest.mark.parametrize("case", BEGINNINGS)
def test_budgets_that_neither_auditor_takes(rows: list[Row], case: str, tmp_path: Path) -> None:
    change, said = BEGINNINGS[case]
    begun = rows[:1]
    if case.startswith("with "):
        of_each = {"turns": scene.TURNS, "arrivals": scene.ARRIVALS}
        name = case.removeprefix("with ")
        made = new(tmp_path / "clients.db", budget=ROOM, **{name: of_each[name]})
        change = {name: parse(rows_of(made)[0][0])[name]}
    if case == "of another kind":
        begun = rows_of(new(tmp_path / "renyi.db"))
        change = {"unit": "user-window", "window": parse(rows[0][0])["window"]}
    lie = forged(begun, lambda bodies: bodies[0].update(change))
    assert both(lie)
    assert said in theirs(lie)


def test_a_time_that_is_not_that_of_the_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one sum alone: its total is the same, whenever it was."""
    made = new(tmp_path / "one.db", budget=ROOM, guarantee=WEEKLY, window=WINDOW)
    take(made, 0)
    rows = rows_of(made)
    lie = forged(rows, lambda bodies: [one.update(time=one["time"] + 1) for one in bodies[1:]])
    assert both(lie)
    assert "not that of the number" in theirs(lie)
    follows = "time == self.start + facts['round'] * self.every"
    switch_off(monkeypatch, verify_ledger.Windows, "time_of", follows, "True")
    assert theirs(lie) == ""


def test_steps_of_no_time(tmp_path: Path) -> None:
    made = new(tmp_path / "steps.db", budget=ROOM, guarantee=LOCAL, window=WINDOW)
    made.charge(STEP, time=5)
    rows = rows_of(made)
    for time in (None, 1 << 74):
        lie = forged(rows, lambda bodies, time=time: [one.update(time=time) for one in bodies[1:]])
        assert both(lie)
        assert "is of no time" in theirs(lie)


# What is said


def stated(rows: list[Row]) -> dict[str, str]:
    given, audit = Given(key=True), Audit(KEY.public)
    assert list(problems(exported(rows), KEY.public, None, audit)) == []
    found = statement(audit.book(), given)
    assert statement(book(verify(rows, KEY.public)), given) == found
    return found


def test_what_is_stated(rows: list[Row]) -> None:
    """How long, what counts now, and when it comes back: sum 5, which is open, is the last; 4 was aborted."""
    said = stated(rows)
    assert said["unit"] == "user-window: all events of one person within 7 days"
    assert said["relation"].startswith("zero-out: all becomes zero that this person contributes to releases which may")
    state = replay(rows)
    assert isinstance(state.filter, WindowFilter)
    last, first = WINDOW.time_of(5), WINDOW.time_of(5) + WINDOW.span
    now = verify_ledger.upwards(Fraction(state.filter.reached_at(last) or 0, RESOLUTION), 4)
    assert f"at second {last}, that of the latest release, epsilon {now} counts" in said["window"]
    assert f"comes back at second {first}, and all by second {first}" in said["window"]
    assert "releases less than 8 days apart" in said["window"]
    assert "for all that a person does nothing is promised" in said["window"]
    assert "forgets events in time" in said["not shown"]
    assert "which second is that of a sum's number" in said["asserted"]


def test_what_is_stated_of_steps_and_of_nothing(tmp_path: Path) -> None:
    made = new(tmp_path / "steps.db", budget=ROOM, guarantee=LOCAL, window=replace(WINDOW, length=90))
    nothing = stated(rows_of(made))
    assert "latest" not in nothing["window"]
    made = Ledger.open(made.path, KEY)
    made.charge(STEP, time=3)
    said = stated(rows_of(made))
    assert said["unit"].endswith("within 90 seconds")
    assert "mechanism, sampling, time and number of 1 step" in said["asserted"]
    assert said["relation"] == "replace-one: these events exchanged for others of the same person, or left out"


INSIDE = replace(WEEKLY, holder=Holder.SILO)


@pytest.mark.parametrize(
    ("relation", "overlap", "colluders"),
    [("zero-out", 0, 0), ("replace-one", 0, 1), ("zero-out", 1, 1), ("replace-one", 2, 0)],
)
def test_no_statement_speaks_of_a_user(relation: str, overlap: int, colluders: int, tmp_path: Path) -> None:
    """Whoever reads one, of devices or of silos, is promised nothing about all that a user does. The unit's own name is
    the one place in which the word stands."""
    guarantee = replace(WEEKLY if not overlap else INSIDE, relation=Relation(relation))
    noise = replace(scene.GAUSSIANS, colluders=colluders)
    made = new(tmp_path / "ledger.db", budget=ROOM, guarantee=guarantee, window=WINDOW)
    more = {"users": 200, "overlap": overlap} if overlap else {}
    for number in range(2):
        made.reserve(replace(dated(number), noise=noise, **more))
    made.commit(scene.signed(replace(dated_happened(0), noise=noise, **more), range(2)))
    said = stated(rows_of(made))
    text = "\n".join(columns(said))
    assert "user-window" in text
    assert "user" not in text.replace("user-window", "").lower()
    assert ("inside" in said["unit"]) == bool(overlap)
