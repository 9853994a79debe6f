"""The server of the pairwise protocols (the paper and the threat model are in ``protocols.pairwise``).

It routes messages, adds masked vectors as they arrive, and in the end rebuilds and removes the masks. An honest server
makes the same checks as the clients, so that a lying client cannot spoil the round of the others unnoticed. Clients
are positions in U1 once U1 is there; u is an uploader, v a holder of its shares, w a dropout.
"""

from __future__ import annotations

from collections.abc import Set
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from protocols.engines import add_masks_on
from protocols.engines.local import beside
from protocols.engines.sums import PackedSum
from protocols.pairwise.client import advert_leaf, check_advert, check_header
from protocols.pairwise.cohort import Cohort
from protocols.pairwise.messages import (
    HEADER,
    MASK_KEY,
    NEIGHBOUR,
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
from protocols.parameters import ENFORCED_UP_TO
from protocols.roster import Number
from protocols.rounds.cohort import Position, positions
from protocols.rounds.dealing import Complaints, Dealt, Defence
from protocols.rounds.excess import check_excess
from protocols.rounds.exchange import DealingServer, Exchange
from protocols.rounds.phases import Phase
from protocols.rounds.server import NOTHING, Sends
from protocols.rounds.sets import to_bitmap
from protocols.rounds.steps import Charge, Step, Steps, table
from protocols.rounds.survivors import SIGNED_BY, ConsistencySignature, SignedBy
from secagg.codec import Once
from secagg.crypto import labels
from secagg.crypto.keys import AgreementKey, digest
from secagg.crypto.merkle import MerkleTree
from secagg.crypto.ring import Words
from secagg.crypto.shamir import reconstruct, unpack_shares
from secagg.errors import PeerError

_TOGETHER = 512
"""Masks of dropouts that are expanded together, while keys are agreed on for the next."""


class PairwiseServer(DealingServer):
    _adverts: dict[Number, Advert]

    @table
    def steps(cls: type[PairwiseServer]) -> Steps:
        return {
            Phase.ADVERTISE: Step(Advert, cls._admit, cls._introduce, Phase.SHARE),
            Phase.SHARE: Step(Dealt, cls._take_boxes, cls._deliver, Phase.COMPLAIN),
            Phase.COMPLAIN: Step(Complaints, cls._take_complaints, cls._accuse, Phase.DEFEND),
            Phase.DEFEND: Step(Defence, cls._take_defence, cls._judge, Phase.UPLOAD, optional=True),
            Phase.UPLOAD: Step(
                Upload,
                cls._add,
                cls._announce_survivors,
                Phase.CONSISTENCY,
                before=cls._hash_of,
                after=cls._work_off,
            ),
            Phase.CONSISTENCY: Step(
                ConsistencySignature, cls._take_signature, cls._pass_on_signatures, Phase.REVEAL, Charge.COMMIT
            ),
            Phase.REVEAL: Step(Reveal, cls._take_reveal, cls._unmask, Phase.DONE),
        }

    def _prepare(self) -> None:
        super()._prepare()
        self._t, self._q = parameters_of(self.plan).threshold, parameters_of(self.plan).quorum
        self._least = max(self._t, self.plan.min_contributors)
        self._headers: dict[Position, UploadHeader] = {}  # U3
        self._masked_with: dict[Position, frozenset[Position]] = {}
        self._sum = PackedSum(self._engine, self.plan.ring, self.plan.encoding.coordinates)
        self._revealed: dict[Position, tuple[NDArray[np.int64], bytes]] = {}  # holder -> whose shares, and the shares
        self.masks_removed = 0
        """Mask streams expanded at the end: what the round cost the server."""

    # 1 ADVERTISE

    def _check_advert(self, advert: Advert) -> None:
        check_advert(self.plan, self.roster, advert)

    def _introduce(self) -> Sends:
        self._need(len(self._adverts), self._least, "clients advertised")
        self._settle()
        self._leaves = [advert_leaf(self._adverts[number]) for number in self._clients]
        self._tree = MerkleTree(self._leaves)
        self._cohort = Cohort(self.plan, self._tree.root, len(self._clients))
        self._holders = [self._cohort.holders(u) for u in positions(len(self._clients))]
        self._exchange = Exchange(self._cohort, self._holders.__getitem__, self._t, SECRETS)
        self._need(len(self._holders[0]), self._t, "neighbours are there for each client")
        adverts = [self._adverts[number] for number in self._clients]
        self._neighbours = Once(NEIGHBOUR, list(map(Neighbour, positions(len(adverts)), adverts)))
        return Sends(self._clients, self._introduction)

    def _introduction(self, number: Number) -> Introduction:
        u = self._positions[number]
        others = [v for v in self._holders[u] if v != u]
        neighbours, proof = self._neighbours.some(others), self._tree.proof([u, *others])
        return Introduction(self._tree.root, len(self._clients), u, neighbours, proof)

    # 2 SHARE

    def _take_boxes(self, number: Number, dealt: Dealt) -> None:
        self._exchange.take(self._positions[number], dealt)

    def _deliver(self) -> Sends:
        self._need(len(self._exchange.dealers), self._least, "clients dealt shares")
        return Sends(self._reached(), self._delivery)

    def _dealers_to(self, v: Position) -> Set[Position]:
        """Those of whom v is to hold a share, and with whom it shares a mask."""
        return self._exchange.dealers & self._holders[v]

    def _reached(self) -> list[Number]:
        """Whom enough have dealt shares to, as numbers in the roster."""
        return [self._clients[v] for v in sorted(self._exchange.dealers) if len(self._dealers_to(v)) >= self._t]

    # 3 COMPLAIN and 4 DEFEND: see protocols.rounds.exchange.

    def _judge(self) -> Sends:
        self._end_exchange()
        self._need(len(self._exchange.dealers), self._least, "clients dealt shares that hold")
        return Sends(self._reached(), self._verdict)

    def _verdict(self, number: Number) -> Verdict:
        v = self._positions[number]
        return Verdict(to_bitmap(self._dealers_to(v), self._holders[v]), self._exchange.opened_for(v))

    # 5 UPLOAD

    def _hash_of(self, upload: Upload) -> bytes:
        return digest(labels.VECTOR, upload.vector)

    def _add(self, number: Number, upload: Upload, vector_hash: bytes) -> None:
        u = self._positions[number]
        if upload.header.position != u:
            raise PeerError("an upload in somebody else's place")
        listed = check_header(self._cohort, self.roster, number, self._t, upload.header)
        if vector_hash != upload.header.vector_hash:
            raise PeerError("a vector that is not the signed one")
        if listed != self._dealers_to(u):
            raise PeerError("masked with others than those whose shares it was to keep")
        self._sum.take(upload.vector)
        self._headers[u], self._masked_with[u] = upload.header, listed

    def _work_off(self) -> None:
        self._sum.work_off()

    def _announce_survivors(self) -> Sends:
        self._sum.check()
        survivors = sorted(self._headers)  # U3
        self._need(len(survivors), self._least, "clients uploaded")
        self._exchange.keep_commitments(lambda u: SELF_MASK if u in self._headers else MASK_KEY)
        self._agreed = self._cohort.agreed(to_bitmap(self._headers.keys(), positions(self._cohort.size)))
        self._said = Once(HEADER, self._headers)
        return Sends([self._clients[u] for u in survivors], self._survivors)

    def _survivors(self, number: Number) -> Survivors:
        u = self._positions[number]
        alive = sorted(v for v in self._masked_with[u] if v in self._headers and v != u)
        return Survivors(self._agreed.bitmap, self._said.some(alive))

    # 6 CONSISTENCY

    def _pass_on_signatures(self) -> Sends:
        self._need(len(self._signatures), self._least, "survivors signed")
        self._signers = [self._positions[number] for number in sorted(self._signatures)]  # U4
        self._witnesses = [u for u in self._cohort.witnesses() if self._clients[u] in self._signatures]
        self._need(len(self._witnesses), self._q, "witnesses signed")
        signed = {u: SignedBy(u, self._signatures[self._clients[u]]) for u in self._signers}
        self._signed = Once(SIGNED_BY, signed)
        reached = [u for u in self._signers if len(self._own_signers(u)) >= self._t]
        return Sends([self._clients[u] for u in reached], self._signatures_for)

    def _own_signers(self, u: Position) -> list[Position]:
        return [v for v in self._holders[u] if self._clients[v] in self._signatures]

    def _signatures_for(self, number: Number) -> ConsistencySignatures:
        u = self._positions[number]
        chosen = set(self._own_signers(u)[: self._t])
        known = {u, *self._holders[u]}
        chosen.update(sorted(self._witnesses, key=lambda v: v not in known)[: self._q])
        least = self.plan.min_contributors if self.plan.clients <= ENFORCED_UP_TO else 0
        chosen.update(islice((v for v in self._signers if v not in chosen), max(least - len(chosen), 0)))
        strangers = sorted(chosen - known)
        return ConsistencySignatures(
            self._signed.some(sorted(chosen)),
            tuple(self._leaves[v] for v in strangers),
            self._tree.proof(strangers),
        )

    # 7 REVEAL

    def _take_reveal(self, number: Number, reveal: Reveal) -> None:
        v, survivors = self._positions[number], self._headers.keys()
        held, revealed = self._masked_with[v], (*reveal.self_shares, *reveal.key_shares)
        alive, dropped = sorted(held & survivors), sorted(held - survivors)
        if [share.peer for share in revealed] != alive + dropped or len(reveal.self_shares) != len(alive):
            raise PeerError("shares of others than asked for")
        check_excess(self.plan, len(survivors), reveal.excess)
        shares = {share.peer: share.share for share in revealed}
        self._exchange.check_shares(v, shares)
        self._revealed[v] = np.array(list(shares), np.int64), b"".join(shares.values())
        if reveal.excess:
            self._excess[number] = reveal.excess

    def _unmask(self) -> Sends:
        survivors = sorted(self._headers)
        dropped = sorted(set().union(*self._masked_with.values()) - self._headers.keys())
        secrets = self._rebuilt([*survivors, *dropped])
        total = self._sum.value()
        masks, self.masks_removed = self.plan.ring.zeros(len(total)), 0
        with beside(self._engine.workers, lambda w: self._pair_seeds(w, AgreementKey(secrets[w])), dropped) as agreed:
            self._expand(masks, [self._cohort.self_seed(secrets[u], u) for u in survivors], [])
            plus, minus = list[bytes](), list[bytes]()
            for more, less in agreed:
                plus, minus = plus + more, minus + less
                if len(plus) + len(minus) >= _TOGETHER:
                    self._expand(masks, plus, minus)
                    plus, minus = [], []
            self._expand(masks, plus, minus)
        total -= masks
        self._publish(self.plan.ring.centred(total), survivors)
        return NOTHING

    def _pair_seeds(self, w: Position, key: AgreementKey) -> tuple[list[bytes], list[bytes]]:
        """The masks that are left of a dropout's, in the vectors of its neighbours: those added, those subtracted."""
        plus, minus = list[bytes](), list[bytes]()
        for u in (v for v in self._holders[w] if w in self._masked_with.get(v, ())):
            advert = self._adverts[self._clients[u]]
            seed = self._cohort.pair_seed(key.agree(advert.mask_key), u, w)
            (plus if u < w else minus).append(seed)
        return plus, minus

    def _expand(self, masks: Words, plus: list[bytes], minus: list[bytes]) -> None:
        if plus or minus:
            add_masks_on(self._engine, masks, plus, minus)
        self.masks_removed += len(plus) + len(minus)

    def _rebuilt(self, wanted: list[Position]) -> dict[Position, bytes]:
        """Self-mask seeds of survivors and mask keys of dropouts, all at once, each checked against its advert.

        Every share is one that its dealer committed to, and those that honest holders accepted are of one polynomial.
        So where the secret is another than the advertised one, its dealer has dealt another, to all or to liars.
        """
        self._need(len(self._revealed), 1, "clients revealed shares")
        owners = np.concatenate([peers for peers, _ in self._revealed.values()])
        holders = np.repeat(list(self._revealed), [len(peers) for peers, _ in self._revealed.values()])
        shares = unpack_shares(b"".join([data for _, data in self._revealed.values()]), len(owners))
        order = np.lexsort((holders == owners, owners))  # its own last: nobody has committed to that
        first, end = (np.searchsorted(owners, wanted, side, order) for side in ("left", "right"))
        for u, count in zip(wanted, (end - first).tolist(), strict=True):
            self._need(count, self._t, f"shares came to remove the mask of {self._name(u)}")
        chosen = order[first[:, None] + np.arange(self._t)]
        rebuilt, false = dict[Position, bytes](), list[Position]()
        for u, secret in zip(wanted, reconstruct(holders[chosen] + 1, shares[chosen]), strict=True):
            if secret is not None and self._is_secret_of(u, secret):
                rebuilt[u] = secret
            else:
                false.append(u)
        if false:
            self._liars.update(map(self._name, false))
            raise PeerError("shares of another secret than the advertised one", culprits=map(self._name, false))
        return rebuilt

    def _is_secret_of(self, u: Position, secret: bytes) -> bool:
        advert = self._adverts[self._clients[u]]
        if u in self._headers:
            return digest(labels.SELF_COMMITMENT, secret) == advert.commitment
        return AgreementKey(secret).public == advert.mask_key
