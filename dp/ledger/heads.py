"""The signed head of a ledger: what its owner says to everybody of how many entries there are, and of which.

It is signed as a checkpoint of a transparency log (C2SP, tlog-checkpoint): a note of three lines, which other programs
know how to read and to cosign. What a ledger is called there is the root of the tree over its first entry alone, which
has its budget, its guarantee and its owner's key.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from hashlib import sha256

from dp.ledger.proofs import HASH_BYTES, LARGEST
from secagg.codec import Codec, fixed, struct, u64
from secagg.crypto import labels
from secagg.crypto.keys import KEY_BYTES, SIGNATURE_BYTES, verify_raw
from secagg.errors import UsageError


@dataclass(frozen=True, slots=True)
class SignedHead:
    """``root`` is that of the tree (``dp.ledger.proofs``) over the first ``size`` entries of a ledger."""

    owner: bytes
    """The Ed25519 key that has signed it."""
    ledger: bytes
    """Which ledger: the root over its first entry alone."""
    size: int
    root: bytes
    signature: bytes

    def __post_init__(self) -> None:
        lengths = len(self.owner), len(self.ledger), len(self.root), len(self.signature)
        if lengths != (KEY_BYTES, HASH_BYTES, HASH_BYTES, SIGNATURE_BYTES):
            raise UsageError("a head has a key, two hashes and a signature, of 32, 32, 32 and 64 bytes")
        if not 1 <= self.size <= LARGEST:
            raise UsageError("a head is of 1 to 2^63 - 1 entries")
        if self.size == 1 and self.root != self.ledger:
            raise UsageError("the head of a ledger's first entry is that of another ledger")

    def check(self, culprit: str = "") -> None:
        """Raise ``PeerError``, which names the culprit, unless the owner has signed it."""
        verify_raw(self.owner, self.signature, note_text(self.ledger, self.size, self.root), culprit=culprit)

    def note(self) -> str:
        """The head as a signed note, of which cosignatures are further lines."""
        name = origin(self.ledger)
        return f"{note_text(self.ledger, self.size, self.root).decode()}\n{line(name, 1, self.owner, self.signature)}"


HEAD: Codec[SignedHead] = struct(
    SignedHead,
    owner=fixed(KEY_BYTES),
    ledger=fixed(HASH_BYTES),
    size=u64,
    root=fixed(HASH_BYTES),
    signature=fixed(SIGNATURE_BYTES),
)


def origin(ledger: bytes) -> str:
    """What a ledger is called in a note."""
    return f"{labels.LEDGER_HEAD.decode()}/{ledger.hex()}"


def note_text(ledger: bytes, size: int, root: bytes) -> bytes:
    """What the owner signs."""
    return f"{origin(ledger)}\n{size}\n{b64encode(root).decode()}\n".encode()


def cosigned_text(head: SignedHead, when: int) -> bytes:
    """What a witness signs who has verified the head at a time, in seconds since 1970 (C2SP, tlog-cosignature)."""
    return f"cosignature/v1\ntime {when}\n".encode() + note_text(head.ledger, head.size, head.root)


def line(name: str, kind: int, key: bytes, signature: bytes) -> str:
    """A signature as the line of a note (C2SP, signed-note): by an Ed25519 key of this name, of a ``kind``."""
    key_id = sha256(f"{name}\n".encode() + bytes([kind]) + key).digest()[:4]
    return f"— {name} {b64encode(key_id + signature).decode()}\n"
