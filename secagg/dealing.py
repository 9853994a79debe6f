"""Shamir shares, dealt with a proof that those of each secret lie on one polynomial.

Atapoor, Baghery, Cozzo and Pedersen 2023 ("VSS from Distributed ZK Proofs and Applications", ASIACRYPT), with hashes
for commitments. A secret is nine limbs, each the constant term of a polynomial f_l of degree t - 1 (``shamir``). The
dealer adds ``BLINDS`` polynomials r_j that hide nothing, gives holder i the values of all of them at its abscissa,
commits to what it gave, and shows z_j = r_j + sum_l rho_lj f_l, where rho is a hash of the commitments. Holder i checks
z_j at its own point.

- If the values given to honest holders are not those of polynomials of degree t - 1, some holder's check fails, except
  with probability (2^31)^-BLINDS = 2^-124 for each set of commitments that the dealer tries.
- The z_j say nothing about the secrets, since the r_j are uniform: as long as nobody shows its values of r_j. So a
  share that is revealed goes without them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from secagg.errors import DecodeError, UsageError
from secagg.field import PRIME, Field, P, matmul, multiply, powers, reduce, uniform
from secagg.prg import Prg, Rng
from secagg.shamir import LIMBS, limbs_of

BLINDS = 4
ELEMENT_BYTES = 4
RESPONSE_BYTES = ELEMENT_BYTES * BLINDS


def width(secrets: int) -> int:
    """How many values a holder is given: its limbs of each secret, then its values of the blinding polynomials."""
    return LIMBS * secrets + BLINDS


class Polynomials:
    """The dealer's side; the first columns of what it gives are the limbs of its secrets.

    >>> import os
    >>> dealt = Polynomials([b"k" * 32, b"b" * 32], 2, os.urandom)
    >>> points, rho = dealt.points([1, 2, 3]), bytes(32)
    >>> shown = responses(dealt.proof(rho), 2, [1, 2, 3])
    >>> consistent(points, [rho] * 3, shown).tolist()
    [True, True, True]
    >>> points[1, 0] ^= 1
    >>> consistent(points, [rho] * 3, shown).tolist()
    [True, False, True]
    """

    def __init__(self, secrets: Sequence[bytes], threshold: int, rng: Rng) -> None:
        if threshold < 1:
            raise UsageError(f"a threshold is at least 1, not {threshold}")
        self._coefficients = uniform((threshold, width(len(secrets))), rng)
        self._coefficients[0, :-BLINDS] = limbs_of(secrets).reshape(-1)

    def points(self, holders: Sequence[int]) -> NDArray[np.uint32]:
        """The values at the holders' abscissas, which are not zero, a row for each."""
        return matmul(_table(tuple(holders), len(self._coefficients)), self._coefficients).astype(np.uint32)

    def proof(self, challenge: bytes) -> bytes:
        """The coefficients of the z_j, lowest first."""
        limbs, blinds = self._coefficients[:, :-BLINDS], self._coefficients[:, -BLINDS:]
        return reduce(matmul(limbs, _weights(challenge, limbs.shape[1])) + blinds).astype("<u4").tobytes()

    def __repr__(self) -> str:
        return "Polynomials(<redacted>)"


def responses(proof: bytes, threshold: int, holders: Sequence[int]) -> NDArray[np.uint32]:
    """What the proof says about each holder: the z_j at its abscissa."""
    coefficients = elements(proof, BLINDS)
    if len(coefficients) != threshold:
        raise DecodeError(f"a proof of {len(coefficients)} coefficients, not {threshold}")
    return matmul(_table(tuple(holders), threshold), coefficients.astype(np.uint64)).astype(np.uint32)


def consistent(points: NDArray[np.uint32], challenges: Sequence[bytes], shown: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Row by row, whether one holder's values from one dealer are those of which that dealer's proof speaks."""
    values = points.astype(np.uint64)
    limbs, expected = values[:, :-BLINDS], values[:, -BLINDS:]
    weights = np.stack([_weights(challenge, limbs.shape[1]) for challenge in challenges])
    for limb in range(limbs.shape[1]):
        expected = expected + multiply(limbs[:, limb, None], weights[:, limb])
    agree: NDArray[np.bool_] = (reduce(expected) == shown).all(axis=1)
    return agree


def padded(points: NDArray[np.uint32], key: bytes) -> NDArray[np.uint32]:
    """One holder's values under a one-time pad in the field. Whoever alters them shifts them, by what it likes."""
    return reduce(points.astype(np.uint64) + _pad(key, points.size)).astype(np.uint32)


def unpadded(points: NDArray[np.uint32], key: bytes) -> NDArray[np.uint32]:
    return reduce(points.astype(np.uint64) + P - _pad(key, points.size)).astype(np.uint32)


def elements(data: bytes, columns: int) -> NDArray[np.uint32]:
    """Field elements from little-endian words, so many in a row; refuses what is not reduced."""
    if len(data) % (ELEMENT_BYTES * columns):
        raise DecodeError(f"{len(data)} bytes are not rows of {columns} field elements")
    words = np.frombuffer(data, "<u4").reshape(-1, columns)
    if (words >= PRIME).any():
        raise DecodeError("a field element that is not reduced")
    return words.astype(np.uint32)


def _weights(challenge: bytes, limbs: int) -> Field:
    return uniform((limbs, BLINDS), Prg(challenge))


def _pad(key: bytes, count: int) -> Field:
    return uniform((count,), Prg(key))


@lru_cache(maxsize=1)  # on the complete graph everybody's holders are the same
def _table(holders: tuple[int, ...], threshold: int) -> Field:
    if not holders or min(holders) < 1 or max(holders) >= PRIME:
        raise UsageError("a share index is zero or too large")
    return powers(np.array(holders, np.uint64), threshold)
