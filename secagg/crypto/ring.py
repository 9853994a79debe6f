"""Vectors over Z_{2^m}, 8 <= m <= 64: in the narrowest numpy type in memory, packed at exactly m bits on the wire.

In memory the numbers are only right modulo 2^m: the bits above m are whatever the additions left there, because
reduction commutes with addition and is needed only at the end (``pack`` and ``centred`` do it).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from secagg.errors import DecodeError, UsageError

Words: TypeAlias = np.ndarray[Any, np.dtype[np.unsignedinteger[Any]]]
"""Ring elements in memory, as unsigned machine words."""

_BLOCK = 1 << 15
"""Coordinates packed at a time: 256 KiB as 64-bit words, so both sides of a transposition stay in cache."""


@dataclass(frozen=True, slots=True)
class Ring:
    """The integers modulo 2^bits.

    >>> ring = Ring(26)
    >>> words = ring.lift(np.array([1, -2, 3]))
    >>> ring.centred(words + words).tolist()
    [2, -4, 6]
    >>> len(ring.pack(words)), ring.packed_size(3)
    (10, 10)
    >>> ring.centred(ring.unpack(ring.pack(words), 3)).tolist()
    [1, -2, 3]
    """

    bits: int

    def __post_init__(self) -> None:
        if not 8 <= self.bits <= 64:
            raise UsageError(f"a ring has 8 to 64 bits, not {self.bits}")

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger[Any]]:
        width = next(w for w in (8, 16, 32, 64) if w >= self.bits)
        return np.dtype(f"<u{width // 8}")

    @property
    def largest(self) -> int:
        """The largest magnitude that ``lift`` and ``centred`` preserve."""
        return (1 << (self.bits - 1)) - 1

    def zeros(self, length: int) -> Words:
        return np.zeros(length, self.dtype)

    def check(self, values: NDArray[np.int64]) -> None:
        """Refuse integers that would wrap."""
        if values.size and (int(values.max()) > self.largest or int(values.min()) < -self.largest):
            raise UsageError(f"a value does not fit in a ring of {self.bits} bits")

    def lift(self, values: NDArray[np.int64]) -> Words:
        """Signed integers to ring elements; refuses what would wrap."""
        self.check(values)
        return self.wrap(values)

    def wrap(self, values: NDArray[np.int64]) -> Words:
        """Signed integers to ring elements, whatever their size."""
        return values.astype(self.dtype)

    def centred(self, words: Words) -> NDArray[np.int64]:
        """Ring elements to the signed integers nearest zero."""
        unused = np.int64(64 - self.bits)
        return (words.astype(np.int64) << unused) >> unused

    def packed_size(self, length: int) -> int:
        return (length * self.bits + 7) // 8

    def pack(self, words: Words) -> bytes:
        """Exactly ``bits`` bits for each coordinate, little-endian; the unused bits of the last byte are zero."""
        if self.bits == 8 * self.dtype.itemsize:
            return words.astype(self.dtype, copy=False).tobytes()
        per_group, per_word = self._group()
        out = np.zeros(-(-len(words) // per_group) * per_word, "<u8")
        step = _BLOCK // per_group * per_group
        for start in range(0, len(words), step):
            self._pack_block(words[start : start + step], out[start // per_group * per_word :])
        return out.tobytes()[: self.packed_size(len(words))]

    def unpack(self, data: bytes | memoryview, length: int) -> Words:
        """Inverse of ``pack``; refuses a wrong length and unused bits that are not zero."""
        if len(data) != self.packed_size(length):
            raise DecodeError(f"{len(data)} bytes are not {length} values of {self.bits} bits")
        if self.bits == 8 * self.dtype.itemsize:
            return np.frombuffer(data, self.dtype)
        if length * self.bits % 8 and data[-1] >> (length * self.bits % 8):
            raise DecodeError("unused bits of a packed vector are not zero")
        per_group, per_word = self._group()
        padded = np.zeros(-(-length // per_group) * per_word, "<u8")
        padded.view(np.uint8)[: len(data)] = np.frombuffer(data, np.uint8)
        out = np.empty(length, self.dtype)
        step = _BLOCK // per_group * per_group
        for start in range(0, length, step):
            self._unpack_block(padded[start // per_group * per_word :], out[start : start + step])
        return out

    def _group(self) -> tuple[int, int]:
        """The least number of coordinates that fill whole 64-bit words, and how many words."""
        shared = gcd(self.bits, 64)
        return 64 // shared, self.bits // shared

    def _pack_block(self, words: Words, out: NDArray[np.uint64]) -> None:
        per_group, per_word = self._group()
        groups = -(-len(words) // per_group)
        flat = np.zeros(groups * per_group, np.uint64)
        flat[: len(words)] = words
        flat &= np.uint64((1 << self.bits) - 1)
        columns = np.ascontiguousarray(flat.reshape(groups, per_group).T)
        packed = np.zeros((per_word, groups), np.uint64)
        for i, column in enumerate(columns):
            word, shift = divmod(i * self.bits, 64)
            packed[word] |= column << np.uint64(shift)
            if shift + self.bits > 64:
                packed[word + 1] |= column >> np.uint64(64 - shift)
        out[: groups * per_word] = packed.T.reshape(-1)

    def _unpack_block(self, packed: NDArray[np.uint64], out: Words) -> None:
        per_group, per_word = self._group()
        groups = -(-len(out) // per_group)
        rows = np.ascontiguousarray(packed[: groups * per_word].reshape(groups, per_word).T)
        columns = np.empty((per_group, groups), self.dtype)
        mask = np.uint64((1 << self.bits) - 1)
        for i in range(per_group):
            word, shift = divmod(i * self.bits, 64)
            value = rows[word] >> np.uint64(shift)
            if shift + self.bits > 64:
                value |= rows[word + 1] << np.uint64(64 - shift)
            columns[i] = value & mask
        out[:] = columns.T.reshape(-1)[: len(out)]
