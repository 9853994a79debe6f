"""What a round under threshold CKKS costs, on paper.

Vectors become polynomials: ``count`` coefficients are used, each a residue for each prime, in whole blocks of N.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import log2

from protocols.costs.pieces import CLIENT, REVEALED, SIGNED, begun, bitmap_of, carried, dealt, heard, silenced, weighing
from protocols.costs.roles import Cost, CostOf, Role, Step
from protocols.costs.units import UnitCosts
from protocols.plan import RoundPlan
from protocols.rounds import dealing as exchange
from protocols.rounds.survivors import ConsistencySignature
from protocols.threshold_ckks import messages
from protocols.threshold_ckks.parameters import least_of, parameters_of, sizes_of
from secagg.codec import u32
from secagg.crypto.dealing import ELEMENT_BYTES, RESPONSE_BYTES, width
from secagg.crypto.lattice.flooding import parts
from secagg.crypto.merkle import HASH_BYTES

frame_of = weighing(messages.TYPES)


def threshold_round(plan: RoundPlan, silent: int, units: UnitCosts) -> Cost:
    u, n, d, left = units, plan.clients, plan.encoding.coordinates, plan.clients - silent
    sizes, t, least = sizes_of(plan), parameters_of(plan).threshold, least_of(plan)
    ring, gone = sizes.layout.ring, silent
    primes, logs = len(ring.primes), log2(ring.degree) / 12
    used, every, one = sizes.count * primes, sizes.blocks * ring.degree * primes, ring.degree * primes
    columns, whole = len(parts(sizes.flooding)), sizes.blocks * ring.degree
    box = ELEMENT_BYTES * width(messages.SECRETS) + exchange.COMMITMENT_BYTES * messages.SECRETS

    plan_bytes, advert = float(len(plan.encode())), frame_of(messages.Advert)
    introduction = frame_of(messages.Introduction, n * messages.ADVERT.least)
    part = frame_of(messages.Part, sizes.key_bytes, (n - 1) * box, t * RESPONSE_BYTES)
    delivery = frame_of(exchange.Delivery, (n - 1) * (u32.least + box + HASH_BYTES + RESPONSE_BYTES))
    complaints = frame_of(exchange.Complaints)
    joint = frame_of(messages.JointKey, bitmap_of(n), sizes.key_bytes)
    upload = frame_of(messages.Upload, sizes.c0_bytes, sizes.c1_bytes)
    survivors = frame_of(messages.Survivors, bitmap_of(n))
    consent = frame_of(ConsistencySignature)
    aggregate = frame_of(messages.Aggregate, least * SIGNED, sizes.c1_bytes)
    answer = frame_of(messages.Answer, sizes.c0_bytes)
    missing = frame_of(messages.Missing, bitmap_of(n))
    agreements = frame_of(messages.Agreements, t * SIGNED)
    recovery = frame_of(messages.Recovery, gone * REVEALED)

    secret = u.gaussian * ring.degree + (u.lift + u.transform * logs) * one
    key_part = secret + u.gaussian * ring.degree + (u.lift + u.product * logs + 2 * u.residue_add) * one
    keyed = key_part + u.residue_pack * one + u.hash * sizes.key_bytes
    encrypting = (
        u.gaussian * (2 * whole + sizes.count)
        + (2 * u.lift + u.transform * logs) * every
        + (u.residue_unpack + u.transform * logs) * one
        + 2 * u.product * logs * every
        + u.lift * used * (sizes.layout.values + 1)
        + u.residue_pack * (used + every)
        + u.hash * (upload + 8 * d + sizes.key_bytes)
    )
    decrypting = (
        u.flood * columns * sizes.count
        + u.lift * columns * used
        + secret
        + (u.residue_unpack + u.transform * logs + u.product * logs + u.residue_add) * every
        + u.residue_pack * used
        + u.hash * (sizes.c1_bytes + sizes.c0_bytes)
    )
    meeting = n * (u.verify + 2 * u.item + u.climb) + u.sign
    dealing = dealt(u, t, n, 1) + (n - 1) * (u.box + u.item)
    opening = (n - 1) * (u.box - u.agree + u.share)
    agreed = least * (u.verify + u.item) + n * u.member
    telling = t * (u.verify + u.item) + gone * u.item + u.sign
    client = Role(
        "client",
        left,
        (
            Step("advertise", plan_bytes, advert, begun(u, d) + keyed),
            Step("key", introduction, part, carried(u, introduction, part) + meeting + dealing + keyed),
            Step("complain", delivery, complaints, carried(u, delivery, complaints) + opening),
            Step("upload", joint, upload, carried(u, joint, upload) + encrypting + u.sign),
            Step("consistency", survivors, consent, carried(u, survivors, consent) + n * u.member + u.sign),
            Step("decrypt", aggregate, answer, carried(u, aggregate, answer) + agreed + decrypting + u.sign),
            Step("missing", missing, consent, carried(u, missing, consent) + n * u.member + u.sign),
            Step("recover", agreements, recovery, carried(u, agreements, recovery) + telling),
        ),
    )
    adding = (u.residue_unpack + u.residue_add) * (used + every)
    recovering = gone * (u.rebuild * t * t + keyed + secret) + bool(gone) * (u.transform + u.product) * logs * every
    server = {
        "advertise": n * (heard(u, advert) + u.verify + u.item + u.climb),
        "key": n * (2 * n * u.item + heard(u, part) + u.hash * (sizes.key_bytes + n * box) + u.residue_unpack * one)
        + dealt(u, t, n, 1) * n,
        "complain": n * (n * (u.record + 4 * u.scan) + u.frame + 3 * u.copy * delivery) + n * u.residue_add * one,
        "upload": n * (u.frame + 3 * u.copy * joint)
        + left * (heard(u, upload) + u.frame + u.verify + u.hash * upload + adding),
        "consistency": left * (u.frame + u.verify) + n * u.member + u.residue_pack * every + u.hash * sizes.c1_bytes,
        "decrypt": left * (least * u.item + 3 * u.copy * aggregate)
        + left * (heard(u, answer) + u.verify + u.hash * answer + u.residue_unpack * used + u.residue_add * every),
        "missing": left * (u.verify + u.frame),
        "recover": left * (t * u.item + u.verify + u.frame + gone * (u.share + u.item))
        + recovering
        + u.residue_add * every
        + u.decode * used,
    }
    keys = n * (4 * one + n * (box + RESPONSE_BYTES))  # until it is known whose parts are added
    kept = n * (CLIENT + n * exchange.COMMITMENT_BYTES)
    adding_up = kept + 4 * one + 12 * every + max(2 * upload + 8 * every, 12 * every + 8 * d)
    memory = max(n * CLIENT + keys + 12 * every, adding_up)
    return Cost((client, silenced(client, "upload", silent, left)), server, memory)


COSTS: Mapping[str, CostOf] = {"threshold_ckks": threshold_round}
