"""Shamir shares, dealt with a proof that those of each secret lie on one polynomial.

Atapoor, Baghery, Cozzo and Pedersen 2023 ("VSS from Distributed ZK Proofs and Applications", ASIACRYPT), with hashes
for commitments. A secret is nine limbs, each the constant term of a polynomial f_l of degree t - 1 (``shamir``). The
dealer adds ``BLINDS`` random polynomials r_j that carry no secret, gives holder i the values of all of them at its
abscissa, commits to what it gave, and shows z_j = r_j + sum_l rho_lj f_l, where rho is a hash of the commitments.
Holder i checks z_j at its own point.

- If the values given to honest holders are not those of polynomials of degree t - 1, some holder's check fails, except
  with probability (2^31)^-BLINDS = 2^-124 for each set of commitments that the dealer tries.
- The z_j say nothing about the secrets, since the r_j are uniform, as long as no holder shows its values of the r_j.
  So whoever reveals a share leaves them out.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from secagg.crypto.field import PRIME, Field, P, matmul, multiply, powers, reduce, uniform, uniform_rows
from secagg.crypto.prg import Rng
from secagg.crypto.shamir import LIMBS, limbs_of
from secagg.errors import DecodeError, UsageError

BLINDS = 4
ELEMENT_BYTES = 4
RESPONSE_BYTES = ELEMENT_BYTES * BLINDS


def width(secrets: int) -> int:
    """How many values a holder is given: its limbs of each secret, then its values of the blinding polynomials."""
    return LIMBS * secrets + BLINDS


class Polynomials:
    """The polynomials that a dealer shares secrets with; the first of their columns are for the limbs of the secrets.

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
        """The values at the holders' abscissas, a row for each holder. No abscissa is zero."""
        return _evaluated(self._coefficients, holders)

    def proof(self, challenge: bytes) -> bytes:
        """The coefficients of the z_j of the module's text, lowest first, as bytes."""
        limbs, blinds = self._coefficients[:, :-BLINDS], self._coefficients[:, -BLINDS:]
        return reduce(matmul(limbs, _weights([challenge], limbs.shape[1])[0]) + blinds).astype("<u4").tobytes()

    def __repr__(self) -> str:
        return "Polynomials(<redacted>)"


def responses(proof: bytes, threshold: int, holders: Sequence[int], among: int = 0) -> NDArray[np.uint32]:
    """The values of the proof's polynomials z_j at each holder's abscissa.

    ``among`` is the largest abscissa of all, for whoever looks at many proofs: then powers of all are computed once.
    """
    if len(proof) != RESPONSE_BYTES * threshold:
        raise DecodeError(f"a proof of {len(proof)} bytes, not of {threshold} coefficients of {BLINDS} polynomials")
    coefficients = np.frombuffer(proof, "<u4").reshape(threshold, BLINDS).astype(np.uint64)
    if (coefficients >= P).any():
        raise DecodeError("a field element that is not reduced")
    if len(holders) < among <= _MOST // threshold:
        if min(holders) < 1 or max(holders) > among:
            raise UsageError("a share index is zero or too large")
        return matmul(_table_of_all(among, threshold)[np.array(holders) - 1], coefficients).astype(np.uint32)
    return _evaluated(coefficients, holders)


def consistent(points: NDArray[np.uint32], challenges: Sequence[bytes], shown: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """For each row, whether the values that a dealer gave to a holder agree with that dealer's proof."""
    values = points.astype(np.uint64)
    limbs, expected = values[:, :-BLINDS], values[:, -BLINDS:]
    weights = _weights(challenges, limbs.shape[1])
    for limb in range(limbs.shape[1]):
        expected = expected + multiply(limbs[:, limb, None], weights[:, limb])
    agree: NDArray[np.bool_] = (reduce(expected) == shown).all(axis=1)
    return agree


def padded(points: NDArray[np.uint32], keys: Sequence[bytes]) -> NDArray[np.uint32]:
    """Each holder's row under a one-time pad in the field. Whoever alters a padded value shifts the value as much."""
    return reduce(points.astype(np.uint64) + uniform_rows(keys, points.shape[1])).astype(np.uint32)


def unpadded(points: NDArray[np.uint32], keys: Sequence[bytes]) -> NDArray[np.uint32]:
    """Inverse of ``padded``."""
    return reduce(points.astype(np.uint64) + P - uniform_rows(keys, points.shape[1])).astype(np.uint32)


def _weights(challenges: Sequence[bytes], limbs: int) -> Field:
    return uniform_rows(challenges, limbs * BLINDS).reshape(-1, limbs, BLINDS)


_MOST = 1 << 22
"""The most powers of abscissas kept at once: for a complete graph of 10^4 clients all take half a gigabyte."""


def _evaluated(coefficients: Field, holders: Sequence[int]) -> NDArray[np.uint32]:
    """The values of polynomials at the holders' abscissas. Each column of ``coefficients`` is a polynomial."""
    threshold, rows = len(coefficients), max(_MOST // len(coefficients), 1)
    if len(holders) <= rows:
        return matmul(_table(tuple(holders), threshold), coefficients).astype(np.uint32)
    return np.concatenate([_evaluated(coefficients, holders[at : at + rows]) for at in range(0, len(holders), rows)])


@lru_cache(maxsize=1)  # on the complete graph everybody's holders are the same
def _table(holders: tuple[int, ...], threshold: int) -> Field:
    """Powers 0 to ``threshold`` - 1 of the holders' abscissas, a row for each holder."""
    if not holders or min(holders) < 1 or max(holders) >= PRIME:
        raise UsageError("a share index is zero or too large")
    return powers(np.array(holders, np.uint64), threshold)


@lru_cache(maxsize=1)
def _table_of_all(count: int, threshold: int) -> Field:
    return powers(np.arange(1, count + 1, dtype=np.uint64), threshold)
