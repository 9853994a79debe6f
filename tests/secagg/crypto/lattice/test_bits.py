"""Compiled packing: the bytes of ``secagg.crypto.ring.Ring``, and nothing that is not canonical."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.crypto.lattice import bits
from secagg.crypto.ring import Ring
from secagg.errors import DecodeError


@given(width=st.integers(8, 31), count=st.integers(1, 300), seed=st.integers(0, 1 << 32))
def test_the_same_bytes_as_the_ring(width: int, count: int, seed: int) -> None:
    words = np.random.default_rng(seed).integers(0, 1 << width, count).astype(np.uint32)
    packed = bits.pack(words, width)
    assert packed == Ring(width).pack(words)
    assert len(packed) == bits.packed_size(count, width) == Ring(width).packed_size(count)
    assert bits.unpack(memoryview(packed), count, width).tolist() == words.tolist()


def test_views_at_any_address() -> None:
    words = np.arange(100, dtype=np.uint32)
    packed = b"\xff" + bits.pack(words, 27)
    assert bits.unpack(memoryview(packed)[1:], 100, 27).tolist() == words.tolist()


def test_spare_bits_are_zero() -> None:
    packed = bytearray(bits.pack(np.array([1, 2, 3], np.uint32), 27))  # 81 bits, 7 to spare
    packed[-1] |= 0x80
    with pytest.raises(DecodeError, match="unused bits"):
        bits.unpack(bytes(packed), 3, 27)
