"""The two operations that a round is full of: checking an Ed25519 signature, agreeing on a secret with X25519.

``cryptography`` (OpenSSL) does both. Where PyNaCl is installed (extra ``[fast]``), libsodium does them: it checks a
signature in half the time, and it agrees on a secret without holding the interpreter lock, so that threads can.

All parties must accept the same signatures, or whoever signs could split a round. RFC 8032 leaves that open: it lets a
verifier multiply by the cofactor or not (section 5.1.7), and libraries differ besides in which points they take
(Chalkias, Garillot, Nikolaenko 2020, "Taming the many EdDSAs"). Here one rule holds, which neither library decides. A
signature (R, S) under A of a message M is good if and only if

    A and R are points of the curve, written with y below p, and not of order 1, 2, 4 or 8;
    S < L;
    S B - k A, k = SHA-512(R, A, M) modulo L, is R: written in the same 32 bytes, without the cofactor.

OpenSSL takes small orders, libsodium does not, and newer libsodium than PyNaCl 1.6 brings takes the cofactor. So small
orders are refused here, and libsodium is used only if it decides some signatures that tell such rules apart as it
should (``_VERDICTS``). What two parties agree on is one thing by RFC 7748 (sections 5 and 6.1), but libraries have
handed out zeros for points of low order, or refused points that are not reduced. So libsodium must also give what
OpenSSL gives for some such points (``_PEERS``).

``tests/secagg/crypto/test_curve25519.py`` compares both libraries and the rule.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from secagg.extras import installed

FIELD = 2**255 - 19
_ORDER = 2**252 + 27742317777372353535851937790883648493
_ORDER_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
SMALL_ORDER = frozenset({0, 1, FIELD - 1, _ORDER_8, FIELD - _ORDER_8})
"""The y-coordinates of the eight points of order 1, 2, 4 and 8 (RFC 8032, section 5.1); a test computes them."""


def unusable(point: bytes) -> bool:
    """Whether this is no way to write a point of Ed25519: y is not reduced, or is that of a point of small order.

    >>> unusable(bytes(32)), unusable(bytes([3]) + bytes(31))
    (True, False)
    """
    y = int.from_bytes(point, "little") % (1 << 255)
    return y >= FIELD or y in SMALL_ORDER


def signed(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether this is a good signature of the message under this key, by the rule at the top.

    >>> from secagg.crypto.keys import SigningKey
    >>> key = SigningKey(bytes(32))
    >>> signature = key.sign(b"label")
    >>> signed(key.public, signature, bytes([0] * 7 + [5]) + b"label"), signed(key.public, signature, b"label")
    (True, False)
    """
    # PyNaCl reads 32 bytes wherever the key begins, and takes the first 64 of signature and message for a signature.
    if len(public) != 32 or len(signature) != 64:
        return False
    if unusable(public) or unusable(signature[:32]):
        return False
    sodium = _sodium()
    if sodium is None:
        return _signed_by_openssl(public, signature, message)
    return _signed_by_sodium(sodium, public, signature, message)


def _signed_by_openssl(public: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _signed_by_sodium(sodium: Any, public: bytes, signature: bytes, message: bytes) -> bool:
    from nacl.exceptions import BadSignatureError

    try:
        sodium.crypto_sign_open(signature + message, public)
    except BadSignatureError:
        return False
    return True


def agreed(key: X25519PrivateKey, peer: bytes) -> bytes | None:
    """The secret that X25519 (RFC 7748, section 6.1) gives for a public key; None for a key of low order, or none.

    >>> key = X25519PrivateKey.from_private_bytes(bytes(32))
    >>> agreed(key, bytes([9]) + bytes(31)) == agreed(key, bytes([9]) + bytes(30) + bytes([128]))
    True
    >>> agreed(key, bytes(32)) is None
    True
    """
    if len(peer) != 32:
        return None
    sodium = _sodium()
    return _agreed_by_openssl(key, peer) if sodium is None else _agreed_by_sodium(sodium, key, peer)


def _agreed_by_openssl(key: X25519PrivateKey, peer: bytes) -> bytes | None:
    try:
        return key.exchange(X25519PublicKey.from_public_bytes(peer))
    except ValueError:
        return None


def _agreed_by_sodium(sodium: Any, key: X25519PrivateKey, peer: bytes) -> bytes | None:
    from nacl.exceptions import CryptoError

    try:
        shared: bytes = sodium.crypto_scalarmult(key.private_bytes_raw(), peer)
    except CryptoError:
        return None
    return shared


@cache
def _sodium() -> Any:
    """PyNaCl's bindings, if they are installed and obey the rule; or None."""
    if not installed("nacl"):
        return None
    from nacl import bindings

    return bindings if _obeys(bindings) else None


def _obeys(sodium: Any) -> bool:
    """Whether this libsodium decides as the rule does where rules differ, and agrees on what others agree on."""
    for public, signature, message, verdict in _VERDICTS:
        if _signed_by_sodium(sodium, bytes.fromhex(public), bytes.fromhex(signature), message) != verdict:
            return False
    key = X25519PrivateKey.from_private_bytes(bytes(range(32)))
    return all(_agreed_by_sodium(sodium, key, peer) == _agreed_by_openssl(key, peer) for peer in _PEERS)


_PLAIN = "ca74b8352ba12fb89ad41ef3d9b76058acf6392ea86e173eeece10f80ae11bd7"
_MIXED = "373b6e0e3be41fe521a785688b6a87228e4a222276d660d11061cfab606a5afe"
_R = "4d8b9f3fe294a82feebb842c287e80fd9bd339d432b6d32cf388def44e5c65b2"
_R_MIXED = "3963c75558b34a312036da9daeee7cf34d3e860df12034ac46e9c821563aafb4"
_S = "bd9b58b5e490b80620043c25d48a7ac6251dc74dea8eb140e0ca3a2536357209"
_S_AGAIN = (int.from_bytes(bytes.fromhex(_S), "little") + _ORDER).to_bytes(32, "little").hex()

_VERDICTS = (
    (_PLAIN, _R + _S, b"0", True),
    (_PLAIN, _R + _S_AGAIN, b"0", False),
    (_PLAIN, _R_MIXED + "cb58f0b25e107f2add3962465ba53b5243807ead80628afb0cb13ee4d9309407", b"0", False),
    (_MIXED, _R + "6bb1444d078266a0d31f5314f193d5263524e1588b5dced1583815881892070b", b"22", True),
    (_MIXED, _R + "10a9e17c5addbe77dd1a677ae8c76885f412d128ac569245afe97c82de45fd01", b"10", False),
    (_MIXED, _R_MIXED + "e8e0a9d4cae27ff84470c92c0ae7f07603c594c3c6d086b9f1d5e58e2255aa07", b"2", True),
)
"""Signatures that tell rules apart. A mixed point is one of order L plus one of order 8. With the cofactor all six but
the second would be good; with keys of order L only, the first; and with k not reduced modulo L, the fifth would be and
the fourth and the sixth would not. A test computes them."""

_PEERS = tuple([u.to_bytes(32, "little") for u in (9, 9 + 2**255, FIELD + 9, 2, 0, 1, FIELD - 1, FIELD, FIELD + 1)])
"""A point of the curve written in three ways, one of the twist, and points of low order."""
