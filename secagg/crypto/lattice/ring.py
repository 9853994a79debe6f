"""The ring R_q = Z_q[X]/(X^N + 1), where q is a product of primes q_i = 1 mod 2N below 2^31.

Here are its size and its security; ``polynomials`` computes in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from secagg.assumptions import CostModel
from secagg.crypto.lattice.primes import DEGREES, MAX_PRIME_BITS, is_prime
from secagg.crypto.ring import Ring
from secagg.errors import UsageError

SECURE_BITS = dict(zip(DEGREES, (27, 54, 109, 218, 438), strict=True))
"""The widest q for each N by the more generous account: Albrecht et al. 2018, Homomorphic Encryption Standard, Table 1
(classical), for ternary secrets (two bits less than for secrets that are as wide as the errors)."""

WIDEST = {
    CostModel.STANDARD: SECURE_BITS,
    CostModel.CORE_SVP: dict(zip(DEGREES, (24, 46, 90, 178, 355), strict=True)),
}
"""The widest q with 128 bits of security for each N, by each account. CORE_SVP is for secrets and errors of standard
deviation 3.2, by the primal and the dual attack; ``tests/reference/core_svp.py`` computes it."""


@dataclass(frozen=True, slots=True)
class QuotientRing:
    """The ring R_q. One in which LWE with narrow errors has less than 128 bits of security by both accounts is refused.

    >>> ring = QuotientRing(1024, (12289, 18433))
    Traceback (most recent call last):
    secagg.errors.UsageError: q has 29 bits, at N = 1024 at most 27 are secure
    >>> QuotientRing(2048, (12289, 40961)).packed_size(1000)
    3750
    """

    degree: int
    primes: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.degree not in SECURE_BITS:
            raise UsageError(f"N is one of {', '.join(map(str, SECURE_BITS))}, not {self.degree}")
        if not self.primes or list(self.primes) != sorted(set(self.primes)):
            raise UsageError("the primes of a ring are distinct and ascend")
        if self.bits > SECURE_BITS[self.degree]:
            raise UsageError(
                f"q has {self.bits} bits, at N = {self.degree} at most {SECURE_BITS[self.degree]} are secure"
            )
        for q in self.primes:
            if q >> MAX_PRIME_BITS or q % (2 * self.degree) != 1 or not is_prime(q):
                raise UsageError(f"{q} is not a prime below 2^{MAX_PRIME_BITS} that is 1 modulo {2 * self.degree}")

    @property
    def modulus(self) -> int:
        return prod(self.primes)

    @property
    def bits(self) -> int:
        """The bits that all residues of one coefficient take on the wire."""
        return sum(q.bit_length() for q in self.primes)

    def packed_size(self, count: int) -> int:
        """The bytes that ``count`` coefficients take on the wire."""
        return sum(Ring(q.bit_length()).packed_size(count) for q in self.primes)
