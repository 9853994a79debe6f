"""From floats to bounded integers: measure a vector, multiply, round, and know the integers' norm, in one pass each.

    parts                  a vector of any numbers, part by part, as what the others compute with
    shortened              a vector -> the factor that brings its L2 norm to the clip
    stochastic, nearest    a vector, times one number -> integers and their exact squared norm
    signs                  the same, where the integers are -1 and 1
    add                    those integers -> a sum
    flip, hadamard         the rotation: random signs, then the matrix of Walsh and Hadamard

There are two implementations: ``plain`` calls numpy, ``loops`` is compiled by numba (extra ``[fast]``) and five to
eight times as fast. ``secagg.compiled.compiles`` says which one is taken. What comes out is the same: each float goes
through the same IEEE operations in the same order in both, so both give the same integers for the same words.

*Stochastic.* A value v goes to floor(v) + 1 if u < v - floor(v), else to floor(v), with u = (w + 1/2) / 2^32 for a
uniform 32-bit word w. A double represents each u and w + 1/2 exactly, so the probability to go up is the number of w
with w + 1/2 < 2^32 f, divided by 2^32, for the fraction f = v - floor(v) as a double: it differs from f by at most
2^-33, and f from the true fraction by at most 2^-54 (it is exact but for v in (-1/2, 0)). So rounding is biased by less
than 2^-32 of a unit. The sum of n vectors moves by n 2^-32 units in a coordinate at most: a quarter of a unit
for a billion of them. A whole number has f = 0 < u and stays what it is, for every word; so zeros stay zeros. A
negative number so small that f rounds to 1 > u goes up to zero, where it belongs.

*Nearest.* v goes to the nearest whole number, ties to the even one: no randomness, and zeros stay zeros.

*Signs.* v, limited to [-1, 1], goes to 1 if (v + 1) / 2 goes to 1 by lot, else to -1: unbiased to within 2^-31, and
zero goes to either.

All limit v to [-largest, largest], which are whole numbers, before they round; so no result is beyond them, whatever
v was, even if it was not a number because somebody wrote into the vector meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from secagg.compiled import compiles
from secagg.errors import UsageError
from secagg.rounding import plain
from secagg.rounding.plain import BLOCK, Floats, Integers

__all__ = [
    "BLOCK",
    "PART",
    "Floats",
    "Integers",
    "add",
    "flip",
    "hadamard",
    "kernels",
    "nearest",
    "parts",
    "shortened",
    "signs",
    "stochastic",
]

PART = 1 << 16
"""Coordinates that are handed to a kernel at a time, a multiple of ``BLOCK``."""

_LARGEST = (1 << 31) - 1
_MOST = 1 << 30  # integers at a time: the low halves of their squares add up to less than 2^62
_FAR = 2.0**1000
"""From such a sum of squares on a vector is longer than any clip. Below it the sum over all blocks is a double; squares
that are none, of magnitudes below 2^-511, are lost in any that is near the square of a clip."""


class Kernels(Protocol):
    """What ``plain`` and ``loops`` both have: the functions below without their checks, and

    ``squares``: the sum of the squares of each block.
    """

    def squares(self, vector: Floats, sums: NDArray[np.float64], /) -> None: ...

    def stochastic(
        self,
        vector: Floats,
        factor: float,
        largest: float,
        words: NDArray[np.uint32],
        weight: int,
        values: Integers,
        /,
    ) -> int: ...

    def nearest(self, vector: Floats, factor: float, largest: float, weight: int, values: Integers, /) -> int: ...

    def add(self, values: NDArray[np.int32], total: NDArray[np.int64], /) -> None: ...

    def flip(self, vector: NDArray[np.float64], bits: NDArray[np.uint8], out: NDArray[np.float64], /) -> None: ...

    def hadamard(self, vector: NDArray[np.float64], /) -> None: ...


def kernels(length: int) -> Kernels:
    """The implementation for a vector of this length.

    >>> kernels(1 << 20) is kernels(1 << 21)
    True
    """
    if not compiles(length):
        return plain
    from secagg.rounding import loops

    return loops


def parts(vector: NDArray[Any]) -> Iterator[tuple[int, Floats]]:
    """A vector of numbers as floats, so many at a time as stay in a core's cache, and where each part begins.

    Of floats of 32 or 64 bits they are parts of the vector. All else becomes doubles when its turn comes, in memory
    that the next part takes over: so a part is to be used before the next one is made.

    >>> [(start, part.tolist()) for start, part in parts(np.array([1, -2], np.int16))]
    [(0, [1.0, -2.0])]
    """
    ready = vector.dtype in (np.float32, np.float64) and vector.flags.c_contiguous and vector.flags.aligned
    room = np.empty(0 if ready else min(PART, len(vector)))
    for start in range(0, len(vector), PART):
        part = vector[start : start + PART]
        if not ready:
            np.copyto(room[: len(part)], part, casting="unsafe")
        yield start, part if ready else room[: len(part)]


def shortened(vector: NDArray[Any], clip_l2: float) -> tuple[NDArray[Any], float] | None:
    """A vector, and the factor that brings its L2 norm to ``clip_l2`` if it is longer, else 1.

    It is the vector itself, or a copy where squares are no doubles, at a power of two that the factor makes up for.
    None if a coordinate is NaN or infinite. ``clip_l2`` is between 1e-100 and 1e100.

    >>> vector, factor = shortened(np.array([3.0, 4.0]), 2.5)
    >>> vector.tolist(), factor
    ([3.0, 4.0], 0.5)
    >>> shortened(np.array([3.0, np.inf]), 2.5) is None
    True
    """
    sums = _squares(vector)
    far = not sums.max() < _FAR  # which NaN is not
    if far:
        vector = np.asarray(vector, np.float64)
        if not np.isfinite(vector).all():
            return None
        vector = np.ldexp(vector, -math.frexp(float(np.abs(vector).max()))[1])
        sums = _squares(vector)
    norm = math.sqrt(math.fsum(sums.tolist()))
    return vector, clip_l2 / norm if norm > clip_l2 or far else 1.0


def _squares(vector: NDArray[Any]) -> NDArray[np.float64]:
    """The sum of the squares of each block."""
    sums, used = np.empty(-(-len(vector) // BLOCK)), kernels(len(vector))
    for start, part in parts(vector):
        used.squares(part, sums[start // BLOCK : -(-(start + len(part)) // BLOCK)])
    return sums


def stochastic(
    vector: Floats,
    factor: float,
    largest: int,
    words: NDArray[np.uint32],
    values: Integers,
    weight: int = 1,
) -> int:
    """Write the coordinates times ``factor``, rounded by uniform ``words``, into ``values``, times ``weight``.

    What comes back is the exact squared norm of the rounded vector without its weight.

    >>> values = np.empty(3, np.int32)
    >>> stochastic(np.array([0.5, -1.25, 99.0]), 2.0, 127, np.array([0, 0, 5], np.uint32), values)
    16134
    >>> values.tolist()
    [1, -2, 127]
    """
    _check(vector, largest, weight, values)
    if len(words) != len(values):
        raise UsageError(f"{len(values)} coordinates are rounded by as many words, not {len(words)}")
    return kernels(len(vector)).stochastic(vector, factor, float(largest), words, weight, values)


def signs(
    vector: Floats,
    factor: float,
    largest: int,
    words: NDArray[np.uint32],
    values: Integers,
    weight: int = 1,
) -> int:
    """``stochastic`` for integers that are -1 or 1: ``largest`` is 1, and so is each square.

    >>> values = np.empty(4, np.int16)
    >>> signs(np.array([1.0, -3.0, 0.0, 0.0]), 1.0, 1, np.array([2**32 - 1, 0, 0, 2**32 - 1], np.uint32), values)
    4
    >>> values.tolist()
    [1, -1, 1, -1]
    """
    if largest != 1:
        raise UsageError(f"signs are -1 and 1, not up to {largest}")
    _check(vector, 1, weight, values)
    limited = np.multiply(vector, factor, dtype=np.float64)
    np.fmax(np.fmin(limited, 1.0, out=limited), -1.0, out=limited)
    stochastic((limited + 1.0) / 2.0, 1.0, 1, words, values)
    values *= 2
    values -= 1
    values *= weight
    return len(values)


def nearest(vector: Floats, factor: float, largest: int, values: Integers, weight: int = 1) -> int:
    """Write the whole numbers nearest to the coordinates times ``factor`` into ``values``, times ``weight``.

    What comes back is the exact squared norm of the rounded vector without its weight.

    >>> values = np.empty(3, np.int32)
    >>> nearest(np.array([0.25, -0.75, 99.0]), 2.0, 127, values)
    16133
    >>> values.tolist()
    [0, -2, 127]
    """
    _check(vector, largest, weight, values)
    return kernels(len(vector)).nearest(vector, factor, float(largest), weight, values)


def add(values: NDArray[np.int32], total: NDArray[np.int64]) -> None:
    """Add integers to a sum, in place.

    >>> total = np.array([1, 2])
    >>> add(np.array([3, 4], np.int32), total)
    >>> total.tolist()
    [4, 6]
    """
    if len(values) != len(total):
        raise UsageError(f"a sum of {len(total)} coordinates takes as many, not {len(values)}")
    kernels(len(values)).add(values, total)


def flip(vector: NDArray[np.float64], bits: NDArray[np.uint8], out: NDArray[np.float64]) -> None:
    """Write the coordinates into ``out``, with another sign where a bit is set; of a byte the highest comes first.

    >>> flip(np.array([1.0, 2.0, 3.0]), np.array([0b01000000], np.uint8), out := np.empty(3))
    >>> out.tolist()
    [1.0, -2.0, 3.0]
    """
    if len(out) != len(vector) or 8 * len(bits) < len(vector):
        raise UsageError(f"{len(vector)} coordinates have as many signs, and become as many")
    kernels(len(vector)).flip(vector, bits, out)


def hadamard(vector: NDArray[np.float64]) -> None:
    """Multiply by the matrix of signs of Walsh and Hadamard, in place; the length is a power of two.

    >>> vector = np.array([1.0, 2.0])
    >>> hadamard(vector)
    >>> vector.tolist()
    [3.0, -1.0]
    """
    if (length := len(vector)) & (length - 1) or not length:
        raise UsageError(f"a vector is rotated in a length that is a power of two, not {length}")
    kernels(len(vector)).hadamard(vector)


def _check(vector: Floats, largest: int, weight: int, values: Integers) -> None:
    if len(vector) != len(values) or len(vector) > _MOST:
        raise UsageError(f"{len(vector)} coordinates become as many integers, at most {_MOST}, not {len(values)}")
    if not 1 <= largest <= _LARGEST or weight < 1 or (largest * weight).bit_length() >= 8 * values.itemsize:
        raise UsageError(f"integers up to {largest}, times {weight}, do not fit into {values.dtype}")
