"""Authenticated encryption (ChaCha20-Poly1305) for one receiver, bound to associated data.

A box is nonce || ciphertext || tag. The nonce is random; every key here is derived for one sender, one receiver and
one round and seals one message, so 96 bits are ample even if a machine is cloned in between.

What is long and kept at home is sealed piece by piece, without a second copy of it in memory: by AES-256-GCM, which is
twice as fast where masks are, under a key that was drawn for this one text. So its nonce can be zero, and whoever
destroys the key has destroyed the text.
"""

from __future__ import annotations

from collections.abc import Iterator

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from secagg.crypto.keys import KEY_BYTES
from secagg.crypto.prg import Rng
from secagg.errors import PeerError, UsageError

_NONCE_BYTES, _TAG_BYTES = 12, 16
_ONLY_NONCE = bytes(_NONCE_BYTES)
_PIECE_BYTES = 1 << 18
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


def open_box(key: bytes, box: bytes | memoryview, associated: bytes, *, culprit: str = "") -> bytes:
    """Decrypt, or raise ``PeerError`` naming the culprit if key, box or associated data are not the sealed ones."""
    try:
        return _cipher(key).decrypt(box[:_NONCE_BYTES], box[_NONCE_BYTES:], associated)
    except (InvalidTag, ValueError):
        raise PeerError("a sealed message does not open", culprits=[culprit] if culprit else []) from None


def sealed_once(key: bytes, plaintext: bytes) -> Iterator[bytes | memoryview]:
    """A long text, sealed under a key that seals nothing else, in pieces; each is to be used before the next is made.

    >>> box = b"".join(bytes(piece) for piece in sealed_once(bytes(32), b"a long text"))
    >>> opened_once(bytes(32), box), len(box)
    (b'a long text', 27)
    """
    sealing = _once(key).encryptor()
    text, room = memoryview(plaintext), memoryview(bytearray(min(len(plaintext), _PIECE_BYTES)))
    for start in range(0, len(text), _PIECE_BYTES):
        piece = text[start : start + _PIECE_BYTES]
        yield room[: sealing.update_into(piece, room)]
    sealing.finalize()
    yield sealing.tag


def opened_once(key: bytes, box: bytes) -> bytes:
    """What was sealed in pieces; ``PeerError`` if it is anything else, or not whole."""
    try:
        opening = _once(key, box[-_TAG_BYTES:]).decryptor()
        plaintext = opening.update(memoryview(box)[:-_TAG_BYTES])
        opening.finalize()
    except (InvalidTag, ValueError):
        raise PeerError("what was sealed does not open") from None
    return plaintext


def _once(key: bytes, tag: bytes | None = None) -> Cipher[modes.GCM]:
    if len(key) != KEY_BYTES:
        raise UsageError(f"a sealing key has {KEY_BYTES} bytes")
    return Cipher(algorithms.AES(key), modes.GCM(_ONLY_NONCE, tag))


def _cipher(key: bytes) -> ChaCha20Poly1305:
    if len(key) != KEY_BYTES:
        raise UsageError(f"a sealing key has {KEY_BYTES} bytes")
    return ChaCha20Poly1305(key)
