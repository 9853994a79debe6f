"""Shamir secret sharing of 32-byte secrets, t of n, over GF(2^31 - 1); vectorised over secrets, holders and limbs.

A secret is cut into nine limbs of 29 bits; each limb is the constant term of its own random polynomial of degree
t - 1. Holder i's share of a secret is nine field elements, 36 bytes; its abscissa is not part of the share but who the
holder is, so a share cannot claim another's place.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from secagg.crypto.field import PRIME, Field, P, dot, invert, multiply, reduce, uniform
from secagg.crypto.prg import Rng
from secagg.errors import DecodeError, UsageError

SECRET_BYTES = 32
LIMBS, LIMB_BITS = 9, 29
SHARE_BYTES = 4 * LIMBS

_LIMB_WEIGHTS = np.uint64(1) << np.arange(LIMB_BITS, dtype=np.uint64)


def split(secrets: Sequence[bytes], threshold: int, holders: Sequence[int], rng: Rng) -> NDArray[np.uint32]:
    """Shares of every secret for every holder, shape (holders, secrets, LIMBS). Holders are distinct and not zero.

    >>> shares = split([b"k" * 32, b"b" * 32], 2, [1, 2, 3], __import__("os").urandom)
    >>> reconstruct(np.array([[3, 1]]), shares[[2, 0], 1][None])
    [b'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb']
    """
    if not 1 <= threshold <= len(holders):
        raise UsageError(f"threshold {threshold} is not between 1 and the {len(holders)} holders")
    x = _abscissas(np.asarray([holders], np.int64))[0]
    constants = limbs_of(secrets)
    coefficients = uniform((threshold - 1, *constants.shape), rng)
    value = np.zeros((len(holders), *constants.shape), np.uint64)
    for coefficient in [*coefficients[::-1], constants]:  # Horner
        value = reduce(multiply(value, x[:, None, None]) + coefficient)
    return value.astype(np.uint32)


def reconstruct(holders: NDArray[np.int64], shares: NDArray[np.uint32]) -> list[bytes | None]:
    """Several secrets at once, from t shares each: ``holders`` is (secrets, t), ``shares`` is (secrets, t, LIMBS).

    The secret is None where the shares cannot come from one of 32 bytes. Wrong shares can also give a wrong secret, so
    callers check it against a public key or a commitment.
    """
    x = _abscissas(holders)
    if int(shares.max()) >= PRIME:
        raise DecodeError("a share is not reduced")
    return _from_limbs(dot(_lagrange_at_zero(x), shares))


def wrong_shares(holders: NDArray[np.int64], shares: NDArray[np.uint32], threshold: int, rng: Rng) -> list[int]:
    """Which of m shares, a row for each, are off the polynomials that the other shares agree on.

    Up to (m - t) / 2 wrong shares are found (Berlekamp and Welch 1986): a monic E of degree e that vanishes at the
    wrong ones and a Q of degree below t + e satisfy Q(x) = y E(x) at all m points, and Q / E is the polynomial. The
    columns are first combined with random weights; a wrong share escapes that with probability 2^-31. If more
    shares are wrong, the answer means nothing, so callers check the secret.
    """
    x = _abscissas(holders[None])[0]
    y = dot(uniform((1, shares.shape[1]), rng), shares.T[None])[0]
    e = (len(x) - threshold) // 2
    powers = [np.ones_like(x)]
    while len(powers) < threshold + e:
        powers.append(multiply(powers[-1], x))
    times_y = [multiply(y, power) for power in powers[: e + 1]]
    system = np.stack(
        [*powers, *[P - column for column in times_y]], axis=1
    )  # Q and all coefficients of E but the leading 1
    solution = _solve(reduce(system))
    q, divisor = solution[: threshold + e], [*solution[threshold + e :], 1]
    value = np.zeros_like(x)
    for coefficient in _divide(q, divisor)[::-1]:
        value = reduce(multiply(value, x) + np.uint64(coefficient))
    return np.flatnonzero(value != y).tolist()


def _solve(system: Field) -> list[int]:
    """A solution of the linear equations A x = b, given as rows (a, -b); unknowns that are free are set to zero."""
    rows, unknowns = system.copy(), system.shape[1] - 1
    pivots: list[int] = []
    for column in range(unknowns):
        at = len(pivots)
        candidates = np.flatnonzero(rows[at:, column])
        if not candidates.size:
            continue
        rows[[at, at + candidates[0]]] = rows[[at + candidates[0], at]]
        rows[at] = multiply(rows[at], invert(rows[at, column : column + 1]))
        factors = rows[:, column : column + 1].copy()
        factors[at] = 0
        rows = reduce(rows + P - multiply(factors, rows[at]))
        pivots.append(column)
        if len(pivots) == len(rows):
            break
    solution = [0] * unknowns
    for row, column in zip(rows, pivots, strict=False):
        solution[column] = (PRIME - int(row[-1])) % PRIME
    return solution


def _divide(dividend: list[int], divisor: list[int]) -> list[int]:
    """The quotient of polynomials, lowest coefficient first; the divisor is monic."""
    rest, degree = list(dividend), len(divisor) - 1
    quotient = [0] * max(len(rest) - degree, 0)
    for i in range(len(quotient) - 1, -1, -1):
        quotient[i] = rest[i + degree]
        for j, coefficient in enumerate(divisor):
            rest[i + j] = (rest[i + j] - quotient[i] * coefficient) % PRIME
    return quotient


def pack_shares(shares: NDArray[np.uint32]) -> bytes:
    """One holder's shares of several secrets, as bytes to be sealed."""
    return shares.astype("<u4").tobytes()


def unpack_shares(data: bytes, secrets: int) -> NDArray[np.uint32]:
    """Inverse of ``pack_shares``, shape (secrets, LIMBS)."""
    if len(data) != secrets * SHARE_BYTES:
        raise DecodeError(f"{len(data)} bytes are not {secrets} shares")
    shares = np.frombuffer(data, "<u4").reshape(secrets, LIMBS)
    if (shares >= PRIME).any():
        raise DecodeError("a share is not reduced")
    return shares.astype(np.uint32)


def _abscissas(holders: NDArray[np.int64]) -> Field:
    """Holders as field elements: in each row distinct, and not zero."""
    ordered = np.sort(holders, axis=-1)
    if int(ordered.min()) < 1 or int(ordered.max()) >= PRIME:
        raise UsageError("a share index is zero or too large")
    if (ordered[..., 1:] == ordered[..., :-1]).any():
        raise UsageError("a share index appears twice")
    return holders.astype(np.uint64)


def _lagrange_at_zero(x: Field) -> Field:
    """For each row of abscissas, lambda_i = prod_{j != i} x_j / (x_j - x_i)."""
    numerator, denominator = np.ones_like(x), np.ones_like(x)
    for j in range(x.shape[1]):
        other = x[:, j : j + 1]
        difference = reduce(other + P - x)
        difference[:, j] = 1
        factor = np.broadcast_to(other, x.shape).copy()
        factor[:, j] = 1
        numerator = multiply(numerator, factor)
        denominator = multiply(denominator, difference)
    return multiply(numerator, invert(denominator))


def limbs_of(secrets: Sequence[bytes]) -> Field:
    """Secrets cut into limbs, a row for each."""
    if any(len(secret) != SECRET_BYTES for secret in secrets):
        raise UsageError(f"a secret has {SECRET_BYTES} bytes")
    raw = np.frombuffer(b"".join(secrets), np.uint8).reshape(len(secrets), SECRET_BYTES)
    bits = np.zeros((len(secrets), LIMBS * LIMB_BITS), np.uint64)
    bits[:, : 8 * SECRET_BYTES] = np.unpackbits(raw, axis=1, bitorder="little")
    return bits.reshape(len(secrets), LIMBS, LIMB_BITS) @ _LIMB_WEIGHTS


def _from_limbs(limbs: Field) -> list[bytes | None]:
    """Inverse of ``limbs_of``; None where a bit is set that no limb of a secret has."""
    bits = (limbs[:, :, None] >> np.arange(31, dtype=np.uint64) & np.uint64(1)).astype(np.uint8)
    flat = bits[:, :, :LIMB_BITS].reshape(len(limbs), -1)
    spare = bits[:, :, LIMB_BITS:].sum(axis=(1, 2)) + flat[:, 8 * SECRET_BYTES :].sum(axis=1)
    raw = np.packbits(flat[:, : 8 * SECRET_BYTES], axis=1, bitorder="little")
    return [None if extra else row.tobytes() for row, extra in zip(raw, spare.tolist(), strict=True)]
