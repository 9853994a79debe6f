"""What a round under pairwise masks costs, on paper."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from statistics import mean

from protocols.costs.pieces import (
    CLIENT,
    REVEALED,
    SIGNED,
    begun,
    bitmap_of,
    carried,
    dealt,
    heard,
    ordered,
    silenced,
    weighing,
)
from protocols.costs.proofs import DRAWN_UP_TO, DRAWS, SEED, Proof, mean_of, order, proof_of, random_proof
from protocols.costs.roles import Cost, CostOf, Role, Step
from protocols.costs.units import UnitCosts
from protocols.pairwise import messages
from protocols.pairwise.parameters import parameters_of
from protocols.parameters import ENFORCED_UP_TO
from protocols.plan import RoundPlan
from protocols.rounds import dealing as exchange
from protocols.rounds.survivors import ConsistencySignature
from protocols.wire import HEADER_BYTES
from secagg.codec import u32, u64
from secagg.crypto.dealing import ELEMENT_BYTES, RESPONSE_BYTES, width
from secagg.crypto.graph import Graph, GraphParameters
from secagg.crypto.merkle import HASH_BYTES, NODE
from secagg.crypto.prg import Prg
from secagg.crypto.shamir import LIMBS, SHARE_BYTES

frame_of = weighing(messages.TYPES)
BOX = ELEMENT_BYTES * width(messages.SECRETS) + exchange.COMMITMENT_BYTES * messages.SECRETS
DELIVERED = u32.least + BOX + HASH_BYTES + RESPONSE_BYTES


def masked(plan: RoundPlan, silent: int, units: UnitCosts) -> Cost:
    u, n, d, left = units, plan.clients, plan.encoding.coordinates, plan.clients - silent
    graph, ring = parameters_of(plan), plan.ring
    t, k, word = graph.threshold, graph.degree, ring.dtype.itemsize
    complete = graph.graph is Graph.COMPLETE
    h = n if complete else k  # holders of a client's shares
    alive = k * (left - 1) / (n - 1)  # neighbours of a survivor that are left
    least = plan.min_contributors if n <= ENFORCED_UP_TO else 0
    signers, strangers = (max(t, least), Proof(0, 0, 0)) if complete else signers_shown(n, left, graph, least)
    introduced, vector = random_proof(n, k + 1), ring.packed_size(d)
    header = frame_of(messages.Upload) - HEADER_BYTES - u64.least + bitmap_of(h)  # an upload without its vector

    plan_bytes, advert = float(len(plan.encode())), frame_of(messages.Advert)
    introduction = frame_of(messages.Introduction, k * (u32.least + messages.ADVERT.least), introduced.size)
    boxes = frame_of(exchange.Dealt, k * BOX, t * RESPONSE_BYTES)
    delivery, complaints = frame_of(exchange.Delivery, k * DELIVERED), frame_of(exchange.Complaints)
    verdict = frame_of(messages.Verdict, bitmap_of(h))
    upload = frame_of(messages.Upload, bitmap_of(h), vector)
    survivors = frame_of(messages.Survivors, bitmap_of(n), alive * header)
    consent = frame_of(ConsistencySignature)
    consents = frame_of(messages.ConsistencySignatures, signers * SIGNED, strangers.leaves * NODE.least, strangers.size)
    reveal = frame_of(messages.Reveal, h * REVEALED)

    looked_up, sharing = 4 * u.item + h * u.scan, dealt(u, t, h, 2)
    one_mask = u.stream + u.mask * word * d
    meeting = k * (u.verify + 2 * u.item) + u.sign + introduced.steps * u.climb + ordered(u, n) + looked_up
    dealing = sharing + k * (u.box + u.record)
    opening = k * (u.unbox + u.record)
    again = sharing + k * (u.box - u.agree) if complete else 0  # its own share it makes again
    masking = again + k * u.agree + (k + 1) * one_mask + u.pack * d + u.hash * vector + u.sign
    checking = alive * (u.verify + u.header + looked_up + h * u.member) + n * u.member + u.sign
    signed = signers * (u.verify + u.item) + strangers.steps * u.climb + 4 * n * u.member
    client = Role(
        "client",
        left,
        (
            Step("advertise", plan_bytes, advert, begun(u, d)),
            Step("share", introduction, boxes, carried(u, introduction, boxes) + meeting + dealing),
            Step("complain", delivery, complaints, carried(u, delivery, complaints) + opening),
            Step("upload", verdict, upload, carried(u, verdict, upload) + masking),
            Step("consistency", survivors, consent, carried(u, survivors, consent) + checking),
            Step("reveal", consents, reveal, carried(u, consents, reveal) + signed + h * u.item),
        ),
    )
    adding = u.verify + u.hash * vector + u.add * d + looked_up + h * (u.member + 3 * u.scan)
    telling = (k + 2 * signers) * u.scan + strangers.steps * u.prove
    rebuilding = n * (u.rebuild * t * t + 4 * u.item) + silent * u.agree
    removing = u.centre * d + left * one_mask + silent * alive * (u.agree + one_mask)
    server = {
        "advertise": n * (heard(u, advert) + u.verify + 2 * u.item + u.climb + looked_up) + ordered(u, n),
        "share": n * (2 * u.item + k * (5 * u.scan + u.take) + introduced.steps * u.prove + heard(u, boxes)),
        "complain": n * (k * (u.deliver + 2 * u.scan) + u.frame),
        "upload": n * h * 2 * u.scan + left * (heard(u, upload) + u.frame + adding),
        "consistency": left * (u.header + alive * 3 * u.scan + u.verify + heard(u, consent)) + n * u.member,
        "reveal": left * (u.record + heard(u, reveal) + telling + h * (u.share + u.check)) + rebuilding + removing,
    }
    memory = _masked_memory(n, d, h, t, word, vector)
    return Cost((client, silenced(client, "upload", silent, left)), server, memory)


def _masked_memory(n: int, d: int, h: int, t: int, word: int, vector: int) -> float:
    """While uploads come, a box, a holder, an entry in a set for each neighbour; later shares, and their rebuilding."""
    links = n * h * (_LISTED + _IN_SET)
    uploading = links + n * h * (BOX + RESPONSE_BYTES) + d * word + 3 * vector  # a frame, its vector, padded, unpacked
    kept = n * h * exchange.COMMITMENT_BYTES + n * t * (SHARE_BYTES + _KEPT_SHARE)
    revealing = links + kept + 3 * 8 * LIMBS * n * t + 2 * 8 * d
    return n * CLIENT + d * word + max(uploading, revealing)


_LISTED, _IN_SET, _KEPT_SHARE = 40, 90, 110
"""Bytes of a number in a tuple and in a set, which is half empty, and what an entry of a dictionary takes beside its
value."""


@lru_cache(maxsize=1024)
def signers_shown(width: int, left: int, graph: GraphParameters, least: int) -> tuple[float, Proof]:
    """(signatures, proof for the strangers among the signers) that a client of a ring is sent, on average.

    The first t of its neighbours, a quorum of witnesses (neighbours among them first), and as many others as make
    ``least``. Above ``DRAWN_UP_TO`` clients this follows from expectations, and ``least`` plays no part.
    """
    k, t, w, q = graph.degree, graph.threshold, graph.witnesses, graph.quorum
    if width > DRAWN_UP_TO:
        strangers = q - min(w * k / width * left / width, q)
        return t + q - min(t * w / width, q), random_proof(width, round(strangers))
    lots, counts, proofs = Prg(SEED), list[int](), list[Proof]()
    for _ in range(DRAWS):
        u, *others = order(lots, width)[:left]
        alive = sorted([u, *others])
        known = {u, *[v for v in order(lots, width) if v != u][:k]}
        witnesses = {*order(lots, width)[:w]}
        chosen = {*[v for v in alive if v in known and v != u][:t]}
        chosen |= {*sorted((v for v in alive if v in witnesses), key=lambda v: v not in known)[:q]}
        chosen |= {*[v for v in alive if v not in chosen][: max(least - len(chosen), 0)]}
        counts.append(len(chosen))
        proofs.append(proof_of(width, chosen - known))
    return mean(counts), mean_of(proofs)


COSTS: Mapping[str, CostOf] = {"secagg": masked, "secagg+": masked}
