"""Project Wycheproof's vectors (C2SP/wycheproof, Apache-2.0) through our own wrappers.

The files lie outside the repository: in the folder that SECAGG_WYCHEPROOF names, or in ../shared/vectors/wycheproof.
Where there is none, these tests are skipped and say so. Each test counts what it ran, so an empty or cut file fails.

What is run: X25519 through ``AgreementKey.agree``, Ed25519 through ``verify_raw``, ChaCha20-Poly1305 through ``seal``
and ``open_box``, HKDF-SHA256 through ``hkdf``. Not run: aes_gcm_test.json, as ``sealed_once`` has one nonce.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from secagg.crypto.keys import AgreementKey, check_agreement_key, hkdf, verify_raw
from secagg.crypto.seal import open_box, seal
from secagg.errors import PeerError, UsageError

FOLDER = Path(
    os.environ.get("SECAGG_WYCHEPROOF") or Path(__file__).resolve().parents[2].parent / "shared/vectors/wycheproof"
)

pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason=f"NO WYCHEPROOF VECTORS RUN: {FOLDER} is missing; name a folder in SECAGG_WYCHEPROOF"
)


def vectors(file: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(group, test), after a check that all that the file announces is there."""
    content = json.loads((FOLDER / file).read_text())
    tests = [(group, test) for group in content["testGroups"] for test in group["tests"]]
    assert len(tests) == content["numberOfTests"]
    yield from tests


def raw(test: dict[str, Any], *names: str) -> list[bytes]:
    return [bytes.fromhex(test[name]) for name in names]


def test_x25519() -> None:
    """RFC 7748 computes with points on the twist and with those not reduced modulo p, and so do we; it lets a protocol
    refuse those of low order, which give an all-zero secret, and we do. Wycheproof calls all of these "acceptable".
    """
    computed, refused, twisted, unreduced = 0, 0, 0, 0
    for _, test in vectors("x25519_test.json"):
        public, private, shared = raw(test, "public", "private", "shared")
        flags = set(test["flags"])
        if "ZeroSharedSecret" in flags or shared == bytes(32):
            assert test["result"] == "acceptable"
            with pytest.raises(PeerError):
                AgreementKey(private).agree(public)
            with pytest.raises(PeerError):
                check_agreement_key(public)
            refused += 1
        else:
            assert test["result"] == "valid" or flags & {"Twist", "NonCanonicalPublic", "SmallPublicKey"}
            assert AgreementKey(private).agree(public) == shared, test["tcId"]
            check_agreement_key(public)
            computed += 1
            twisted += "Twist" in flags
            unreduced += "NonCanonicalPublic" in flags
    assert computed >= 480
    assert refused >= 30
    assert twisted >= 200
    assert unreduced >= 8


def test_ed25519() -> None:
    accepted, refused = 0, 0
    for group, test in vectors("ed25519_test.json"):
        public = bytes.fromhex(group["publicKey"]["pk"])
        message, signature = raw(test, "msg", "sig")
        if test["result"] == "valid":
            verify_raw(public, signature, message)
            accepted += 1
        else:
            assert test["result"] == "invalid"
            with pytest.raises(PeerError) as caught:
                verify_raw(public, signature, message, culprit="signer")
            assert caught.value.culprits == ("signer",)
            refused += 1
    assert accepted >= 85
    assert refused >= 60


def test_chacha20_poly1305() -> None:
    """A box is nonce || ciphertext || tag. Nonces that are not 96 bits cannot be told from text, so never open."""
    opened, refused, other_nonces = 0, 0, 0
    for group, test in vectors("chacha20_poly1305_test.json"):
        key, nonce, associated, message, ciphertext, tag = raw(test, "key", "iv", "aad", "msg", "ct", "tag")
        box = nonce + ciphertext + tag
        if test["result"] == "valid":
            assert group["ivSize"] == 96
            assert open_box(key, box, associated) == message
            assert seal(key, message, associated, lambda count, nonce=nonce: nonce[:count]) == box
            opened += 1
        else:
            assert test["result"] == "invalid"
            with pytest.raises(PeerError) as caught:
                open_box(key, box, associated, culprit="sealer")
            assert caught.value.culprits == ("sealer",)
            other_nonces += group["ivSize"] != 96
            refused += 1
    assert opened >= 250
    assert refused >= 65
    assert other_nonces >= 9


def test_hkdf_sha256() -> None:
    derived, refused = 0, 0
    for _, test in vectors("hkdf_sha256_test.json"):
        secret, salt, info, expected = raw(test, "ikm", "salt", "info", "okm")
        if test["result"] == "valid":
            assert hkdf(secret, salt=salt, info=info, length=test["size"]) == expected
            derived += 1
        else:
            assert test["flags"] == ["SizeTooLarge"]
            with pytest.raises(UsageError):
                hkdf(secret, salt=salt, info=info, length=test["size"])
            refused += 1
    assert derived >= 80
    assert refused >= 3
