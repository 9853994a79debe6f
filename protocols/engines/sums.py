"""A sum of packed vectors: each is accepted when it comes, and added beside what comes next."""

from __future__ import annotations

from collections import deque
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from protocols.engines import Engine, shards
from secagg.crypto.ring import Buffer, Ring, Words
from secagg.errors import StorageError

_WORTH_SHARING = 1 << 18
"""Coordinates below which one worker is done before several have begun."""

_MOST_WAITING = 1 << 25
"""Bytes of vectors that may wait for each other, so that memory stays bounded."""


class PackedSum:
    """The sum of vectors of a ring, packed as they travel.

    ``take`` only checks and keeps a vector, ``work_off`` adds what is worth it, ``value`` whatever is left: numbers are
    added modulo the machine word, so the order does not matter. Where workers share memory, twice as many vectors as
    workers are added together, each worker in its own range of coordinates. All of these may be called by several
    threads. What is taken must not change: ``bytes``, or a view of them.

    >>> from protocols.engines.local import HERE
    >>> ring = Ring(12)
    >>> total = PackedSum(HERE, ring, 3)
    >>> for values in ([1, -2, 3], [10, 20, 30]):
    ...     total.take(ring.pack(ring.lift(np.array(values))))
    ...     total.work_off()
    >>> ring.centred(total.value()).tolist()
    [11, 18, 33]
    >>> total.take(b"too long")
    Traceback (most recent call last):
    secagg.errors.DecodeError: 8 bytes are not 3 values of 12 bits
    """

    def __init__(self, engine: Engine, ring: Ring, length: int) -> None:
        self._engine, self._ring, self._total = engine, ring, ring.zeros(length)
        shared = engine.shares_memory and engine.workers > 1 and length >= _WORTH_SHARING
        self._together = min(2 * engine.workers, max(_MOST_WAITING // ring.packed_size(length), 1)) if shared else 1
        self._spans = shards(length, ring.dtype.itemsize, engine.workers) if shared else [range(length)]
        self._waiting = deque[NDArray[np.uint8]]()
        self._one_at_a_time, self._whole = Lock(), True

    def take(self, data: Buffer) -> None:
        """Accept a vector; what is none raises ``DecodeError``, and changes nothing."""
        self._waiting.append(self._ring.check_packed(data, len(self._total)))

    def work_off(self) -> None:
        """Add the vectors that wait, if they are as many as are added together."""
        if len(self._waiting) >= self._together:
            self._add_all()

    def check(self) -> None:
        """``StorageError`` if an addition was interrupted, so that nobody reveals anything for a sum that is lost.

        It waits for nobody: what is being added at this moment may still fail.
        """
        if self._one_at_a_time.acquire(blocking=False):
            try:
                self._check_whole()
            finally:
                self._one_at_a_time.release()

    def value(self) -> Words:
        """The sum of all vectors that were taken: its own words, and not a copy.

        ``StorageError`` if an addition was interrupted: nobody knows then what is in the sum.
        """
        self._add_all()
        return self._total

    def _add_all(self) -> None:
        with self._one_at_a_time:
            self._check_whole()
            together = list[NDArray[np.uint8]]()
            self._whole = False
            while self._waiting:
                together.append(self._waiting.popleft())
            self._add(together)
            self._whole = True

    def _check_whole(self) -> None:
        if not self._whole:
            raise StorageError("an upload was added in part: the sum is lost, and the round with it")

    def _add(self, together: list[NDArray[np.uint8]]) -> None:
        def add(span: range) -> None:
            for data in together:
                self._ring.add_packed(data, self._total, span)

        if len(self._spans) == 1 or len(together) < 2:
            add(range(len(self._total)))
        else:
            for _ in self._engine.map(add, self._spans):
                pass
