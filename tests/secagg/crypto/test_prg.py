"""The PRG: AES-256 counter mode, built here once more from single block encryptions, and seekable."""

import copy
import pickle
from collections.abc import Callable
from itertools import accumulate
from threading import Thread
from types import SimpleNamespace

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from secagg.crypto import prg
from secagg.crypto.prg import Prg, random_into, random_words
from secagg.errors import UsageError

seeds = st.binary(min_size=32, max_size=32)


def reference_stream(seed: bytes, length: int, first: int = 0) -> bytes:
    """AES of the counters 0, 1, 2, ... as 128-bit big-endian blocks (NIST SP 800-38A, 6.5)."""
    counters = b"".join((first + block).to_bytes(16, "big") for block in range(-(-length // 16)))
    return Cipher(algorithms.AES(seed), modes.ECB()).encryptor().update(counters)[:length]


@given(seed=seeds, length=st.integers(0, 2000))
def test_the_stream_is_aes_of_the_counters(seed: bytes, length: int) -> None:
    assert Prg(seed)(length) == reference_stream(seed, length)


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
    stream = Prg(seed)
    assert b"".join(stream(count) for count in pieces) == Prg(seed)(sum(pieces))


WAYS = pytest.mark.parametrize("by_gcm", [True, False])


@WAYS
@given(seed=seeds, first=st.integers(0, 2), pieces=st.lists(st.integers(0, 9000), min_size=1, max_size=6))
def test_long_streams_are_the_same_whichever_cipher_gives_them(
    by_gcm: bool, seed: bytes, first: int, pieces: list[int]
) -> None:
    """Entered where a counter of 32 bits begins, which becomes the nonce of GCM, and one block later."""
    block = (first << 32) + (seed[0] == 0)
    expected = reference_stream(seed, sum(pieces), block)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(prg, "_gcm_is_faster", lambda: by_gcm)
        patched.setattr(prg, "_LONG", 1 << 13)
        one, other, filled = Prg(seed, 16 * block), Prg(seed, 16 * block), np.empty(sum(pieces), np.uint8)
        assert b"".join(one(count) for count in pieces) == expected
        for end, count in zip(accumulate(pieces), pieces, strict=True):
            other.fill(filled[end - count : end])
        assert filled.tobytes() == expected


@WAYS
@pytest.mark.parametrize("block", [0, 1, (1 << 32) - 1, 1 << 32, (1 << 32) + 1, 1 << 33])
def test_more_than_is_written_at_once_is_written_in_pieces(
    by_gcm: bool, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From any block on: GCM's counters begin at few."""
    monkeypatch.setattr(prg, "_gcm_is_faster", lambda: by_gcm)
    assert Prg(bytes(32), 16 * block)(300_000) == reference_stream(bytes(32), 300_000, block)


def test_after_as_much_as_gcm_may_give_counter_mode_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prg, "_gcm_is_faster", lambda: True)
    sizes = [size for _, size in prg._ciphers(bytes(32), 0, long=True)]
    assert sum(sizes[:2]) == 1 << 36
    stream = Prg(bytes(32))
    stream(prg._LONG)
    stream._left = 16  # of 64 GiB
    at_end = stream(1 << 5)[16:]
    assert at_end == Prg(bytes(32), 1 << 36)(16)


def test_no_less_than_nothing_is_read() -> None:
    """``os.urandom`` refuses it, too."""
    with pytest.raises(ValueError, match="negative"):
        Prg(bytes(32))(-1)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
@pytest.mark.parametrize("read", [0, 1, 1 << 17])
def test_a_stream_is_not_copied_lest_its_bytes_are_given_twice(copied: Callable[[Prg], object], read: int) -> None:
    stream = Prg(bytes(32))
    stream(read)
    with pytest.raises(TypeError, match="not copied"):
        copied(stream)


@pytest.mark.parametrize("read", [Prg.fill, lambda stream, out: random_into(lambda count: stream(count), out)])
def test_threads_that_read_one_stream_take_turns(
    read: Callable[[Prg, NDArray[np.uint8]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread begins to read while bytes are written. Were it not to wait, it would take what is left of the
    first cipher once more."""
    monkeypatch.setattr(prg, "_gcm_is_faster", lambda: True)
    stream, pieces = Prg(bytes(32)), [np.empty(32, np.uint8) for _ in range(3)]
    other = Thread(target=read, args=(stream, pieces[1]))
    assert stream._at_hand(prg._LONG) == 32
    context = stream._context

    def update_into(data: bytes, out: bytearray) -> int:
        if not other.ident:
            other.start()
            other.join(0.05)
        return context.update_into(data, out)

    stream._context = SimpleNamespace(update=context.update, update_into=update_into)  # type: ignore[assignment]
    stream.fill(pieces[0])
    other.join()
    stream.fill(pieces[2])
    assert b"".join(piece.tobytes() for piece in pieces) == reference_stream(bytes(32), 96)


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
