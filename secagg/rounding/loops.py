"""Rounding in compiled loops of one pass. ``secagg.rounding`` says what each function does.

numba compiles without ``fastmath``, so that no operation is reordered, left out or fused with another: every double is
the one that ``plain`` gets. The loops are over neighbours and without branches, so that compilers vectorise them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from secagg.compiled import njit
from secagg.rounding.plain import BLOCK, LANES

_MAGNITUDE = (1 << 63) - 1
_LOW = (1 << 32) - 1
_HALVES = 1.5 * 2.0**52
"""Added to a double below 2^51 it leaves no bits for a fraction: the sum is rounded to the nearest, ties to even."""
_CACHED = 1 << 11  # of so many doubles a rotation is computed in the innermost cache
_FLOATS = "Array(f8, 1, 'C', readonly=True)"


def squares(vector: NDArray[np.float64], sums: NDArray[np.float64]) -> int:
    return int(_squares(vector, vector.view(np.int64), sums))


@njit(f"i8({_FLOATS}, Array(i8, 1, 'C', readonly=True), f8[::1])", cache=True, nogil=True)
def _squares(vector: NDArray[np.float64], bits: NDArray[np.int64], sums: NDArray[np.float64]) -> int:
    peak, lanes = 0, np.empty(LANES)
    for k in range(sums.size):
        stop = min((k + 1) * BLOCK, vector.size)
        lanes[:] = 0.0
        for start in range(k * BLOCK, stop, LANES):
            row, magnitudes = vector[start : min(start + LANES, stop)], bits[start : min(start + LANES, stop)]
            for i in range(row.size):
                lanes[i] += row[i] * row[i]
                peak = max(peak, magnitudes[i] & _MAGNITUDE)
        half = LANES >> 1
        while half:
            for i in range(half):
                lanes[i] += lanes[i + half]
            half >>= 1
        sums[k] = lanes[0]
    return peak


def stochastic(
    vector: NDArray[np.float64],
    factor: float,
    largest: float,
    words: NDArray[np.uint32],
    values: NDArray[np.int32],
) -> int:
    high, low = _stochastic(vector, factor, largest, words, values)
    return (int(high) << 32) + int(low)


@njit(
    f"Tuple((i8, i8))({_FLOATS}, f8, f8, Array(u4, 1, 'C', readonly=True), i4[::1])",
    cache=True,
    nogil=True,
)
def _stochastic(
    vector: NDArray[np.float64],
    factor: float,
    largest: float,
    words: NDArray[np.uint32],
    values: NDArray[np.int32],
) -> tuple[np.int64, np.int64]:
    high, low = np.int64(0), np.int64(0)
    for i in range(vector.size):
        scaled = vector[i] * factor
        scaled = scaled if scaled < largest else largest  # and so is what is not a number
        scaled = scaled if scaled > -largest else -largest
        below = np.floor(scaled)
        u = (np.float64(words[i]) + 0.5) * 2.0**-32
        value = np.int32(below + 1.0 if u < scaled - below else below)
        values[i] = value
        square = np.int64(value) * np.int64(value)
        high += square >> 32
        low += square & _LOW
    return high, low


def nearest(vector: NDArray[np.float64], factor: float, largest: float, values: NDArray[np.int32]) -> int:
    high, low = _nearest(vector, factor, largest, values)
    return (int(high) << 32) + int(low)


@njit(f"Tuple((i8, i8))({_FLOATS}, f8, f8, i4[::1])", cache=True, nogil=True)
def _nearest(
    vector: NDArray[np.float64], factor: float, largest: float, values: NDArray[np.int32]
) -> tuple[np.int64, np.int64]:
    high, low = np.int64(0), np.int64(0)
    for i in range(vector.size):
        scaled = vector[i] * factor
        scaled = scaled if scaled < largest else largest
        scaled = scaled if scaled > -largest else -largest
        value = np.int32((scaled + _HALVES) - _HALVES)
        values[i] = value
        square = np.int64(value) * np.int64(value)
        high += square >> 32
        low += square & _LOW
    return high, low


@njit("void(Array(i4, 1, 'C', readonly=True), i8[::1])", cache=True, nogil=True)
def add(values: NDArray[np.int32], total: NDArray[np.int64]) -> None:
    for i in range(values.size):
        total[i] += values[i]


@njit("void(f8[::1])", cache=True, nogil=True)
def _fours(vector: NDArray[np.float64]) -> None:
    """The first two stages."""
    for i in range(0, vector.size, 4):
        p, q = vector[i] + vector[i + 1], vector[i] - vector[i + 1]
        r, s = vector[i + 2] + vector[i + 3], vector[i + 2] - vector[i + 3]
        vector[i], vector[i + 1], vector[i + 2], vector[i + 3] = p + r, q + s, p - r, q - s


@njit("void(f8[::1], i8, i8)", cache=True, nogil=True)
def _stages(vector: NDArray[np.float64], half: int, stop: int) -> None:
    """The stages in which partners are ``half`` apart, twice as far and so on, below ``stop``: two at a time."""
    while 2 * half < stop:
        for start in range(0, vector.size, 4 * half):
            first, second = vector[start : start + half], vector[start + half : start + 2 * half]
            third, fourth = vector[start + 2 * half : start + 3 * half], vector[start + 3 * half : start + 4 * half]
            for i in range(half):
                p, q = first[i] + second[i], first[i] - second[i]
                r, s = third[i] + fourth[i], third[i] - fourth[i]
                first[i], second[i], third[i], fourth[i] = p + r, q + s, p - r, q - s
        half *= 4
    if half < stop:
        for start in range(0, vector.size, 2 * half):
            left, right = vector[start : start + half], vector[start + half : start + 2 * half]
            for i in range(half):
                left[i], right[i] = left[i] + right[i], left[i] - right[i]


@njit("void(f8[::1])", cache=True, nogil=True)
def hadamard(vector: NDArray[np.float64]) -> None:
    near = min(vector.size, _CACHED)
    for start in range(0, vector.size, near):
        part = vector[start : start + near]
        if near >= 4:
            _fours(part)
            _stages(part, 4, near)
        else:
            _stages(part, 1, near)
    _stages(vector, near, vector.size)
