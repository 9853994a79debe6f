"""What the child refuses, asked through ``ciphertexts``: keys of the other half, and ciphertexts of another shape."""

from __future__ import annotations

import numpy as np
import pytest

from protocols.ckks import ciphertexts
from protocols.ckks.layout import SLOTS, Layout
from secagg.errors import PeerError

ts = pytest.importorskip("tenseal", reason="NOT TESTED: ckks needs tenseal, pip install 'secagg[ckks]'")


@pytest.fixture(scope="module")
def keys() -> ciphertexts.KeyPair:
    return ciphertexts.make_keys()


def encrypted(keys: ciphertexts.KeyPair, coordinates: int) -> tuple[Layout, np.ndarray, tuple[bytes, ...]]:
    layout, values = Layout.choose(20, 3, coordinates), np.arange(coordinates) % 100
    return layout, values, ciphertexts.encrypt(layout, keys.public, values)


def test_a_secret_key_is_no_public_one(keys: ciphertexts.KeyPair) -> None:
    """Shown around by mistake, or by a maker that wants everybody to read along."""
    ciphertexts.check_public(keys.public)
    with pytest.raises(PeerError, match="not the key that was announced"):
        ciphertexts.check_public(keys.secret)


def test_a_public_key_opens_nothing(keys: ciphertexts.KeyPair) -> None:
    layout, values, chunks = encrypted(keys, 5)
    assert ciphertexts.decrypt(layout, keys.secret, chunks).tolist() == values.tolist()
    with pytest.raises(PeerError, match="not the key that was announced"):
        ciphertexts.decrypt(layout, keys.public, chunks)


@pytest.mark.parametrize("coordinates", [5, SLOTS + 5])
def test_as_many_ciphertexts_as_the_vector_takes(coordinates: int, keys: ciphertexts.KeyPair) -> None:
    layout, values, chunks = encrypted(keys, coordinates)
    for wrong in ((), chunks[:-1], (*chunks, chunks[0])):
        with pytest.raises(PeerError, match="ciphertexts"):
            ciphertexts.Adder(layout).add(wrong)
    adder = ciphertexts.Adder(layout)
    adder.add(chunks)
    assert ciphertexts.decrypt(layout, keys.secret, adder.total()).tolist() == values.tolist()


def test_as_many_slots_as_the_vector_has(keys: ciphertexts.KeyPair) -> None:
    layout, _, chunks = encrypted(keys, 5)
    for other in (4, 6):
        with pytest.raises(PeerError, match="another number of slots"):
            ciphertexts.Adder(layout).add(encrypted(keys, other)[2])
    ciphertexts.Adder(layout).add(chunks)


def test_two_ciphertexts_in_the_place_of_one(keys: ciphertexts.KeyPair) -> None:
    """As many slots in all; in the format that carries them, lists that follow each other are one."""
    layout, _, _ = encrypted(keys, 5)
    (two,), (three,) = encrypted(keys, 2)[2], encrypted(keys, 3)[2]
    with pytest.raises(PeerError, match="another number of slots"):
        ciphertexts.Adder(layout).add((two + three,))
