"""Schedules: what all steps together cost, by two computations that share nothing, and the least noise for it."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from dp import verify_ledger
from dp.accountants import gdp, rdp, schedule
from dp.accountants.schedule import covers, least_epsilon
from dp.calibrate import SLACK, steps_multiplier
from dp.events import (
    DiscreteGaussians,
    Event,
    Everyone,
    FixedSizeSample,
    Gaussian,
    Guarantee,
    PoissonSample,
    Relation,
    Release,
    Selection,
    Trust,
    Unit,
)
from dp.filter import RESOLUTION, Kind
from secagg.errors import UsageError

USER = Guarantee(Unit.USER, Relation.ZERO_OUT, Trust.LOCAL)
DELTA = Fraction(1, 10**5)


def step(z: str, rate: str = "1", relation: Relation = Relation.ZERO_OUT) -> Release:
    return Release(Gaussian(Fraction(z)), PoissonSample(Fraction(rate)), replace(USER, relation=relation))


def epsilon(event: Event, count: int, delta: Fraction = DELTA) -> float:
    found = least_epsilon(event, count, delta)
    assert found is not None
    return found / RESOLUTION


def fails(z: str, rate: str, count: int, at: float) -> float:
    """The stand-alone auditor's delta at an epsilon."""
    return max(verify_ledger.failing(at, float(Fraction(z)), float(Fraction(rate)), count, way) for way in (1, -1))


SCHEDULES = [
    ("1.5", "1/5", 75, Fraction(1, 10**5)),
    ("1", "1/10", 100, Fraction(1, 10**5)),
    ("3", "1/2", 200, Fraction(1, 10**5)),
    ("5", "1/2", 2000, Fraction(1, 10**5)),
    ("3/5", "1/100", 1000, Fraction(1, 10**5)),
    ("1", "1/100", 10_000, Fraction(1, 10**6)),
    ("30", "1/2", 2000, Fraction(1, 1000)),
    ("3/10", "1/2", 4, Fraction(1, 10**5)),
    ("2", "99/100", 50, Fraction(1, 10**5)),
    ("1/2", "1/1000", 1, Fraction(1, 10**5)),
    ("4/5", "1/5", 1, Fraction(1, 10**6)),
]


@pytest.mark.parametrize(
    "planned", [SCHEDULES[0], *(pytest.param(one, marks=pytest.mark.long) for one in SCHEDULES[1:])]
)
def test_two_computations_agree(planned: tuple[str, str, int, Fraction]) -> None:
    """A library's grid from above, and a tilted law on a grid that keeps mean and variance."""
    z, rate, count, delta = planned
    ledger = epsilon(step(z, rate), count, delta)
    assert fails(z, rate, count, 1.0003 * ledger) < delta < fails(z, rate, count, 0.994 * ledger)


@pytest.mark.parametrize("way", [1, -1])
def test_both_directions_against_a_sum_by_hand(way: int) -> None:
    """Two steps: the law of the sum of two losses, pair by pair."""
    z, q, target = 1.3, 0.4, 0.9
    points = [n / 25 for n in range(-250, 276)]

    def normal(x: float, mean: float) -> float:
        return verify_ledger.math.exp(-((x - mean) ** 2) / (2 * z * z)) / (z * (2 * verify_ledger.math.pi) ** 0.5)

    law = []
    for x in points:
        under_q, under_p = normal(x, 0), (1 - q) * normal(x, 0) + q * normal(x, 1)
        loss = verify_ledger.math.log(under_p / under_q)
        law.append((under_p / 25, loss) if way == 1 else (under_q / 25, -loss))
    reference = sum(p * r * max(0.0, 1 - verify_ledger.math.exp(target - a - b)) for p, a in law for r, b in law)
    assert verify_ledger.failing(target, z, q, 2, way) == pytest.approx(reference, rel=2e-3)


@pytest.mark.long
def test_a_finer_grid_says_hardly_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what is set aside for floating point, which is more for more numbers."""
    monkeypatch.setattr(schedule, "_rounding", lambda *sizes: 0.0)
    for z, rate, count, delta in SCHEDULES[:6]:
        coarse, fine = (
            least_epsilon.__wrapped__(step(z, rate), count, delta, interval) for interval in (schedule.INTERVAL, 1e-4)
        )
        assert fine <= coarse <= fine * (1.001 if count < 10_000 else 1.006)


def test_without_sampling_it_is_exact() -> None:
    for event in (step("10"), replace(step("10"), sampling=Everyone())):
        assert least_epsilon(event, 100, DELTA) == gdp.least_epsilon(Fraction(1), DELTA)
    assert least_epsilon(step("10", relation=Relation.REPLACE_ONE), 25, DELTA) == least_epsilon(step("5"), 25, DELTA)


def test_what_floating_point_may_have_done_is_set_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    """With ten thousand times the rounding it is more, and where it takes half of delta the orders decide."""
    event, count = step("3", "1/2"), 50
    before = epsilon(event, count)
    honest = schedule._rounding
    monkeypatch.setattr(schedule, "_rounding", lambda *sizes: 10_000 * honest(*sizes))
    more = least_epsilon.__wrapped__(event, count, DELTA) / RESOLUTION
    by_orders = rdp.epsilon(rdp.scaled(rdp.curve(event), count), float(DELTA))
    assert before < more < by_orders
    monkeypatch.setattr(schedule, "_rounding", lambda *sizes: float(DELTA) / 2)
    assert least_epsilon.__wrapped__(event, count, DELTA) / RESOLUTION == pytest.approx(by_orders)


def test_it_costs_at_least_a_unit_and_at_most_what_a_budget_can_have() -> None:
    assert least_epsilon(step("1000"), 1, Fraction(1, 2)) == 1
    assert least_epsilon(step("1000", "1/2"), 1, Fraction(1, 2)) == 1
    assert least_epsilon(step("1/100"), 10, DELTA) is None
    assert least_epsilon(step("1/100", "1/2"), 10, DELTA) is None


@pytest.mark.parametrize(
    "event",
    [
        Release(DiscreteGaussians(Fraction(100), 1, 1, 1), Everyone(), USER),
        Release(Gaussian(Fraction(1)), FixedSizeSample(1, 5), replace(USER, relation=Relation.REPLACE_ONE)),
        step("1", "1/2", Relation.REPLACE_ONE),
        Selection(step("1"), 5, Fraction(2)),
    ],
)
def test_other_steps_make_no_schedule(event: Event) -> None:
    with pytest.raises(UsageError, match="a schedule is of"):
        least_epsilon(event, 3, DELTA)
    assert isinstance(event, Selection) is not covers(step("1"), step("1")) or not covers(step("1"), event)


def test_a_schedule_has_a_step() -> None:
    with pytest.raises(UsageError, match="at least one step"):
        least_epsilon(step("1"), 0, DELTA)


def test_a_smaller_sample_costs_less_and_is_covered() -> None:
    assert covers(step("1", "1/5"), step("1", "1/6"))
    assert covers(step("1", "1/5"), step("1", "1/5"))
    assert epsilon(step("2", "1/6"), 10) < epsilon(step("2", "1/5"), 10)
    assert not covers(step("1", "1/5"), step("1", "1/4"))
    assert not covers(step("1", "1/5"), step("2", "1/5"))
    assert not covers(step("1", "1/5"), step("1"))
    assert not covers(step("1"), step("1", relation=Relation.ADD_OR_REMOVE))


@pytest.mark.parametrize(("rate", "count"), [("1", 15), pytest.param("1/5", 75, marks=pytest.mark.long)])
def test_the_least_noise_for_a_schedule(rate: str, count: int) -> None:
    """In thousandths; it is 6% less than round by round."""
    asked = {"epsilon": 8, "delta": DELTA, "steps": count, "guarantee": USER, "sampling": PoissonSample(Fraction(rate))}
    found = steps_multiplier(**asked, kind=Kind.SCHEDULE)  # type: ignore[arg-type]
    failing = (1 - SLACK) * DELTA
    assert epsilon(step(str(found), rate), count, failing) <= 8
    assert epsilon(step(str(found - Fraction(1, 1000)), rate), count, failing) > 8
    assert 0.92 < found / steps_multiplier(**asked) < 0.95  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="not for local steps"):
        steps_multiplier(**asked, kind=Kind.GDP)  # type: ignore[arg-type]
