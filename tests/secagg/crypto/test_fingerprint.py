"""Fingerprints: the published example, and that each bit of key and words counts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.crypto.fingerprint import fingerprint

KEY = bytes.fromhex("85d6be7857556d337f4452fe42d506a80103808afb0db2fd4abff6af4149f51b")


def test_the_example_of_rfc_8439() -> None:
    """Section 2.5.2."""
    text = np.frombuffer(b"Cryptographic Forum Research Group", np.uint8)
    assert fingerprint(KEY, text).hex() == "a8061dc1305136c6c22b8baf0c0127a9"


@given(
    words=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=9), place=st.integers(0, 8), bit=st.integers(0, 31)
)
def test_another_vector_has_another_fingerprint(words: list[int], place: int, bit: int) -> None:
    one = np.array(words, np.uint32)
    other = one.copy()
    other[place % len(one)] ^= 1 << bit
    found = fingerprint(KEY, one)
    assert found != fingerprint(KEY, other)
    assert found != fingerprint(KEY, np.append(one, np.uint32(0)))
    assert found != fingerprint(bytes([KEY[0] ^ 1]) + KEY[1:], one)


def test_a_key_has_32_bytes() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        fingerprint(bytes(16), np.zeros(1, np.uint32))
