"""Lower bounds on epsilon: the paper's check points, agreement with slow code, coverage and power."""

import math

import numpy as np
import pytest
from scipy.stats import binom, norm

from dp.audit import clopper_pearson, gaussian_epsilon, one_run_epsilon, rates_epsilon, rates_mu
from secagg.errors import UsageError


@pytest.mark.parametrize(
    ("canaries", "guesses", "correct", "epsilon"),
    [(1000, 100, 100, 3.465), (1000, 200, 150, 0.820), (5000, 1000, 900, 2.018)],
)
def test_check_points_of_the_one_run_bound(canaries: int, guesses: int, correct: int, epsilon: float) -> None:
    assert one_run_epsilon(canaries, guesses, correct, delta=1e-5) == pytest.approx(epsilon, abs=5e-4)


@pytest.mark.parametrize(("m", "r", "v", "delta"), [(50, 20, 18, 1e-3), (1000, 60, 50, 1e-5), (7, 7, 7, 1e-2)])
def test_the_one_run_bound_is_where_the_formula_reaches_the_error(m: int, r: int, v: int, delta: float) -> None:
    rate = 1 / (1 + math.exp(-one_run_epsilon(m, r, v, delta)))
    mass = [math.comb(r, x) * rate**x * (1 - rate) ** (r - x) for x in range(r + 1)]
    slack = max(sum(mass[v - i : v]) / i for i in range(1, v + 1))
    assert sum(mass[v:]) + 2 * m * delta * slack == pytest.approx(0.05, rel=1e-6)


def test_the_one_run_bound_is_weak() -> None:
    """1000 canaries at a true epsilon of 10, all guessed, show 1.5; if 10 comes from an RDP bound (mu 1.76), 1.3.

    Guessing only the 200 clearest shows 3.4. Each is the bound at the expected number of right guesses.
    """
    assert gaussian_epsilon(2.0, 1e-5) == pytest.approx(10, abs=0.01)
    assert 1.76**2 / 2 + 1.76 * math.sqrt(2 * math.log(1e5)) == pytest.approx(10, abs=0.01)
    shown = {mu: one_run_epsilon(1000, 1000, round(1000 * norm.cdf(mu / 2)), 1e-5) for mu in (2.0, 1.76)}
    assert shown[2.0] == pytest.approx(1.53, abs=0.05)
    assert shown[1.76] == pytest.approx(1.32, abs=0.05)
    assert one_run_epsilon(1000, 200, 198, 1e-5) == pytest.approx(3.4, abs=0.2)


def test_one_run_edges() -> None:
    assert one_run_epsilon(100, 10, 0, 1e-5) == 0
    assert one_run_epsilon(100, 10, 5, 1e-5) == 0
    for wrong in ((10, 11, 5), (10, 5, 6), (10, 0, 0), (10, 5, -1)):
        with pytest.raises(UsageError):
            one_run_epsilon(*wrong, 1e-5)
    for error in (0.0, 0.5, math.nan):
        with pytest.raises(UsageError):
            one_run_epsilon(10, 5, 5, 1e-5, error)


@pytest.mark.parametrize("mu", [1e-3, 0.1, 1.0, 5.0, 30.0])
@pytest.mark.parametrize("delta", [1e-10, 1e-5, 0.3])
def test_gaussian_epsilon_solves_its_equation(mu: float, delta: float) -> None:
    epsilon = gaussian_epsilon(mu, delta)

    def exact(e: float) -> float:
        return float(norm.cdf(mu / 2 - e / mu) - math.exp(e + norm.logcdf(-mu / 2 - e / mu)))

    assert epsilon == 0 or exact(epsilon) == pytest.approx(delta, rel=1e-4)
    assert epsilon > 0 or exact(0.0) <= delta


def test_gaussian_epsilon_of_nothing_and_of_everything() -> None:
    assert (gaussian_epsilon(0.0, 1e-5), gaussian_epsilon(-1.0, 1e-5), gaussian_epsilon(math.inf, 1e-5)) == (
        0,
        0,
        math.inf,
    )


@pytest.mark.parametrize("trials", [10, 200])
@pytest.mark.parametrize("rate", [0.0, 0.03, 0.5, 1.0])
def test_clopper_pearson_covers(trials: int, rate: float) -> None:
    """Exactly computed: each end is on the wrong side with probability at most 2%."""
    hits = np.arange(trials + 1)
    mass = binom.pmf(hits, trials, rate)
    ends = np.array([clopper_pearson(int(k), trials, 0.02) for k in hits])
    assert mass[ends[:, 0] > rate].sum() <= 0.02
    assert mass[ends[:, 1] < rate].sum() <= 0.02
    assert (ends[:, 0] <= hits / trials).all()
    assert (hits / trials <= ends[:, 1]).all()


def test_clopper_pearson_edges() -> None:
    for wrong in ((1, 0), (-1, 5), (6, 5)):
        with pytest.raises(UsageError):
            clopper_pearson(*wrong, 0.05)
    with pytest.raises(UsageError):
        clopper_pearson(1, 2, 0.7)


def test_rates_of_randomised_response_show_its_epsilon_and_never_more() -> None:
    """Pure epsilon 2 with 10^4 runs a side: within 10% at the expected counts, and no less than 0 at any."""
    wrong = round(10_000 / (1 + math.exp(2)))
    assert 1.8 < rates_epsilon(wrong, 10_000, wrong, 10_000, delta=0.0) < 2
    assert rates_epsilon(5000, 10_000, 5000, 10_000, delta=0.0) == 0
    assert rates_epsilon(10, 10, 10, 10, delta=0.0) == 0
    assert rates_epsilon(0, 10_000, 9000, 10_000, 1e-5) == pytest.approx(
        math.log((1 - 1e-5 - clopper_pearson(9000, 10_000, 0.025)[1]) / clopper_pearson(0, 10_000, 0.025)[1])
    )


def test_rates_in_either_direction() -> None:
    assert rates_epsilon(0, 1000, 700, 1000, 1e-5) == rates_epsilon(700, 1000, 0, 1000, 1e-5) > 3


def test_rates_mu_is_below_the_truth_and_near_it() -> None:
    wrong = round(1000 * norm.sf(0.5))
    assert 0.7 < rates_mu(wrong, 1000, wrong, 1000) < 1
    assert rates_mu(600, 1000, 600, 1000) == 0


@pytest.mark.long
def test_lower_bounds_from_rates_cover() -> None:
    """A Gaussian mechanism of mu 1: at most 5% of 1000 audits of 200 runs exceed the truth (6 deviations: 1e-9)."""
    rng, truth = np.random.default_rng(8), gaussian_epsilon(1.0, 1e-5)
    counts = [(int(fp), 100, int(fn), 100) for fp, fn in rng.binomial(100, norm.sf(0.5), (1000, 2))]
    limit = 1000 * 0.05 + 6 * math.sqrt(1000 * 0.05 * 0.95)
    assert sum(rates_mu(*c) > 1 for c in counts) < limit
    assert sum(rates_epsilon(*c, 1e-5) > truth for c in counts) < limit
