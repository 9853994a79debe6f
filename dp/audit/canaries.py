"""Client canaries under secure sums: from the released sum alone, who was in it?

A canary is a client that sends a random direction of +-1/sqrt(d) at full clip if a private fair coin says so, and
nothing (or, where neighbours replace one client, the opposite) if not. Its score is the released sum along its
direction. The scores of present and absent canaries are two normal laws a distance mu apart, in standard deviations:

    mu_hat = (mean present - mean absent) / pooled standard deviation

With m canaries, half of them present, the difference of the means has standard error 2/sqrt(m), in standard
deviations, and one of these is known to 1/sqrt(2m) of itself: together 2/sqrt(m) * sqrt(1 + mu^2/8), absolute, not a
part of mu. 1000 canaries see mu = 1 with a standard error of 0.067, and mu = 0.1 hardly at all.

Canaries swamp a model: they are sent in dedicated runs. They also disturb one another, which adds up to the part
n (clip/noise)^2 / d to the variance of a score and so hides leakage: more than 1/16 is refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dp.audit.bounds import gaussian_epsilon, one_run_epsilon, rates_epsilon, rates_mu
from dp.audit.claim import FALSE_ALARM, Check, Claim, Pipeline, Verdict, coins, directions, release
from secagg.crypto.prg import Rng
from secagg.errors import UsageError

FEWEST = 1000
_INTERFERENCE = 1 / 16


@dataclass(frozen=True, slots=True)
class Scores:
    """For each canary, whether it was present, and its score: the released sum along its direction."""

    present: NDArray[np.bool_]
    values: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.present.shape != self.values.shape or self.present.ndim != 1:
            raise UsageError("each canary has one coin and one score")
        if not 0 < int(self.present.sum()) < len(self.present):
            raise UsageError("no canary was present, or none was absent")

    def errors_at(self, threshold: float) -> tuple[int, int, int, int]:
        """(false positives, absent, false negatives, present) when scores above ``threshold`` are guessed present."""
        guessed = self.values > threshold
        present = int(self.present.sum())
        return (
            int((guessed & ~self.present).sum()),
            len(self.present) - present,
            int((~guessed & self.present).sum()),
            present,
        )

    def correct(self, guesses: int) -> int:
        """How many guesses are right when the highest half of them is taken for present and the lowest for absent."""
        order = self.present[np.argsort(self.values, kind="stable")]
        low = guesses // 2
        return int((~order[:low]).sum() + order[len(order) - (guesses - low) :].sum())


def at_once(claim: Claim, length: int, clients: int) -> int:
    """How many canaries a release of ``length`` coordinates takes without their drowning one another.

    >>> from dp.events import Relation
    >>> claim = Claim(noise_std=2.0, clip_l2=1.0, mu=0.5, epsilon=2.0, delta=1e-5, relation=Relation.ADD_OR_REMOVE)
    >>> at_once(claim, 1000, 5000), at_once(claim, 1000, 10)
    (251, 10)
    """
    return min(clients, 1 + math.floor(_INTERFERENCE * length * (claim.noise_std / claim.clip_l2) ** 2))


def insert_canaries(
    pipeline: Pipeline, claim: Claim, *, clients: int, canaries: int, length: int, rounds: int, rng: Rng
) -> Scores:
    """Scores of ``canaries`` of the ``clients`` in each of ``rounds`` releases; the other clients send zeros."""
    if not 1 <= canaries <= clients:
        raise UsageError(f"1 to {clients} clients can be canaries, not {canaries}")
    if (canaries - 1) * (claim.clip_l2 / claim.noise_std) ** 2 > _INTERFERENCE * length:
        raise UsageError(f"{canaries} canaries drown one another in {length} coordinates: take more of these")
    absent = 1 - claim.relation.stretch  # 0, or -1 where the neighbour replaces one
    present, values = [], []
    for _ in range(rounds):
        ways = directions(rng, canaries, length)
        coin = coins(rng, canaries)
        updates = [claim.clip_l2 * factor * way for way, factor in zip(ways, np.where(coin, 1, absent), strict=True)]
        total = release(pipeline, updates + [np.zeros(length)] * (clients - canaries))
        present.append(coin)
        values.append(ways @ total)
    return Scores(np.concatenate(present), np.concatenate(values))


def estimate_mu(scores: Scores) -> tuple[float, float]:
    """Mu as the scores show it, and its standard error.

    >>> scores = Scores(np.array([True, True, False, False]), np.array([2.0, 4.0, -1.0, 1.0]))
    >>> [round(value, 3) for value in estimate_mu(scores)]
    [2.121, 1.458]
    """
    t, width, freedom = _t_statistic(scores)
    return t * width, width * math.sqrt(1 + t * t / (2 * freedom))


def mu_interval(scores: Scores, error: float) -> tuple[float, float]:
    """Bounds on mu, each wrong with probability ``error`` at most.

    mu_hat is a noncentral t variable; Abramowitz and Stegun 26.7.10 approximate its law by a normal one. For 1000
    canaries and mu up to 8, even at 1e-9 the lower bound is safe, and the upper one wrong at most twice as often.
    """
    from scipy.stats import norm

    t, width, freedom = _t_statistic(scores)
    if math.isinf(t):
        return t, t
    centre = t * (1 - 1 / (4 * freedom))
    spread = float(norm.isf(error)) * math.sqrt(1 + t * t / (2 * freedom))
    return (centre - spread) * width, (centre + spread) * width


def audit_canaries(scores: Scores, claim: Claim, false_alarm: float = FALSE_ALARM) -> tuple[Check, ...]:
    """Is the mu that the scores show at most the claimed one, and are canaries seen as well as they must be?"""
    if len(scores.values) < FEWEST:
        raise UsageError(f"{len(scores.values)} canaries are too few: {FEWEST} see mu to within 0.07")
    least, most = mu_interval(scores, false_alarm / 2)  # half: the upper one may be wrong twice as often
    visible = claim.reach / claim.noise_std / math.sqrt(1 + _INTERFERENCE)
    return (
        Check("canary mu, at least", least, -math.inf, claim.mu, false_alarm),
        Check("canary mu, at most", most, visible, math.inf, false_alarm, below=Verdict.FINDING),
    )


@dataclass(frozen=True, slots=True)
class LowerBounds:
    """Lower bounds on epsilon: one for normal scores, as of a Gaussian mechanism, and one for any scores."""

    gaussian: float
    general: float


def one_run_bounds(scores: Scores, claim: Claim, *, guesses: int, error: float = 0.05) -> LowerBounds:
    """Bounds from many canaries in few releases, each with confidence 1 - error. They are reported, not relied on.

    A fifth of the canaries is a good number of guesses; it is fixed before the scores are seen.
    """
    m = len(scores.values)
    return LowerBounds(
        gaussian_epsilon(mu_interval(scores, error)[0], claim.delta),
        one_run_epsilon(m, guesses, scores.correct(guesses), claim.delta, error),
    )


def repeated_runs_bounds(scores: Scores, claim: Claim, *, error: float = 0.05) -> LowerBounds:
    """Bounds from one canary in each of many small releases, which makes the guesses independent.

    Guessed present is what lies above the middle of where the claim expects present and absent canaries.
    """
    counts = scores.errors_at(claim.clip_l2 * (1 - claim.relation.stretch / 2))
    return LowerBounds(
        gaussian_epsilon(rates_mu(*counts, error), claim.delta), rates_epsilon(*counts, claim.delta, error)
    )


def _t_statistic(scores: Scores) -> tuple[float, float, int]:
    """(t, w, degrees of freedom): mu_hat is t * w."""
    present, absent = scores.values[scores.present], scores.values[~scores.present]
    freedom = len(scores.values) - 2
    if freedom < 1:
        raise UsageError("two canaries have no spread")
    width = math.sqrt(1 / len(present) + 1 / len(absent))
    pooled = math.sqrt((len(present) * float(present.var()) + len(absent) * float(absent.var())) / freedom)
    difference = float(present.mean() - absent.mean())
    if pooled == 0:
        return math.copysign(math.inf, difference) if difference else 0.0, width, freedom
    return difference / (pooled * width), width, freedom
