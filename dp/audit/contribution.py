"""How far one client can move the sum: crafted updates against the bound that the accountant is told.

``audit_contribution`` looks at a client's integers before any noise and compares exact squared norms, so that one
violation is proof: a missing clip, a bound on the wrong side of a rotation, rounding that nobody counted.
``audit_clip`` sees only the released sum, of any pipeline, and finds what stands out of the noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dp.audit.claim import FALSE_ALARM, Check, Claim, Pipeline, Vector, directions, release
from secagg.crypto.prg import Rng

Encode: TypeAlias = Callable[[Vector], NDArray[np.int64]]
"""A client's update in, its integers out, before noise."""

_HUGE = 1e6  # times the clip


def audit_contribution(
    encode: Encode, *, l2_squared: int, length: int, clip_l2: float, step: float, rng: Rng, draws: int = 100
) -> Check:
    """The largest squared norm of what crafted updates become, exactly. ``step`` is what the integer 1 stands for.

    Updates far beyond the clip come once. ``draws`` go to half-integers at full clip, where rounding adds most: a
    quarter a coordinate, and by chance, one time in about ten, more than a bound with beta = exp(-1/2) allows.
    """
    flat = directions(rng, 1, length)[0]
    crafted = [flat * clip_l2 * _HUGE, np.eye(1, length)[0] * clip_l2 * _HUGE]
    crafted += [_halfway(directions(rng, 1, length)[0], clip_l2 / step) * step for _ in range(draws)]
    return Check("contribution", max(_squared_norm(encode(update)) for update in crafted), 0, l2_squared, 0.0)


def audit_clip(
    pipeline: Pipeline, claim: Claim, *, clients: int, length: int, rng: Rng, false_alarm: float = FALSE_ALARM
) -> Check:
    """One client sends an update far beyond the clip, the others zeros; how far does the sum go along it?"""
    direction = directions(rng, 1, length)[0]
    overshoot = _HUGE * (claim.clip_l2 + claim.noise_std)
    total = release(pipeline, [overshoot * direction] + [np.zeros(length)] * (clients - 1))
    limit = claim.mu + claim.normal_limit(false_alarm)
    return Check("clip", float(total @ direction) / claim.noise_std, -math.inf, limit, false_alarm)


def _halfway(signs: Vector, radius: float) -> Vector:
    """Half-integers with these signs and a norm of ``radius``, or a little less.

    >>> _halfway(np.array([0.5, -0.5, 0.5, 0.5]), 1.8)
    array([ 1.5, -0.5,  0.5,  0.5])
    >>> _halfway(np.array([0.5, -0.5, 0.5, 0.5]), 0.8)
    array([ 0.5, -0.5,  0. ,  0. ])
    """
    level = max(math.floor(radius / math.sqrt(len(signs)) + 0.5) - 0.5, 0.0)
    above = level + 1 if level else 0.5
    heights = np.full(len(signs), level)
    heights[: math.floor((radius**2 - len(signs) * level**2) / (above**2 - level**2))] = above
    return np.where(signs > 0, heights, -heights)


def _squared_norm(values: NDArray[np.int64]) -> int:
    return sum(value * value for value in values.tolist())
