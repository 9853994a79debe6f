"""Noise inside a secure sum: what each client adds so that the SUM carries what the plan demands.

Clients drop out and may collude, so each adds more than its share. With ``components`` the excess noise is removable,
as in XNoise (Jiang, Wang and Chen 2024, "Efficient Federated Learning with Dropout-Resilient Differential Privacy",
EuroSys): n clients are planned, C may collude, A may be missing. Every client adds noise of variance s^2 / (n - C) to
keep, and components 1..m on top that bring it to s^2 / (n - a_j - C), where a_j = ceil(j A / m) clients may be missing
at removal level j. When D clients turn out to be missing, components beyond the first level with a_j >= D are taken off
the sum again, so the noise of the n - D - C honest survivors has variance at least s^2, and exactly s^2 if m = A.
Component seeds form a hash chain: the 32 bytes of level j give the seeds of all components beyond it, and of none
before it.

Noise is discrete Gaussian or Skellam, and variances add up in both families: those of Skellam noise exactly, and of
discrete Gaussians the parameters sigma^2, as far as accounting is concerned, if each that is drawn is at least
``LEAST_DRAW`` (docs/gaussian_sums.md). A plan under which a share or a component would be smaller is refused, so
whatever honest survivors have in the sum counts.

Deviations from the paper: seeds are not shared among neighbours; a client that falls silent after its upload leaves
its excess noise in the sum, which costs accuracy, never privacy. One seed is sent instead of m.

Variances are exact and in squared integer units, those of encoded vectors; ``secagg.crypto.sampling`` draws the
samples. The guarantee assumes that honest clients add their noise: nothing proves it to others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from math import ceil, isqrt, log, sqrt
from typing import TYPE_CHECKING

from dp.events import LEAST_DRAW, DiscreteGaussians, Guarantee, Mechanism, Release, Skellam, by_coins
from secagg.codec import Codec, enumeration, rational, struct, u16, u32
from secagg.crypto import labels
from secagg.crypto.keys import derive
from secagg.crypto.sampling import LARGEST_VARIANCE, SMALLEST
from secagg.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_UNREASONABLE_VARIANCE = 1 << 256
"""Larger variances are refused, so that floating-point numbers never overflow in what is computed from them."""

WRAP_BITS = 40
"""Noise makes a round's sum wrap around the ring with probability below 2^-40: below 2^-20 in a million rounds."""


class Family(StrEnum):
    DISCRETE_GAUSSIAN = "discrete-gaussian"
    SKELLAM = "skellam"


@dataclass(frozen=True, slots=True)
class NoiseSpec:
    """What a plan says of the noise in its sum.

    ``variance`` is the least variance of the honest survivors' noise, with up to ``dropouts`` clients missing. That of
    a discrete Gaussian is its parameter sigma^2.

    >>> spec = NoiseSpec(Family.DISCRETE_GAUSSIAN, Fraction(900), dropouts=3, colluders=1, components=3)
    >>> spec.kept_variance(clients=10), [str(spec.component_variance(10, level)) for level in (1, 2, 3)]
    (Fraction(100, 1), ['25/2', '225/14', '150/7'])
    >>> spec.honest_variance(clients=10, survivors=8)
    Fraction(900, 1)
    >>> spec = NoiseSpec(Family.DISCRETE_GAUSSIAN, Fraction(900), dropouts=3, colluders=1)
    >>> spec.honest_variance(clients=10, survivors=8)
    Fraction(1050, 1)
    """

    family: Family
    variance: Fraction
    dropouts: int = 0
    colluders: int = 0
    components: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.variance < _UNREASONABLE_VARIANCE:
            raise UsageError("the variance of noise is above zero, and not beyond all reason")
        if not (0 <= self.dropouts < 1 << 32 and 0 <= self.colluders < 1 << 32):
            raise UsageError("between zero and 2^32 - 1 clients drop out or collude")
        if self.components >= 1 << 16:
            raise UsageError("there are at most 2^16 - 1 removable components")
        if not 0 <= self.components <= self.dropouts:
            raise UsageError(f"{self.components} removable components do not fit {self.dropouts} dropouts")

    def check(self, clients: int) -> None:
        """Refuse noise under which, in the worst case, no honest client would be left whose noise counts."""
        if self.dropouts + self.colluders >= clients:
            raise UsageError(
                f"of {clients} clients {self.dropouts} may be missing and {self.colluders} collude: nobody is left"
            )

    def enough_alone(self, clients: int) -> bool:
        """Whether each honest client keeps as much noise as all are to have: no matter then which sums are seen.

        >>> NoiseSpec(Family.SKELLAM, Fraction(900), dropouts=1, colluders=1).enough_alone(clients=3)
        True
        """
        return self.kept_variance(clients) >= self.variance

    def drawable(self, clients: int) -> bool:
        """Whether the samplers can draw what each of ``clients`` clients has to add, and a bound is known for it."""
        return not self.too_small(clients) and self._at_level(clients, self.dropouts) <= LARGEST_VARIANCE

    def too_small(self, clients: int) -> bool:
        """Whether a client draws noise of so small a variance that it would not count, or that no sampler draws."""
        if self.family is Family.SKELLAM:
            return self.kept_variance(clients) < SMALLEST
        return any(variance < LEAST_DRAW for variance in self.drawn_variances(clients))

    def drawn_variances(self, clients: int) -> Iterator[Fraction]:
        """The variances of what one client draws: the noise that it keeps, then its components, level by level."""
        yield self.kept_variance(clients)
        for level in range(1, self.components + 1):
            yield self.component_variance(clients, level)

    def kept_variance(self, clients: int) -> Fraction:
        """The variance of the noise that each client adds and that always stays in the sum."""
        return self._at_level(clients, 0 if self.components else self.dropouts)

    def component_variance(self, clients: int, level: int) -> Fraction:
        """The variance of the removable component number ``level``, 1 <= level <= components."""
        return self._at_level(clients, self._missing(level)) - self._at_level(clients, self._missing(level - 1))

    def removal_level(self, missing: int) -> int:
        """The removal level: how many of the components stay in the sum when ``missing`` clients are missing."""
        if not 0 <= missing <= self.dropouts:
            raise UsageError(f"{missing} clients are missing, the noise allows for {self.dropouts}")
        return next((level for level in range(self.components + 1) if self._missing(level) >= missing), 0)

    def honest_variance(self, clients: int, survivors: int) -> Fraction:
        """The variance of the honest survivors' noise after excess noise was removed. It is at least ``variance``."""
        level = self.removal_level(clients - survivors)
        each = self._at_level(clients, self._missing(level)) if self.components else self.kept_variance(clients)
        return (survivors - self.colluders) * each

    def whole_variance(self, clients: int, survivors: int, excess_left: int = 0) -> Fraction:
        """The variance, at most, of all noise in the survivors' sum, whoever made it, if ``excess_left`` of them fell
        silent before their excess noise was taken off.

        What is to be kept small by it, noise that is too large, is made no worse by colluders who add less.

        >>> spec = NoiseSpec(Family.DISCRETE_GAUSSIAN, Fraction(900), dropouts=3, colluders=1, components=3)
        >>> spec.whole_variance(10, 10), spec.whole_variance(10, 10, excess_left=2)
        (Fraction(1000, 1), Fraction(1100, 1))
        """
        if not 0 <= excess_left <= survivors <= clients:
            raise UsageError(f"{excess_left} of {survivors} survivors, of {clients} clients, cannot have fallen silent")
        level = self.removal_level(clients - survivors)
        most = self._at_level(clients, self.dropouts)
        each = self._at_level(clients, self._missing(level)) if self.components else most
        return survivors * each + excess_left * (most - each)

    def mechanism(self, clients: int, survivors: int, dimension: int, l2_squared: int, l1: int) -> Mechanism:
        """The mechanism that the survivors' sum is to somebody who knows the colluders' noise."""
        held = self.honest_variance(clients, survivors)
        if self.family is Family.SKELLAM:
            return Skellam(held, l2_squared, l1)
        return DiscreteGaussians(held, self.honest_draws(clients, survivors), dimension, l2_squared)

    def honest_draws(self, clients: int, survivors: int) -> int:
        """How many of the honest survivors' draws are in each coordinate of the sum once excess noise was removed.

        ``UsageError`` if some of them are discrete Gaussians that are too small to count.
        """
        if self.family is Family.DISCRETE_GAUSSIAN and self.too_small(clients):
            raise UsageError(
                f"a share or removable part of the noise has a variance below {LEAST_DRAW} in integer units: no bound "
                "is known for sums of such discrete Gaussians"
            )
        return (survivors - self.colluders) * (1 + self.removal_level(clients - survivors))

    def release(
        self,
        clients: int,
        survivors: int,
        dimension: int,
        l2_squared: int,
        l1: int,
        guarantee: Guarantee,
        sampled: Fraction = Fraction(1),
    ) -> Release:
        """The survivors' sum as an event. All parties know the cohort, so sampling clients amplifies nothing.

        ``sampled`` is the probability with which a user inside a silo is in it, by a coin that only the silo knows.
        """
        mechanism = self.mechanism(clients, survivors, dimension, l2_squared, l1)
        return Release(mechanism, by_coins(sampled), guarantee)

    def samples(self, clients: int, dimension: int) -> int:
        """How many integers all clients' samplers draw for one sum."""
        return clients * dimension * (1 + self.components)

    def coordinate_bound(self, clients: int, coordinates: int) -> int:
        """A bound that all clients' noise together exceeds on any coordinate with probability below 2^-WRAP_BITS.

        It is a union over the coordinates: of Bernstein's bound for Skellam noise; of 2 exp(-b^2 / 2V) for discrete
        Gaussians of parameters that add up to V, because E exp(tX) <= exp(t^2 sigma^2 / 2) (docs/gaussian_sums.md).
        """
        total = clients * self._at_level(clients, self.dropouts)
        u = log(2 * coordinates) + WRAP_BITS * log(2)
        if self.family is Family.DISCRETE_GAUSSIAN:
            return isqrt(ceil(2 * total * Fraction(u * (1 + 2.0**-40)))) + 1  # upwards, whatever log rounds to
        return ceil(u / 3 + sqrt(u * u / 9 + 2 * float(total) * u))

    def draw(self, clients: int, coordinates: int, keep: bytes, chain: bytes) -> NDArray[np.int64]:
        """A client's noise: what stays in the sum, from the seed ``keep``, and what is removable, from ``chain``."""
        return drawn(self.family, self.kept_variance(clients), coordinates, keep) + self.excess(
            clients, coordinates, chain, 0
        )

    def excess(self, clients: int, coordinates: int, seed: bytes, level: int) -> NDArray[np.int64]:
        """The removable noise beyond removal level ``level``, from that level's seed."""
        import numpy as np

        total = np.zeros(coordinates, np.int64)
        for beyond in range(level + 1, self.components + 1):
            total += drawn(
                self.family, self.component_variance(clients, beyond), coordinates, derive(seed, labels.NOISE_DRAW)
            )
            seed = derive(seed, labels.NOISE_CHAIN)
        return total

    def seed(self, chain: bytes, level: int) -> bytes:
        """The seed from which the components beyond ``level`` follow, and no others."""
        for _ in range(level):
            chain = derive(chain, labels.NOISE_CHAIN)
        return chain

    def _missing(self, level: int) -> int:
        """a_j of the module's text: how many clients may be missing at this removal level."""
        return -(-level * self.dropouts // self.components) if self.components else self.dropouts

    def _at_level(self, clients: int, missing: int) -> Fraction:
        self.check(clients)
        return self.variance / (clients - missing - self.colluders)


def drawn(family: Family, variance: Fraction, count: int, seed: bytes) -> NDArray[np.int64]:
    """Independent noise of that law and variance, in so many coordinates."""
    from secagg.crypto.sampling import draws

    return {Family.SKELLAM: draws.skellam, Family.DISCRETE_GAUSSIAN: draws.discrete_gaussian}[family](
        variance, count, seed
    )


NOISE: Codec[NoiseSpec] = struct(
    NoiseSpec, family=enumeration(Family), variance=rational, dropouts=u32, colluders=u32, components=u16
)
