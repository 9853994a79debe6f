"""Ledgers of clients that take turns: what each is charged follows from the numbers of sums, and both auditors see it.

The invariant: whoever keeps the ledger and signs what it likes, no client is charged less than for all sums in it that
its data can be in.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from dp import verify_ledger
from dp.accountants import gdp
from dp.events import Guarantee, Relation
from dp.filter import RESOLUTION, Budget, Kind, PrivacyCost
from dp.ledger import Ledger, Steps
from dp.ledger.entries import cost_of, parse
from dp.ledger.file import read
from dp.ledger.state import LedgerState, Row, replay
from dp.ledger.verify import book
from dp.secure_sum import SecureSum
from dp.turns import Turns
from dp.verify_ledger import Given, statement
from secagg.errors import BudgetError, UsageError
from tests.controls import switch_off
from tests.scenes import ledger as scene
from tests.scenes.ledger import (
    KEY,
    TURNS,
    exported,
    forged,
    new,
    ours,
    signature_in,
    signed,
    theirs,
    turn,
    turn_happened,
)

COST = cost_of(turn(), scene.USER, Kind.GDP)
MOVED = COST.amounts[0] or 0
ROOM = Budget(Fraction(30), Fraction(1, 10), slack=Fraction(1, 10**3), kind=Kind.GDP)


def budget_of(turns: int) -> Budget:
    """Room for so many turns of each client, and not for one more."""
    delta, slack = Fraction(1, 10**5), Fraction(1, 10**8)
    epsilon = gdp.least_epsilon(Fraction(turns * MOVED, RESOLUTION), delta - slack)
    found = Budget(Fraction(epsilon, RESOLUTION), delta, slack, kind=Kind.GDP)
    assert turns * MOVED <= found.limits()[0] < (turns + 1) * MOVED
    return found


def both(rows: list[Row]) -> str:
    one, other = ours(rows), theirs(rows)
    assert bool(one) == bool(other), (one, other)
    return one


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("honest") / "ledger.db"
    ledger = new(path, budget=ROOM, turns=TURNS)
    for number in range(3):
        ledger.reserve(turn(number))
        ledger.commit(turn_happened(number))
    ledger.close()
    return path


@pytest.fixture
def rows(honest: Path) -> list[Row]:
    return read(honest)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Room for two turns of each client."""
    made = new(tmp_path / "ledger.db", budget=budget_of(2), turns=TURNS)
    yield made
    made.close()


def take(ledger: Ledger, number: int) -> None:
    ledger.reserve(turn(number))
    ledger.commit(turn_happened(number))


def test_the_same_epsilon_for_fewer_sums_of_each(ledger: Ledger) -> None:
    """Of three sums over ten of fifteen each client is in two. A fourth would be the third for ten of them."""
    for number in range(3):
        take(ledger, number)
        assert ledger.spent.amounts == (MOVED * (1 if number == 0 else 2),)
    assert ledger.epsilon == pytest.approx(float(ledger.budget.epsilon), rel=1e-9)
    with pytest.raises(BudgetError, match=r"client client-\d+: with this release"):
        ledger.reserve(turn(3))
    with pytest.raises(BudgetError, match="client"):
        ledger.check(turn(3))
    assert both(read_open(ledger)) == ""


def read_open(ledger: Ledger) -> list[Row]:
    ledger.close()
    return read(ledger.path)


def test_control_everybody_is_charged_without_turns(tmp_path: Path) -> None:
    ledger = new(tmp_path / "plain.db", budget=budget_of(2))
    take(ledger, 0)
    take(ledger, 1)
    with pytest.raises(BudgetError, match="epsilon could reach"):
        ledger.reserve(turn(2))
    ledger.close()


def test_what_is_charged_after_a_restart(ledger: Ledger) -> None:
    take(ledger, 0)
    ledger.reserve(turn(1))
    before = ledger.epsilon
    ledger.close()
    again = Ledger.open(ledger.path, KEY)
    assert again.turns == TURNS
    assert again.epsilon == before
    again.commit(turn_happened(1))
    again.commit(turn_happened(1))  # the same bytes, charged once
    again.reserve(turn(1))
    assert again.spent.amounts == (2 * MOVED,)
    again.close()


def test_a_missed_turn_is_charged(ledger: Ledger) -> None:
    """All whose turn it is: those that never advertised, and those that dropped out."""
    ledger.reserve(turn(0))
    gone = replace(turn_happened(0), survivors=8, bitmap=(255).to_bytes(2, "little"), signatures=())
    ledger.commit(signed(gone, [int(name.removeprefix("client-")) for name in TURNS.cohort(0)][:2]))
    spent = ledger._known.filter.each  # type: ignore[union-attr]
    charged = {name for name, one in spent.items() if one.spent.amounts != (0,)}
    assert charged == set(TURNS.cohort(0))


def test_what_was_aborted_is_given_back_to_those_whose_turn_it_was(ledger: Ledger) -> None:
    take(ledger, 0)
    ledger.reserve(turn(1))
    ledger.abort(turn(1), "too few")
    assert ledger.spent.amounts == (MOVED,)
    ledger.reserve(turn(1, session=b"another session "))
    assert both(read_open(ledger)) == ""


def test_one_number_is_one_plan(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another plan, or another session, of a number that is on record: reserved or committed."""
    other = turn(0, session=b"another session ")
    ledger.reserve(turn(0))
    assert ledger.number_taken(other)
    assert not ledger.number_taken(turn(0))
    assert not ledger.number_taken(turn(1))
    for _ in range(2):
        with pytest.raises(BudgetError, match="on record under another plan"):
            ledger.reserve(other)
        ledger.commit(turn_happened(0))
    switch_off(monkeypatch, LedgerState, "_members", "self.number_taken(what)")
    ledger.reserve(other)


def test_what_a_keeper_cannot_make_of_two_sums_with_one_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        switch_off(patch, LedgerState, "_members", "self.number_taken(what)")
        ledger = new(tmp_path / "twice.db", budget=ROOM, turns=TURNS)
        for session in (bytes(16), b"another session "):
            ledger.reserve(turn(0, session=session))
            ledger.commit(turn_happened(0, turn(0, session=session)))
        rows = read_open(ledger)
    assert "on record under another plan" in both(rows)
    assert "on record under another plan" in theirs(rows)
    switch_off(monkeypatch, verify_ledger.Audit, "charge", "not taken", "True")
    assert theirs(rows) == ""


def test_numbers_may_be_left_out(ledger: Ledger) -> None:
    """Whose turn a number is, is fixed: whoever leaves some out spends others' budgets, and no less of them."""
    take(ledger, 5)
    take(ledger, 2)
    with pytest.raises(BudgetError, match="client"):
        take(ledger, 8)  # the same ten as 2 and 5
    assert TURNS.cohort(2) == TURNS.cohort(5) == TURNS.cohort(8)
    assert both(read_open(ledger)) == ""


def sums_of(bodies: list[dict[str, Any]], number: int) -> Iterator[dict[str, Any]]:
    return (body["sum"] for body in bodies if body.get("sum", {}).get("round") == number)


def move(bodies: list[dict[str, Any]]) -> None:
    """What was summed under number 0 is said to be of number 1."""
    for facts in list(sums_of(bodies, 1)):
        facts["round"] = 7
    for facts in list(sums_of(bodies, 0)):
        facts["round"] = 1


CHANGES: dict[str, Callable[[list[dict[str, Any]]], object]] = {
    "another number of the same clients": lambda bodies: [one.update(round=3) for one in sums_of(bodies, 0)],
    "another number": lambda bodies: [one.update(round=2) for one in sums_of(bodies, 0)],
    "another number and its roster": lambda bodies: [
        one.update(round=4, roster=TURNS.roster(4).hex()) for one in sums_of(bodies, 0)
    ],
    "another roster": lambda bodies: [one.update(roster=TURNS.roster(1).hex()) for one in sums_of(bodies, 0)],
    "two numbers exchanged": move,
    "another beacon": lambda bodies: bodies[0]["turns"].update(beacon=b"dusk".hex()),
    "a larger cohort": lambda bodies: bodies[0]["turns"].update(size=11),
    "a smaller cohort": lambda bodies: bodies[0]["turns"].update(size=9),
    "a name that was added": lambda bodies: bodies[0]["turns"].update(
        names=[*bodies[0]["turns"]["names"], "late"], keys=[*bodies[0]["turns"]["keys"], scene.signer(99).public.hex()]
    ),
    "a name that was taken away": lambda bodies: bodies[0]["turns"].update(
        names=bodies[0]["turns"]["names"][1:], keys=bodies[0]["turns"]["keys"][1:]
    ),
    "another key": lambda bodies: bodies[0]["turns"]["keys"].__setitem__(0, scene.signer(99).public.hex()),
    "two keys exchanged": lambda bodies: bodies[0]["turns"].update(keys=bodies[0]["turns"]["keys"][::-1]),
    "fewer clients planned": lambda bodies: [one.update(planned=9) for one in sums_of(bodies, 0)],
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_the_keeper_may_not_say(rows: list[Row], change: str) -> None:
    """It signs its lie. Both auditors see that a sum is not over those whose turn it would be."""
    assert both(rows) == ""
    assert both(forged(rows, CHANGES[change])), change


def test_a_number_that_is_not_that_of_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cohorts of 0 and 3 are the same, so roster and signers fit. The number is in the plan, which is signed: it is
    read there. Control: without that the ledger is whole."""
    assert TURNS.roster(0) == TURNS.roster(3)
    ledger, moved = new(tmp_path / "moved.db", budget=ROOM, turns=TURNS), replace(turn(0), round=3)
    with pytest.raises(BudgetError, match="another number or roster in its plan"):
        ledger.reserve(moved)
    with monkeypatch.context() as patch:
        switch_off(patch, Turns, "charged", "said(what.plan) != what.round.to_bytes(4, 'big') + what.roster")
        ledger.reserve(moved)
        ledger.commit(turn_happened(3, moved))
        rows = read_open(ledger)
        assert ours(rows) == ""
    assert "another number or roster in its plan" in both(rows)
    switch_off(
        monkeypatch,
        verify_ledger,
        "charged_over",
        "plan[begins : begins + 36] == number.to_bytes(4, 'big') + roster",
        "True",
    )
    assert theirs(rows) == ""


def lying_signer(rows: list[Row], name: str, key: int) -> list[Row]:
    """In sum 1 somebody else has signed, as what it is said to be called."""

    def change(bodies: list[dict[str, Any]]) -> None:
        facts = next(body["sum"] for body in bodies if body["phase"] == "commit" and body["sum"]["round"] == 1)
        facts["signatures"][0] = signature_in(facts, name, scene.signer(key))

    return forged(rows, change)


def test_signers_whose_turn_it_is_not(rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    """The signature itself is good: of a client of the roster under its own name, of one under another's, of a
    stranger under a client's. Control: without the check both auditors go along."""
    idle = next(name for name in TURNS.names if name not in TURNS.cohort(1))
    here = TURNS.cohort(1)[0]
    lies = [
        lying_signer(rows, idle, int(idle.removeprefix("client-"))),
        lying_signer(rows, here, int(idle.removeprefix("client-"))),
        lying_signer(rows, here, 99),
    ]
    for lie in lies:
        assert "not its turn, or not its key" in both(lie)
        assert "not its turn, or not its key" in theirs(lie)
    switch_off(monkeypatch, Turns, "check_signers", "members.get(one.name) != one.key")
    switch_off(monkeypatch, verify_ledger, "charged_over", "members.get(one['name']) == one['key']", "True")
    for lie in lies:
        assert both(lie) == ""


def test_less_is_not_said_to_be_spent(rows: list[Row]) -> None:
    """What the dearest client has spent is summed up again."""
    number = len(rows) - 1
    wrong = forged(rows, lambda bodies: bodies[number].update(total=[MOVED]))
    assert "altered" in both(wrong)
    assert "the sums are wrong" in theirs(wrong)


def test_turns_that_are_forgotten_or_made_up(rows: list[Row], tmp_path: Path) -> None:
    """Without the genesis' word everybody is charged, and the totals of the entries are too small."""
    assert both(forged(rows, lambda bodies: bodies[0].update(turns=None)))
    ledger = new(tmp_path / "plain.db", budget=ROOM)
    for number in range(3):
        take(ledger, number)
    made_up = parse(rows[0][0])["turns"]
    assert both(forged(read_open(ledger), lambda bodies: bodies[0].update(turns=made_up)))


def test_only_sums_and_only_zero_out(ledger: Ledger, rows: list[Row], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="only secure sums"):
        ledger.reserve(Steps("one", turn().release(scene.USER), samples=10**6))
    other = Guarantee(scene.USER.unit, Relation.REPLACE_ONE, scene.USER.trust)
    with pytest.raises(UsageError, match="zero"):
        new(tmp_path / "other.db", budget=ROOM, guarantee=other, turns=TURNS)
    with pytest.raises(UsageError, match="the kind is gdp"):
        new(tmp_path / "other.db", turns=TURNS)
    assert both(forged(rows, lambda bodies: bodies[0].update(relation="replace-one")))


def test_steps_of_those_who_take_turns(rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose they are, no number says. Control: without the check they are charged to nobody."""
    ledger = new(tmp_path / "steps.db", budget=ROOM)
    ledger.charge(turn().release(scene.USER), samples=10**6)
    lie = forged(read_open(ledger), lambda bodies: bodies[0].update(turns=parse(rows[0][0])["turns"]))
    assert "only secure sums" in both(lie)
    assert "only secure sums" in theirs(lie)
    switch_off(monkeypatch, verify_ledger.Audit, "charge", "self.of_each is None", "True")
    assert "only secure sums" not in theirs(lie)


def test_room_is_asked_for_everybody(ledger: Ledger) -> None:
    take(ledger, 0)
    ledger.check_cost(PrivacyCost((MOVED,), COST.samples))
    with pytest.raises(BudgetError, match="client"):
        ledger.check_cost(PrivacyCost((2 * MOVED,), COST.samples))


def test_the_statement_says_what_epsilon_is(honest: Path, tmp_path: Path) -> None:
    shutil.copy(honest, tmp_path / "ledger.db")
    state = replay(read(tmp_path / "ledger.db"))
    audit = verify_ledger.Audit(KEY.public)
    assert list(verify_ledger.problems(exported(read(tmp_path / "ledger.db")), KEY.public, None, audit)) == []
    said = statement(book(state), Given(key=True))
    assert said == statement(audit.book(), Given(key=True))
    assert said["turns"].startswith("each sum is over the next 10 of 15 clients in a cyclic order")
    assert "those who take turns" in said["asserted"]


def test_the_map_is_that_of_the_cohorts(rows: list[Row]) -> None:
    """Each client's own sum, computed from the entries alone."""
    charged = dict.fromkeys(TURNS.names, 0)
    for body, _ in rows:
        entry = parse(body)
        if entry["phase"] == "commit":
            for name in TURNS.cohort(entry["sum"]["round"]):
                charged[name] += entry["cost"][0]
    state = replay(rows)
    assert {name: one.spent.amounts[0] for name, one in state.filter.each.items()} == charged  # type: ignore[union-attr]
    assert state.filter.total.amounts == (max(charged.values()),)
    assert isinstance(state.records[turn(0).plan_digest.hex()].happened, SecureSum)
