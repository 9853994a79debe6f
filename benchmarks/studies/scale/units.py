"""What the pieces that all rounds are made of cost on this machine, one core: what the model (``costs``) multiplies.

Each is measured through the very functions that the protocols call, on sizes at which it is used, as the median of
several trials between which the caches are filled with something else. Pieces of Python (writing an item of a message,
a step in a tree) are pieces like others.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from importlib.util import find_spec
from itertools import cycle
from math import gcd, isfinite, log2
from pathlib import Path
from statistics import median
from threading import get_native_id
from time import process_time

import numpy as np

from benchmarks.rounds import LENIENT, people
from protocols import registry
from protocols.client import Client
from protocols.journal import ForgetfulJournal
from protocols.pairwise.cohort import Cohort
from protocols.pairwise.messages import (
    Advert,
    Consents,
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
from secagg.crypto.masking import add_masks
from secagg.crypto.merkle import MerkleTree, check_inclusion, leaf
from secagg.crypto.prg import Prg
from secagg.crypto.ring import Ring
from secagg.crypto.seal import seal
from secagg.crypto.shamir import SHARE_BYTES, pack_shares, reconstruct, split
from secagg.encoding import Encoding
from secagg.errors import UsageError


@dataclass(frozen=True, slots=True)
class Units:
    """Seconds, but where bytes are said. What needs an extra that is not installed is zero."""

    start: float
    """a client's first message, but for its vector: the plan checked, two keys, a signature, the journal"""
    frame: float
    """a message taken in, whatever is in it, by a processor whose caches hold something else"""
    sign: float
    verify: float
    agree: float
    """X25519, and a key derived from it"""
    box: float
    """the same, and a share put under a pad, with commitments"""
    hash: float
    """a byte"""
    seal: float
    """a byte, in the journal (client)"""
    copy: float
    """a byte"""
    unbox: float
    """a box opened and checked, its key agreed on before"""
    take: float
    """a box, on the server"""
    deliver: float
    check: float
    """a share that is revealed, against its commitment"""
    stream: float
    """a mask, before its first byte"""
    mask: float
    """a byte of a mask, made and added"""
    encode: float
    """a coordinate: clipped, rounded, lifted"""
    column: float
    """a step of packing or unpacking, for each block of 2^15 coordinates"""
    pack: float
    """a coordinate, beside that"""
    add: float
    centre: float
    deal_step: float
    """a coefficient of the polynomials with which secrets are dealt"""
    deal: float
    """the same for each holder and value that it is given"""
    rebuild: float
    """a secret from t shares, over t^2"""
    share: float
    """a share of a secret, read and kept by the server"""
    item: float
    """an item of a message, written or read"""
    header: float
    """the same of the header of an upload"""
    record: float
    """the same of what has only plain fields"""
    climb: float
    """a node of a Merkle tree, checked"""
    prove: float
    """a node of a Merkle tree, looked up"""
    member: float
    """a bit of a set of clients, read"""
    order: float
    """a client's place in the graph, over log2 n"""
    scan: float
    """an element of a list, looked at"""
    uniform: float = 0
    """a residue of a public polynomial"""
    gaussian: float = 0
    """a sample, narrow"""
    flood: float = 0
    """a sample, wide"""
    transform: float = 0
    """a residue, at N = 4096"""
    product: float = 0
    """a residue of a product of evaluations, transformed back, at N = 4096"""
    lift: float = 0
    """a residue for each column"""
    residue_pack: float = 0
    residue_unpack: float = 0
    residue_add: float = 0
    decode: float = 0
    """a residue of a sum"""
    split: float = 0
    """a product in the field with which packed shares are made"""
    ckks_keys: float = 0
    """a pair of keys"""
    ckks_check: float = 0
    """a public key, read"""
    ckks_encrypt: float = 0
    """a ciphertext"""
    ckks_add: float = 0
    ckks_decrypt: float = 0
    ckks_public_bytes: float = 0
    ckks_secret_bytes: float = 0
    ckks_ciphertext_bytes: float = 0
    ckks_sum_bytes: float = 0

    def __post_init__(self) -> None:
        if not all(isfinite(getattr(self, field.name)) and getattr(self, field.name) >= 0 for field in fields(self)):
            raise UsageError("what something costs is a number, and not negative")


def measure(repeats: int, lattice: bool = True, ckks: bool = True) -> Units:
    """All of them; those of the lattice only with numba, those of CKKS only with TenSEAL (and where they matter)."""
    found = {**_vectors(repeats), **_shares(repeats), **_messages(repeats), **_keys(repeats)}
    if lattice and find_spec("numba") is not None:
        found |= _lattice(repeats)
    if ckks and find_spec("tenseal") is not None:
        found |= measure_ckks(repeats)
    return Units(**found)


_LEAST_SECONDS = 0.001
_OTHER = np.ones(1 << 20)
"""What fills the caches between trials, as other work does between the frames of a round."""


def processor_seconds() -> float:
    """Of this process and those that it has started, which do the work of CKKS (Linux)."""
    seconds = process_time()
    try:
        for child in Path(f"/proc/self/task/{get_native_id()}/children").read_text().split():
            seconds += int(Path(f"/proc/{child}/schedstat").read_text().split()[0]) / 1e9
    except OSError:
        raise UsageError("processor time of other processes is read from /proc, which has none here") from None
    return seconds


def seconds_of(work: Callable[[], object], repeats: int, clock: Callable[[], float] = process_time) -> float:
    """Of one call: the median of several trials, each long enough to be timed. Processor seconds, unless said."""
    work()
    times, trials = 1, list[float]()
    while len(trials) < repeats:
        np.add(_OTHER, 1, out=_OTHER)
        started = clock()
        for _ in range(times):
            work()
        took = clock() - started
        if took < _LEAST_SECONDS:
            times *= 4
        else:
            trials.append(took / times)
    return median(trials)


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
        np.add(_OTHER, 1, out=_OTHER)
        started = process_time()
        frame = client.start(plan, np.zeros(plan.encoding.length))
        began.append(process_time() - started)
        np.add(_OTHER, 1, out=_OTHER)
        started = process_time()
        server.receive(identity.name, frame)
        heard.append(process_time() - started)
    return median(began), median(heard)


def _vectors(repeats: int) -> dict[str, float]:
    d, ring = 1 << 18, Ring(25)
    plan, update = _plan(20, d), np.arange(d) % 1000
    words, seeds = ring.lift(update), [os.urandom(32) for _ in range(8)]
    short, columns = ring.zeros(16), columns_of(ring.bits, d)
    column = seconds_of(lambda: ring.pack(words[:1]), repeats) / columns_of(ring.bits, 1)

    def encode() -> object:
        return plan.ring.lift(plan.encode_update(update, 1, Prg(bytes(32))))

    opened = seconds_of(lambda: add_masks(short, seeds), repeats)
    other = words.copy()
    return {
        "encode": seconds_of(encode, repeats) / d,
        "column": column,
        "pack": max(seconds_of(lambda: ring.pack(words), repeats) - columns * column, 0) / d,
        "add": seconds_of(lambda: np.add(other, words, out=other), repeats) / d,
        "centre": seconds_of(lambda: ring.centred(words), repeats) / d,
        "stream": opened / len(seeds),
        "mask": (seconds_of(lambda: add_masks(words, seeds), repeats) - opened) / (len(seeds) * words.nbytes),
    }


def columns_of(bits: int, d: int) -> int:
    """How many steps packing takes (``secagg.crypto.ring``): none for whole words.

    >>> columns_of(26, 10_000), columns_of(24, 10_000), columns_of(32, 10_000)
    (32, 8, 0)
    """
    return 0 if bits in (8, 16, 32, 64) else -(-d // (1 << 15)) * (64 // gcd(bits, 64))


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
    cohort, key, peer = Cohort(_plan(k + 1, 1), bytes(32), k + 1), AgreementKey(bytes(32)), AgreementKey(os.urandom(32))
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
    boxes = [dealing(u, [own]).delivered(own) for u in holders]
    exchange = Exchange(
        cohort, lambda u: [Position(v + u) for v in holders], t, len(secrets)
    )  # others each, as on a ring

    def take() -> None:
        for u in (own, holders[-1]):
            exchange.take(u, dealt)

    def check() -> None:
        for v in holders:
            exchange.check_share(own, v, 0, points[v][:SHARE_BYTES])

    def unbox() -> object:
        return opened(cohort, own, boxes, len(secrets), lambda u: cohort.pad_key(agreed, u, own))

    points = dealing().points
    found = {
        "box": max(seconds_of(dealing, repeats) - polynomials, 0) / k,
        "unbox": seconds_of(unbox, repeats) / k,
        "take": seconds_of(take, repeats) / (2 * k),
        "deliver": seconds_of(lambda: [exchange.delivered(own, v) for v in holders], repeats) / k,
    }
    exchange.keep_commitments(lambda dealer: 0)
    return found | {"check": seconds_of(check, repeats) / k}


def _messages(repeats: int) -> dict[str, float]:
    n, k = 1024, 100
    plan, messages = _plan(20, 1), registry.find("secagg").messages
    advert = Advert(Number(0), bytes(32), bytes(32), bytes(32), bytes(64))
    introduction = Introduction(bytes(32), n, Position(0), tuple(Neighbour(i, advert) for i in positions(k)), ())
    long = messages.encode(plan, introduction)
    headers = Survivors(b"", tuple(UploadHeader(i, bytes(k // 8), bytes(32), bytes(64)) for i in positions(k)))
    signed = Consents(tuple(SignedBy(i, bytes(64)) for i in range(k)), (), ())
    heard, consents = messages.encode(plan, headers), messages.encode(plan, signed)
    revealed = tuple(Revealed(i, pack_shares(np.zeros((1, 9), np.uint32))) for i in positions(k))
    shares = messages.encode(plan, Reveal(revealed, (), b""))

    collected = [dict[int, bytes]() for _ in range(n)]

    def read_shares() -> None:
        message = messages.decode(plan, shares)
        for one in message.self_shares if isinstance(message, Reveal) else ():
            held = collected[one.peer * 37 % n]
            if len(held) < k:
                held[one.peer] = one.share

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


def _lattice(repeats: int) -> dict[str, float]:
    from protocols.threshold_ckks.sizes import choose_sizes
    from secagg.crypto.lattice import VARIANCE, RunningSum, choose, uniform
    from secagg.crypto.lattice.flooding import flooding
    from secagg.crypto.packed import Sharing
    from secagg.crypto.sampling import discrete_gaussian

    d = 1 << 18
    layout = choose(Encoding.integers(d, 16), 1000).layout
    ring, count, blocks = layout.ring, layout.coefficients(d), layout.blocks(d)
    used, all_ = count * len(ring.primes), blocks * ring.degree * len(ring.primes)
    logs = log2(ring.degree) / 12
    values = np.arange(d, dtype=np.int64) % 1000
    errors = discrete_gaussian(VARIANCE, count, bytes(32))
    one = layout.encode(values, errors)
    public, secret = uniform(ring, blocks, bytes(32)), ring.lift([errors[: ring.degree]]).evaluations()
    packed, total = one.pack(count), RunningSum(ring, blocks)
    variance, sharing = choose_sizes(23, 100, 10**6).flooding, Sharing(4096, 10_000, 10, 20)
    wide = len(flooding(variance, 1, bytes(32))[0])
    sharing.split(errors[:4096], 60, os.urandom)
    return {
        "uniform": seconds_of(lambda: uniform(ring, blocks, bytes(32)), repeats) / all_,
        "gaussian": seconds_of(lambda: discrete_gaussian(VARIANCE, count, bytes(32)), repeats) / count,
        "flood": seconds_of(lambda: flooding(variance, count, bytes(32)), repeats) / (count * wide),
        "transform": seconds_of(one.evaluations, repeats) / (all_ * logs),
        "product": seconds_of(lambda: public.product(secret), repeats) / (all_ * logs),
        "lift": seconds_of(lambda: layout.encode(values, errors), repeats) / (used * (layout.values + 1)),
        "residue_pack": seconds_of(lambda: one.pack(count), repeats) / used,
        "residue_unpack": seconds_of(lambda: ring.unpack(packed, count), repeats) / used,
        "residue_add": seconds_of(lambda: total.add(one), repeats) / all_,
        "decode": seconds_of(lambda: layout.decode(one, d), repeats) / used,
        "split": seconds_of(lambda: sharing.split(errors[:4096], 60, os.urandom), repeats)
        / (sharing.polynomials * sharing.threshold * (60 - sharing.private)),
    }


def measure_ckks(repeats: int) -> dict[str, float]:
    """Of CKKS, sizes included: those are TenSEAL's, which compresses."""
    from protocols.ckks import engine
    from protocols.ckks.layout import SLOTS, Layout

    layout = Layout.choose(26, 100, 8 * SLOTS)
    pair, values = engine.make_keys(), np.arange(8 * SLOTS, dtype=np.int64)
    sent = engine.encrypt(layout, pair.public, values)
    adder = engine.Adder(layout)
    for _ in range(4):
        adder.add(sent)
    total = adder.total()
    return {
        "ckks_keys": seconds_of(engine.make_keys, repeats, processor_seconds),
        "ckks_check": seconds_of(lambda: engine.check_public(pair.public), repeats, processor_seconds),
        "ckks_encrypt": seconds_of(lambda: engine.encrypt(layout, pair.public, values), repeats, processor_seconds) / 8,
        "ckks_add": seconds_of(lambda: adder.add(sent), repeats, processor_seconds) / 8,
        "ckks_decrypt": seconds_of(lambda: engine.decrypt(layout, pair.secret, total), repeats, processor_seconds) / 8,
        "ckks_public_bytes": len(pair.public),
        "ckks_secret_bytes": len(pair.secret),
        "ckks_ciphertext_bytes": sum(map(len, sent)) / 8,
        "ckks_sum_bytes": sum(map(len, total)) / 8,
    }
