"""Noise inside a secure sum: what each client adds so that the SUM carries what the plan demands.

Clients drop out and may collude, so each adds more than its share. With ``components`` the excess noise is removable,
as in XNoise (Jiang, Wang and Chen 2024, "Efficient Federated Learning with Dropout-Resilient Differential Privacy",
EuroSys): n clients are planned, C may collude, A may be missing. Every client adds noise of variance s^2 / (n - C) to
keep, and components 1..m on top that bring it to s^2 / (n - a_j - C), where a_j = ceil(j A / m) clients may be missing
at removal level j. When D clients turn out to be missing, components beyond the first level with a_j >= D are taken off
the sum again, so the noise of the n - D - C honest survivors has variance at least s^2, and exactly s^2 if m = A.
Component seeds form a hash chain: the 32 bytes of level j give the seeds of all components beyond it, and of none
before it.

Deviations from the paper: seeds are not shared among neighbours; a client that falls silent after its upload leaves
its excess noise in the sum, which costs accuracy, never privacy. One seed is sent instead of m.

Variances are exact and in squared integer units, those of encoded vectors; ``secagg.crypto.sampling`` draws the
samples. The guarantee assumes that honest clients add their noise: nothing proves it to others.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from math import ceil, log, sqrt
from typing import TYPE_CHECKING

from dp.events import DiscreteGaussians, Everyone, Guarantee, Mechanism, Release, Skellam
from secagg.codec import Codec, enumeration, rational, struct, u16, u32
from secagg.crypto import labels
from secagg.crypto.keys import derive
from secagg.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LARGEST_VARIANCE = Fraction(1 << 44)
SMALLEST_VARIANCE = Fraction(1, 1 << 20)
"""The variances that the samplers can draw, and so the least and the largest that one client may be asked to add."""

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

    ``variance`` is the least variance of the honest survivors' noise, with up to ``dropouts`` clients missing.

    >>> spec = NoiseSpec(Family.SKELLAM, Fraction(900), dropouts=3, colluders=1, components=3)
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
        if self.components and self.family is not Family.SKELLAM:
            raise UsageError("only Skellam noise can be taken off in parts: its sums are Skellam again")

    def check(self, clients: int) -> None:
        """Refuse noise under which, in the worst case, no honest client would be left whose noise counts."""
        if self.dropouts + self.colluders >= clients:
            raise UsageError(
                f"of {clients} clients {self.dropouts} may be missing and {self.colluders} collude: nobody is left"
            )

    def drawable(self, clients: int) -> bool:
        """Whether the samplers can draw the variances that each of ``clients`` clients has to add."""
        return (
            self.kept_variance(clients) >= SMALLEST_VARIANCE
            and self._at_level(clients, self.dropouts) <= LARGEST_VARIANCE
        )

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

    def mechanism(self, clients: int, survivors: int, dimension: int, l2_squared: int, l1: int) -> Mechanism:
        """The mechanism that the survivors' sum is to somebody who knows the colluders' noise."""
        if self.family is Family.SKELLAM:
            return Skellam(self.honest_variance(clients, survivors), l2_squared, l1)
        self.removal_level(clients - survivors)  # no more missing than allowed for
        honest = survivors - self.colluders
        return DiscreteGaussians(honest, self.kept_variance(clients), dimension, l2_squared, l1)

    def release(
        self, clients: int, survivors: int, dimension: int, l2_squared: int, l1: int, guarantee: Guarantee
    ) -> Release:
        """The survivors' sum as an event. All parties know the cohort, so sampling clients amplifies nothing."""
        return Release(self.mechanism(clients, survivors, dimension, l2_squared, l1), Everyone(), guarantee)

    def samples(self, clients: int, dimension: int) -> int:
        """How many integers all clients' samplers draw for one sum."""
        return clients * dimension * (1 + self.components)

    def coordinate_bound(self, clients: int, coordinates: int) -> int:
        """A bound that all clients' noise together exceeds on any coordinate with probability below 2^-WRAP_BITS.

        It is Bernstein's, with a union over the coordinates.
        """
        total = float(clients * self._at_level(clients, self.dropouts))
        u = log(2 * coordinates) + WRAP_BITS * log(2)
        return ceil(u / 3 + sqrt(u * u / 9 + 2 * total * u))

    def draw(self, clients: int, coordinates: int, keep: bytes, chain: bytes) -> NDArray[np.int64]:
        """A client's noise: what stays in the sum, from the seed ``keep``, and what is removable, from ``chain``."""
        return _draw(self.family, self.kept_variance(clients), coordinates, keep) + self.excess(
            clients, coordinates, chain, 0
        )

    def excess(self, clients: int, coordinates: int, seed: bytes, level: int) -> NDArray[np.int64]:
        """The removable noise beyond removal level ``level``, from that level's seed."""
        import numpy as np

        total = np.zeros(coordinates, np.int64)
        for beyond in range(level + 1, self.components + 1):
            total += _draw(
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


def _draw(family: Family, variance: Fraction, count: int, seed: bytes) -> NDArray[np.int64]:
    from secagg.crypto import sampling

    return {Family.SKELLAM: sampling.skellam, Family.DISCRETE_GAUSSIAN: sampling.discrete_gaussian}[family](
        variance, count, seed
    )


NOISE: Codec[NoiseSpec] = struct(
    NoiseSpec, family=enumeration(Family), variance=rational, dropouts=u32, colluders=u32, components=u16
)
