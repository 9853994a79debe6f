"""How wrong a decrypted sum is, how much noise hides that, and which ring has room for both.

The error. Under the joint key b = -a s + T e of m <= n clients, n clients' ciphertexts add up to c0 + c1 s = x + T E,

    E = e V + E0 + s E1,

where s, e and in each block V, E0, E1 are sums of n discrete Gaussians of variance ``lattice.VARIANCE``: each
coefficient is sub-Gaussian with n VARIANCE. So (Hsu, Kakade and Zhang 2012, Theorem 2.1)

    ||e||^2, ||s||^2 <= N n VARIANCE (1 + 2 sqrt(tau / N) + 2 tau / N)          but for e^-tau each;

and given both, a coefficient of E is sub-Gaussian with P = n VARIANCE (||e||^2 + ||s||^2 + 1). Over the c used
coefficients |E| <= B, but for 2 c exp(-B^2 / 2P).

Flooding. E holds products of secrets; who learns x + T E learns about them (Li and Micciancio 2021). Each client adds
T F to its part of the decryption, F discrete Gaussian of variance W. Of those who keep their key at least one is
honest, and its F hides E: by Pinsker, as the Kullback-Leibler divergence of a shift by E is ||E||^2 / 2W,

    TV(F, F + E) <= ||E|| / 2 sqrt(W) <= sqrt(c) B / 2 sqrt(W),

over the whole vector at once. The key decrypts once, so that is all.

Decoding. E and n clients' F together are sub-Gaussian with P + n W: what is beyond the tail of that is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import ceil, exp2, log, log2, sqrt

from secagg.assumptions import CostModel
from secagg.crypto.lattice import VARIANCE, Layout
from secagg.crypto.lattice.flooding import parts
from secagg.crypto.lattice.parameters import narrowest
from secagg.crypto.lattice.ring import WIDEST
from secagg.crypto.sampling import STATISTICAL_DISTANCE
from secagg.errors import UsageError

FLOODING = 40
"""A round with flooded decryptions is no further than 2^-40 from one in which the server is just told the sum."""

_EVENT = 44  # each norm is beyond its bound with probability 2^-44, any coefficient of E with 2^-43
_SPARE = Fraction(33, 32)  # of the squared tail: decoding errors below 2^-41 leave room for the other events
_UP = 1 + 2.0**-30  # covers the floating-point operations of a bound many times over


@dataclass(frozen=True, slots=True)
class Sizes:
    """An answer: where the values stand (and errors above them), and how widely a client floods."""

    layout: Layout
    clients: int
    length: int
    flooding: Fraction
    """W, a power of two."""

    @property
    def count(self) -> int:
        """Coefficients that are used."""
        return self.layout.coefficients(self.length)

    @property
    def blocks(self) -> int:
        return self.layout.blocks(self.length)

    @property
    def unit(self) -> int:
        """T: what errors are multiplied by, so that they stand above the values."""
        return 1 << (self.layout.width * self.layout.values)

    @property
    def key_bytes(self) -> int:
        return self.layout.ring.packed_size(self.layout.ring.degree)

    @property
    def c0_bytes(self) -> int:
        """Of c0, and of a partial decryption: only used coefficients travel."""
        return self.layout.ring.packed_size(self.count)

    @property
    def c1_bytes(self) -> int:
        """Of c1: a product with the key needs all coefficients."""
        return self.layout.ring.packed_size(self.blocks * self.layout.ring.degree)

    @property
    def upload_bytes(self) -> int:
        """Polynomials that a client sends in a round: its part of the key, a ciphertext, a partial decryption."""
        return self.key_bytes + 2 * self.c0_bytes + self.c1_bytes

    @property
    def _samples(self) -> int:
        """That one client draws."""
        degree = self.layout.ring.degree
        return 2 * degree + 2 * self.blocks * degree + (1 + len(parts(self.flooding))) * self.count

    @property
    def failure_log2(self) -> float:
        """Bound on the probability that a sum of honest clients decodes wrongly, or not at all, as a power of two."""
        variance = error_variance(self.layout.ring.degree, self.clients) + self.clients * float(self.flooding)
        tail = 2 * self.count * exp2(-(float(self.layout.tail) ** 2) / (2 * variance * log(2) * _UP))
        return log2(tail + 2 * exp2(-_EVENT) + self.clients * self._samples * float(STATISTICAL_DISTANCE))

    @property
    def flooding_log2(self) -> float:
        """Bound on the distance between flooded decryptions and ones that know nothing of E, as a power of two."""
        bound = error_bound(self.layout.ring.degree, self.clients, self.count)
        shift = sqrt(self.count) * bound / (2 * sqrt(float(self.flooding)))
        return log2(shift * _UP + 4 * exp2(-_EVENT) + self.clients * self._samples * float(STATISTICAL_DISTANCE))


def error_variance(degree: int, clients: int) -> float:
    """P: E's coefficients are sub-Gaussian with this, if both norms are in bounds."""
    each, tau = clients * float(VARIANCE), _EVENT * log(2)
    norm_squared = degree * each * (1 + 2 * sqrt(tau / degree) + 2 * tau / degree)
    return each * (2 * norm_squared + 1) * _UP


def error_bound(degree: int, clients: int, count: int) -> float:
    """B: no coefficient of E is larger, but for 2^-43 (and the norms).

    >>> round(log2(error_bound(8192, 100, 166667)), 1)
    22.3
    """
    return sqrt(2 * error_variance(degree, clients) * log(count * exp2(_EVENT))) * _UP


@lru_cache(maxsize=256)
def choose_sizes(width: int, clients: int, length: int, cost_model: CostModel = CostModel.CORE_SVP) -> Sizes:
    """The fewest bytes up for sums of ``width`` bits.

    >>> chosen = choose_sizes(23, 100, 10**6)  # 16-bit integers
    >>> ring = chosen.layout.ring
    >>> ring.degree, ring.bits, chosen.layout.values, log2(chosen.flooding) / 2
    (16384, 332, 11, 71.0)
    >>> (chosen.c0_bytes + chosen.c1_bytes) / 10**6, round(chosen.failure_log2, 2), round(chosen.flooding_log2, 2)
    (7.852387, -41.28, -40.42)
    """
    smallest: Sizes | None = None
    for degree, secure in WIDEST[cost_model].items():
        for values in range(1, secure // width + 1):
            count = -(-length // values)
            flooding = _flooding(degree, clients, count)
            variance = _SPARE * (clients * flooding + Fraction(error_variance(degree, clients)))
            layout = narrowest(degree, width, values, clients, length, variance, cost_model)
            if layout is not None:
                chosen = Sizes(layout, clients, length, flooding)
                if smallest is None or chosen.upload_bytes < smallest.upload_bytes:
                    smallest = chosen
    if smallest is None:
        raise UsageError(f"no N up to {max(WIDEST[cost_model])} has room for sums of {width} bits and flooded errors")
    return smallest


def _flooding(degree: int, clients: int, count: int) -> Fraction:
    """The least power of two with sqrt(c) B / 2 sqrt(W) <= 2^-41: the other events stay below 2^-41 together."""
    shift = sqrt(count) * error_bound(degree, clients, count) / 2
    return Fraction(1 << ceil(2 * (log2(shift * _UP) + FLOODING + 1)))
