"""A budget for one schedule: the whole is reserved before the first step, and nothing beside it or beyond it.

Whatever the keeper of a ledger does wrong is refused when it is written; and if it is written all the same, both
auditors refuse it.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from dp import verify_ledger
from dp.events import Everyone, Gaussian, PoissonSample, Relation, Release
from dp.filter import Budget, Filter, Kind
from dp.ledger import Ledger, Steps
from dp.ledger.entries import canonical, parse
from dp.ledger.file import read
from dp.ledger.proofs import Tree
from dp.ledger.state import START, LedgerState, Row
from secagg.errors import BudgetError, UsageError
from tests.controls import switch_off
from tests.scenes import ledger as scene
from tests.scenes.ledger import EXAMPLE, KEY, ended, exported, new, ours, planned, step, theirs

WHOLE = Budget(Fraction(8), Fraction(1, 10**5), slack=Fraction(1, 10**7), kind=Kind.SCHEDULE)
STEP = step("3", "1/5")
PLAN = Steps("schedule", STEP, 75)
UNSAMPLED = Steps("schedule", Release(Gaussian(Fraction(4)), Everyone(), EXAMPLE), 30)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def begun(path: Path, plan: Steps = PLAN, budget: Budget = WHOLE) -> Ledger:
    ledger = new(path, guarantee=EXAMPLE, budget=budget)
    ledger.reserve(plan)
    return ledger


def resigned(rows: list[Row], change: Any) -> list[Row]:
    """The same entries but for a change of all bodies, linked and signed again by the owner."""
    bodies, made, tree = [parse(body) for body, _ in rows], [], Tree()
    change(bodies)
    for body in bodies:
        body["previous"] = (tree.root if made else START).hex()
        made.append(canonical(body))
        tree = tree.with_leaf(made[-1])
    return ended(made)


@pytest.mark.parametrize("plan", [PLAN, UNSAMPLED])
def test_the_whole_is_charged_before_the_first_step(path: Path, plan: Steps) -> None:
    """And it stays that, however many steps are taken, also for whoever opens the ledger again."""
    ledger = begun(path, plan)
    whole = ledger.epsilon
    assert 0 < whole <= 8
    ledger.charge(plan.event, 5)
    ledger.commit(replace(plan, count=12))
    ledger.commit(replace(plan, count=7))  # said again
    ledger.reserve(plan)
    assert ledger.committed(replace(plan, count=12))
    assert not ledger.committed(replace(plan, count=13))
    ledger.close()
    again = Ledger.open(path, KEY)
    again.charge(plan.event, plan.count - 12)
    assert again.epsilon == whole
    with pytest.raises(BudgetError, match=f"has {plan.count} steps, and not {plan.count + 1}"):
        again.charge(plan.event, 1)
    with pytest.raises(BudgetError, match="has"):
        again.commit(replace(plan, count=plan.count + 1))
    again.close()
    rows = read(path)
    assert (ours(rows), theirs(rows)) == ("", "")
    assert [parse(body)["epsilon_after"] for body, _ in rows[1:]] == [round(whole * 10**12)] * 4


def test_the_statement_of_both_auditors(path: Path) -> None:
    ledger = begun(path)
    ledger.charge(STEP, 5)
    ledger.charge(STEP, 5)
    ledger.close()
    audit = verify_ledger.Audit(KEY.public)
    assert list(verify_ledger.problems(exported(read(path)), KEY.public, None, audit)) == []
    said = verify_ledger.statement(audit.book(), verify_ledger.Given(key=True))
    assert said["releases"] == "1 release of 10 steps by one party committed"
    assert "the epsilon of the whole schedule" in said["recomputed"]


def test_stopping_early_is_free_and_gives_nothing_back(path: Path) -> None:
    ledger = begun(path)
    whole = ledger.epsilon
    with pytest.raises(BudgetError, match="may have been begun"):
        ledger.abort(PLAN, "not now")
    ledger.charge(STEP, 1)
    assert ledger.epsilon == whole
    with pytest.raises(BudgetError, match="nothing is reserved"):
        ledger.abort(PLAN, "enough")
    with pytest.raises(BudgetError, match="nothing is charged beside it"):
        ledger.reserve(Steps("another", STEP, 1))


def test_steps_come_after_the_reservation(path: Path) -> None:
    ledger = new(path, guarantee=EXAMPLE, budget=WHOLE)
    with pytest.raises(BudgetError, match="reserved as a whole before its first step"):
        ledger.charge(STEP, 1)
    with pytest.raises(BudgetError, match="nothing is reserved"):
        ledger.commit(PLAN)
    assert len(list(ledger.entries())) == 1


def test_two_halves_are_no_schedule(path: Path) -> None:
    """Each costs less than half of the budget."""
    ledger = begun(path, replace(PLAN, count=5))
    assert ledger.epsilon < 4
    with pytest.raises(BudgetError, match="for one schedule"):
        ledger.reserve(Steps("second", STEP, 5))
    ledger.commit(replace(PLAN, count=5))
    with pytest.raises(BudgetError, match="for one schedule"):
        ledger.reserve(Steps("second", STEP, 5))
    with pytest.raises(BudgetError, match="for one schedule"):
        ledger.check(Steps("second", STEP, 5))
    ledger.close()
    with pytest.raises(BudgetError, match="for one schedule"):
        Ledger.open(path, KEY).reserve(Steps("second", STEP, 5))


@pytest.mark.parametrize("taken", [0, 5])
def test_control_two_schedules_are_found_by_both_auditors(
    path: Path, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        switch_off(patched, Filter, "reserve", "self._closed and name not in self.reserved")
        ledger = begun(path, replace(PLAN, count=5))
        if taken:
            ledger.commit(replace(PLAN, count=taken))
        ledger.reserve(Steps("second", STEP, 5))
        ledger.close()
        rows = read(path)
        assert ours(rows) == ""  # the same rules
    assert "nothing is charged beside it" in ours(rows)
    assert "beside the one schedule" in theirs(rows)


def test_more_than_the_budget_is_refused(path: Path) -> None:
    ledger = new(path, guarantee=EXAMPLE, budget=replace(WHOLE, epsilon=Fraction(2)))
    with pytest.raises(BudgetError, match="epsilon could reach 2"):
        ledger.reserve(PLAN)
    with pytest.raises(BudgetError, match="epsilon could reach any value"):
        ledger.reserve(Steps("loud", step("1/100"), 75))


@pytest.mark.parametrize(
    "other", [step("2", "1/5"), step("4", "1/5"), step("3", "1/4"), Release(STEP.mechanism, Everyone(), EXAMPLE)]
)
def test_steps_of_another_kind_are_refused_in_the_middle(path: Path, other: Release) -> None:
    ledger = begun(path)
    ledger.charge(STEP, 5)
    with pytest.raises(BudgetError, match="not those of the schedule"):
        ledger.charge(other, 1)
    with pytest.raises(BudgetError, match="other facts"):
        ledger.commit(Steps("schedule", other, 10))
    with pytest.raises(BudgetError, match="other facts"):
        ledger.reserve(Steps("schedule", other, 75))
    ledger.charge(step("3", "1/6"), 1)  # who has more examples draws smaller parts of them
    assert ledger.committed(replace(PLAN, count=6))


def test_a_secure_sum_is_no_schedule(path: Path) -> None:
    ledger = new(path, budget=WHOLE)
    with pytest.raises(UsageError, match="one party's steps"):
        ledger.reserve(planned(noise=scene.GAUSSIANS))


def test_no_budget_of_other_numbers() -> None:
    with pytest.raises(UsageError, match="has no orders"):
        replace(WHOLE, order=8)
    assert WHOLE.limits() == (8 * 10**12,)
    assert Budget.suited(STEP, Fraction(8), Fraction(1, 10**5), Fraction(0)).kind is Kind.RENYI


# What is written all the same


@pytest.mark.parametrize(
    ("condition", "beyond", "ours_say", "theirs_say"),
    [
        ("what.count > planned.count", 76, "has 75 steps, and not 76", "no further step"),
        ("what.count <= before", 3, "5 steps of the schedule are taken already", "no further step"),
    ],
)
def test_steps_beyond_or_again_are_found(
    path: Path, condition: str, beyond: int, ours_say: str, theirs_say: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = begun(path)
    ledger.charge(STEP, 5)
    with monkeypatch.context() as patched:
        switch_off(patched, LedgerState, "_gone_on", condition)
        ledger._append(lambda state: state._gone_on(replace(PLAN, count=beyond)))
        ledger.close()
        rows = read(path)
        assert ours(rows) == ""
    assert ours_say in ours(rows)
    assert theirs_say in theirs(rows)


def test_a_schedule_that_is_given_back_is_found(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = begun(path)
    with monkeypatch.context() as patched:
        switch_off(patched, Filter, "abort", "self.scheduled")
        ledger.abort(PLAN, "of no use")
        ledger.close()
        rows = read(path)
        assert ours(rows) == ""
    assert "not given back" in ours(rows)
    assert "may have been begun" in theirs(rows)


def cheaper(part: float) -> Any:
    def change(bodies: list[Any]) -> None:
        for body in bodies[1:]:
            cost = int(body["cost"][0] * part)
            body |= {"cost": [cost], "total": [cost], "epsilon_after": cost}
            body["epsilon_before"] = cost if body["epsilon_before"] else 0

    return change


@pytest.mark.parametrize(("plan", "part"), [(PLAN, 0.985), (UNSAMPLED, 1 - 1e-11), (UNSAMPLED, 1 + 1e-11)])
def test_what_is_charged_otherwise_than_it_costs_is_found(
    path: Path, plan: Steps, part: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without sampling to the last digit; with it the script lets pass what is at most 1% below its own number."""
    ledger = begun(path, plan)
    ledger.charge(plan.event, 5)
    ledger.close()
    rows = resigned(read(path), cheaper(part))
    assert "charges something else than it costs" in ours(rows)
    assert "is charged less than it costs" in theirs(rows)
    monkeypatch.setattr(verify_ledger, "suffices", lambda *_: True)
    assert theirs(rows) == ""


def test_a_part_of_the_whole_is_not_said_to_cost_less(path: Path) -> None:
    ledger = begun(path)
    ledger.charge(STEP, 5)
    ledger.close()

    def change(bodies: list[Any]) -> None:
        cost = bodies[2]["cost"][0] // 2
        bodies[2] |= {"cost": [cost], "total": [cost], "epsilon_after": cost}

    rows = resigned(read(path), change)
    assert "altered" in ours(rows)
    assert "something else than was reserved" in theirs(rows)


def test_a_schedule_of_more_steps_than_it_is_charged_for_is_found(path: Path) -> None:
    ledger = begun(path)
    ledger.close()
    rows = resigned(read(path), lambda bodies: bodies[1]["steps"].update(count=80))
    assert "charges something else" in ours(rows)
    assert "less than it costs" in theirs(rows)


def test_the_ledger_is_what_a_trainer_charges(path: Path) -> None:
    """In each round anew, until the schedule is over."""
    torch = pytest.importorskip("torch")
    from dp.training import Flat, Settings, Trainer

    event = Release(Gaussian(Fraction(2)), PoissonSample(Fraction(1, 2)), replace(EXAMPLE, relation=Relation.ZERO_OUT))
    ledger = new(path, guarantee=event.guarantee, budget=WHOLE)
    ledger.reserve(Steps("training", event, 5))
    model = torch.nn.Linear(2, 1)
    trainer = Trainer(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        lambda model, x: model(x).square().sum(),
        Settings(Flat(1.0), Fraction(2), expected_batch=2),
        charge=ledger.charge,
    )
    examples = torch.utils.data.TensorDataset(torch.ones(4, 2))
    trainer.run(examples, steps=3)
    trainer.run(examples, steps=2)
    before = model.weight.tolist()
    with pytest.raises(BudgetError, match="has 5 steps"):
        trainer.run(examples, steps=1)
    assert model.weight.tolist() == before
