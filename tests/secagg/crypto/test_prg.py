"""The PRG: AES-256 counter mode, built here once more from single block encryptions, and seekable."""

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from secagg.crypto.prg import Prg, keystream, random_words
from secagg.errors import UsageError

seeds = st.binary(min_size=32, max_size=32)


def reference_stream(seed: bytes, length: int) -> bytes:
    """AES of the counters 0, 1, 2, ... as 128-bit big-endian blocks (NIST SP 800-38A, 6.5)."""
    counters = b"".join(block.to_bytes(16, "big") for block in range(-(-length // 16)))
    return Cipher(algorithms.AES(seed), modes.ECB()).encryptor().update(counters)[:length]


@given(seed=seeds, length=st.integers(0, 2000))
def test_the_stream_is_aes_of_the_counters(seed: bytes, length: int) -> None:
    assert Prg(seed)(length) == keystream(seed).update(bytes(length)) == reference_stream(seed, length)


def test_the_stream_is_the_published_one() -> None:
    """AES-256 of the zero block under the zero key: NIST's known answer (CAVP, and GCM test case 13's H)."""
    assert Prg(bytes(32))(16).hex() == "dc95c078a2408989ad48a21492842087"


@given(seed=seeds, block=st.integers(0, 60), length=st.integers(0, 500))
def test_a_stream_entered_anywhere_is_a_slice_of_the_whole(seed: bytes, block: int, length: int) -> None:
    assert Prg(seed, start=16 * block)(length) == Prg(seed)(16 * block + length)[16 * block :]


def test_a_stream_can_be_entered_beyond_32_bits() -> None:
    far = 16 * (2**32 - 1)
    assert Prg(bytes(32), far)(48)[16:] == Prg(bytes(32), far + 16)(32)


@given(seed=seeds, pieces=st.lists(st.integers(0, 70), max_size=20))
def test_reading_in_pieces_gives_the_same_bytes(seed: bytes, pieces: list[int]) -> None:
    prg = Prg(seed)
    assert b"".join(prg(count) for count in pieces) == Prg(seed)(sum(pieces))


def test_words_are_little_endian_64_bit() -> None:
    raw = Prg(bytes(32))(24)
    assert random_words(Prg(bytes(32)), 3).tolist() == [int.from_bytes(raw[i : i + 8], "little") for i in (0, 8, 16)]
    assert random_words(Prg(bytes(32)), 0).tolist() == []


@pytest.mark.parametrize("size", [0, 4, 16, 31, 33])
def test_a_short_seed_is_refused(size: int) -> None:
    with pytest.raises(UsageError, match="32 bytes"):
        Prg(bytes(size))


@pytest.mark.parametrize("start", [-16, -1, 1, 15, 17])
def test_a_stream_is_not_entered_inside_a_block(start: int) -> None:
    with pytest.raises(UsageError, match="multiple of 16"):
        Prg(bytes(32), start)


def test_repr_shows_no_seed() -> None:
    assert repr(Prg(b"k" * 32)) == "Prg(<redacted>)"
