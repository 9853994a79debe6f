"""Arithmetic on residues: sums, products with fixed factors, 64-bit integers to residues and residues to wide integers.

Like the transform, every function is a loop over neighbouring 32-bit words that compilers vectorise, and takes the same
time whatever the numbers are. Arrays of residues have the shape (primes, coefficients).

Back to integers goes by mixed radix (Garner 1959): x = a_0 + q_0 (a_1 + q_1 (a_2 + ...)) with a_i < q_i, where
a_i = ((r_i - a_0) / q_0 - a_1) / q_1 ... modulo q_i. Primes ascend, so a_j < q_i and no difference needs more than one
addition of q_i. Then follows Horner's rule in 32-bit limbs, where limb * q + carry < 2^64. All of it is in integers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from secagg.compiled import njit
from secagg.crypto.lattice.ntt import READ, Words, times


@njit(f"void({READ(3)}, {READ(3)}, u4[::1], u4[:, :, ::1])", cache=True, nogil=True)
def add(left: Words, right: Words, primes: Words, out: Words) -> None:
    for i in range(left.shape[0]):
        q = primes[i]
        for b in range(left.shape[1]):
            x, y, z = left[i, b], right[i, b], out[i, b]
            for c in range(x.size):
                total = np.uint32(x[c] + y[c])
                z[c] = min(total, np.uint32(total - q))


@njit(f"void({READ(3)}, u4[:, ::1], u4[::1], u4[:, :, ::1])", cache=True, nogil=True)
def scale(words: Words, factors: Words, primes: Words, out: Words) -> None:
    """Multiply residues by one number; ``factors`` are its residues and Shoup's quotients."""
    for i in range(words.shape[0]):
        for b in range(words.shape[1]):
            x, z = words[i, b], out[i, b]
            for c in range(x.size):
                z[c] = times(x[c], factors[i, 0], factors[i, 1], primes[i])


@njit("void(u4[:, ::1], i8, Array(i8, 1, 'C', readonly=True), u4[:, :, ::1], u4[::1], u4[::1])", cache=True, nogil=True)
def add_multiple(
    out: Words, start: int, integers: NDArray[np.int64], factors: Words, less: Words, primes: Words
) -> None:
    """Add w * integers to the residues that begin at ``start``, for |integers| < 2^63.

    x + 2^63 has two 32-bit halves: ``factors`` are 2^32 w and w, with quotients, and ``less`` is -2^63 w.
    """
    for i in range(out.shape[0]):
        q, minus, residues = primes[i], less[i], out[i, start : start + integers.size]
        high_factor, high_quotient = factors[i, 0, 0], factors[i, 0, 1]
        low_factor, low_quotient = factors[i, 1, 0], factors[i, 1, 1]
        for c in range(integers.size):
            shifted = np.uint64(integers[c]) ^ np.uint64(1 << 63)
            total = np.uint32(residues[c] + minus)
            total = min(total, np.uint32(total - q))
            total = np.uint32(total + times(np.uint32(shifted >> np.uint64(32)), high_factor, high_quotient, q))
            total = min(total, np.uint32(total - q))
            total = np.uint32(total + times(np.uint32(shifted), low_factor, low_quotient, q))
            residues[c] = min(total, np.uint32(total - q))


@njit("void(u4[:, ::1], i8, Array(i4, 1, 'C', readonly=True), u4[:, ::1], u4[::1], u4[::1])", cache=True, nogil=True)
def add_narrow_multiple(
    out: Words, start: int, integers: NDArray[np.int32], factors: Words, less: Words, primes: Words
) -> None:
    """``add_multiple`` for 32-bit integers, one half: ``factors`` are w, with quotients, and ``less`` is -2^31 w."""
    for i in range(out.shape[0]):
        q, minus, residues = primes[i], less[i], out[i, start : start + integers.size]
        factor, quotient = factors[i, 0], factors[i, 1]
        for c in range(integers.size):
            shifted = np.uint32(np.uint32(integers[c]) ^ np.uint32(1 << 31))
            total = np.uint32(residues[c] + minus)
            total = min(total, np.uint32(total - q))
            total = np.uint32(total + times(shifted, factor, quotient, q))
            residues[c] = min(total, np.uint32(total - q))


@njit(f"void({READ(2)}, i8, u4[::1], u4[:, :, ::1], u4[::1], u4[:, ::1])", cache=True, nogil=True)
def wide_integers(residues: Words, start: int, shift: Words, inverses: Words, primes: Words, limbs: Words) -> None:
    """The integers in [0, q) with these residues plus ``shift``, lowest limb first.

    ``inverses[j, i]`` is 1/q_j modulo q_i, with its quotient.
    """
    count, length = residues.shape[0], limbs.shape[1]
    digits, carry = np.empty((count, length), np.uint32), np.empty(length, np.uint32)
    for i in range(count):
        q, own, given = primes[i], digits[i], residues[i, start : start + length]
        for c in range(length):
            moved = np.uint32(given[c] + shift[i])
            own[c] = min(moved, np.uint32(moved - q))
        for j in range(i):
            lower, factor, quotient = digits[j], inverses[j, i, 0], inverses[j, i, 1]
            for c in range(length):
                own[c] = times(np.uint32(own[c] - lower[c] + q), factor, quotient, q)
    limbs[:] = 0
    for i in range(count - 1, -1, -1):
        q, carry[:] = primes[i], digits[i]
        for k in range(min(count - i, limbs.shape[0])):  # below 2^(31 (count - i)) so far
            limb = limbs[k]
            for c in range(length):
                value = np.uint64(limb[c]) * np.uint64(q) + np.uint64(carry[c])
                limb[c] = np.uint32(value)
                carry[c] = np.uint32(value >> np.uint64(32))


@njit("b1(u4[:, ::1], u4[::1])", cache=True, nogil=True)
def all_below(limbs: Words, bound: Words) -> bool:
    """Whether every integer is less than the bound, which is whether subtracting the bound borrows in the end."""
    borrow = np.zeros(limbs.shape[1], np.uint32)
    for k in range(limbs.shape[0]):
        limb, least = limbs[k], np.int64(bound[k])
        for c in range(limb.size):
            borrow[c] = np.int64(limb[c]) - least - np.int64(borrow[c]) < 0
    return bool(borrow.all())


@njit("void(u4[:, ::1], i8, i8, i8[::1])", cache=True, nogil=True)
def fields(limbs: Words, position: int, width: int, out: NDArray[np.int64]) -> None:
    """``width`` bits (at most 64) of the first integers, from bit ``position`` on, less 2^(width - 1)."""
    first, skipped, half = position >> 5, np.uint64(position & 31), np.uint64(1) << np.uint64(width - 1)
    mask, none = half | (half - np.uint64(1)), np.zeros(limbs.shape[1], np.uint32)
    low = limbs[first]
    middle = limbs[first + 1] if first + 1 < limbs.shape[0] else none
    high = limbs[first + 2] if first + 2 < limbs.shape[0] else none
    for c in range(out.size):
        word = (np.uint64(middle[c]) << np.uint64(32) | np.uint64(low[c])) >> skipped
        above = np.uint64(high[c]) << np.uint64(1) << (np.uint64(63) - skipped)
        out[c] = np.int64(((word | above) & mask) - half)
