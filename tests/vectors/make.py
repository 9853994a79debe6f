"""Makes the JSON files in this folder: ``python -m tests.vectors.make``. Everything is drawn from fixed seeds.

plans.json     plans, their encodings and digests, and encodings that no plan has
messages.json  of each protocol one frame of each message type, field by field, and frames that are none
noise.json     what clients draw from given seeds: each family, what is to keep and what is removable, level by level;
               and sums with noise of whole rounds, whose clients draw from their secrets
round-*.json   a whole round: every frame in order, tampered frames that must bounce off before it, and the sum
               (of threshold_ckks, whose frames are long, only their digests)
ledger.json    ledgers of sums, of local training, of turns, of arrivals and of windows, as ``secagg ledger export``
               prints them
journal.json   what a client has in its journal after a round
formats.json   digests of all that under the number of its format (``tests.vectors.pins``)

They pin the formats: a change of any byte on the wire, in a ledger or in a journal shows up in a diff of these files,
and is refused unless the number of the format rises. And they pin the noise: what a client draws from its secret is
what it drew when they were made.
``tests/protocols/test_vectors.py`` replays them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from dp.calibrate import evaluate
from dp.ledger.heads import SignedHead, note_text
from dp.noise import Family, NoiseSpec
from protocols import registry
from protocols.ckks.parameters import KeyMakers, Recipient
from protocols.client import Client
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from protocols.rounds import dealing
from protocols.rounds.phases import Phase
from protocols.rounds.server import ServerRound
from protocols.server import serve
from protocols.simulation.audited import PrivateSums
from protocols.wire import HEADER_BYTES
from secagg.assumptions import Adversary
from secagg.codec import positive, text, u32, u64
from secagg.crypto.graph import Graph, GraphParameters
from secagg.crypto.keys import SigningKey
from secagg.crypto.prg import Prg
from secagg.encoding import Encoding, Rounding
from secagg.signed_versions import What, signed
from secagg.sketches import LowRank, RandomK, Ranges, Table, written
from tests.vectors import kept, pins
from tests.vectors.samples import FIRST_LENGTHS, SAMPLES

FOLDER = Path(__file__).parent
PROVENANCE = "made by tests/vectors/make.py from fixed seeds, with this library; not from another implementation"
NAMES = ("ann", "bob", "cat", "dan", "eve", "fay", "gus")
SESSION = bytes(range(16))


def seed(purpose: str) -> bytes:
    return purpose.encode().ljust(32, b".")


def plain(value: object) -> Any:
    """A message as JSON: bytes in hexadecimal, sequences as lists, classes field by field."""
    if isinstance(value, RandomK | LowRank | Ranges):
        value = written(value)
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value) if field.init}
    if isinstance(value, bytes | memoryview):
        return value.hex()
    if isinstance(value, Fraction):
        return str(value)
    return [plain(item) for item in value] if isinstance(value, Sequence) and not isinstance(value, str) else value


def roster_of(count: int) -> tuple[Roster, list[Identity]]:
    identities = [Identity(name, SigningKey(seed(f"identity {name}"))) for name in NAMES[:count]]
    return Roster.of(identities), identities


def plan_secagg() -> RoundPlan:
    roster, _ = roster_of(5)
    return RoundPlan.propose(
        "secagg", roster, Encoding.integers(7), min_contributors=3, dropout="0.4", session=SESSION, model=seed("model")
    )


def plan_secagg_with_a_liar() -> RoundPlan:
    """So many clients that one of them may be corrupt."""
    roster, _ = roster_of(7)
    return RoundPlan.propose(
        "secagg", roster, Encoding.integers(7), min_contributors=3, corrupt="0.15", dropout="0.3", session=SESSION
    )


def plan_secagg_plus() -> RoundPlan:
    """Too few clients for the calculator to give a ring, so the ring is set by hand (and a lenient policy takes it)."""
    roster, _ = roster_of(7)
    encoding = Encoding(length=7, clip_l2=4.0, bits=16, rotate=True, clip_inf=3.5, weight_bound=10)
    plan = RoundPlan.propose("secagg+", roster, encoding, min_contributors=3, corrupt="0", session=SESSION)
    return replace(plan, round=7, parameters=GraphParameters(Graph.RING, 4, 2, 5, 3))


def plan_noised() -> RoundPlan:
    roster, _ = roster_of(7)
    encoding = Encoding(7, clip_l2=1.0, bits=8, rotate=True, beta=Fraction(1, 2))
    noise = NoiseSpec(Family.SKELLAM, Fraction(1000), dropouts=2, colluders=1, components=1)
    plan = RoundPlan.propose("secagg+", roster, encoding, min_contributors=5, corrupt="0", session=SESSION, noise=noise)
    return replace(plan, parameters=GraphParameters(Graph.RING, 4, 2, 5, 3))


def plan_silos() -> RoundPlan:
    """Of users inside silos, who may be in two of them; rounded without lots, on a grid that is fine enough for it."""
    roster, _ = roster_of(7)
    encoding = Encoding(7, clip_l2=1.0, bits=12, users=9, overlap=2, rounding=Rounding.NEAREST)
    noise = NoiseSpec(Family.SKELLAM, Fraction(10**8), dropouts=2, colluders=1, components=1)
    plan = RoundPlan.propose("secagg+", roster, encoding, min_contributors=5, corrupt="0", session=SESSION, noise=noise)
    return replace(plan, parameters=GraphParameters(Graph.RING, 4, 2, 5, 3))


def plan_sampled() -> RoundPlan:
    """Of users inside silos, each of whom is in the sum with a probability of 2/7."""
    roster, _ = roster_of(7)
    encoding = Encoding(7, clip_l2=1.0, bits=12, users=9, sampled=Fraction(2, 7))
    noise = NoiseSpec(Family.DISCRETE_GAUSSIAN, Fraction(10**8), dropouts=2, colluders=1, components=1)
    plan = RoundPlan.propose("secagg+", roster, encoding, min_contributors=5, corrupt="0", session=SESSION, noise=noise)
    return replace(plan, parameters=GraphParameters(Graph.RING, 4, 2, 5, 3))


def plan_charged() -> RoundPlan:
    """With the head of the ledger that it is charged to."""
    key, root = SigningKey(seed("ledger")), seed("root")
    signature = key.sign_raw(note_text(seed("first entry"), 300, root))
    return replace(plan_noised(), ledger=SignedHead(key.public, seed("first entry"), 300, root, signature))


def plans_sketched() -> dict[str, RoundPlan]:
    """Of vectors of which a part travels, one for each kind of sketch; in rings of a few bits."""
    roster, _ = roster_of(5)
    kinds = {
        "some coordinates": Encoding(70, clip_l2=1.0, bits=2, sketch=RandomK(9)),
        "tables of low rank": Encoding(70, clip_l2=1.0, bits=4, rotate=True, sketch=LowRank((Table(1, 7, 8, 2),))),
        "some coordinates, and what is left": Encoding(70, clip_l2=1.0, bits=2, sketch=RandomK(40), feedback=True),
        "ranges": Encoding(70, clip_l2=1.0, bits=1, weight_bound=3, sketch=Ranges(((0, 5), (60, 70)))),
        "coordinates in turn": Encoding(70, clip_l2=1.0, bits=2, sketch=RandomK(9, SESSION * 2, 8)),
        "tables in turn": Encoding(70, clip_l2=1.0, bits=4, sketch=LowRank((Table(1, 7, 8, 3),), SESSION * 2, 5)),
    }
    return {
        f"secagg, {kind}": RoundPlan.propose("secagg", roster, encoding, min_contributors=3, session=SESSION)
        for kind, encoding in kinds.items()
    }


def plan_oneshot() -> RoundPlan:
    """Everybody has a seat. Long enough a vector, of few bits, for the smallest ring."""
    roster, _ = roster_of(5)
    encoding, beacon = Encoding.integers(100, bits=6), seed("beacon")
    return RoundPlan.propose(
        "oneshot", roster, encoding, min_contributors=3, dropout="0.2", session=SESSION, beacon=beacon
    )


def plan_signed() -> RoundPlan:
    """Whose model is the version 3 of a deployment."""
    model, key = seed("model"), SigningKey(seed("deployment"))
    return replace(plan_secagg(), model=model, version=signed("hospitals", key, What.MODEL, 3, model))


def plan_threshold_ckks() -> RoundPlan:
    roster, _ = roster_of(5)
    encoding = Encoding.integers(7)
    return RoundPlan.propose("threshold_ckks", roster, encoding, min_contributors=3, dropout="0.4", session=SESSION)


# Plans


def plans() -> dict[str, Any]:
    good = {
        "secagg": plan_secagg(),
        "secagg+": plan_secagg_plus(),
        "secagg+, noised": plan_noised(),
        "secagg+, charged": plan_charged(),
        "secagg+, silos": plan_silos(),
        "secagg+, sampled users": plan_sampled(),
        "oneshot": plan_oneshot(),
        "threshold_ckks": plan_threshold_ckks(),
        "secagg, signed": plan_signed(),
        **plans_sketched(),
    }
    return {
        "provenance": PROVENANCE,
        "plans": [
            {"name": name, "fields": plain(plan), "encoding": plan.encode().hex(), "digest": plan.digest().hex()}
            for name, plan in good.items()
        ],
        "undecodable": [
            {"what": what, "encoding": data.hex()}
            for what, data in sorted(tampered_plans(good["secagg+, noised"]).items())
        ],
    }


def put_list(*numbers: int) -> bytes:
    """One item, which has these numbers."""
    return u32.encode(1) + b"".join(map(u64.encode, numbers))


def tampered_plans(plan: RoundPlan) -> dict[str, bytes]:
    data, at = plan.encode(), {}
    place = 0
    for name, size in (
        ("protocol", 4 + len("secagg+")), ("session", 16), ("round", 4), ("roster", 32), ("model", 32), ("clients", 4),
        ("min_contributors", 4), ("ring_bits", 1), ("length", 8), ("clip_l2", 8), ("bits", 1), ("rotate", 1),
        ("clip_inf", 8), ("weight_bound", 4), ("beta", 16), ("users", 4), ("overlap", 2),
        ("rounding", 4 + len("stochastic")), ("sampled", 16), ("sketch", 1), ("feedback", 1), ("noise", 1),
        ("family", 4 + len("skellam")),
        ("variance", 16), ("dropouts", 4), ("colluders", 4), ("components", 2),
        ("graph", 4 + len("ring")), ("degree", 4), ("threshold", 4),
        ("witnesses", 4), ("quorum", 4), ("beacon", 4), ("version", 1), ("ledger", 1),
    ):  # fmt: skip
        at[name] = slice(place, place + size)
        place += size
    assert place == len(data)

    def put(name: str, value: bytes, after: bytes = b"") -> bytes:
        """``after`` is put in the place of what follows, if it is as long."""
        return data[: at[name].start] + value + after + data[at[name].stop + len(after) :]

    return {
        "truncated": data[:-1],
        "extended": data + b"\0",
        "empty": b"",
        "unknown protocol": put("protocol", text(32).encode("secagg-")),
        "a name of 2^32 - 1 bytes": put("protocol", b"\xff\xff\xff\xff" + b"secagg+"),
        "no clients": put("clients", u32.encode(0)),
        "more contributors than clients": put("min_contributors", u32.encode(8)),
        "one contributor": put("min_contributors", u32.encode(1)),
        "ring too narrow": put("ring_bits", bytes([plan.ring_bits - 1])),
        "ring too wide": put("ring_bits", b"\x41"),
        "no coordinates": put("length", bytes(8)),
        "2^63 coordinates": put("length", b"\x80" + bytes(7)),
        "clip NaN": put("clip_l2", bytes.fromhex("7ff8000000000000")),
        "clip infinite": put("clip_l2", bytes.fromhex("7ff0000000000000")),
        "clip zero": put("clip_l2", bytes(8)),
        "clip minus zero": put("clip_inf", b"\x80" + bytes(7)),
        "clip not said": put("clip_inf", bytes(8)),
        "clip negative": put("clip_inf", positive.encode(-3.5)),
        "rotate neither true nor false": put("rotate", b"\2"),
        "one bit": put("bits", b"\1"),
        "weights up to zero": put("weight_bound", bytes(4)),
        "beta of one": put("beta", u64.encode(1) + u64.encode(1)),
        "beta not reduced": put("beta", u64.encode(2) + u64.encode(4)),
        "2^31 users": put("users", b"\x80" + bytes(3)),
        "users for whom the ring is too narrow": put("users", u32.encode(2)),
        "in no silo": put("overlap", bytes(2)),
        "in two silos without any": put("overlap", b"\0\2"),
        "unknown rounding": put("rounding", text(64).encode("up")),
        "to the nearest on a coarse grid": put("rounding", text(64).encode("nearest")),
        "nobody sampled": put("sampled", u64.encode(0) + u64.encode(1)),
        "more than everybody sampled": put("sampled", u64.encode(2) + u64.encode(1)),
        "clients sampled": put("sampled", u64.encode(1) + u64.encode(2)),
        "a sketch of no kind": put("sketch", b"\1" + bytes(24)),
        "a sketch of two kinds": put("sketch", b"\1" + u64.encode(3) + bytes(4) + put_list(0, 2) + bytes(8)),
        "more kept than there are": put("sketch", b"\1" + u64.encode(8) + bytes(16)),
        "a turn of no order": put("sketch", b"\1" + u64.encode(3) + bytes(8) + u32.encode(0) + u32.encode(1)),
        "an order of 31 bytes": put("sketch", b"\1" + u64.encode(3) + bytes(8) + u32.encode(31) + bytes(35)),
        "ranges in turn": put("sketch", b"\1" + bytes(12) + put_list(0, 2) + u32.encode(32) + bytes(36)),
        "a range without coordinates": put("sketch", b"\1" + bytes(12) + put_list(2, 2) + bytes(8)),
        "a range beyond the vector": put("sketch", b"\1" + bytes(12) + put_list(2, 8) + bytes(8)),
        "a table of rank 0": put("sketch", b"\1" + bytes(8) + put_list(0, 1, 2, 0) + bytes(12)),
        "a table beyond the vector": put("sketch", b"\1" + bytes(8) + put_list(2, 2, 3, 1) + bytes(12)),
        "feedback neither true nor false": put("feedback", b"\2"),
        "feedback of what is frozen": put("sketch", b"\1" + bytes(12) + put_list(2, 4) + bytes(8), b"\1"),
        "noise neither there nor not": put("noise", b"\2"),
        "unknown noise": put("family", text(64).encode("laplace")),
        "noise too small to count": put("family", text(64).encode("discrete-gaussian"), u64.encode(40) + u64.encode(1)),
        "no variance": put("variance", u64.encode(0) + u64.encode(1)),
        "variance over zero": put("variance", u64.encode(9) + u64.encode(0)),
        "more noise than the ring holds": put("variance", u64.encode(1 << 50) + u64.encode(1)),
        "fewer missing than the plan allows": put("dropouts", u32.encode(1)),
        "all collude": put("colluders", u32.encode(5)),
        "more components than dropouts": put("components", b"\0\3"),
        "unknown graph": put("graph", text(64).encode("rung")),
        "complete graph of another degree": put("graph", text(64).encode("complete")),
        "odd degree": put("degree", u32.encode(3)),
        "degree beyond the cohort": put("degree", u32.encode(8)),
        "threshold one": put("threshold", u32.encode(1)),
        "threshold beyond the degree": put("threshold", u32.encode(5)),
        "a quorum of no witnesses": put("witnesses", u32.encode(0)),
        "witnesses of whom none need sign": put("quorum", u32.encode(0)),
        "a quorum beyond the witnesses": put("quorum", u32.encode(6)),
        "more witnesses than clients": put("witnesses", u32.encode(8)),
        "a beacon of 65 bytes": put("beacon", u32.encode(65) + bytes(65)),
        "a version neither there nor not": put("version", b"\2"),
        "version 0": put("version", b"\1" + u32.encode(0) + bytes(64)),
        "a version without a signature": put("version", b"\1" + u32.encode(1)),
        "a ledger's head neither there nor not": put("ledger", b"\2"),
        "a ledger of no entries": put("ledger", b"\1" + head_of(0)),
        "a ledger of 2^63 entries": put("ledger", b"\1" + head_of(1 << 63)),
        "a first entry of another ledger": put("ledger", b"\1" + head_of(1)),
    }


def head_of(size: int) -> bytes:
    return b"".join([seed("owner"), seed("first entry"), u64.encode(size), seed("root"), bytes(64)])


# Messages


def plan_ckks() -> RoundPlan:
    """Of the ring all but its width follows from the plan; the number of makers is set by hand."""
    roster, _ = roster_of(5)
    encoding = Encoding.integers(7)
    bits, makers = encoding.ring_bits(5), KeyMakers(Recipient.SERVER, 3)
    return RoundPlan("ckks", SESSION, 0, roster.digest, seed("model"), 5, 3, bits, encoding, None, makers)


def messages() -> dict[str, Any]:
    plans = [plan_secagg_plus(), plan_oneshot(), plan_ckks(), plan_threshold_ckks()]
    return {"provenance": PROVENANCE, "protocols": [messages_of(plan) for plan in plans]}


def messages_of(plan: RoundPlan) -> dict[str, Any]:
    wire = registry.find(plan.protocol).messages
    good = [(type(message).__name__, message, wire.encode(plan, message)) for message in SAMPLES[plan.protocol]()]
    return {
        "protocol": plan.protocol,
        "plan": plan.encode().hex(),
        "frames": [
            {"type": name, "number": frame[HEADER_BYTES - 1], "fields": plain(message), "frame": frame.hex()}
            for name, message, frame in good
        ],
        "undecodable": [
            {"type": name, "what": what, "frame": data.hex()}
            for name, _, frame in good
            for what, data in tampered_frames(frame, FIRST_LENGTHS[plan.protocol].get(name)).items()
        ],
    }


def tampered_frames(frame: bytes, length_at: int | None) -> dict[str, bytes]:
    """``length_at``: where in the body the first announced length stands."""

    def put(at: int, value: bytes) -> bytes:
        return frame[:at] + value + frame[at + len(value) :]

    variants = {
        "truncated": frame[:-1],
        "extended": frame + b"\0",
        "header only": frame[:HEADER_BYTES],
        "version 0": put(0, b"\0"),
        "version 1": put(0, b"\1"),
        "version 2": put(0, b"\2"),
        "version 3": put(0, b"\3"),
        "version 5": put(0, b"\5"),
        "another protocol": put(1, bytes([frame[1] ^ 8])),
        "another session": put(17, bytes([frame[17] ^ 1])),
        "another round": put(18, u32.encode(8)),
        "unknown type": put(22, b"\0"),
    }
    if length_at is not None:
        variants["announces 2^32 - 1"] = put(HEADER_BYTES + length_at, b"\xff\xff\xff\xff")
    return variants


# Noise


def noise() -> dict[str, Any]:
    specs = {
        "skellam": NoiseSpec(Family.SKELLAM, Fraction(10**9), dropouts=4, colluders=1, components=2),
        "skellam, small": NoiseSpec(Family.SKELLAM, Fraction(3, 2), dropouts=1),
        "discrete Gaussian": NoiseSpec(Family.DISCRETE_GAUSSIAN, Fraction(10**9), dropouts=4, colluders=1),
        "discrete Gaussian, in parts": NoiseSpec(Family.DISCRETE_GAUSSIAN, Fraction(10**9), 4, 1, components=2),
    }
    keep, chain, count = seed("noise to keep"), seed("removable noise"), 16
    return {
        "provenance": PROVENANCE,
        "clients": 10,
        "keep": keep.hex(),
        "chain": chain.hex(),
        "draws": [
            {
                "name": name,
                "fields": plain(spec),
                "drawn": spec.draw(10, count, keep, chain).tolist(),
                "excess": [
                    spec.excess(10, count, spec.seed(chain, level), level).tolist()
                    for level in range(spec.components + 1)
                ],
            }
            for name, spec in specs.items()
        ],
        "beyond a block of the sampler": sha256(
            specs["skellam"].draw(10, 100_000, keep, chain).astype("<i8").tobytes()
        ).hexdigest(),
        "sums": {protocol: noised_sums(protocol) for protocol in ("secagg", "secagg+")},
    }


def noised_sums(protocol: str) -> list[dict[str, Any]]:
    """Of two rounds: with all clients, and with one that falls silent, so that some noise comes off again."""
    encoding = Encoding(8, clip_l2=1.0, bits=12, beta=Fraction(1, 2))
    spec = NoiseSpec(Family.SKELLAM, Fraction(10**6), dropouts=2, colluders=1, components=2)
    found = evaluate(encoding, spec, clients=7, rounds=2, delta=1e-3)
    update = [np.arange(8) / 32] * 7
    with PrivateSums(found, rounds=2, delta=1e-3, protocol=protocol, rng=Prg(seed("noised rounds"))) as sums:
        return [
            {"missing": missing, "total": np.rint(sums.release(update, missing) * encoding.scale).astype(int).tolist()}
            for missing in ([], [4])
        ]


# Rounds


_FLIPS = {
    "secagg": {
        "Advert": -1, "Introduction": HEADER_BYTES, "Dealt": -1, "Delivery": HEADER_BYTES + 4,
        "Complaints": -1, "Accusations": -1, "Defence": HEADER_BYTES + 4, "Verdict": HEADER_BYTES + 4,
        "Upload": -1, "Survivors": -1, "ConsistencySignature": -1,
        "ConsistencySignatures": HEADER_BYTES + 8, "Reveal": HEADER_BYTES + 4,
    },
    "oneshot": {
        "Join": -1, "Members": HEADER_BYTES + 4, "Upload": -1, "Delivery": HEADER_BYTES + 4,
        "Vote": HEADER_BYTES + 4, "ConsistencySignatures": HEADER_BYTES + 4, "Answer": HEADER_BYTES + 7,
    },
}  # fmt: skip
"""A byte of each message that its receiver can check at once: in a signature, the root, a number, the vector. (A share
of a sum and a proof can only be seen to be some: a word is not reduced then.)"""


def round_of(
    plan: RoundPlan,
    policy: dict[str, Any],
    silent: dict[str, str],
    weights: bool,
    digests: bool = False,
    complains: str | None = None,
) -> dict[str, Any]:
    """``digests``: of frames that are too long to keep, and that nobody tampers with. ``complains``: who finds a box
    bad that is good."""
    _, identities = roster_of(plan.clients)
    vector = np.resize(np.arange(-3, 4), plan.encoding.length)
    updates = {name: (vector * (i + 1) * (1 / 8 if weights else 1)).tolist() for i, name in enumerate(NAMES)}
    members = [
        {
            "name": identity.name,
            "identity": identity.key.secret.hex(),
            "rng": seed(f"rng {identity.name}").hex(),
            "update": updates[identity.name],
            "weight": 1 + i % 3 if weights else 1,
            "silent_from": silent.get(identity.name),
            "complains": identity.name == complains,
        }
        for i, identity in enumerate(identities)
    ]
    server, clients = parties(plan, policy, members)
    frames = list[dict[str, Any]]()
    kinds = dict(enumerate((kind.__name__ for kind in registry.find(plan.protocol).messages.types), 1))
    flips = _FLIPS.get(plan.protocol.removesuffix("+"), {})

    def note(sender: str, receiver: str, frame: bytes) -> None:
        kind = kinds[frame[HEADER_BYTES - 1]]
        entry: dict[str, Any] = {"phase": str(server.phase), "type": kind, "from": sender, "to": receiver}
        if digests:
            frames.append(entry | {"sha256": sha256(frame).hexdigest()})
            return
        if not any(earlier["type"] == kind for earlier in frames):
            at = flips[kind] % len(frame)
            flipped = frame[:at] + bytes([frame[at] ^ 0x80]) + frame[at + 1 :]
            entry["bounces"] = [
                {
                    "what": f"byte {at} flipped",
                    "error": "DecodeError" if kind in ("Answer", "Dealt") else "PeerError",
                    "frame": flipped.hex(),
                },
                {"what": "truncated", "error": "DecodeError", "frame": frame[:-1].hex()},
            ]
        frames.append(entry | {"frame": frame.hex()})

    answers = {m["name"]: clients[m["name"]].start(plan, m["update"], m["weight"]) for m in members}
    while server.outcome is None:
        for name, frame in answers.items():
            if silent.get(name) != server.phase:
                note(name, "server", frame)
                server.receive(name, frame)
        server.close(server.phase)
        answers = {}  # of those who fell silent too, but theirs do not arrive
        for name, frame in server.outbox():
            note("server", name, frame)
            answers[name] = clients[name].receive(frame)
    return {
        "provenance": PROVENANCE,
        "plan": plan.encode().hex(),
        "policy": policy,
        "clients": members,
        "frames": frames,
        "survivors": list(server.outcome.survivors),
        "survivors_digest": server.outcome.event.survivors_digest.hex(),
        "total": server.outcome.total.tolist(),
        "sum": server.outcome.decode().vector.tolist(),
        "weight": server.outcome.decode().weight,
    }


class Complaining(Client):
    """A client that takes the first box that it is given for a bad one."""

    def _entered(self, *arguments: Any) -> bytes:
        frame = super()._entered(*arguments)
        machine: Any = self._round
        honest = machine._open

        def doubting(message: dealing.Delivery) -> None:
            honest(message)
            first = message.boxes[0]
            del machine._held[first.peer]
            machine._doubted[first.peer] = first

        doubts = machine.steps[Phase.COMPLAIN]._replace(check=lambda _, message: doubting(message))
        machine.steps = {**machine.steps, Phase.COMPLAIN: doubts}
        return frame


def parties(
    plan: RoundPlan, policy: dict[str, Any], members: list[dict[str, Any]]
) -> tuple[ServerRound, dict[str, Client]]:
    """The machines of a round as its vector file describes them."""
    identities = [Identity(m["name"], SigningKey(bytes.fromhex(m["identity"]))) for m in members]
    roster, accepted = Roster.of(identities), Policy(**policy)
    clients = {
        identity.name: (Complaining if m["complains"] else Client)(
            identity, roster, policy=accepted, rng=Prg(bytes.fromhex(m["rng"]))
        )
        for identity, m in zip(identities, members, strict=True)
    }
    return serve(plan, roster), clients


# What is kept


def ledger() -> dict[str, Any]:
    _, identities = roster_of(7)
    plan, key = plan_noised(), SigningKey(seed("ledger"))
    assert plan.noise is not None
    plan = replace(plan, ring_bits=24, noise=replace(plan.noise, variance=Fraction(10**6)))
    return {
        "provenance": PROVENANCE,
        "key": key.public.hex(),
        "ledgers": kept.ledgers(plan, identities, key),
    }


def journal(vector: dict[str, Any]) -> dict[str, Any]:
    """Of one client in a recorded round: the second, since the first one's complaint makes it answer once more."""
    plan, me = RoundPlan.decode(bytes.fromhex(vector["plan"])), vector["clients"][1]
    roster, identities = roster_of(plan.clients)
    noting, policy, rng = kept.Noting(), Policy(**vector["policy"]), Prg(bytes.fromhex(me["rng"]))
    client = Client(identities[1], roster, policy=policy, journal=noting, rng=rng)
    heard = [bytes.fromhex(frame["frame"]) for frame in vector["frames"] if frame["to"] == me["name"]]
    return {"provenance": PROVENANCE} | kept.journal(client, noting, plan, me["update"], heard)


def build() -> dict[str, dict[str, Any]]:
    lenient = {"adversary": str(Adversary.CURIOUS), "corrupt": "0.2", "dropout": "0", "security": 1}
    secagg = round_of(
        plan_secagg_with_a_liar(),
        {"min_contributors": 3, "corrupt": "0.15", "dropout": "0.3"},
        {"dan": "advertise", "eve": "upload"},
        weights=False,
        complains="ann",
    )
    return {
        "plans.json": plans(),
        "messages.json": messages(),
        "noise.json": noise(),
        "round-secagg.json": secagg,
        "round-secagg-plus.json": round_of(
            plan_secagg_plus(),
            {"min_contributors": 3, "weight_bound": 10} | lenient,
            {"gus": "advertise", "fay": "upload", "ann": "consistency"},
            weights=True,
            complains="ann",
        ),
        "round-oneshot.json": round_of(
            plan_oneshot(),
            {"min_contributors": 3, "dropout": "0.2", "protocols": ["oneshot"]},
            {"dan": "join", "eve": "consistency"},
            weights=False,
        ),
        "round-threshold-ckks.json": round_of(
            plan_threshold_ckks(),
            {"min_contributors": 3, "dropout": "0.4", "protocols": ["threshold_ckks"], "adversary": "curious"},
            {"dan": "key", "eve": "decrypt"},
            weights=False,
            digests=True,
        ),
        "ledger.json": ledger(),
        "journal.json": journal(secagg),
    }


if __name__ == "__main__":
    for name, content in build().items():
        (FOLDER / name).write_text(json.dumps(content, indent=1) + "\n")
    pins.renew()
