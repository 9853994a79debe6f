"""Packing words of fewer than eight bits in compiled loops of one pass. ``secagg.crypto.bits`` says what each does.

Eight words of m bits fill m bytes, so each eight of them begin at a byte of their own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from secagg.compiled import njit

_READ = "Array(u1, 1, 'C', readonly=True)"


@njit(f"void({_READ}, i8, u1[::1])", cache=True, nogil=True)
def pack(words: NDArray[np.uint8], bits: int, out: NDArray[np.uint8]) -> None:
    whole = np.uint64(bits)
    mask = (np.uint64(1) << whole) - np.uint64(1)
    for group in range((words.size + 7) >> 3):
        first, at = 8 * group, bits * group
        held = np.uint64(0)
        for i in range(min(8, words.size - first)):
            held |= (np.uint64(words[first + i]) & mask) << np.uint64(i) * whole
        for i in range(min(bits, out.size - at)):
            out[at + i] = np.uint8(held >> np.uint64(8 * i) & np.uint64(255))


@njit(f"void({_READ}, i8, u1[::1])", cache=True, nogil=True)
def add(data: NDArray[np.uint8], bits: int, total: NDArray[np.uint8]) -> None:
    whole = np.uint64(bits)
    mask = (np.uint64(1) << whole) - np.uint64(1)
    for group in range((total.size + 7) >> 3):
        first, at = 8 * group, bits * group
        held = np.uint64(0)
        for i in range(min(bits, data.size - at)):
            held |= np.uint64(data[at + i]) << np.uint64(8 * i)
        for i in range(min(8, total.size - first)):
            total[first + i] += np.uint8(held >> np.uint64(i) * whole & mask)
