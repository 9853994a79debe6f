"""The messages of a CKKS round, in the order in which they are sent.

An advert names its client by its number in the roster; from then on clients are positions in the cohort (U1). What
clients send from KEY on is sealed to a key of the server's: whoever holds the secret key could open an upload that it
saw pass by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from protocols.ckks.layout import MAX_CLIENTS, SLOTS
from protocols.roster import Number
from protocols.rounds.cohort import Position
from protocols.rounds.survivors import SIGNATURE, ConsistencySignature, SignedBy, signatures
from secagg.codec import Codec, blob, fixed, many, struct, u32, view
from secagg.crypto.keys import KEY_BYTES, SIGNATURE_BYTES
from secagg.crypto.merkle import HASH_BYTES, NODE, Node
from secagg.crypto.seal import OVERHEAD_BYTES
from secagg.encoding import MAX_LENGTH

BOX_BYTES = KEY_BYTES + OVERHEAD_BYTES
MAX_KEY = 1 << 18
MAX_MADE = 1 << 20
MAX_CIPHERTEXT = 1 << 17
MAX_CHUNKS = 8 * MAX_LENGTH // SLOTS


@dataclass(frozen=True, slots=True)
class Advert:
    """1, client to server: a fresh key to be reached under, signed with the plan."""

    client: Number
    seal_key: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Introduced:
    position: Position
    advert: Advert


@dataclass(frozen=True, slots=True)
class Introduction:
    """1, server to client: its own key, the cohort's root, your place in it, the adverts of whom you deal with."""

    server_key: bytes
    root: bytes
    size: int
    position: Position
    others: tuple[Introduced, ...]
    proof: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class KeyHeader:
    """Which key a maker offers, and under which seal its secret half is: signed."""

    maker: Position
    public_hash: bytes
    sealed_hash: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class MadeKey:
    """``sealed`` holds the secret half under a key of its own, ``boxes`` that key for each holder, in their order."""

    header: KeyHeader
    public: bytes
    sealed: bytes
    boxes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Ready:
    """2, client to server: from a maker its ``MadeKey``, sealed; from the others nothing."""

    made: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeyShown:
    """2, server to client: the key of this round; its secret half, sealed, to holders only (else empty)."""

    header: KeyHeader
    public: bytes
    sealed: bytes
    box: bytes


@dataclass(frozen=True, slots=True)
class Encrypted:
    """The encrypted vector; key and ciphertexts are what the signature is on."""

    signature: bytes
    chunks: tuple[bytes | memoryview, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Upload:
    """3, client to server: its ``Encrypted`` vector, sealed."""

    encrypted: bytes | memoryview = field(repr=False)


@dataclass(frozen=True, slots=True)
class Survivors:
    """3, server to client: who is in the sum."""

    survivors: bytes


@dataclass(frozen=True, slots=True)
class Aggregate:
    """4, server to client: signatures on the survivors, leaves and proof of the signers but yourself.

    Holders get the encrypted sum, too.
    """

    signatures: tuple[SignedBy, ...]
    others: tuple[Node, ...]
    proof: tuple[Node, ...]
    chunks: tuple[bytes | memoryview, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """5, client to server: from a holder the sum (or only a proof of having it), sealed; the excess noise's seed."""

    total: bytes = field(repr=False)
    excess: bytes


ADVERT = struct(Advert, client=u32, seal_key=fixed(KEY_BYTES), signature=fixed(SIGNATURE_BYTES))
_NODES = many(NODE, MAX_CLIENTS)
_INTRODUCTION = struct(
    Introduction,
    server_key=fixed(KEY_BYTES),
    root=fixed(HASH_BYTES),
    size=u32,
    position=u32,
    others=many(struct(Introduced, position=u32, advert=ADVERT), MAX_CLIENTS),
    proof=_NODES,
)
_HEADER = struct(
    KeyHeader,
    maker=u32,
    public_hash=fixed(HASH_BYTES),
    sealed_hash=fixed(HASH_BYTES),
    signature=fixed(SIGNATURE_BYTES),
)
MADE = struct(
    MadeKey,
    header=_HEADER,
    public=blob(MAX_KEY),
    sealed=blob(MAX_KEY),
    boxes=many(fixed(BOX_BYTES), MAX_CLIENTS),
)
_CHUNKS = many(view(MAX_CIPHERTEXT), MAX_CHUNKS)
ENCRYPTED = struct(Encrypted, signature=fixed(SIGNATURE_BYTES), chunks=_CHUNKS)

TYPES: Mapping[int, tuple[type, Codec[Any]]] = {
    1: (Advert, ADVERT),
    2: (Introduction, _INTRODUCTION),
    3: (Ready, struct(Ready, made=blob(MAX_MADE))),
    4: (KeyShown, struct(KeyShown, header=_HEADER, public=blob(MAX_KEY), sealed=blob(MAX_KEY), box=blob(BOX_BYTES))),
    5: (Upload, struct(Upload, encrypted=view(MAX_CHUNKS * MAX_CIPHERTEXT))),
    6: (Survivors, struct(Survivors, survivors=blob((MAX_CLIENTS + 7) // 8))),
    7: (ConsistencySignature, SIGNATURE),
    8: (
        Aggregate,
        struct(
            Aggregate,
            signatures=signatures(MAX_CLIENTS),
            others=_NODES,
            proof=_NODES,
            chunks=_CHUNKS,
        ),
    ),
    9: (Answer, struct(Answer, total=blob(8 * MAX_LENGTH), excess=blob(KEY_BYTES))),
}
