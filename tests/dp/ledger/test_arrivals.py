"""Ledgers of sums over whoever was ready: who is charged follows from the names in the entries, which make the roster
that the plan has, and both auditors see it.

The invariant: whoever keeps the ledger, signs what it likes and decides who is in a sum, no client is charged less than
for all sums in it that its data can be in.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from dp import verify_ledger
from dp.accountants import gdp
from dp.arrivals import Arrivals
from dp.filter import RESOLUTION, Budget, Kind
from dp.ledger import Ledger, Steps
from dp.ledger.entries import cost_of, parse
from dp.ledger.file import read
from dp.ledger.state import Row, replay
from dp.ledger.verify import book, compare
from dp.verify_ledger import Given, statement
from secagg.errors import BudgetError, UsageError
from tests.controls import switch_off
from tests.scenes import ledger as scene
from tests.scenes.ledger import (
    ARRIVALS,
    KEY,
    TURNS,
    arrival_happened,
    arrived,
    exported,
    forged,
    new,
    ours,
    signature_in,
    theirs,
    turn,
)

NAMES = ARRIVALS.names
FIRST, LAST = NAMES[:10], NAMES[5:]
COST = cost_of(arrived(0, FIRST), scene.USER, Kind.GDP)
MOVED = COST.amounts[0] or 0
ROOM = Budget(Fraction(30), Fraction(1, 10), slack=Fraction(1, 10**3), kind=Kind.GDP)


def budget_of(most: int) -> Budget:
    """Room for so many sums of each client, and not for one more."""
    delta, slack = Fraction(1, 10**5), Fraction(1, 10**8)
    epsilon = gdp.least_epsilon(Fraction(most * MOVED, RESOLUTION), delta - slack)
    return Budget(Fraction(epsilon, RESOLUTION), delta, slack, kind=Kind.GDP)


def both(rows: list[Row]) -> str:
    one, other = ours(rows), theirs(rows)
    assert bool(one) == bool(other), (one, other)
    return one


def take(ledger: Ledger, number: int, names: tuple[str, ...], session: bytes = bytes(16)) -> None:
    what = arrived(number, names, session)
    ledger.reserve(what)
    ledger.commit(arrival_happened(what))


def closed(ledger: Ledger) -> list[Row]:
    ledger.close()
    return read(ledger.path)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    ledger = new(tmp_path_factory.mktemp("honest") / "ledger.db", budget=ROOM, arrivals=ARRIVALS)
    for number, names in enumerate((FIRST, LAST, FIRST)):
        take(ledger, number, names)
    return closed(ledger)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Room for two sums of each client."""
    made = new(tmp_path / "ledger.db", budget=budget_of(2), arrivals=ARRIVALS)
    yield made
    made.close()


def test_a_client_is_in_as_many_sums_as_its_budget_has_room_for(ledger: Ledger) -> None:
    """Nobody else is charged for them; of an aborted one it is given back, and one number may stand for two sums."""
    take(ledger, 0, FIRST)
    ledger.reserve(arrived(1, FIRST))
    ledger.abort(arrived(1, FIRST), "too few")
    take(ledger, 1, FIRST, b"another session ")
    with pytest.raises(BudgetError, match="client client-0: with this release"):
        ledger.reserve(arrived(2, FIRST))
    with pytest.raises(BudgetError, match="client"):
        ledger.check(arrived(2, LAST))
    spent = ledger._known.filter.each  # type: ignore[union-attr]
    assert {name: one.spent.amounts[0] for name, one in spent.items()} == {
        name: 2 * MOVED * (name in FIRST) for name in NAMES
    }
    assert ledger.epsilon == pytest.approx(float(ledger.budget.epsilon), rel=1e-9)
    ledger.close()
    again = Ledger.open(ledger.path, KEY)
    assert (again.of_each, again.turns) == (ARRIVALS, None)
    again.commit(arrival_happened(arrived(0, FIRST)))  # the same bytes, charged once
    assert again.spent.amounts == (2 * MOVED,)
    assert both(closed(again)) == ""


@pytest.mark.parametrize("seed", range(3))
def test_whoever_decides_who_comes_next(seed: int, tmp_path: Path) -> None:
    """A server that picks by what came before, greedily and at random, for as long as anything is allowed: the bound
    holds for each client, and equals a sum over the entries that name it."""
    chance, most = random.Random(seed), 3
    ledger = new(tmp_path / "ledger.db", budget=budget_of(most), arrivals=ARRIVALS)
    taken, number = dict.fromkeys(NAMES, 0), 0
    while number < 40:
        wanted = sorted(NAMES, key=lambda name: (-taken[name], chance.random()) if number % 2 else (chance.random(),))
        names = tuple(sorted(wanted[:10]))
        try:
            ledger.reserve(arrived(number, names))
        except BudgetError:
            assert max(taken[name] for name in names) == most
        else:
            for name in names:
                taken[name] += 1
        number += 1
    assert max(taken.values()) == most
    rows = closed(ledger)
    assert both(rows) == ""
    each = replay(rows).filter.each  # type: ignore[union-attr]
    assert {name: one.total.amounts[0] for name, one in each.items()} == {
        name: MOVED * count for name, count in taken.items()
    }


def sums_of(bodies: list[dict[str, Any]], number: int) -> Iterator[dict[str, Any]]:
    return (body["sum"] for body in bodies if body.get("sum", {}).get("round") == number)


def changed(number: int, **more: Any) -> Callable[[list[dict[str, Any]]], None]:
    def change(bodies: list[dict[str, Any]]) -> None:
        for one in sums_of(bodies, number):
            one.update(more)

    return change


LIES: dict[str, Callable[[list[dict[str, Any]]], object]] = {
    "others are named": changed(1, members=list(FIRST)),
    "one is left out": changed(1, members=list(LAST[1:])),
    "one is left out, and fewer are planned": changed(1, members=list(LAST[1:]), planned=9),
    "one is there twice": changed(1, members=[LAST[0], *LAST]),
    "one in another's place": changed(1, members=sorted([NAMES[0], *LAST[1:]])),
    "a stranger": changed(1, members=[*LAST[:-1], "zoe"]),
    "not in order": changed(1, members=list(LAST[::-1])),
    "nobody": changed(1, members=[]),
    "another number": changed(1, round=7),
    "another roster": changed(1, roster=arrived(0, FIRST).roster.hex()),
    "another roster and its members": changed(1, roster=arrived(0, FIRST).roster.hex(), members=list(FIRST)),
    "a larger buffer": lambda bodies: bodies[0]["arrivals"].update(size=11),
    "another key": lambda bodies: bodies[0]["arrivals"]["keys"].__setitem__(7, scene.signer(99).public.hex()),
    "a client less": lambda bodies: bodies[0]["arrivals"].update(
        names=list(NAMES[:-1]), keys=[key.hex() for key in ARRIVALS.keys[:-1]]
    ),
    "arrivals that are forgotten": lambda bodies: bodies[0].update(arrivals=None),
    "turns as well": lambda bodies: bodies[0].update(turns=parse_turns()),
    "less is said to be spent": lambda bodies: bodies[-1].update(total=[MOVED]),
}


def parse_turns() -> dict[str, Any]:
    return {
        "names": list(TURNS.names),
        "keys": [key.hex() for key in TURNS.keys],
        "beacon": TURNS.beacon.hex(),
        "size": TURNS.size,
    }


@pytest.mark.parametrize("lie", LIES)
def test_what_the_keeper_may_not_say(rows: list[Row], lie: str) -> None:
    """It signs its lie, and both auditors see it."""
    assert both(rows) == ""
    assert both(forged(rows, LIES[lie])), lie


def test_names_that_are_not_those_of_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The keeper names other clients than the plan that was signed, with their roster: its own state refuses to write
    it, and both auditors read the roster in the plan. Control: without that the ledger is whole."""
    ledger = new(tmp_path / "moved.db", budget=ROOM, arrivals=ARRIVALS)
    real, named = arrived(0, FIRST), arrived(0, LAST)
    moved = replace(real, members=named.members, roster=named.roster)
    with pytest.raises(BudgetError, match="another number or roster in its plan"):
        ledger.reserve(moved)
    with monkeypatch.context() as patch:
        switch_off(patch, Arrivals, "charged", "said(what.plan) != what.round.to_bytes(4, 'big') + what.roster")
        ledger.reserve(moved)
        rows = closed(ledger)
        assert ours(rows) == ""
    assert "another number or roster in its plan" in both(rows)
    agreed = "plan[begins : begins + 36] == number.to_bytes(4, 'big') + roster"
    switch_off(monkeypatch, verify_ledger, "charged_over", agreed, "True")
    assert theirs(rows) == ""


def test_a_roster_of_other_clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plan and roster are of some, and others are named. Control: without the comparison the library goes along."""
    ledger = new(tmp_path / "other.db", budget=ROOM, arrivals=ARRIVALS)
    lie = replace(arrived(0, FIRST), members=LAST)
    few = arrived(0, FIRST[:9])
    for what in (lie, few):
        with pytest.raises(BudgetError, match=r"not over the clients that it names|a sum is over 10 of the 15"):
            ledger.reserve(what)
    switch_off(monkeypatch, Arrivals, "charged", "what.planned != self.size or what.roster != roster_of(members)")
    ledger.reserve(lie)
    switch_off(monkeypatch, Arrivals, "members", "tuple(found) != names or len(names) != self.size")
    ledger.reserve(few)
    assert "not planned over the clients that are charged" in theirs(closed(ledger))


def test_signers_that_are_not_named(rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    """A client of the list that is not in the sum, one in another's name, a stranger. Control: without the check both
    auditors go along."""

    def lying(name: str, key: int) -> list[Row]:
        def change(bodies: list[dict[str, Any]]) -> None:
            facts = next(body["sum"] for body in bodies if body["phase"] == "commit" and body["sum"]["round"] == 1)
            facts["signatures"][0] = signature_in(facts, name, scene.signer(key))

        return forged(rows, change)

    idle, here = next(name for name in NAMES if name not in LAST), LAST[0]
    lies = [lying(idle, int(idle.removeprefix("client-"))), lying(here, 3), lying(here, 99)]
    for lie in lies:
        assert "it is not in it, or not its key" in both(lie)
        assert "it is not in it, or not its key" in theirs(lie)
    switch_off(monkeypatch, Arrivals, "check_signers", "members.get(one.name) != one.key")
    switch_off(monkeypatch, verify_ledger, "charged_over", "members.get(one['name']) == one['key']", "True")
    for lie in lies:
        assert both(lie) == ""


def test_who_is_listed_and_what_is_charged(ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="only secure sums"):
        ledger.reserve(Steps("one", turn().release(scene.USER), samples=10**6))
    with pytest.raises(UsageError, match="not both"):
        new(tmp_path / "both.db", budget=ROOM, turns=TURNS, arrivals=ARRIVALS)
    with pytest.raises(UsageError, match="the kind is gdp"):
        new(tmp_path / "kind.db", arrivals=ARRIVALS)
    for names, keys, size in (
        (NAMES[::-1], ARRIVALS.keys, 10),
        (NAMES, ARRIVALS.keys[:-1], 10),
        (NAMES, (ARRIVALS.keys[0], *ARRIVALS.keys[:-1]), 10),
        (NAMES, (b"short", *ARRIVALS.keys[1:]), 10),
        (NAMES, ARRIVALS.keys, 1),
        (NAMES, ARRIVALS.keys, 16),
    ):
        with pytest.raises(UsageError):
            Arrivals(names, keys, size)
    twice = replace(arrived(0, FIRST), users=4, overlap=2)
    with pytest.raises(UsageError, match="no two of them hold data of one user"):
        ARRIVALS.charged(twice)


def test_a_plain_ledger_names_nobody(tmp_path: Path) -> None:
    """Names of a whole roster would only be long; one that has them is of another kind, and refused. Two ledgers of one
    sum agree, whether it is named there or not."""
    plain, listed = new(tmp_path / "plain.db", budget=ROOM), new(tmp_path / "listed.db", budget=ROOM, arrivals=ARRIVALS)
    for one in (plain, listed):
        take(one, 0, FIRST)
    mine, theirs_too = closed(plain), closed(listed)
    assert [parse(body)["sum"]["members"] for body, _ in mine[1:]] == [[], []]
    assert compare(replay(theirs_too), replay(mine)) == 1
    assert both(forged(mine, changed(0, members=list(FIRST))))


def test_the_statement_says_who_is_charged(rows: list[Row]) -> None:
    audit = verify_ledger.Audit(KEY.public)
    assert list(verify_ledger.problems(exported(rows), KEY.public, None, audit)) == []
    said = statement(book(replay(rows)), Given(key=True))
    assert said == statement(audit.book(), Given(key=True))
    assert said["arrivals"].startswith("each sum is over 10 of 15 clients that were ready")
    assert "names and keys of those who may be in a sum" in said["asserted"]
