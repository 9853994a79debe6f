"""An evil server, with the corrupt clients in its hand, against real ``Client`` objects.

``Evil`` keeps everything that passes, makes every message itself, with what it pleases in it, and in the end tries to
rebuild secrets from the shares that it got. Corrupt clients are ``Puppet``s: the real round machine, without journal
and without restraint. Positions in the cohort are called u, v, w, as in ``protocols.pairwise``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from hashlib import sha256
from typing import Any

import numpy as np
import pytest

from protocols import registry
from protocols.client import Client
from protocols.pairwise.client import PairwiseClient, advert_leaf
from protocols.pairwise.cohort import Cohort
from protocols.pairwise.messages import (
    MASK_KEY,
    SECRETS,
    SELF_MASK,
    Advert,
    ConsistencySignatures,
    Introduction,
    Neighbour,
    Reveal,
    Survivors,
    Upload,
    UploadHeader,
    Verdict,
)
from protocols.pairwise.parameters import parameters_of
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import SERVER, Identity, Roster
from protocols.rounds.dealing import (
    Accusations,
    Complaint,
    Complaints,
    Dealing,
    Dealt,
    Defence,
    Delivered,
    Delivery,
    Opened,
    complaint,
    share_of,
)
from protocols.rounds.exchange import Exchange
from protocols.rounds.sets import to_bitmap
from protocols.rounds.survivors import ConsistencySignature, SignedBy
from protocols.simulation.network import Envelope
from secagg.assumptions import Adversary
from secagg.crypto import labels, merkle
from secagg.crypto.dealing import unpadded
from secagg.crypto.graph import Graph, GraphParameters
from secagg.crypto.keys import AgreementKey
from secagg.crypto.masking import add_masks
from secagg.crypto.merkle import NODE, MerkleTree, Node
from secagg.crypto.prg import Prg
from secagg.crypto.shamir import PRIME, pack_shares, reconstruct, unpack_shares
from secagg.encoding import Encoding
from tests.controls import Denied, switch_off

LENGTH = 7
_leaf = cache(advert_leaf)


def share_of_another(holders: Sequence[int], v: int, share: bytes, more: int = 1) -> bytes:
    """v's share, changed so that these holders rebuild another secret, whose first limb is larger by ``more``.

    It is off by the inverse of v's Lagrange coefficient at zero; a holder u has the share at u + 1.
    """
    shift = more
    for w in holders:
        if w != v:
            shift = shift * (w - v) * pow(w + 1, -1, PRIME) % PRIME
    limbs = unpack_shares(share, 1).astype(np.uint64)
    limbs[0, 0] = (limbs[0, 0] + np.uint64(shift)) % np.uint64(PRIME)
    return pack_shares(limbs.astype(np.uint32))


def members_of(bitmap: bytes, universe: Sequence[int]) -> frozenset[int]:
    return frozenset(element for i, element in enumerate(universe) if bitmap[i // 8] >> i % 8 & 1)


class LooseTree(MerkleTree):
    """As the server builds it when it has something to hide: in any order, with anything in it."""

    def __init__(self, leaves: Sequence[Node]) -> None:
        self._levels = [list(leaves)]
        while len(level := self._levels[-1]) > 1:
            pairs = [_join_anyhow(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
            self._levels.append(pairs + level[len(level) - len(level) % 2 :])
        self.root = merkle._root(len(leaves), self._levels[-1][0])

    def exchange(self, changed: Mapping[int, Node]) -> None:
        """Put other leaves at some places."""
        self.__dict__.pop("_nodes", None)
        for i, level in enumerate(self._levels):
            for index, node in changed.items():
                level[index] = node
            parents = {index // 2 for index in changed}
            if i + 1 < len(self._levels):
                changed = {
                    p: _join_anyhow(*level[2 * p : 2 * p + 2]) if 2 * p + 1 < len(level) else level[2 * p]
                    for p in parents
                }
        self.root = merkle._root(len(self._levels[0]), self._levels[-1][0])


def _join_anyhow(left: Node, right: Node) -> Node:
    return Node(left.low, right.high, sha256(labels.NODE + NODE.encode(left) + NODE.encode(right)).digest())


class Puppet:
    """A corrupt client: the real machine of one round, which the attacker drives and reads as it likes."""

    def __init__(self, plan: RoundPlan, roster: Roster, identity: Identity, values: Any, secret: bytes) -> None:
        messages = registry.find(plan.protocol).messages
        lax = Policy(min_contributors=2, corrupt=0, dropout=0, adversary=Adversary.CURIOUS, security=1)
        self.round: Any = registry.find(plan.protocol).client(
            plan, roster, messages, identity, lax, lambda: values, secret
        )

    def hear(self, message: object) -> object:
        step = self.round.steps[self.round.phase]
        if step.optional and not isinstance(message, step.hears):
            step = self.round.steps[step.then]
        step.check(self.round, message)
        self.round.phase = step.then
        return step.reply(self.round)


class Evil:
    """One round under attack. ``honest`` are real clients, by position; ``corrupt`` are puppets; ``outsiders`` are
    further identities of the roster in the attacker's hand that are not in the cohort."""

    def __init__(
        self,
        plan: RoundPlan,
        roster: Roster,
        identities: Mapping[str, Identity],
        corrupt: Iterable[int],
        policy: Policy,
        *,
        seed: int = 0,
        journals: Callable[[str], Any] = lambda name: None,
    ) -> None:
        self.plan, self.roster, self.identities, self.policy = plan, roster, identities, policy
        self.t = parameters_of(plan).threshold
        self.members = list(range(plan.clients))  # position -> roster number: everybody but the outsiders
        self.outsiders = list(range(plan.clients, len(roster)))
        self.corrupt = sorted(corrupt)
        self.honest = [u for u in self.members if u not in self.corrupt]
        self.messages = registry.find(plan.protocol).messages
        draw = np.random.default_rng(seed)
        self.values = draw.integers(-99, 100, (plan.clients, plan.encoding.length))
        self.seen = list[Envelope]()
        """All that passed, for the leak oracle."""
        self.clients = {
            u: Client(
                identities[self.name(u)],
                roster,
                policy=policy,
                journal=journals(self.name(u)),
                rng=Prg(seed.to_bytes(16, "big") + u.to_bytes(16, "big")),
            )
            for u in self.honest
        }
        self.puppets = {
            u: Puppet(plan, roster, identities[self.name(u)], self.values[u], u.to_bytes(32, "big"))
            for u in self.corrupt
        }
        self.adverts: dict[int, Advert] = {}
        self.boxes: dict[int, dict[int, Delivered]] = {}  # holder -> dealer -> box
        self.complaints: dict[int, Complaints] = {}
        self.defences: dict[int, Defence] = {}
        self.headers: dict[int, UploadHeader] = {}
        self.vectors: dict[int, bytes] = {}
        self.self_shares: dict[int, dict[int, bytes]] = {}  # whose -> holder -> share
        self.key_shares: dict[int, dict[int, bytes]] = {}

    def name(self, number: int) -> str:
        return self.roster.names[number]

    # Speaking to one client, honest or corrupt.

    def frame(self, message: object) -> bytes:
        return self.messages.encode(self.plan, message)

    def tell(self, u: int, message: object) -> Any:
        name, frame = self.name(self.leaves[u].client), self.frame(message)
        self.seen.append(Envelope("", SERVER, name, frame))
        if (puppet := self.puppet(u)) is not None:
            answer = self.frame(puppet.hear(message))
        else:
            answer = self.client(u).receive(frame)
        self.seen.append(Envelope("", name, SERVER, answer))
        return self.messages.decode(self.plan, answer)

    def client(self, u: int) -> Client:
        return self.clients[self.leaves[u].client]

    def puppet(self, u: int) -> Puppet | None:
        return self.puppets.get(self.leaves[u].client)

    def start(self, u: int) -> Advert:
        if u in self.puppets:
            return self.puppets[u].round.opening()
        return self.messages.decode(self.plan, self.clients[u].start(self.plan, self.values[u]))  # type: ignore[return-value]

    # The phases, each for whom the attacker likes.

    def advertise(self) -> None:
        for u in self.members:
            self.adverts[u] = self.start(u)
            self.seen.append(Envelope("", self.name(u), SERVER, self.frame(self.adverts[u])))
        self.found([self.adverts[u] for u in self.members])

    def found(self, leaves: Sequence[Advert]) -> None:
        """Build the cohort, honestly or not, from these adverts."""
        self.leaves = list(leaves)
        self.nodes = [_leaf(advert) for advert in leaves]
        self.tree = LooseTree(self.nodes)
        self.cohort = Cohort(self.plan, self.tree.root, len(leaves))

    def exchange(self, advert: Advert) -> None:
        """One client's new advert in place of its old one, wherever it stands."""
        places = [u for u, old in enumerate(self.leaves) if old.client == advert.client]
        for u in places:
            self.leaves[u], self.nodes[u] = advert, _leaf(advert)
        self.tree.exchange({u: _leaf(advert) for u in places})
        self.cohort = Cohort(self.plan, self.tree.root, len(self.leaves))

    def introduction(self, u: int) -> Introduction:
        others = self.others(u)
        neighbours = tuple(Neighbour(v, self.leaves[v]) for v in others)
        return Introduction(self.tree.root, len(self.leaves), u, neighbours, self.tree.proof([u, *others]))

    def others(self, u: int) -> list[int]:
        return [v for v in self.holders(u) if v != u]

    def holders(self, u: int) -> tuple[int, ...]:
        return self.cohort.holders(u)

    def share(self, who: Iterable[int] | None = None) -> None:
        for u in self.members if who is None else who:
            self.keep_boxes(u, self.tell(u, self.introduction(u)))

    def keep_boxes(self, u: int, dealt: Dealt) -> None:
        exchange = Exchange(self.cohort, self.holders, self.t, SECRETS)
        exchange.take(u, dealt)
        for v in self.others(u):
            self.boxes.setdefault(v, {})[u] = exchange.delivered(u, v)
        self.intercept(u)

    def delivery(self, u: int, senders: Iterable[int] | None = None) -> Delivery:
        """The boxes for u, from all who dealt or only from ``senders``."""
        boxes = self.boxes.get(u, {})
        chosen = boxes.keys() if senders is None else boxes.keys() & set(senders)
        return Delivery(tuple(boxes[v] for v in sorted(chosen)))

    def complain(
        self, who: Iterable[int] | None = None, *, senders: Callable[[int], Iterable[int] | None] = lambda u: None
    ) -> None:
        for u in self.members if who is None else who:
            self.complaints[u] = self.tell(u, self.delivery(u, senders(u)))

    def accusations(self, u: int) -> Accusations:
        """All that others say about u's boxes."""
        return Accusations(
            tuple(
                replace(said, peer=v)
                for v in sorted(self.complaints)
                for said in self.complaints[v].complaints
                if said.peer == u
            )
        )

    def false_complaint(self, v: int, u: int) -> Complaint:
        """The corrupt v's, about u's box to it, as the server shows it to u."""
        key = self.identities[self.name(self.leaves[v].client)].key
        return replace(complaint(key, self.cohort, v, self.boxes[v][u]), peer=v)

    def accuse(self, u: int, accusations: Accusations) -> Defence:
        """What u opens, after it has looked at its boxes; the server keeps it."""
        if u not in self.complaints:
            self.complain([u])
        defence: Defence = self.tell(u, accusations)
        self.defences[u] = defence
        for one in defence.opened:
            self.open_box(u, one.peer, one.key)
        return defence

    def opened_for(self, u: int) -> tuple[Opened, ...]:
        return tuple(
            Opened(dealer, one.key)
            for dealer, defence in sorted(self.defences.items())
            for one in defence.opened
            if one.peer == u
        )

    def verdict(self, u: int, senders: Iterable[int] | None = None) -> Verdict:
        """u is to keep the shares of all who dealt to it, or of ``senders`` among them."""
        boxes = self.boxes.get(u, {})
        chosen = {*boxes} if senders is None else boxes.keys() & set(senders)
        return Verdict(to_bitmap(chosen | {u}, self.holders(u)), self.opened_for(u))

    def upload(
        self, who: Iterable[int] | None = None, *, senders: Callable[[int], Iterable[int] | None] = lambda u: None
    ) -> None:
        """Boxes and the verdict on them for each; both speak of all dealers, or of ``senders``."""
        for u in self.members if who is None else who:
            if u not in self.complaints:
                self.complain([u], senders=senders)
            self.keep_upload(u, self.tell(u, self.verdict(u, senders(u))))

    def keep_upload(self, u: int, upload: Upload) -> None:
        self.headers[u], self.vectors[u] = upload.header, upload.vector

    def bitmap(self, alive: Iterable[int]) -> bytes:
        return to_bitmap(set(alive), range(len(self.leaves)))

    def digest(self, alive: Iterable[int]) -> bytes:
        return self.cohort.agreed(self.bitmap(alive)).digest

    def listed(self, u: int) -> frozenset[int]:
        """Whom u says it masked with."""
        return members_of(self.headers[u].holders, self.holders(u))

    def survivors(self, u: int, alive: Iterable[int]) -> Survivors:
        """With the headers that there are, of all of u's neighbours in the set."""
        alive = set(alive)
        wanted = sorted(alive.intersection(self.others(u), self.headers))
        return Survivors(self.bitmap(alive), tuple(self.headers[v] for v in wanted))

    def consent(self, u: int, alive: Iterable[int]) -> bytes:
        """u's signature on a set of survivors: asked for, or made, if u is corrupt."""
        if self.puppet(u) is not None:
            return self.sign(u, alive)
        consent: ConsistencySignature = self.tell(u, self.survivors(u, alive))
        return consent.signature

    def sign(self, number: int, alive: Iterable[int]) -> bytes:
        return self.identities[self.name(number)].key.sign(labels.SURVIVORS, self.digest(alive))

    def reveal(self, v: int, signatures: Mapping[int, bytes]) -> Reveal:
        reveal: Reveal = self.tell(v, self.consents(v, signatures))
        self.keep_shares(v, reveal)
        return reveal

    def consents(self, v: int, signatures: Mapping[int, bytes]) -> ConsistencySignatures:
        """Signatures by position, with what shows v that the strangers among the signers are in the cohort."""
        strangers = [u for u in sorted(signatures) if u != v and u not in self.holders(v)]
        signed = tuple(SignedBy(u, signatures[u]) for u in sorted(signatures))
        return ConsistencySignatures(signed, tuple(self.nodes[u] for u in strangers), self.tree.proof(strangers))

    def keep_shares(self, v: int, reveal: Reveal) -> None:
        for share in reveal.self_shares:
            self.self_shares.setdefault(share.peer, {})[v] = share.share
        for share in reveal.key_shares:
            self.key_shares.setdefault(share.peer, {})[v] = share.share

    def open_box(self, dealer: int, holder: int, key: bytes) -> None:
        """Keep both shares."""
        sealed = np.frombuffer(self.boxes[holder][dealer].points, "<u4")[None]
        points = unpadded(sealed, [key]).astype("<u4").tobytes()
        self.key_shares.setdefault(dealer, {})[holder] = share_of(points, MASK_KEY)
        self.self_shares.setdefault(dealer, {})[holder] = share_of(points, SELF_MASK)

    def intercept(self, u: int) -> None:
        """What u dealt to the corrupt, the server has: both kinds of share."""
        for v in self.others(u):
            if self.puppet(v) is not None:
                self.open_box(u, v, self.pad_key(v, u, u, v))

    def pad_key(self, corrupt: int, peer: int, dealer: int, holder: int) -> bytes:
        """What is between a corrupt client and a peer, one of whom deals and the other holds."""
        puppet = self.puppets[self.leaves[corrupt].client]
        return self.cohort.pad_key(puppet.round._seal_key.agree(self.leaves[peer].seal_key), dealer, holder)

    def forged_box(self, v: int, u: int, secrets: Sequence[bytes] = (bytes(32), bytes(32))) -> Delivered:
        """A good box to u that the corrupt v has dealt to nobody else, of what secrets it likes."""
        dealing = Dealing(self.cohort, v, [u], self.t, secrets, os.urandom, lambda _: self.pad_key(v, u, v, u))
        return dealing.delivered(u)

    def deal_falsely(self, u: int, dealers: Iterable[int]) -> None:
        """Good boxes for u from these corrupt clients, and from nobody else."""
        self.boxes[u] = {v: self.forged_box(v, u) for v in dealers}

    # What can be had from the loot.

    def self_secret(self, u: int) -> bytes:
        if (puppet := self.puppet(u)) is not None:
            return puppet.round._self_secret
        return self.rebuild(self.self_shares.get(u, {}))

    def mask_key(self, u: int) -> AgreementKey:
        if (puppet := self.puppet(u)) is not None:
            return puppet.round._mask_key
        return AgreementKey(self.rebuild(self.key_shares.get(u, {})))

    def rebuild(self, shares: Mapping[int, bytes]) -> bytes:
        if len(shares) < self.t:
            raise Denied(f"{len(shares)} shares, {self.t} are needed")
        holders = sorted(shares)[: self.t]
        points = np.stack([unpack_shares(shares[v], 1)[0] for v in holders])
        (secret,) = reconstruct(np.array([[v + 1 for v in holders]]), points[None])
        if secret is None:
            raise Denied("the shares do not fit together")
        return secret

    def pair_seed(self, u: int, v: int) -> bytes:
        """The mask of u and v, from whichever of their keys the loot gives."""
        for mine, other in ((u, v), (v, u)):
            try:
                agreed = self.mask_key(mine).agree(self.leaves[other].mask_key)
            except Denied:
                continue
            return self.cohort.pair_seed(agreed, u, v)
        raise Denied(f"neither key of the pair {u}, {v}")

    def sum_of(self, group: Iterable[int]) -> list[int]:
        """The sum of the vectors of ``group``, or ``Denied``: their uploads minus all masks but those that cancel."""
        group = set(group)
        total = self.plan.ring.zeros(length := self.plan.encoding.length)
        added, subtracted = list[bytes](), list[bytes]()
        for u in group:
            total += self.plan.ring.unpack(self.vectors[u], length)
            added.append(self.cohort.self_seed(self.self_secret(u), u))
            for v in self.listed(u) - {u}:
                if not (v in group and u in self.listed(v)):
                    (added if u < v else subtracted).append(self.pair_seed(u, v))
        add_masks(total, subtracted, added)
        return self.plan.ring.centred(total).tolist()

    def plain(self, group: Iterable[int]) -> list[int]:
        return self.values[sorted(group)].sum(axis=0).tolist()


def make(
    protocol: str,
    *,
    clients: int,
    corrupt: Iterable[int] = (),
    outsiders: int = 0,
    parameters: GraphParameters,
    min_contributors: int = 2,
    policy: Policy | None = None,
    seed: int = 0,
    length: int = LENGTH,
    **options: Any,
) -> Evil:
    """A round of ``clients`` in a roster that has ``outsiders`` more. Without a policy the clients accept (k, t)."""
    names = [f"client-{i:02}" for i in range(clients)] + [f"outsider-{i:02}" for i in range(outsiders)]
    identities = {name: Identity.generate(name, Prg(name.encode().ljust(32))) for name in names}
    roster = Roster.of(list(identities.values()))
    plan = RoundPlan.propose(
        "secagg",
        roster,
        Encoding.integers(length),
        min_contributors=min_contributors,
        clients=clients,
        corrupt=0,
        dropout=0,
        session=seed.to_bytes(16, "big"),
    )
    plan = replace(plan, protocol=protocol, parameters=parameters)
    if policy is None:
        policy = Policy(
            min_contributors=min_contributors, corrupt=0, dropout=0, adversary=Adversary.CURIOUS, security=1
        )
    return Evil(plan, roster, identities, corrupt, policy, seed=seed, **options)


def small(protocol: str, **options: Any) -> Evil:
    """The usual scene. secagg: 10 clients, t = 7; secagg+: 16 clients, k = 8, t = 6. Either resists 3 corrupt
    neighbours (2t > k + 3), of the last three clients."""
    if protocol == "secagg":
        parameters = GraphParameters(Graph.COMPLETE, 9, 7)
        return make(protocol, **{"clients": 10, "corrupt": (7, 8, 9), "parameters": parameters} | options)
    parameters = GraphParameters(Graph.RING, 8, 6)
    return make(protocol, **{"clients": 16, "corrupt": (13, 14, 15), "parameters": parameters} | options)


def wary(protocol: str) -> Policy:
    """Of clients that hold 3 of their neighbours for corrupt in the usual scene, and so put up with 3 complaints."""
    corrupt = "0.3" if protocol == "secagg" else "0.1875"
    return Policy(min_contributors=2, corrupt=corrupt, dropout=0, adversary=Adversary.CURIOUS, security=1)


BOTH = pytest.mark.parametrize("protocol", ["secagg", "secagg+"])
"""The two protocols that this suite is about: its attacker knows their messages."""


MINE, THEIRS = (
    "not self._held.keys() >= set(alive)",
    "self._u not in check_header(self._cohort, self.roster, client, self._t, header)",
)
"""The two sides of mutual masking, as a client checks them."""


def believe_that_masking_is_mutual(monkeypatch: pytest.MonkeyPatch) -> None:
    switch_off(monkeypatch, PairwiseClient, "_hear_survivors", MINE)
    switch_off(monkeypatch, PairwiseClient, "_hear_survivors", THEIRS)
