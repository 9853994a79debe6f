"""How much noise a private sum needs, how finely to round, and how wide the ring must be; and what that comes to.

The server sees who is in the cohort, so sampling clients earns nothing here: ``rounds`` is how often one user takes
part at most. More noise makes the ring fuller, hence the scale smaller and the rounding coarser, hence the sensitivity
larger: the search goes through all of it for each noise multiplier it tries.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, exp, inf, sqrt

from dp.accountants import rdp
from dp.events import Everyone, Gaussian, Guarantee, Relation, Release, Sampling, Trust, Unit
from dp.filter import SAMPLER, SHARE
from dp.noise import Family, NoiseSpec
from secagg.encoding import Encoding
from secagg.errors import UsageError

DEFAULT_BETA = Fraction(3, 5)
"""About e^-1/2: what Kairouz, Liu and Steinke 2021 use."""

SLACK = Fraction(1, 100)
"""Of delta, for what samplers lack to their ideal. The rest goes as far as it does in a ``dp.filter.Budget``."""

_LARGEST_MULTIPLIER = 1e6


@dataclass(frozen=True, slots=True)
class Calibration:
    """What goes into ``RoundPlan.propose``, and what it amounts to in a ``Budget`` of the same delta."""

    encoding: Encoding
    noise: NoiseSpec
    clients: int
    ring_bits: int
    noise_multiplier: float
    """Standard deviation of the honest survivors' noise over the norm of one contribution, at the least."""
    deviation: float
    """The same noise in the units of the updates, on each coordinate of the decoded sum."""
    epsilon: float

    def __str__(self) -> str:
        return (
            f"epsilon {self.epsilon:.3f}: noise multiplier {self.noise_multiplier:.3f} "
            f"({self.deviation:.3g} a coordinate), {self.encoding.bits} bits a value, a ring of {self.ring_bits} bits"
        )


def calibrate(
    *,
    epsilon: float,
    delta: float,
    rounds: int,
    clients: int,
    length: int,
    clip_l2: float,
    ring_bits: int = 24,
    dropouts: int = 0,
    colluders: int = 0,
    components: int = 0,
    family: Family | str = Family.SKELLAM,
    relation: Relation | str = Relation.ZERO_OUT,
    rotate: bool = True,
    beta: Fraction = DEFAULT_BETA,
    weight_bound: int = 1,
) -> Calibration:
    """The least noise for which ``rounds`` sums are (epsilon, delta)-private for a user, in a ring of ``ring_bits``.

    >>> print(calibrate(epsilon=4, delta=1e-6, rounds=10, clients=100, length=65536, clip_l2=1.0))
    epsilon 4.000: noise multiplier 4.014 (4.01 a coordinate), 13 bits a value, a ring of 24 bits
    >>> print(calibrate(epsilon=4, delta=1e-6, rounds=10, clients=100, length=65536, clip_l2=1.0, ring_bits=12))
    Traceback (most recent call last):
    secagg.errors.UsageError: no noise makes this private in a ring of 12 bits
    """
    one = Part(length, clip_l2, rounds, rotate=rotate, weight_bound=weight_bound)
    (found,) = calibrate_parts(
        [one],
        epsilon=epsilon,
        delta=delta,
        clients=clients,
        ring_bits=ring_bits,
        dropouts=dropouts,
        colluders=colluders,
        components=components,
        family=family,
        relation=relation,
        beta=beta,
    )
    return found


@dataclass(frozen=True, slots=True)
class Part:
    """``rounds`` sums of one kind, among others under one budget.

    Noise multipliers are in proportion to 1 / sqrt(``share``): so, with one sum each, is a part's share of the squared
    budget.
    """

    length: int
    clip_l2: float
    rounds: int = 1
    share: Fraction = Fraction(1)
    rotate: bool = True
    weight_bound: int = 1

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise UsageError(f"at least one round is needed, not {self.rounds}")
        if not self.share > 0:
            raise UsageError(f"a share of the budget is above zero, not {self.share}")


def calibrate_parts(
    parts: Sequence[Part],
    *,
    epsilon: float,
    delta: float,
    clients: int,
    ring_bits: int = 24,
    dropouts: int = 0,
    colluders: int = 0,
    components: int = 0,
    family: Family | str = Family.SKELLAM,
    relation: Relation | str = Relation.ZERO_OUT,
    beta: Fraction = DEFAULT_BETA,
) -> tuple[Calibration, ...]:
    """The least noise for which sums of several kinds are (epsilon, delta)-private together; one result for each part.

    >>> tenth, rest = Part(1000, 1.0, share=Fraction(1, 10)), Part(5000, 1.0, share=Fraction(9, 10))
    >>> for found in calibrate_parts([tenth, rest], epsilon=4, delta=1e-6, clients=100):
    ...     print(found)
    epsilon 4.000: noise multiplier 4.014 (4.01 a coordinate), 16 bits a value, a ring of 24 bits
    epsilon 4.000: noise multiplier 1.338 (1.34 a coordinate), 16 bits a value, a ring of 24 bits
    """
    if not epsilon > 0:
        raise UsageError("epsilon must be above zero")
    if not 0 < delta < 1:
        raise UsageError(f"delta must be between 0 and 1, not {delta}")
    if not parts:
        raise UsageError("no sum needs no noise")
    guarantee = user_level(Relation(relation))

    def fitted(part: Part, multiplier: float) -> tuple[Encoding, NoiseSpec] | None:
        for encoding in _finest_first(part.length, part.clip_l2, part.rotate, beta, part.weight_bound):
            squared = multiplier * multiplier / float(part.share)
            variance = Fraction(ceil(squared * encoding.sensitivity().l2_squared))
            noise = NoiseSpec(Family(family), variance, dropouts, colluders, components)
            noise.check(clients)
            needed = _needed_bits(encoding, noise, clients)
            if needed is not None and needed <= ring_bits:
                return encoding, noise
        return None

    def tried(multiplier: float) -> tuple[Calibration, ...] | None:
        found = [one for part in parts if (one := fitted(part, multiplier)) is not None]
        if len(found) < len(parts):
            return None
        kinds = [(*one, part.rounds) for one, part in zip(found, parts, strict=True)]
        cost = _cost(kinds, clients, clients - dropouts, delta, guarantee)
        return tuple(_described(*one, clients, clients - dropouts, cost) for one in found)

    low, high, best = 0.0, 1.0, None
    while best is None or best[0].epsilon > epsilon:
        best = tried(high)
        if best is None or high > _LARGEST_MULTIPLIER:
            raise UsageError(f"no noise makes this private in a ring of {ring_bits} bits")
        low, high = (high, 2 * high) if best[0].epsilon > epsilon else (low, high)
    while high - low > 1e-4 * high:
        middle = (low + high) / 2
        found = tried(middle)
        if found is not None and found[0].epsilon <= epsilon:
            high, best = middle, found
        else:
            low = middle
    return best


def evaluate(
    encoding: Encoding,
    noise: NoiseSpec,
    *,
    clients: int,
    rounds: int,
    delta: float,
    guarantee: Guarantee | None = None,
    survivors: int | None = None,
) -> Calibration:
    """The way back: what ``rounds`` sums with this noise cost when (at least) ``survivors`` of the clients stay.

    >>> noise = NoiseSpec(Family.SKELLAM, Fraction(10**11), dropouts=20)
    >>> encoding = Encoding(1000, clip_l2=1.0, rotate=True)
    >>> round(evaluate(encoding, noise, clients=100, rounds=10, delta=1e-6).epsilon, 2)
    6.72
    """
    survivors = clients - noise.dropouts if survivors is None else survivors
    guarantee = guarantee or user_level(Relation.ZERO_OUT)
    cost = _cost([(encoding, noise, rounds)], clients, survivors, delta, guarantee)
    return _described(encoding, noise, clients, survivors, cost)


def _cost(
    kinds: Sequence[tuple[Encoding, NoiseSpec, int]], clients: int, survivors: int, delta: float, guarantee: Guarantee
) -> float:
    """Epsilon of sums of several kinds, so many of each; inf if the samplers are not good enough for it."""
    curves = list[rdp.Curve]()
    for encoding, noise, rounds in kinds:
        sensitivity = encoding.sensitivity()
        mechanism = noise.mechanism(clients, survivors, encoding.coordinates, sensitivity.l2_squared, sensitivity.l1)
        curves.append(rdp.scaled(rdp.curve(Release(mechanism, Everyone(), guarantee)), rounds))
    cost = rdp.epsilon(rdp.total(curves), float((SHARE - SLACK) * Fraction(delta)))
    slack = sum(
        sampler_slack(cost, noise, clients=clients, dimension=encoding.coordinates, rounds=rounds)
        for encoding, noise, rounds in kinds
    )
    return cost if slack <= SLACK * Fraction(delta) else inf


def _described(encoding: Encoding, noise: NoiseSpec, clients: int, survivors: int, epsilon: float) -> Calibration:
    held = float(noise.held(clients, survivors))
    return Calibration(
        encoding=encoding,
        noise=noise,
        clients=clients,
        ring_bits=encoding.ring_bits(clients, noise.tail(clients, encoding.coordinates)),
        noise_multiplier=sqrt(held / encoding.sensitivity().l2_squared),
        deviation=sqrt(held) / encoding.scale,
        epsilon=epsilon,
    )


def steps_multiplier(*, epsilon: float, delta: float, steps: int, sampling: Sampling, guarantee: Guarantee) -> Fraction:
    """The least Gaussian noise for which ``steps`` local steps fit a ``Budget`` of that epsilon and delta.

    >>> from dp.events import PoissonSample
    >>> example = Guarantee(Unit.EXAMPLE, Relation.ADD_OR_REMOVE, Trust.LOCAL)
    >>> tenth = PoissonSample(Fraction(1, 10))
    >>> float(steps_multiplier(epsilon=8, delta=1e-5, steps=100, sampling=tenth, guarantee=example))
    0.999
    """

    def fits(thousandths: int) -> bool:
        release = Release(Gaussian(Fraction(thousandths, 1000)), sampling, guarantee)
        return rdp.epsilon(rdp.scaled(rdp.curve(release), steps), float(SHARE * Fraction(delta))) <= epsilon

    most = int(1000 * _LARGEST_MULTIPLIER)
    found = 1 + bisect_left(range(1, most + 1), True, key=fits)
    if found > most:
        raise UsageError("no noise makes this private")
    return Fraction(found, 1000)


def user_level(relation: Relation) -> Guarantee:
    """What noise inside a secure sum gives."""
    return Guarantee(Unit.USER, relation, Trust.DISTRIBUTED)


def sampler_slack(epsilon: float, noise: NoiseSpec, *, clients: int, dimension: int, rounds: int) -> float:
    """What imperfect samplers add to delta: (1 + e^epsilon) times the distance of all that was drawn."""
    drawn = rounds * clients * dimension * (1 + noise.components)
    return (1 + exp(min(epsilon, 700.0))) * drawn * float(SAMPLER)


def _finest_first(length: int, clip_l2: float, rotate: bool, beta: Fraction, weight_bound: int) -> Iterator[Encoding]:
    for bits in range(32, 1, -1):
        yield Encoding(length, clip_l2, bits, rotate, weight_bound=weight_bound, beta=beta)


def _needed_bits(encoding: Encoding, noise: NoiseSpec, clients: int) -> int | None:
    try:
        return encoding.ring_bits(clients, noise.tail(clients, encoding.coordinates))
    except UsageError:  # more than any ring
        return None
