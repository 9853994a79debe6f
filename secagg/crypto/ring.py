"""Vectors over Z_{2^m}, 2 <= m <= 64: in the narrowest numpy type in memory, packed at exactly m bits on the wire.

In memory the numbers are only right modulo 2^m: the bits above m are whatever the additions left there, because
reduction commutes with addition and is needed only at the end (``pack`` and ``centred`` do it).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from secagg.crypto import bits
from secagg.crypto.bits.plain import Words
from secagg.errors import DecodeError, UsageError

__all__ = ["Buffer", "Ring", "Words"]

Buffer: TypeAlias = bytes | bytearray | memoryview | NDArray[np.uint8]
"""Contiguous bytes in memory."""


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
        if not 2 <= self.bits <= 64:
            raise UsageError(f"a ring has 2 to 64 bits, not {self.bits}")

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

    def lift(self, values: NDArray[np.signedinteger[Any]]) -> Words:
        """Signed integers to ring elements; refuses what would wrap."""
        if values.size and (int(values.max()) > self.largest or int(values.min()) < -self.largest):
            raise UsageError(f"a value does not fit in a ring of {self.bits} bits")
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
        out = np.empty(self.packed_size(len(words)), np.uint8)
        self.pack_into(words, out)
        return out.tobytes()

    def pack_into(self, words: Words, out: Buffer) -> None:
        """``pack``, written into ``out``: writable bytes, as many as that takes, in memory that ``words`` are not in.

        >>> frame = bytearray(b"........")
        >>> Ring(12).pack_into(np.array([1, 2, 3], np.uint16), memoryview(frame)[2:7])
        >>> bytes(frame)
        b'..\\x01 \\x00\\x03\\x00.'
        """
        words = np.require(words, self.dtype, ("C", "A"))
        target = np.frombuffer(out, np.uint8)
        if words.ndim != 1 or len(target) != self.packed_size(len(words)):
            raise UsageError(f"{words.size} values of {self.bits} bits do not take {len(target)} bytes")
        if not target.flags.writeable or np.may_share_memory(words, target):
            raise UsageError("words are packed into other memory, which can be written")
        bits.packing(self.bits, len(words)).pack(words, self.bits, target)

    def unpack(self, data: Buffer, length: int) -> Words:
        """Inverse of ``pack``; refuses a wrong length and unused bits that are not zero."""
        packed = self.check_packed(data, length)
        if self.bits == 8 * self.dtype.itemsize:
            return packed.view(self.dtype)
        out = self.zeros(length)
        bits.packing(self.bits, length).add(packed, self.bits, out)
        return out

    def add_packed(self, data: Buffer, total: Words, span: range | None = None) -> None:
        """Add a packed vector to ``total`` in place, modulo the machine word, without unpacking it elsewhere.

        With a ``span`` only these coordinates are added, so that threads can share a vector; its ends are multiples of
        8, or that of the vector. What ``unpack`` refuses is refused before anything is added, for each span.

        >>> total = np.array([10, 20, 30], np.uint16)
        >>> Ring(12).add_packed(Ring(12).pack(np.array([1, 2, 3], np.uint16)), total)
        >>> total.tolist()
        [11, 22, 33]
        """
        if total.ndim != 1 or total.dtype != self.dtype or not total.flags.carray:
            raise UsageError(f"a sum is a vector of {self.dtype} that can be written")
        length = len(total)
        packed, span = self.check_packed(data, length), range(length) if span is None else span
        if span.step != 1 or not 0 <= span.start <= span.stop <= length:
            raise UsageError(f"{span} is no range of {length} coordinates")
        if span.start % 8 or (span.stop % 8 and span.stop != length):
            raise UsageError(f"a range of coordinates begins and ends at multiples of 8, not as {span}")
        part = packed[span.start * self.bits // 8 : self.packed_size(span.stop)]
        bits.packing(self.bits, length).add(part, self.bits, total[span.start : span.stop])

    def check_packed(self, data: Buffer, length: int) -> NDArray[np.uint8]:
        """The bytes of a packed vector, where they lie; what ``unpack`` refuses is refused.

        >>> Ring(12).check_packed(b"\\x01 \\x00\\x03\\xf0", 3)
        Traceback (most recent call last):
        secagg.errors.DecodeError: unused bits of a packed vector are not zero
        """
        packed = np.frombuffer(data, np.uint8)
        if len(packed) != self.packed_size(length):
            raise DecodeError(f"{len(packed)} bytes are not {length} values of {self.bits} bits")
        if (used := length * self.bits % 8) and packed[-1] >> used:
            raise DecodeError("unused bits of a packed vector are not zero")
        return packed
