"""Adding many pseudorandom masks to one vector: the inner loop of the whole library.

The work is cut into blocks of 128 KiB, and for each block all streams are added before the next is touched, two at a
time where numba is installed. So block, keystreams and accumulator stay in the second-level cache, and memory does not
grow with the number of masks. AES and both additions release the interpreter lock, and streams can be entered anywhere:
ranges of coordinates can be worked on by threads, or machines (``protocols.engines``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from secagg.compiled import compiles
from secagg.crypto.prg import Prg
from secagg.crypto.ring import Ring, Words
from secagg.errors import UsageError

BLOCK_BYTES = 1 << 17
"""The size of a block. Measured: 64 KiB costs 3% more, for calls, and 256 KiB 4% more, for cache misses."""

_STREAMS_AT_ONCE = 512
"""The most cipher contexts that are open at once; each takes about a kilobyte."""


def add_masks(target: Words, plus: Sequence[bytes], minus: Sequence[bytes] = (), *, first: int = 0) -> None:
    """Add the stream of every seed in ``plus`` to ``target``, subtract those in ``minus``, in place, modulo the word.

    ``target`` is the range of the whole vector that begins at coordinate ``first``, a multiple of 16 bytes.

    >>> vector = np.arange(5, dtype=np.uint32)
    >>> add_masks(vector, [bytes(32)])
    >>> add_masks(vector, [], [bytes(32)])
    >>> vector.tolist()
    [0, 1, 2, 3, 4]
    """
    signed = _signed(plus, minus)
    per_block = BLOCK_BYTES // target.itemsize
    for batch in range(0, len(signed), _STREAMS_AT_ONCE):
        streams = _Streams(signed[batch : batch + _STREAMS_AT_ONCE], first * target.itemsize, len(target))
        for start in range(0, len(target), per_block):
            streams.add_next(target[start : start + per_block])


def pack_masked(
    values: NDArray[np.signedinteger[Any]], ring: Ring, plus: Sequence[bytes], minus: Sequence[bytes], out: memoryview
) -> None:
    """Signed integers as ring elements, with ``add_masks``, packed into ``out``: block by block, so that nothing is as
    long as the vector but what is given and what comes out.

    >>> ring, packed = Ring(12), bytearray(5)
    >>> pack_masked(np.array([1, -2, 3], np.int8), ring, [bytes(32)], [bytes(32)], memoryview(packed))
    >>> ring.centred(ring.unpack(packed, 3)).tolist()
    [1, -2, 3]
    """
    signed = _signed(plus, minus)
    if len(signed) > _STREAMS_AT_ONCE:
        words = ring.wrap(values)
        add_masks(words, plus, minus)
        return ring.pack_into(words, out)
    if len(out) != ring.packed_size(len(values)):
        raise UsageError(f"{len(values)} values of {ring.bits} bits do not take {len(out)} bytes")
    streams, per_block = _Streams(signed, 0, len(values)), BLOCK_BYTES // ring.dtype.itemsize
    room = np.empty(min(per_block, len(values)), ring.dtype)
    for start in range(0, len(values), per_block):
        part = values[start : start + per_block]
        block = room[: len(part)]
        np.copyto(block, part, casting="unsafe")  # modulo the word, as ``Ring.wrap`` does
        streams.add_next(block)
        at = start * ring.bits // 8  # whole bytes: a block has a multiple of 8 coordinates
        ring.pack_into(block, out[at : at + ring.packed_size(len(part))])
    return None


_Signed: TypeAlias = list[tuple[bytes, int]]
"""Seeds, and whether what they give is added (1) or subtracted (-1): those that are added come first."""


def _signed(plus: Sequence[bytes], minus: Sequence[bytes]) -> _Signed:
    return [(seed, 1) for seed in plus] + [(seed, -1) for seed in minus]


class _Streams:
    """The streams of some seeds, at the same place, and room for what is added at once."""

    def __init__(self, signed: _Signed, start: int, length: int) -> None:
        """``length`` is that of the whole vector: numba is not loaded for a short one."""
        fills = [(Prg(seed, start).fill, sign) for seed, sign in signed]
        twos = len(fills) // 2 * 2 if compiles(length) else 0
        self._ones = [(fill, np.add if sign > 0 else np.subtract) for fill, sign in fills[twos:]]
        self._twos: list[tuple[Callable[..., None], Callable[..., None], Callable[..., None]]] = []
        if twos:
            from secagg.crypto import two

            combine = {(1, 1): two.add, (1, -1): two.add_difference, (-1, -1): two.subtract}
            for (one, sign), (other, second) in zip(fills[:twos:2], fills[1:twos:2], strict=True):
                self._twos.append((one, other, combine[sign, second]))
        self._buffers = [np.empty(BLOCK_BYTES, np.uint8) for _ in range(2)]

    def add_next(self, block: Words) -> None:
        """Add what comes next in all streams, a block of it at most."""
        if block.nbytes > BLOCK_BYTES:
            raise UsageError(f"masks are added to {BLOCK_BYTES} bytes at most, not to {block.nbytes}")
        first, second = (buffer[: block.nbytes] for buffer in self._buffers)
        mask, another = first.view(block.dtype), second.view(block.dtype)
        for one, other, both in self._twos:
            one(first)
            other(second)
            both(block, mask, another)
        for fill, combine in self._ones:
            fill(first)
            combine(block, mask, out=block)
