"""Ring vectors: packing at exactly m bits is a bijection, and equals the definition by one large integer."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.crypto.bits.plain import BLOCK
from secagg.crypto.prg import Prg
from secagg.crypto.ring import Ring
from secagg.errors import DecodeError, UsageError
from tests.reference import packing

WIDTHS = range(2, 65)
PACKED_WIDTHS = [bits for bits in WIDTHS if bits not in (8, 16, 32, 64)]


def some_words(ring: Ring, length: int, seed: int = 1) -> np.ndarray:
    """Random machine words: the bits above the ring's are filled too."""
    raw = Prg(seed.to_bytes(32, "big"))(length * ring.dtype.itemsize)
    return np.frombuffer(raw, ring.dtype)


@given(bits=st.sampled_from(WIDTHS), values=st.lists(st.integers(0, 2**64 - 1), max_size=200))
def test_pack_is_the_reference_bit_string_and_unpack_its_inverse(bits: int, values: list[int]) -> None:
    ring = Ring(bits)
    words = np.array(values, np.uint64).astype(ring.dtype)
    data = ring.pack(words)
    assert data == packing.pack([int(word) for word in words], bits)
    assert len(data) == ring.packed_size(len(values)) == -(-len(values) * bits // 8)
    assert ring.unpack(data, len(values)).tolist() == packing.unpack(data, len(values), bits)


@pytest.mark.thinned(4)
@pytest.mark.parametrize("bits", WIDTHS)
def test_every_width_survives_the_wire_at_every_small_length(bits: int) -> None:
    ring = Ring(bits)
    words = some_words(ring, 130)
    for length in range(131):
        data = ring.pack(words[:length])
        assert data == packing.pack(words[:length].tolist(), bits)
        unpacked = ring.unpack(memoryview(data), length)
        assert unpacked.dtype == ring.dtype
        assert (unpacked == words[:length] & ring.dtype.type((1 << bits) - 1)).all()


@pytest.mark.parametrize("bits", [2, 3, 7, 9, 12, 17, 26, 31, 33, 48, 63])
def test_packing_does_not_depend_on_its_blocks(bits: int) -> None:
    ring, borders = Ring(bits), {BLOCK // 64 * 64, BLOCK, 2 * BLOCK}
    whole = some_words(ring, 2 * BLOCK + 65)
    bit_matrix = (whole[:, None] >> np.arange(bits, dtype=np.uint64) & np.uint64(1)).astype(np.uint8)
    for length in sorted({border + around for border in borders for around in (-1, 0, 1, 63)}):
        data = ring.pack(whole[:length])
        assert data == np.packbits(bit_matrix[:length], bitorder="little").tobytes()
        assert (ring.unpack(data, length) == whole[:length] & ring.dtype.type((1 << bits) - 1)).all()


@pytest.mark.parametrize("bits", WIDTHS)
def test_a_wrong_length_is_refused(bits: int) -> None:
    ring = Ring(bits)
    for length in (0, 1, 7, 64):
        data = ring.pack(some_words(ring, length))
        for wrong in (data + b"\0", data[:-1], b""):
            if len(wrong) != len(data):
                with pytest.raises(DecodeError, match="values of"):
                    ring.unpack(wrong, length)


@pytest.mark.parametrize("bits", PACKED_WIDTHS)
def test_unused_bits_that_are_not_zero_are_refused(bits: int) -> None:
    ring = Ring(bits)
    for length in range(1, 9):
        data, used = bytearray(ring.pack(ring.zeros(length))), length * bits % 8
        for bit in range(used, 8) if used else ():
            data[-1] = 1 << bit
            with pytest.raises(DecodeError, match="unused"):
                ring.unpack(bytes(data), length)


@given(
    bits=st.sampled_from(WIDTHS),
    pairs=st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**63), 2**63 - 1))),
)
def test_reduction_commutes_with_addition(bits: int, pairs: list[tuple[int, int]]) -> None:
    ring, half = Ring(bits), 1 << (bits - 1)
    left, right = (np.array([pair[i] for pair in pairs], np.int64).astype(ring.dtype) for i in (0, 1))
    expected = [(a + b + half) % (2 * half) - half for a, b in pairs]
    assert ring.centred(left + right).tolist() == expected
    assert ring.centred(ring.unpack(ring.pack(left + right), len(pairs))).tolist() == expected


@pytest.mark.parametrize("bits", WIDTHS)
def test_centred_undoes_lift_and_lift_refuses_what_would_wrap(bits: int) -> None:
    ring = Ring(bits)
    assert ring.largest == (1 << (bits - 1)) - 1
    fitting = np.array([0, 1, -1, ring.largest, -ring.largest], np.int64)
    assert ring.centred(ring.lift(fitting)).tolist() == fitting.tolist()
    for beyond in (ring.largest + 1, -ring.largest - 1):
        if -(2**63) <= beyond < 2**63:
            with pytest.raises(UsageError, match="does not fit"):
                ring.lift(np.array([0, beyond], np.int64))


def test_words_are_the_narrowest_that_hold_the_ring() -> None:
    assert {bits: Ring(bits).dtype.itemsize for bits in (2, 8, 9, 16, 17, 32, 33, 64)} == {
        2: 1, 8: 1, 9: 2, 16: 2, 17: 4, 32: 4, 33: 8, 64: 8,
    }  # fmt: skip


@pytest.mark.parametrize("bits", [-1, 0, 1, 65, 128])
def test_other_widths_are_refused(bits: int) -> None:
    with pytest.raises(UsageError, match="2 to 64"):
        Ring(bits)
