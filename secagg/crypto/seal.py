"""Authenticated encryption (ChaCha20-Poly1305) for one receiver, bound to associated data.

A box is nonce || ciphertext || tag. The nonce is random; every key here is derived for one sender, one receiver and
one round and seals one message, so 96 bits are ample even if a machine is cloned in between.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from secagg.crypto.keys import KEY_BYTES
from secagg.crypto.prg import Rng
from secagg.errors import PeerError, UsageError

_NONCE_BYTES, _TAG_BYTES = 12, 16
OVERHEAD_BYTES = _NONCE_BYTES + _TAG_BYTES


def seal(key: bytes, plaintext: bytes, associated: bytes, rng: Rng) -> bytes:
    """Encrypt ``plaintext`` and bind it to ``associated``, which the receiver must present again.

    >>> box = seal(bytes(32), b"a share", b"from alice to bob", lambda count: bytes(count))
    >>> open_box(bytes(32), box, b"from alice to bob", culprit="alice")
    b'a share'
    >>> open_box(bytes(32), box, b"from bob to alice", culprit="alice")
    Traceback (most recent call last):
    secagg.errors.PeerError: a sealed message does not open [alice]
    """
    nonce = rng(_NONCE_BYTES)
    return nonce + _cipher(key).encrypt(nonce, plaintext, associated)


def open_box(key: bytes, box: bytes, associated: bytes, *, culprit: str = "") -> bytes:
    """Decrypt, or raise ``PeerError`` naming the culprit if key, box or associated data are not the sealed ones."""
    try:
        return _cipher(key).decrypt(box[:_NONCE_BYTES], box[_NONCE_BYTES:], associated)
    except (InvalidTag, ValueError):
        raise PeerError("a sealed message does not open", culprits=[culprit] if culprit else []) from None


def _cipher(key: bytes) -> ChaCha20Poly1305:
    if len(key) != KEY_BYTES:
        raise UsageError(f"a sealing key has {KEY_BYTES} bytes")
    return ChaCha20Poly1305(key)
