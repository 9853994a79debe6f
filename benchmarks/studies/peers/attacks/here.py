"""The same attacks on this library's pairwise protocol, against real ``Client`` objects, and the same accidents.

``_Server`` keeps what it hears and says what it likes, as an evil server can. An attack goes on until it has the
vector or a client refuses; then what was seen is the error's own text.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import log10
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.studies.peers.attacks.scene import BITS, CLIENTS, LENGTH, SCALE, WEIGHTS, Seen, compared, vectors
from benchmarks.studies.peers.attacks.scene import VICTIM as _VICTIM
from benchmarks.studies.peers.attacks.seed import fold, search_ours
from protocols import registry
from protocols.ckks import ciphertexts
from protocols.ckks.messages import ENCRYPTED
from protocols.ckks.parameters import layout_of
from protocols.client import Client
from protocols.pairwise.client import advert_leaf
from protocols.pairwise.cohort import Cohort
from protocols.pairwise.messages import (
    SECRETS,
    SELF_MASK,
    Advert,
    ConsistencySignatures,
    Introduction,
    Neighbour,
    Reveal,
    Survivors,
    Upload,
    Verdict,
)
from protocols.pairwise.parameters import parameters_of
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Number, Roster
from protocols.rounds.cohort import Position, positions
from protocols.rounds.dealing import Dealing, Dealt, Delivered, Delivery, share_of
from protocols.rounds.exchange import Exchange
from protocols.rounds.phases import Phase
from protocols.rounds.sets import from_bitmap, to_bitmap
from protocols.rounds.survivors import SignedBy
from protocols.server import serve
from protocols.simulation.network import Envelope, Faults, local_clients, simulate
from secagg.assumptions import Adversary
from secagg.codec import u32
from secagg.crypto import labels
from secagg.crypto.dealing import unpadded
from secagg.crypto.graph import Graph, GraphParameters
from secagg.crypto.keys import KEY_BYTES, AgreementKey, SigningKey
from secagg.crypto.masking import add_masks
from secagg.crypto.merkle import HASH_BYTES, MerkleTree
from secagg.crypto.prg import SEED_BYTES
from secagg.crypto.ring import Words
from secagg.crypto.shamir import reconstruct, unpack_shares
from secagg.encoding import Encoding
from secagg.errors import SecAggError, ThresholdError

_EVERYBODY = positions(CLIENTS)
VICTIM = Position(_VICTIM)
_OTHERS = [u for u in _EVERYBODY if u != VICTIM]
_POLICY = Policy(min_contributors=CLIENTS // 2, corrupt="0.1", dropout="0.1")
_ENCODING = Encoding.integers(LENGTH, BITS)


def _scene(encoding: Encoding = _ENCODING) -> tuple[RoundPlan, Roster, dict[str, Client]]:
    roster, clients = local_clients(CLIENTS, replace(_POLICY, weight_bound=encoding.weight_bound))
    plan = RoundPlan.propose(
        "secagg", roster, encoding, min_contributors=_POLICY.min_contributors, corrupt="0.1", dropout="0.1"
    )
    return plan, roster, clients


class _Server:
    """One round. On the complete graph everybody is everybody's neighbour; all come, so a place in the cohort is the
    client's number in the roster."""

    def __init__(self, plan: RoundPlan, clients: Mapping[str, Client], weights: Sequence[int] = (1,) * CLIENTS) -> None:
        self.plan, self.clients = plan, list(clients.values())
        self.t = parameters_of(plan).threshold
        self._messages = registry.find(plan.protocol).messages
        starts = zip(self.clients, vectors(), weights, strict=True)
        self.adverts: list[Advert] = [self._decoded(client.start(plan, row, weight)) for client, row, weight in starts]
        self.uploads: dict[int, Upload] = {}
        self.self_shares: dict[Position, bytes] = {}  # of the victim: holder -> share
        self.key_shares: dict[Position, bytes] = {}
        self.meet()

    def meet(self) -> None:
        """The cohort is whatever adverts the server shows."""
        self.tree = MerkleTree([advert_leaf(advert) for advert in self.adverts])
        self.cohort = Cohort(self.plan, self.tree.root, CLIENTS)

    def _decoded(self, frame: bytes) -> Any:
        return self._messages.decode(self.plan, frame)

    def tell(self, u: Position, message: object) -> Any:
        return self._decoded(self.clients[u].receive(self.frame_of(message)))

    def frame_of(self, message: object) -> bytes:
        return self._messages.encode(self.plan, message)

    def introduce(self, u: Position) -> Dealt:
        neighbours = tuple(Neighbour(v, self.adverts[v]) for v in _EVERYBODY if v != u)
        dealt: Dealt = self.tell(u, Introduction(self.tree.root, CLIENTS, u, neighbours, self.tree.proof(_EVERYBODY)))
        return dealt

    def upload(self) -> _Server:
        """An honest server's round, as far as that."""
        exchange = Exchange(self.cohort, self.cohort.holders, self.t, SECRETS)
        for u in _EVERYBODY:
            exchange.take(u, self.introduce(u))
        for u in _EVERYBODY:
            self.deliver(u, [exchange.delivered(v, u) for v in _EVERYBODY if v != u])
        return self

    def deliver(self, u: Position, boxes: Iterable[Delivered]) -> None:
        """All that is dealt to u, and the verdict that it holds."""
        self.tell(u, Delivery(tuple(boxes)))
        self.uploads[u] = self.tell(u, Verdict(to_bitmap(set(_EVERYBODY), self.cohort.holders(u)), ()))

    def consent(self, u: Position, alive: Iterable[Position]) -> bytes:
        alive = set(alive)
        headers = tuple(self.uploads[v].header for v in sorted(alive - {u}))
        signature: bytes = self.tell(u, Survivors(to_bitmap(alive, _EVERYBODY), headers)).signature
        return signature

    def reveal(self, v: Position, signatures: Mapping[Position, bytes]) -> None:
        """Hand v signatures on the survivors; keep its share of the victim's secrets."""
        signed = tuple(SignedBy(u, signatures[u]) for u in sorted(signatures))
        answer: Reveal = self.tell(v, ConsistencySignatures(signed, (), self.tree.proof([])))
        for kept, revealed in ((self.self_shares, answer.self_shares), (self.key_shares, answer.key_shares)):
            kept.update((v, share.share) for share in revealed if share.peer == VICTIM)

    # What can be had from the shares.

    def words(self) -> Words:
        return self.plan.ring.unpack(self.uploads[VICTIM].vector, self.plan.encoding.coordinates).copy()

    def without_pairs(self) -> Words:
        """The victim's upload without all it has masked with together with others, from its rebuilt key."""
        key = AgreementKey(_rebuilt(self.key_shares, self.t))
        return self.without({v: key.agree(self.adverts[v].mask_key) for v in _OTHERS})

    def without(self, agreed: Mapping[Position, bytes]) -> Words:
        words = self.words()
        partners = from_bitmap(self.uploads[VICTIM].header.holders, _EVERYBODY) - {VICTIM}
        seeds = {v: self.cohort.pair_seed(agreed[v], VICTIM, v) for v in partners}
        above = [seed for v, seed in seeds.items() if v > VICTIM]  # the lower position has added, the higher subtracted
        add_masks(words, [seed for v, seed in seeds.items() if v < VICTIM], above)
        return words

    def numbers(self, words: Words) -> NDArray[np.int64]:
        """The rest: without the victim's own mask."""
        add_masks(words, [], [self.cohort.self_seed(_rebuilt(self.self_shares, self.t), VICTIM)])
        return self.plan.ring.centred(words)


def _rebuilt(shares: Mapping[Position, bytes], threshold: int) -> bytes:
    holders = sorted(shares)[:threshold]
    points = np.stack([unpack_shares(shares[v], 1)[0] for v in holders])
    (secret,) = reconstruct(np.array([[v + 1 for v in holders]]), points[None])
    return secret or b""


def attempt(attack: Callable[[], Seen]) -> Seen:
    """What an attack saw; if it was refused, by what words."""
    try:
        return attack()
    except SecAggError as error:
        return Seen(False, f"refused: “{error}”")


# Attacks.


def late_upload() -> Seen:
    """The server gets as far as in Flower's case: one mask is left. Its seed is a key of AES-256."""
    plan, _, clients = _scene()
    server = _Server(plan, clients).upload()
    signatures = {u: server.consent(u, _OTHERS) for u in _OTHERS}
    for holder in _OTHERS:
        server.reveal(holder, signatures)
    left = server.without_pairs()
    victim: Any = server.clients[VICTIM].current
    seed = server.cohort.self_seed(victim._self_secret, VICTIM)  # what only the client knows: to place the window
    search = search_ours(left, plan.ring, SCALE, fold(seed))
    found = np.zeros(LENGTH, np.int64)
    for candidate in search.found:
        add_masks(left, [], [candidate.to_bytes(4, "little").ljust(SEED_BYTES, b"\0")])
        found = plan.ring.centred(left)
    years = log10(2.0 ** (8 * len(seed)) / search.rate / 31_557_600)
    how = (
        f"mask seeds have {8 * len(seed)} bits; of those with 32, {search.tried:,} around the right one, folded, were "
        f"tried and {len(search.found)} fit; at this rate all 2^{8 * len(seed)} take 10^{years:.0f} years"
    )
    return compared(found, VICTIM, how)


def both_shares() -> Seen:
    """No message can name one client twice: a set of survivors is a bitmap. So every client hears two sets in a row."""
    plan, _, clients = _scene()
    server = _Server(plan, clients).upload()
    for alive in (_EVERYBODY, _OTHERS):
        signatures = {u: server.consent(u, alive) for u in _OTHERS}
        for holder in _OTHERS:
            server.reveal(holder, signatures)
    return compared(server.numbers(server.without_pairs()), VICTIM, "each client answered for two sets of survivors")


def split_view() -> Seen:
    """Half of the clients hear that the victim is alive, half that it is dead, and each half signs what it heard."""

    def attack(plan: RoundPlan, clients: Mapping[str, Client]) -> Seen:
        server, half = _Server(plan, clients).upload(), CLIENTS // 2
        for group, alive in ((_EVERYBODY[:half], _EVERYBODY), (_EVERYBODY[half:], _OTHERS)):
            signatures = {u: server.consent(u, alive) for u in group}
            for holder in group:
                server.reveal(holder, signatures)
        return compared(server.numbers(server.without_pairs()), VICTIM, "either half answered")

    plan, _, clients = _scene()
    weak = replace(plan, parameters=GraphParameters(Graph.COMPLETE, CLIENTS - 1, CLIENTS // 2))
    seen = [attempt(partial(attack, weak, clients)), attempt(partial(attack, plan, clients))]
    return Seen(any(one.works for one in seen), "; with that threshold ".join(one.text for one in seen))


def cohort_of_one() -> Seen:
    """Plans for one client, for the two that a sum needs at least, and for ten of which two are enough."""
    plan, _, clients = _scene()
    return _accepted(
        clients,
        _forged(plan, clients=1, min_contributors=1, parameters=GraphParameters(Graph.COMPLETE, 0, 1)),
        _forged(plan, clients=2, min_contributors=2, parameters=GraphParameters(Graph.COMPLETE, 1, 2)),
        _forged(plan, parameters=GraphParameters(Graph.COMPLETE, CLIENTS - 1, 2)),
    )


def chosen_modulus() -> Seen:
    """The narrowest ring there is, and one that holds each client's numbers but not their sum.

    Accepting counts as lost, though it would not show the vector: masks are uniform in whatever ring.
    """
    plan, _, clients = _scene()
    return _accepted(clients, _forged(plan, ring_bits=8), _forged(plan, ring_bits=BITS + 1))


def _forged(plan: RoundPlan, **changed: object) -> bytes:
    """The bytes of a plan that ours would not write."""
    forged = replace(plan)
    for name, value in changed.items():
        object.__setattr__(forged, name, value)
    return forged.encode()


def _accepted(clients: Mapping[str, Client], *plans: bytes) -> Seen:
    client, update = list(clients.values())[VICTIM], vectors()[VICTIM]

    def attack(plan: bytes) -> Seen:
        client.start(RoundPlan.decode(plan), update)
        return Seen(True, "the client takes part")

    seen = [attempt(partial(attack, plan)) for plan in plans]
    return Seen(any(one.works for one in seen), "; ".join(one.text for one in seen))


def substituted_keys() -> Seen:
    """The victim is shown the server's keys as all its neighbours', signed by the server as well as it can."""
    plan, _, clients = _scene()
    server = _Server(plan, clients)
    mask_keys = {v: AgreementKey(os.urandom(KEY_BYTES)) for v in _OTHERS}
    seal_keys = {v: AgreementKey(os.urandom(KEY_BYTES)) for v in _OTHERS}
    signing = SigningKey(os.urandom(KEY_BYTES))
    for v in _OTHERS:
        keys = (mask_keys[v].public, seal_keys[v].public, bytes(HASH_BYTES))
        signature = signing.sign(labels.ADVERT, plan.digest(), u32.encode(v), *keys)
        server.adverts[v] = Advert(Number(v), *keys, signature)
    server.meet()
    dealt, own, boxes = server.introduce(VICTIM), server.adverts[VICTIM], list[Delivered]()
    for v, box in zip(_OTHERS, dealt.boxes, strict=True):
        agreed = seal_keys[v].agree(own.seal_key)
        sealed = np.frombuffer(box.points, "<u4")[None]
        points = unpadded(sealed, [server.cohort.pad_key(agreed, VICTIM, v)]).astype("<u4").tobytes()
        server.self_shares[v] = share_of(points, SELF_MASK)
        boxes.append(_dealt_to_the_victim(server, v, agreed))
    server.deliver(VICTIM, boxes)
    left = server.without({v: key.agree(own.mask_key) for v, key in mask_keys.items()})
    return compared(server.numbers(left), VICTIM, "all neighbours' keys were the server's")


def _dealt_to_the_victim(server: _Server, v: Position, agreed: bytes) -> Delivered:
    """A good box of v's, with shares of nothing in it."""
    secrets, holders = [bytes(KEY_BYTES)] * SECRETS, server.cohort.holders(v)
    pad_key = server.cohort.pad_key(agreed, v, VICTIM)
    return Dealing(server.cohort, v, holders, server.t, secrets, os.urandom, lambda _: pad_key).delivered(VICTIM)


def sample_count() -> Seen:
    """Everything that an upload consists of, for the victim's real weight and for 1.

    A masked word is the weight by chance once in 2^30 runs.
    """
    real, one = (_weighted(weight) for weight in (WEIGHTS[VICTIM], 1))
    masked = int(real.plan.ring.centred(real.words())[-1])
    sizes = [len(server.frame_of(server.uploads[VICTIM])) for server in (real, one)]
    shows = WEIGHTS[VICTIM] in (real.uploads[VICTIM].header.position, masked) or sizes[0] != sizes[1]
    return Seen(
        shows,
        f"a position, a bitmap, a hash, a signature and masked words; {sizes[0]:,} bytes for {WEIGHTS[VICTIM]} as "
        f"{sizes[1]:,} for 1; the word that holds the weight reads {masked}",
    )


def _weighted(weight: int) -> _Server:
    plan, _, clients = _scene(replace(_ENCODING, weight_bound=max(WEIGHTS)))
    return _Server(plan, clients, [weight if u == VICTIM else WEIGHTS[u] for u in _EVERYBODY]).upload()


def two_rounds() -> Seen:
    """The server has the same updates summed up twice, and calls the victim silent the second time."""
    plan, roster, clients = _scene()
    updates = dict(zip(clients, vectors(), strict=True))
    silent = Faults(dropouts={roster.names[VICTIM]: "upload"})
    every = simulate(serve(plan, roster), clients, updates.get).outcome.total
    rest = simulate(serve(plan.next_round(), roster), clients, updates.get, faults=silent).outcome.total
    return compared(every - rest, VICTIM, "the difference of two sums")


def one_colluder() -> Seen:
    """An honest round of ``ckks``; one of those who hold its key gives it to the server, that has the uploads."""
    policy = replace(_POLICY, protocols={"ckks"}, adversary=Adversary.CURIOUS, corrupt=0)
    roster, clients = local_clients(CLIENTS, policy)
    plan = RoundPlan.propose(
        "ckks", roster, _ENCODING, min_contributors=policy.min_contributors, corrupt="0", dropout="0.1"
    )
    server: Any = serve(plan, roster)
    uploads, keys = list[bytes](), list[bytes]()

    def seen(envelope: Envelope) -> bytes:
        if envelope.sender == roster.names[VICTIM] and envelope.phase == Phase.UPLOAD:
            place = server._positions[roster.number(envelope.sender)]
            sealed: Any = registry.find("ckks").messages.decode(plan, envelope.frame)
            uploads.append(server._opened(place, labels.CKKS_UPLOAD, sealed.encrypted))
        elif envelope.sender in clients and envelope.phase == Phase.CONSISTENCY:
            colluder: Any = clients[envelope.sender].current
            if envelope.sender != roster.names[VICTIM] and colluder._secret_key:
                keys.append(colluder._secret_key)
        return envelope.frame

    simulate(server, clients, dict(zip(clients, vectors(), strict=True)).get, faults=Faults(corrupted=seen))
    opened = ciphertexts.decrypt(layout_of(plan), keys[0], ENCRYPTED.decode(uploads[0]).chunks)
    found = plan.ring.centred(opened.astype(plan.ring.dtype))
    return compared(found, VICTIM, f"with ckks, whose key {len(keys)} of the other clients hold: one gave it away")


def poisoned() -> Seen:
    """One client uploads the largest numbers there are."""
    plan, roster, clients = _scene()
    updates, honest = dict(zip(clients, vectors(), strict=True)), vectors().sum(axis=0)
    updates[roster.names[VICTIM]] = np.full(LENGTH, _ENCODING.largest)
    server = serve(plan, roster)
    total = simulate(server, clients, updates.get).outcome.total
    whole = int(np.count_nonzero(total == honest - vectors()[VICTIM] + _ENCODING.largest))
    return Seen(
        whole == LENGTH and not server.liars,
        f"{whole:,} of {LENGTH:,} numbers of the sum have all of the lie in them, {total[0] / SCALE / CLIENTS:.2f} "
        f"instead of {honest[0] / SCALE / CLIENTS:.2f} in the mean; nobody is named",
    )


# Accidents.


def half_silent() -> Seen:
    """Half of the clients share their secrets and do not upload."""
    plan, roster, clients = _scene()
    updates = dict(zip(clients, vectors(), strict=True))
    silent = dict.fromkeys(roster.names[CLIENTS // 2 :], "upload")
    try:
        total = simulate(serve(plan, roster), clients, updates.get, faults=Faults(dropouts=silent)).outcome.total
    except ThresholdError as error:
        return Seen(True, f"no sum: “{error}”")
    right = int(np.count_nonzero(total == vectors()[: CLIENTS // 2].sum(axis=0)))
    return Seen(right != LENGTH, f"{right:,} of {LENGTH:,} numbers are the exact sum of the others")


def silent_before_sharing() -> Seen:
    plan, roster, clients = _scene()
    updates = dict(zip(clients, vectors(), strict=True))
    silent = {roster.names[VICTIM]: "share"}
    return _rest(simulate(serve(plan, roster), clients, updates.get, faults=Faults(dropouts=silent)).outcome.total)


def not_a_number() -> Seen:
    plan, roster, clients = _scene()
    victim = roster.names[VICTIM]
    refusal = attempt(lambda: Seen(True, f"{len(clients[victim].start(plan, np.full(LENGTH, np.nan)))} bytes"))
    updates = {name: row for name, row in zip(clients, vectors(), strict=True) if name != victim}
    rest = _rest(simulate(serve(plan, roster), clients, updates.get).outcome.total)
    return Seen(refusal.works or rest.works, f"{refusal.text} before anything is sent; {rest.text}")


def _rest(total: NDArray[np.int64]) -> Seen:
    right = int(np.count_nonzero(total == vectors()[_OTHERS].sum(axis=0)))
    return Seen(right != LENGTH, f"the round ends, and {right:,} of {LENGTH:,} numbers are the exact sum of the others")
