"""Canaries: the estimate, its error, and audits that are strong enough to be worth running."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import nct

from dp.audit import (
    Claim,
    Pipeline,
    Scores,
    Vector,
    Verdict,
    audit_canaries,
    estimate_mu,
    gaussian_epsilon,
    insert_canaries,
    mu_interval,
    one_run_bounds,
    repeated_runs_bounds,
)
from dp.events import Relation
from secagg.crypto.prg import Prg
from secagg.errors import UsageError

DELTA = 1e-5


def claim(mu: float, relation: Relation = Relation.ADD_OR_REMOVE) -> Claim:
    clip_l2 = mu / relation.stretch
    return Claim(1.0, clip_l2, mu, gaussian_epsilon(mu, DELTA), DELTA, relation)


def gaussian(seed: int = 1, std: float = 1.0) -> Pipeline:
    """A plain Gaussian mechanism: known to be exactly as private as its mu says."""
    rng = np.random.default_rng(seed)

    def pipeline(updates: Sequence[Vector]) -> Vector:
        return np.sum(updates, axis=0) + rng.normal(0, std, len(updates[0]))

    return pipeline


def scores_of(mu: float, canaries: int, seed: int) -> Scores:
    rng = np.random.default_rng(seed)
    present = rng.random(canaries) < 0.5
    return Scores(present, mu * present + rng.normal(size=canaries))


RELATIONS = pytest.mark.parametrize("relation", list(Relation))


@RELATIONS
@pytest.mark.parametrize("mu", [0.5, 1.0, 2.0])
@pytest.mark.thinned(3)
def test_a_thousand_canaries_see_mu(mu: float, relation: Relation) -> None:
    """Within 6 standard errors (false alarm 2e-9), which are those of the formula; both checks pass."""
    planned = claim(mu, relation)
    scores = insert_canaries(
        gaussian(), planned, clients=60, canaries=50, length=8192, rounds=20, rng=Prg(b"m" * 32)
    )  # fmt: skip
    seen, error = estimate_mu(scores)
    assert error == pytest.approx(2 / math.sqrt(1000) * math.sqrt(1 + mu**2 / 8), rel=0.05)
    assert abs(seen - mu) < 6 * error
    assert [check.verdict for check in audit_canaries(scores, planned)] == [Verdict.PASSED] * 2


def test_the_standard_error_is_the_spread_of_the_estimate() -> None:
    """800 estimates: their standard deviation is known to 2.5%, 6 of these are 15% (false alarm 2e-9)."""
    for mu in (0.5, 3.0):
        estimates = [estimate_mu(scores_of(mu, 400, seed))[0] for seed in range(800)]
        assert np.std(estimates) == pytest.approx(2 / math.sqrt(400) * math.sqrt(1 + mu**2 / 8), rel=0.15)
        assert np.mean(estimates) == pytest.approx(mu, abs=0.03)


@pytest.mark.parametrize("mu", [0.1, 1.0, 4.0, 8.0])
@pytest.mark.parametrize(("error", "off"), [(0.05, 1.02), (1e-9, 2.0)])
def test_the_interval_is_that_of_the_noncentral_t_law(mu: float, error: float, off: float) -> None:
    """At either end the tail of the law beyond the estimate is ``error``, up to a factor; at the lower, safely."""
    m = 1000
    scores = scores_of(mu, m, seed=9)
    present = int(scores.present.sum())
    width = math.sqrt(1 / present + 1 / (m - present))
    seen = estimate_mu(scores)[0] / width
    low, high = (end / width for end in mu_interval(scores, error))
    assert error / (1.2 * off) < nct.sf(seen, m - 2, low) < error * 1.0001
    assert error * 0.9999 < nct.cdf(seen, m - 2, high) < error * off


@pytest.mark.parametrize("factor", [2.0, 1.5])
def test_less_noise_than_claimed_is_seen(factor: float) -> None:
    """A mu of 2 (or 1.5) instead of 1 is 14 (7) standard errors away: missed with probability below 1e-9 (10%)."""
    planned = claim(1.0)
    few = {"clients": 20, "canaries": 20, "length": 4096, "rng": Prg(b"h" * 32)}
    scores = insert_canaries(gaussian(2, std=1 / factor), planned, rounds=100, **few)
    checks = audit_canaries(scores, planned)
    assert [check.verdict for check in checks] == [Verdict.FAILED, Verdict.PASSED]


def test_a_signal_that_never_arrives_is_a_finding() -> None:
    planned = claim(1.0)
    scores = scores_of(0.0, 1000, seed=3)
    assert [check.verdict for check in audit_canaries(scores, planned)] == [Verdict.PASSED, Verdict.FINDING]


def test_no_noise_at_all_is_seen() -> None:
    present = np.arange(1000) % 2 == 0
    scores = Scores(present, present.astype(float))
    assert mu_interval(scores, 0.05) == (math.inf, math.inf)
    assert audit_canaries(scores, claim(1.0))[0].verdict is Verdict.FAILED
    assert one_run_bounds(scores, claim(1.0), guesses=200).gaussian == math.inf


def test_an_empty_release_has_no_mu() -> None:
    scores = Scores(np.arange(1000) % 2 == 0, np.zeros(1000))
    low, high = mu_interval(scores, 0.05)
    assert low == -high < 0
    assert audit_canaries(scores, claim(1.0))[1].verdict is Verdict.FINDING


@pytest.mark.parametrize(("mu", "part"), [(0.5, 0.4), (1.0, 0.65), (2.0, 0.8)])
def test_many_canaries_find_most_of_a_tight_epsilon(mu: float, part: float) -> None:
    """An audit that never shows 0.3 of what is there is blind."""
    planned = claim(mu)
    scores = insert_canaries(
        gaussian(4), planned, clients=50, canaries=50, length=8192, rounds=20, rng=Prg(b"t" * 32)
    )  # fmt: skip
    bounds = one_run_bounds(scores, planned, guesses=200)
    assert part * planned.epsilon < bounds.gaussian < planned.epsilon
    assert bounds.general < planned.epsilon


@pytest.mark.parametrize("mu", [1.0, 2.0])
def test_repeated_small_runs_find_most_of_a_tight_epsilon(mu: float) -> None:
    planned = claim(mu)
    scores = insert_canaries(
        gaussian(5), planned, clients=2, canaries=1, length=16, rounds=2000, rng=Prg(b"r" * 32)
    )  # fmt: skip
    bounds = repeated_runs_bounds(scores, planned)
    assert 0.6 * planned.epsilon < bounds.gaussian < planned.epsilon
    assert 0.1 * planned.epsilon < bounds.general < planned.epsilon


def test_the_lower_bound_covers() -> None:
    """Of 1000 audits at 95%, at most 5% exceed the truth (6 standard deviations: 1e-9)."""
    exceeded = sum(mu_interval(scores_of(1.0, 200, seed), 0.05)[0] > 1 for seed in range(1000))
    assert exceeded < 1000 * 0.05 + 6 * math.sqrt(1000 * 0.05 * 0.95)


@RELATIONS
def test_absent_is_zero_or_the_opposite(relation: Relation) -> None:
    planned, sent = claim(1.0, relation), []
    loud = lambda updates: sent.append(updates) or gaussian()(updates)  # noqa: E731
    scores = insert_canaries(loud, planned, clients=5, canaries=4, length=256, rounds=3, rng=Prg(b"a" * 32))
    assert len(scores.values) == 12
    norms = np.array([np.linalg.norm(update) for updates in sent for update in updates]).reshape(3, 5)
    assert (norms[:, 4] == 0).all()
    expected = np.where(scores.present | (relation is Relation.REPLACE_ONE), planned.clip_l2, 0.0)
    np.testing.assert_allclose(norms[:, :4].ravel(), expected)


def test_right_guesses_and_errors_are_counted() -> None:
    scores = Scores(np.array([True, False, True, False, True]), np.array([5.0, 1.0, 4.0, 6.0, -1.0]))
    assert scores.errors_at(4.5) == (1, 2, 2, 3)
    assert scores.correct(2) == 0  # -1 is present, 6 absent
    assert scores.correct(4) == 2
    assert scores.correct(5) == 3  # the lower two, the upper three


def test_what_is_refused() -> None:
    planned = claim(1.0)
    few = {"rounds": 1, "rng": Prg(bytes(32))}
    for clients, canaries in ((4, 5), (4, 0)):
        with pytest.raises(UsageError, match="can be canaries"):
            insert_canaries(gaussian(), planned, clients=clients, canaries=canaries, length=512, **few)
    with pytest.raises(UsageError, match="drown one another"):
        insert_canaries(gaussian(), planned, clients=100, canaries=100, length=512, **few)
    with pytest.raises(UsageError, match="too few"):
        audit_canaries(scores_of(1.0, 999, seed=1), planned)
    with pytest.raises(UsageError, match="one coin"):
        Scores(np.ones(3, bool), np.zeros(4))
    with pytest.raises(UsageError, match="none was absent"):
        Scores(np.ones(3, bool), np.zeros(3))
    with pytest.raises(UsageError, match="no spread"):
        estimate_mu(Scores(np.array([True, False]), np.zeros(2)))


def test_an_audit_replays() -> None:
    def run(seed: bytes) -> Scores:
        return insert_canaries(gaussian(6), claim(1.0), clients=3, canaries=2, length=64, rounds=20, rng=Prg(seed))

    first, again, other = run(b"s" * 32), run(b"s" * 32), run(b"o" * 32)
    np.testing.assert_allclose(first.values, again.values, rtol=1e-9, atol=1e-9)
    assert np.array_equal(first.present, again.present)
    assert not np.array_equal(first.present, other.present)
