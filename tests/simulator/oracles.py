"""What a round promises, asked of its record. Each check raises ``Failure`` with the promise that was broken."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dp.calibrate import user_level
from dp.events import Holder, Relation
from dp.ledger.entries import parse
from dp.ledger.file import read
from dp.ledger.verify import verify
from dp.noise import Family, NoiseSpec
from dp.verify_ledger import problems
from protocols.oneshot.parameters import least_contributors
from protocols.pairwise.messages import Reveal
from protocols.roster import SERVER
from protocols.rounds.sets import from_bitmap
from secagg.crypto import labels
from secagg.crypto.keys import digest
from secagg.crypto.masking import add_masks
from secagg.errors import BudgetError, DecodeError, PeerError, StrayError, ThresholdError, UnblamedError
from tests.simulator.deployment import PAIRWISE, Deployment, Faults
from tests.simulator.leaks import Memory, check_oneshot, check_pairwise
from tests.simulator.moves import CLIENT_MOVES, DEALING
from tests.simulator.parties import UNMASKING, Record, insist

OPENS = {"secagg": "reveal", "secagg+": "reveal", "oneshot": "reveal", "ckks": "reveal", "threshold_ckks": "decrypt"}
"""The phase that opens the sum: what happened must be on record before anybody is asked for it."""


@dataclass(frozen=True)
class Noise:
    """What is over in a sum with noise, as the variance test wants it."""

    squares: float
    """Sum of squares over the planned variance."""
    coordinates: float
    spread: float
    """The same, weighted by half the variance of a normalised square: 1 for a Gaussian."""


def check(deployment: Deployment, record: Record, faults: Faults, corrupt: Iterable[Any], memory: Memory) -> bool:
    """All that is asked of any round. Whether the server, lying or not, can compute the sum that it may."""
    check_words(record)
    check_errors(deployment, record)
    if deployment.liar != SERVER:
        check_end(deployment, record, faults)
    plan = record.plan
    if plan.protocol in PAIRWISE:
        return check_pairwise(record, corrupt, memory)
    if plan.protocol == "oneshot":
        return check_oneshot(record, corrupt)
    if plan.protocol == "threshold_ckks":
        check_threshold(record)
    return record.outcome is not None


def check_words(record: Record) -> None:
    """Nobody honest says two things in one place, or reveals both kinds of share of anybody."""
    for (name, kind), frames in record.answers.items():
        insist(len(frames) == 1, "one answer a phase, whatever happens:", name, "said", len(frames), "times", kind)
    for name, reveal in record.from_clients(Reveal):
        if name in record.values:
            both = {one.peer for one in reveal.self_shares} & {one.peer for one in reveal.key_shares}
            insist(not both, "never both kinds of share:", name, sorted(both))


def check_errors(deployment: Deployment, record: Record) -> None:
    """Who is named, and by whom."""
    liar, may_be_named = deployment.liar, record.touched | deployment.liars.keys()
    for phase, party, sender, error in record.errors:
        if party != SERVER:
            if isinstance(error, PeerError | DecodeError):
                named = SERVER in error.culprits or isinstance(error, UnblamedError | StrayError)
                insist(named, "a client names the server for what it was sent:", party, error)
                careful = record.plan.protocol != "ckks" or not liar
                excused = liar == SERVER or party in record.touched
                insist(
                    excused or not careful,
                    "an honest server passes nothing on that a client refuses:",
                    phase,
                    party,
                    error,
                )
        elif liar != SERVER and not isinstance(error, UnblamedError | StrayError):
            named = getattr(error, "culprits", ())
            insist(sender in named, "the server names who sent it:", sender, error)
            insist(sender in may_be_named, "an honest client's frame is refused:", phase, sender, error)
    for name, refusal in record.refused.items():
        if deployment.liar != SERVER:
            expected = name in deployment.refusing or isinstance(refusal, BudgetError)
            insist(expected, "a client refuses a plan that it should take:", name, refusal)


def check_end(deployment: Deployment, record: Record, faults: Faults) -> None:
    """With an honest server: a sum if enough are left, of those who uploaded, and nobody blamed who is honest."""
    plan, lying = record.plan, deployment.liars.keys()
    away = faults.gone | record.refused.keys() | lying
    suspects = record.touched | lying  # a frame may be damaged in such a way that it looks like a lie
    if record.server is None:
        insist(deployment.strapped, "the server's budget is large enough:", record.failed)
        return
    insist(set(deployment.refusing) - lying <= record.refused.keys(), "whoever must refuse does:", deployment.refusing)
    insist(suspects >= set(record.server.liars), "nobody is blamed who is honest:", record.server.liars)
    pairwise = plan.protocol in PAIRWISE
    if plan.protocol in DEALING:
        excluded = set(record.server.excluded)
        # On a ring nothing is delivered to whom too few neighbours are left, and then it has nothing to answer.
        asked = {one.receiver for one in record.said if type(one.message).__name__ == "Delivery"}
        unasked = set() if len(away) <= deployment.may_miss else excluded - asked
        insist(excluded <= away | unasked, "nobody is left out who is there and honest:", excluded - away)
    if record.outcome is None:
        failed = record.failed
        culprits = getattr(failed, "culprits", ())
        declared = isinstance(failed, PeerError | ThresholdError)
        insist(declared, "a round ends with a sum, too few, or somebody named:", type(failed).__name__, failed)
        if isinstance(failed, PeerError) and pairwise:  # whatever was damaged or said came to light before
            insist(bool(culprits), "a round that ends by a lie names somebody:", failed)
            insist(lying >= set(culprits), "nobody is blamed who is honest:", failed)
            spent = {name for name, move in deployment.liars.items() if CLIENT_MOVES[move].spends}
            only = spent >= set(culprits) or len(away) > deployment.may_miss
            insist(only, "a budget is spent for nothing only by another secret than the advertised one:", failed)
        elif isinstance(failed, PeerError):
            insist(bool(suspects & set(culprits)), "nobody is blamed who is honest:", suspects, failed)
        else:
            enough = len(away) <= deployment.may_miss
            insist(suspects >= set(culprits), "nobody is blamed who is honest:", failed, culprits)
            insist(not enough, "a sum, or the liar named, with", len(away), "away or lying:", failed)
        return
    survivors = set(record.outcome.survivors)
    uploaded = {
        one.sender
        for one in record.said
        if one.receiver == SERVER and one.phase == "upload" and one.honest and type(one.message).__name__ == "Upload"
    }
    # Whoever was told something damaged may believe it, and be refused for what it says then.
    uploaded -= {
        sender
        for phase, party, sender, _ in record.errors
        if phase == "upload" and party == SERVER and sender in record.touched
    }
    insist(survivors - lying == uploaded - lying, "the survivors are those who uploaded:", survivors ^ uploaded)
    least = least_contributors(plan) if plan.protocol == "oneshot" else plan.min_contributors
    insist(len(survivors) >= least, "enough survivors:", len(survivors), "of", least)
    insist(tuple(sorted(survivors)) == record.outcome.event.survivors, "the event says who survived")
    if plan.protocol in DEALING:
        insist(not excluded & survivors, "whoever was left out is not in the sum:", excluded & survivors)
    elif not any(CLIENT_MOVES[move].deals for move in deployment.liars.values()):
        outliers = set(record.server.outliers)
        insist(outliers <= suspects, "nobody is outliers who is honest:", outliers)
    check_sum(deployment, record)


def check_sum(deployment: Deployment, record: Record) -> None:
    """Exactly what the survivors put in: their integers, and the noise that was not taken off."""
    plan, outcome = record.plan, record.outcome
    lying = deployment.liars.keys() & set(outcome.survivors)
    if lying and plan.protocol not in PAIRWISE:
        return  # what it put in, nobody knows; that the others' part is right is seen where it does not survive
    total = np.zeros(plan.encoding.coordinates, np.int64)
    plain = np.zeros(plan.encoding.coordinates, np.int64)
    for name in lying:
        if (put_in := unmasked(record, name)) is None:
            return
        total += put_in
    for name in set(outcome.survivors) - lying:
        total += record.noised[name]
        plain += record.values[name]
    noise = plan.noise
    if noise is not None and (level := level_of(noise, plan.clients - len(outcome.survivors))) < noise.components:
        refused = {
            sender for phase, party, sender, _ in record.errors if party == SERVER and phase == OPENS[plan.protocol]
        }
        seeds = {  # as they arrived: a damaged one takes other noise off than was added
            one.sender: one.message.excess
            for one in record.said
            if type(one.message).__name__ in UNMASKING and one.sender not in refused
        }
        if plan.protocol in PAIRWISE:  # a liar may have said several, one of which was taken
            taken = {record.server.roster.names[n]: seed for n, seed in record.server._excess.items()}
            seeds |= {name: taken.get(name, b"") for name in lying}
        for name in outcome.survivors:
            if seeds.get(name) and name not in outcome.event.excess_left:
                total -= noise.excess(plan.clients, len(total), seeds[name], level)
        insist(
            set(outcome.event.excess_left) >= set(outcome.survivors) - {n for n, seed in seeds.items() if seed},
            "who has not told the seed of its excess is on record",
        )
    if lying:  # who may put in whatever fits the ring
        over = (outcome.total - total) % (1 << plan.ring_bits)
        insist(not over.any(), "the sum of the survivors:", over)
        return
    insist(bool((outcome.total == total).all()), "the sum of the survivors:", outcome.total - total)
    left = np.abs(outcome.total - plain).max()
    insist(left <= plan.noise_bound, "no more noise than the ring has room for:", left)
    encoding, updates, weights = plan.encoding, deployment.updates(record.number), deployment.weights(record.number)
    if noise is None:
        decoded, wanted = outcome.decode(), np.zeros(encoding.length)
        units = [
            (unit, weights[name]) for name in outcome.survivors for unit in updates[name].reshape(-1, encoding.length)
        ]
        for unit, weight in units:
            norm = np.linalg.norm(unit)
            wanted += weight * unit * min(1.0, encoding.clip_l2 / norm if norm else 1.0)
        rounding = sum(weight for _, weight in units) * math.sqrt(2 * encoding.length) / encoding.scale
        tolerated = 1e-6 if encoding.scale == 1.0 else rounding
        if (not encoding.rotate and encoding.scale == 1.0) or encoding.clip_inf >= encoding.clip_l2:
            insist(
                bool(np.abs(decoded.vector - wanted).max() <= tolerated + 1e-9),
                "the decoded sum",
                decoded.vector - wanted,
            )
        if encoding.weight_bound > 1:
            insist(decoded.weight == sum(weights[name] for name in outcome.survivors), "the sum of the weights")


def unmasked(record: Record, name: str) -> NDArray[np.int64] | None:
    """What a liar has put into a pairwise sum: its vector less the masks that others see in it.

    Those are its self-mask by its commitment, and with each neighbour that it lists the mask that this one derives.
    None if two liars see different masks.
    """
    plan, machine = record.plan, record.liars[name].machine
    cohort, u = machine._cohort, machine._u
    header = record.server._headers[u]
    vector = next(
        one.message.vector
        for one in record.said
        if one.sender == name
        and type(one.message).__name__ == "Upload"
        and one.message.header == header
        and digest(labels.VECTOR, one.message.vector) == header.vector_hash
    )
    words, plus, minus = plan.ring.unpack(vector, plan.encoding.coordinates).copy(), list[bytes](), list[bytes]()
    plus.append(cohort.self_seed(machine._self_secret, u))
    for v in from_bitmap(header.holders, cohort.holders(u)) - {u}:
        other = record.server.roster.names[record.server._clients[v]]
        theirs = record.liars[other].machine if other in record.liars else record.machines[other]
        seen, own = theirs._peers[u].mask_key, machine._peers[v].mask_key
        if other in record.liars and (seen != machine._mask_key.public or own != theirs._mask_key.public):
            return None
        (plus if u < v else minus).append(cohort.pair_seed(theirs._mask_key.agree(seen), u, v))
    add_masks(words, minus, plus)
    put_in: NDArray[np.int64] = plan.ring.centred(words)
    return put_in


def check_threshold(record: Record) -> None:
    """Honest clients decrypt for one set of survivors, of which enough have signed, and rebuild one set of missing."""
    answered = {name for name, kind in record.answers if kind == "Answer"}
    machines = [record.machines[name] for name in answered]
    sets = {(m._cohort.root, m._agreed.bitmap) for m in machines}
    insist(len(sets) <= 1, "one set of survivors is decrypted, not", len(sets))
    recovered = [record.machines[name] for name, kind in record.answers if kind == "Recovery"]
    missing = {(m._cohort.root, m._missing) for m in recovered}
    insist(len(missing) <= 1, "one set of missing parts is rebuilt, not", len(missing))


# Noise


def level_of(noise: NoiseSpec, missing: int) -> int:
    """How many components stay: the first level that allows for so many missing (``dp.noise``, in its own words)."""
    if not noise.components:
        return 0
    levels = [math.ceil(Fraction(j * noise.dropouts, noise.components)) for j in range(noise.components + 1)]
    return next(j for j, level in enumerate(levels) if level >= missing)


def planned_variance(noise: NoiseSpec, clients: int, missing: int, left: int) -> Fraction:
    """Of all the noise in a sum, from the words of ``dp.noise``; ``left`` survivors did not take off their excess."""
    steps = noise.components
    levels = [math.ceil(Fraction(j * noise.dropouts, steps)) for j in range(steps + 1)] if steps else [noise.dropouts]
    tolerated = min(level for level in levels if level >= missing)
    kept = noise.variance / (clients - tolerated - noise.colluders)
    whole = noise.variance / (clients - noise.dropouts - noise.colluders)
    survivors = clients - missing
    return (survivors - left) * kept + left * whole


def noise_of(deployment: Deployment, record: Record) -> Noise | None:
    """The noise in a sum of honest clients."""
    plan, outcome = record.plan, record.outcome
    if plan.noise is None or outcome is None or deployment.liar == SERVER:
        return None
    if (deployment.liars.keys() | record.touched) & set(outcome.survivors):
        return None
    plain = np.zeros(plan.encoding.coordinates, np.int64)
    for name in outcome.survivors:
        plain += record.values[name]
    missing = plan.clients - len(outcome.survivors)
    variance = float(planned_variance(plan.noise, plan.clients, missing, len(outcome.event.excess_left)))
    squares = float(((outcome.total - plain).astype(float) ** 2).sum()) / variance
    kurtosis = 1 / variance if plan.noise.family is Family.SKELLAM else 0.0
    return Noise(squares, len(plain), len(plain) * (1 + kurtosis / 2))


FALSE_ALARM = 1e-6
"""Of the variance test over all protocols and both sides, for Gaussian noise (Laurent and Massart 2000, Lemma 1)."""


def check_variance(found: Mapping[str, Noise]) -> None:
    """Pooled for each protocol: a chi-square variable X of N degrees has X - N > 2 sqrt(N x) + 2 x, or X - N <
    -2 sqrt(N x), each with probability at most e^-x. Skellam noise has a little more kurtosis, which ``spread`` has.
    """
    x = math.log(2 * max(len(found), 1) / FALSE_ALARM)
    for protocol, noise in found.items():
        over = noise.squares - noise.coordinates
        room = 2 * math.sqrt(noise.spread * x)
        insist(
            -room <= over <= room + 2 * x, "noise of the planned variance:", protocol, noise.squares / noise.coordinates
        )


# Ledgers


def check_charges(deployment: Deployment, record: Record) -> None:
    """What was in whose ledger before what left."""
    opens = OPENS[record.plan.protocol]
    for whose, before, phases in record.charged:
        if whose == SERVER:
            after = before.split(">")[1]
            order = [*deployment.phases, "done"]
            opened = order.index(after) >= order.index(opens)
            wanted = ["reserve", "commit"] if opened else ["reserve"]
            insist(phases == wanted, "the server's ledger before", after, "holds", wanted, "not", phases)
        elif before == "Upload":
            insist(
                phases in (["reserve"], ["reserve", "commit"]), "a client reserves before it uploads:", whose, phases
            )
        else:
            insist(phases == ["reserve", "commit"], "a client commits before it gives shares away:", whose, phases)


def check_ledger(path: Path, key: Any, rounds: Iterable[Record], whose: str, fully: bool) -> None:
    """A ledger that is closed: whole, recomputable, never beyond its budget, with as many survivors as there were."""
    rows = read(path)
    state = verify(rows, key.public)
    entries = [parse(body) for body, _ in rows]
    if fully:
        lines = [
            json.dumps({"body": e, "signature": s.hex()}, sort_keys=True, separators=(",", ":"))
            for e, (_, s) in zip(entries, rows, strict=True)
        ]
        found = list(problems(("\n".join(lines) + "\n").encode(), key.public, state.head))
        insist(not found, "an auditor finds nothing wrong:", found)
    budget = Fraction(entries[0]["epsilon"])
    for entry in entries[1:]:
        insist(Fraction(entry["epsilon_after"], 10**12) <= budget, "never more than the budget:", whose)
    for record in rounds:
        own = [entry for entry in entries[1:] if entry["release"] == record.plan.digest().hex()]
        phases = [entry["phase"] for entry in own]
        if whose == SERVER and record.outcome is not None:
            insist(phases == ["reserve", "commit"], "a sum that came out is committed:", phases)
        if whose == SERVER and record.outcome is None and record.server is not None:
            insist(phases[:1] == ["reserve"], "what was reserved stays on record:", phases)
        for entry in own:
            if entry["phase"] == "commit":
                check_commit(record, entry)


def check_commit(record: Record, entry: Mapping[str, Any]) -> None:
    """The facts of the round, and what they cost by the formula: never less than what happened."""
    plan, facts = record.plan, entry["sum"]
    if record.outcome is not None:
        insist(
            facts["survivors"] == len(record.outcome.survivors), "as many survivors as there were:", facts["survivors"]
        )
    noise = plan.noise
    if noise is None or noise.family is not Family.SKELLAM:
        return
    missing = plan.clients - facts["survivors"]
    honest = plan.clients - missing - noise.colluders
    variance = planned_variance(noise, plan.clients, missing, 0) * honest / (plan.clients - missing)
    insist(variance >= noise.variance, "never less noise than planned:", variance)
    sensitivity = plan.encoding.sensitivity()
    insist((facts["l1"], facts["l2_squared"]) == (sensitivity.l1, sensitivity.l2_squared), "the sensitivity")
    v, l2, l1 = float(variance), sensitivity.l2_squared, sensitivity.l1
    for order, charged in zip((2, 8, 32), (entry["cost"][0], entry["cost"][6], entry["cost"][30]), strict=True):
        extra = min(((2 * order - 1) * l2 + 6 * l1) / (4 * v * v), 3 * l1 / (2 * v))  # Agarwal et al. 2021, Theorem 3.5
        owed = order * l2 / (2 * v) + extra
        insist(charged / 1e12 >= owed * (1 - 1e-9), "no order is charged less than it costs:", order, charged, owed)


GUARANTEES = {holder: user_level(Relation.ZERO_OUT, holder) for holder in Holder}
