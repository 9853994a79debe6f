"""add_masks equals the naive sum of whole streams, however the work is cut."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.compiled import COMPILES
from secagg.crypto import masking
from secagg.crypto.masking import BLOCK_BYTES, add_masks, pack_masked
from secagg.crypto.prg import Prg
from secagg.crypto.ring import Ring
from secagg.errors import UsageError


def seeds_of(count: int, first: int = 0) -> list[bytes]:
    return [(first + i).to_bytes(32, "big") for i in range(count)]


def naive(target: np.ndarray, plus: list[bytes], minus: list[bytes]) -> np.ndarray:
    result = target.copy()
    for seed in plus:
        result = result + np.frombuffer(Prg(seed)(target.nbytes), target.dtype)
    for seed in minus:
        result = result - np.frombuffer(Prg(seed)(target.nbytes), target.dtype)
    return result


def start_of(bits: int, length: int) -> np.ndarray:
    return np.arange(length).astype(Ring(bits).dtype)


@given(
    bits=st.integers(2, 64),
    length=st.integers(0, 300),
    plus=st.integers(0, 4),
    minus=st.integers(0, 4),
)
def test_adding_masks_is_the_naive_sum(bits: int, length: int, plus: int, minus: int) -> None:
    target = start_of(bits, length)
    expected = naive(target, seeds_of(plus), seeds_of(minus, 100))
    add_masks(target, seeds_of(plus), seeds_of(minus, 100))
    assert (target == expected).all()


@pytest.mark.parametrize("bits", [8, 16, 26, 64])
@pytest.mark.parametrize(("plus", "minus"), [(0, 0), (1, 0), (0, 1), (1, 1), (2, 1), (1, 2), (3, 3), (2, 3)])
def test_two_masks_at_once_are_the_same_as_one_after_the_other(
    bits: int, plus: int, minus: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    length = BLOCK_BYTES // Ring(bits).dtype.itemsize + 13
    results = []
    for compiled in (True, False) if COMPILES else (False,):
        monkeypatch.setattr(masking, "compiles", lambda length, answer=compiled: answer)
        memory = start_of(bits, length + 8)
        add_masks(memory[4:-4], seeds_of(plus), seeds_of(minus, 100))
        results.append(memory)
    expected = start_of(bits, length + 8)
    expected[4:-4] = naive(expected[4:-4], seeds_of(plus), seeds_of(minus, 100))
    assert all((memory == expected).all() for memory in results)


def test_a_block_has_room_for_its_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled loops do not look where a mask ends."""
    streams = masking._Streams([(bytes(32), 1), (bytes(32), -1)], 0, 1 << 20)
    block = np.zeros(BLOCK_BYTES // 4 + 1, np.uint32)
    with pytest.raises(UsageError, match="at most"):
        streams.add_next(block)
    assert not block.any()


@pytest.mark.parametrize("bits", [8, 16, 26, 64])
def test_block_borders_change_nothing(bits: int) -> None:
    per_block = BLOCK_BYTES // Ring(bits).dtype.itemsize
    for blocks in (1, 2, 3):
        for around in (-1, 0, 1):
            target = start_of(bits, blocks * per_block + around)
            expected = naive(target, seeds_of(2), seeds_of(1, 100))
            add_masks(target, seeds_of(2), seeds_of(1, 100))
            assert (target == expected).all()


def test_more_streams_than_are_open_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "_STREAMS_AT_ONCE", 3)
    target = start_of(32, 1000)
    expected = naive(target, seeds_of(7), seeds_of(4, 100))
    add_masks(target, seeds_of(7), seeds_of(4, 100))
    assert (target == expected).all()


@given(bits=st.integers(2, 64), length=st.integers(1, 200), count=st.integers(1, 4))
def test_subtracting_undoes_adding(bits: int, length: int, count: int) -> None:
    target = start_of(bits, length)
    add_masks(target, seeds_of(count))
    add_masks(target, [], seeds_of(count))
    assert (target == start_of(bits, length)).all()


@given(bits=st.integers(2, 64), length=st.integers(0, 200), cut=st.integers(0, 10))
def test_ranges_make_up_the_whole(bits: int, length: int, cut: int) -> None:
    target = start_of(bits, length)
    expected = naive(target, seeds_of(2), seeds_of(1, 100))
    first = min(cut * 16, length)
    add_masks(target[:first], seeds_of(2), seeds_of(1, 100))
    add_masks(target[first:], seeds_of(2), seeds_of(1, 100), first=first if first < length else 0)
    assert (target == expected).all()


def test_a_range_begins_where_a_stream_can_be_entered() -> None:
    with pytest.raises(UsageError, match="multiple of 16"):
        add_masks(start_of(32, 4), seeds_of(1), first=3)


@pytest.mark.parametrize(
    ("bits", "dtype"), [(8, "i1"), (12, "i2"), (21, "i2"), (21, "i8"), (32, "i4"), (47, "i4"), (64, "i8")]
)
@pytest.mark.parametrize("length", [0, 1, 7, 8, 1 << 16, (1 << 16) + 3, (1 << 17) + 1])
def test_lifted_masked_and_packed_in_one_pass(bits: int, dtype: str, length: int) -> None:
    """What is written is what one step after the other writes, negative numbers too, and nothing beside it."""
    ring, largest = Ring(bits), np.iinfo(dtype).max
    values = (np.arange(length, dtype=np.int64) * 977 % 255 - 127).astype(dtype)
    values[:2] = [largest, -largest][: len(values)]
    plus, minus = seeds_of(3), seeds_of(2, 100)
    expected = ring.wrap(values)
    add_masks(expected, plus, minus)
    out = bytearray(b"\xa5" * (ring.packed_size(length) + 16))
    pack_masked(values, ring, plus, minus, memoryview(out)[8 : len(out) - 8])
    assert bytes(out[8:-8]) == ring.pack(expected)
    assert bytes(out[:8]) == bytes(out[-8:]) == b"\xa5" * 8


def test_more_masks_than_are_open_at_once_are_packed_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    ring, values, outs = Ring(21), np.arange(-50, 50, dtype=np.int16), [bytearray(263), bytearray(263)]
    for most, out in zip((512, 2), outs, strict=True):
        monkeypatch.setattr(masking, "_STREAMS_AT_ONCE", most)
        pack_masked(values, ring, seeds_of(3), seeds_of(2, 100), memoryview(out))
    assert outs[0] == outs[1] != bytearray(263)


@pytest.mark.parametrize("size", [0, 262, 264])
def test_masked_words_that_do_not_fit_are_refused(size: int) -> None:
    with pytest.raises(UsageError, match=f"do not take {size} bytes"):
        pack_masked(np.zeros(100, np.int16), Ring(21), seeds_of(1), [], memoryview(bytearray(size)))
