"""Key agreement, signatures and key derivation: a thin layer over libraries (``curve25519``) that is hard to misuse.

Every derivation and signature takes a label from ``labels`` and its context as separate parts; the parts are
length-prefixed, so no two lists of parts give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from secagg.crypto import curve25519
from secagg.crypto.curve25519 import FIELD
from secagg.errors import PeerError, UsageError

KEY_BYTES = 32
SIGNATURE_BYTES = 64

_ORDER_8 = (
    0x00B8495F16056286FDB1329CEB8D09DA6AC49FF1FAE35616AEB8413B7C7AEBE0,
    0x57119FD0DD4E22D8868E1C58C45C44045BEF839C55B1D0B1248C50A3BC959C5F,
)
_LOW_ORDER = frozenset({0, 1, *_ORDER_8, FIELD - 1, FIELD, FIELD + 1})
"""The u-coordinates of order 1, 2, 4 and 8 below 2^255 (RFC 7748, section 6.1); a test tries each against X25519."""

_EDWARDS_D = -121665 * pow(121666, -1, FIELD) % FIELD


@dataclass(frozen=True, slots=True)
class Known:
    """What one of the parties has computed, and another one need not (``verifying_once``)."""

    signatures: set[tuple[bytes, bytes, bytes]] = field(default_factory=set)
    """keys, signatures and messages of signatures that have been verified"""
    agreements: dict[tuple[bytes, bytes], bytes] = field(default_factory=dict, repr=False)
    """two public keys, and the secret that one of their owners has computed: until the other one takes it"""


_known: ContextVar[Known | None] = ContextVar("known", default=None)


def transcript(label: bytes, *parts: bytes) -> bytes:
    """The unambiguous concatenation that everything hashed or signed goes through.

    >>> transcript(b"x", b"ab", b"c") == transcript(b"x", b"a", b"bc")
    False
    """
    return b"".join([len(part).to_bytes(8, "big") + part for part in (label, *parts)])


def digest(label: bytes, *parts: bytes | memoryview) -> bytes:
    """The SHA-256 hash of a label and parts, the same as that of their ``transcript``."""
    hasher = sha256()
    for part in (label, *parts):  # streamed, so that a large vector is not copied
        hasher.update(len(part).to_bytes(8, "big"))
        hasher.update(part)
    return hasher.digest()


def derive(secret: bytes, label: bytes, *context: bytes) -> bytes:
    """A 32-byte key from a secret, for the purpose that label and context name (HKDF-SHA256)."""
    return hkdf(secret, salt=b"", info=transcript(label, *context), length=KEY_BYTES)


def hkdf(secret: bytes, *, salt: bytes, info: bytes, length: int) -> bytes:
    """HKDF of RFC 5869, with SHA-256."""
    if not 0 < length <= 255 * 32:
        raise UsageError(f"HKDF gives 1 to 8160 bytes, not {length}")
    return HKDF(algorithm=hashes.SHA256(), length=length, salt=salt, info=info).derive(secret)


class AgreementKey:
    """An X25519 private key; ``public`` goes on the wire, ``agree`` gives a shared secret to be put into ``derive``."""

    __slots__ = ("_key", "public", "secret")

    def __init__(self, secret: bytes) -> None:
        if len(secret) != KEY_BYTES:
            raise UsageError("an X25519 key has 32 bytes")
        self.secret = secret
        self._key = X25519PrivateKey.from_private_bytes(secret)
        self.public = self._key.public_key().public_bytes_raw()

    def agree(self, peer: bytes, *, culprit: str = "") -> bytes:
        """The shared secret; a public key of low order is refused."""
        known, pair = _known.get(), (min(self.public, peer), max(self.public, peer))
        if known is not None and (found := known.agreements.pop(pair, None)) is not None:
            return found
        shared = curve25519.agreed(self._key, peer)
        if shared is None:
            raise PeerError("unusable X25519 public key", culprits=[culprit] if culprit else [])
        if known is not None:
            known.agreements[pair] = shared
        return shared

    def __repr__(self) -> str:
        return "AgreementKey(<redacted>)"


def check_agreement_key(public: bytes, *, culprit: str = "") -> None:
    """Raise ``PeerError`` for a point of low order, with which every agreement would fail."""
    if int.from_bytes(public, "little") % (1 << 255) in _LOW_ORDER:
        raise PeerError("unusable X25519 public key", culprits=[culprit] if culprit else [])


class SigningKey:
    """An Ed25519 private key.

    >>> key = SigningKey(bytes(32))
    >>> verify(key.public, key.sign(b"label", b"text"), b"label", b"text", culprit="alice")
    >>> verify(key.public, key.sign(b"label", b"text"), b"label", b"other", culprit="alice")
    Traceback (most recent call last):
    secagg.errors.PeerError: bad signature [alice]
    """

    __slots__ = ("_key", "public", "secret")

    def __init__(self, secret: bytes) -> None:
        if len(secret) != KEY_BYTES:
            raise UsageError("an Ed25519 key has 32 bytes")
        self.secret = secret
        self._key = Ed25519PrivateKey.from_private_bytes(secret)
        self.public = self._key.public_key().public_bytes_raw()

    def sign(self, label: bytes, *parts: bytes) -> bytes:
        return self.sign_raw(transcript(label, *parts))

    def sign_raw(self, message: bytes) -> bytes:
        """For formats of others, whose messages are no transcripts, and must not be the beginning of one."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        return f"SigningKey(public={self.public.hex()})"


def check_signing_key(public: bytes, *, culprit: str = "") -> None:
    """Raise ``PeerError`` for a point of small order, under which anybody can sign, or one that is not reduced."""
    if curve25519.unusable(public):
        raise PeerError("unusable Ed25519 public key", culprits=[culprit] if culprit else [])


def check_on_curve(public: bytes, *, culprit: str = "") -> None:
    """Raise ``PeerError`` for bytes that no private key belongs to: nobody can ever sign with them."""
    if not _on_curve(public):
        raise PeerError("not an Ed25519 public key", culprits=[culprit] if culprit else [])


@lru_cache(1 << 14)  # it takes longer than verifying a signature, and rosters are read again and again
def _on_curve(public: bytes) -> bool:
    """Whether a point with this y exists: x^2 = (y^2 - 1) / (d y^2 + 1) must be a square."""
    y_squared = (int.from_bytes(public, "little") % (1 << 255)) ** 2
    x_squared = (y_squared - 1) * (_EDWARDS_D * y_squared + 1)  # times the square of the denominator
    return pow(x_squared, (FIELD - 1) // 2, FIELD) != FIELD - 1


def verify(public: bytes, signature: bytes, label: bytes, *parts: bytes, culprit: str = "") -> None:
    """Raise ``PeerError`` naming the culprit unless ``public`` signed exactly these parts under this label."""
    verify_raw(public, signature, transcript(label, *parts), culprit=culprit)


def verify_raw(public: bytes, signature: bytes, message: bytes, *, culprit: str = "") -> None:
    """Raise ``PeerError`` naming the culprit unless ``public`` signed this message."""
    known = _known.get()
    if known is not None and (public, signature, message) in known.signatures:
        return
    if not curve25519.signed(public, signature, message):
        check_signing_key(public, culprit=culprit)
        raise PeerError("bad signature", culprits=[culprit] if culprit else [])
    if known is not None:
        known.signatures.add((public, signature, message))


@contextmanager
def verifying_once(known: Known | None = None) -> Iterator[None]:
    """Inside this context, a good signature is verified once, and of two parties that agree one computes it.

    It is for a process in which all the parties live.

    ``known`` keeps what is known, to be handed in again later.

    >>> key = SigningKey(bytes(32))
    >>> with verifying_once():
    ...     for party in range(1000):
    ...         verify(key.public, key.sign(b"label", b"text"), b"label", b"text")
    """
    token = _known.set(Known() if known is None else known)
    try:
        yield
    finally:
        _known.reset(token)
