"""Packed bits: compiled loops and numpy give the same bytes and sums, which are those of the definition, and touch
nothing else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.crypto import bits
from secagg.crypto.bits import plain
from secagg.crypto.prg import Prg
from secagg.crypto.ring import Ring
from secagg.errors import DecodeError, UsageError
from tests.controls import switch_off
from tests.reference import packing

loops: Any = pytest.importorskip("secagg.crypto.bits.loops", reason="NOT TESTED: compiled packing needs numba")
narrow: Any = pytest.importorskip("secagg.crypto.bits.narrow", reason="NOT TESTED: compiled packing needs numba")

ROOT = Path(__file__).resolve().parents[3]
WIDTHS = [width for width in range(2, 64) if width not in (8, 16, 32)]
"""Those that are not the width of a machine word: of these both implementations are one."""
BORDERS = [plain.BLOCK // 64 * 64, plain.BLOCK, 2 * plain.BLOCK]
GUARD = 24


def some_words(ring: Ring, length: int, seed: int = 1) -> np.ndarray:
    """Random machine words: the bits above the ring's are filled too."""
    return np.frombuffer(Prg(seed.to_bytes(32, "big"))(length * ring.dtype.itemsize), ring.dtype).copy()


class Guarded:
    """Bytes at any place of a memory in which what stands around them must stay what it is."""

    def __init__(self, size: int, offset: int = 0, fill: int = 0xA5) -> None:
        self._all = np.full(GUARD + offset + size + GUARD, fill, np.uint8)
        self._inside, self._fill = slice(GUARD + offset, GUARD + offset + size), fill
        self.bytes = self._all[self._inside]

    def intact(self) -> bool:
        around = np.ones(len(self._all), bool)
        around[self._inside] = False
        return bool((self._all[around] == self._fill).all())


def compiled(width: int) -> bits.Packing:
    return bits.packing(width, 1 << 20)


def lengths() -> Iterator[int]:
    yield from range(70)
    yield from (border + around for border in BORDERS for around in (-1, 0, 1, 63))


# Two implementations, one result


@pytest.mark.thinned(4)
@pytest.mark.parametrize("width", WIDTHS)
def test_both_pack_and_add_alike_and_touch_nothing_else(width: int) -> None:
    ring = Ring(width)
    words, sums = some_words(ring, 2 * plain.BLOCK + 70), some_words(ring, 2 * plain.BLOCK + 70, seed=2)
    for place, length in enumerate(lengths()):
        size, fill = ring.packed_size(length), place * 37 % 256
        ours, theirs = (Guarded(size, place % 8, fill) for _ in range(2))
        compiled(width).pack(words[:length], width, ours.bytes)
        plain.pack(words[:length], width, theirs.bytes)
        assert ours.bytes.tobytes() == theirs.bytes.tobytes()
        assert ours.intact()
        assert theirs.intact()
        if length < 70:
            assert ours.bytes.tobytes() == packing.pack(words[:length].tolist(), width)

        totals = []
        for kernels in (compiled(width), plain):
            memory = np.concatenate([sums[: length + 6]])
            kernels.add(ours.bytes, width, memory[3 : 3 + length])
            totals.append(memory)
            assert (memory[:3] == sums[:3]).all()
            assert (memory[3 + length :] == sums[3 + length : length + 6]).all()
        assert (totals[0] == totals[1]).all()
        exact = sums[3 : 3 + length] + (words[:length] & ring.dtype.type((1 << width) - 1))
        assert (totals[0][3 : 3 + length] == exact).all()


@given(width=st.sampled_from(WIDTHS), length=st.integers(1, 100), offset=st.integers(0, 7), seed=st.integers(0, 99))
def test_both_add_any_bytes_alike(width: int, length: int, offset: int, seed: int) -> None:
    """Unused bits that are not zero, too: they may change after they were looked at."""
    ring, size = Ring(width), Ring(width).packed_size(length)
    data = np.frombuffer(Prg(seed.to_bytes(32, "big"))(offset + size), np.uint8)[offset:]
    ours, theirs = some_words(ring, length), some_words(ring, length)
    compiled(width).add(data, width, ours)
    plain.add(data, width, theirs)
    assert ours.tolist() == theirs.tolist()
    number = packing.unpack(data.tobytes(), length, width)
    assert (ours == some_words(ring, length) + np.array(number, ring.dtype)).all()


@pytest.mark.parametrize("width", [2, 7, 9, 26, 31, 47, 58, 63])
def test_a_sum_wraps_modulo_its_machine_word(width: int) -> None:
    ring = Ring(width)
    for kernels in (compiled(width), plain):
        total = np.full(100, -1).astype(ring.dtype)
        kernels.add(np.frombuffer(ring.pack(np.full(100, 3, ring.dtype)), np.uint8), width, total)
        assert (total == 2).all()


# What a ring checks before


@pytest.mark.parametrize("width", [2, 5, 8, 12, 16, 26, 32, 40, 61, 64])
@pytest.mark.parametrize("length", [1, 3, 5000])
def test_what_is_no_packed_vector_is_refused_before_anything_is_added(width: int, length: int) -> None:
    ring = Ring(width)
    data, before = bytearray(ring.pack(some_words(ring, length))), some_words(ring, length, seed=3)
    total = before.copy()
    wrong = [data + b"\0", data[:-1], b""]
    if used := length * width % 8:
        for bit in range(used, 8):
            wrong.append(bytearray(data))
            wrong[-1][-1] |= 1 << bit
    for one in wrong:
        for span in (None, range(0), range(length)):
            with pytest.raises(DecodeError, match=r"values of|unused"):
                ring.add_packed(one, total, span)
    assert (total == before).all()
    ring.add_packed(data, total)
    assert (total == before + ring.unpack(data, length)).all()


@pytest.mark.parametrize("width", [3, 7, 8, 12, 26, 32, 57, 63])
def test_ranges_of_a_vector_add_up_to_it(width: int) -> None:
    ring, length = Ring(width), 10_001
    data, whole = ring.pack(some_words(ring, length)), ring.zeros(length)
    ring.add_packed(data, whole)
    parts = ring.zeros(length)
    for start, stop in [(4096, 8192), (0, 8), (8, 4096), (8192, length), (16, 16)]:
        ring.add_packed(memoryview(data), parts, range(start, stop))
    assert (parts == whole).all()
    for span in (
        range(4, 8), range(12), range(length + 1), range(-8, 8), range(16, 8), range(0, 16, 8), range(9996, length),
    ):  # fmt: skip
        with pytest.raises(UsageError, match="range"):
            ring.add_packed(data, parts, span)
    assert (parts == whole).all()


@pytest.mark.parametrize("width", [8, 12, 32, 50])
def test_a_buffer_of_another_size_or_that_is_not_to_be_written_is_refused(width: int) -> None:
    ring = Ring(width)
    words, memory = some_words(ring, 8), bytearray(200)
    size = ring.packed_size(8)
    for wrong in (memoryview(memory)[: size - 1], memoryview(memory)[: size + 1], b"", bytes(size)):
        with pytest.raises(UsageError):
            ring.pack_into(words, wrong)
    with pytest.raises(UsageError, match="other memory"):
        ring.pack_into(words, words.view(np.uint8)[:size])
    assert memory == bytes(200)


@pytest.mark.parametrize("width", [9, 16, 26, 64])
def test_a_sum_that_is_no_vector_of_the_ring_is_refused(width: int) -> None:
    ring = Ring(width)
    data, right = ring.pack(some_words(ring, 8)), ring.zeros(8)
    closed = ring.zeros(8)
    closed.setflags(write=False)
    for total in (
        np.zeros(8, np.int64), np.zeros(8), ring.zeros(16)[::2], closed, right.reshape(2, 4), right.astype(">u4"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match="a sum is a vector"):
            ring.add_packed(data, total)


@pytest.mark.parametrize("check", ["len(packed) != self.packed_size(length)", "packed[-1] >> used"])
def test_control_without_its_checks_a_ring_adds_what_is_no_packed_vector(
    monkeypatch: pytest.MonkeyPatch, check: str
) -> None:
    switch_off(monkeypatch, Ring, "check_packed", check)
    ring, total = Ring(9), np.zeros(3, np.uint16)
    wrong = ring.pack(some_words(ring, 3))[:-1] + b"\xff" if "used" in check else bytes(5)
    ring.add_packed(wrong, total)


def test_whoever_writes_into_a_packed_vector_while_it_is_added_makes_wrong_words_at_most() -> None:
    ring, length = Ring(26), 200_003
    data, noise = bytearray(ring.packed_size(length)), Prg(bytes(32))(ring.packed_size(length))
    done = Event()

    def disturb() -> None:
        view = memoryview(data)
        while not done.is_set():
            view[:] = noise
            view[-1:] = b"\0"

    memory = np.zeros(length + 64, np.uint32)
    thread = Thread(target=disturb)
    thread.start()
    try:
        for _ in range(20):
            memory[:] = 0
            loops.add(np.frombuffer(data, np.uint8), 26, memory[32:-32])
            assert memory.max() < 1 << 26
            assert not memory[:32].any()
            assert not memory[-32:].any()
    finally:
        done.set()
        thread.join()


# Which one is taken

CHOSEN = """
import sys
if sys.argv[1] == "plain":
    sys.modules["numba"] = None
import numpy as np
from secagg.crypto import bits
from secagg.crypto.ring import Ring
words = np.arange(5000, dtype=np.uint32)
ring, total = Ring(26), words.copy()
short = ring.pack(words[:1000])
assert "numba" not in sys.modules or sys.argv[1] == "plain", "numba is loaded when it is needed, and not before"
data = ring.pack(words)
ring.add_packed(data, total)
assert (total == 2 * words).all() and (ring.unpack(data, 5000) == words).all() and data.startswith(short[:-1])
print(bits.packing(26, 5000).__name__)
"""


def test_packed_vectors_are_the_same_with_and_without_numba() -> None:
    for name in ("loops", "plain"):
        done = subprocess.run([sys.executable, "-c", CHOSEN, name], cwd=ROOT, capture_output=True, text=True)
        assert done.stdout.strip() == f"secagg.crypto.bits.{name}", done.stderr


def test_where_words_fill_machine_words_there_is_nothing_to_compile() -> None:
    assert {bits.packing(width, 1 << 20) for width in (8, 16, 32, 64)} == {plain}
    assert {bits.packing(width, 1 << 20) for width in WIDTHS} == {loops, narrow}
