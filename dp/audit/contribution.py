"""How far one client, or one user of silos, can move the sum: crafted updates against the bound that is accounted for.

``audit_contribution`` looks at a client's integers before any noise and compares exact squared norms, so that one
violation is proof: a missing clip, a bound on the wrong side of a rotation, rounding that nobody counted.
``inside_silos`` hands it what one user changes in the integers of whole silos: a silo that clips its sum and not each
user, a user that counts twice, or a person in two silos shows. ``audit_cap`` counts the users that a silo adds up.
``audit_clip`` sees only the released sum, of any pipeline, and finds what stands out of the noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dp.audit.claim import FALSE_ALARM, Check, Claim, Pipeline, Vector, directions, release
from secagg.crypto.prg import Prg, Rng
from secagg.errors import UsageError

Encode: TypeAlias = Callable[[Vector], NDArray[np.int64]]
"""A client's update in, its integers out, before noise."""

_HUGE = 1e6  # times the clip


class Users(Protocol):
    """A silo's users: how many it says that it has, and a vector for each."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Vector]: ...


EncodeSilo: TypeAlias = Callable[[Users, Rng], NDArray[np.int64]]
"""A silo's users in, its integers out, before noise."""


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


def inside_silos(encode: EncodeSilo, *, users: int, overlap: int, rng: Rng) -> Encode:
    """What one user's vector changes in the integers of all silos that the user is in, for ``audit_contribution``.

    A silo is encoded twice by the same random words, once with zeros in the user's place: what differs is the user's.
    The user comes after another one with half as much of the opposite, clipped like all: if only the silo's sum was
    clipped, the user would turn it around. Then the user comes first, before users with zeros. The larger change
    counts.
    """

    def moved(update: Vector) -> NDArray[np.int64]:
        zeros, most = np.zeros_like(update), min(users, 3) - 1
        before, after = [*repeat(zeros, most - 1), -update / 2][:most], list(repeat(zeros, most))
        found = [
            _difference(encode, ([*before, update], [*before, zeros]), overlap, rng),
            _difference(encode, ([update, *after], [zeros, *after]), overlap, rng),
        ]
        return max(found, key=_squared_norm)

    return moved


def _difference(
    encode: EncodeSilo, pair: tuple[Sequence[Vector], Sequence[Vector]], silos: int, rng: Rng
) -> NDArray[np.int64]:
    """Of the integers with and without a user, added up over ``silos`` silos of the same users."""
    seeds = [rng(32) for _ in range(silos)]
    there, gone = (np.sum([encode(vectors, Prg(seed)) for seed in seeds], axis=0) for vectors in pair)
    difference: NDArray[np.int64] = there - gone
    return difference


class _Crowd:
    """More users than it says, or than there may be; it knows how many have been asked for."""

    def __init__(self, update: Vector, users: int, said: int) -> None:
        self._update, self._users, self._said, self.read = update, users, said, 0

    def __len__(self) -> int:
        return self._said

    def __iter__(self) -> Iterator[Vector]:
        for _ in range(self._users):
            self.read += 1
            yield self._update


def audit_cap(encode: EncodeSilo, *, users: int, length: int, height: float, rng: Rng) -> Check:
    """The most users that a silo adds up, or reads before it refuses, if it has more than ``users``, or than it says.

    ``height`` is on the integer grid of an encoding without rotation, so that the count is exact.
    """
    update, counted = np.eye(1, length)[0] * height, 0
    unit = int(encode([update], rng)[0])
    for crowd in (_Crowd(update, users + 1, users + 1), _Crowd(update, 2 * users, users)):
        try:
            counted = max(counted, int(encode(crowd, rng)[0]) // unit)
        except UsageError:
            counted = max(counted, crowd.read)
    return Check("users of a silo", counted, 0, users, 0.0)


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
