"""Polynomials in R_q (``ring``), modulo each of its primes: sums, products, bytes.

``Coefficients`` and ``Evaluations`` are the same polynomials before and after the transform, and different types:
only evaluations can be multiplied, only coefficients be read or sent, and the two cannot be added. A value holds any
number of polynomials, its blocks, as (primes, blocks, N) words. That each word is below its prime is checked on
construction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from secagg.crypto.lattice import arithmetic, ntt
from secagg.crypto.lattice.ntt import Words
from secagg.crypto.lattice.primes import rows, tables, with_quotients
from secagg.crypto.lattice.ring import QuotientRing
from secagg.crypto.ring import Ring
from secagg.errors import DecodeError, UsageError

_CHUNK = 1 << 13
"""Coefficients handled at a time, so that all their residues stay in the second-level cache."""

Integers: TypeAlias = NDArray[np.signedinteger[Any]]


def zero_words(ring: QuotientRing, blocks: int) -> Words:
    """The residues of so many polynomials, all zero, to be written into."""
    if blocks < 1:
        raise UsageError(f"there is at least one polynomial, not {blocks}")
    return np.zeros((len(ring.primes), blocks, ring.degree), np.uint32)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class _Polynomials:
    ring: QuotientRing
    words: Words

    def __post_init__(self) -> None:
        words, degree, primes = self.words, self.ring.degree, self.ring.primes
        if words.ndim != 3 or words.shape[::2] != (len(primes), degree) or not words.shape[1]:
            raise UsageError(f"polynomials have shape ({len(primes)}, blocks, {degree}), not {words.shape}")
        if words.dtype != np.uint32 or not words.flags.c_contiguous:
            raise UsageError("residues are contiguous 32-bit words")
        if any(int(residues.max()) >= q for q, residues in zip(primes, words, strict=True)):
            raise UsageError("a residue is not reduced")
        words.flags.writeable = False

    @property
    def blocks(self) -> int:
        return int(self.words.shape[1])

    def __repr__(self) -> str:
        zero = "" if self.words.any() else ", zero"
        size = f"N={self.ring.degree}, primes={len(self.ring.primes)}, blocks={self.blocks}"
        return f"{type(self).__name__}({size}{zero})"

    def __add__(self, other: Self) -> Self:
        self._check_kind(other, self.blocks)
        out = np.empty_like(self.words)
        arithmetic.add(self.words, other.words, np.array(self.ring.primes, np.uint32), out)
        return _reduced(type(self), self.ring, out)

    def __neg__(self) -> Self:
        return self.scaled(-1)

    def __sub__(self, other: Self) -> Self:
        self._check_kind(other, self.blocks)
        return self + -other

    def scaled(self, factor: int) -> Self:
        """The product with an integer."""
        out = np.empty_like(self.words)
        factors = np.stack([with_quotients(np.array(factor % q), q) for q in self.ring.primes])
        arithmetic.scale(self.words, factors, np.array(self.ring.primes, np.uint32), out)
        return _reduced(type(self), self.ring, out)

    def _check_kind(self, other: _Polynomials, *blocks: int) -> None:
        if type(other) is not type(self) or other.ring != self.ring or other.blocks not in blocks:
            raise UsageError(f"{self!r} does not go with {other!r}, or their primes differ")


class Coefficients(_Polynomials):
    """Polynomials as coefficients, which are lifted from integers, packed, sent and decoded.

    >>> ring = QuotientRing(2048, (12289, 40961))
    >>> x = Coefficients.lift(ring, [np.array([0, -1, 5])])  # -X + 5 X^2
    >>> (x.evaluations() * x.evaluations()).coefficients() - Coefficients.lift(ring, [np.array([0, 0, 1, -10, 25])])
    Coefficients(N=2048, primes=2, blocks=1, zero)
    """

    __slots__ = ()

    @classmethod
    def zeros(cls, ring: QuotientRing, blocks: int) -> Self:
        return cls(ring, zero_words(ring, blocks))

    @classmethod
    def lift(
        cls,
        ring: QuotientRing,
        columns: Sequence[Integers],
        weights: Sequence[int] = (1,),
        blocks: int | None = None,
        onto: Coefficients | None = None,
    ) -> Self:
        """The coefficients sum_j weights_j columns_j (+ ``onto``), exact modulo q. Beyond its end a column is zero.

        ``onto`` is used up: what comes out is written over it.
        """
        longest = max((column.size for column in columns), default=0)
        blocks = -(-longest // ring.degree) if blocks is None else blocks
        if any(column.ndim != 1 or column.dtype.kind != "i" for column in columns) or len(columns) != len(weights):
            raise UsageError("a column is a one-dimensional array of signed integers and has one weight")
        if longest > blocks * ring.degree:
            raise UsageError(f"{longest} coefficients do not fit into {blocks} polynomials")
        if onto is not None and (onto.ring != ring or onto.blocks != blocks):
            raise UsageError(f"{onto!r} does not go with {blocks} polynomials of this ring")
        words = zero_words(ring, blocks) if onto is None else onto.words
        words.flags.writeable = True
        flat, own = words.reshape(len(ring.primes), -1), np.array(ring.primes, np.uint32)
        narrow = [column.dtype.itemsize <= 4 for column in columns]
        constants = [_column_constants(*one, ring.primes) for one in zip(weights, narrow, strict=True)]
        for start in range(0, longest, _CHUNK):
            for column, is_narrow, (factors, less) in zip(columns, narrow, constants, strict=True):
                part = column[start : start + _CHUNK]
                if is_narrow:
                    part = np.ascontiguousarray(part, np.int32)
                    arithmetic.add_narrow_multiple(flat, start, part, factors, less, own)
                else:
                    arithmetic.add_multiple(flat, start, np.ascontiguousarray(part, np.int64), factors, less, own)
        return _reduced(cls, ring, words)

    @classmethod
    def unpack(cls, ring: QuotientRing, data: bytes | memoryview, count: int) -> Self:
        """The first ``count`` coefficients, as ``pack`` wrote them; the others are zero."""
        if count < 1 or len(data) != ring.packed_size(count):
            raise DecodeError(f"{len(data)} bytes are not {count} coefficients of {ring.bits} bits")
        words = zero_words(ring, -(-count // ring.degree))
        rest = memoryview(data)
        for q, residues in zip(ring.primes, words.reshape(len(ring.primes), -1), strict=True):
            packing = Ring(q.bit_length())
            size = packing.packed_size(count)
            residues[:count] = packing.unpack(rest[:size], count)
            if int(residues.max()) >= q:
                raise DecodeError("a residue is not reduced")
            rest = rest[size:]
        return cls(ring, words)

    def evaluations(self) -> Evaluations:
        words, own = self.words.copy(), tables(self.ring.degree, self.ring.primes)
        ntt.forward(words, own.primes, own.twiddles, rows(self.ring.degree))
        return _reduced(Evaluations, self.ring, words)

    def pack(self, count: int) -> bytes:
        """The first ``count`` coefficients of all blocks together, each residue in as many bits as its prime has."""
        out = bytearray(self.ring.packed_size(max(count, 0)))
        self.pack_into(count, memoryview(out))
        return bytes(out)

    def pack_into(self, count: int, out: memoryview) -> None:
        """``pack``, written into ``out``, which has as many bytes."""
        if not 1 <= count <= self.blocks * self.ring.degree:
            raise UsageError(f"there are {self.blocks * self.ring.degree} coefficients, not {count}")
        if len(out) != self.ring.packed_size(count):
            raise UsageError(f"{count} coefficients of {self.ring.bits} bits do not take {len(out)} bytes")
        for q, residues in zip(self.ring.primes, self.words.reshape(len(self.ring.primes), -1), strict=True):
            packing = Ring(q.bit_length())
            size = packing.packed_size(count)
            packing.pack_into(residues[:count], out[:size])
            out = out[size:]


class Evaluations(_Polynomials):
    """Polynomials as their values at the roots of X^N + 1, which can be multiplied."""

    __slots__ = ()

    def __mul__(self, other: Evaluations) -> Evaluations:
        """Products in R_q, block by block; ``other`` may be one polynomial for all blocks."""
        self._check_kind(other, self.blocks, 1)
        out, own = np.empty_like(self.words), tables(self.ring.degree, self.ring.primes)
        ntt.multiply(self.words, other.words, own.primes, own.montgomery, out)
        return _reduced(Evaluations, self.ring, out)

    def coefficients(self) -> Coefficients:
        return self._transformed(self.words.copy())

    def product(self, other: Evaluations) -> Coefficients:
        """``(self * other).coefficients()``, with one copy less."""
        return self._transformed((self * other).words)

    def _transformed(self, words: Words) -> Coefficients:
        """The coefficients, computed in place in ``words``."""
        words.flags.writeable = True
        own = tables(self.ring.degree, self.ring.primes)
        ntt.backward(words, own.primes, own.inverses, own.shrink, rows(self.ring.degree))
        return _reduced(Coefficients, self.ring, words)


P = TypeVar("P", bound=_Polynomials)


def _reduced(kind: type[P], ring: QuotientRing, words: Words) -> P:
    """Polynomials of words that a kernel has made: reduced, which is not looked at again."""
    made = object.__new__(kind)
    words.flags.writeable = False
    object.__setattr__(made, "ring", ring)
    object.__setattr__(made, "words", words)
    return made


class RunningSum:
    """Adds ciphertexts as they arrive, without a new array for each.

    >>> ring = QuotientRing(2048, (12289, 40961))
    >>> total = RunningSum(ring, blocks=1)
    >>> total.add(Coefficients.lift(ring, [np.array([3, -4])]))
    >>> total.value() - Coefficients.lift(ring, [np.array([3, -4])])
    Coefficients(N=2048, primes=2, blocks=1, zero)
    """

    __slots__ = ("_ring", "_words")

    def __init__(self, ring: QuotientRing, blocks: int) -> None:
        self._ring, self._words = ring, zero_words(ring, blocks)

    def add(self, part: Coefficients) -> None:
        if type(part) is not Coefficients or part.ring != self._ring or part.blocks != self._words.shape[1]:
            raise UsageError(f"{part!r} does not go with this sum")
        arithmetic.add(self._words, part.words, np.array(self._ring.primes, np.uint32), self._words)

    def value(self) -> Coefficients:
        return Coefficients(self._ring, self._words.copy())


@lru_cache(maxsize=1024)
def _column_constants(weight: int, narrow: bool, primes: tuple[int, ...]) -> tuple[Words, Words]:
    """The arguments ``factors`` and ``less`` of ``arithmetic.add_multiple``, or of ``add_narrow_multiple``."""
    if narrow:
        alone = [with_quotients(np.array(weight % q), q) for q in primes]
        return np.array(alone, np.uint32), np.array([-(weight << 31) % q for q in primes], np.uint32)
    factors = [[with_quotients(np.array(w % q), q) for w in (weight << 32, weight)] for q in primes]
    return np.array(factors, np.uint32), np.array([-(weight << 63) % q for q in primes], np.uint32)
