"""What a lying client does: one small function for each lie, called with every message that an honest one would send.

A move says for which protocols it is, and what it may spoil: nobody is to be named who is honest alone, whatever the
move is, but a client that uploads another vector than its own changes the sum, one that deals bad shares can make its
holders look like liars (not in the pairwise protocols), and one that shares another secret than it advertised ends the
round when the budget is committed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols import registry
from protocols.ckks import messages as ckks
from protocols.oneshot import messages as oneshot
from protocols.pairwise import messages as pairwise
from protocols.rounds.dealing import (
    Box,
    Complaint,
    Complaints,
    Dealt,
    Defence,
    Opened,
    abscissas,
    challenge_of,
    commitments,
    complaint,
)
from protocols.rounds.sets import to_bitmap
from protocols.rounds.survivors import ConsistencySignature
from protocols.threshold_ckks import messages as threshold
from secagg.codec import Rows, u32
from secagg.crypto import labels
from secagg.crypto.dealing import RESPONSE_BYTES, Polynomials, padded, width
from secagg.crypto.field import PRIME
from secagg.crypto.keys import AgreementKey, digest
from secagg.crypto.prg import Prg
from secagg.crypto.seal import OVERHEAD_BYTES
from secagg.crypto.shamir import LIMBS
from secagg.errors import SecAggError
from tests.simulator.parties import Liar

EVERY = ("secagg", "secagg+", "oneshot", "ckks", "threshold_ckks")
PAIRWISE = ("secagg", "secagg+")
DEALING = (*PAIRWISE, "threshold_ckks")
"""Those with complaints about shares before anything depends on them."""


@dataclass(frozen=True)
class ClientMove:
    """``says`` is also asked, with None for a message, what to say in a phase in which nothing is asked of the liar."""

    says: Callable[[Liar, Any], list[Any] | None]
    protocols: tuple[str, ...]
    spoils: bool
    """The liar may put something else into the sum than its values."""
    deals: bool
    """The liar deals shares that its holders cannot be told from liars by."""
    spends: bool
    """The liar shares another secret than it advertised: the round may end with its name, the budget spent."""


CLIENT_MOVES: dict[str, ClientMove] = {}


def lie(*protocols: str, spoils: bool = False, deals: bool = False, spends: bool = False) -> Callable[..., Any]:
    def register(says: Callable[[Liar, Any], list[Any] | None]) -> Callable[[Liar, Any], list[Any] | None]:
        CLIENT_MOVES[says.__name__] = ClientMove(says, protocols or EVERY, spoils, deals, spends)
        return says

    return register


def server_moves(protocol: str) -> Mapping[str, Any]:
    from tests.simulator import oneshot_server, pairwise_server, tampering

    if protocol in PAIRWISE:
        return pairwise_server.MOVES
    return oneshot_server.MOVES if protocol == "oneshot" else tampering.MOVES


# Lies that need no knowledge of a protocol.


def mutated(value: Any, draw: Random) -> Any:
    """The same message with one thing in it changed."""
    if is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in fields(value)]
        name = draw.choice(names)
        return replace(value, **{name: mutated(getattr(value, name), draw)})
    if isinstance(value, tuple | Rows):
        if not value:
            return value
        i, j = draw.randrange(len(value)), draw.randrange(len(value))
        kind = draw.randrange(4)
        if kind == 0:
            return value[:i] + value[i + 1 :]
        if kind == 1:
            return (*value[:i], value[j], *value[i:])
        if kind == 2:
            swapped = list(value)
            swapped[i], swapped[j] = swapped[j], swapped[i]
            return tuple(swapped)
        return (*value[:i], mutated(value[i], draw), *value[i + 1 :])
    if isinstance(value, bytes):
        if not value:
            return draw.randbytes(32)
        at = draw.randrange(len(value))
        return value[:at] + bytes([value[at] ^ 1 << draw.randrange(8)]) + value[at + 1 :]
    if isinstance(value, int) and not isinstance(value, bool):
        return max(0, value + draw.choice([-1, 1]))
    return value


def _once(liar: Liar) -> bool:
    """Whether the lie is told in this phase: at each with a chance of one in three."""
    return liar.draw.random() < 1 / 3


@lie(spoils=True, deals=True)
def mutate(liar: Liar, message: Any) -> list[Any] | None:
    return [mutated(message, liar.draw)] if _once(liar) else None


@lie()
def garbage(liar: Liar, message: Any) -> list[Any] | None:
    if not _once(liar):
        return None
    if message is None:
        return [liar.draw.randbytes(60)]
    frame = liar.encode(message)
    kind = liar.draw.randrange(4)
    if kind == 0:
        return [liar.draw.randbytes(liar.draw.randrange(60))]
    if kind == 1:
        return [frame[: liar.draw.randrange(len(frame))]]
    if kind == 2:
        return [frame + b"\0"]
    at = liar.draw.randrange(min(len(frame), 24))
    return [frame[:at] + bytes([frame[at] ^ 1 << liar.draw.randrange(8)]) + frame[at + 1 :]]


@lie()
def silent(liar: Liar, message: Any) -> list[Any] | None:
    return [] if _once(liar) else None


@lie(spoils=True, deals=True)
def second_message(liar: Liar, message: Any) -> list[Any] | None:
    """Two in one phase, the wrong one first or last."""
    if not _once(liar):
        return None
    two = [message, mutated(message, liar.draw)]
    return two if liar.draw.random() < 0.5 else two[::-1]


@lie()
def old_frames(liar: Liar, message: Any) -> list[Any] | None:
    """Something that it said before, perhaps in an earlier round, before what is asked for, or instead."""
    if not liar.frames or not _once(liar):
        return None
    old = liar.draw.choice(liar.frames)
    return [old, message] if liar.draw.random() < 0.5 else [old]


@lie()
def words_of_others(liar: Liar, message: Any) -> list[Any] | None:
    if not liar.overheard or not _once(liar):
        return None
    stolen = liar.draw.choice(liar.overheard)
    return [stolen, message] if liar.draw.random() < 0.5 else [stolen]


# Pairwise: shares, lists, consents.


def random_share(draw: Random) -> bytes:
    return b"".join(draw.randrange(PRIME).to_bytes(4, "little") for _ in range(LIMBS))


def _some(liar: Liar, count: int) -> set[int]:
    return set(liar.draw.sample(range(count), liar.draw.randint(1, count))) if count else set()


Points = dict[int, NDArray[np.uint32]]
"""holder -> its limbs of both secrets, then its blinding values"""


def dealt_otherwise(
    liar: Liar,
    alter: Callable[[Points], None],
    secrets: list[bytes] | None = None,
    altered: Callable[[int], bool] = lambda i: False,
) -> Dealt:
    """Boxes, commitments and a proof as from the machine, but for other ``secrets``, and points that are altered first.

    The commitments of ``altered`` boxes are to something else. What was really dealt is what the liar opens, if it is
    asked to.
    """
    machine = liar.machine
    cohort, u, holders = machine._cohort, machine._u, machine._holders
    secrets = secrets or [machine._mask_key.secret, machine._self_secret]
    polynomials = Polynomials(secrets, machine._t, Prg(liar.draw.randbytes(32)))
    points = dict(zip(holders, polynomials.points(abscissas(holders)), strict=True))
    alter(points)
    liar.dealt = {v: row.astype("<u4").tobytes() for v, row in points.items()}
    boxes = tuple(
        Box(
            padded(points[v][None], [machine._pad_key(u, v)]).astype("<u4").tobytes(),
            commitments(cohort, u, v, liar.draw.randbytes(88) if altered(i) else liar.dealt[v], pairwise.SECRETS),
        )
        for i, v in enumerate(v for v in holders if v != u)
    )
    return Dealt(boxes, polynomials.proof(challenge_of(cohort, u, boxes)))


def _others(liar: Liar) -> list[int]:
    return [v for v in liar.machine._holders if v != liar.machine._u]


def _off(row: NDArray[np.uint32], draw: Random) -> None:
    """One or all of the values are others than before."""
    for column in {draw.randrange(len(row))} if draw.random() < 0.5 else range(len(row)):
        row[column] = (int(row[column]) + draw.randrange(1, PRIME)) % PRIME


def bad_to(liar: Liar, holders: list[int]) -> list[Any]:
    def alter(points: Points) -> None:
        for v in holders:
            _off(points[v], liar.draw)

    return [dealt_otherwise(liar, alter)]


@lie(*DEALING, deals=True)
def boxes_that_do_not_open(liar: Liar, message: Any) -> list[Any] | None:
    if isinstance(message, Dealt):
        bad = _some(liar, len(message.boxes))
        words = [random_words(liar.draw, width(pairwise.SECRETS)) for _ in message.boxes]
        boxes = [replace(b, points=words[i]) if i in bad else b for i, b in enumerate(message.boxes)]
        return [replace(message, boxes=tuple(boxes))]
    if isinstance(message, threshold.Part):
        bad = _some(liar, len(message.dealt.boxes))
        words = [random_words(liar.draw, width(threshold.SECRETS)) for _ in message.dealt.boxes]
        altered = [replace(b, points=words[i]) if i in bad else b for i, b in enumerate(message.dealt.boxes)]
        return [replace(message, dealt=replace(message.dealt, boxes=tuple(altered)))]
    return None


@lie(*PAIRWISE)
def words_that_are_no_elements(liar: Liar, message: Any) -> list[Any] | None:
    """In its boxes or in its proof."""
    if not isinstance(message, Dealt):
        return None
    if liar.draw.random() < 0.5:
        return [replace(message, proof=b"\xff" * len(message.proof))]
    bad = _some(liar, len(message.boxes))
    boxes = [replace(b, points=b"\xff" * len(b.points)) if i in bad else b for i, b in enumerate(message.boxes)]
    return [replace(message, boxes=tuple(boxes))]


@lie(*PAIRWISE)
def deals_badly_to_few(liar: Liar, message: Any) -> list[Any] | None:
    if not isinstance(message, Dealt):
        return None
    return bad_to(liar, liar.draw.sample(_others(liar), min(liar.draw.randint(1, 2), len(_others(liar)))))


@lie(*PAIRWISE)
def deals_badly_to_many(liar: Liar, message: Any) -> list[Any] | None:
    if not isinstance(message, Dealt):
        return None
    others = _others(liar)
    return bad_to(liar, liar.draw.sample(others, liar.draw.randint(len(others) // 2, len(others))))


@lie(*PAIRWISE)
def commits_to_other_shares(liar: Liar, message: Any) -> list[Any] | None:
    """Deals well, and commits to something else, to some of its holders."""
    if not isinstance(message, Dealt):
        return None
    bad = _some(liar, len(message.boxes))
    return [dealt_otherwise(liar, lambda points: None, altered=lambda i: i in bad)]


@lie(*PAIRWISE)
def deals_twice(liar: Liar, message: Any) -> list[Any] | None:
    """Some holders get values of other polynomials than the others, of the same secrets or of others."""
    if not isinstance(message, Dealt):
        return None
    machine, part = liar.machine, liar.draw.sample(_others(liar), liar.draw.randint(1, len(_others(liar)) - 1))
    same = liar.draw.random() < 0.5
    secrets = [machine._mask_key.secret, machine._self_secret] if same else [liar.draw.randbytes(32) for _ in range(2)]
    second = Polynomials(secrets, machine._t, Prg(liar.draw.randbytes(32)))
    return [dealt_otherwise(liar, lambda points: points.update(zip(part, second.points(abscissas(part)), strict=True)))]


@lie(*PAIRWISE)
def deals_a_polynomial_of_higher_degree(liar: Liar, message: Any) -> list[Any] | None:
    """Of the right secrets, so that every t shares give them wrong, and enough of them right."""
    if not isinstance(message, Dealt):
        return None
    machine = liar.machine
    secrets = [machine._mask_key.secret, machine._self_secret]
    higher = Polynomials(secrets, machine._t + 1, Prg(liar.draw.randbytes(32)))
    holders = list(machine._holders)
    values = zip(holders, higher.points(abscissas(holders)), strict=True)
    return [dealt_otherwise(liar, lambda points: points.update(values))]


@lie(*PAIRWISE, spends=True)
def deals_another_secret(liar: Liar, message: Any) -> list[Any] | None:
    """To all alike, so that nobody can tell before the secret is rebuilt."""
    if not isinstance(message, Dealt):
        return None
    secrets = [liar.machine._mask_key.secret, liar.machine._self_secret]
    for i in liar.draw.choice([[0], [1], [0, 1]]):
        secrets[i] = liar.draw.randbytes(32)
    return [dealt_otherwise(liar, lambda points: None, secrets)]


@lie(*PAIRWISE, spends=True)
def deals_a_friend_a_share_beside(liar: Liar, message: Any) -> list[Any] | None:
    """A holder who is a friend does not complain about a share that is not on the polynomial."""
    if not isinstance(message, Dealt):
        return None
    friends = [v for v in _others(liar) if liar.machine._peers[v].client in liar.friends]
    return bad_to(liar, friends or _others(liar)[:1])


@lie(*PAIRWISE)
def proof_that_does_not_fit(liar: Liar, message: Any) -> list[Any] | None:
    if not isinstance(message, Dealt):
        return None
    kind, proof = liar.draw.randrange(3), message.proof
    if kind == 0:
        return [replace(message, proof=random_words(liar.draw, len(proof) // 4))]
    if kind == 1:  # of another number of coefficients
        size = RESPONSE_BYTES
        return [replace(message, proof=proof[:-size] if liar.draw.random() < 0.5 else proof + proof[:size])]
    return [replace(message, proof=mutated(proof, liar.draw))]


def random_words(draw: Random, count: int) -> bytes:
    return b"".join(draw.randrange(PRIME).to_bytes(4, "little") for _ in range(count))


# Complaints and defences.


def _complaint_about(liar: Liar, dealer: int) -> Complaint:
    machine = liar.machine
    return complaint(liar.identity.key, machine._cohort, machine._u, liar.boxes[dealer])


def _victims(liar: Liar) -> list[int]:
    return sorted(liar.boxes)


@lie(*DEALING)
def complains_of_few(liar: Liar, message: Any) -> list[Any] | None:
    if not isinstance(message, Complaints) or not liar.boxes:
        return None
    some = liar.draw.sample(_victims(liar), min(liar.draw.randint(1, 2), len(liar.boxes)))
    return [Complaints(tuple(_complaint_about(liar, u) for u in sorted(some)))]


@lie(*DEALING)
def complains_of_all(liar: Liar, message: Any) -> list[Any] | None:
    if not isinstance(message, Complaints):
        return None
    return [Complaints(tuple(_complaint_about(liar, u) for u in _victims(liar)))]


@lie(*DEALING)
def complains_of_another_box(liar: Liar, message: Any) -> list[Any] | None:
    """Names a hash that is not the box's, or another's box, signed all the same."""
    if not isinstance(message, Complaints) or not liar.boxes:
        return None
    machine, u = liar.machine, liar.draw.choice(_victims(liar))
    other = liar.boxes[liar.draw.choice(_victims(liar))]
    altered = mutated(replace(liar.boxes[u], commitments=mutated(other.commitments, liar.draw)), liar.draw)
    return [Complaints((replace(complaint(liar.identity.key, machine._cohort, machine._u, altered), peer=u),))]


@lie(*DEALING)
def complains_unsigned(liar: Liar, message: Any) -> list[Any] | None:
    """With a signature that is nobody's, or one of its own on something else."""
    if not isinstance(message, Complaints) or not liar.boxes:
        return None
    u = liar.draw.choice(_victims(liar))
    signature = liar.draw.randbytes(64) if liar.draw.random() < 0.5 else liar.identity.key.sign(labels.COMPLAINT)
    return [Complaints((replace(_complaint_about(liar, u), signature=signature),))]


@lie(*DEALING)
def complains_twice(liar: Liar, message: Any) -> list[Any] | None:
    """In one message, or in two."""
    if not isinstance(message, Complaints) or not liar.boxes:
        return None
    one = _complaint_about(liar, liar.draw.choice(_victims(liar)))
    if liar.draw.random() < 0.5:
        return [Complaints((one, one))]
    return [Complaints((one,)), Complaints(())] if liar.draw.random() < 0.5 else [Complaints(()), Complaints((one,))]


@lie(*DEALING)
def complains_of_strangers(liar: Liar, message: Any) -> list[Any] | None:
    """About its own boxes, or those of nobody."""
    if not isinstance(message, Complaints) or not liar.boxes:
        return None
    u = liar.draw.choice([liar.machine._u, liar.machine._cohort.size + liar.draw.randrange(5)])
    return [Complaints((replace(_complaint_about(liar, liar.draw.choice(_victims(liar))), peer=u),))]


@lie(*DEALING)
def silent_in_complain(liar: Liar, message: Any) -> list[Any] | None:
    return [] if isinstance(message, Complaints) else None


@lie(*PAIRWISE)
def silent_in_defend(liar: Liar, message: Any) -> list[Any] | None:
    """Having dealt badly to few."""
    if isinstance(message, Defence):
        return []
    return deals_badly_to_few(liar, message)  # type: ignore[no-any-return]


@lie(*PAIRWISE)
def defends_with_wrong_points(liar: Liar, message: Any) -> list[Any] | None:
    """Having dealt badly to few: opens something else, fewer boxes or more."""
    if not isinstance(message, Defence):
        return deals_badly_to_few(liar, message)  # type: ignore[no-any-return]
    kind, opened = liar.draw.randrange(4), list(message.opened)
    if kind == 0:
        return [Defence(tuple(replace(one, key=liar.draw.randbytes(32)) for one in opened))]
    if kind == 1:  # with the key of the other direction
        machine = liar.machine
        return [Defence(tuple(Opened(one.peer, machine._pad_key(one.peer, machine._u)) for one in opened))]
    if kind == 2:
        return [Defence(tuple(opened[1:]))]
    machine = liar.machine
    more = {v: Opened(v, machine._pad_key(machine._u, v)) for v in _others(liar)} | {one.peer: one for one in opened}
    return [Defence(tuple(more[v] for v in sorted(more)))]


@lie(*PAIRWISE)
def speaks_after_exclusion(liar: Liar, message: Any) -> list[Any] | None:
    """Having dealt badly: goes on as if it had not been left out, with whatever fits the phase."""
    if isinstance(message, Dealt):
        return deals_badly_to_many(liar, message)  # type: ignore[no-any-return]
    if isinstance(message, Defence):
        return []
    if message is not None:
        return None
    machine = liar.machine
    if liar.phase == "upload":
        machine._held = {v: liar.dealt.get(v, bytes(88)) for v in machine._holders if v in (machine._u, *liar.boxes)}
        return [machine._upload()]
    if liar.phase == "consistency":
        return [ConsistencySignature(liar.draw.randbytes(64))]
    if liar.phase == "reveal":
        shares = tuple(pairwise.Revealed(v, random_share(liar.draw)) for v in _others(liar))
        return [pairwise.Reveal(shares, (), b"")]
    return None


@lie("secagg", "secagg+", "oneshot", "threshold_ckks")
def wrong_shares_revealed(liar: Liar, message: Any) -> list[Any] | None:
    draw, machine = liar.draw, liar.machine
    if isinstance(message, pairwise.Reveal):
        bad = lambda ones: tuple(replace(o, share=random_share(draw)) if draw.random() < 0.6 else o for o in ones)  # noqa: E731
        return [replace(message, self_shares=bad(message.self_shares), key_shares=bad(message.key_shares))]
    if isinstance(message, oneshot.Answer) and message.share:
        words = [draw.randrange(PRIME).to_bytes(4, "little") for _ in range(len(message.share) // 4)]
        return [replace(message, share=b"".join(words))]
    if isinstance(message, threshold.Recovery):
        shares = tuple(replace(one, share=random_share(draw)) for one in message.shares)
        signed = (*machine._cohort.bound(machine._u), machine._missing_digest, threshold.SHARES.encode(shares))
        return [threshold.Recovery(shares, liar.identity.key.sign(labels.THRESHOLD_SHARES, *signed))]
    return None


@lie(*PAIRWISE)
def fewer_shares_or_both(liar: Liar, message: Any) -> list[Any] | None:
    if not isinstance(message, pairwise.Reveal):
        return None
    mine, keys = message.self_shares, message.key_shares
    kind = liar.draw.randrange(3)
    if kind == 0:
        return [replace(message, self_shares=mine[1:], key_shares=keys[1:])]
    if kind == 1:
        return [replace(message, self_shares=keys, key_shares=mine)]
    return [replace(message, key_shares=tuple(sorted((*keys, *mine[:1]), key=lambda one: one.peer)))]


@lie(*PAIRWISE)
def shares_of_others_revealed(liar: Liar, message: Any) -> list[Any] | None:
    """The right shares under other names."""
    if not isinstance(message, pairwise.Reveal) or len(message.self_shares) < 2:
        return None
    shares = [one.share for one in message.self_shares]
    shares = shares[1:] + shares[:1]
    moved = tuple(replace(one, share=share) for one, share in zip(message.self_shares, shares, strict=True))
    return [replace(message, self_shares=moved)]


@lie(*PAIRWISE)
def false_list(liar: Liar, message: Any) -> list[Any] | None:
    """Says that it masked with others than it did, and signs that."""
    if not isinstance(message, pairwise.Upload):
        return None
    machine = liar.machine
    holders = machine._holders
    listed = set(machine._held) ^ set(liar.draw.sample(list(holders), liar.draw.randint(1, 2)))
    bitmap = to_bitmap(listed, holders)
    signed = (*machine._cohort.bound(machine._u), bitmap, message.header.vector_hash)
    signature = liar.identity.key.sign(labels.UPLOAD, *signed)
    return [replace(message, header=replace(message.header, holders=bitmap, signature=signature))]


@lie(*PAIRWISE, spoils=True)
def vector_that_is_not_masked_as_listed(liar: Liar, message: Any) -> list[Any] | None:
    if not isinstance(message, pairwise.Upload):
        return None
    machine, vector = liar.machine, bytes(len(message.vector))
    vector_hash = digest(labels.VECTOR, vector)
    signed = (*machine._cohort.bound(machine._u), message.header.holders, vector_hash)
    signature = liar.identity.key.sign(labels.UPLOAD, *signed)
    return [pairwise.Upload(replace(message.header, vector_hash=vector_hash, signature=signature), vector)]


@lie("secagg", "secagg+", "ckks", "threshold_ckks")
def other_consent(liar: Liar, message: Any) -> list[Any] | None:
    """Signs another set of survivors than it was told."""
    if type(message).__name__ not in ("ConsistencySignature", "Vote"):
        return None
    cohort = liar.machine._cohort
    others = set(liar.draw.sample(range(cohort.size), liar.draw.randint(2, cohort.size)))
    bitmap = to_bitmap(others, range(cohort.size))
    if bitmap == liar.machine._agreed.bitmap:
        return None
    return [type(message)(liar.identity.key.sign(labels.SURVIVORS, cohort.agreed(bitmap).digest))]


@lie(*PAIRWISE, spoils=True, spends=True)
def other_keys_than_advertised(liar: Liar, message: Any) -> list[Any] | None:
    """A commitment, a mask key or a sealing key that is not its own, or of no use; signed."""
    if not isinstance(message, pairwise.Advert):
        return None
    odd = liar.draw.choice(["mask_key", "seal_key", "commitment"])
    key = AgreementKey(liar.draw.randbytes(32)).public if odd != "commitment" else liar.draw.randbytes(32)
    if odd != "commitment" and liar.draw.random() < 0.3:
        key = bytes(32)  # of low order
    advert = replace(message, **{odd: key})
    signed = (liar.plan.digest(), u32.encode(advert.client), advert.mask_key, advert.seal_key, advert.commitment)
    return [replace(advert, signature=liar.identity.key.sign(labels.ADVERT, *signed))]


# One-shot: boxes, vectors and complaints.


def _signed_upload(liar: Liar, upload: oneshot.Upload, vector: bytes, boxes: bytes) -> oneshot.Upload:
    hashes = (digest(labels.ONESHOT_VECTOR, vector), digest(labels.ONESHOT_BOX, boxes))
    machine = liar.machine
    signed = (*machine._committee.bound(machine._u), upload.header.key, *hashes)
    signature = liar.identity.key.sign(labels.ONESHOT_UPLOAD, *signed)
    return oneshot.Upload(oneshot.Header(upload.header.client, upload.header.key, *hashes, signature), vector, boxes)


@lie("oneshot", deals=True)
def oneshot_boxes_that_do_not_open(liar: Liar, message: Any) -> list[Any] | None:
    if not isinstance(message, oneshot.Upload):
        return None
    size = liar.machine._sharing.share_bytes + OVERHEAD_BYTES
    boxes = [message.boxes[at : at + size] for at in range(0, len(message.boxes), size)]
    bad = _some(liar, len(boxes))
    changed = b"".join(liar.draw.randbytes(size) if i in bad else box for i, box in enumerate(boxes))
    return [_signed_upload(liar, message, message.vector, changed)]


@lie("oneshot", deals=True, spoils=True)
def shares_of_another_secret(liar: Liar, message: Any) -> list[Any] | None:
    """Vector and shares do not fit: each from another run of the same machine."""
    if not isinstance(message, oneshot.Upload):
        return None
    other = liar.another(liar.draw.randbytes(32))
    other._committee = liar.machine._committee
    fake = other._upload()
    return [_signed_upload(liar, message, fake.vector, message.boxes)]


@lie("oneshot", spoils=True)
def huge_vector(liar: Liar, message: Any) -> list[Any] | None:
    if not isinstance(message, oneshot.Upload):
        return None
    return [_signed_upload(liar, message, liar.draw.randbytes(len(message.vector)), message.boxes)]


@lie("oneshot")
def false_complaint(liar: Liar, message: Any) -> list[Any] | None:
    if not isinstance(message, oneshot.Vote):
        return None
    survivors = sorted(liar.machine._committee.members)
    return [oneshot.Vote(b"", tuple(sorted(liar.draw.sample(survivors, liar.draw.randint(1, len(survivors))))))]


@lie("oneshot")
def seat_with_a_useless_key(liar: Liar, message: Any) -> list[Any] | None:
    if not isinstance(message, oneshot.Join) or message.member is None:
        return None
    key = bytes(32) if liar.draw.random() < 0.5 else AgreementKey(liar.draw.randbytes(32)).public
    signed = (liar.plan.digest(), u32.encode(message.member.client), key)
    return [
        oneshot.Join(oneshot.Member(message.member.client, key, liar.identity.key.sign(labels.ONESHOT_SEAT, *signed)))
    ]


# CKKS and threshold CKKS.


@lie("ckks")
def another_sum(liar: Liar, message: Any) -> list[Any] | None:
    if not isinstance(message, ckks.Answer) or liar.machine._total is None:
        return None
    ring = liar.plan.ring
    told = ring.pack((liar.machine._total + 1).astype(ring.dtype))
    return [replace(message, total=liar.machine._to_server(labels.CKKS_ANSWER, told))]


@lie("ckks", spoils=True)
def ciphertexts_that_do_not_parse(liar: Liar, message: Any) -> list[Any] | None:
    if not isinstance(message, ckks.Upload):
        return None
    machine, chunks = liar.machine, (liar.draw.randbytes(2000),)
    signed = (*machine._cohort.bound(machine._u), machine._public_hash, digest(labels.CKKS_VECTOR, *chunks))
    encrypted = ckks.Encrypted(liar.identity.key.sign(labels.CKKS_UPLOAD, *signed), chunks)
    return [ckks.Upload(machine._to_server(labels.CKKS_UPLOAD, ckks.ENCRYPTED.encode(encrypted)))]


@lie("threshold_ckks", spends=True)
def deals_another_seed(liar: Liar, message: Any) -> list[Any] | None:
    """To all alike, and falls silent when its part of the key is needed."""
    if isinstance(message, threshold.Answer):
        return []
    if not isinstance(message, threshold.Part):
        return None
    machine = liar.machine
    seed, machine._key_seed = machine._key_seed, liar.draw.randbytes(32)
    dealing = machine._dealing()
    machine._key_seed, liar.dealt = seed, dealing.points
    return [replace(message, dealt=dealing.dealt)]


@lie("threshold_ckks")
def deals_badly_and_falls_silent(liar: Liar, message: Any) -> list[Any] | None:
    """When its part of the key would be needed: if it had one."""
    if isinstance(message, threshold.Answer | Defence):
        return []
    return boxes_that_do_not_open(liar, message)  # type: ignore[no-any-return]


@lie("threshold_ckks", deals=True)
def another_part_than_committed(liar: Liar, message: Any) -> list[Any] | None:
    if not isinstance(message, threshold.Part):
        return None
    scheme = liar.machine._scheme
    return [replace(message, key=scheme.pack_key(scheme.public(liar.draw.randbytes(32))))]


@lie("threshold_ckks", spoils=True)
def wrong_partial_decryption(liar: Liar, message: Any) -> list[Any] | None:
    if not isinstance(message, threshold.Answer):
        return None
    machine = liar.machine
    key = liar.draw.randbytes(32)
    partial = machine._scheme.pack_used(machine._scheme.partial(machine._c1, key, flooded_by=key))
    said = digest(labels.THRESHOLD_PARTIAL, partial, message.excess)
    signed = (*machine._cohort.bound(machine._u), machine._ciphertext, said)
    return [threshold.Answer(partial, message.excess, liar.identity.key.sign(labels.THRESHOLD_PARTIAL, *signed))]


@lie("threshold_ckks", spoils=True)
def wrong_ciphertext(liar: Liar, message: Any) -> list[Any] | None:
    """Under a key of its own, signed as if it were under the joint one."""
    if not isinstance(message, threshold.Upload):
        return None
    machine = liar.machine
    seed, zeros = liar.draw.randbytes(32), liar.plan.ring.centred(liar.plan.ring.zeros(liar.plan.encoding.coordinates))
    c0, c1 = machine._scheme.encrypt(machine._scheme.public(seed), zeros, seed)
    ciphertext = (machine._scheme.pack_used(c0), machine._scheme.pack_all(c1))
    signed = (*machine._cohort.bound(machine._u), machine._joint_digest, digest(labels.THRESHOLD_UPLOAD, *ciphertext))
    return [threshold.Upload(liar.identity.key.sign(labels.THRESHOLD_UPLOAD, *signed), *ciphertext)]


def decodes(plan: Any, frame: bytes) -> bool:
    try:
        registry.find(plan.protocol).messages.decode(plan, frame)
    except SecAggError:
        return False
    return True
