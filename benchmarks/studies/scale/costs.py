"""What a round costs, on paper: bytes, seconds and memory by role, for any number of clients and any length.

Bytes are those of the messages: sizes are read off the very codecs that write them, numbers of items (neighbours,
shares, signatures, Merkle nodes) follow from the parameters that the protocol itself chooses. Seconds are counts of
what each role does, read off the machines, times what one of it costs (``UnitCosts``, measured). Memory is what the
server keeps at its fullest moment, in CPython's sizes. Nothing here is fitted to a measured round.

A fraction ``gone`` of the clients answers until its upload is due, and never again: for pairwise masks the most
expensive moment, for the others as good as any. What depends on who they are (nodes in a proof) is an expected value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import lru_cache
from math import lgamma, log2
from statistics import mean
from typing import Any, cast

import numpy as np

from benchmarks.studies.scale.unit_costs import UnitCosts, columns_of
from protocols.ckks import messages as ckks
from protocols.oneshot import messages as oneshot
from protocols.pairwise import messages as pairwise
from protocols.pairwise.parameters import parameters_of as graph_of
from protocols.parameters import ENFORCED_UP_TO, rules_of
from protocols.plan import RoundPlan
from protocols.roster import Roster
from protocols.rounds import dealing as exchange
from protocols.rounds.survivors import ConsistencySignature
from protocols.threshold_ckks import messages as threshold
from protocols.wire import HEADER_BYTES
from secagg.assumptions import Adversary, CostModel
from secagg.codec import u32, u64
from secagg.crypto.dealing import ELEMENT_BYTES, RESPONSE_BYTES, width
from secagg.crypto.graph import Graph, GraphParameters
from secagg.crypto.keys import SIGNATURE_BYTES
from secagg.crypto.merkle import HASH_BYTES, NODE
from secagg.crypto.shamir import LIMBS, SHARE_BYTES
from secagg.encoding import Encoding
from secagg.errors import UsageError

BEACON = b"not secret, used"
"""The public randomness from which committees are drawn."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """n clients with d integers of ``bits`` bits; parameters are chosen for ``dropout`` and ``corrupt`` of them.

    ``gone`` of them really fall silent; no sum of fewer than ``minimum`` clients comes out.
    """

    n: int
    d: int
    bits: int = 16
    dropout: Fraction = Fraction(1, 10)
    corrupt: Fraction = Fraction(1, 20)
    gone: Fraction = Fraction(0)
    minimum: int = 2

    def __post_init__(self) -> None:
        if self.n < 2 or self.d < 1 or not 2 <= self.minimum <= self.n:
            raise UsageError("a round has two clients or more, each a coordinate or more, and a minimum among them")
        if not 0 <= self.gone < 1 or self.left < self.minimum:
            raise UsageError("gone is a fraction of the clients, and leaves the minimum")

    @property
    def silent(self) -> int:
        return round(self.gone * self.n)

    @property
    def left(self) -> int:
        return self.n - self.silent

    def proposed(self, protocol: str, roster: Roster) -> RoundPlan:
        """Of a real round."""
        return RoundPlan.propose(
            protocol,
            roster,
            Encoding.integers(self.d, self.bits),
            min_contributors=self.minimum,
            corrupt=str(self.corrupt),
            dropout=str(self.dropout),
            beacon=BEACON,
        )

    def plan(self, protocol: str) -> RoundPlan:
        """Of a round with this protocol; the roster is not there."""
        encoding = Encoding.integers(self.d, self.bits)
        feared = (self.corrupt, self.dropout, Adversary.ACTIVE)
        chosen = rules_of(protocol).choose(self.n, *feared, 40, 20, CostModel.CORE_SVP)
        return RoundPlan(
            protocol=protocol,
            session=bytes(16),
            round=0,
            roster=bytes(HASH_BYTES),
            model=bytes(HASH_BYTES),
            clients=self.n,
            min_contributors=self.minimum,
            ring_bits=encoding.ring_bits(self.n),
            encoding=encoding,
            noise=None,
            parameters=chosen,
            beacon=BEACON,
        )


@dataclass(frozen=True, slots=True)
class Step:
    """What one client does in one phase: the frame it gets, its answer, and the time in between."""

    phase: str
    down: float
    up: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Role:
    """``count`` clients that all do the same."""

    name: str
    count: float
    steps: tuple[Step, ...]

    @property
    def down(self) -> float:
        return sum(step.down for step in self.steps)

    @property
    def up(self) -> float:
        return sum(step.up for step in self.steps)

    @property
    def seconds(self) -> float:
        return sum(step.seconds for step in self.steps)


@dataclass(frozen=True, slots=True)
class Cost:
    """What one round costs."""

    roles: tuple[Role, ...]
    server: Mapping[str, float]
    """Seconds on one core by phase: to make what opens it, to take the answers in, to close it."""
    server_memory: float
    """Bytes at the peak, beyond what the process had before."""

    @property
    def client(self) -> Role:
        """What most clients do that stay to the end."""
        return max((role for role in self.roles if role.name != GONE), key=lambda role: role.count)

    @property
    def heaviest(self) -> Role:
        return max(self.roles, key=lambda role: role.seconds)

    @property
    def up(self) -> float:
        """Bytes, all clients together."""
        return sum(role.count * role.up for role in self.roles)

    @property
    def down(self) -> float:
        return sum(role.count * role.down for role in self.roles)

    @property
    def clients_s(self) -> float:
        return sum(role.count * role.seconds for role in self.roles)

    @property
    def server_s(self) -> float:
        return sum(self.server.values())


GONE = "gone"


def parameters_in_words(plan: RoundPlan) -> str:
    """What the protocol chose. There are no witnesses on the complete graph.

    >>> parameters_in_words(Deployment(1000, 10).plan("secagg+"))
    'k = 106, t = 75, w = 88, q = 64'
    """
    chosen = asdict(cast(Any, plan.parameters))
    numbers = {_SHORT.get(name, name): value for name, value in chosen.items() if isinstance(value, int) and value}
    return ", ".join(f"{name} = {value}" for name, value in numbers.items())


_SHORT = {"degree": "k", "threshold": "t", "witnesses": "w", "quorum": "q", "members": "m", "corrupt": "f"}


# What messages weigh.

LEAST = {
    kind: codec.least
    for types in (pairwise.TYPES, oneshot.TYPES, ckks.TYPES, threshold.TYPES)
    for kind, codec in types.values()
}
SIGNED = u32.least + SIGNATURE_BYTES
REVEALED = u32.least + SHARE_BYTES
BOX = ELEMENT_BYTES * width(pairwise.SECRETS) + exchange.COMMITMENT_BYTES * pairwise.SECRETS
DELIVERED = u32.least + BOX + HASH_BYTES + RESPONSE_BYTES


def frame_of(kind: type, *variable: float) -> float:
    """A message with nothing in its variable parts, and these."""
    return HEADER_BYTES + LEAST[kind] + sum(variable)


def bitmap_of(size: int) -> int:
    return -(-size // 8)


# What trees weigh: proofs that some leaves are in a Merkle tree.


@dataclass(frozen=True, slots=True)
class Proof:
    """That so many leaves are there: ``nodes`` have to be sent, computing the root takes ``steps``."""

    leaves: float
    nodes: float
    steps: float

    @property
    def size(self) -> float:
        return NODE.least * self.nodes


def proof_of(width: int, indices: Iterable[int]) -> Proof:
    """Of these leaves, as ``secagg.crypto.merkle`` makes it.

    >>> proof_of(8, [0, 3])
    Proof(leaves=2, nodes=3, steps=4)
    """
    known, nodes, steps = set(indices), 0, 0
    leaves = len(known)
    while width > 1 and known:
        nodes += sum(i ^ 1 not in known and i ^ 1 < width for i in known)
        known, width = {i // 2 for i in known}, (width + 1) // 2
        steps += len(known)
    return Proof(leaves, nodes, steps)


@lru_cache(maxsize=1024)
def random_proof(width: int, leaves: int) -> Proof:
    """Of so many random leaves, on average: a few draws' mean, or, where drawing takes long, what theory says.

    A subtree of s leaves has none of them with probability C(n - s, m) / C(n, m).

    >>> random_proof(1000, 1000).nodes, round(random_proof(10**6, 167).nodes)
    (0, 1948)
    """
    if width <= _DRAWN_UP_TO:
        rng = np.random.default_rng(1)
        drawn = [proof_of(width, rng.choice(width, leaves, replace=False).tolist()) for _ in range(_DRAWS)]
        return _mean(drawn)

    def empty(size: int) -> float:
        if size > width - leaves:
            return 0.0
        logs = lgamma(width - size + 1) - lgamma(width - size - leaves + 1) - lgamma(width + 1)
        return float(np.exp(logs + lgamma(width - leaves + 1)))

    nodes, steps, size = 0.0, 0.0, 1
    while size < width:
        pairs = width / (2 * size)
        nodes += 2 * pairs * (empty(size) - empty(2 * size))
        size *= 2
        steps += -(-width // size) * (1 - empty(size))
    return Proof(leaves, nodes, steps)


@lru_cache(maxsize=1024)
def first_signers_proof(width: int, left: int, signers: int) -> Proof:
    """The mean proof that the first ``signers`` clients that are left, and one more, are in the tree."""
    rng, proofs = np.random.default_rng(1), list[Proof]()
    for _ in range(_DRAWS):
        alive = np.sort(rng.choice(width, left, replace=False))
        proofs.append(proof_of(width, {*alive[:signers].tolist(), int(rng.choice(alive))}))
    return _mean(proofs)


@lru_cache(maxsize=1024)
def signers_shown(width: int, left: int, graph: GraphParameters, least: int) -> tuple[float, Proof]:
    """(signatures, proof for the strangers among the signers) that a client of a ring is sent, on average.

    The first t of its neighbours, a quorum of witnesses (neighbours among them first), and as many others as make
    ``least``. Above ``_DRAWN_UP_TO`` clients this follows from expectations, and ``least`` plays no part.
    """
    k, t, w, q = graph.degree, graph.threshold, graph.witnesses, graph.quorum
    if width > _DRAWN_UP_TO:
        strangers = q - min(w * k / width * left / width, q)
        return t + q - min(t * w / width, q), random_proof(width, round(strangers))
    rng, counts, proofs = np.random.default_rng(1), list[int](), list[Proof]()
    for _ in range(_DRAWS):
        alive = np.sort(rng.choice(width, left, replace=False)).tolist()
        u = int(rng.choice(alive))
        known = {u, *rng.choice(np.delete(np.arange(width), u), k, replace=False).tolist()}
        witnesses = {*rng.choice(width, min(w, width), replace=False).tolist()}
        chosen = {*[v for v in alive if v in known and v != u][:t]}
        chosen |= {*sorted((v for v in alive if v in witnesses), key=lambda v: v not in known)[:q]}
        chosen |= {*[v for v in alive if v not in chosen][: max(least - len(chosen), 0)]}
        counts.append(len(chosen))
        proofs.append(proof_of(width, chosen - known))
    return mean(counts), _mean(proofs)


_DRAWS, _DRAWN_UP_TO = 24, 5000


def _mean(proofs: Sequence[Proof]) -> Proof:
    return Proof(*(mean(getattr(proof, name) for proof in proofs) for name in ("leaves", "nodes", "steps")))


# What everybody does.


def carried(units: UnitCosts, down: float, up: float) -> float:
    """A client hears a frame and answers: both go into its journal, sealed, and what it heard is hashed twice.

    On the way bytes are copied: into the message, the frame, the record and its box.
    """
    copied = units.copy * (3 * down + 4 * up)
    return 2 * units.frame + units.seal * (down + up) + 2 * units.hash * down + copied


def heard(units: UnitCosts, up: float) -> float:
    """The server takes a frame in; its ends are hashed, to know it again (``protocols.client``)."""
    return units.frame + units.hash * min(up, 1 << 17) + units.copy * up


def ordered(units: UnitCosts, n: int) -> float:
    return units.order * n * max(log2(n), 1)


def dealt(units: UnitCosts, threshold: int, holders: int, secrets: int) -> float:
    return threshold * (units.deal_step + units.deal * holders * width(secrets))


def packing(units: UnitCosts, bits: int, d: int) -> float:
    """Seconds of packing a vector (unpacking takes as long)."""
    columns = columns_of(bits, d)
    return columns * units.column + (units.pack * d if columns else 0)


def silenced(deployment: Deployment, role: Role, upload: str) -> Role:
    """What such a client costs if it is gone when its upload is due: it was still sent what it does not answer."""
    at = [step.phase for step in role.steps].index(upload)
    last = Step(upload, role.steps[at].down, 0, 0)
    share = deployment.silent / deployment.left
    return Role(GONE, role.count * share, (*role.steps[:at], last))


def begun(units: UnitCosts, d: int) -> float:
    """A client's first message."""
    return units.start + units.encode * d


# Pairwise masks: ``secagg`` and ``secagg+``.


def masked(deployment: Deployment, plan: RoundPlan, units: UnitCosts) -> Cost:
    u, n, d, left = units, deployment.n, deployment.d, deployment.left
    graph, ring = graph_of(plan), plan.ring
    t, k, word = graph.threshold, graph.degree, ring.dtype.itemsize
    complete = graph.graph is Graph.COMPLETE
    h = n if complete else k  # holders of a client's shares
    alive = k * (left - 1) / (n - 1)  # neighbours of a survivor that are left
    least = deployment.minimum if n <= ENFORCED_UP_TO else 0
    signers, strangers = (max(t, least), Proof(0, 0, 0)) if complete else signers_shown(n, left, graph, least)
    introduced, vector = random_proof(n, k + 1), ring.packed_size(d)
    header = LEAST[pairwise.Upload] - u64.least + bitmap_of(h)  # an upload without its vector

    plan_bytes, advert = float(len(plan.encode())), frame_of(pairwise.Advert)
    introduction = frame_of(pairwise.Introduction, k * (u32.least + pairwise.ADVERT.least), introduced.size)
    boxes = frame_of(exchange.Dealt, k * BOX, t * RESPONSE_BYTES)
    delivery, complaints = frame_of(exchange.Delivery, k * DELIVERED), frame_of(exchange.Complaints)
    verdict = frame_of(pairwise.Verdict, bitmap_of(h))
    upload = frame_of(pairwise.Upload, bitmap_of(h), vector)
    survivors = frame_of(pairwise.Survivors, bitmap_of(n), alive * header)
    consent = frame_of(ConsistencySignature)
    consents = frame_of(pairwise.ConsistencySignatures, signers * SIGNED, strangers.leaves * NODE.least, strangers.size)
    reveal = frame_of(pairwise.Reveal, h * REVEALED)

    looked_up, sharing, packed = 4 * u.item + h * u.scan, dealt(u, t, h, 2), packing(u, plan.ring_bits, d)
    one_mask = u.stream + u.mask * word * d
    meeting = k * (u.verify + 2 * u.item) + u.sign + introduced.steps * u.climb + ordered(u, n) + looked_up
    dealing = sharing + k * (u.box + u.record)
    opening = k * (u.unbox + u.record)
    again = sharing + k * (u.box - u.agree) if complete else 0  # its own share it makes again
    masking = again + k * u.agree + (k + 1) * one_mask + packed + u.hash * vector + u.sign
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
    adding = u.verify + u.hash * vector + packed + u.add * d + looked_up + h * (u.member + 3 * u.scan)
    telling = signers * u.item + k * u.scan + strangers.steps * u.prove
    rebuilding = n * (u.rebuild * t * t + 4 * u.item) + deployment.silent * u.agree
    removing = u.centre * d + left * one_mask + deployment.silent * alive * (u.agree + one_mask)
    server = {
        "advertise": n * (heard(u, advert) + u.verify + 2 * u.item + u.climb + looked_up) + ordered(u, n),
        "share": n * (k * (2 * u.item + 3 * u.scan + u.record + u.take) + introduced.steps * u.prove + heard(u, boxes)),
        "complain": n * (k * (u.deliver + u.record + 2 * u.scan) + u.frame),
        "upload": n * h * 2 * u.scan + left * (heard(u, upload) + u.frame + adding),
        "consistency": left * (alive * (u.header + u.scan) + u.verify + heard(u, consent)) + n * u.member,
        "reveal": left * (heard(u, reveal) + telling + h * (u.share + u.check)) + rebuilding + removing,
    }
    memory = _masked_memory(n, d, h, t, word, vector)
    return Cost((client, silenced(deployment, client, "upload")), server, memory)


def _masked_memory(n: int, d: int, h: int, t: int, word: int, vector: int) -> float:
    """While uploads come, a box, a holder, an entry in a set for each neighbour; later shares, and their rebuilding."""
    links = n * h * (_LISTED + _IN_SET)
    uploading = links + n * h * (BOX + RESPONSE_BYTES) + d * word + 3 * vector  # a frame, its vector, padded, unpacked
    kept = n * h * exchange.COMMITMENT_BYTES + n * t * (SHARE_BYTES + _KEPT_SHARE)
    revealing = links + kept + 3 * 8 * LIMBS * n * t + 2 * 8 * d
    return n * CLIENT + d * word + max(uploading, revealing)


CLIENT = 1800
"""Bytes that a server keeps of a client: an advert, its leaf, two inner nodes, a header, entries in dictionaries."""
_LISTED, _IN_SET, _KEPT_SHARE = 40, 90, 110
"""Bytes of a number in a tuple and in a set, which is half empty, and what an entry of a dictionary takes beside its
value."""
