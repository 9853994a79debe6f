"""What a one-shot round costs, on paper.

Vectors become polynomials: ``count`` coefficients are used, each a residue for each prime, in whole blocks of N.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import log2

from protocols.costs.pieces import CLIENT, SIGNED, begun, bitmap_of, carried, heard, ordered, silenced, weighing
from protocols.costs.roles import Cost, CostOf, Role, Step
from protocols.costs.units import UnitCosts
from protocols.oneshot import messages
from protocols.oneshot.parameters import lattice_of, parameters_of, sharing_of
from protocols.plan import RoundPlan
from secagg.codec import u32
from secagg.crypto.keys import SIGNATURE_BYTES
from secagg.crypto.seal import OVERHEAD_BYTES

frame_of = weighing(messages.TYPES)


def oneshot_round(plan: RoundPlan, silent: int, units: UnitCosts) -> Cost:
    u, n, d, left = units, plan.clients, plan.encoding.coordinates, plan.clients - silent
    committee, layout, sharing = parameters_of(plan), lattice_of(plan).layout, sharing_of(plan)
    m, quorum, primes = committee.members, committee.quorum, len(layout.ring.primes)
    count, logs = layout.coefficients(d), log2(layout.ring.degree) / 12
    used, every, one = count * primes, layout.blocks(d) * layout.ring.degree * primes, layout.ring.degree * primes
    vector, box = layout.ring.packed_size(count), sharing.share_bytes + OVERHEAD_BYTES
    split = u.split * sharing.polynomials * sharing.threshold

    plan_bytes, seat = float(len(plan.encode())), messages.MEMBER.least
    seats = frame_of(messages.Members, m * seat)
    upload = frame_of(messages.Upload, vector, m * box)
    delivery = frame_of(messages.Delivery, left * (messages.HEADER.least + u32.least + box))
    consent = frame_of(messages.Vote, SIGNATURE_BYTES)
    consents = frame_of(messages.ConsistencySignatures, bitmap_of(n), quorum * SIGNED)
    answer = frame_of(messages.Answer)

    encrypting = (
        u.uniform * every
        + u.gaussian * (layout.ring.degree + count)
        + (u.lift + u.transform * logs) * one
        + u.product * logs * every
        + u.lift * used * (layout.values + 1)
        + u.residue_pack * used
    )
    dealing = split * (m - sharing.private) + m * (u.box + u.seal * box)
    hashing = u.hash * (vector + m * box + plan.ring.dtype.itemsize * d)
    uploading = m * (u.verify + 2 * u.item) + encrypting + dealing + hashing + u.sign + u.agree
    agreed = quorum * (u.verify + u.item) + 2 * n * u.member
    opened = left * (u.verify + u.box + (u.seal + u.hash) * (box + messages.HEADER.least) + 4 * u.item)

    def steps(member: bool) -> tuple[Step, ...]:
        join = frame_of(messages.Join, seat if member else 0)
        said = frame_of(messages.Answer, sharing.share_bytes) if member else answer
        consenting = Step("consistency", delivery, consent, carried(u, delivery, consent) + opened + u.sign)
        return (
            Step("join", plan_bytes, join, begun(u, d) + ordered(u, n) / 2),
            Step("upload", seats, upload, carried(u, seats, upload) + uploading),
            *([consenting] if member else []),
            Step("reveal", consents, said, carried(u, consents, said) + agreed),
        )

    members = Role("member", m * left / n, steps(True))
    gone = silenced(members, "upload", silent, left)
    roles = [
        members,
        replace(gone, steps=(*gone.steps, Step("consistency", delivery, 0, 0))),
    ]
    if m < n:
        outsiders = Role("client", (n - m) * left / n, steps(False))
        roles += [outsiders, silenced(outsiders, "upload", silent, left)]
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


COSTS: Mapping[str, CostOf] = {"oneshot": oneshot_round}
