"""Packing with numpy: the reference, and what the light install has. ``secagg.crypto.bits`` says what it does.

Words are put in groups that fill whole 64-bit words, so that the i-th of each group is shifted by the same number.
"""

from __future__ import annotations

from math import gcd
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Words: TypeAlias = np.ndarray[Any, np.dtype[np.unsignedinteger[Any]]]
"""Ring elements in memory, as unsigned machine words."""

BLOCK = 1 << 15
"""Words packed at a time: 256 KiB as 64-bit words, so both sides of a transposition stay in cache."""


def pack(words: Words, bits: int, out: NDArray[np.uint8]) -> None:
    if bits == 8 * words.itemsize:
        out[:] = words.view(np.uint8)
        return
    step = BLOCK // _group(bits)[0] * _group(bits)[0]
    for start in range(0, len(words), step):
        at = start * bits // 8
        packed = _packed(words[start : start + step], bits).view(np.uint8)[: len(out) - at]
        out[at : at + len(packed)] = packed


def add(data: NDArray[np.uint8], bits: int, total: Words) -> None:
    if bits == 8 * total.itemsize:
        total += data.view(total.dtype)
        return
    step = BLOCK // _group(bits)[0] * _group(bits)[0]
    for start in range(0, len(total), step):
        block = total[start : start + step]
        at = start * bits // 8
        _add_block(data[at : at + (len(block) * bits + 7) // 8], bits, block)


def _group(bits: int) -> tuple[int, int]:
    """The least number of words that fill whole 64-bit words, and how many of those."""
    shared = gcd(bits, 64)
    return 64 // shared, bits // shared


def _packed(words: Words, bits: int) -> NDArray[np.uint64]:
    per_group, per_word = _group(bits)
    groups = -(-len(words) // per_group)
    flat = np.zeros(groups * per_group, np.uint64)
    flat[: len(words)] = words
    flat &= np.uint64((1 << bits) - 1)
    columns = np.ascontiguousarray(flat.reshape(groups, per_group).T)
    packed = np.zeros((per_word, groups), "<u8")
    for i, column in enumerate(columns):
        word, shift = divmod(i * bits, 64)
        packed[word] |= column << np.uint64(shift)
        if shift + bits > 64:
            packed[word + 1] |= column >> np.uint64(64 - shift)
    return packed.T.reshape(-1)


def _add_block(data: NDArray[np.uint8], bits: int, total: Words) -> None:
    per_group, per_word = _group(bits)
    groups = -(-len(total) // per_group)
    padded = np.zeros(groups * per_word, "<u8")
    padded.view(np.uint8)[: len(data)] = data
    rows = np.ascontiguousarray(padded.reshape(groups, per_word).T)
    columns = np.empty((per_group, groups), total.dtype)
    mask = np.uint64((1 << bits) - 1)
    for i in range(per_group):
        word, shift = divmod(i * bits, 64)
        value = rows[word] >> np.uint64(shift)
        if shift + bits > 64:
            value |= rows[word + 1] << np.uint64(64 - shift)
        columns[i] = value & mask
    total += columns.T.reshape(-1)[: len(total)]
