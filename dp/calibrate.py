"""How much noise a private sum needs, how finely to round, how wide the ring must be, and the epsilon of all that.

The server sees who is in the cohort, so sampling clients earns nothing here: ``rounds`` is how often one user takes
part at most. A silo can sample its users in secret (``sampled``): then a sum needs less noise, and its mean has more,
since it is over fewer users. More noise makes the ring fuller, hence the scale smaller and the rounding coarser, hence
the sensitivity larger: the search goes through all of it for each noise multiplier it tries.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache, partial
from math import ceil, exp, inf, log, sqrt

from dp.accountants import gdp, rdp, schedule
from dp.events import LEAST_DRAW, Gaussian, Guarantee, Holder, Relation, Release, Sampling, Trust, Unit
from dp.filter import RESOLUTION, SHARE, Budget, Filter, Kind, PrivacyCost
from dp.noise import Family, NoiseSpec
from secagg.crypto.sampling import STATISTICAL_DISTANCE
from secagg.encoding import Encoding, Rounding
from secagg.errors import UsageError
from secagg.sketches import Sketch

DEFAULT_BETA = Fraction(3, 5)
"""The probability with which a rounding is repeated, at most: about e^-1/2, as in Kairouz, Liu and Steinke 2021."""

SLACK = Fraction(1, 100)
"""The part of delta that is set aside because samplers are not exact, as in a ``dp.filter.Budget``."""

_LARGEST_MULTIPLIER = 1e6
_LARGEST_MOVED = 2000
"""More than the mu^2 of any budget: its epsilon, which is above 900, is not computed."""
_MOST_BITS = 32


@dataclass(frozen=True, slots=True)
class Calibration:
    """An encoding, noise and ring for ``RoundPlan.propose``, and their cost in a ``Budget`` of the same delta."""

    encoding: Encoding
    noise: NoiseSpec
    clients: int
    ring_bits: int
    noise_multiplier: float
    """Standard deviation of the honest survivors' noise over the norm of one contribution, at the least."""
    deviation: float
    """The same noise in the units of the updates, on each coordinate of the decoded sum, or of its sketch."""
    epsilon: float

    def __str__(self) -> str:
        return (
            f"epsilon {self.epsilon:.3f}: noise multiplier {self.noise_multiplier:.3f} "
            f"({self.deviation:.3g} a coordinate), {self.encoding.bits} bits a value, a ring of {self.ring_bits} bits"
        )


def calibrate(
    *,
    epsilon: float | Fraction,
    delta: float | Fraction,
    rounds: int,
    clients: int,
    length: int,
    clip_l2: float,
    ring_bits: int = 24,
    dropouts: int = 0,
    colluders: int = 1,
    components: int = 0,
    family: Family | str = Family.DISCRETE_GAUSSIAN,
    relation: Relation | str = Relation.ZERO_OUT,
    rotate: bool = True,
    beta: Fraction = DEFAULT_BETA,
    weight_bound: int = 1,
    users: int = 0,
    overlap: int = 1,
    rounding: Rounding | str = Rounding.STOCHASTIC,
    sampled: Fraction | int = 1,
    sketch: Sketch | None = None,
) -> Calibration:
    """The least noise for which ``rounds`` sums are (epsilon, delta)-private for a user, in a ring of ``ring_bits``.

    ``relation`` is zero-out, or replace-one, which takes about twice the noise. With ``users`` above 0 each client is a
    silo of up to so many users, and what is private is one of these, in up to ``overlap`` silos (``Encoding``). In each
    sum a user is then with probability ``sampled``.

    >>> print(calibrate(epsilon=4, delta=1e-6, rounds=10, clients=100, length=65536, clip_l2=1.0))
    epsilon 4.000: noise multiplier 3.776 (3.78 a coordinate), 13 bits a value, a ring of 24 bits
    >>> print(calibrate(epsilon=4, delta=1e-6, rounds=10, clients=100, length=65536, clip_l2=1.0, ring_bits=12))
    Traceback (most recent call last):
    secagg.errors.UsageError: no noise makes this private in a ring of 12 bits with draws of a variance of 8 or more

    Everybody in every sum is the best that there is. A quarter of the users takes .28 of the noise in the sum, and
    then the sum is divided by a quarter:

    >>> asked = dict(epsilon=8, delta=2.5e-6, rounds=200, clients=20, length=1000, clip_l2=1.0, ring_bits=32)
    >>> all_of_them = calibrate(**asked, users=200).noise_multiplier
    >>> fourth = calibrate(**asked, users=200, sampled=Fraction(1, 4)).noise_multiplier
    >>> round(fourth / all_of_them, 2), round(4 * fourth / all_of_them, 2)
    (0.28, 1.14)
    """
    if not epsilon > 0:
        raise UsageError("epsilon must be above zero")
    if rounds < 1:
        raise UsageError(f"at least one round is needed, not {rounds}")
    if not 0 < delta < 1:
        raise UsageError(f"delta must be between 0 and 1, not {delta}")
    if rounding == Rounding.EXACT:
        raise UsageError("how fine the grid is follows from the noise here, so nothing is exact on it")
    guarantee = user_level(Relation(relation), Holder.SILO if users else Holder.DEVICE)

    def encoding_of(bits: int) -> Encoding:
        return Encoding(
            length,
            clip_l2,
            bits,
            rotate,
            weight_bound=weight_bound,
            beta=beta if rounding == Rounding.STOCHASTIC else Fraction(0),
            users=users,
            overlap=overlap,
            rounding=Rounding(rounding),
            sampled=Fraction(sampled),
            sketch=sketch,
        )

    noise = NoiseSpec(Family(family), Fraction(1), dropouts, colluders, components)

    def tried(multiplier: float) -> tuple[Encoding, NoiseSpec] | None:
        """What so much noise comes to, if it is enough."""
        found = with_multiplier(multiplier, noise, _finest_first(encoding_of), clients, ring_bits)
        if found is None:
            return None
        event = release_of(*found, clients, clients - dropouts, guarantee)
        return found if _allowed(event, found, clients, rounds, Fraction(epsilon), Fraction(delta)) else None

    low, high, best = 0.0, 1.0, tried(1.0)
    while best is None:
        low, high = high, 2 * high
        if high > _LARGEST_MULTIPLIER:
            why = f" with draws of a variance of {LEAST_DRAW} or more" if noise.family is not Family.SKELLAM else ""
            raise UsageError(f"no noise makes this private in a ring of {ring_bits} bits{why}")
        best = tried(high)
    while high - low > 1e-4 * high:
        middle = (low + high) / 2
        found = tried(middle)
        low, high, best = (low, middle, found) if found is not None else (middle, high, best)
    return evaluate(*best, clients=clients, rounds=rounds, delta=delta, guarantee=guarantee)


def _allowed(
    event: Release, found: tuple[Encoding, NoiseSpec], clients: int, rounds: int, epsilon: Fraction, delta: Fraction
) -> bool:
    """Whether a budget of that epsilon and delta, less ``SLACK``, allows so many rounds."""
    encoding, noise = found
    samples = rounds * noise.samples(clients, encoding.coordinates)
    if noise.family is Family.DISCRETE_GAUSSIAN:
        budget = Budget.suited(event, epsilon, delta, slack=delta * SLACK)
        return Filter.of(budget).allows(PrivacyCost.of(event, rounds, samples, budget.kind))
    cost = rdp.epsilon(rdp.scaled(rdp.curve(event), rounds), float((SHARE - SLACK) * delta))
    return cost <= epsilon and sampler_slack(cost, samples) <= SLACK * delta


def with_multiplier(
    multiplier: float, noise: NoiseSpec, encodings: Iterable[Encoding], clients: int, ring_bits: int
) -> tuple[Encoding, NoiseSpec] | None:
    """The first of ``encodings`` that fits the ring with so much noise, and that noise (``noise`` says of which kind).

    >>> kind = NoiseSpec(Family.DISCRETE_GAUSSIAN, Fraction(1), dropouts=10)
    >>> found = with_multiplier(2.0, kind, [Encoding(1000, 1.0, bits) for bits in (24, 16)], clients=100, ring_bits=24)
    >>> found[0].bits, float(found[1].variance / found[0].sensitivity().l2_squared).__round__(6)
    (16, 4.0)
    """
    for encoding in encodings:
        variance = ceil(multiplier * multiplier * encoding.sensitivity().l2_squared)
        if noise.family is Family.DISCRETE_GAUSSIAN:
            variance += LEAST_DRAW // 2  # the Gaussian that such a sum is as private as has so much less
        drawn = replace(noise, variance=Fraction(variance))
        drawn.check(clients)
        needed = _needed_bits(encoding, drawn, clients)
        if needed is not None and needed <= ring_bits and drawn.drawable(clients):
            return encoding, drawn
    return None


def evaluate(
    encoding: Encoding,
    noise: NoiseSpec,
    *,
    clients: int,
    rounds: int,
    delta: float | Fraction,
    guarantee: Guarantee | None = None,
    survivors: int | None = None,
) -> Calibration:
    """The inverse of ``calibrate``: what ``rounds`` sums with this noise cost if at least ``survivors`` clients stay.

    >>> noise = NoiseSpec(Family.DISCRETE_GAUSSIAN, Fraction(10**11), dropouts=20)
    >>> encoding = Encoding(1000, clip_l2=1.0, rotate=True)
    >>> round(evaluate(encoding, noise, clients=100, rounds=10, delta=1e-6).epsilon, 2)
    6.3
    """
    survivors, dimension = clients - noise.dropouts if survivors is None else survivors, encoding.coordinates
    samples = rounds * noise.samples(clients, dimension)
    guarantee = guarantee or user_level(Relation.ZERO_OUT, holder_of(encoding))
    release = release_of(encoding, noise, clients, survivors, guarantee)
    if noise.family is Family.DISCRETE_GAUSSIAN and encoding.sampled == 1:
        cost = _of_gaussians(PrivacyCost.of(release, rounds, samples, Kind.GDP), (1 - SLACK) * Fraction(delta))
    else:
        cost = rdp.epsilon(rdp.scaled(rdp.curve(release), rounds), float((SHARE - SLACK) * Fraction(delta)))
    slack = sampler_slack(cost, samples)
    variance = float(noise.honest_variance(clients, survivors))
    return Calibration(
        encoding=encoding,
        noise=noise,
        clients=clients,
        ring_bits=encoding.ring_bits(clients, noise.coordinate_bound(clients, dimension)),
        noise_multiplier=sqrt(variance / encoding.sensitivity().l2_squared),
        deviation=sqrt(variance) / encoding.scale,
        epsilon=cost if slack <= SLACK * Fraction(delta) else inf,
    )


def _of_gaussians(cost: PrivacyCost, delta: Fraction) -> float:
    """The epsilon of a cost in mu^2, as a budget's filter says it; infinite if no budget allows so much."""
    (moved,) = cost.amounts
    if moved is None or moved > _LARGEST_MOVED * RESOLUTION:
        return inf
    return gdp.least_epsilon(Fraction(moved, RESOLUTION), delta) / RESOLUTION


@lru_cache(64)
def steps_multiplier(
    *,
    epsilon: float | Fraction,
    delta: float | Fraction,
    steps: int,
    sampling: Sampling,
    guarantee: Guarantee,
    kind: Kind = Kind.RENYI,
) -> Fraction:
    """The least noise, in thousandths, for which ``steps`` local steps fit a ``Budget`` of that epsilon and delta, less
    ``SLACK``: one by one under ``Kind.RENYI``, or as a schedule that is reserved whole under ``Kind.SCHEDULE``.

    >>> from dp.events import PoissonSample
    >>> example = Guarantee(Unit.EXAMPLE, Relation.ZERO_OUT, Trust.LOCAL)
    >>> tenth = PoissonSample(Fraction(1, 10))
    >>> float(steps_multiplier(epsilon=8, delta=1e-5, steps=100, sampling=tenth, guarantee=example))
    0.999
    >>> whole = Kind.SCHEDULE
    >>> float(steps_multiplier(epsilon=8, delta=1e-5, steps=100, sampling=tenth, guarantee=example, kind=whole))
    0.937
    """
    failing = (1 - SLACK) * Fraction(delta)

    def fits(thousandths: int) -> bool:
        release = Release(Gaussian(Fraction(thousandths, 1000)), sampling, guarantee)
        return rdp.epsilon(rdp.scaled(rdp.curve(release), steps), float((SHARE - SLACK) * Fraction(delta))) <= epsilon

    if kind not in (Kind.RENYI, Kind.SCHEDULE):
        raise UsageError(f"a budget of kind {kind} is not for local steps")
    tried = range(1, int(1000 * _LARGEST_MULTIPLIER) + 1) if kind is Kind.RENYI else [1 << power for power in range(30)]
    place = bisect_left(tried, True, key=fits)
    if place == len(tried):
        raise UsageError("no noise makes this private")
    found = tried[place]
    if kind is Kind.RENYI:
        return Fraction(found, 1000)

    def cost(thousandths: int, interval: float) -> float:
        """In epsilons; infinite without a bound."""
        event = Release(Gaussian(Fraction(thousandths, 1000)), sampling, guarantee)
        units = schedule.least_epsilon(event, steps, failing, interval)
        return inf if units is None else units / RESOLUTION

    for interval in (5 * schedule.INTERVAL, schedule.INTERVAL):  # what is about enough is found on a coarser grid
        found = _least_noise(partial(cost, interval=interval), found, Fraction(epsilon))
    return Fraction(found, 1000)


def _least_noise(cost: Callable[[int], float], enough: int, epsilon: Fraction) -> int:
    """The least noise whose cost is within ``epsilon``, if more noise costs less; ``enough`` is about enough.

    It is guessed that the logarithm of the one is linear in that of the other.
    """
    low, high, of_high = 0, enough, cost(enough)
    while of_high > epsilon:  # an order that was chosen beforehand may say a little less
        low, high = high, high + ceil(high / 100)
        of_high = cost(high)
    slope, of_low, halved = 2.0, inf, False
    while high - low > 1:
        if low and of_low < inf and not halved:
            slope = max(0.1, log(of_low / of_high) / log(high / low))
        guess = (low + high) // 2 if halved else ceil(high * (of_high / float(epsilon)) ** (1 / slope))
        guess = min(max(guess, low + 1), high - 1)
        before, found = high - low, cost(guess)
        low, high, of_low, of_high = (guess, high, found, of_high) if found > epsilon else (low, guess, of_low, found)
        halved = not halved and low > 0 and 2 * (high - low) > before
    return high


def release_of(encoding: Encoding, noise: NoiseSpec, clients: int, survivors: int, guarantee: Guarantee) -> Release:
    """One sum with this noise as an event, when ``survivors`` of ``clients`` clients with this encoding are in it."""
    if guarantee.holder is not holder_of(encoding):
        raise UsageError(f"a {holder_of(encoding)} holds each unit, a {guarantee.holder} those of the guarantee")
    sensitivity = encoding.sensitivity()
    return noise.release(
        clients,
        survivors,
        encoding.coordinates,
        sensitivity.l2_squared,
        sensitivity.l1,
        guarantee,
        encoding.sampled,
    )


def holder_of(encoding: Encoding) -> Holder:
    """Who has each unit's data before the sum: its device, or the silo that it is a user of."""
    return Holder.SILO if encoding.users else Holder.DEVICE


def user_level(relation: Relation, holder: Holder = Holder.DEVICE) -> Guarantee:
    """The guarantee of noise inside a secure sum; ``Guarantee`` says why add-or-remove is impossible."""
    return Guarantee(Unit.USER, relation, Trust.DISTRIBUTED, holder)


def sampler_slack(epsilon: float, samples: int) -> float:
    """What inexact samplers add to delta: (1 + e^epsilon) times the distance of all that is drawn from its law."""
    return (1 + exp(min(epsilon, 700.0))) * samples * float(STATISTICAL_DISTANCE)


def _finest_first(encoding_of: Callable[[int], Encoding]) -> Iterator[Encoding]:
    """Encodings of ever fewer bits."""
    yield encoding_of(_MOST_BITS)
    for bits in range(_MOST_BITS - 1, 1, -1):
        try:
            encoding = encoding_of(bits)
        except UsageError:  # nearest rounding wants no coarser grid
            return
        yield encoding


def _needed_bits(encoding: Encoding, noise: NoiseSpec, clients: int) -> int | None:
    try:
        return encoding.ring_bits(clients, noise.coordinate_bound(clients, encoding.coordinates))
    except UsageError:  # more bits than any ring has
        return None
