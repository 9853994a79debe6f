"""Calibration: there and back, monotone, refusing what cannot be; and the ring is as wide as it says."""

from __future__ import annotations

from fractions import Fraction
from math import exp, sqrt
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import ndtr

from dp import calibrate as module
from dp.calibrate import Calibration, calibrate, evaluate, sampler_slack, user_level
from dp.events import Everyone, Relation, Release
from dp.filter import Budget, Filter, Kind, PrivacyCost
from dp.noise import Family, NoiseSpec
from secagg.crypto.ring import Ring
from secagg.encoding import Encoding
from secagg.errors import BudgetError, UsageError

BASE: dict[str, Any] = {
    "epsilon": 3.0, "delta": 1e-6, "rounds": 20, "clients": 100, "length": 5000, "clip_l2": 0.5, "ring_bits": 24,
    "dropouts": 10, "colluders": 5,
}  # fmt: skip
RELATIONS = [Relation.ZERO_OUT, Relation.REPLACE_ONE]
"""Those that distributed noise has a bound under."""


def calibrated(**changes: Any) -> Calibration:
    return calibrate(**(BASE | changes))


@given(
    epsilon=st.floats(0.2, 20),
    rounds=st.integers(1, 200),
    length=st.sampled_from([1, 100, 65536, 10**6]),
    clip_l2=st.floats(1e-3, 1e3),
    family=st.sampled_from(Family),
    relation=st.sampled_from(RELATIONS),
    beta=st.sampled_from([Fraction(0), Fraction(3, 5)]),
)
@settings(max_examples=40, deadline=None)
def test_there_and_back(**asked: Any) -> None:
    found = calibrated(**asked, ring_bits=32)
    again = evaluate(
        found.encoding, found.noise, clients=100, rounds=asked["rounds"], delta=1e-6,
        guarantee=user_level(asked["relation"]),
    )  # fmt: skip
    assert again == found
    assert 0.98 * asked["epsilon"] <= found.epsilon <= asked["epsilon"]
    assert found.ring_bits <= 32
    found.encoding.check_ring(Ring(found.ring_bits), 100, found.noise.coordinate_bound(100, found.encoding.coordinates))


@pytest.mark.parametrize(
    "harder",
    [
        {"epsilon": 1.0},
        {"rounds": 100},
        {"delta": 1e-9},
        {"relation": "replace-one"},
        {"beta": Fraction(0), "ring_bits": 18},
    ],
)
def test_asking_for_more_takes_more_noise(harder: dict[str, Any]) -> None:
    easier = {key: value for key, value in harder.items() if key == "ring_bits"}
    assert calibrated(**harder).deviation > calibrated(**easier).deviation


def test_a_wider_ring_rounds_more_finely() -> None:
    coarse, fine = calibrated(ring_bits=18), calibrated(ring_bits=28)
    assert coarse.encoding.scale < fine.encoding.scale
    assert coarse.deviation > fine.deviation > 0.5 * fine.noise_multiplier  # clip_l2 is 0.5


def test_removable_noise_leaves_no_excess_when_nobody_drops() -> None:
    plain, removable = calibrated(), calibrated(components=10)
    assert removable.noise.honest_variance(100, 100) == removable.noise.variance
    assert plain.noise.honest_variance(100, 100) == plain.noise.variance * Fraction(95, 85)
    with_all = evaluate(plain.encoding, plain.noise, clients=100, survivors=100, rounds=20, delta=1e-6)
    assert with_all.epsilon < plain.epsilon


def test_what_was_drawn_from_the_samplers_is_charged_to_delta() -> None:
    noise = NoiseSpec(Family.SKELLAM, Fraction(10**9), dropouts=4, components=4)
    slack = sampler_slack(2.0, 7 * noise.samples(10, 100))
    assert slack == pytest.approx((1 + 7.38905609893065) * 7 * 10 * 100 * 5 * 2.0**-128)
    hopeless = NoiseSpec(Family.SKELLAM, Fraction(10**6))
    assert evaluate(Encoding(9, 1.0), hopeless, clients=3, rounds=100, delta=1e-6).epsilon == float("inf")


def test_a_worse_sampler_would_leave_no_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    found = calibrated()
    monkeypatch.setattr(module, "STATISTICAL_DISTANCE", Fraction(1, 1 << 40))
    assert evaluate(found.encoding, found.noise, clients=100, rounds=20, delta=1e-6).epsilon == float("inf")


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("components", [0, 10])
def test_as_many_rounds_as_planned_fit_the_budget_and_not_one_more(relation: Relation, components: int) -> None:
    found = calibrated(relation=relation, components=components)
    sensitivity, dimension = found.encoding.sensitivity(), found.encoding.coordinates
    mechanism = found.noise.mechanism(100, 90, dimension, sensitivity.l2_squared, sensitivity.l1)
    event = Release(mechanism, Everyone(), user_level(relation))
    budget = Budget.suited(event, Fraction(3), Fraction(1, 10**6), slack=Fraction(1, 10**8))
    assert budget.kind is Kind.GDP
    cost = PrivacyCost.of(event, 1, found.noise.samples(100, dimension), budget.kind)
    spent = Filter.of(budget)
    for number in range(20):
        spent = spent.reserve(str(number), cost)
    with pytest.raises(BudgetError):
        spent.reserve("one more", cost)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"epsilon": 0}, "above zero"),
        ({"epsilon": -1}, "above zero"),
        ({"delta": 0.0}, "delta"),
        ({"delta": 1.0}, "delta"),
        ({"rounds": 0}, "round"),
        ({"ring_bits": 10}, "ring of 10 bits"),
        ({"dropouts": 60, "colluders": 40}, "nobody is left"),
        ({"ring_bits": 10, "epsilon": 50}, "variance of 8 or more"),
        ({"ring_bits": 10, "family": Family.SKELLAM}, "ring of 10 bits$"),
        ({"components": 11}, "do not fit"),
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        calibrated(**change)


def test_the_published_points_come_out() -> None:
    """n=100, d=65536, z=4, T=10: 4.021 at 16 bits a value of the sum (here: with our scale for a ring of 24 bits)."""
    asked: dict[str, Any] = {"epsilon": 4.021, "delta": 1e-6, "rounds": 10, "clients": 100, "length": 65536}
    found = calibrate(**asked, clip_l2=1.0, ring_bits=26, family=Family.SKELLAM)
    assert found.noise_multiplier == pytest.approx(4.0, rel=0.01)


@pytest.mark.parametrize(
    ("epsilon", "delta", "rounds"), [(8, 1e-6, 1), (3, 2.5e-6, 40), (1, 1e-5, 1), (0.3, 1e-6, 500)]
)
@pytest.mark.parametrize("components", [0, 4])
def test_noise_is_within_a_percent_of_what_a_gaussian_needs(
    epsilon: float, delta: float, rounds: int, components: int
) -> None:
    """From 13 bits on. The Gaussian's is Balle and Wang's, by another program: in floating point."""
    found = calibrated(epsilon=epsilon, delta=delta, rounds=rounds, components=components, clip_l2=1.0, ring_bits=32)
    assert found.encoding.bits >= 13

    def failing(z: float) -> float:
        mu = sqrt(rounds) / z
        return float(ndtr(mu / 2 - epsilon / mu) - exp(epsilon) * ndtr(-mu / 2 - epsilon / mu))

    z = brentq(lambda z: failing(z) - delta, 0.05, 1000)
    assert z <= found.noise_multiplier <= 1.01 * z


def test_noise_is_never_more_than_the_samplers_can_draw() -> None:
    found = calibrate(epsilon=1, delta=1e-5, rounds=1, clients=3, length=4, clip_l2=1.0, ring_bits=60, rotate=False)
    assert found.noise.drawable(3)
    finer = found.noise.__class__(found.noise.family, 8 * found.noise.variance)
    assert not finer.drawable(3)  # one bit more would not be
