"""Sums of discrete Gaussians over users who are sampled in secret (docs/gaussian_sums.md, "Secret samples").

What is charged is at least what an adversary gains from the laws themselves, in both directions: a user's vector is in
the sum with probability q, or it is zero.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import exp, log

import numpy as np
import pytest
from mpmath import log as exact_log
from mpmath import mpf, workdps

from dp.accountants import GdpAccountant, PldAccountant, RdpAccountant, rdp
from dp.accountants.rdp import ORDERS
from dp.calibrate import calibrate, evaluate, user_level
from dp.events import (
    DiscreteGaussians,
    Everyone,
    Gaussian,
    Holder,
    PoissonSample,
    Relation,
    Release,
    Skellam,
    Trust,
    by_coins,
)
from dp.filter import Budget, Filter, Kind, PrivacyCost
from secagg.errors import UsageError
from tests.reference.gaussian_laws import Law, eta, of_the_rounded, of_the_sum
from tests.scenes.ledger import GAUSSIANS, INSIDE, planned

RATE = Fraction(1, 4)
VARIANCE, MOVED = 400, 15
SAMPLED = Release(DiscreteGaussians(Fraction(VARIANCE), 1, 1, MOVED**2), PoissonSample(RATE), INSIDE)


# The laws


def mixed(law: Law, moved: Law, q: mpf) -> Law:
    """Of the sum that a user is in with probability q."""
    both = law.keys() & moved.keys()
    return {z: (1 - q) * law[z] + q * moved[z] for z in both}


@pytest.mark.thinned(3)
@pytest.mark.parametrize("q", ["0.01", "0.3", "0.9"])
def test_mixtures_are_as_close_as_what_is_mixed(q: str) -> None:
    """The laws of the real sum and of the rounded Gaussian, each mixed alike, differ by no more than the lemma says;
    where e(s) is large enough to be seen, by a good part of that."""
    with workdps(50):
        parameters, s_squared = [mpf("0.32"), mpf("0.35")], mpf("0.16")
        real = mixed(of_the_sum(parameters, 0, 6), of_the_sum(parameters, 2, 6), mpf(q))
        rounded = [of_the_rounded(sum(parameters), s_squared, x, 6) for x in (0, 2)]
        close = mixed(*rounded, mpf(q))
        found = max(abs(exact_log(real[z] / close[z])) for z in real)
        assert eta(parameters, s_squared) / 5 <= found <= eta(parameters, s_squared)


def laws() -> tuple[np.ndarray, np.ndarray]:
    """A discrete Gaussian of that parameter, and the same mixed with what one contribution moves it to."""
    at = np.arange(-400, 401)
    with np.errstate(under="ignore"):
        still, moved = (np.exp(-((at - x) ** 2) / (2 * VARIANCE)) for x in (0, MOVED))
    still, moved = still / still.sum(), moved / moved.sum()
    return still, (1 - float(RATE)) * still + float(RATE) * moved


def renyi(p: np.ndarray, q: np.ndarray, order: int) -> float:
    return log(float((p * (p / q) ** (order - 1)).sum())) / (order - 1)


@pytest.mark.parametrize("order", [2, 3, 8, 16])
def test_no_divergence_of_the_laws_is_above_what_is_charged(order: int) -> None:
    """And it is within 3% of one of them: the Gaussian that the sum is close to has 1% less variance. Control: at half
    the rate it is not enough."""
    still, sampled = laws()
    found = max(renyi(sampled, still, order), renyi(still, sampled, order))
    charged = rdp.curve(SAMPLED, (order,))[0]
    assert 0.97 * charged < found <= charged
    assert rdp.curve(replace(SAMPLED, sampling=PoissonSample(RATE / 2)), (order,))[0] < found


@pytest.mark.parametrize("epsilon", [0.1, 0.5, 1.0])
def test_no_trade_of_the_laws_is_above_that_of_the_loss_distribution(epsilon: float) -> None:
    """delta at this epsilon, in the worse direction."""
    still, sampled = laws()
    delta = max(float(np.maximum(p - exp(epsilon) * q, 0).sum()) for p, q in ((sampled, still), (still, sampled)))
    accountant = PldAccountant()
    accountant.compose(SAMPLED)
    assert epsilon <= accountant.epsilon(delta) < epsilon + 0.02


@pytest.mark.long
def test_the_cost_is_that_of_the_sampled_gaussian_that_it_is_close_to() -> None:
    """In many dimensions, of many draws: with what these are away from a Gaussian on top."""
    many = Release(DiscreteGaussians(Fraction(1604), 10**6, 10**6, 400), PoissonSample(RATE), INSIDE)
    gaussian = Release(Gaussian(Fraction(2)), PoissonSample(RATE), replace(INSIDE, trust=Trust.CENTRAL))
    curves = rdp.curve(many), rdp.curve(gaussian)
    assert curves[0] == pytest.approx(curves[1], rel=1e-12)
    both = PldAccountant(), PldAccountant()
    for accountant, event in zip(both, (many, gaussian), strict=True):
        accountant.compose(event, 20)
    assert both[0].epsilon(1e-5) == pytest.approx(both[1].epsilon(1e-5), rel=1e-9)
    huge = Release(DiscreteGaussians(Fraction(1604), 10**15, 10**15, 400), PoissonSample(RATE), INSIDE)
    far = [a - b for a, b in zip(rdp.curve(huge), curves[1], strict=True)]
    expected = [float(Fraction(2 * a - 1, a - 1) * 2 * 10**30 * Fraction(104, 10**36)) for a in ORDERS]
    assert far == pytest.approx(expected, rel=1e-6)


# Who refuses a sample


def test_no_budget_of_kind_gdp_is_charged_with_a_sample() -> None:
    """A mixture is no Gaussian: mu^2 of one with noise for a quarter would not be enough."""
    for ask in (GdpAccountant().compose, lambda event: PrivacyCost.of(event, 1, 10**6, Kind.GDP)):
        with pytest.raises(UsageError, match="no GDP bound is known for DiscreteGaussians with PoissonSample"):
            ask(SAMPLED)
    asked = Fraction(4), Fraction(1, 10**6), Fraction(1, 10**8)
    assert Budget.suited(SAMPLED, *asked).kind is Kind.RENYI
    assert Budget.suited(replace(SAMPLED, sampling=Everyone()), *asked).kind is Kind.GDP


@pytest.mark.parametrize("accountant", [RdpAccountant, PldAccountant])
def test_who_has_no_bound(accountant: type[RdpAccountant] | type[PldAccountant]) -> None:
    """Under replace-one a sample moves from one mixture to another; of Skellam noise no bound is known."""
    for event in (
        replace(SAMPLED, guarantee=replace(INSIDE, relation=Relation.REPLACE_ONE)),
        replace(SAMPLED, mechanism=Skellam(Fraction(400), 225, 15)),
    ):
        with pytest.raises(UsageError, match="bound is known"):
            accountant().compose(event)


@pytest.mark.parametrize("wrong", [{"sampled": Fraction(0)}, {"sampled": Fraction(5, 4)}, {"users": 0}, {"overlap": 2}])
def test_no_such_facts_of_a_sum(wrong: dict[str, object]) -> None:
    facts = planned(noise=GAUSSIANS, users=200, sampled=RATE)
    assert facts.release(INSIDE).sampling == PoissonSample(RATE)
    assert replace(facts, sampled=Fraction(1)).release(INSIDE).sampling == Everyone()
    with pytest.raises(UsageError, match="sampled with a probability above 0"):
        replace(facts, **wrong)  # type: ignore[arg-type]


# How much noise


@pytest.mark.long
def test_calibration_leaves_room_for_all_rounds_and_no_more() -> None:
    asked: dict[str, float] = {"epsilon": 8, "delta": 2.5e-6, "rounds": 200, "clients": 20, "length": 64}
    found = calibrate(**asked, clip_l2=1.0, ring_bits=40, users=200, sampled=RATE, rotate=False)  # type: ignore[arg-type]
    assert found.encoding.sampled == RATE
    assert 7.9 < found.epsilon <= 8
    event = found.noise.release(20, 20, 64, found.encoding.sensitivity().l2_squared, 1, INSIDE, RATE)
    budget = Budget.suited(event, Fraction(8), Fraction(25, 10**7), Fraction(25, 10**9))
    assert budget.kind is Kind.RENYI
    samples = found.noise.samples(20, 64)
    assert Filter.of(budget).allows(PrivacyCost.of(event, 200, 200 * samples))
    assert not Filter.of(budget).allows(PrivacyCost.of(event, 206, 206 * samples))
    everybody = replace(found.encoding, sampled=Fraction(1))
    again = evaluate(everybody, found.noise, clients=20, rounds=200, delta=2.5e-6)
    assert again.epsilon > 3 * found.epsilon  # the sample is what this noise is enough for
    with pytest.raises(UsageError, match="holds each unit"):
        evaluate(found.encoding, found.noise, clients=20, rounds=1, delta=1e-6, guarantee=user_level(Relation.ZERO_OUT))
    assert user_level(Relation.ZERO_OUT, Holder.SILO) == INSIDE


@pytest.mark.long
def test_what_a_sample_costs_in_a_mean() -> None:
    """The table of docs/recommender.md: noise of the mean over the clip, 200 rounds, 4,000 users, epsilon 8."""
    rates = Fraction(1), Fraction(1, 4), Fraction(1, 10)
    for delta, table in ((2.5e-6, (2.24e-3, 2.40e-3, 2.95e-3)), (1e-4, (1.92e-3, 2.07e-3, 2.60e-3))):
        for rate, said in zip(rates, table, strict=True):
            found = []
            for factor in (0.99, 1.01):
                accountant = PldAccountant()
                noise = Gaussian(Fraction(said * factor * 4000 * float(rate)))
                accountant.compose(Release(noise, by_coins(rate), replace(INSIDE, trust=Trust.CENTRAL)), 200)
                found.append(accountant.epsilon(delta) <= 8)
            assert found == [False, True]
    for rate, said in zip(rates, (2.24e-3, 2.54e-3, 3.13e-3), strict=True):
        asked: dict[str, float] = {"epsilon": 8, "delta": 2.5e-6, "rounds": 200, "clients": 20, "length": 1000}
        found_ = calibrate(**asked, clip_l2=1.0, ring_bits=32, users=200, sampled=rate, rotate=False)  # type: ignore[arg-type]
        assert found_.noise_multiplier / (4000 * float(rate)) == pytest.approx(said, rel=0.005)
