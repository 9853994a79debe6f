"""Sealed boxes open for the right key, bytes and purpose, and for nothing else."""

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from secagg.crypto.prg import Prg
from secagg.crypto.seal import OVERHEAD_BYTES, open_box, opened_once, seal, sealed_once
from secagg.errors import PeerError, UsageError

keys = st.binary(min_size=32, max_size=32)
RNG = Prg(b"n" * 32)


@given(key=keys, plaintext=st.binary(max_size=200), associated=st.binary(max_size=50))
def test_opening_undoes_sealing(key: bytes, plaintext: bytes, associated: bytes) -> None:
    box = seal(key, plaintext, associated, RNG)
    assert len(box) == len(plaintext) + OVERHEAD_BYTES
    assert open_box(key, box, associated) == plaintext


def test_any_altered_byte_is_noticed() -> None:
    key, associated = bytes(32), b"from alice to bob"
    box = seal(key, b"two shares", associated, RNG)
    for place in range(len(box)):
        altered = box[:place] + bytes([box[place] ^ 1]) + box[place + 1 :]
        with pytest.raises(PeerError):
            open_box(key, altered, associated)
    for place in range(32):
        with pytest.raises(PeerError):
            open_box(key[:place] + b"\1" + key[place + 1 :], box, associated)


@given(cut=st.integers(0, 37))
def test_a_short_or_long_box_is_refused(cut: int) -> None:
    box = seal(bytes(32), b"two shares", b"", RNG)
    assert len(box) == 38
    for wrong in (box[:cut], box + bytes(cut + 1)):
        with pytest.raises(PeerError):
            open_box(bytes(32), wrong, b"")


@given(one=st.binary(max_size=20), other=st.binary(max_size=20))
def test_a_box_for_one_purpose_does_not_open_for_another(one: bytes, other: bytes) -> None:
    box = seal(bytes(32), b"share", one, RNG)
    if one != other:
        with pytest.raises(PeerError):
            open_box(bytes(32), box, other)


def test_the_culprit_is_named_and_the_secret_is_not() -> None:
    with pytest.raises(PeerError) as caught:
        open_box(b"k" * 32, bytes(40), b"", culprit="mallory")
    assert caught.value.culprits == ("mallory",)
    assert "k" * 8 not in str(caught.value)
    with pytest.raises(PeerError) as caught:
        open_box(b"k" * 32, bytes(40), b"")
    assert caught.value.culprits == ()


def test_two_seals_of_one_text_differ() -> None:
    assert seal(bytes(32), b"text", b"", RNG) != seal(bytes(32), b"text", b"", RNG)


def test_a_key_of_another_size_is_the_callers_mistake() -> None:
    for size in (0, 16, 31, 33):
        with pytest.raises(UsageError):
            seal(bytes(size), b"text", b"", lambda count: bytes(count))
        with pytest.raises(UsageError):
            open_box(bytes(size), bytes(40), b"")


@pytest.mark.parametrize("length", [0, 1, 1 << 18, (1 << 18) + 1, 600_000])
def test_a_long_text_sealed_in_pieces_is_one_box(length: int) -> None:
    """The same as that of the one-shot interface."""
    key, text = RNG(32), RNG(length)
    box = b"".join(bytes(piece) for piece in sealed_once(key, text))
    assert box == AESGCM(key).encrypt(bytes(12), text, None)
    assert opened_once(key, box) == text


@pytest.mark.parametrize("length", [0, 40])
def test_a_long_box_that_was_altered_does_not_open(length: int) -> None:
    box = b"".join(bytes(piece) for piece in sealed_once(bytes(32), bytes(length)))
    altered = [box[:place] + bytes([box[place] ^ 1]) + box[place + 1 :] for place in range(len(box))]
    for wrong in (*altered, *(box[:cut] for cut in range(len(box))), box + b"\0"):
        with pytest.raises(PeerError):
            opened_once(bytes(32), wrong)
    with pytest.raises(PeerError):
        opened_once(b"\1" * 32, box)
    for size in (16, 31, 33):
        with pytest.raises(UsageError):
            opened_once(bytes(size), box)
        with pytest.raises(UsageError):
            next(sealed_once(bytes(size), b"text"))
