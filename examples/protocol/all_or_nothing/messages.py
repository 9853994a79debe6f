"""The messages, in the order in which they are sent. Clients are numbers in the roster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from protocols.roster import Number
from secagg.assumptions import MAX_CLIENTS
from secagg.codec import Codec, blob, fixed, many, struct, u32
from secagg.crypto.keys import KEY_BYTES, SIGNATURE_BYTES
from secagg.encoding import MAX_LENGTH


@dataclass(frozen=True, slots=True)
class Advert:
    """1, client to server: a fresh key for masks, signed with the plan."""

    client: Number
    key: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Introduction:
    """1, server to client: everybody's advert, in the order of the roster."""

    adverts: tuple[Advert, ...]


@dataclass(frozen=True, slots=True)
class Upload:
    """2, client to server: the masked vector."""

    vector: bytes = field(repr=False)


ADVERT = struct(Advert, client=u32, key=fixed(KEY_BYTES), signature=fixed(SIGNATURE_BYTES))

TYPES: Mapping[int, tuple[type, Codec[Any]]] = {
    1: (Advert, ADVERT),
    2: (Introduction, struct(Introduction, adverts=many(ADVERT, MAX_CLIENTS))),
    3: (Upload, struct(Upload, vector=blob(8 * MAX_LENGTH))),
}
