"""Parameters of sums under ring-LWE: the ring, how many values are in a coefficient, and how wide they are.

For each N in turn and each number v of values in a coefficient, the narrowest q is taken that

1. has room: 2^(vw) (2 tail + 1) <= q for values of w bits (``Encoding.ring_bits``) and the errors' ``tail``;
2. shows wrong keys: c uniform coefficients are all in that range with probability at most 2^-40;
3. is secure: it has at most WIDEST[cost model][N] bits.

The tail T is such that a sum of errors exceeds it anywhere with probability below 2^-40. A discrete Gaussian of
variance V has E exp(tX) <= exp(t^2 V / 2) (Canonne, Kamath and Steinke 2020), sums add the variances, so

    Pr[some |E| > T] <= 2 c exp(-T^2 / 2V) + n c 2^-128       (the second: samples are 2^-128 from the law)

The smallest N with which an upload is at most 1.2 times the packed sum is taken, or the smallest upload of all.

Fresh errors and secrets have sigma = 6.4. Who knows the sum of h of each (the server, once it is decoded) faces LWE
with 1/sigma0^2 = 2 (1/sigma^2 + 1/((h - 1) sigma^2)), so sigma0 >= 3.2 from h = 2 on (hint-RLWE: Kim, Lee, Seo and Song
2023), and 3.2 is what the tables are for. Which account of the attacks they go by is ``secagg.assumptions.CostModel``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import ceil, exp2, log, log2, prod, sqrt

from secagg.assumptions import MAX_CLIENTS, CostModel
from secagg.crypto.lattice.layout import Layout
from secagg.crypto.lattice.primes import moduli
from secagg.crypto.lattice.ring import SECURE_BITS, WIDEST, QuotientRing
from secagg.crypto.sampling import STATISTICAL_DISTANCE
from secagg.encoding import Encoding
from secagg.errors import UsageError

VARIANCE = Fraction(1024, 25)
"""The variance of secrets and errors: 6.4^2."""

CORRECTNESS = 40
EXPANSION = Fraction(6, 5)

_LARGEST_VARIANCE = 1 << 2 * max(SECURE_BITS.values())
_ROUNDING = 1 + 2.0**-40  # covers the floating-point operations of a bound many times over


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters that satisfy the rules, checked on construction; ``variance`` is that of the errors in a sum."""

    layout: Layout
    clients: int
    length: int
    variance: Fraction
    cost_model: CostModel = CostModel.CORE_SVP

    def __post_init__(self) -> None:
        if not 1 <= self.clients <= MAX_CLIENTS:
            raise UsageError(f"clients must be between 1 and {MAX_CLIENTS}, not {self.clients}")
        if self.length < 1 or self.variance <= 0:
            raise UsageError("there is at least one value, and errors have a variance")
        if self.layout.ring.bits > self.secure_bits:
            raise UsageError(f"q has {self.layout.ring.bits} bits, {self.secure_bits} are secure by {self.cost_model}")
        if self.failure_log2 >= -CORRECTNESS:
            raise UsageError(f"decoding fails with probability 2^{self.failure_log2:.1f}, which is too much")
        if self.undetected_log2 > -CORRECTNESS:
            raise UsageError(f"a wrong key goes unnoticed with probability 2^{self.undetected_log2:.1f}")

    @property
    def failure_log2(self) -> float:
        """Bound on the probability that any of the sums decodes wrongly (``PeerError`` or not), as a power of two."""
        return failure_log2(self.layout.tail, self.layout.coefficients(self.length), self.clients, self.variance)

    @property
    def undetected_log2(self) -> float:
        """The probability that uniform coefficients are all in the range of sums."""
        return self.layout.coefficients(self.length) * _log2_ratio(self.layout.limit, self.layout.ring.modulus)

    @property
    def secure_bits(self) -> int:
        """The most bits that q may have at this N for 128 bits of security."""
        return WIDEST[self.cost_model][self.layout.ring.degree]

    @property
    def upload_bytes(self) -> int:
        return self.layout.ring.packed_size(self.layout.coefficients(self.length))

    @property
    def expansion(self) -> float:
        """The size of an upload over that of the same vector, packed at the width of its sum."""
        return 8 * self.upload_bytes / (self.length * self.layout.width)


@lru_cache(maxsize=256)
def choose(
    encoding: Encoding,
    n: int,
    noise_bound: int = 0,
    variance: Fraction | None = None,
    cost_model: CostModel = CostModel.CORE_SVP,
) -> Parameters:
    """Parameters for sums of n clients' vectors, with integer noise up to ``noise_bound`` on a coordinate of the sum.

    ``variance`` is that of the errors in a decoded sum, if they are not n fresh ones (the squared sub-Gaussian
    parameter).

    >>> chosen = choose(Encoding.integers(1_000_000, bits=16), 1000)
    >>> chosen.layout.ring.degree, chosen.layout.ring.bits, chosen.layout.values, chosen.layout.width
    (4096, 90, 3, 26)
    >>> round(chosen.expansion, 3), round(chosen.failure_log2, 2)
    (1.154, -40.08)
    """
    smallest: Parameters | None = None
    for chosen in candidates(encoding, n, noise_bound, variance, cost_model):
        if smallest is None or chosen.upload_bytes < smallest.upload_bytes:
            smallest = chosen
        if smallest.expansion <= EXPANSION:
            return smallest
    if smallest is None:
        width = encoding.ring_bits(n, noise_bound)
        raise UsageError(f"no N up to {max(SECURE_BITS)} has room for sums of {width} bits and such errors")
    return smallest


def candidates(
    encoding: Encoding,
    n: int,
    noise_bound: int = 0,
    variance: Fraction | None = None,
    cost_model: CostModel = CostModel.CORE_SVP,
) -> Iterator[Parameters]:
    """For each possible N, in ascending order, the parameters with the smallest upload."""
    if not 1 <= n <= MAX_CLIENTS:
        raise UsageError(f"clients must be between 1 and {MAX_CLIENTS}, not {n}")
    variance = n * VARIANCE if variance is None else variance
    if noise_bound < 0 or not 0 < variance < _LARGEST_VARIANCE:
        raise UsageError("a bound on noise is not negative, and errors have a variance, which is below q^2")
    length, width = encoding.coordinates, encoding.ring_bits(n, noise_bound)
    for degree in SECURE_BITS:
        layouts = _layouts(degree, width, n, length, variance, cost_model)
        fitting = [Parameters(layout, n, length, variance, cost_model) for layout in layouts]
        if fitting:
            yield min(fitting, key=lambda chosen: chosen.upload_bytes)


def _layouts(
    degree: int, width: int, n: int, length: int, variance: Fraction, cost_model: CostModel
) -> Iterator[Layout]:
    """For each number of values in a coefficient, the layout with the narrowest q."""
    for values in range(1, WIDEST[cost_model][degree] // width + 1):
        layout = narrowest(degree, width, values, n, length, variance, cost_model)
        if layout is not None:
            yield layout


def narrowest(
    degree: int,
    width: int,
    values: int,
    n: int,
    length: int,
    variance: Fraction,
    cost_model: CostModel = CostModel.CORE_SVP,
) -> Layout | None:
    """The layout with this N and this number of values that satisfies rules 1 to 3 with the narrowest q, or None.

    >>> narrowest(4096, 26, 3, 1000, 1_000_000, 1000 * VARIANCE) == choose(Encoding.integers(1_000_000), 1000).layout
    True
    """
    count = -(-length // values)
    largest = tail(count, n, variance)
    ring = _ring(degree, (2 * largest + 1) << (values * width), count, WIDEST[cost_model][degree])
    return None if ring is None else Layout(ring, width, values, largest)


def failure_log2(tail: int, count: int, clients: int, variance: Fraction) -> float:
    """The logarithm to base 2 of the bound in the module's text on Pr[some |E| > T]."""
    gauss = tail**2 / (2 * float(variance) * log(2) * _ROUNDING)
    return log2(count) + log2(exp2(1 - gauss) + clients * float(STATISTICAL_DISTANCE))


def tail(count: int, n: int, variance: Fraction) -> int:
    """A bound that ``count`` sums of n samples exceed anywhere with probability below 2^-40; a sum has ``variance``.

    It is the least T, or one more, with 2 c exp(-T^2 / 2V) <= 2^-40 - n c 2^-128.
    """
    left = exp2(-CORRECTNESS) - n * count * float(STATISTICAL_DISTANCE)
    return ceil(sqrt(2 * float(variance) * log(2 * count / left)) * _ROUNDING) + 1


def _ring(degree: int, limit: int, count: int, widest: int) -> QuotientRing | None:
    for bits in range(limit.bit_length(), widest + 1):
        primes = moduli(degree, bits)
        modulus = prod(primes)
        if modulus >= limit and count * _log2_ratio(limit, modulus) <= -CORRECTNESS:
            return QuotientRing(degree, primes)
    return None


def _log2_ratio(part: int, whole: int) -> float:
    """log2(part / whole): the quotient is rounded once, by 2^-53 at most."""
    return log2(Fraction(part, whole))
