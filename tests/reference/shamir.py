"""Shamir over GF(2^31 - 1) in Python integers, and the cutting of 32 bytes into nine 29-bit limbs."""

from collections.abc import Mapping, Sequence

P = 2**31 - 1


def evaluate(coefficients: Sequence[int], x: int) -> int:
    """The polynomial with these coefficients, constant first."""
    return sum(c * pow(x, i, P) for i, c in enumerate(coefficients)) % P


def at_zero(points: Mapping[int, int]) -> int:
    """The value at zero of the polynomial through the points (Lagrange)."""
    return at(points, 0)


def at(points: Mapping[int, int], z: int) -> int:
    total = 0
    for i, y in points.items():
        weight = 1
        for j in points:
            if j != i:
                weight = weight * (z - j) * pow(i - j, -1, P) % P
        total += y * weight
    return total % P


def limbs(secret: bytes) -> list[int]:
    number = int.from_bytes(secret, "little")
    return [number >> (29 * i) & (2**29 - 1) for i in range(9)]


def joined(values: Sequence[int]) -> bytes | None:
    """Inverse of ``limbs``; None where no 32 bytes have these limbs."""
    number = sum(value << (29 * i) for i, value in enumerate(values))
    return None if max(values) >= 2**29 or number >= 2**256 else number.to_bytes(32, "little")
