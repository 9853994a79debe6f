"""What is audited: a pipeline, what it claims, and what a check found.

Noise enters the claim as the standard deviation that a coordinate of the released sum really has (that of the sampler,
in the units of the release), as its excess kurtosis (at most 0 for discrete Gaussians of standard deviation 1 or more,
1/variance, in whole numbers, for Skellam noise), and as its step: what the whole number 1 is in the release.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dp.audit.bounds import gaussian_epsilon
from dp.events import Relation
from secagg.crypto.prg import Rng
from secagg.errors import PolicyError, UsageError

Vector: TypeAlias = NDArray[np.float64]

Pipeline: TypeAlias = Callable[[Sequence[Vector]], Vector]
"""One release: the clients' updates in, the noised sum of their clipped selves out. Each call is a round of its own."""

FALSE_ALARM = 1e-9
"""The false-alarm rate of one check by default: an audit of a hundred checks errs once in ten million."""

DISCRETE = 0.01
"""The part by which discrete noise may do better than normal noise of the same variance."""


@dataclass(frozen=True, slots=True)
class Noise:
    """What is claimed of the noise alone."""

    noise_std: float
    excess_kurtosis: float = 0.0
    step: float = 0.0
    """What the integer 1 is in the release; 0 for continuous noise."""

    def limit(self, error: float) -> float:
        """A bound in standard deviations that a weighted sum of the noise exceeds with probability at most ``error``.

        For weights of Euclidean norm 1. Chernoff's bound exp(-x^2/2) of the normal law holds for sub-Gaussian noise;
        the second term covers Skellam noise, whose ln E exp(tX) = V (cosh t - 1) <= V t^2 / (2 - 2t/3).
        """
        log = math.log(1 / error)
        return math.sqrt(2 * log) + math.sqrt(max(self.excess_kurtosis, 0.0)) * log / 3


@dataclass(frozen=True, slots=True)
class Claim:
    """What is claimed of one release, for somebody who surely takes part.

    ``mu`` is the distance of the sums of two neighbours, at most, over the standard deviation of the noise: the
    parameter of Gaussian differential privacy, 1/z. Rounding inflation makes it larger than the clip alone explains,
    nothing makes it smaller; and no noise of that strength gives a smaller epsilon than normal noise does. A claim that
    says otherwise is refused before anything is measured.

    >>> Claim(noise_std=2.0, clip_l2=1.0, mu=0.5, epsilon=1.99, delta=1e-5, relation=Relation.REPLACE_ONE)
    Traceback (most recent call last):
    secagg.errors.PolicyError: the claim contradicts itself: the clip alone makes mu 1, not 0.5
    >>> Claim(noise_std=2.0, clip_l2=1.0, mu=0.5, epsilon=0.346, delta=1e-5, relation=Relation.ADD_OR_REMOVE)
    Traceback (most recent call last):
    secagg.errors.PolicyError: the claim contradicts itself: mu 0.5 means an epsilon of 1.993, not 0.346
    """

    noise_std: float
    clip_l2: float
    mu: float
    epsilon: float
    delta: float
    relation: Relation
    excess_kurtosis: float = 0.0
    step: float = 0.0

    def __post_init__(self) -> None:
        for name in ("noise_std", "clip_l2", "mu", "epsilon"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"{name} must be above zero and finite")
        if not 0 < self.delta < 1:
            raise UsageError("delta is between 0 and 1")
        if not -2 <= self.excess_kurtosis < math.inf:
            raise UsageError("an excess kurtosis is at least -2")
        if not 0 <= self.step < math.inf:
            raise UsageError("a step is zero or more, and finite")
        if self.mu < (least := self.reach / self.noise_std) * (1 - 1e-9):
            raise PolicyError(f"the claim contradicts itself: the clip alone makes mu {least:.4g}, not {self.mu:g}")
        if self.epsilon < (least := gaussian_epsilon(self.mu, self.delta)) * (1 - DISCRETE):
            raise PolicyError(
                f"the claim contradicts itself: mu {self.mu:g} means an epsilon of {least:.4g}, not {self.epsilon:g}"
            )

    @property
    def reach(self) -> float:
        """How far the sums of two neighbours really lie apart when a client uses its whole clip."""
        return self.clip_l2 * self.relation.stretch

    @property
    def noise(self) -> Noise:
        return Noise(self.noise_std, self.excess_kurtosis, self.step)

    def normal_limit(self, error: float) -> float:
        """``Noise.limit``"""
        return self.noise.limit(error)


class Verdict(StrEnum):
    PASSED = "passed"
    FINDING = "finding"
    """The pipeline is not as planned, but no less private: too much noise, or a lost signal."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Check:
    """A figure and its allowed range, which it leaves for a correct pipeline with probability ``false_alarm``."""

    name: str
    observed: float
    low: float
    high: float
    false_alarm: float
    below: Verdict = Verdict.FAILED
    above: Verdict = Verdict.FAILED

    @property
    def verdict(self) -> Verdict:
        """
        >>> Check("variance", 1.7, 0.9, 1.1, 1e-9, above=Verdict.FINDING).verdict
        <Verdict.FINDING: 'finding'>
        """
        if self.low <= self.observed <= self.high:
            return Verdict.PASSED
        return self.above if self.observed > self.high else self.below


def false_alarm(checks: Iterable[Check]) -> float:
    """How often at least one of the checks would reject a correct pipeline (union bound)."""
    return sum(check.false_alarm for check in checks)


def release(pipeline: Pipeline, updates: Sequence[Vector]) -> Vector:
    """Run the pipeline once and insist on a sum of the right shape, with numbers in it."""
    total = np.asarray(pipeline(updates), np.float64)
    if total.shape != updates[0].shape:
        raise UsageError(f"a pipeline that is given vectors of shape {updates[0].shape} released {total.shape}")
    if not np.isfinite(total).all():
        raise UsageError("the pipeline released NaN or infinite values")
    return total


def coins(rng: Rng, count: int) -> NDArray[np.bool_]:
    """The results of ``count`` fair coins."""
    return np.unpackbits(np.frombuffer(rng(-(-count // 8)), np.uint8), count=count).astype(bool)


def directions(rng: Rng, count: int, length: int) -> NDArray[np.float64]:
    """Random vectors of +-1/sqrt(length), each of norm 1, as rows."""
    return np.where(coins(rng, count * length), 1.0, -1.0).reshape(count, length) / math.sqrt(length)
