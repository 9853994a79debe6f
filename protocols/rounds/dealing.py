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

from bisect import bisect_left
from collections.abc import Callable, KeysView, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from struct import Struct
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from protocols.rounds.cohort import ascending
from secagg.assumptions import MAX_CLIENTS
from secagg.codec import Codec, blob, fixed, many, struct, u32
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
from secagg.crypto.shamir import SHARE_BYTES, unpack_shares
from secagg.errors import PeerError

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

COMMITMENT_BYTES = 16


@dataclass(frozen=True, slots=True)
class Box:
    """What one holder is dealt: points under a pad, and a commitment to its share of each secret."""

    points: bytes
    commitments: bytes


@dataclass(frozen=True, slots=True)
class Dealt:
    """Client to server: a box for each of the others that hold shares of its secrets, in their order, and the proof."""

    boxes: tuple[Box, ...]
    proof: bytes


@dataclass(frozen=True, slots=True)
class Delivered:
    """A box on its way to its holder; ``peer`` is the dealer. With it goes what the proof says about this holder."""

    peer: int
    points: bytes
    commitments: bytes
    challenge: bytes
    response: bytes


@dataclass(frozen=True, slots=True)
class Delivery:
    """Server to client: the boxes that were dealt to it."""

    boxes: tuple[Delivered, ...]


@dataclass(frozen=True, slots=True)
class Complaint:
    """That the box of this hash is no good, signed by its holder. ``peer`` is the dealer on the way up, the holder on
    the way down."""

    peer: int
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

    peer: int
    key: bytes


@dataclass(frozen=True, slots=True)
class Defence:
    """Client to server: it opens what it dealt to those who complain."""

    opened: tuple[Opened, ...]


class Context(Protocol):
    """What all that is signed and derived in a round is bound to."""

    def bound(self, *positions: int) -> tuple[bytes, ...]: ...


def share_of(points: bytes, secret: int) -> bytes:
    """One holder's share of one of the secrets."""
    return points[SHARE_BYTES * secret : SHARE_BYTES * (secret + 1)]


def commitments(context: Context, dealer: int, holder: int, points: bytes, secrets: int) -> bytes:
    """To one holder's share of each secret. Unknown shares have 279 uniform bits, or the 256 of the secret if t - 1
    are known, so that they need no salt."""
    bound = _bound(context, dealer, holder)
    return b"".join([_commitment(bound.copy(), secret, share_of(points, secret)) for secret in range(secrets)])


def commitment(context: Context, dealer: int, holder: int, secret: int, share: bytes) -> bytes:
    """To a share of one of the secrets."""
    return _commitment(_bound(context, dealer, holder), secret, share)


_PAIR = Struct(">QIQI")


def _bound(context: Context, dealer: int, holder: int) -> Hash:
    """SHA-256 of ``transcript(labels.SHARE_COMMITMENT, *context.bound(dealer, holder))``, of which most is the same for
    all the shares of a cohort: servers check thousands."""
    bound = _begun(context.bound()).copy()
    bound.update(_PAIR.pack(4, dealer, 4, holder))
    return bound


@lru_cache(maxsize=2)
def _begun(bound: tuple[bytes, ...]) -> Hash:
    return sha256(transcript(labels.SHARE_COMMITMENT, *bound))


def _commitment(bound: Hash, secret: int, share: bytes) -> bytes:
    bound.update(bytes([secret]) + share)
    return bound.digest()[:COMMITMENT_BYTES]


def box_hash(context: Context, holder: int, delivered: Delivered) -> bytes:
    parts = (delivered.points, delivered.commitments, delivered.challenge, delivered.response)
    return digest(labels.BOX, *context.bound(delivered.peer, holder), *parts)


def complaint(key: SigningKey, context: Context, holder: int, delivered: Delivered) -> Complaint:
    named = box_hash(context, holder, delivered)
    return Complaint(delivered.peer, named, key.sign(labels.COMPLAINT, *context.bound(delivered.peer, holder), named))


def check_complaint(public: bytes, context: Context, holder: int, delivered: Delivered, said: Complaint) -> None:
    """It is the holder's, and about this very box."""
    verify(public, said.signature, labels.COMPLAINT, *context.bound(delivered.peer, holder), said.box)
    if said.box != box_hash(context, holder, delivered):
        raise PeerError("a complaint about another box than was dealt")


class Dealing:
    """What one client deals in one cohort. ``pad_key`` is what it shares with a holder, for this box and no other."""

    def __init__(
        self,
        context: Context,
        dealer: int,
        holders: Sequence[int],
        threshold: int,
        secrets: Sequence[bytes],
        rng: Rng,
        pad_key: Callable[[int], bytes],
    ) -> None:
        polynomials = Polynomials(secrets, threshold, rng)
        points = polynomials.points(abscissas(holders))
        self.points = dict(zip(holders, _rows(points), strict=True))
        self._others = [v for v in holders if v != dealer]
        kept = points[[v != dealer for v in holders]]
        boxes = tuple(
            Box(row, commitments(context, dealer, v, self.points[v], len(secrets)))
            for v, row in zip(self._others, _rows(padded(kept, [pad_key(v) for v in self._others])), strict=True)
        )
        challenge = _challenge(context, dealer, boxes)
        self.dealt = Dealt(boxes, polynomials.proof(challenge))
        self._dealer, self._challenge, self._threshold = dealer, challenge, threshold

    def delivered(self, holder: int) -> Delivered:
        """The box of this holder as a server delivers it that alters nothing."""
        [response] = _rows(responses(self.dealt.proof, self._threshold, abscissas([holder])))
        box = self.dealt.boxes[self._others.index(holder)]
        return Delivered(self._dealer, box.points, box.commitments, self._challenge, response)


def opened(
    context: Context, holder: int, boxes: Sequence[Delivered], secrets: int, pad_key: Callable[[int], bytes]
) -> dict[int, bytes]:
    """By dealer, the points in those boxes that are good: they fit the commitments in the box and the proof."""
    sealed = _matrix([box.points for box in boxes], width(secrets))
    found = unpadded(sealed, [pad_key(box.peer) for box in boxes])
    good = fit(context, holder, boxes, found, secrets)
    return {box.peer: points for box, points, fits in zip(boxes, _rows(found), good, strict=True) if fits}


def fit(
    context: Context, holder: int, boxes: Sequence[Delivered], points: NDArray[np.uint32], secrets: int
) -> list[bool]:
    """Whether the points, a row for each box, are those that it commits to, and that its dealer's proof speaks of."""
    shown = _matrix([box.response for box in boxes], BLINDS)
    agree = consistent(points, [box.challenge for box in boxes], shown)
    return [
        good and commitments(context, box.peer, holder, inside, secrets) == box.commitments
        for box, inside, good in zip(boxes, _rows(points), agree.tolist(), strict=True)
    ]


class Exchange:
    """The server's side: what was dealt to whom, who complained, and whose shares hold in the end.

    ``holders_of`` gives the holders of a dealer's shares, ascending. Each check raises before anything has changed.
    """

    def __init__(
        self, context: Context, holders_of: Callable[[int], Sequence[int]], threshold: int, secrets: int
    ) -> None:
        self._context, self._holders_of, self._threshold, self._secrets = context, holders_of, threshold, secrets
        self._sizes = (ELEMENT_BYTES * width(secrets), COMMITMENT_BYTES * secrets, RESPONSE_BYTES)
        self._rows: dict[int, bytes] = {}  # dealer -> its boxes and responses, in the order of its other holders
        self._challenges: dict[int, bytes] = {}
        self._complaints: dict[int, dict[int, Complaint]] = {}  # dealer -> holder -> what it says
        self._defended: set[int] = set()
        self._keys: dict[int, dict[int, bytes]] = {}  # holder -> dealer -> what opens its box

    @property
    def dealers(self) -> KeysView[int]:
        """Those who dealt and were not left out since."""
        return self._rows.keys()

    def take(self, dealer: int, dealt: Dealt) -> None:
        holders = self._holders_of(dealer)
        shown = _rows(responses(dealt.proof, self._threshold, abscissas(holders)))
        others = [response for v, response in zip(holders, shown, strict=True) if v != dealer]
        if len(dealt.boxes) != len(others):
            raise PeerError("shares for others than the holders")
        self._challenges[dealer] = _challenge(self._context, dealer, dealt.boxes)
        self._rows[dealer] = b"".join(
            [box.points + box.commitments + response for box, response in zip(dealt.boxes, others, strict=True)]
        )

    def delivered(self, dealer: int, holder: int) -> Delivered:
        points, commitments, _ = self._sizes
        at = self._place(dealer, holder) * sum(self._sizes)
        row = self._rows[dealer][at : at + sum(self._sizes)]
        until = points + commitments
        return Delivered(dealer, row[:points], row[points:until], self._challenges[dealer], row[until:])

    def complain(self, holder: int, public: bytes, dealers: Set[int], said: Complaints) -> None:
        """Take what a holder says about boxes that were delivered to it, those of ``dealers``."""
        about = [one.peer for one in said.complaints]
        if not ascending(about) or not dealers - {holder} >= set(about):
            raise PeerError("complaints about boxes that were not delivered to this client")
        for one in said.complaints:
            check_complaint(public, self._context, holder, self.delivered(one.peer, holder), one)
        for one in said.complaints:
            self._complaints.setdefault(one.peer, {})[holder] = one

    def leave_out(self, dealers: Set[int]) -> None:
        for dealer in list(dealers):
            del self._rows[dealer], self._challenges[dealer]
            self._complaints.pop(dealer, None)
            self._defended.discard(dealer)

    @property
    def accused(self) -> list[int]:
        return sorted(self._complaints)

    def accusations(self, dealer: int) -> Accusations:
        return Accusations(
            tuple(Complaint(holder, one.box, one.signature) for holder, one in sorted(self._complaints[dealer].items()))
        )

    def defend(self, dealer: int, defence: Defence) -> None:
        holders = [one.peer for one in defence.opened]
        if holders != sorted(self._complaints[dealer]):
            raise PeerError("boxes opened of others than of those who complain")
        for one in defence.opened:
            box, keys = self.delivered(dealer, one.peer), {dealer: one.key}
            if not opened(self._context, one.peer, [box], self._secrets, keys.__getitem__):
                raise PeerError("a key that opens no good box")
        for one in defence.opened:
            self._keys.setdefault(one.peer, {})[dealer] = one.key
        self._defended.add(dealer)

    @property
    def undefended(self) -> Set[int]:
        """Who was accused and has not answered."""
        return self._complaints.keys() - self._defended

    @property
    def answered(self) -> list[tuple[int, int]]:
        """(dealer, holder) of each complaint that was answered with what fits."""
        return [(dealer, holder) for dealer in sorted(self._defended) for holder in sorted(self._complaints[dealer])]

    def opened_for(self, holder: int) -> tuple[Opened, ...]:
        return tuple(Opened(dealer, key) for dealer, key in sorted(self._keys.get(holder, {}).items()))

    def keep_commitments(self, secret_of: Callable[[int], int]) -> None:
        """Forget all but what is needed to check shares of one secret of each dealer."""
        start = self._sizes[0]
        for dealer, rows in self._rows.items():
            table = np.frombuffer(rows, np.uint8).reshape(-1, sum(self._sizes))
            at = start + COMMITMENT_BYTES * secret_of(dealer)
            self._rows[dealer] = table[:, at : at + COMMITMENT_BYTES].tobytes()

    def check_share(self, dealer: int, holder: int, secret: int, share: bytes) -> None:
        """Of those commitments that were kept: one hash tells a wrong share. A dealer's own is compared with none.

        Liars can commit to what is no share at all, and no honest holder reveals that.
        """
        unpack_shares(share, 1)
        if dealer == holder:
            return
        at = self._place(dealer, holder) * COMMITMENT_BYTES
        kept = self._rows[dealer][at : at + COMMITMENT_BYTES]
        if commitment(self._context, dealer, holder, secret, share) != kept:
            raise PeerError("a share that is not the one that was dealt")

    def _place(self, dealer: int, holder: int) -> int:
        """Where a holder's box is among those that were dealt: a dealer deals none to itself."""
        holders = self._holders_of(dealer)
        own, place = bisect_left(holders, dealer), bisect_left(holders, holder)
        return place - (own < place and holders[own] == dealer)


def abscissas(positions: Sequence[int]) -> list[int]:
    """A holder is the position of its point less one: nobody has the secret's place."""
    return [position + 1 for position in positions]


def _rows(values: NDArray[np.uint32]) -> list[bytes]:
    return [row.tobytes() for row in values.astype("<u4")]


def _matrix(rows: Sequence[bytes], columns: int) -> NDArray[np.uint32]:
    return np.frombuffer(b"".join(rows), "<u4").reshape(len(rows), columns).astype(np.uint32)


def _challenge(context: Context, dealer: int, boxes: Sequence[Box]) -> bytes:
    return digest(labels.CHALLENGE, *context.bound(dealer), *[box.points + box.commitments for box in boxes])


_COMPLAINTS: Codec[Any] = many(
    struct(Complaint, peer=u32, box=fixed(HASH_BYTES), signature=fixed(SIGNATURE_BYTES)), MAX_CLIENTS
)
OPENED: Codec[Any] = many(struct(Opened, peer=u32, key=fixed(KEY_BYTES)), MAX_CLIENTS)


def dealing_messages(secrets: int) -> Mapping[type, Codec[Any]]:
    """The messages of the exchange, where so many secrets are dealt."""
    box = struct(Box, points=fixed(ELEMENT_BYTES * width(secrets)), commitments=fixed(COMMITMENT_BYTES * secrets))
    delivered = struct(
        Delivered,
        peer=u32,
        points=fixed(ELEMENT_BYTES * width(secrets)),
        commitments=fixed(COMMITMENT_BYTES * secrets),
        challenge=fixed(HASH_BYTES),
        response=fixed(RESPONSE_BYTES),
    )
    return {
        Dealt: struct(Dealt, boxes=many(box, MAX_CLIENTS), proof=blob(RESPONSE_BYTES * MAX_CLIENTS)),
        Delivery: struct(Delivery, boxes=many(delivered, MAX_CLIENTS)),
        Complaints: struct(Complaints, complaints=_COMPLAINTS),
        Accusations: struct(Accusations, complaints=_COMPLAINTS),
        Defence: struct(Defence, opened=OPENED),
    }
