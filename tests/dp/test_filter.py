"""The filter: what it allows is what the formulas say, in integers; what it refuses changes nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dp import filter as filters
from dp.accountants import RdpAccountant, rdp
from dp.accountants.rdp import ORDERS
from dp.events import (
    DiscreteGaussians,
    Everyone,
    Gaussian,
    Guarantee,
    PoissonSample,
    Relation,
    Release,
    Skellam,
    Trust,
    Unit,
)
from dp.filter import RESOLUTION, Budget, Filter, PrivacyCost
from secagg.errors import BudgetError, UsageError
from tests.controls import switch_off

CENTRAL = Guarantee(Unit.USER, Relation.ADD_OR_REMOVE, Trust.CENTRAL)
DELTA = Fraction(1, 10**6)


def budget(epsilon: int = 4, slack: Fraction = Fraction(0), **more: Any) -> Budget:
    return Budget(Fraction(epsilon), DELTA, slack, **more)


def gaussian(z: Fraction | int, rate: str = "1") -> Release:
    sampling = Everyone() if rate == "1" else PoissonSample(Fraction(rate))
    return Release(Gaussian(Fraction(z)), sampling, CENTRAL)


def flat(units: int | None, samples: int = 0) -> PrivacyCost:
    """The same divergence at every order."""
    return PrivacyCost((units,) * len(ORDERS), samples)


# Budgets


@given(st.fractions(Fraction(1, 20), 40), st.fractions(Fraction(1, 10**9), Fraction(1, 10)))
def test_the_orders_share_delta(epsilon: Fraction, delta: Fraction) -> None:
    """Each limit allows its order some failure probability; together they are delta less slack, and not more."""
    budget = Budget(epsilon, delta, slack=delta / 5)
    shares = [
        math.exp((order - 1) * (limit / RESOLUTION - float(epsilon) + math.log1p(-1 / order))) / order
        for order, limit in zip(ORDERS, budget.limits(), strict=True)
    ]
    assert sum(shares) == pytest.approx(float(delta) * 4 / 5, rel=1e-6)
    assert shares[ORDERS.index(budget.order)] == pytest.approx(float(delta) * 4 / 5 * 0.99, rel=1e-6)


@pytest.mark.parametrize("order", [2, 33, 1024])
def test_limits_are_those_of_conversion(order: int) -> None:
    """Decimals here, floating point there."""
    found = budget(4, slack=DELTA / 10, order=order).limits()[ORDERS.index(order)]
    (expected,) = rdp.limits(4.0, float(DELTA) * 0.9 * 0.99, (order,))
    assert found / RESOLUTION == pytest.approx(expected, abs=2e-12)


def test_a_filter_that_gives_all_of_delta_to_every_order_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    switch_off(monkeypatch, Budget, "limits", "SHARE if order == self.order else others", "1")
    with pytest.raises(AssertionError):
        test_the_orders_share_delta.hypothesis.inner_test(Fraction(1), DELTA)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("epsilon", "delta"), [(0.5, 5), (1, 6), (4, 6), (8, 5), (20, 6)])
def test_sharing_costs_a_run_of_equal_rounds_almost_nothing(epsilon: float, delta: int) -> None:
    """Noise for which composition comes to epsilon: 0.15% more of it satisfies the filter."""
    budget = Budget(Fraction(epsilon), Fraction(1, 10**delta), slack=Fraction(0))
    rho = max(limit / order for limit, order in zip(rdp.limits(epsilon, 10**-delta), ORDERS, strict=True))
    z = Fraction(math.sqrt(100 / (2 * rho)) * 1.0015)
    Filter.of(budget).reserve("all", PrivacyCost.of(gaussian(z), 100))
    with pytest.raises(BudgetError):
        Filter.of(budget).reserve("all", PrivacyCost.of(gaussian(z), 101))


def test_early_in_a_run_little_is_said_to_be_spent() -> None:
    """At the budget's own order alone the first of 100 rounds would come to 1.85."""
    one = PrivacyCost.of(gaussian(14))
    reached = Filter.of(budget()).reserve("first", one).reached
    assert reached is not None
    assert reached / RESOLUTION < 0.45
    accountant = RdpAccountant()
    accountant.compose(gaussian(14))
    assert reached / RESOLUTION > accountant.epsilon(float(DELTA))


def test_the_order_suits_the_noise() -> None:
    sampled = gaussian(1, "1/100")
    suited = Budget.suited(sampled, Fraction(2), Fraction(1, 10**5), slack=Fraction(0))
    other = Budget(Fraction(2), Fraction(1, 10**5), slack=Fraction(0))
    cost = PrivacyCost.of(sampled, 600)
    Filter.of(suited).reserve("run", cost)
    with pytest.raises(BudgetError):
        Filter.of(other).reserve("run", cost)
    assert Budget.suited(gaussian(9), Fraction(2), Fraction(1, 10**5), slack=Fraction(0)) == other


@pytest.mark.parametrize(
    "make",
    [
        lambda: Budget(Fraction(0), DELTA, Fraction(0)),
        lambda: Budget(Fraction(501), DELTA, Fraction(0)),
        lambda: Budget(Fraction(1), Fraction(1), Fraction(0)),
        lambda: Budget(Fraction(1), DELTA, DELTA),
        lambda: Budget(Fraction(1), DELTA, Fraction(-1, 10**9)),
        lambda: Budget(1.0, DELTA, Fraction(0)),  # type: ignore[arg-type]
        lambda: Budget(Fraction(1), DELTA, Fraction(0), order=65),
        lambda: PrivacyCost.of(gaussian(1), 0),
        lambda: PrivacyCost.of(gaussian(1), 1, samples=-1),
        lambda: flat(-1),
    ],
)
def test_nonsense_is_refused(make: Any) -> None:
    with pytest.raises(UsageError):
        make()


# Charges


@pytest.mark.parametrize(
    "mechanism", [Skellam(Fraction(10**5, 3), 700, 650), DiscreteGaussians(Fraction(9999, 7), 9, 50, 700)]
)
def test_divergences_are_rounded_up(mechanism: Any) -> None:
    event = Release(mechanism, Everyone(), CENTRAL)
    for units, value in zip(PrivacyCost.of(event).amounts, rdp.curve(event), strict=True):
        assert units is not None
        assert 0 <= Fraction(units, RESOLUTION) - Fraction(value) < Fraction(1, RESOLUTION)


def test_a_charge_is_counted_as_often_as_it_happens() -> None:
    one, many = PrivacyCost.of(gaussian(3), 1, samples=5), PrivacyCost.of(gaussian(3), 7, samples=35)
    assert sum([one] * 7, PrivacyCost()) == many


def test_no_bound_stays_no_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    assert flat(None) + flat(3) == flat(None)
    monkeypatch.setattr(rdp, "curve", lambda event: (math.inf,) * len(ORDERS))
    assert PrivacyCost.of(gaussian(1)) == flat(None)
    with pytest.raises(BudgetError, match="any value"):
        Filter.of(budget()).reserve("one", flat(None))


# The filter


def limited(*limits: int, samples: int = 0) -> Filter:
    """Limits at the first orders; the others are no use."""
    return Filter(10 * RESOLUTION, limits + (-RESOLUTION,) * (len(ORDERS) - len(limits)), samples)


def curve(*units: int | None) -> PrivacyCost:
    return PrivacyCost(units + (0,) * (len(ORDERS) - len(units)))


def test_the_last_unit_may_be_spent_and_no_more() -> None:
    tight = limited(100).reserve("a", curve(40)).reserve("b", curve(60))
    assert tight.reached == 10 * RESOLUTION
    with pytest.raises(BudgetError):
        tight.reserve("c", curve(1))
    assert tight.reserve("c", curve(0)).total == curve(100)


def test_one_order_with_room_is_enough() -> None:
    limited(100, 50).reserve("a", curve(101, 50))
    limited(100, 50).reserve("a", curve(100, 51))
    with pytest.raises(BudgetError):
        limited(100, 50).reserve("a", curve(101, 51))
    limited(100, 50).reserve("a", curve(None, 50))
    assert limited(100, 50).reserve("a", curve(90, 50)).reached == 10 * RESOLUTION - 10


def test_reservations_count() -> None:
    reserved = limited(100).reserve("a", curve(60))
    with pytest.raises(BudgetError):
        reserved.reserve("b", curve(41))
    with pytest.raises(UsageError, match="reserved already"):
        reserved.reserve("a", curve(1))
    assert reserved.spent == PrivacyCost()
    assert reserved.commit("a", curve(50)).reserve("b", curve(50)).total == curve(110 - 10)
    assert reserved.abort("a").reserve("b", curve(100)).total == curve(100)
    for gone in (reserved.commit("a", curve(50)), reserved.abort("a")):
        with pytest.raises(UsageError, match="nothing is reserved"):
            gone.commit("a", curve(1))
        with pytest.raises(UsageError, match="nothing is reserved"):
            gone.abort("a")


def test_not_more_than_was_reserved() -> None:
    """At an order that is beyond its limit already, nothing is relied on."""
    reserved = limited(100, 50).reserve("a", curve(60, 51))
    assert reserved.commit("a", curve(60, 70)).total == curve(60, 70)
    with pytest.raises(BudgetError, match="more than was reserved"):
        reserved.commit("a", curve(61, 51))
    with pytest.raises(BudgetError, match="more than was reserved"):
        reserved.commit("a", curve(None, 51))
    unknown = limited(100, 50).reserve("a", curve(None, 50))
    assert unknown.commit("a", curve(None, 50)).total == unknown.commit("a", curve(None, 50)).spent
    within = limited(100, 50).reserve("a", curve(60, 50))
    with pytest.raises(BudgetError, match="more than was reserved"):
        within.commit("a", curve(60, 51))


def test_without_that_rule_a_commit_breaks_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    switch_off(monkeypatch, Filter, "commit", "actual > allowed")
    after = limited(100, 50).reserve("a", curve(60, 50)).commit("a", curve(101, 51))
    assert after.reached is not None
    assert after.reached > after.epsilon


def test_a_sum_of_discrete_gaussians_is_charged_with_its_samples() -> None:
    """Their number bounds how far all releases are from Gaussian ones."""
    release = Release(
        DiscreteGaussians(Fraction(100), 2, 3, 1), Everyone(), replace(CENTRAL, relation=Relation.ZERO_OUT)
    )
    assert PrivacyCost.of(release, 5, samples=30, kind=filters.Kind.GDP).samples == 30
    with pytest.raises(UsageError, match="charged with all samples"):
        PrivacyCost.of(release, 5, samples=29, kind=filters.Kind.GDP)


def test_samples_use_up_the_slack() -> None:
    """(1 + e^epsilon) 2^-128 of delta each."""
    assert budget().samples() == 0
    with pytest.raises(BudgetError, match="slack"):
        Filter.of(budget()).reserve("a", flat(0, samples=1))
    slack = budget(slack=Fraction(1, 10**9))
    most = slack.samples()
    assert most * (1 + math.exp(4)) / 2**128 == pytest.approx(1e-9)
    Filter.of(slack).reserve("a", flat(0, samples=most))
    with pytest.raises(BudgetError, match="slack"):
        Filter.of(slack).reserve("a", flat(0, samples=most + 1))
    with pytest.raises(BudgetError, match="samples"):
        limited(9, samples=9).reserve("a", flat(1, samples=3)).commit("a", flat(1, samples=4))


CHARGES = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(0, 4), st.sampled_from("rca")), max_size=25
)


@given(CHARGES)
def test_whatever_happens_the_budget_holds_and_the_sums_are_right(steps: list[tuple[int, int, int, str]]) -> None:
    """Against a list of what is reserved and committed."""
    state, reserved, spent = limited(150, 100), dict[str, PrivacyCost](), PrivacyCost()
    for number, (a, b, which, step) in enumerate(steps):
        before, name, cost = state, str(number if step == "r" else number - which), curve(a, b)
        try:
            if step == "r":
                state = state.reserve(name, cost)
                reserved[name] = cost
            elif step == "c":
                state = state.commit(name, cost)
                del reserved[name]
                spent += cost
            else:
                state = state.abort(name)
                del reserved[name]
        except (BudgetError, UsageError):
            assert state is before
        assert state.total == sum(reserved.values(), spent)
        assert state.reached is not None
        assert state.reached <= state.epsilon


def test_what_is_refused_changes_nothing() -> None:
    state = limited(100).reserve("a", curve(60))
    copy = replace(state, reserved=dict(state.reserved))
    with pytest.raises(BudgetError):
        state.reserve("b", curve(41))
    with pytest.raises(BudgetError):
        state.commit("a", curve(61))
    with pytest.raises(UsageError):
        state.abort("b")
    assert state == copy
    assert filters.Filter.of(budget()).total == PrivacyCost()
