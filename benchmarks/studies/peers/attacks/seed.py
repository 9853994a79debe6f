"""Searching seeds of 32 bits: numpy's ``RandomState`` (MT19937), and for comparison our generator.

Flower's ``pseudo_rand_gen`` folds a secret to 32 bits by exclusive or, seeds MT19937 with them, and draws masks below
2^32 - 1: the first number of a mask is the generator's first output (but for one seed in 2^32, where it is drawn
again). That output depends on words 0, 1 and 397 of the initial state (Matsumoto and Nishimura 1998, "Mersenne
Twister", ACM TOMACS 8(1); ``init_genrand`` of 2002), so a candidate costs 397 multiplications, and no whole state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from secagg.compiled import njit
from secagg.crypto.prg import SEED_BYTES, Prg
from secagg.crypto.ring import Ring, Words

_AT_ONCE = 256
"""Seeds that go through the recurrence side by side: the compiler makes vector instructions of it."""

_OUR_BITS = 14
"""Our generator is asked through Python and is slow to ask: so many bits are enough to know its rate."""


@dataclass(frozen=True, slots=True)
class Search:
    """What was looked through, and how long it took."""

    found: tuple[int, ...]
    tried: int
    seconds: float

    @property
    def rate(self) -> float:
        return self.tried / self.seconds


def fold(secret: bytes) -> int:
    """The 32 bits that Flower's generator makes of a secret.

    >>> fold(bytes([1, 0, 0, 0, 3, 0, 0, 0]))
    2
    """
    return int(np.bitwise_xor.reduce(np.frombuffer(secret, "<u4")))


def window(seed: int, bits: int) -> tuple[int, int]:
    """The aligned range of 2^bits seeds around one. With 32 bits it is all of them, whatever the seed.

    >>> window(0x12345678, 8) == (0x12345600, 0x12345700)
    True
    """
    low = seed >> bits << bits
    return low, low + (1 << bits)


def search_twister(first: int, low: int, high: int) -> Search:
    """The seeds whose first output is ``first``; one in 2^32 is so by chance.

    >>> first = int(np.random.RandomState(5489).randint(0, 2**32 - 1, dtype=np.int64))
    >>> search_twister(first, 5000, 6000).found
    (5489,)
    """
    hits = np.empty(64, np.uint32)
    started = perf_counter()
    count = _first_outputs(np.uint32(first), low, high, hits)
    return Search(tuple(hits[: min(count, len(hits))].tolist()), high - low, perf_counter() - started)


def search_ours(masked: Words, ring: Ring, largest: int, seed: int) -> Search:
    """The seeds of 32 bits around ``seed`` whose stream takes from ``masked`` what is no number up to ``largest``.

    A wrong one passes with probability (2 largest / 2^bits)^64, at most 2^-64 with a bit to spare.
    """
    sample = masked[:64]

    def fits(candidate: int) -> bool:
        stream = Prg(candidate.to_bytes(4, "little").ljust(SEED_BYTES, b"\0"))(sample.nbytes)
        left = ring.centred(sample - np.frombuffer(stream, sample.dtype))
        return bool(np.abs(left).max() <= largest)

    return _tried(fits, *window(seed, _OUR_BITS))


def _tried(fits: Callable[[int], bool], low: int, high: int) -> Search:
    started = perf_counter()
    found = tuple(candidate for candidate in range(low, high) if fits(candidate))
    return Search(found, high - low, perf_counter() - started)


@njit("i8(u4, i8, i8, u4[::1])", cache=True, nogil=True)
def _first_outputs(wanted: np.uint32, low: int, high: int, hits: NDArray[np.uint32]) -> int:
    count = 0
    word0 = np.empty(_AT_ONCE, np.uint32)
    word1 = np.empty(_AT_ONCE, np.uint32)
    word = np.empty(_AT_ONCE, np.uint32)
    for start in range(low, high, _AT_ONCE):
        for lane in range(_AT_ONCE):
            word0[lane] = word[lane] = np.uint32(start + lane)
        for i in range(1, 398):
            for lane in range(_AT_ONCE):
                before = word[lane]
                word[lane] = np.uint32(1812433253) * (before ^ (before >> np.uint32(30))) + np.uint32(i)
            if i == 1:
                word1[:] = word
        for lane in range(_AT_ONCE):
            mixed = (word0[lane] & np.uint32(0x80000000)) | (word1[lane] & np.uint32(0x7FFFFFFF))
            y = word[lane] ^ (mixed >> np.uint32(1)) ^ ((mixed & np.uint32(1)) * np.uint32(0x9908B0DF))
            y ^= y >> np.uint32(11)
            y ^= (y << np.uint32(7)) & np.uint32(0x9D2C5680)
            y ^= (y << np.uint32(15)) & np.uint32(0xEFC60000)
            y ^= y >> np.uint32(18)
            if np.uint32(y) == wanted and start + lane < high:
                if count < len(hits):
                    hits[count] = np.uint32(start + lane)
                count += 1
    return count
