"""Lower bounds on epsilon from guesses about who was in a release.

Two ways from a number of right guesses to a lower bound that holds for every (epsilon, delta)-private mechanism, and
two that assume the trade-off curve of a Gaussian mechanism and are much tighter where that is what runs:

    one_run_epsilon   many canaries in one run (Steinke, Nasr and Jagielski 2023, "Privacy Auditing with One (1)
                      Training Run", Theorem 5.2). Low power: 1000 canaries, all guessed, show 1.5 of a true 10
    rates_epsilon     one canary in each of many runs: Clopper and Pearson 1934 on false positives and false negatives
    rates_mu          the same rates, read as Gaussian differential privacy (Nasr et al. 2023, "Tight Auditing")
    gaussian_epsilon  from mu to epsilon (Dong, Roth and Su 2022, Corollary 2.13)
"""

from __future__ import annotations

import math

import numpy as np

from secagg.errors import UsageError


def gaussian_epsilon(mu: float, delta: float) -> float:
    """The epsilon at ``delta`` of a Gaussian mechanism with sensitivity over noise ``mu``.

    >>> round(gaussian_epsilon(1.0, 1e-5), 3)
    4.377
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    if mu <= 0:
        return 0.0
    if math.isinf(mu):
        return mu

    def excess(epsilon: float) -> float:
        upper, lower = epsilon / mu - mu / 2, epsilon / mu + mu / 2
        return float(norm.sf(upper) - math.exp(epsilon + norm.logsf(lower))) - delta

    if excess(0.0) <= 0:
        return 0.0
    return float(brentq(excess, 0.0, mu * mu / 2 + mu * math.sqrt(2 * math.log(1 / delta)), xtol=1e-10))


def one_run_epsilon(canaries: int, guesses: int, correct: int, delta: float, error: float = 0.05) -> float:
    """The largest epsilon that ``correct`` of ``guesses`` about ``canaries`` fair coins refute.

    Refuted, with confidence 1 - error, is what has p(epsilon) = Pr[X >= v] + 2 m delta max_i Pr[v - i <= X < v] / i <=
    error, where X is binomial of r guesses and e^epsilon / (1 + e^epsilon). How many guesses are made is fixed before
    the scores are seen.

    >>> round(one_run_epsilon(1000, guesses=100, correct=100, delta=1e-5), 3)
    3.465
    """
    from scipy.optimize import brentq
    from scipy.stats import binom

    if not 0 <= correct <= guesses <= canaries or guesses == 0:
        raise UsageError("correct <= guesses <= canaries, and at least one guess")
    _check_error(error)

    def excess(epsilon: float) -> float:
        rate = 1 / (1 + math.exp(-epsilon))
        below = np.arange(1, correct + 1)
        masses = np.cumsum(binom.pmf(correct - below, guesses, rate)) / below
        slack = 2 * canaries * delta * float(masses.max(initial=0.0))
        return float(binom.sf(correct - 1, guesses, rate)) + slack - error

    if excess(0.0) >= 0:
        return 0.0
    return float(brentq(excess, 0.0, math.log(guesses / error) + 1))  # at the end, Pr[X >= v] > 1 - error / 2


def clopper_pearson(hits: int, trials: int, error: float) -> tuple[float, float]:
    """Bounds on a probability, each wrong with probability ``error`` at most.

    >>> [round(bound, 4) for bound in clopper_pearson(0, 1000, 0.025)]
    [0.0, 0.0037]
    """
    from scipy.stats import beta

    if not 0 <= hits <= trials or trials == 0:
        raise UsageError("0 <= hits <= trials, and at least one trial")
    _check_error(error)
    low = float(beta.ppf(error, hits, trials - hits + 1)) if hits else 0.0
    high = float(beta.isf(error, hits + 1, trials - hits)) if hits < trials else 1.0
    return low, high


def rates_epsilon(
    false_positives: int, absent: int, false_negatives: int, present: int, delta: float, error: float = 0.05
) -> float:
    """Epsilon is at least ln((1 - delta - fnr) / fpr), and the same with the two rates exchanged (Kairouz et al. 2015).

    The runs are independent, and what decides "present" is fixed before them.

    >>> round(rates_epsilon(5, 1000, 500, 1000, delta=1e-5), 2)
    3.7
    """
    fpr, fnr = _rates(false_positives, absent, false_negatives, present, error)
    return max([0.0, *(math.log(room / y) for x, y in ((fnr, fpr), (fpr, fnr)) if (room := 1 - delta - x) > 0)])


def rates_mu(false_positives: int, absent: int, false_negatives: int, present: int, error: float = 0.05) -> float:
    """Mu is at least the distance of two normal laws that a threshold tells apart with these error rates.

    >>> round(rates_mu(160, 1000, 160, 1000), 2)
    1.8
    """
    from scipy.stats import norm

    fpr, fnr = _rates(false_positives, absent, false_negatives, present, error)
    return max(0.0, float(norm.isf(fpr) + norm.isf(fnr)))


def _rates(false_positives: int, absent: int, false_negatives: int, present: int, error: float) -> tuple[float, float]:
    """Upper bounds on both error rates, together wrong with probability ``error`` at most."""
    return clopper_pearson(false_positives, absent, error / 2)[1], clopper_pearson(false_negatives, present, error / 2)[
        1
    ]


def _check_error(error: float) -> None:
    if not 0 < error < 0.5:
        raise UsageError("an error probability is above 0 and below 1/2")
