"""The one pseudorandom generator: AES-256 in counter mode, from a 32-byte seed.

Byte i of a stream is byte i of AES-CTR(seed) with the counter starting at zero, so a stream can be entered anywhere:
that is what lets masks be removed by coordinate ranges, on several cores or machines. A seed is used for one stream
only and has 256 bits, so a fixed initial counter costs no security.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from numpy.typing import NDArray

from secagg.errors import UsageError

Rng: TypeAlias = Callable[[int], bytes]
"""A source of n random bytes: ``os.urandom``, or a ``Prg`` where a run must replay exactly."""

SEED_BYTES = 32
_AES_BLOCK = 16
_ZEROS = memoryview(bytes(1 << 17))


def keystream(seed: bytes, start: int = 0) -> CipherContext:
    """An AES-CTR context positioned at byte ``start`` (a multiple of 16); updating it with zeros yields the stream."""
    if len(seed) != SEED_BYTES:
        raise UsageError(f"a seed has {SEED_BYTES} bytes, not {len(seed)}")
    if start < 0 or start % _AES_BLOCK:
        raise UsageError("a stream is entered at a multiple of 16 bytes")
    counter = (start // _AES_BLOCK).to_bytes(_AES_BLOCK, "big")
    return Cipher(algorithms.AES(seed), modes.CTR(counter)).encryptor()


class Prg:
    """A sequential reader of one stream; call it like ``os.urandom``.

    >>> Prg(bytes(32))(4).hex()
    'dc95c078'
    >>> Prg(bytes(32), start=16)(4) == Prg(bytes(32))(20)[16:]
    True
    """

    __slots__ = ("_context",)

    def __init__(self, seed: bytes, start: int = 0) -> None:
        self._context = keystream(seed, start)

    def __call__(self, count: int) -> bytes:
        return self._context.update(_ZEROS[:count] if count <= len(_ZEROS) else bytes(count))

    def fill(self, out: NDArray[np.uint8]) -> None:
        """Write the next bytes into ``out``."""
        for start in range(0, len(out), len(_ZEROS)):
            part = out[start : start + len(_ZEROS)]
            self._context.update_into(_ZEROS[: len(part)], part)  # type: ignore[arg-type]  # any buffer will do

    def __repr__(self) -> str:
        return "Prg(<redacted>)"


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
