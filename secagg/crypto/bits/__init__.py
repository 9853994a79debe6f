"""Unsigned words packed at exactly m bits each, 2 <= m <= 64, and packed words added to a vector: in one pass each.

    pack      words -> bytes, written into a buffer
    add       bytes -> onto words, in place

Word i stands at bit i m of one long little-endian number. There are two implementations: ``plain`` calls numpy,
``loops``, and for fewer than eight bits ``narrow``, are compiled by numba (extra ``[fast]``) and ten times as fast.
``secagg.compiled.compiles`` says which one is taken; what comes out is the same. Callers have checked lengths:
``loops`` reads and writes without looking, within what its two arrays have by the lengths that are named below.
"""

from __future__ import annotations

import sys
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from secagg.compiled import compiles
from secagg.crypto.bits import plain
from secagg.crypto.bits.plain import Words


class Packing(Protocol):
    """What ``plain`` and ``loops`` both have. Arrays are contiguous, ``data`` and ``out`` have ceil(n m / 8) bytes for
    the n words of the other array, which is aligned."""

    def pack(self, words: Words, bits: int, out: NDArray[np.uint8], /) -> None:
        """Write the lowest ``bits`` bits of each word; the unused bits of the last byte are zero."""

    def add(self, data: NDArray[np.uint8], bits: int, total: Words, /) -> None:
        """Add each packed word to one of ``total``, modulo its machine word; unused bits count for nothing."""


def packing(bits: int, length: int) -> Packing:
    """The implementation for so many words. Where they fill machine words there is nothing to shift."""
    if bits in (8, 16, 32, 64) or sys.byteorder != "little" or not compiles(length):
        return plain
    from secagg.crypto.bits import loops, narrow

    return loops if bits > 8 else narrow
