"""From a law's boundaries and a seed to samples: exact inversion, fast where 63 bits already decide.

Sample i comes from 191 bits: the word w at byte 8i of the stream gives the sign (lowest bit) and the first 63 bits of a
uniform u in [0, 1/2); the 16 bytes at REFINEMENT + 16i are the other 128 bits of u, generated only when they matter.
The magnitude is the x with H(x-1) <= u < H(x) (see ``laws``). That alone defines the output. A position in the stream
belongs to one sample, no sample is ever rejected, and everything below is only about finding x fast.

A table of boundaries 2^bits outcomes apart, and a guide into it, say which bucket u falls in. If buckets hold more than
one outcome, floating point PROPOSES one (the inverse of the bucket's polynomial) and integers DECIDE: the polynomial of
degree five through six neighbouring boundaries differs from H by at most

    max |s+2| |s+1| |s| |s-1| |s-2| |s-3| / 6! * sup |H^(6)| = (225/64) / 720 * bend        (s in [0, 1], in buckets)

plus eleven roundings of 2^-53 (six coefficients, five products). A proposal that is right by more than that margin is
right, and so is a bucket when u's first 63 bits differ from those of its ends. Every other sample (one in 2^18 at
sigma = 2^20, none for small sigma) is decided by bisection, with exact boundaries and all 191 bits. Tests force that
path, and bad proposals: nothing changes.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from operator import mul

import numpy as np
from numpy.typing import NDArray

from secagg.compiled import njit
from secagg.crypto.prg import Prg
from secagg.crypto.sampling.fixed import PRECISION
from secagg.crypto.sampling.laws import HALF, Law

REGION = 1 << 65
"""The bytes of a stream that samples from one table use: words in the lower half, refinements in the upper."""
_REFINEMENT = REGION >> 1

_BLOCK = 1 << 15
_GUIDE_BITS = 12
_UNIT_BITS = 53
"""A bucket holds at most sigma / 64 outcomes, so less than 2^46 units: times 2^16 outcomes that is below 2^63."""

_RARE = HALF - (HALF >> 40)
"""Outcomes beyond the first boundary above this are found by bisection."""

_NODES = range(-2, 4)
_DEGREE = 5


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A law, and for all buckets but the rarest the numbers with which an outcome is found fast."""

    law: Law
    ends: NDArray[np.uint64]  # first 64 bits of the boundary after each bucket; the last one is beyond all words
    guide: NDArray[np.uint16]  # for the first 12 bits of u: the first bucket it can be in
    forward: NDArray[np.int64]  # in units of 2^-53: coefficients of H over a bucket
    inverse: NDArray[np.float64]  # coefficients of the proposal
    margin: int

    @classmethod
    def of(cls, law: Law) -> Table:
        ends = [_node(law, 1)]
        while ends[-1] < _RARE:
            ends.append(_node(law, len(ends) + 1))
        words = np.array([end >> (PRECISION - 64) for end in ends] + [(1 << 64) - 1], np.uint64)
        cells = np.arange(1 << _GUIDE_BITS, dtype=np.uint64) << np.uint64(63 - _GUIDE_BITS)
        guide = np.searchsorted(words, cells).astype(np.uint16)
        if not law.bits:
            return cls(law, words, guide, np.zeros((0, 6), np.int64), np.zeros((0, 6)), 0)
        count = len(ends)
        nodes = [_node(law, i) for i in (-2, -1, 0)] + ends + [_node(law, count + i) for i in (1, 2)]
        forward = np.array([_interpolated(nodes[i : i + 6]) for i in range(count)], np.int64)
        margin = 12 + (225 * law.bend // (64 * 720) >> (PRECISION - _UNIT_BITS))
        return cls(law, words, guide, forward, _inverses(forward, 1 << law.bits), margin)


def _node(law: Law, i: int) -> int:
    """H at y = i 2^bits - 1/2, also for negative y: H is an odd function of y."""
    x = (i << law.bits) - 1
    return law.boundary(min(x, law.reach)) if x >= 0 else -law.boundary(-x - 1)


def _lagrange() -> list[list[int]]:
    """The weights of the six values in 120 times each coefficient of the polynomial; row m is for s^m."""
    columns = []
    for i in _NODES:
        column = [120]
        for k in _NODES:
            if k != i:  # times (s - k) / (i - k)
                column = [a - k * b for a, b in zip([0, *column], [*column, 0], strict=True)]
        columns.append([c // math.prod(i - k for k in _NODES if k != i) for c in column])
    return [list(row) for row in zip(*columns, strict=True)]


_LAGRANGE = _lagrange()


def _interpolated(nodes: list[int]) -> list[int]:
    """The polynomial with these values at s = -2, ..., 3: coefficients in multiples of 2^-53, each rounded down."""
    shift = PRECISION - _UNIT_BITS
    return [sum(map(mul, row, nodes)) // 120 >> shift for row in _LAGRANGE]


def _inverses(forward: NDArray[np.int64], width: int) -> NDArray[np.float64]:
    """Polynomials of degree five: an outcome's offset in its bucket from the distance to the bucket's start."""
    places = (1 - np.cos(np.pi * (np.arange(6) + 0.5) / 6)) / 2
    rises = forward[:, 1:] @ (places ** np.arange(1, 6)[:, None])
    whole = forward[:, 1:].sum(axis=1, keepdims=True).astype(np.float64)
    inverse = np.linalg.solve(
        (rises / whole)[:, :, None] ** np.arange(6), np.broadcast_to(places * width, rises.shape)[..., None]
    )[..., 0]
    return np.ascontiguousarray(inverse / whole ** np.arange(6))


def sample(table: Table, count: int, seed: bytes, start: int = 0) -> NDArray[np.int64]:
    """``count`` samples from the stream of ``seed``, in the region that begins at byte ``start``."""
    out, size = np.empty(count, np.int64), min(count, _BLOCK)
    stream, words, unsure = Prg(seed, start), np.empty(size, np.uint64), np.empty(size, np.int64)
    arrays = table.ends, table.guide, table.forward, table.inverse
    for first in range(0, count, _BLOCK):
        block = out[first : first + _BLOCK]
        drawn = words[: len(block)]
        stream.fill(drawn.view(np.uint8))
        undecided = _invert(drawn, *arrays, table.law.bits, table.margin, block, unsure)
        for i in unsure[:undecided].tolist():
            refinement = Prg(seed, start + _REFINEMENT + 16 * (first + i))(16)
            block[i] = _exact(table.law, int(drawn[i]), refinement)
    return out


def _exact(law: Law, word: int, refinement: bytes) -> int:
    """The outcome by definition: the number of boundaries at or below u, with the sign."""
    u = ((word >> 1) << 128 | int.from_bytes(refinement, "little")) << (PRECISION - 192)
    x = bisect_right(range(law.reach), u, key=law.boundary)
    return -x if word & 1 else x


@njit(
    "i8(u8[::1], u8[::1], u2[::1], i8[:, ::1], f8[:, ::1], i8, i8, i8[::1], i8[::1])",
    cache=True,
    nogil=True,
)
def _invert(
    words: NDArray[np.uint64],
    ends: NDArray[np.uint64],
    guide: NDArray[np.uint16],
    forward: NDArray[np.int64],
    inverse: NDArray[np.float64],
    bits: int,
    margin: int,
    out: NDArray[np.int64],
    unsure: NDArray[np.int64],
) -> int:
    """Write the words' outcomes into ``out``, the indices of uncertain ones into ``unsure``; return their number."""
    count, last = 0, ends.size - 1
    for i in range(words.size):
        u = words[i] >> np.uint64(1)
        j = np.int64(guide[u >> np.uint64(63 - _GUIDE_BITS)])
        while u > ends[j]:
            j += 1
        sure, x = j < last and u < ends[j], j
        if sure and bits > 0:
            t = np.int64(u >> np.uint64(64 - _UNIT_BITS))
            place, rise = inverse[j, _DEGREE], np.float64(t - forward[j, 0])
            for m in range(_DEGREE - 1, -1, -1):
                place = place * rise + inverse[j, m]
            h = int(min(max(place, 0.0), (1 << bits) - 1.0))
            here = there = forward[j, _DEGREE]
            for m in range(_DEGREE - 1, -1, -1):
                here = (here * h >> bits) + forward[j, m]
                there = (there * (h + 1) >> bits) + forward[j, m]
            sure, x = here + margin <= t and t + margin < there, (j << bits) + h
        if not sure:
            unsure[count] = i
            count += 1
        out[i] = -x if words[i] & np.uint64(1) else x
    return count
