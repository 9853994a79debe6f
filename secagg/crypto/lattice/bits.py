"""Residues packed at exactly as many bits as their prime has: like ``secagg.crypto.ring.Ring.pack``, but compiled.

A vector under ring-LWE has several residues for every few values, so that packing in numpy would take longer than
masking.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from secagg.compiled import njit
from secagg.crypto.lattice.ntt import READ, Words
from secagg.errors import DecodeError


def packed_size(count: int, width: int) -> int:
    return (count * width + 7) // 8


def pack(words: Words, width: int) -> bytes:
    """Words at ``width`` bits each, little-endian; the unused bits of the last byte are zero.

    >>> unpack(pack(np.array([5, 0, 1023], np.uint32), 10), 3, 10).tolist()
    [5, 0, 1023]
    """
    out = np.zeros(-(-len(words) * width // 32), np.uint32)
    _pack(words, width, out)
    return out.tobytes()[: packed_size(len(words), width)]


def unpack(data: memoryview | bytes, count: int, width: int) -> Words:
    """Inverse of ``pack`` for data of the right size; refuses unused bits that are not zero."""
    if count * width % 8 and data[-1] >> (count * width % 8):
        raise DecodeError("unused bits of packed residues are not zero")
    padded = np.zeros(-(-len(data) // 4), np.uint32)
    padded.view(np.uint8)[: len(data)] = np.frombuffer(data, np.uint8)
    out = np.empty(count, np.uint32)
    _unpack(padded, width, out)
    return out


@njit(f"void({READ(1)}, i8, u4[::1])", cache=True, nogil=True)
def _pack(words: Words, width: int, out: NDArray[np.uint32]) -> None:
    held, have, at, bits, word = np.uint64(0), np.uint64(0), 0, np.uint64(width), np.uint64(32)
    for i in range(words.size):
        held |= np.uint64(words[i]) << have
        have += bits
        if have >= word:
            out[at] = np.uint32(held)
            at += 1
            held >>= word
            have -= word
    if have > 0:
        out[at] = np.uint32(held)


@njit(f"void({READ(1)}, i8, u4[::1])", cache=True, nogil=True)
def _unpack(data: Words, width: int, out: NDArray[np.uint32]) -> None:
    held, have, at, bits, word = np.uint64(0), np.uint64(0), 0, np.uint64(width), np.uint64(32)
    mask = (np.uint64(1) << bits) - np.uint64(1)
    for i in range(out.size):
        if have < bits:
            held |= np.uint64(data[at]) << have
            at += 1
            have += word
        out[i] = np.uint32(held & mask)
        held >>= bits
        have -= bits
