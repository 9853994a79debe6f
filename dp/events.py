"""Privacy events: what was released, in exact numbers. Accountants interpret events, ledgers record them.

A ``Release`` is one noised answer: with which noise, over which sample, under which guarantee. The guarantee's unit,
relation and trust model are part of it, so that two guarantees cannot be added up by mistake. Sensitivities and
variances of discrete noise are in integers, those of encoded vectors (``secagg.encoding``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from fractions import Fraction
from math import floor, log, log2
from typing import Any, TypeAlias, get_type_hints

from secagg.errors import DecodeError, UsageError
from secagg.foreign import as_declared


class Unit(StrEnum):
    """Whose data a guarantee is about."""

    EXAMPLE = "example"
    USER = "user"
    USER_WINDOW = "user-window"
    """all events of one person within a stretch of time (``dp.windows``): no guarantee for all that the person does"""


class Relation(StrEnum):
    """Which data sets count as neighbours."""

    ADD_OR_REMOVE = "add-or-remove"
    REPLACE_ONE = "replace-one"
    ZERO_OUT = "zero-out"
    """One unit's contribution becomes zero. Who takes part stays known, and all noise stays in the sum."""

    @property
    def stretch(self) -> int:
        """How far the sum moves between neighbours, in contributions of one unit."""
        return 2 if self is Relation.REPLACE_ONE else 1


class Trust(StrEnum):
    """Who is trusted to add the noise."""

    LOCAL = "local"
    DISTRIBUTED = "distributed"
    CENTRAL = "central"


class Holder(StrEnum):
    """Where a unit's data lie before anything is summed."""

    DEVICE = "device"
    """with the client that contributes them: the unit is all that one client contributes"""
    SILO = "silo"
    """with a client that has many users and sees the data of all of them: the unit is one of its users"""


@dataclass(frozen=True, slots=True)
class Guarantee:
    """Whose data are protected, which data sets are neighbours, and who is trusted to add the noise.

    Noise that the clients add together is there as long as they are. A client that is missing takes its share along, so
    how much noise there is tells whether it was there, at any epsilon: one client more or less has no bound under
    distributed trust. The data of a client that is present may become zero, or be replaced, and so may those of a user
    inside a silo that is present: all noise stays where it was, and the sum moves by one contribution, or by two.
    ``holder`` says which of these is protected: against the other clients, the server and all who see what comes out,
    and never against the holder itself. So guarantees of unequal holders are not added up.

    A contribution is cut to one norm, whatever events it is computed from. So the events of a window that come or go
    beside others move it by two norms, as if it were another one (``REPLACE_ONE``); one norm is that of a contribution
    that becomes zero (``ZERO_OUT``: all that the person contributes to sums which may hold one of these events).

    >>> Guarantee(Unit.USER, Relation.ADD_OR_REMOVE, Trust.DISTRIBUTED)
    Traceback (most recent call last):
    secagg.errors.UsageError: a missing client takes its noise along: under distributed trust no add-or-remove
    """

    unit: Unit
    relation: Relation
    trust: Trust
    holder: Holder = Holder.DEVICE

    def __post_init__(self) -> None:
        if self.holder is Holder.SILO and self.unit is Unit.EXAMPLE:
            raise UsageError("the unit inside a silo is a user, or the events of one within a window")
        if self.unit is Unit.USER_WINDOW and self.relation is Relation.ADD_OR_REMOVE:
            raise UsageError("events that come or go beside others move a contribution like another one: replace-one")
        if self.trust is Trust.DISTRIBUTED and self.relation is Relation.ADD_OR_REMOVE:
            raise UsageError("a missing client takes its noise along: under distributed trust no add-or-remove")


# Mechanisms

MAX_PARTIES = 10_000_000
"""The most parties in a sum, which is the most clients of a round."""

_GRID = 1.01


def _grid_point(power: int) -> Fraction:
    """1.01^power rounded down to 40 significant bits, so that it is a short fraction."""
    value = Fraction(_GRID**power)
    unit = Fraction(2) ** (floor(power * log2(_GRID)) - 40)
    return value // unit * unit


@dataclass(frozen=True, slots=True)
class Gaussian:
    """Continuous noise; ``noise_multiplier`` is its standard deviation over the norm of one unit's contribution."""

    noise_multiplier: Fraction

    def __post_init__(self) -> None:
        _above_zero(self.noise_multiplier, "noise_multiplier")

    def on_grid(self) -> Gaussian:
        """The same with the multiplier rounded down to a power of 1.01, so that many similar events become few.

        >>> round(float(Gaussian(Fraction(10, 7)).on_grid().noise_multiplier), 4)
        1.4166
        """
        z = self.noise_multiplier
        power = floor(log(z) / log(_GRID) + 1e-6)  # a multiplier on the grid stays the same
        on_grid = next(value for value in map(_grid_point, (power, power - 1)) if value <= z)
        return Gaussian(on_grid)


@dataclass(frozen=True, slots=True)
class DiscreteLaplace:
    """Integer noise x of probability proportional to exp(-|x| / scale), on a query of L1 sensitivity ``l1``."""

    scale: Fraction
    l1: int

    def __post_init__(self) -> None:
        _above_zero(self.scale, "scale")
        _above_zero(self.l1, "l1")


@dataclass(frozen=True, slots=True)
class Skellam:
    """Skellam noise on integer vectors of bounded norms; ``variance`` is that of all noise in a coordinate."""

    variance: Fraction
    l2_squared: int
    l1: int

    def __post_init__(self) -> None:
        _above_zero(self.variance, "variance")
        _above_zero(self.l2_squared, "l2_squared")
        _above_zero(self.l1, "l1")


LEAST_DRAW = 8
"""The least parameter sigma^2 of a discrete Gaussian that counts in a sum: 2 s^2, for s = 2 (docs/gaussian_sums.md)."""


@dataclass(frozen=True, slots=True)
class DiscreteGaussians:
    """The sum of independent discrete Gaussians on integer vectors of ``dimension`` coordinates.

    At most ``draws`` of them are in each coordinate. The parameter sigma^2 of each is at least ``LEAST_DRAW``, and
    ``variance`` is the sum of these parameters, which may differ. Noise of smaller parameters does not count.
    """

    variance: Fraction
    draws: int
    dimension: int
    l2_squared: int

    def __post_init__(self) -> None:
        for name in ("variance", "draws", "dimension", "l2_squared"):
            _above_zero(getattr(self, name), name)
        if self.variance < LEAST_DRAW:
            raise UsageError(f"no bound is known for discrete Gaussians of a parameter below {LEAST_DRAW}")


# Sampling, which counts only if the adversary does not see who was sampled


@dataclass(frozen=True, slots=True)
class Everyone:
    """No sampling, or sampling that the adversary sees: no amplification."""


@dataclass(frozen=True, slots=True)
class PoissonSample:
    """Each unit is sampled independently with probability ``rate``."""

    rate: Fraction

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise UsageError(f"a sampling rate is above 0 and at most 1, not {self.rate}")


@dataclass(frozen=True, slots=True)
class FixedSizeSample:
    """A uniformly random set of exactly ``size`` units out of ``population``."""

    size: int
    population: int

    def __post_init__(self) -> None:
        if not 1 <= self.size <= self.population:
            raise UsageError(f"a sample has 1 to {self.population} units, not {self.size}")


def by_coins(rate: Fraction) -> PoissonSample | Everyone:
    """The sampling of units with that probability each, by coins that the adversary does not see.

    >>> by_coins(Fraction(1)), by_coins(Fraction(1, 4))
    (Everyone(), PoissonSample(rate=Fraction(1, 4)))
    """
    return PoissonSample(rate) if rate < 1 else Everyone()


Mechanism: TypeAlias = Gaussian | DiscreteLaplace | Skellam | DiscreteGaussians
Sampling: TypeAlias = Everyone | PoissonSample | FixedSizeSample


@dataclass(frozen=True, slots=True)
class Release:
    """One noised answer: its mechanism, its sampling and its guarantee.

    >>> user = Guarantee(Unit.USER, Relation.ZERO_OUT, Trust.DISTRIBUTED)
    >>> release = Release(Skellam(Fraction(400), l2_squared=100, l1=80), Everyone(), user)
    >>> from_record(to_record(release)) == release
    True
    >>> Release(Gaussian(Fraction(1)), Everyone(), user)
    Traceback (most recent call last):
    secagg.errors.UsageError: noise inside a secure sum is discrete, not Gaussian
    """

    mechanism: Mechanism
    sampling: Sampling
    guarantee: Guarantee

    def __post_init__(self) -> None:
        if self.guarantee.trust is Trust.DISTRIBUTED and isinstance(self.mechanism, Gaussian):
            raise UsageError("noise inside a secure sum is discrete, not Gaussian")


@dataclass(frozen=True, slots=True)
class Selection:
    """The best of several runs, each of ``steps`` times ``release``: a private hyper-parameter search.

    The number of runs is geometric with mean ``mean_runs`` (Papernot and Steinke 2022, Theorem 2 with eta = 1),
    and only the best run is published.
    """

    release: Release
    steps: int
    mean_runs: Fraction

    def __post_init__(self) -> None:
        _above_zero(self.steps, "steps")
        if self.mean_runs <= 1:
            raise UsageError("a search has more than one run on average")

    @property
    def guarantee(self) -> Guarantee:
        return self.release.guarantee


Event: TypeAlias = Release | Selection
"""What accountants compose."""


def _above_zero(value: Fraction | int, name: str) -> None:
    if value <= 0:
        raise UsageError(f"{name} must be above zero")


# Events as JSON, with rationals as "p/q"

_KINDS: Mapping[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        *(Gaussian, DiscreteLaplace, Skellam, DiscreteGaussians),
        *(Everyone, PoissonSample, FixedSizeSample, Guarantee, Release, Selection),
    )
}
_HINTS = {name: get_type_hints(kind) for name, kind in _KINDS.items()}


def to_record(event: Any) -> dict[str, Any]:
    """An event, or a part of one, as JSON."""
    record: dict[str, Any] = {"kind": type(event).__name__}
    for field in fields(event):
        value = getattr(event, field.name)
        if isinstance(value, Fraction):
            value = str(value)
        elif type(value).__name__ in _KINDS:
            value = to_record(value)
        record[field.name] = value
    return record


def from_record(record: Any) -> Any:
    """Inverse of ``to_record``; ``DecodeError`` for anything else."""
    try:
        kind = _KINDS[record["kind"]]
        hints = _HINTS[record["kind"]]
        if record.keys() != {"kind", *hints}:
            raise DecodeError(f"a {record['kind']} has other fields")
        return kind(**{name: _value(name, record[name], hint) for name, hint in hints.items()})
    except (KeyError, TypeError, ValueError, ZeroDivisionError, UsageError) as error:
        raise DecodeError(f"not a privacy event: {error}") from None


def _value(name: str, value: Any, hint: Any) -> Any:
    if isinstance(value, dict):
        value = from_record(value)
        if not isinstance(value, hint):
            raise DecodeError(f"{name} has a {type(value).__name__}")
        return value
    return as_declared(hint, value, name)
