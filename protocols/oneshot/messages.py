"""The messages of a one-shot round, in the order in which they are sent. Clients are numbers in the roster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from protocols.oneshot.parameters import MAX_MEMBERS
from protocols.roster import Number
from protocols.rounds.survivors import SignedBy, signatures
from secagg.assumptions import MAX_CLIENTS
from secagg.codec import Codec, blob, fixed, many, optional, struct, u32, view
from secagg.crypto.keys import KEY_BYTES, SIGNATURE_BYTES
from secagg.crypto.merkle import HASH_BYTES
from secagg.encoding import MAX_LENGTH

MAX_BOX = 1 << 17
MAX_VECTOR = 64 * MAX_LENGTH


@dataclass(frozen=True, slots=True)
class Member:
    """A member of the committee: a fresh key to seal shares to, signed with the plan."""

    client: Number
    key: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Join:
    """1, client to server: who wants to take part; from those who are drawn for the committee, their key."""

    member: Member | None


@dataclass(frozen=True, slots=True)
class Members:
    """1, server to client: the members who came, in the order of the roster."""

    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Header:
    """Whose vector and shares these are: signed, and the key that the shares are sealed with."""

    client: Number
    key: bytes
    vector_hash: bytes
    boxes_hash: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Upload:
    """2, client to server: the masked vector; shares of its secret, sealed, one box for each member in their order."""

    header: Header
    vector: bytes | memoryview = field(repr=False)
    boxes: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Contribution:
    header: Header
    box: bytes


@dataclass(frozen=True, slots=True)
class Delivery:
    """2, server to member: everybody whose vector is in the sum, and its share of each secret."""

    contributions: tuple[Contribution, ...]


@dataclass(frozen=True, slots=True)
class Vote:
    """3, member to server: a signature on the set of survivors; or whose shares do not open, and no signature."""

    signature: bytes
    unopened: tuple[Number, ...]


@dataclass(frozen=True, slots=True)
class ConsistencySignatures:
    """3, server to survivors and members: who is in the sum and with what, and signatures of a quorum of members."""

    contributed: bytes
    survivors: bytes
    signatures: tuple[SignedBy, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """4, to server: from a member its share of the sum of the secrets; from a survivor the excess noise's seed."""

    share: bytes = field(repr=False)
    excess: bytes = field(repr=False)


MEMBER = struct(Member, client=u32, key=fixed(KEY_BYTES), signature=fixed(SIGNATURE_BYTES))
HEADER = struct(
    Header,
    client=u32,
    key=fixed(KEY_BYTES),
    vector_hash=fixed(HASH_BYTES),
    boxes_hash=fixed(HASH_BYTES),
    signature=fixed(SIGNATURE_BYTES),
)

TYPES: Mapping[int, tuple[type, Codec[Any]]] = {
    1: (Join, struct(Join, member=optional(MEMBER))),
    2: (Members, struct(Members, members=many(MEMBER, MAX_MEMBERS))),
    3: (Upload, struct(Upload, header=HEADER, vector=view(MAX_VECTOR), boxes=blob(MAX_MEMBERS * MAX_BOX))),
    4: (
        Delivery,
        struct(
            Delivery,
            contributions=many(struct(Contribution, header=HEADER, box=blob(MAX_BOX)), MAX_CLIENTS),
        ),
    ),
    5: (Vote, struct(Vote, signature=blob(SIGNATURE_BYTES), unopened=many(u32, MAX_CLIENTS))),
    6: (
        ConsistencySignatures,
        struct(
            ConsistencySignatures,
            contributed=fixed(HASH_BYTES),
            survivors=blob(MAX_CLIENTS // 8),
            signatures=signatures(MAX_MEMBERS),
        ),
    ),
    7: (Answer, struct(Answer, share=blob(MAX_BOX), excess=blob(KEY_BYTES))),
}
