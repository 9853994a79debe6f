"""What rounds under homomorphic encryption cost, on paper: the model of ``costs``, for the other protocols.

Vectors become polynomials: ``count`` coefficients are used, each a residue for each prime, in whole blocks of N.
"""

from __future__ import annotations

from dataclasses import replace
from math import log2

from benchmarks.studies.scale.costs import (
    CLIENT,
    REVEALED,
    SIGNED,
    Cost,
    Deployment,
    Role,
    Step,
    begun,
    bitmap_of,
    carried,
    dealt,
    first_signers_proof,
    frame_of,
    heard,
    ordered,
    packing,
    random_proof,
    silenced,
)
from benchmarks.studies.scale.unit_costs import UnitCosts
from protocols.ckks import messages as ckks
from protocols.ckks.layout import SLOTS
from protocols.ckks.parameters import layout_of
from protocols.ckks.parameters import parameters_of as makers_of
from protocols.oneshot import messages as oneshot
from protocols.oneshot.parameters import lattice_of, sharing_of
from protocols.oneshot.parameters import parameters_of as committee_of
from protocols.plan import RoundPlan
from protocols.rounds import dealing as exchange
from protocols.rounds.survivors import ConsistencySignature
from protocols.threshold_ckks import messages as threshold
from protocols.threshold_ckks.parameters import least_of, sizes_of
from protocols.threshold_ckks.parameters import parameters_of as threshold_of
from secagg.codec import u32
from secagg.crypto.dealing import ELEMENT_BYTES, RESPONSE_BYTES, width
from secagg.crypto.keys import SIGNATURE_BYTES
from secagg.crypto.lattice.flooding import parts
from secagg.crypto.merkle import HASH_BYTES, NODE
from secagg.crypto.seal import OVERHEAD_BYTES

# One-shot.


def oneshot_round(deployment: Deployment, plan: RoundPlan, units: UnitCosts) -> Cost:
    u, n, d, left = units, deployment.n, deployment.d, deployment.left
    committee, layout, sharing = committee_of(plan), lattice_of(plan).layout, sharing_of(plan)
    m, quorum, primes = committee.members, committee.quorum, len(layout.ring.primes)
    count, logs = layout.coefficients(d), log2(layout.ring.degree) / 12
    used, every, one = count * primes, layout.blocks(d) * layout.ring.degree * primes, layout.ring.degree * primes
    vector, box = layout.ring.packed_size(count), sharing.share_bytes + OVERHEAD_BYTES
    split = u.split * sharing.polynomials * sharing.threshold

    plan_bytes, seat = float(len(plan.encode())), oneshot.MEMBER.least
    seats = frame_of(oneshot.Members, m * seat)
    upload = frame_of(oneshot.Upload, vector, m * box)
    delivery = frame_of(oneshot.Delivery, left * (oneshot.HEADER.least + u32.least + box))
    consent = frame_of(oneshot.Vote, SIGNATURE_BYTES)
    consents = frame_of(oneshot.ConsistencySignatures, bitmap_of(n), quorum * SIGNED)
    answer = frame_of(oneshot.Answer)

    encrypting = (
        u.uniform * every
        + u.gaussian * (layout.ring.degree + count)
        + (u.lift + u.transform * logs) * one
        + u.product * logs * every
        + u.lift * used * (layout.values + 1)
        + u.residue_add * every
        + u.residue_pack * used
    )
    dealing = split * (m - sharing.private) + m * (u.box + u.seal * box)
    hashing = u.hash * (vector + m * box + 8 * d)
    uploading = m * (u.verify + 2 * u.item) + encrypting + dealing + hashing + u.sign + u.agree
    agreed = quorum * (u.verify + u.item) + 2 * n * u.member
    opened = left * (u.verify + u.box + (u.seal + u.hash) * (box + oneshot.HEADER.least) + 4 * u.item)

    def steps(member: bool) -> tuple[Step, ...]:
        join = frame_of(oneshot.Join, seat if member else 0)
        said = frame_of(oneshot.Answer, sharing.share_bytes) if member else answer
        consenting = Step("consistency", delivery, consent, carried(u, delivery, consent) + opened + u.sign)
        return (
            Step("join", plan_bytes, join, begun(u, d) + ordered(u, n) / 2),
            Step("upload", seats, upload, carried(u, seats, upload) + uploading),
            *([consenting] if member else []),
            Step("reveal", consents, said, carried(u, consents, said) + agreed),
        )

    members = Role("member", m * left / n, steps(True))
    gone = silenced(deployment, members, "upload")
    roles = [
        members,
        replace(gone, steps=(*gone.steps, Step("consistency", delivery, 0, 0))),
    ]
    if m < n:
        outsiders = Role("client", (n - m) * left / n, steps(False))
        roles += [outsiders, silenced(deployment, outsiders, "upload")]
    adding = u.residue_unpack * used + u.residue_add * every
    taking = heard(u, upload) + u.frame + u.verify + u.hash * (vector + m * box) + adding
    rebuilding = u.split * sharing.polynomials * sharing.packing * quorum
    opening = (u.uniform + u.product * logs) * every + u.decode * used + u.residue_add * every
    server = {
        "join": n * u.frame + m * u.verify + ordered(u, n),
        "upload": n * (m * u.record + u.frame) + left * taking,
        "consistency": m * left * 2 * u.item + members.count * (u.frame + u.verify) + n * u.member,
        "reveal": left * (quorum * u.record + u.hash * bitmap_of(n) + u.frame) + rebuilding + opening,
    }
    arriving = 2 * upload + 4 * used + 4 * every
    kept = n * (CLIENT / 2) + left * (m * box + 600)
    memory = kept + 4 * every + max(arriving, 2 * delivery, 4 * every + 8 * d)
    return Cost(tuple(roles), server, memory)


# Threshold CKKS.


def threshold_round(deployment: Deployment, plan: RoundPlan, units: UnitCosts) -> Cost:
    u, n, d, left = units, deployment.n, deployment.d, deployment.left
    sizes, t, least = sizes_of(plan), threshold_of(plan).threshold, least_of(plan)
    ring, gone = sizes.layout.ring, deployment.silent
    primes, logs = len(ring.primes), log2(ring.degree) / 12
    used, every, one = sizes.count * primes, sizes.blocks * ring.degree * primes, ring.degree * primes
    columns, whole = len(parts(sizes.flooding)), sizes.blocks * ring.degree
    box = ELEMENT_BYTES * width(threshold.SECRETS) + exchange.COMMITMENT_BYTES * threshold.SECRETS

    plan_bytes, advert = float(len(plan.encode())), frame_of(threshold.Advert)
    introduction = frame_of(threshold.Introduction, n * threshold.ADVERT.least)
    part = frame_of(threshold.Part, sizes.key_bytes, (n - 1) * box, t * RESPONSE_BYTES)
    delivery = frame_of(exchange.Delivery, (n - 1) * (u32.least + box + HASH_BYTES + RESPONSE_BYTES))
    complaints = frame_of(exchange.Complaints)
    joint = frame_of(threshold.JointKey, bitmap_of(n), sizes.key_bytes)
    upload = frame_of(threshold.Upload, sizes.c0_bytes, sizes.c1_bytes)
    survivors = frame_of(threshold.Survivors, bitmap_of(n))
    consent = frame_of(ConsistencySignature)
    aggregate = frame_of(threshold.Aggregate, least * SIGNED, sizes.c1_bytes)
    answer = frame_of(threshold.Answer, sizes.c0_bytes)
    missing = frame_of(threshold.Missing, bitmap_of(n))
    agreements = frame_of(threshold.Agreements, t * SIGNED)
    recovery = frame_of(threshold.Recovery, gone * REVEALED)

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
    return Cost((client, silenced(deployment, client, "upload")), server, memory)


# CKKS.


def ckks_round(deployment: Deployment, plan: RoundPlan, units: UnitCosts) -> Cost:
    u, n, d, left = units, deployment.n, deployment.d, deployment.left
    makers, layout = makers_of(plan).makers, layout_of(plan)
    chunks, signers = -(-layout.slots // SLOTS), max(deployment.minimum, 2)
    ciphertext, total = u.ckks_ciphertext_bytes, u.ckks_sum_bytes
    sent, packed = chunks * (u32.least + ciphertext), plan.ring.packed_size(d)
    signed_by = first_signers_proof(n, left, signers)
    reading = packing(u, plan.ring_bits, d) + u.centre * d
    offered = u.ckks_public_bytes + u.ckks_secret_bytes + OVERHEAD_BYTES

    plan_bytes, advert = float(len(plan.encode())), frame_of(ckks.Advert)
    made = OVERHEAD_BYTES + ckks.MADE.least + offered + makers * ckks.BOX_BYTES
    upload = frame_of(ckks.Upload, OVERHEAD_BYTES + ckks.ENCRYPTED.least + sent)
    survivors, consent = frame_of(ckks.Survivors, bitmap_of(n)), frame_of(ConsistencySignature)

    def steps(maker: bool) -> tuple[Step, ...]:
        known = random_proof(n, makers + (not maker))
        introduction = frame_of(ckks.Introduction, (makers - maker) * (u32.least + ckks.ADVERT.least), known.size)
        ready = frame_of(ckks.Ready, made if maker else 0)
        shown = frame_of(ckks.KeyShown, u.ckks_public_bytes)
        aggregate = frame_of(ckks.Aggregate, signers * SIGNED, (signed_by.leaves - 1) * NODE.least, signed_by.size)
        answer = frame_of(ckks.Answer)
        making = opening = decrypting = 0.0
        if maker:
            shown += u.ckks_secret_bytes + OVERHEAD_BYTES + ckks.BOX_BYTES
            aggregate += chunks * (u32.least + total)
            answer += OVERHEAD_BYTES + packed
            making = u.ckks_keys + makers * u.box + u.sign + u.agree + (2 * u.hash + 2 * u.seal) * made
            opening = u.box + u.seal * u.ckks_secret_bytes
            decrypting = chunks * u.ckks_decrypt + reading + u.agree + u.seal * packed
        meeting = (makers - maker) * (u.verify + 2 * u.item) + u.sign + known.steps * u.climb + ordered(u, n) / 2
        agreed = signers * (u.verify + u.item) + signed_by.steps * u.climb + 2 * n * u.member + u.sign
        encrypting = chunks * u.ckks_encrypt + (u.hash + u.seal + 3 * u.copy) * sent + u.sign + u.agree
        taking = u.verify + u.ckks_check + u.hash * u.ckks_public_bytes
        return (
            Step("advertise", plan_bytes, advert, begun(u, d)),
            Step("key", introduction, ready, carried(u, introduction, ready) + meeting + making),
            Step("upload", shown, upload, carried(u, shown, upload) + taking + opening + encrypting),
            Step("consistency", survivors, consent, carried(u, survivors, consent) + n * u.member + u.sign),
            Step("reveal", aggregate, answer, carried(u, aggregate, answer) + agreed + decrypting),
        )

    holders = Role("maker", makers * left / n, steps(True))
    roles = [holders, silenced(deployment, holders, "upload")]
    if makers < n:
        client = Role("client", (n - makers) * left / n, steps(False))
        roles += [client, silenced(deployment, client, "upload")]
    taking = heard(u, upload) + u.agree + (u.seal + u.hash + 2 * u.copy) * sent + u.verify + chunks * u.ckks_add
    server = {
        "advertise": n * (u.frame + u.verify + 2 * u.item + u.climb) + ordered(u, n) / 2,
        "key": n * (makers * 2 * u.item + u.frame + random_proof(n, min(makers + 1, n)).steps * u.prove)
        + makers * (u.agree + u.verify + (u.seal + 2 * u.hash) * made),
        "upload": n * (u.frame + u.hash * u.ckks_public_bytes) + left * taking,
        "consistency": left * (u.frame + u.verify) + n * u.member,
        "reveal": left * (2 * signers * u.item + signed_by.steps * u.prove)
        + holders.count * (u.agree + u.hash * total * chunks + u.seal * packed + reading),
    }
    kept = n * CLIENT + min(left * sent, _KEPT)
    memory = kept + makers * offered + 3 * sent + holders.count * 8 * d
    return Cost(tuple(roles), server, memory)


_KEPT = 256 << 20
"""Uploads kept by ``protocols.ckks.ciphertexts`` until their sum is saved."""
