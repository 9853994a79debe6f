"""A sum of packed vectors: the same whoever adds, all or nothing of each vector, and nobody waits who need not."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.engines import sums
from protocols.engines.local import HERE, Threads
from protocols.engines.sums import PackedSum
from secagg.crypto.prg import Prg
from secagg.crypto.ring import Ring
from secagg.errors import DecodeError, StorageError
from tests.controls import switch_off

LENGTH = 5000


def some(ring: Ring, count: int, length: int = LENGTH) -> list[bytes]:
    draw = Prg(bytes(32))
    words = [np.frombuffer(draw(ring.dtype.itemsize * length), ring.dtype) for _ in range(count)]
    return [ring.pack(each) for each in words]


def plain(ring: Ring, vectors: list[bytes], length: int = LENGTH) -> list[int]:
    total = ring.zeros(length)
    for data in vectors:
        total += ring.unpack(data, length)
    return ring.centred(total).tolist()


@given(
    bits=st.integers(2, 64), length=st.integers(1, 9000), count=st.integers(0, 9), workers=st.integers(1, 3),
)  # fmt: skip
@pytest.mark.thinned(5)
def test_the_sum_is_that_of_the_vectors(bits: int, length: int, count: int, workers: int) -> None:
    ring = Ring(bits)
    vectors = some(ring, count, length)
    with pytest.MonkeyPatch.context() as inside:
        inside.setattr(sums, "_WORTH_SHARING", 1)
        total = PackedSum(Threads(workers), ring, length)
        for data in vectors:
            total.take(memoryview(data))
            total.work_off()
        assert ring.centred(total.value()).tolist() == plain(ring, vectors, length)


@pytest.mark.parametrize("engine", [HERE, Threads(2)], ids=["one", "two"])
def test_what_is_no_vector_changes_nothing(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sums, "_WORTH_SHARING", 1)
    ring = Ring(11)
    length = 5001  # one bit of the last byte is not used
    vectors = some(ring, 3, length)
    stray = vectors[0][:-1] + bytes([vectors[0][-1] | 0x80])
    total = PackedSum(engine, ring, length)
    for data in vectors:
        total.take(data)
        for bad in (stray, data[:-1], data + b"\0", b""):
            with pytest.raises(DecodeError):
                total.take(bad)
            total.work_off()
    assert ring.centred(total.value()).tolist() == plain(ring, vectors, length)


@pytest.mark.parametrize("workers", [1, 2])
def test_vectors_that_wait_are_few(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one worker none waits; with more, as many as are added together."""
    monkeypatch.setattr(sums, "_WORTH_SHARING", 1)
    ring = Ring(20)
    vectors, total = some(ring, 9), PackedSum(Threads(workers), ring, LENGTH)
    waiting = []
    for data in vectors:
        total.take(data)
        total.work_off()
        waiting.append(len(total._waiting))
    assert waiting == ([0] * 9 if workers == 1 else [1, 2, 3, 0, 1, 2, 3, 0, 1])
    monkeypatch.setattr(sums, "_MOST_WAITING", 2 * ring.packed_size(LENGTH))
    assert PackedSum(Threads(workers), ring, LENGTH)._together == workers


@pytest.mark.parametrize("workers", [1, 2])
def test_an_addition_that_was_interrupted_is_no_sum(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Part of a vector in the sum would be a sum of nobody's vectors; the round could not tell."""
    monkeypatch.setattr(sums, "_WORTH_SHARING", 1)
    ring, real = Ring(20), Ring.add_packed
    vectors = some(ring, 5)

    def interrupted(self: Ring, data: Any, total: Any, span: range | None = None) -> None:
        if data is last:
            raise KeyboardInterrupt
        real(self, data, total, span)

    def half_a_sum() -> list[int]:
        nonlocal last
        total = PackedSum(Threads(workers), ring, LENGTH)
        with pytest.MonkeyPatch.context() as inside:
            inside.setattr(Ring, "add_packed", interrupted)
            for data in vectors:
                total.take(data)
            last = total._waiting[-1]
            with pytest.raises(KeyboardInterrupt):
                total.work_off()
        return ring.centred(total.value()).tolist()

    last: Any = None
    with pytest.raises(StorageError, match="the sum is lost"):
        half_a_sum()
    switch_off(monkeypatch, PackedSum, "_check_whole", "not self._whole")
    assert half_a_sum() != plain(ring, vectors)


def test_a_vector_is_taken_while_another_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    inside, go_on = threading.Event(), threading.Event()
    ring, real = Ring(20), Ring.add_packed
    vectors, total = some(ring, 2), PackedSum(HERE, ring, LENGTH)

    def slow(*arguments: Any) -> None:
        inside.set()
        assert go_on.wait(20)
        real(*arguments)

    monkeypatch.setattr(Ring, "add_packed", slow)
    total.take(vectors[0])
    adding = threading.Thread(target=total.work_off)
    adding.start()
    assert inside.wait(20)
    total.take(vectors[1])  # comes back
    go_on.set()
    adding.join()
    assert ring.centred(total.value()).tolist() == plain(ring, vectors)


@pytest.mark.parametrize("engine", [HERE, Threads(2)], ids=["one", "two"])
def test_threads_that_take_and_add(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sums, "_WORTH_SHARING", 1)
    ring = Ring(20)
    vectors, total = some(ring, 60), PackedSum(engine, ring, LENGTH)

    def some_of_them(first: int) -> None:
        for data in vectors[first::6]:
            total.take(data)
            total.work_off()

    threads = [threading.Thread(target=some_of_them, args=(first,)) for first in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ring.centred(total.value()).tolist() == plain(ring, vectors)
