"""The messages of a threshold CKKS round, in the order in which they are sent.

An advert names its client by its number in the roster; from then on clients are positions in the cohort (U1).
Polynomials travel packed (``QuotientRing.unpack`` checks length and residues).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from protocols.roster import Number
from protocols.rounds.cohort import Position
from protocols.rounds.dealing import OPENED, Accusations, Complaints, Dealt, Defence, Delivery, Opened, dealing_messages
from protocols.rounds.survivors import SIGNATURE, ConsistencySignature, SignedBy, signatures
from protocols.threshold_ckks.parameters import MAX_CLIENTS
from secagg.codec import Codec, blob, fixed, many, struct, u32, view
from secagg.crypto.keys import KEY_BYTES, SIGNATURE_BYTES
from secagg.crypto.merkle import HASH_BYTES
from secagg.crypto.shamir import SHARE_BYTES
from secagg.encoding import MAX_LENGTH

SEED, SECRETS = 0, 1
"""Each client deals one secret: the seed of its part of the key."""

MAX_BITMAP = MAX_CLIENTS // 8
MAX_KEY = 1 << 20
MAX_VECTOR = 64 * MAX_LENGTH + MAX_KEY


@dataclass(frozen=True, slots=True)
class Advert:
    """1, client to server: a fresh key to seal under and a commitment to its part of the joint key, signed."""

    client: Number
    seal_key: bytes
    commitment: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Introduction:
    """1, server to client: everybody's advert, in the order of the roster."""

    adverts: tuple[Advert, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """2, client to server: its part of the joint key, and a share of its seed in a box for each other client."""

    key: bytes = field(repr=False)
    dealt: Dealt = field(repr=False)


# 2 to 4, the exchange about the shares: see protocols.rounds.dealing.


@dataclass(frozen=True, slots=True)
class JointKey:
    """4, server to client: whose parts are in the key and whose shares it is to keep, and the sum of the parts.

    ``opened`` are the keys of the boxes about which it complained, as far as their dealers are among them.
    """

    members: bytes
    key: bytes = field(repr=False)
    opened: tuple[Opened, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Upload:
    """5, client to server: the encrypted vector, signed with the joint key that it is under.

    A proof that it is well formed would stand next to the signature.
    """

    signature: bytes
    c0: bytes | memoryview = field(repr=False)
    c1: bytes | memoryview = field(repr=False)


@dataclass(frozen=True, slots=True)
class Survivors:
    """5, server to client: who is in the sum, and the digest of the one ciphertext that is to be decrypted."""

    survivors: bytes
    ciphertext: bytes


@dataclass(frozen=True, slots=True)
class Aggregate:
    """6, server to client: signatures on the survivors, and that half of the ciphertext which the key works on."""

    signatures: tuple[SignedBy, ...]
    c1: bytes | memoryview = field(repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """7, client to server: its partial decryption, flooded; the excess noise's seed."""

    partial: bytes | memoryview = field(repr=False)
    excess: bytes = field(repr=False)
    signature: bytes


@dataclass(frozen=True, slots=True)
class Missing:
    """7, server to client: whose parts of the key did not answer for this ciphertext."""

    ciphertext: bytes
    missing: bytes


@dataclass(frozen=True, slots=True)
class Agreement:
    """8, client to server: a signature on ciphertext and missing set."""

    signature: bytes


@dataclass(frozen=True, slots=True)
class Agreements:
    """8, server to client: so many of these signatures that no other set can have as many."""

    signatures: tuple[SignedBy, ...]


@dataclass(frozen=True, slots=True)
class Revealed:
    peer: Position
    share: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Recovery:
    """9, client to server: its shares of the missing clients' seeds, signed."""

    shares: tuple[Revealed, ...]
    signature: bytes


ADVERT = struct(
    Advert,
    client=u32,
    seal_key=fixed(KEY_BYTES),
    commitment=fixed(HASH_BYTES),
    signature=fixed(SIGNATURE_BYTES),
)
_EXCHANGE = dealing_messages(SECRETS)
_SIGNATURES = signatures(MAX_CLIENTS)
SHARES = many(struct(Revealed, peer=u32, share=fixed(SHARE_BYTES)), MAX_CLIENTS)

TYPES: Mapping[int, tuple[type, Codec[Any]]] = {
    1: (Advert, ADVERT),
    2: (Introduction, struct(Introduction, adverts=many(ADVERT, MAX_CLIENTS))),
    3: (Part, struct(Part, key=blob(MAX_KEY), dealt=_EXCHANGE[Dealt])),
    4: (Delivery, _EXCHANGE[Delivery]),
    5: (Complaints, _EXCHANGE[Complaints]),
    6: (Accusations, _EXCHANGE[Accusations]),
    7: (Defence, _EXCHANGE[Defence]),
    8: (JointKey, struct(JointKey, members=blob(MAX_BITMAP), key=blob(MAX_KEY), opened=OPENED)),
    9: (Upload, struct(Upload, signature=fixed(SIGNATURE_BYTES), c0=view(MAX_VECTOR), c1=view(MAX_VECTOR))),
    10: (Survivors, struct(Survivors, survivors=blob(MAX_BITMAP), ciphertext=fixed(HASH_BYTES))),
    11: (ConsistencySignature, SIGNATURE),
    12: (Aggregate, struct(Aggregate, signatures=_SIGNATURES, c1=view(MAX_VECTOR))),
    13: (Answer, struct(Answer, partial=view(MAX_VECTOR), excess=blob(KEY_BYTES), signature=fixed(SIGNATURE_BYTES))),
    14: (Missing, struct(Missing, ciphertext=fixed(HASH_BYTES), missing=blob(MAX_BITMAP))),
    15: (Agreement, struct(Agreement, signature=fixed(SIGNATURE_BYTES))),
    16: (Agreements, struct(Agreements, signatures=_SIGNATURES)),
    17: (Recovery, struct(Recovery, shares=SHARES, signature=fixed(SIGNATURE_BYTES))),
}
