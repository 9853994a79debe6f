"""Rounding with numpy: the reference, and what the light install has. ``secagg.rounding`` says what each function does.

Sums are written as loops over additions of whole rows, since numpy promises no order for its own.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Integers: TypeAlias = NDArray[np.signedinteger[Any]]
"""Signed integers of 16, 32 or 64 bits."""

Floats: TypeAlias = NDArray[np.float32] | NDArray[np.float64]
"""Coordinates; those of 32 bits are computed with as the doubles that they are, and never stand there as doubles."""

BLOCK = 1 << 14
"""Coordinates that stay in a core's cache with all that is computed from them."""
LANES = 1 << 10
"""Squares are added up in so many sums at a time, which are then folded in halves: one order for all."""

_SHORT = 1 << 24  # the squares of a block of numbers below that add up to less than 2^62


@np.errstate(all="ignore")  # numpy may have been told to raise for an underflow, which would tell something of the data
def squares(vector: Floats, sums: NDArray[np.float64]) -> None:
    for k, start in enumerate(range(0, len(vector), BLOCK)):
        block = vector[start : start + BLOCK]
        square, lanes = np.multiply(block, block, dtype=np.float64), np.zeros(LANES)
        for row in range(0, len(square), LANES):
            part = square[row : row + LANES]
            lanes[: len(part)] += part
        half = LANES
        while half := half // 2:
            lanes[:half] += lanes[half : 2 * half]
        sums[k] = lanes[0]


@np.errstate(all="ignore")
def stochastic(
    vector: Floats,
    factor: float,
    largest: float,
    words: NDArray[np.uint32],
    weight: int,
    values: Integers,
) -> int:
    total = 0
    for start in range(0, len(vector), BLOCK):
        at = slice(start, start + BLOCK)
        scaled = _scaled(vector[at], factor, largest)
        below = np.floor(scaled)
        up = (words[at] + 0.5) * 2.0**-32 < scaled - below
        total += _weighted((below + up).astype(np.int64), weight, values[at])
    return total


@np.errstate(all="ignore")
def nearest(vector: Floats, factor: float, largest: float, weight: int, values: Integers) -> int:
    total = 0
    for start in range(0, len(vector), BLOCK):
        at = slice(start, start + BLOCK)
        whole = np.rint(_scaled(vector[at], factor, largest))
        total += _weighted(whole.astype(np.int64), weight, values[at])
    return total


def add(values: NDArray[np.int32], total: NDArray[np.int64]) -> None:
    total += values


def flip(vector: NDArray[np.float64], bits: NDArray[np.uint8], out: NDArray[np.float64]) -> None:
    for start in range(0, len(vector), BLOCK):
        part = vector[start : start + BLOCK]
        set_ = np.unpackbits(bits[start // 8 : (start + BLOCK) // 8], count=len(part)).astype(bool)
        out[start : start + BLOCK] = np.where(set_, -part, part)


@np.errstate(all="ignore")
def hadamard(vector: NDArray[np.float64]) -> None:
    half = 1
    while half < len(vector):
        pairs = vector.reshape(-1, 2, half)
        left, right = pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]
        pairs[:, 0], pairs[:, 1] = left, right
        half *= 2


def _scaled(vector: Floats, factor: float, largest: float) -> NDArray[np.float64]:
    product = np.multiply(vector, factor, dtype=np.float64)
    return np.fmax(np.fmin(product, largest), -largest)  # of NaN and a number these take the number


def _weighted(block: NDArray[np.int64], weight: int, values: Integers) -> int:
    """Write the integers times ``weight``; their squared norm before that."""
    values[:] = block * weight
    if int(block.min()) > -_SHORT and int(block.max()) < _SHORT:
        return int(block @ block)
    high, low = block >> 16, block & 0xFFFF  # products of two 16-bit halves: a block of them fits in 64 bits
    return (int(high @ high) << 32) + (int(high @ low) << 17) + int(low @ low)
