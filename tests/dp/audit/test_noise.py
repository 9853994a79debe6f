"""The noise test: what it sees, and how seldom it is wrong.

Rates of 1e-9 cannot be counted, so they are computed from the noise laws; rates of 5% are counted as well. Seeds are
fixed; a fresh one would change a result with the probability stated, else below 1e-9.
"""

import math
from dataclasses import replace

import numpy as np
import pytest

from dp.audit import Claim, Verdict, audit_noise, enough_coordinates, gaussian_epsilon, spikes, visible_share
from dp.audit.margins import variance_margin
from dp.audit.noise import gain_check, peak_check, repeats_check, variance_check
from dp.events import Relation
from secagg.errors import UsageError
from tests.scenes.noise_laws import binomial_limit, discrete_gaussian_law, skellam, skellam_law

SIGMA = 1000.0
CLAIM = Claim(
    noise_std=SIGMA,
    clip_l2=SIGMA,
    mu=1.0,
    epsilon=gaussian_epsilon(1.0, 1e-5),
    delta=1e-5,
    relation=Relation.ADD_OR_REMOVE,
    excess_kurtosis=SIGMA**-2,
)
MANY = 1 << 22


def log_tail(law: tuple[np.ndarray, np.ndarray], count: int, margin: float) -> tuple[float, float]:
    """Chernoff bounds on the logarithms of the chances that the mean square is off by ``margin``, below and above.

    On what the law puts within its arrays; what lies outside is bounded by the caller.
    """
    values, masses = law
    squares = values**2 / float(values**2 @ masses)

    def least(tilts: np.ndarray, end: float) -> float:
        return min(count * (math.log(float(np.exp(t * squares) @ masses)) - t * end) for t in tilts)

    return least(-np.linspace(0, 4 * margin, 400), 1 - margin), least(np.linspace(0, 2 * margin, 400), 1 + margin)


@pytest.mark.parametrize("count", [1 << 16, 1 << 20, MANY])
@pytest.mark.parametrize("variance", [9.0, 100.0, 10_000.0])
def test_the_margin_holds_for_the_noise_laws(count: int, variance: float) -> None:
    """1e-9, on both sides together; and a margin a tenth narrower would not do."""
    reach = math.ceil(9 * math.sqrt(variance)) + 40  # outside: below 1e-16 a coordinate, or 1e-9 among all of them
    for law, kurtosis in ((skellam_law(variance, reach), 1 / variance), (discrete_gaussian_law(variance, reach), 0.0)):
        assert abs(float(law[1].sum()) - 1) < 1e-13
        margin = variance_margin(count, kurtosis, 1e-9)
        below, above = log_tail(law, count, margin)
        assert below <= math.log(0.5e-9)
        assert above <= math.log(0.5e-9)
        assert max(log_tail(law, count, 0.9 * margin)) > math.log(0.5e-9)


@pytest.mark.parametrize("kurtosis", [3.0, 3.5, 6.0, 30.0])
def test_the_lower_margin_holds_for_any_law(kurtosis: float) -> None:
    """ln(1 - x + k x^2 / 2) + x <= (k - 1) x^2 / (2 - 4x) on [0, 1/2): sub-gamma with variance k - 1 and scale 2."""
    x = np.linspace(0, 0.499, 5000)
    assert (np.log(1 - x + kurtosis * x**2 / 2) + x <= (kurtosis - 1) * x**2 / (2 - 4 * x) + 1e-15).all()


@pytest.mark.long
def test_one_missing_client_of_a_hundred_is_seen_and_a_complete_sum_is_not() -> None:
    """2^22 coordinates: missed (or raised for nothing) with probability below 1e-9."""
    rng = np.random.default_rng(1)
    complete = skellam(rng, SIGMA**2, (1, MANY))
    assert variance_check(complete, CLAIM).verdict is Verdict.PASSED
    missing = skellam(rng, 0.99 * SIGMA**2, (1, MANY))
    assert variance_check(missing, CLAIM).verdict is Verdict.FAILED
    left_in = skellam(rng, 1.01 * SIGMA**2, (1, MANY))
    assert variance_check(left_in, CLAIM).verdict is Verdict.FINDING


def test_the_power_that_is_promised() -> None:
    """Standard deviations between the margin and a client missing of 100: 8 at 2^22 coordinates, 0.5 at 10^6."""

    def power(count: int) -> float:
        return (0.01 - variance_margin(count, 0.0, 1e-9)) / (0.99 * math.sqrt(2 / count))

    assert power(MANY) > 7.9
    assert 0.4 < power(10**6) < 0.6


@pytest.mark.parametrize("share", [0.3, 0.1, 0.01])
@pytest.mark.parametrize("kurtosis", [0.0, 1.0])
def test_enough_coordinates_are_enough_and_hardly_more(share: float, kurtosis: float) -> None:
    count = enough_coordinates(share, kurtosis)
    assert visible_share(count, kurtosis) <= share < visible_share(count - 1, kurtosis)
    assert (1 - share) * (1 + variance_margin(count, kurtosis, 1e-9)) <= 1 - variance_margin(count, kurtosis, 1e-9)
    for wrong in (0.0, 1.0):
        with pytest.raises(UsageError, match="between 0 and 1"):
            enough_coordinates(wrong, kurtosis)


@pytest.mark.parametrize(("height", "places"), [(1.0, 1), (0.5, 4), (0.1, 100), (0.01, 200)])
def test_spikes_use_the_clip_and_no_more(height: float, places: int) -> None:
    known = np.array(spikes(clients=1, length=200, rounds=6, height=height, clip_l2=1.0))[:, 0]
    assert not known[1::2].any()
    known = known[::2]
    assert ((known > 0).sum(axis=1) == places).all()
    assert np.linalg.norm(known, axis=1).max() <= (1.0 if places < 200 else 0.2) * (1 + 1e-12)
    assert places == 200 or ((known > 0).sum(axis=0) <= 2).all()


@pytest.mark.parametrize("check", ["variance", "peak", "gain", "repeats"])
def test_alarms_on_correct_noise_are_as_rare_as_stated(check: str) -> None:
    """At a stated 5%: 1000 audits of 2 rounds of 256 coordinates, the count within 6 standard deviations (1e-9)."""
    rng, alarms = np.random.default_rng(2), 0
    claim = replace(CLAIM, noise_std=3.0, clip_l2=3.0, excess_kurtosis=1 / 9)
    for residuals in skellam(rng, 9.0, (1000, 2, 256)):
        found = {
            "variance": lambda r: variance_check(r, claim, 0.05),
            "peak": lambda r: peak_check(r, claim, 0.05),
            "gain": lambda r: gain_check(r, np.ones_like(r), claim, 0.05),
            "repeats": lambda r: repeats_check(r, claim.noise, 0.05),
        }[check](residuals)
        alarms += found.verdict is not Verdict.PASSED
    assert alarms < binomial_limit(1000, 0.05)


def test_a_sum_that_wraps_once_is_seen() -> None:
    noise = skellam(np.random.default_rng(3), SIGMA**2, (2, 1 << 16))
    assert peak_check(noise, CLAIM).verdict is Verdict.PASSED
    noise[1, 77] -= 1 << 15
    assert variance_check(noise, CLAIM).verdict is Verdict.PASSED
    assert peak_check(noise, CLAIM).verdict is Verdict.FAILED


@pytest.mark.parametrize("factor", [0.99, 1.01])
def test_a_scale_that_is_off_is_seen(factor: float) -> None:
    """1% of a known sum of 2000 standard deviations: 20 of them, 13 beyond the limit."""
    noise = skellam(np.random.default_rng(4), SIGMA**2, (4, 1000))
    known = np.zeros_like(noise)
    known[:, 3] = 1000 * SIGMA
    assert gain_check(noise, known, CLAIM).verdict is Verdict.PASSED
    assert gain_check(noise + (factor - 1) * known, known, CLAIM).verdict is Verdict.FAILED


@pytest.mark.parametrize("part", [1.0, 0.2])
@pytest.mark.parametrize("shift", [0, 1, 4097, -20_000])
def test_noise_that_returns_is_seen_at_any_shift(part: float, shift: int) -> None:
    """The whole noise, or one client's of five."""
    rng, length = np.random.default_rng(5), 1 << 16
    returning, rest = skellam(rng, part * SIGMA**2, length), skellam(rng, (1 - part) * SIGMA**2 + 1e-9, (3, length))
    noise = rest.copy()
    assert repeats_check(skellam(rng, SIGMA**2, (3, length)), CLAIM.noise).verdict is Verdict.PASSED
    noise[0] += returning
    noise[1] += skellam(rng, part * SIGMA**2, length)
    noise[2] += np.roll(returning, shift)
    assert repeats_check(noise, CLAIM.noise).verdict is Verdict.FAILED


@pytest.mark.parametrize("shift", [1, 1000, 1 << 15])
def test_noise_that_returns_within_a_round_is_seen(shift: int) -> None:
    noise = skellam(np.random.default_rng(6), SIGMA**2, (1, 1 << 16))
    assert repeats_check(noise, CLAIM.noise).verdict is Verdict.PASSED
    repeated = np.tile(noise[:, :shift], -(-(1 << 16) // shift))
    assert repeats_check(repeated[:, : 1 << 16], CLAIM.noise).verdict is Verdict.FAILED


def test_inputs_are_subtracted_and_dropped_ones_are_not() -> None:
    rng = np.random.default_rng(7)
    rounds = spikes(clients=5, length=64, rounds=40, height=100 * SIGMA, clip_l2=100 * SIGMA)

    def pipeline(updates: list[np.ndarray]) -> np.ndarray:
        return sum(updates[1:]) + skellam(rng, SIGMA**2, 64)

    verdicts = [check.verdict for check in audit_noise(pipeline, CLAIM, rounds, dropped={0})]
    assert verdicts == [Verdict.PASSED] * 7
    assert audit_noise(pipeline, CLAIM, rounds)[2].verdict is Verdict.FAILED


def test_known_inputs_must_be_there() -> None:
    with pytest.raises(UsageError, match="show no gain"):
        audit_noise(lambda updates: sum(updates), CLAIM, [[np.zeros(4)] * 3])
