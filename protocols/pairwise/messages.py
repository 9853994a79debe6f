"""The messages of the pairwise protocols, in the order in which they are sent.

An advert names its client by its number in the roster; from then on clients are positions in the cohort (U1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from protocols.roster import Number
from protocols.rounds.cohort import Position
from protocols.rounds.dealing import OPENED, Accusations, Complaints, Dealt, Defence, Delivery, Opened, dealing_messages
from protocols.rounds.survivors import SIGNATURE, ConsistencySignature, SignedBy, signatures
from secagg.assumptions import MAX_CLIENTS
from secagg.codec import Codec, blob, fixed, many, struct, u32, view
from secagg.crypto.keys import KEY_BYTES, SIGNATURE_BYTES
from secagg.crypto.merkle import HASH_BYTES, NODE, Node
from secagg.crypto.shamir import SHARE_BYTES
from secagg.encoding import MAX_LENGTH

MASK_KEY, SELF_MASK = range(2)
"""The secrets that each client deals, in this order."""

SECRETS = 2
MAX_BITMAP = (MAX_CLIENTS + 7) // 8


@dataclass(frozen=True, slots=True)
class Advert:
    """1, client to server: fresh public keys and a commitment to the self-mask seed, signed with the plan."""

    client: Number
    mask_key: bytes
    seal_key: bytes
    commitment: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Neighbour:
    position: Position
    advert: Advert


@dataclass(frozen=True, slots=True)
class Introduction:
    """1, server to client: the cohort's root, your place in it, your neighbours, and a proof for all of you."""

    root: bytes
    size: int
    position: Position
    neighbours: tuple[Neighbour, ...]
    proof: tuple[Node, ...]


# 2 to 4, the exchange about the shares: see protocols.rounds.dealing.


@dataclass(frozen=True, slots=True)
class Verdict:
    """4, server to client: whose shares it is to keep (a bitmap over the holders of its own), and with whom it masks.

    ``opened`` are the keys of the boxes about which it complained, as far as their dealers are among them.
    """

    dealers: bytes
    opened: tuple[Opened, ...]


@dataclass(frozen=True, slots=True)
class UploadHeader:
    """Whom the vector was masked with (a bitmap over the sender's neighbours) and its hash, signed."""

    position: Position
    holders: bytes
    vector_hash: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Upload:
    """5, client to server: the masked vector."""

    header: UploadHeader
    vector: bytes | memoryview


@dataclass(frozen=True, slots=True)
class Survivors:
    """5, server to client: who is in the sum, and the signed headers of your neighbours among them."""

    survivors: bytes
    headers: tuple[UploadHeader, ...]


@dataclass(frozen=True, slots=True)
class ConsistencySignatures:
    """6, server to client: your neighbours' signatures, and as many others as you insist on.

    Of the others, in the same order, come their leaves and a proof that these are in the cohort.
    """

    signatures: tuple[SignedBy, ...]
    others: tuple[Node, ...]
    proof: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Revealed:
    peer: Position
    share: bytes


@dataclass(frozen=True, slots=True)
class Reveal:
    """7, client to server: self-mask shares of surviving neighbours, mask-key shares of dropouts.

    ``excess`` is the seed of its own removable noise beyond what the missing clients make necessary, if there is any.
    """

    self_shares: tuple[Revealed, ...]
    key_shares: tuple[Revealed, ...]
    excess: bytes


ADVERT = struct(
    Advert,
    client=u32,
    mask_key=fixed(KEY_BYTES),
    seal_key=fixed(KEY_BYTES),
    commitment=fixed(HASH_BYTES),
    signature=fixed(SIGNATURE_BYTES),
)
NEIGHBOUR = struct(Neighbour, position=u32, advert=ADVERT)
_INTRODUCTION = struct(
    Introduction,
    root=fixed(HASH_BYTES),
    size=u32,
    position=u32,
    neighbours=many(NEIGHBOUR, MAX_CLIENTS),
    proof=many(NODE, MAX_CLIENTS),
)
HEADER = struct(
    UploadHeader,
    position=u32,
    holders=blob(MAX_BITMAP),
    vector_hash=fixed(HASH_BYTES),
    signature=fixed(SIGNATURE_BYTES),
)
_NODES = many(NODE, MAX_CLIENTS)
_REVEALED = many(struct(Revealed, peer=u32, share=fixed(SHARE_BYTES)), MAX_CLIENTS)

_SIGNATURES = struct(ConsistencySignatures, signatures=signatures(MAX_CLIENTS), others=_NODES, proof=_NODES)
_VERDICT = struct(Verdict, dealers=blob(MAX_BITMAP), opened=OPENED)
_EXCHANGE = dealing_messages(SECRETS)

TYPES: Mapping[int, tuple[type, Codec[Any]]] = {
    1: (Advert, ADVERT),
    2: (Introduction, _INTRODUCTION),
    3: (Dealt, _EXCHANGE[Dealt]),
    4: (Delivery, _EXCHANGE[Delivery]),
    5: (Complaints, _EXCHANGE[Complaints]),
    6: (Accusations, _EXCHANGE[Accusations]),
    7: (Defence, _EXCHANGE[Defence]),
    8: (Verdict, _VERDICT),
    9: (Upload, struct(Upload, header=HEADER, vector=view(8 * MAX_LENGTH))),
    10: (Survivors, struct(Survivors, survivors=blob(MAX_BITMAP), headers=many(HEADER, MAX_CLIENTS))),
    11: (ConsistencySignature, SIGNATURE),
    12: (
        ConsistencySignatures,
        struct(ConsistencySignatures, signatures=signatures(MAX_CLIENTS), others=_NODES, proof=_NODES),
    ),
    13: (Reveal, struct(Reveal, self_shares=_REVEALED, key_shares=_REVEALED, excess=blob(KEY_BYTES))),
}
