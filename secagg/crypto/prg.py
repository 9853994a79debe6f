"""The one pseudorandom generator: AES-256 in counter mode, from a 32-byte seed.

Byte i of a stream is byte i of AES-CTR(seed) with the counter starting at zero, so a stream can be entered anywhere:
that is what lets masks be removed by coordinate ranges, on several cores or machines. A seed is used for one stream
only and has 256 bits, so a fixed initial counter costs no security.

GCM encrypts in counter mode, too: under a nonce of 96 bits with the counters 2, 3, ... in 32 bits below it (NIST SP
800-38D, 7.1). So all but the first two blocks of a stream, up to 64 GiB, are what GCM makes of zeros under the nonce
zero. OpenSSL computes it several blocks to an instruction where processors can, and bare counter mode not yet: with the
tag, which nobody asks for, GCM takes half of the time there. Which is faster is measured, once in a process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from threading import Lock
from time import perf_counter
from typing import NoReturn, TypeAlias

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from numpy.typing import NDArray

from secagg.errors import UsageError

Rng: TypeAlias = Callable[[int], bytes]
"""A source of n random bytes: ``os.urandom``, or a ``Prg`` where a run must replay exactly."""

SEED_BYTES = 32
_AES_BLOCK = 16
_ZEROS = memoryview(bytes(1 << 17))
_LONG = 1 << 16  # bytes: with fewer to begin with, setting up a second cipher takes longer than it saves
_TRIAL, _TRIALS = 1 << 15, 5
_GCM_SKIPS = 2
_GCM_BLOCKS = 1 << 32


class Prg:
    """A sequential reader of one stream; call it like ``os.urandom``. No byte is given twice: threads take turns, and
    there are no copies.

    >>> Prg(bytes(32))(4).hex()
    'dc95c078'
    >>> Prg(bytes(32), start=16)(4) == Prg(bytes(32))(20)[16:]
    True
    """

    __slots__ = ("_block", "_ciphers", "_context", "_left", "_seed", "_turn")

    def __init__(self, seed: bytes, start: int = 0) -> None:
        if len(seed) != SEED_BYTES:
            raise UsageError(f"a seed has {SEED_BYTES} bytes, not {len(seed)}")
        if start < 0 or start % _AES_BLOCK:
            raise UsageError("a stream is entered at a multiple of 16 bytes")
        self._seed, self._block = seed, start // _AES_BLOCK
        self._ciphers: Iterator[tuple[CipherContext, int]] | None = None
        self._left, self._turn = 0, Lock()

    def __call__(self, count: int) -> bytes:
        with self._turn:
            if 0 <= count <= min(self._at_hand(count), len(_ZEROS)):
                self._left -= count
                return self._context.update(_ZEROS[:count])
        out = np.empty(count, np.uint8)
        self.fill(out)
        return out.tobytes()

    def fill(self, out: NDArray[np.uint8]) -> None:
        """Write the next bytes into ``out``."""
        with self._turn:
            while len(out):
                count = min(len(out), self._at_hand(len(out)), len(_ZEROS))
                self._context.update_into(_ZEROS[:count], out[:count])  # type: ignore[arg-type]  # any buffer will do
                self._left -= count
                out = out[count:]

    def _at_hand(self, wanted: int) -> int:
        """The bytes that come from the cipher whose turn it is. The first request decides which there are."""
        if not self._left:
            if self._ciphers is None:
                self._ciphers = _ciphers(self._seed, self._block, long=wanted >= _LONG)
            self._context, self._left = next(self._ciphers)
        return self._left

    def __reduce__(self) -> NoReturn:
        raise TypeError("a stream is not copied: its bytes would be given twice")

    def __repr__(self) -> str:
        return "Prg(<redacted>)"


def _ciphers(seed: bytes, block: int, *, long: bool) -> Iterator[tuple[CipherContext, int]]:
    """What gives the stream from a block on, one after the other, and how many bytes of it."""
    if long and block % _GCM_BLOCKS == 0 and _gcm_is_faster():
        yield _encryptor(seed, _counter(block)), _GCM_SKIPS * _AES_BLOCK
        nonce = (block // _GCM_BLOCKS).to_bytes(12, "big")
        yield _encryptor(seed, modes.GCM(nonce)), (_GCM_BLOCKS - _GCM_SKIPS) * _AES_BLOCK
        block += _GCM_BLOCKS
    yield _encryptor(seed, _counter(block)), 1 << 132  # all that there is


def _counter(block: int) -> modes.CTR:
    return modes.CTR(block.to_bytes(_AES_BLOCK, "big"))


def _encryptor(seed: bytes, mode: modes.CTR | modes.GCM) -> CipherContext:
    return Cipher(algorithms.AES(seed), mode).encryptor()


@cache
def _gcm_is_faster() -> bool:
    """Whether GCM is faster than counter mode here: by the shortest of a few trials, of some microseconds each."""
    room, took = np.empty(_TRIAL, np.uint8), list[float]()
    for mode in (modes.GCM(bytes(12)), _counter(0)):
        context, trials = _encryptor(bytes(SEED_BYTES), mode), list[float]()
        for _ in range(_TRIALS):
            started = perf_counter()
            context.update_into(_ZEROS[:_TRIAL], room)  # type: ignore[arg-type]  # any buffer will do
            trials.append(perf_counter() - started)
        took.append(min(trials))
    return took[0] < took[1]


def random_words(rng: Rng, count: int) -> NDArray[np.uint64]:
    """``count`` uniform 64-bit integers."""
    return np.frombuffer(rng(8 * count), "<u8")


def random_into(rng: Rng, out: NDArray[np.uint8]) -> None:
    """Fill ``out`` with random bytes: those that ``rng(len(out))`` would have been.

    >>> out = np.empty(4, np.uint8)
    >>> random_into(Prg(bytes(32)), out)
    >>> out.tobytes().hex()
    'dc95c078'
    """
    if isinstance(rng, Prg):
        rng.fill(out)
    else:
        out[:] = np.frombuffer(rng(len(out)), np.uint8)
