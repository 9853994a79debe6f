"""Measures what the pieces of a round cost on one core of this machine, for the model (``costs``) to multiply.

Each is measured through the very functions that the protocols call, on sizes at which it is used, as the median of
several trials between which the caches are filled with something else. Pieces of Python (writing an item of a message,
a step in a tree) are pieces like others.
"""

from __future__ import annotations

import os
from itertools import cycle
from math import log2
from statistics import median
from time import process_time

import numpy as np

from benchmarks.rounds import LENIENT, people
from benchmarks.studies.scale.lattice_pieces import measure_ckks, measure_lattice
from benchmarks.studies.scale.timing import OTHER, seconds_of
from protocols import registry
from protocols.client import Client
from protocols.costs.units import UnitCosts
from protocols.journal import ForgetfulJournal
from protocols.pairwise.cohort import Cohort
from protocols.pairwise.messages import (
    Advert,
    ConsistencySignatures,
    Introduction,
    Neighbour,
    Reveal,
    Revealed,
    Survivors,
    UploadHeader,
)
from protocols.plan import RoundPlan
from protocols.roster import Number
from protocols.rounds.cohort import Position, positions
from protocols.rounds.dealing import Dealing, opened
from protocols.rounds.exchange import Exchange
from protocols.rounds.sets import from_bitmap
from protocols.rounds.survivors import SignedBy
from protocols.server import serve
from secagg.crypto import labels
from secagg.crypto.dealing import Polynomials, width
from secagg.crypto.graph import Graph, GraphParameters, Neighbourhoods
from secagg.crypto.keys import AgreementKey, SigningKey, digest, verify
from secagg.crypto.masking import add_masks, pack_masked
from secagg.crypto.merkle import MerkleTree, check_inclusion, leaf
from secagg.crypto.prg import Prg
from secagg.crypto.ring import Ring
from secagg.crypto.seal import seal
from secagg.crypto.shamir import SHARE_BYTES, pack_shares, reconstruct, split
from secagg.encoding import Encoding
from secagg.extras import installed


def measure(repeats: int, lattice: bool = True, ckks: bool = True) -> UnitCosts:
    """All of them; those of the lattice only with numba, those of CKKS only with TenSEAL (and where they matter)."""
    found = {**_vectors(repeats), **_shares(repeats), **_messages(repeats), **_keys(repeats)}
    if lattice and installed("numba"):
        found |= measure_lattice(repeats)
    if ckks and installed("tenseal"):
        found |= measure_ckks(repeats)
    return UnitCosts(**found)


def _plan(n: int, d: int) -> RoundPlan:
    _, roster = people(n)
    return RoundPlan.propose("secagg", roster, Encoding.integers(d, 16), min_contributors=2)


def _keys(repeats: int) -> dict[str, float]:
    plan, key, signing = _plan(20, 1), AgreementKey(os.urandom(32)), SigningKey(os.urandom(32))
    cohort, peer = Cohort(plan, bytes(32), 20), AgreementKey(os.urandom(32)).public
    parts = (plan.digest(), bytes(4), bytes(32), bytes(32), bytes(32))
    signature = signing.sign(labels.ADVERT, *parts)

    started, taken = _first_frames(plan)
    verified = seconds_of(lambda: verify(signing.public, signature, labels.ADVERT, *parts), repeats)
    megabyte, frame = bytes(1 << 20), bytearray(1 << 24)
    return {
        "start": started,
        "frame": max(taken - verified, 0),
        "sign": seconds_of(lambda: signing.sign(labels.ADVERT, *parts), repeats),
        "verify": verified,
        "agree": seconds_of(lambda: cohort.pair_seed(key.agree(peer), *positions(2)), repeats),
        "hash": seconds_of(lambda: digest(labels.VECTOR, megabyte), repeats) / len(megabyte),
        "copy": seconds_of(lambda: bytes(frame), repeats) / len(frame),
        "seal": seconds_of(lambda: seal(bytes(32), megabyte, b"", os.urandom), repeats) / len(megabyte),
    }


def _first_frames(plan: RoundPlan) -> tuple[float, float]:
    """Seconds of real clients to begin a round, and of its server to hear of it, each in cold caches."""
    identities, roster = people(plan.clients)
    server = serve(plan, roster)
    began, heard = list[float](), list[float]()
    for identity in identities:
        client = Client(identity, roster, policy=LENIENT, journal=ForgetfulJournal())
        np.add(OTHER, 1, out=OTHER)
        started = process_time()
        frame = client.start(plan, np.zeros(plan.encoding.length))
        began.append(process_time() - started)
        np.add(OTHER, 1, out=OTHER)
        started = process_time()
        server.receive(identity.name, frame)
        heard.append(process_time() - started)
    return median(began), median(heard)


def _vectors(repeats: int) -> dict[str, float]:
    d, ring = 1 << 18, Ring(25)
    plan, update = _plan(20, d), np.arange(d) % 1000
    words, values, seeds = ring.lift(update), update.astype(np.int32), [os.urandom(32) for _ in range(8)]
    short, packed = ring.zeros(16), bytearray(ring.packed_size(d))

    def encode() -> object:
        return plan.encode_update(update, 1, Prg(bytes(32)))

    opened = seconds_of(lambda: add_masks(short, seeds), repeats)
    other = words.copy()
    return {
        "encode": seconds_of(encode, repeats) / d,
        "pack": seconds_of(lambda: pack_masked(values, ring, [], [], memoryview(packed)), repeats) / d,
        "add": seconds_of(lambda: ring.add_packed(packed, other), repeats) / d,
        "centre": seconds_of(lambda: ring.centred(words), repeats) / d,
        "stream": opened / len(seeds),
        "mask": (seconds_of(lambda: add_masks(words, seeds), repeats) - opened) / (len(seeds) * words.nbytes),
    }


def _polynomials(secrets: list[bytes], t: int, holders: int) -> None:
    made = Polynomials(secrets, t, Prg(bytes(32)))
    made.points(range(1, holders + 1))
    made.points([1])  # of others: what was made for these holders is not there the next time
    made.proof(bytes(32))


def _shares(repeats: int) -> dict[str, float]:
    secrets, t = [os.urandom(32), os.urandom(32)], 64
    few, many = (
        seconds_of(lambda h=h: _polynomials(secrets, t, h), repeats)  # type: ignore[misc]
        for h in (64, 512)
    )
    each = (many - few) / (t * (512 - 64) * width(2))
    n = 200
    holders = np.stack([np.arange(1 + i, 1 + i + t) for i in range(n)])
    shares = np.stack([split([os.urandom(32)], t, row.tolist(), os.urandom)[:, 0] for row in holders])
    return {
        **_boxes(repeats, secrets, t, few),
        "deal": max(each, 0),
        "deal_step": max(few / t - 64 * width(2) * each, 0),
        "rebuild": seconds_of(lambda: reconstruct(holders, shares), repeats) / (n * t * t),
    }


def _boxes(repeats: int, secrets: list[bytes], t: int, polynomials: float) -> dict[str, float]:
    """Of the exchange about the shares, with 64 holders. ``polynomials`` is what those alone take."""
    k = 64
    cohort = Cohort(_plan(20, 1), bytes(32), 2 * k + 1)
    key, peer = AgreementKey(bytes(32)), AgreementKey(os.urandom(32))
    own, *holders = positions(k + 1)
    agreed = key.agree(peer.public)

    def dealing(dealer: Position = own, to: list[Position] = holders) -> Dealing:
        return Dealing(
            cohort,
            dealer,
            to,
            t,
            secrets,
            Prg(bytes(32)),
            lambda v: cohort.pad_key(key.agree(peer.public), dealer, v),
        )

    dealt = dealing().dealt
    told, dealings = Exchange(cohort, lambda u: [own], t, len(secrets)), {u: dealing(u, [own]) for u in holders}
    boxes = [one.delivered(own) for one in dealings.values()]
    for u, one in dealings.items():
        told.take(u, one.dealt)
    exchange = Exchange(
        cohort, lambda u: [Position(v + u) for v in holders], t, len(secrets)
    )  # others each, as on a ring

    def take() -> None:
        for u in (own, holders[-1]):
            exchange.take(u, dealt)

    def check() -> None:
        told.check_shares(own, shares)

    def unbox() -> object:
        return opened(cohort, own, boxes, len(secrets), lambda u: cohort.pad_key(agreed, u, own))

    shares = {u: one.points[own][:SHARE_BYTES] for u, one in dealings.items()}
    found = {
        "box": max(seconds_of(dealing, repeats) - polynomials, 0) / k,
        "unbox": seconds_of(unbox, repeats) / k,
        "take": seconds_of(take, repeats) / (2 * k),
        "deliver": seconds_of(lambda: told.deliveries(holders, own), repeats) / k,
    }
    told.keep_commitments(lambda dealer: 0)
    return found | {"check": seconds_of(check, repeats) / k}


def _messages(repeats: int) -> dict[str, float]:
    n, k = 1024, 100
    plan, messages = _plan(20, 1), registry.find("secagg").messages
    advert = Advert(Number(0), bytes(32), bytes(32), bytes(32), bytes(64))
    introduction = Introduction(bytes(32), n, Position(0), tuple(Neighbour(i, advert) for i in positions(k)), ())
    long = messages.encode(plan, introduction)
    headers = Survivors(b"", tuple(UploadHeader(i, bytes(k // 8), bytes(32), bytes(64)) for i in positions(k)))
    signed = ConsistencySignatures(tuple(SignedBy(i, bytes(64)) for i in range(k)), (), ())
    heard, consents = messages.encode(plan, headers), messages.encode(plan, signed)
    revealed = tuple(Revealed(i, pack_shares(np.zeros((1, 9), np.uint32))) for i in positions(k))
    shares = messages.encode(plan, Reveal(revealed, (), b""))

    def read_shares() -> bytes:
        message = messages.decode(plan, shares)
        read = {one.peer: one.share for one in (message.self_shares if isinstance(message, Reveal) else ())}
        return b"".join(read.values())

    tree = MerkleTree([leaf(i, bytes(160)) for i in range(n)])
    chosen = sorted(np.random.default_rng(1).choice(n, k, replace=False).tolist())
    leaves, proof, steps = {i: leaf(i, bytes(160)) for i in chosen}, tree.proof(chosen), _steps(chosen, n)
    bitmap, many = bytes(n // 8), 1 << 14
    listed = cycle(np.random.default_rng(1).integers(300, n, (n, k)).tolist())  # of many clients in turn
    ring = GraphParameters(Graph.RING, 100, 70)
    return {
        "item": (
            seconds_of(lambda: messages.encode(plan, introduction), repeats)
            + seconds_of(lambda: messages.decode(plan, long), repeats)
        )
        / (2 * k),
        "header": (
            seconds_of(lambda: messages.encode(plan, headers), repeats)
            + seconds_of(lambda: messages.decode(plan, heard), repeats)
        )
        / (2 * k),
        "record": (
            seconds_of(lambda: messages.encode(plan, signed), repeats)
            + seconds_of(lambda: messages.decode(plan, consents), repeats)
        )
        / (2 * k),
        "share": seconds_of(read_shares, repeats) / k,
        "climb": seconds_of(lambda: check_inclusion(tree.root, n, leaves, proof), repeats) / steps,
        "prove": seconds_of(lambda: tree.proof(chosen), repeats) / steps,
        "member": seconds_of(lambda: from_bitmap(bitmap, range(n)), repeats) / n,
        "order": seconds_of(lambda: Neighbourhoods(ring, many, bytes(32)), repeats) / (many * log2(many)),
        "scan": seconds_of(lambda: [one for one in next(listed) if one != 7], repeats) / k,
    }


def _steps(chosen: list[int], width: int) -> int:
    """How many nodes are known on the levels above the leaves, together."""
    steps, known = 0, set(chosen)
    while width > 1:
        known, width = {i // 2 for i in known}, (width + 1) // 2
        steps += len(known)
    return steps
