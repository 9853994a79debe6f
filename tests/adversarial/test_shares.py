"""Share indices that give secrets away, and keys of low order, below the protocol."""

from __future__ import annotations

import os

import numpy as np
import pytest

from secagg.crypto import shamir
from secagg.crypto.keys import AgreementKey, check_agreement_key
from secagg.crypto.shamir import PRIME, pack_shares, reconstruct, split, unpack_shares
from secagg.errors import DecodeError, PeerError, UsageError

SECRET = bytes(range(32))


def unchecked(holders: np.ndarray) -> np.ndarray:
    return holders.astype(np.uint64)


@pytest.mark.parametrize("index", [0, PRIME])
def test_a_holder_at_zero(index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The polynomial at zero is the secret: such a holder needs nobody else."""
    with pytest.raises(UsageError, match="a share index is zero or too large"):
        split([SECRET], 3, [1, 2, index], os.urandom)
    monkeypatch.setattr(shamir, "_abscissas", unchecked)
    share = split([SECRET], 3, [1, 2, index], os.urandom)[2]
    assert shamir._from_limbs(share.astype(np.uint64)) == [SECRET]


def test_a_holder_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two copies of one share are one share; what comes of them is not the secret, and nothing says so."""
    shares = split([SECRET], 3, [1, 2, 3], os.urandom)[[0, 1, 1], 0]
    twice = np.array([[1, 2, 2]])
    with pytest.raises(UsageError, match="a share index appears twice"):
        reconstruct(twice, shares[None])
    with pytest.raises(UsageError, match="a share index appears twice"):
        split([SECRET], 3, [1, 2, 2], os.urandom)
    monkeypatch.setattr(shamir, "_abscissas", unchecked)
    assert reconstruct(twice, shares[None]) != [SECRET]


def test_a_share_that_is_not_reduced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two encodings of one share: it could be altered without a change in what it gives."""
    share = split([SECRET], 1, [1], lambda count: bytes(count))[0]
    share[0, 0] = 5
    twin = share.copy()
    twin[0, 0] = 5 + PRIME
    with pytest.raises(DecodeError, match="not reduced"):
        unpack_shares(pack_shares(twin), 1)
    with pytest.raises(DecodeError, match="not reduced"):
        reconstruct(np.array([[1]]), twin[None])
    monkeypatch.setattr(shamir, "PRIME", 1 << 32)
    assert reconstruct(np.array([[1]]), twin[None]) == reconstruct(np.array([[1]]), share[None])


def test_fewer_than_t(monkeypatch: pytest.MonkeyPatch) -> None:
    """t - 1 shares fit every secret. If the polynomial were of too low a degree, they would give it."""
    shares = split([SECRET], 3, [1, 2, 3], os.urandom)
    assert reconstruct(np.array([[1, 2]]), shares[:2, 0][None]) != [SECRET]
    real = shamir.uniform
    monkeypatch.setattr(shamir, "uniform", lambda shape, rng: real((1, *shape[1:]), rng))
    shares = split([SECRET], 3, [1, 2, 3], os.urandom)
    assert reconstruct(np.array([[1, 2]]), shares[:2, 0][None]) == [SECRET]


LOW_ORDER = {
    "zero": 0,
    "one": 1,
    "order 8": 0x00B8495F16056286FDB1329CEB8D09DA6AC49FF1FAE35616AEB8413B7C7AEBE0,
    "order 8, too": 0x57119FD0DD4E22D8868E1C58C45C44045BEF839C55B1D0B1248C50A3BC959C5F,
    "minus one": 2**255 - 20,
    "p": 2**255 - 19,
    "p + 1": 2**255 - 18,
}


@pytest.mark.parametrize("bit", [0, 1 << 255], ids=["", "high bit set"])
@pytest.mark.parametrize("point", LOW_ORDER)
def test_keys_of_low_order(point: str, bit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the private key, all agree on zero with them. Both the check of adverts and the agreement refuse."""
    public = (LOW_ORDER[point] | bit).to_bytes(32, "little")
    with pytest.raises(PeerError, match=r"unusable X25519 public key \[mallory\]"):
        check_agreement_key(public, culprit="mallory")
    with pytest.raises(PeerError, match=r"unusable X25519 public key \[mallory\]"):
        AgreementKey(SECRET).agree(public, culprit="mallory")
    from secagg.crypto import keys

    monkeypatch.setattr(keys, "_LOW_ORDER", frozenset[int]())
    check_agreement_key(public)
