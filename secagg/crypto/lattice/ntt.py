"""The number-theoretic transform modulo primes below 2^31, in 32-bit words, eight or sixteen of them at a time.

X^N + 1 = (X^(N/2) - r)(X^(N/2) + r), and so on down to X - psi^(2i+1): log2 N stages of butterflies (x, y) ->
(x + r y, x - r y) (Longa and Naehrig 2016, Algorithms 1 and 2). Products with a fixed r follow Shoup: with r' =
floor(2^32 r / q), v r - floor(v r' / 2^32) q lies in [0, 2q) for EVERY 32-bit v (Harvey 2014), so the inverse may
multiply differences that it never reduced. 2q < 2^32 leaves no room for more unreduced steps; one subtraction brings a
number below q, and min(t, t - q) modulo 2^32 does that without a branch.

Compilers vectorise loops over neighbours, which the last stages lack. So half-way the numbers are transposed, as a
matrix; the result stays transposed. The order of evaluations means nothing, but is fixed: public polynomials are drawn
as evaluations (``sampling``).

Inputs are below q and so are outputs; ``ring`` checks that. Nothing depends on the numbers, in time or in addresses.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from secagg.compiled import njit

Words: TypeAlias = NDArray[np.uint32]
READ = "Array(u4, {}, 'C', readonly=True)".format
"""The type, in a signature of numba, of an array with that many dimensions that is only read."""


@njit(inline="always")
def times(v: np.uint32, factor: np.uint32, quotient: np.uint32, q: np.uint32) -> np.uint32:
    """v * factor modulo q, for any v below 2^32 and factor below q."""
    high = (np.uint64(v) * np.uint64(quotient)) >> np.uint64(32)
    t = np.uint32(np.uint64(v) * np.uint64(factor) - high * np.uint64(q))
    return min(t, np.uint32(t - q))


@njit(inline="always")
def _split(
    u: np.uint32, v: np.uint32, factor: np.uint32, quotient: np.uint32, q: np.uint32
) -> tuple[np.uint32, np.uint32]:
    """(u, v) -> (u + r v, u - r v)."""
    v = times(v, factor, quotient, q)
    total, difference = np.uint32(u + v), np.uint32(u - v)
    return min(total, np.uint32(total - q)), min(difference, np.uint32(difference + q))


@njit(inline="always")
def _join(
    u: np.uint32, v: np.uint32, factor: np.uint32, quotient: np.uint32, q: np.uint32
) -> tuple[np.uint32, np.uint32]:
    """(u, v) -> (u + v, (u - v) / r), given 1 / r: undoes ``_split``, but for a factor of two."""
    total = np.uint32(u + v)
    return min(total, np.uint32(total - q)), times(np.uint32(u - v + q), factor, quotient, q)


# Loops over neighbours. Places in an array are unsigned, since no compiler vectorises what could count from its end.


@njit("void(u4[::1], u8, u8, u4, u4, u4)", cache=True, nogil=True)
def _split_all(numbers: Words, x: int, half: int, factor: np.uint32, quotient: np.uint32, q: np.uint32) -> None:
    """``half`` numbers from x on and those after them, with one r."""
    y = x + half
    for c in range(half):
        numbers[x + c], numbers[y + c] = _split(numbers[x + c], numbers[y + c], factor, quotient, q)


@njit("void(u4[::1], u8, u8, u8, u4[::1], u4[::1], u8, u4)", cache=True, nogil=True)
def _split_each(
    numbers: Words, x: int, y: int, columns: int, factors: Words, quotients: Words, at: int, q: np.uint32
) -> None:
    """The rows that begin at x and at y, with an r for each column."""
    for c in range(columns):
        own, quotient = factors[at + c], quotients[at + c]
        numbers[x + c], numbers[y + c] = _split(numbers[x + c], numbers[y + c], own, quotient, q)


@njit("void(u4[::1], u8, u8, u4, u4, u4)", cache=True, nogil=True)
def _join_all(numbers: Words, x: int, half: int, factor: np.uint32, quotient: np.uint32, q: np.uint32) -> None:
    """``half`` numbers from x on and those after them, with one r."""
    y = x + half
    for c in range(half):
        numbers[x + c], numbers[y + c] = _join(numbers[x + c], numbers[y + c], factor, quotient, q)


@njit("void(u4[::1], u8, u8, u8, u4[::1], u4[::1], u8, u4)", cache=True, nogil=True)
def _join_each(
    numbers: Words, x: int, y: int, columns: int, factors: Words, quotients: Words, at: int, q: np.uint32
) -> None:
    """The rows that begin at x and at y, with an r for each column."""
    for c in range(columns):
        own, quotient = factors[at + c], quotients[at + c]
        numbers[x + c], numbers[y + c] = _join(numbers[x + c], numbers[y + c], own, quotient, q)


@njit("void(u4[::1], u4[::1], i8)", cache=True, nogil=True)
def _transpose(numbers: Words, out: Words, rows: int) -> None:
    """The matrix with so many rows, a multiple of eight, column by column: eight rows at a time stay in the cache."""
    columns = numbers.size // rows
    matrix, transposed = numbers.reshape(rows, columns), out.reshape(columns, rows)
    for start in range(0, rows, 8):
        for c in range(columns):
            for row in range(8):
                transposed[c, start + row] = matrix[start + row, c]


@njit("void(u4[:, :, ::1], u4[::1], u4[:, :, ::1], i8)", cache=True, nogil=True)
def forward(words: Words, primes: Words, twiddles: Words, rows: int) -> None:
    """Coefficients (primes, polynomials, N) to evaluations, in place."""
    degree = words.shape[2]
    columns, scratch = degree // rows, np.empty(degree, np.uint32)
    for i in range(words.shape[0]):
        q, factors, quotients = primes[i], twiddles[i, 0], twiddles[i, 1]
        for b in range(words.shape[1]):
            numbers = words[i, b]
            stage, half = 1, degree >> 1
            while half >= rows:
                for group in range(stage):
                    at = stage + group
                    _split_all(numbers, 2 * half * group, half, factors[at], quotients[at], q)
                stage, half = stage << 1, half >> 1
            _transpose(numbers, scratch, columns)
            numbers[:] = scratch
            while half > 0:
                for at in range(stage, 2 * stage, columns):
                    start = 2 * half * (at - stage)
                    for x in range(start, start + half * columns, columns):
                        _split_each(numbers, x, x + half * columns, columns, factors, quotients, at, q)
                stage, half = stage << 1, half >> 1


@njit("void(u4[:, :, ::1], u4[::1], u4[:, :, ::1], u4[:, ::1], i8)", cache=True, nogil=True)
def backward(words: Words, primes: Words, inverses: Words, shrink: Words, rows: int) -> None:
    """Evaluations to coefficients, in place: the steps of ``forward`` in the opposite order, then times 1 / N."""
    degree = words.shape[2]
    columns, scratch = degree // rows, np.empty(degree, np.uint32)
    for i in range(words.shape[0]):
        q, factors, quotients = primes[i], inverses[i, 0], inverses[i, 1]
        for b in range(words.shape[1]):
            numbers = words[i, b]
            stage, half = degree >> 1, 1
            while half < rows:
                for at in range(stage, 2 * stage, columns):
                    start = 2 * half * (at - stage)
                    for x in range(start, start + half * columns, columns):
                        _join_each(numbers, x, x + half * columns, columns, factors, quotients, at, q)
                stage, half = stage >> 1, half << 1
            _transpose(numbers, scratch, rows)
            for c in range(degree):
                numbers[c] = times(scratch[c], shrink[i, 0], shrink[i, 1], q)
            while stage > 0:
                for group in range(stage):
                    at = stage + group
                    _join_all(numbers, 2 * half * group, half, factors[at], quotients[at], q)
                stage, half = stage >> 1, half << 1


@njit(f"void({READ(3)}, {READ(3)}, u4[::1], u4[:, ::1], u4[:, :, ::1])", cache=True, nogil=True)
def multiply(left: Words, right: Words, primes: Words, montgomery: Words, out: Words) -> None:
    """Products of evaluations; ``right`` may hold one polynomial, which then multiplies each of ``left``.

    Montgomery's reduction of t < 2^32 q, (t + (-t/q mod 2^32) q) / 2^32, gives t / 2^32 below 2q. The second one, of
    the product with 2^64 mod q, brings the 2^32 back.
    """
    mask, word = np.uint64(0xFFFFFFFF), np.uint64(32)
    for i in range(left.shape[0]):
        q, back, square = np.uint64(primes[i]), np.uint64(montgomery[i, 0]), np.uint64(montgomery[i, 1])
        small = primes[i]
        for b in range(left.shape[1]):
            x, y, z = left[i, b], right[i, b if right.shape[1] > 1 else 0], out[i, b]
            for c in range(x.size):
                t = np.uint64(x[c]) * np.uint64(y[c])
                once = np.uint32((t + ((t & mask) * back & mask) * q) >> word)
                t = np.uint64(min(once, np.uint32(once - small))) * square
                twice = np.uint32((t + ((t & mask) * back & mask) * q) >> word)
                z[c] = min(twice, np.uint32(twice - small))
