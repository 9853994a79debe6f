"""Dealing shares so that who deals badly is left out before anything depends on its secrets.

A dealer u gives each holder v a ``Box``: its points (``secagg.crypto.dealing``) under a one-time pad that u and v
share, and a commitment to its share of each secret. With the boxes goes a proof that all points are of polynomials of
degree t - 1. Four messages follow, the same in every protocol that deals:

    v -> server  ``Complaints``: signed, one for each box whose points do not fit its commitments and the proof
    server -> u  ``Accusations``: the complaints about u, if there are any
    u -> server  ``Defence``: the key of each box complained about
    server -> v  whose shares hold, and the keys that were shown for v

A complaint names the hash of the box as v has it, and u opens only what it sealed itself. An honest v never complains
about the true box of an honest u. So what an honest u opens is known to the adversary already: its holder is corrupt.
And if a server altered the box on its way, its hash is another, and u opens nothing.

What is shown is the key of the pad, and no points. A dealer that could name points would choose the blinding values to
fit any share, after it has seen the challenge; under a key the box holds what it held before.

What becomes of an altered box does not depend on what is in it: a share that is shifted never fits its commitment, and
a blinding value and its response that are shifted alike always fit. So complaints tell a server nothing.

Commitments have 128 bits. A dealer can find two shares with one commitment in 2^64 steps, within the phase, and let a
corrupt holder choose between them; that is worth what sharing another secret is worth, which takes no steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from hashlib import sha256
from struct import Struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.rounds.cohort import Cohort, Position
from secagg.assumptions import MAX_CLIENTS
from secagg.codec import Codec, blob, fixed, many, struct, table, u32
from secagg.crypto import labels
from secagg.crypto.dealing import (
    BLINDS,
    ELEMENT_BYTES,
    RESPONSE_BYTES,
    Polynomials,
    consistent,
    padded,
    responses,
    unpadded,
    width,
)
from secagg.crypto.keys import KEY_BYTES, SIGNATURE_BYTES, SigningKey, digest, transcript, verify
from secagg.crypto.merkle import HASH_BYTES
from secagg.crypto.prg import Rng
from secagg.crypto.shamir import SHARE_BYTES
from secagg.errors import PeerError

COMMITMENT_BYTES = 16


@dataclass(frozen=True, slots=True)
class Box:
    """What one holder is dealt: points under a pad, and a commitment to its share of each secret."""

    points: bytes
    commitments: bytes


@dataclass(frozen=True, slots=True)
class Dealt:
    """Client to server: a box for each of the others that hold shares of its secrets, in their order, and the proof."""

    boxes: Sequence[Box]
    proof: bytes


@dataclass(frozen=True, slots=True)
class Delivered:
    """A box on its way to its holder; ``peer`` is the dealer. With it goes what the proof says about this holder."""

    peer: Position
    points: bytes
    commitments: bytes
    challenge: bytes
    response: bytes


@dataclass(frozen=True, slots=True)
class Delivery:
    """Server to client: the boxes that were dealt to it."""

    boxes: Sequence[Delivered]


@dataclass(frozen=True, slots=True)
class Complaint:
    """That the box of this hash is no good, signed by its holder. ``peer`` is the dealer on the way up, the holder on
    the way down."""

    peer: Position
    box: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Complaints:
    """Client to server: all it has to complain about; mostly nothing."""

    complaints: tuple[Complaint, ...]


@dataclass(frozen=True, slots=True)
class Accusations:
    """Server to client: who complains about its boxes. Who is not complained about hears the verdict at once."""

    complaints: tuple[Complaint, ...]


@dataclass(frozen=True, slots=True)
class Opened:
    """The key that takes the pad off a box; ``peer`` is the holder on the way up, the dealer on the way down."""

    peer: Position
    key: bytes


@dataclass(frozen=True, slots=True)
class Defence:
    """Client to server: it opens what it dealt to those who complain."""

    opened: tuple[Opened, ...]


def share_of(points: bytes, secret: int) -> bytes:
    """One holder's share of one of the secrets."""
    return points[SHARE_BYTES * secret : SHARE_BYTES * (secret + 1)]


def commitments(context: Cohort, dealer: Position, holder: Position, points: bytes, secrets: int) -> bytes:
    """To one holder's share of each secret. Unknown shares have 279 uniform bits, or the 256 of the secret if t - 1
    are known, so that they need no salt."""
    return b"".join(
        [commitment(context, dealer, holder, secret, share_of(points, secret)) for secret in range(secrets)]
    )


def commitment(context: Cohort, dealer: Position, holder: Position, secret: int, share: bytes) -> bytes:
    """To a share of one of the secrets: the start of the SHA-256 hash of ``transcript(labels.SHARE_COMMITMENT,
    *context.bound(dealer, holder))``, the secret's number and the share. What is hashed begins alike for all the shares
    of a cohort: servers check thousands."""
    hashed = _beginning(context.bound()) + _PLACE.pack(4, dealer, 4, holder, secret) + share
    return sha256(hashed).digest()[:COMMITMENT_BYTES]


_PLACE = Struct(">QIQIB")


@lru_cache(maxsize=2)
def _beginning(bound: tuple[bytes, ...]) -> bytes:
    return transcript(labels.SHARE_COMMITMENT, *bound)


def box_hash(context: Cohort, holder: Position, delivered: Delivered) -> bytes:
    parts = (delivered.points, delivered.commitments, delivered.challenge, delivered.response)
    return digest(labels.BOX, *context.bound(delivered.peer, holder), *parts)


def complaint(key: SigningKey, context: Cohort, holder: Position, delivered: Delivered) -> Complaint:
    named = box_hash(context, holder, delivered)
    return Complaint(delivered.peer, named, key.sign(labels.COMPLAINT, *context.bound(delivered.peer, holder), named))


def check_complaint(public: bytes, context: Cohort, holder: Position, delivered: Delivered, said: Complaint) -> None:
    """It is the holder's, and about this very box."""
    verify(public, said.signature, labels.COMPLAINT, *context.bound(delivered.peer, holder), said.box)
    if said.box != box_hash(context, holder, delivered):
        raise PeerError("a complaint about another box than was dealt")


def points_at(holder: Position, threshold: int, secrets: Sequence[bytes], rng: Rng) -> bytes:
    """What one holder is dealt, without the boxes: ``Dealing.points`` of that holder."""
    return rows_of(Polynomials(secrets, threshold, rng).points(abscissas([holder])))[0]


class Dealing:
    """What one client deals in one cohort. ``pad_key`` is what it shares with a holder, for this box and no other."""

    def __init__(
        self,
        context: Cohort,
        dealer: Position,
        holders: Sequence[Position],
        threshold: int,
        secrets: Sequence[bytes],
        rng: Rng,
        pad_key: Callable[[Position], bytes],
    ) -> None:
        polynomials = Polynomials(secrets, threshold, rng)
        points = polynomials.points(abscissas(holders))
        self.points = dict(zip(holders, rows_of(points), strict=True))
        self._others = [v for v in holders if v != dealer]
        kept = points[[v != dealer for v in holders]]
        boxes = tuple(
            Box(row, commitments(context, dealer, v, self.points[v], len(secrets)))
            for v, row in zip(self._others, rows_of(padded(kept, [pad_key(v) for v in self._others])), strict=True)
        )
        challenge = challenge_of(context, dealer, boxes)
        self.dealt = Dealt(boxes, polynomials.proof(challenge))
        self._dealer, self._challenge, self._threshold = dealer, challenge, threshold

    def delivered(self, holder: Position) -> Delivered:
        """The box of this holder as a server delivers it that alters nothing."""
        [response] = rows_of(responses(self.dealt.proof, self._threshold, abscissas([holder])))
        box = self.dealt.boxes[self._others.index(holder)]
        return Delivered(self._dealer, box.points, box.commitments, self._challenge, response)


def opened(
    context: Cohort, holder: Position, boxes: Sequence[Delivered], secrets: int, pad_key: Callable[[Position], bytes]
) -> dict[Position, bytes]:
    """By dealer, the points in those boxes that are good: they fit the commitments in the box and the proof."""
    sealed = _matrix([box.points for box in boxes], width(secrets))
    found = unpadded(sealed, [pad_key(box.peer) for box in boxes])
    good = fit(context, holder, boxes, found, secrets)
    return {box.peer: points for box, points, fits in zip(boxes, rows_of(found), good, strict=True) if fits}


def fit(
    context: Cohort, holder: Position, boxes: Sequence[Delivered], points: NDArray[np.uint32], secrets: int
) -> list[bool]:
    """Whether the points, a row for each box, are those that it commits to, and that its dealer's proof speaks of."""
    shown = _matrix([box.response for box in boxes], BLINDS)
    agree = consistent(points, [box.challenge for box in boxes], shown)
    return [
        good and commitments(context, box.peer, holder, inside, secrets) == box.commitments
        for box, inside, good in zip(boxes, rows_of(points), agree.tolist(), strict=True)
    ]


def abscissas(positions: Sequence[Position]) -> list[int]:
    """A holder is the position of its point less one: nobody has the secret's place."""
    return [position + 1 for position in positions]


def rows_of(values: NDArray[np.uint32]) -> list[bytes]:
    return [row.tobytes() for row in values.astype("<u4")]


def _matrix(rows: Sequence[bytes], columns: int) -> NDArray[np.uint32]:
    return np.frombuffer(b"".join(rows), "<u4").reshape(len(rows), columns).astype(np.uint32)


def challenge_of(context: Cohort, dealer: Position, boxes: Sequence[Box]) -> bytes:
    return challenge_from(context, dealer, [box.points + box.commitments for box in boxes])


def challenge_from(context: Cohort, dealer: Position, boxes: Iterable[bytes]) -> bytes:
    """The same, from boxes as they are written."""
    return digest(labels.CHALLENGE, *context.bound(dealer), *boxes)


_COMPLAINTS: Codec[Any] = many(
    struct(Complaint, peer=u32, box=fixed(HASH_BYTES), signature=fixed(SIGNATURE_BYTES)), MAX_CLIENTS
)
OPENED: Codec[Any] = many(struct(Opened, peer=u32, key=fixed(KEY_BYTES)), MAX_CLIENTS)


@cache
def box_codec(secrets: int) -> Codec[Box]:
    """A box with shares of so many secrets."""
    return struct(Box, points=fixed(ELEMENT_BYTES * width(secrets)), commitments=fixed(COMMITMENT_BYTES * secrets))


@cache
def delivered_codec(secrets: int) -> Codec[Delivered]:
    """The same on its way."""
    return struct(
        Delivered,
        peer=u32,
        points=fixed(ELEMENT_BYTES * width(secrets)),
        commitments=fixed(COMMITMENT_BYTES * secrets),
        challenge=fixed(HASH_BYTES),
        response=fixed(RESPONSE_BYTES),
    )


def dealing_messages(secrets: int) -> Mapping[type, Codec[Any]]:
    """The messages of the exchange, where so many secrets are dealt."""
    boxes, delivered = table(box_codec(secrets), MAX_CLIENTS), table(delivered_codec(secrets), MAX_CLIENTS)
    return {
        Dealt: struct(Dealt, boxes=boxes, proof=blob(RESPONSE_BYTES * MAX_CLIENTS)),
        Delivery: struct(Delivery, boxes=delivered),
        Complaints: struct(Complaints, complaints=_COMPLAINTS),
        Accusations: struct(Accusations, complaints=_COMPLAINTS),
        Defence: struct(Defence, opened=OPENED),
    }
