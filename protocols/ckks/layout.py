"""Exact integers in an approximate scheme: how many digits a coordinate needs, at which scale, and how wrong it gets.

CKKS encrypts real numbers and gives them back with an error. Integers survive it if a slot's sum times the scale stays
below q/2 and the error of the sum below 1/2. The modulus is fixed (one prime of 54 bits, no multiplication is ever
made), so a wider sum leaves a smaller scale and a larger error. What one slot cannot hold is cut into signed digits,
one slot each; digit sums do not overlap, because every digit has a slot of its own.

The error. SEAL encrypts under both primes and divides by the second, which leaves the rounding of two polynomials:
variance (1 + |s|^2) / 12 a coefficient, another 1/12 from rounding the plaintext, and |s|^2 <= N as s is ternary. The
real part of a slot sums N coefficients against cosines: N/2 times that. Ciphertexts are independent, so n of them have
n times the variance. A million slots of a thousand clients differ from the truth by at most ``error`` except with
probability 2^-40, if the sum of so many independent roundings is as concentrated as a Gaussian. A sum that is further
from integers than that is refused, not rounded (``join``).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log, sqrt

import numpy as np
from numpy.typing import NDArray

from secagg.errors import PeerError, UsageError

DEGREE = 4096
MODULI = (54, 55)
"""Bits of the primes: of ciphertexts, and of keys only. 109 in all is what 128 bits of security allow at N = 4096
(Homomorphic Encryption Standard 2018, table 1; 98 at most by core-SVP, see ``secagg.assumptions.CostModel``)."""
SLOTS = DEGREE // 2
"""Reals in a ciphertext. The imaginary halves stay empty: TenSEAL has no way to fill them."""
MAX_CLIENTS = 4096

_FAILURE_BITS = 40
_LARGEST_ERROR = 1 / 4
_PRODUCT_BITS = MODULI[0] - 2  # of sum times scale: half of q/2 is left for the noise
_DEVIATION = sqrt(DEGREE / 2 * (2 + DEGREE) / 12)  # of one fresh ciphertext's slot, in units of 1/scale
_MAX_DIGITS = 8


@dataclass(frozen=True, slots=True)
class Layout:
    """``digits`` slots a coordinate, ``digit_bits`` bits in each, times 2^``scale_bits``.

    >>> Layout.choose(ring_bits=26, clients=1000, coordinates=10**6)  # 16-bit integers
    Layout(digits=1, digit_bits=26, scale_bits=27, error=0.0018..., coordinates=1000000)
    >>> Layout.choose(ring_bits=64, clients=4096, coordinates=10**6).digits
    4
    """

    digits: int
    digit_bits: int
    scale_bits: int
    error: float
    """A slot of the sum is no further than this from its integer, except with probability 2^-40 over all slots."""
    coordinates: int

    @classmethod
    def choose(cls, ring_bits: int, clients: int, coordinates: int) -> Layout:
        """The fewest digits with which a sum of ``ring_bits`` bits over ``clients`` rounds back exactly."""
        if clients > MAX_CLIENTS:
            raise UsageError(f"ckks adds up to {MAX_CLIENTS} clients exactly, not {clients}")
        for digits in range(1, _MAX_DIGITS + 1):
            digit_bits = ring_bits if digits == 1 else -(-(ring_bits + 1) // digits)  # a carry into the highest
            sum_bits = ring_bits - 1 if digits == 1 else digit_bits - 1 + (clients - 1).bit_length()
            scale_bits = _PRODUCT_BITS - sum_bits
            error = _error(clients, digits * coordinates, sum_bits, scale_bits)
            if error <= _LARGEST_ERROR:
                return cls(digits, digit_bits, scale_bits, error, coordinates)
        raise UsageError(f"sums of {ring_bits} bits over {clients} clients do not round back exactly")

    @property
    def slots(self) -> int:
        return self.digits * self.coordinates

    def split(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """A client's integers as the numbers that go into slots.

        >>> layout = Layout.choose(ring_bits=64, clients=3, coordinates=2)
        >>> layout.join(layout.split(np.array([1 << 62, -5])).astype(float)).tolist()
        [4611686018427387904, -5]
        """
        if self.digits == 1:
            return values
        rest, rows = values, list[NDArray[np.int64]]()
        half = 1 << (self.digit_bits - 1)
        for _ in range(self.digits - 1):
            digit = ((rest + half) & (2 * half - 1)) - half
            rows.append(digit)
            rest = (rest - digit) >> self.digit_bits
        return np.concatenate([*rows, rest])

    def join(self, slots: NDArray[np.float64]) -> NDArray[np.int64]:
        """The integers of the sum, from decrypted slots. ``PeerError`` if these are not a sum of integers."""
        largest = 2.0 ** (_PRODUCT_BITS - self.scale_bits) + 1
        if not np.all(np.abs(slots) <= largest):  # NaN is refused, too
            raise PeerError("what was decrypted is larger than any sum")
        nearest = np.rint(slots)
        if not np.all(np.abs(slots - nearest) <= self.error):
            raise PeerError("what was decrypted is not a sum of integers: another key, or not the sum")
        rows = nearest.astype(np.int64).reshape(self.digits, self.coordinates)
        total: NDArray[np.int64] = rows[-1].copy()
        for row in rows[-2::-1]:
            total = (total << self.digit_bits) + row
        return total


def _error(clients: int, slots: int, sum_bits: int, scale_bits: int) -> float:
    """z deviations of the noise, and the doubles with which slots are encoded and decoded."""
    z = sqrt(2 * log(2.0 ** (_FAILURE_BITS + 1) * slots))
    return z * _DEVIATION * sqrt(clients) * 2.0**-scale_bits + 2.0 ** (sum_bits - 48)
