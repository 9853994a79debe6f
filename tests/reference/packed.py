"""Packed Shamir sharing over GF(2^31 - 1) by the definition, in Python integers; and ranks modulo p."""

from collections.abc import Mapping, Sequence

from tests.reference.shamir import P, at


def digits_of(bound: int) -> int:
    """How many digits to the base 2 bound + 1 stay within half of the field."""
    return max(k for k in range(1, 31) if (2 * bound + 1) ** k <= P // 2)


def elements(values: Sequence[int], bound: int, packing: int) -> list[list[int]]:
    """[k][j]: the secret of polynomial j at the point -(k + 1). Value i is digit i // e of element i mod e."""
    digits, base = digits_of(bound), 2 * bound + 1
    polynomials = -(-len(values) // (digits * packing))
    count = packing * polynomials
    flat = [sum(value * base**place for place, value in enumerate(values[i::count])) % P for i in range(count)]
    return [flat[k * polynomials : (k + 1) * polynomials] for k in range(packing)]


def share(secrets: Sequence[int], random: Sequence[int], holder: int) -> int:
    """One polynomial's value: it has the secrets at -1, -2, ... and the random numbers at 1, 2, ..."""
    points = {-k: secret for k, secret in enumerate(secrets, 1)} | dict(enumerate(random, 1))
    return at(points, holder)


def secrets(shares: Mapping[int, int], packing: int) -> list[int]:
    """From as many holders' values as the polynomial has coefficients."""
    return [at(shares, -k) for k in range(1, packing + 1)]


def rank(matrix: Sequence[Sequence[int]]) -> int:
    """Of a matrix over GF(p)."""
    rows, found = [[value % P for value in row] for row in matrix], 0
    for column in range(len(rows[0])):
        pivot = next((row for row in rows[found:] if row[column]), None)
        if pivot is None:
            continue
        rows.remove(pivot)
        rows.insert(found, pivot)
        inverse = pow(pivot[column], -1, P)
        for i in range(found + 1, len(rows)):
            factor = rows[i][column] * inverse
            rows[i] = [(value - factor * other) % P for value, other in zip(rows[i], pivot, strict=True)]
        found += 1
    return found
