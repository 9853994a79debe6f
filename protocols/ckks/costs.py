"""What a round under CKKS costs, on paper."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from protocols.ckks import messages
from protocols.ckks.layout import SLOTS
from protocols.ckks.parameters import layout_of, parameters_of
from protocols.costs.pieces import CLIENT, SIGNED, begun, bitmap_of, carried, heard, ordered, silenced, weighing
from protocols.costs.proofs import DRAWS, SEED, Proof, mean_of, order, proof_of, random_proof
from protocols.costs.roles import Cost, CostOf, Role, Step
from protocols.costs.units import UnitCosts
from protocols.plan import RoundPlan
from protocols.rounds.survivors import ConsistencySignature
from secagg.codec import u32
from secagg.crypto.merkle import NODE
from secagg.crypto.prg import Prg
from secagg.crypto.seal import OVERHEAD_BYTES

frame_of = weighing(messages.TYPES)


def ckks_round(plan: RoundPlan, silent: int, units: UnitCosts) -> Cost:
    u, n, d, left = units, plan.clients, plan.encoding.coordinates, plan.clients - silent
    makers, layout = parameters_of(plan).makers, layout_of(plan)
    chunks, signers = -(-layout.slots // SLOTS), max(plan.min_contributors, 2)
    ciphertext, total = u.ckks_ciphertext_bytes, u.ckks_sum_bytes
    sent, packed = chunks * (u32.least + ciphertext), plan.ring.packed_size(d)
    signed_by = first_signers_proof(n, left, signers)
    reading = (u.add + u.centre) * d
    offered = u.ckks_public_bytes + u.ckks_secret_bytes + OVERHEAD_BYTES

    plan_bytes, advert = float(len(plan.encode())), frame_of(messages.Advert)
    made = OVERHEAD_BYTES + messages.MADE.least + offered + makers * messages.BOX_BYTES
    upload = frame_of(messages.Upload, OVERHEAD_BYTES + messages.ENCRYPTED.least + sent)
    survivors, consent = frame_of(messages.Survivors, bitmap_of(n)), frame_of(ConsistencySignature)

    def steps(maker: bool) -> tuple[Step, ...]:
        known = random_proof(n, makers + (not maker))
        introduction = frame_of(
            messages.Introduction, (makers - maker) * (u32.least + messages.ADVERT.least), known.size
        )
        ready = frame_of(messages.Ready, made if maker else 0)
        shown = frame_of(messages.KeyShown, u.ckks_public_bytes)
        aggregate = frame_of(messages.Aggregate, signers * SIGNED, (signed_by.leaves - 1) * NODE.least, signed_by.size)
        answer = frame_of(messages.Answer)
        making = opening = decrypting = 0.0
        if maker:
            shown += u.ckks_secret_bytes + OVERHEAD_BYTES + messages.BOX_BYTES
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
    roles = [holders, silenced(holders, "upload", silent, left)]
    if makers < n:
        client = Role("client", (n - makers) * left / n, steps(False))
        roles += [client, silenced(client, "upload", silent, left)]
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


@lru_cache(maxsize=1024)
def first_signers_proof(width: int, left: int, signers: int) -> Proof:
    """The mean proof that the first ``signers`` clients that are left, and one more, are in the tree."""
    lots, proofs = Prg(SEED), list[Proof]()
    for _ in range(DRAWS):
        one, *others = order(lots, width)[:left]
        proofs.append(proof_of(width, {one, *sorted([one, *others])[:signers]}))
    return mean_of(proofs)


COSTS: Mapping[str, CostOf] = {"ckks": ckks_round}
