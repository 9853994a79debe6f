"""The field of 2^31 - 1 elements, in numpy: what secret sharing computes in.

A Mersenne prime below 2^31 keeps every product inside a 64-bit word and reduction down to a shift and an addition.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from secagg.crypto.prg import Prg, Rng

Field: TypeAlias = NDArray[np.uint64]

PRIME = (1 << 31) - 1
P = np.uint64(PRIME)

_SHIFT = np.uint64(31)


def reduce(value: Field) -> Field:
    """Words below 2^63, reduced modulo p."""
    value = (value & P) + (value >> _SHIFT)
    value = (value & P) + (value >> _SHIFT)
    reduced: Field = np.minimum(value, value - P)  # below p the difference wraps, and is the larger one
    return reduced


def multiply(a: Field, b: Field) -> Field:
    return reduce(a * b)


def invert(value: Field) -> Field:
    """Inverses, as value^(p-2). All of the 31 bits of p - 2 but the second are set."""
    result, square = value, value
    for bit in range(1, 31):
        square = multiply(square, square)
        if (PRIME - 2) >> bit & 1:
            result = multiply(result, square)
    return result


def dot(weights: Field, y: NDArray[np.uint32]) -> Field:
    """For each row, sum_i weights_i y_i. Reduced products are below 2^31, so 2^32 of them add up without wrapping."""
    total = np.zeros((len(y), y.shape[2]), np.uint64)
    for i in range(y.shape[1]):
        total += multiply(weights[:, i : i + 1], y[:, i].astype(np.uint64))
    return reduce(total)


def matmul(a: Field, b: Field) -> Field:
    """The product of two matrices. Up to 2^15 terms of 2^47 stay below 2^63; with more terms, halves are added up."""
    if (half := a.shape[-1] // 2) >= 1 << 14:
        return reduce(matmul(a[..., :half], b[:half]) + matmul(a[..., half:], b[half:]))
    low, high = a & np.uint64(0xFFFF), a >> np.uint64(16)
    return reduce((reduce(high @ b) << np.uint64(16)) + reduce(low @ b))


def powers(x: Field, count: int) -> Field:
    """For each row x^0, x^1, ... x^(count - 1), with one product of many columns for each bit of ``count``."""
    table = np.ones((len(x), count), np.uint64)
    done, step = 1, x
    while done < count:
        more = min(done, count - done)
        table[:, done : done + more] = multiply(table[:, :more], step[:, None])
        done, step = 2 * done, multiply(step, step)
    return table


def uniform_rows(seeds: Sequence[bytes], count: int) -> Field:
    """A row of ``count`` uniform field elements for each seed: ``uniform((count,), Prg(seed))``."""
    words = np.frombuffer(b"".join([Prg(seed)(4 * count) for seed in seeds]), "<u4").reshape(len(seeds), count)
    rows = (words & np.uint32(PRIME)).astype(np.uint64)
    for row in np.flatnonzero((rows == P).any(axis=1)).tolist():
        rows[row] = uniform((count,), Prg(seeds[row]))
    return rows


def uniform(shape: tuple[int, ...], rng: Rng) -> Field:
    """Uniform field elements: 31-bit words, of which those equal to p are drawn again."""
    count = int(np.prod(shape))
    words = np.frombuffer(rng(4 * count), "<u4") & np.uint32(PRIME)
    while (again := np.flatnonzero(words == PRIME)).size:
        words[again] = np.frombuffer(rng(4 * again.size), "<u4") & np.uint32(PRIME)
    return words.astype(np.uint64).reshape(shape)
