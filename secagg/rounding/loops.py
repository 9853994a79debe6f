"""Rounding in compiled loops of one pass. ``secagg.rounding`` says what each function does.

numba compiles without ``fastmath``, so that no operation is reordered, left out or fused with another: every double is
the one that ``plain`` gets. The loops are over neighbours and without branches, so that compilers vectorise them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from secagg.compiled import njit
from secagg.rounding.plain import BLOCK, LANES, Floats, Integers

_LOW = (1 << 32) - 1
_HALVES = 1.5 * 2.0**52
"""Added to a double below 2^51 it leaves no bits for a fraction: the sum is rounded to the nearest, ties to even."""
_ONE_SUM = 2.0**62
"""Squares that add up to less need not be added up in halves."""
_CACHED = 1 << 11  # of so many doubles a rotation is computed in the innermost cache
_NEAR = 1 << 15  # and of so many in the next one
_READ = "Array({}, 1, 'C', readonly=True)".format
_TYPES = [(floats, integers) for floats in ("f4", "f8") for integers in ("i2", "i4", "i8")]


@njit(*[f"void({_READ(floats)}, f8[::1])" for floats in ("f4", "f8")], cache=True, nogil=True)
def squares(vector: Floats, sums: NDArray[np.float64]) -> None:
    lanes = np.empty(LANES)
    for k in range(sums.size):
        stop = min((k + 1) * BLOCK, vector.size)
        lanes[:] = 0.0
        for start in range(k * BLOCK, stop, LANES):
            row = vector[start : min(start + LANES, stop)]
            for i in range(row.size):
                number = np.float64(row[i])
                lanes[i] += number * number
        half = LANES >> 1
        while half:
            for i in range(half):
                lanes[i] += lanes[i + half]
            half >>= 1
        sums[k] = lanes[0]


def stochastic(
    vector: Floats,
    factor: float,
    largest: float,
    words: NDArray[np.uint32],
    weight: int,
    values: Integers,
) -> int:
    high, low = _stochastic(vector, factor, largest, words, weight, values)
    return (int(high) << 32) + int(low)


@njit(inline="always")
def _limited(number: float, largest: float) -> float:
    number = number if number < largest else largest  # and so is what is not a number
    return number if number > -largest else -largest


@njit(inline="always")
def _by_lot(scaled: float, word: np.uint32) -> np.int32:
    below = np.floor(scaled)
    u = (np.float64(word) + 0.5) * 2.0**-32
    return np.int32(below + 1.0 if u < scaled - below else below)


@njit(
    *[f"Tuple((i8, i8))({_READ(one)}, f8, f8, {_READ('u4')}, i8, {other}[::1])" for one, other in _TYPES],
    cache=True,
    nogil=True,
)
def _stochastic(
    vector: Floats,
    factor: float,
    largest: float,
    words: NDArray[np.uint32],
    weight: int,
    values: Integers,
) -> tuple[np.int64, np.int64]:
    high, low = np.int64(0), np.int64(0)
    if largest * largest * vector.size < _ONE_SUM:
        for i in range(vector.size):
            value = _by_lot(_limited(np.float64(vector[i]) * factor, largest), words[i])
            values[i] = value * weight
            low += np.int64(value) * np.int64(value)
    else:
        for i in range(vector.size):
            value = _by_lot(_limited(np.float64(vector[i]) * factor, largest), words[i])
            values[i] = value * weight
            square = np.int64(value) * np.int64(value)
            high += square >> 32
            low += square & _LOW
    return high, low


def nearest(vector: Floats, factor: float, largest: float, weight: int, values: Integers) -> int:
    high, low = _nearest(vector, factor, largest, weight, values)
    return (int(high) << 32) + int(low)


@njit(inline="always")
def _to_even(scaled: float) -> np.int32:
    return np.int32((scaled + _HALVES) - _HALVES)


@njit(*[f"Tuple((i8, i8))({_READ(one)}, f8, f8, i8, {other}[::1])" for one, other in _TYPES], cache=True, nogil=True)
def _nearest(vector: Floats, factor: float, largest: float, weight: int, values: Integers) -> tuple[np.int64, np.int64]:
    high, low = np.int64(0), np.int64(0)
    if largest * largest * vector.size < _ONE_SUM:
        for i in range(vector.size):
            value = _to_even(_limited(np.float64(vector[i]) * factor, largest))
            values[i] = value * weight
            low += np.int64(value) * np.int64(value)
    else:
        for i in range(vector.size):
            value = _to_even(_limited(np.float64(vector[i]) * factor, largest))
            values[i] = value * weight
            square = np.int64(value) * np.int64(value)
            high += square >> 32
            low += square & _LOW
    return high, low


@njit(f"void({_READ('i4')}, i8[::1])", cache=True, nogil=True)
def add(values: NDArray[np.int32], total: NDArray[np.int64]) -> None:
    for i in range(values.size):
        total[i] += values[i]


@njit(inline="always")
def _signed(number: float, bit: int) -> float:
    return number * (1.0 - 2.0 * (bit & 1))


@njit(f"void({_READ('f8')}, {_READ('u1')}, f8[::1])", cache=True, nogil=True)
def flip(vector: NDArray[np.float64], bits: NDArray[np.uint8], out: NDArray[np.float64]) -> None:
    whole = vector.size >> 3
    for k in range(whole):
        eight, written = vector[8 * k : 8 * k + 8], out[8 * k : 8 * k + 8]
        for j in range(8):
            written[j] = _signed(eight[j], bits[k] >> (7 - j))
    for i in range(8 * whole, vector.size):
        out[i] = _signed(vector[i], bits[whole] >> (7 - (i & 7)))


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
    near, middle = min(vector.size, _CACHED), min(vector.size, _NEAR)
    for outer in range(0, vector.size, middle):
        block = vector[outer : outer + middle]
        for start in range(0, middle, near):
            part = block[start : start + near]
            if near >= 4:
                _fours(part)
                _stages(part, 4, near)
            else:
                _stages(part, 1, near)
        _stages(block, near, middle)
    _stages(vector, middle, vector.size)
