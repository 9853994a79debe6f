"""Exact Gaussian accounting: the accountant, its conversion against other programs, and the budget that runs on it."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import exp, mpf, ncdf, sqrt, workdps

from dp import verify_ledger
from dp.accountants import GdpAccountant, PldAccountant, RdpAccountant, gdp, pld, sums
from dp.events import (
    DiscreteGaussians,
    DiscreteLaplace,
    Everyone,
    Gaussian,
    Guarantee,
    PoissonSample,
    Relation,
    Release,
    Selection,
    Skellam,
    Trust,
    Unit,
)
from dp.filter import ORDERS, RESOLUTION, Budget, Filter, Kind, PrivacyCost
from secagg.errors import BudgetError, UsageError
from tests.controls import switch_off

USER = Guarantee(Unit.USER, Relation.ZERO_OUT, Trust.DISTRIBUTED)
CENTRAL = Guarantee(Unit.USER, Relation.ZERO_OUT, Trust.CENTRAL)
DELTA = Fraction(1, 10**6)
SLACK = Fraction(1, 10**9)


def of_noise(moved: Fraction, draws: int = 3, dimension: int = 10) -> Release:
    """A sum of discrete Gaussians with that mu^2."""
    return Release(DiscreteGaussians(4 + 10**6 / moved, draws, dimension, 10**6), Everyone(), USER)


def gaussian(z: Fraction | int) -> Release:
    return Release(Gaussian(Fraction(z)), Everyone(), CENTRAL)


def budget(epsilon: Fraction | int = 4, **changes: Any) -> Budget:
    return replace(Budget(Fraction(epsilon), DELTA, SLACK, kind=Kind.GDP), **changes)


def units(amount: int, samples: int = 0) -> PrivacyCost:
    return PrivacyCost((amount,), samples)


def exact(epsilon: Fraction, moved: Fraction) -> mpf:
    """delta_G, by another library."""
    e, mu = mpf(epsilon.numerator) / epsilon.denominator, sqrt(mpf(moved.numerator) / moved.denominator)
    return ncdf(mu / 2 - e / mu) - exp(e) * ncdf(-mu / 2 - e / mu)


# Conversion

MOVED = st.fractions(Fraction(1, 1000), 60, max_denominator=10**6)


@st.composite
def points(draw: st.DrawFn) -> tuple[Fraction, Fraction]:
    """Epsilon and mu^2, of which the delta is neither 0 nor 1."""
    mu = draw(st.fractions(Fraction(1, 30), 8, max_denominator=1000))
    near = draw(st.fractions(-4, 15, max_denominator=1000))
    return max(Fraction(0), near * mu + mu * mu / 2), mu * mu


@pytest.mark.long
@given(points())
@settings(max_examples=25, deadline=None)
def test_a_delta_is_that_of_another_library(point: tuple[Fraction, Fraction]) -> None:
    """Of mpmath, in 250 digits, which cancel."""
    epsilon, moved = point
    with workdps(250):
        expected = exact(epsilon, moved)
        found = gdp.delta(epsilon, moved)
        assert abs(mpf(str(found)) / expected - 1) < mpf(10) ** -40


@given(points(), st.integers(1, 60))
@settings(max_examples=25, deadline=None)
def test_both_programs_decide_alike(point: tuple[Fraction, Fraction], digits: int) -> None:
    (epsilon, moved), delta = point, Fraction(1, 10**digits)
    assert gdp.holds(epsilon, delta, moved) is verify_ledger.holds(epsilon, delta, moved)


@pytest.mark.parametrize("epsilon", ["1/1000000000000", "1/1000", "1/2", "8", "40"])
@pytest.mark.parametrize("delta", ["1/2", "1/100000", "1/1000000000000000000000000000000"])
def test_the_limit_is_the_largest(epsilon: str, delta: str) -> None:
    e, d = Fraction(epsilon), Fraction(delta)
    most = gdp.largest_total(e, d)
    assert gdp.holds(e, d, Fraction(most, RESOLUTION))
    assert not gdp.holds(e, d, Fraction(most + 1, RESOLUTION))
    if most:
        reached = gdp.least_epsilon(Fraction(most, RESOLUTION), d)
        assert reached <= e * RESOLUTION < reached + 10**5  # a unit of mu^2 is at most so many of epsilon
        assert not reached or not gdp.holds(Fraction(reached - 1, RESOLUTION), d, Fraction(most, RESOLUTION))


@given(MOVED, st.integers(1, 30))
@settings(max_examples=25, deadline=None)
def test_an_epsilon_is_the_least(moved: Fraction, digits: int) -> None:
    delta = Fraction(1, 10**digits)
    found = gdp.least_epsilon(moved, delta)
    assert verify_ledger.holds(Fraction(found, RESOLUTION), delta, moved)
    assert not found or not verify_ledger.holds(Fraction(found - 1, RESOLUTION), delta, moved)


def test_what_the_distance_from_gaussian_noise_costs() -> None:
    """Of epsilon twice, and of delta: H = 1/10 is much. With none the conversion is Balle and Wang's."""
    close, moved = Fraction(1, 10), Fraction(1)
    found = Fraction(gdp.least_epsilon(moved, DELTA, close), RESOLUTION)
    plain = Fraction(gdp.least_epsilon(moved, DELTA * (1 - close), Fraction(0)), RESOLUTION)
    assert abs(found - plain - 2 * close) <= Fraction(1, RESOLUTION)
    with workdps(50):
        free = Fraction(gdp.least_epsilon(moved, DELTA, Fraction(0)), RESOLUTION)
        assert exact(free, moved) <= mpf(1) / 10**6 < exact(free - Fraction(1, RESOLUTION), moved)


@pytest.mark.parametrize("off", ["2 * close", "(1 - close) * delta"])
def test_a_conversion_that_forgets_the_distance_is_caught(monkeypatch: pytest.MonkeyPatch, off: str) -> None:
    switch_off(monkeypatch, gdp, "holds", off, "0 * close" if off == "2 * close" else "delta")
    gdp.least_epsilon.cache_clear()
    with pytest.raises(AssertionError):
        test_what_the_distance_from_gaussian_noise_costs()
    gdp.least_epsilon.cache_clear()


def test_numbers_that_are_not_converted() -> None:
    for epsilon, delta in ((Fraction(1), Fraction(1, 10**101)), (Fraction(1), Fraction(1)), (Fraction(10_001), DELTA)):
        with pytest.raises(UsageError, match="delta is from"):
            gdp.holds(epsilon, delta, Fraction(1))


# The accountant


@pytest.mark.parametrize("relation", [Relation.ZERO_OUT, Relation.REPLACE_ONE])
def test_a_sum_costs_what_the_gaussian_costs_that_it_is_close_to(
    relation: Relation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four less than the parameters, whichever accountant is asked; PLD rounds losses up, Renyi orders are coarser."""
    monkeypatch.setattr(pld, "INTERVAL", 2e-3)
    pld._distribution.cache_clear()
    noise = Release(DiscreteGaussians(Fraction(104), 9, 1000, 25), Everyone(), replace(USER, relation=relation))
    plain = Release(Gaussian(Fraction(2)), Everyone(), replace(CENTRAL, relation=relation))
    found = {}
    for kind in (GdpAccountant, PldAccountant, RdpAccountant):
        first, second = kind(), kind()
        first.compose(noise, 3)
        second.compose(plain, 3)
        assert first.epsilon(1e-6) == pytest.approx(second.epsilon(1e-6), rel=1e-9)
        found[kind] = first.epsilon(1e-6)
    assert found[GdpAccountant] <= found[PldAccountant] <= 1.01 * found[GdpAccountant]
    assert 1.03 * found[GdpAccountant] < found[RdpAccountant]
    pld._distribution.cache_clear()


def test_the_distance_of_a_composition_is_that_of_all_its_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pld, "INTERVAL", 2e-3)
    pld._distribution.cache_clear()
    far = Release(DiscreteGaussians(Fraction(104), 10**12, 10**18, 25), Everyone(), USER)
    for kind in (GdpAccountant, PldAccountant):
        near, one, many = kind(), kind(), kind()
        near.compose(replace(far, mechanism=replace(far.mechanism, draws=1)), 100)
        one.compose(far, 100)
        many.compose(replace(far, mechanism=replace(far.mechanism, draws=10**14)), 100)
        twice = 2 * 100 * float(sums.closeness(10**12, 10**18))
        assert twice < one.epsilon(1e-6) - near.epsilon(1e-6) < 2 * twice
        with pytest.raises(UsageError, match="too far") if kind is GdpAccountant else nullcontext():
            assert many.epsilon(1e-6) > one.epsilon(1e-6)
    pld._distribution.cache_clear()


# The budget


REFUSED = [
    Release(Skellam(Fraction(10**6), 100, 100), Everyone(), USER),
    Release(Gaussian(Fraction(1)), PoissonSample(Fraction(1, 10)), CENTRAL),
    Release(DiscreteLaplace(Fraction(10), 1), Everyone(), CENTRAL),
    Selection(Release(Gaussian(Fraction(10)), Everyone(), CENTRAL), 1, Fraction(2)),
]


@pytest.mark.parametrize("event", REFUSED)
def test_what_has_no_mu_is_refused(event: Any) -> None:
    with pytest.raises(UsageError, match="no GDP bound is known"):
        PrivacyCost.of(event, kind=Kind.GDP)
    assert PrivacyCost.of(event).amounts
    assert Budget.suited(event, Fraction(2), DELTA, SLACK).kind is Kind.RENYI


def test_the_budget_of_a_sum_is_gaussian() -> None:
    assert Budget.suited(of_noise(Fraction(1)), Fraction(4), DELTA, SLACK) == budget()


@pytest.mark.parametrize(
    "changes",
    [
        {"order": 7},
        {"slack": DELTA - Fraction(1, 10**101)},
        {"delta": Fraction(1, 10**101), "slack": Fraction(0)},
        {"kind": "better"},
    ],
)
def test_what_is_no_such_budget(changes: dict[str, Any]) -> None:
    with pytest.raises((UsageError, ValueError)):
        budget(**changes)


def test_no_room_is_no_room() -> None:
    """Delta near its slack, and an epsilon below twice H: nothing that costs something is allowed."""
    for small in (
        budget(Fraction(1, 10**12), delta=Fraction(1, 10**90), slack=Fraction(0)),
        budget(slack=DELTA - Fraction(1, 10**100)),
    ):
        (most,) = small.limits()
        empty = Filter.of(small)
        with pytest.raises(BudgetError):
            empty.reserve("a", units(most + 1))
        assert empty.reserve("a", units(most)).reached is not None
    assert budget(Fraction(1, 10**12), delta=Fraction(1, 10**90), slack=Fraction(0)).limits() == (0,)


def test_the_last_unit_may_be_spent_and_no_more() -> None:
    (most,) = budget().limits()
    full = Filter.of(budget()).reserve("a", units(most - 5)).commit("a", units(most - 6)).reserve("b", units(6))
    assert full.reached is not None
    assert 4 * RESOLUTION - 3 <= full.reached <= 4 * RESOLUTION
    assert not full.allows(units(1))
    assert full.allows(units(0))
    with pytest.raises(BudgetError, match="epsilon could reach 4, the budget allows 4"):
        full.reserve("c", units(1))
    with pytest.raises(BudgetError, match="epsilon could reach any value"):
        full.reserve("c", units(10 * most))


def test_many_tiny_releases_add_up() -> None:
    """A mu^2 of 10^-40 counts as a unit, as often as it is released."""
    tiny = of_noise(Fraction(1, 10**40))
    assert PrivacyCost.of(tiny, 1000, 30_000, Kind.GDP).amounts == (1000,)
    (most,) = budget().limits()
    with pytest.raises(BudgetError):
        Filter.of(budget()).reserve("all", PrivacyCost.of(tiny, most + 1, 30 * (most + 1), Kind.GDP))


def test_a_huge_norm_is_refused_at_once() -> None:
    loud = Release(DiscreteGaussians(Fraction(8), 1, 1, 10**400), Everyone(), USER)
    with pytest.raises(BudgetError, match="any value"):
        Filter.of(budget()).reserve("a", PrivacyCost.of(loud, 1, 1, Kind.GDP))


def test_reservations_that_stay_count_for_ever() -> None:
    (most,) = budget().limits()
    state = Filter.of(budget())
    for number in range(4):
        state = state.reserve(str(number), units(most // 4))
    with pytest.raises(BudgetError):
        state.reserve("one more", units(4))
    assert state.abort("3").allows(units(most // 4))


def test_a_commit_may_not_cost_more(monkeypatch: pytest.MonkeyPatch) -> None:
    (most,) = budget().limits()
    reserved = Filter.of(budget()).reserve("a", units(100, 5))
    for cost in (units(101), units(100, 6), PrivacyCost((None,))):
        with pytest.raises(BudgetError, match="than w"):
            reserved.commit("a", cost)
    switch_off(monkeypatch, Filter, "commit", "actual > allowed")
    assert not reserved.commit("a", units(most + 1)).allows(units(0, 1))


def test_costs_of_the_two_kinds_do_not_mix() -> None:
    of_renyi, of_gdp = PrivacyCost.of(gaussian(9)), PrivacyCost.of(gaussian(9), kind=Kind.GDP)
    assert (len(of_renyi.amounts), len(of_gdp.amounts)) == (len(ORDERS), 1)
    for kept, other in ((budget(), of_renyi), (Budget(Fraction(4), DELTA, SLACK), of_gdp)):
        state = Filter.of(kept).reserve("a", PrivacyCost.nothing(kept.kind))
        for refused in (lambda s, c: s.reserve("b", c), lambda s, c: s.commit("a", c), lambda s, c: s.allows(c)):
            with pytest.raises(UsageError, match="another kind"):
                refused(state, other)


def test_the_number_of_samples_bounds_the_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    """H is 2 e(2) for each draw of an honest survivor, and no draw is left out of the samples."""
    roomy = budget(delta=Fraction(1, 2), slack=Fraction(1, 4))
    most = roomy.samples()
    assert 2 * most * sums.SPREAD <= gdp.MOST_CLOSE < 2 * (most + 1) * sums.SPREAD
    assert replace(roomy, kind=Kind.RENYI).samples() > most
    with pytest.raises(BudgetError, match="samples"):
        Filter.of(roomy).reserve("a", units(1, most + 1))
    event = of_noise(Fraction(1, 100), draws=9, dimension=50)
    PrivacyCost.of(event, 2, 2 * 9 * 50, Kind.GDP)
    with pytest.raises(UsageError, match="all samples"):
        PrivacyCost.of(event, 2, 2 * 9 * 50 - 1, Kind.GDP)
    switch_off(monkeypatch, PrivacyCost, "of", "count * close > 2 * sums.SPREAD * samples")
    PrivacyCost.of(event, 2, 0, Kind.GDP)


@given(st.lists(st.tuples(st.integers(0, 10**11), st.integers(0, 10**11)), max_size=12))
@settings(max_examples=20, deadline=None)
def test_whatever_is_committed_the_budget_holds(steps: list[tuple[int, int]]) -> None:
    """By the other program: what was spent is (epsilon, delta less slack)-private."""
    state, spent = Filter.of(budget()), 0
    for number, (worst, less) in enumerate(steps):
        try:
            state = state.reserve(str(number), units(worst)).commit(str(number), units(max(0, worst - less)))
            spent += max(0, worst - less)
        except BudgetError:
            assert spent + worst > budget().limits()[0]
    assert state.spent == units(spent)
    assert verify_ledger.holds(Fraction(4), DELTA - SLACK, Fraction(spent, RESOLUTION))


def test_a_run_of_equal_sums_takes_less_noise_than_at_renyi_orders() -> None:
    """6 to 11% of it."""
    for epsilon in (1, 3, 8):
        (most,) = budget(epsilon).limits()
        orders = Budget(Fraction(epsilon), DELTA, SLACK)
        rho = max(limit / order for limit, order in zip(orders.limits(), ORDERS, strict=True))
        assert 1.05 < (most / (2 * rho)) ** 0.5 < 1.12
