"""The server of the pairwise protocols (the paper and the threat model are in ``protocols.pairwise``).

It routes messages, adds masked vectors as they arrive, and in the end rebuilds and removes the masks. An honest server
makes the same checks as the clients, so that a lying client cannot spoil the round of the others unnoticed. Clients
are positions in U1 once U1 is there; u is an uploader, v a holder of its shares, w a dead client.
"""

from __future__ import annotations

from collections.abc import Set
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from dp.secure_sum import SecureSum
from protocols.engines import Engine, add_masks_on
from protocols.engines.local import HERE
from protocols.pairwise.client import advert_leaf, check_advert, check_header
from protocols.pairwise.messages import (
    MASK_KEY,
    SECRETS,
    SELF_MASK,
    Advert,
    Consent,
    Consents,
    Introduction,
    Neighbour,
    Reveal,
    SignedConsent,
    Survivors,
    Upload,
    UploadHeader,
    Verdict,
)
from protocols.pairwise.phases import Phase
from protocols.pairwise.rules import Cohort, parameters_of
from protocols.plan import RoundPlan
from protocols.policy import ENFORCED_UP_TO
from protocols.roster import Roster
from protocols.rounds.cohort import agreed_sum, check_consent, check_excess, released, to_bitmap
from protocols.rounds.dealing import Complaints, Dealt, Defence, Delivery, Exchange
from protocols.rounds.server import NOTHING, Sends, ServerRound
from protocols.rounds.steps import Charge, Step
from secagg.crypto import labels
from secagg.crypto.keys import AgreementKey, digest
from secagg.crypto.merkle import MerkleTree
from secagg.crypto.shamir import reconstruct, unpack_shares
from secagg.errors import PeerError, UnblamedError

if TYPE_CHECKING:
    from dp.ledger import Ledger


class PairwiseServer(ServerRound):
    steps = {  # noqa: RUF012  # declared final by the base class
        Phase.ADVERTISE: Step(Advert, "_admit", "_introduce", Phase.SHARE),
        Phase.SHARE: Step(Dealt, "_take_boxes", "_deliver", Phase.COMPLAIN),
        Phase.COMPLAIN: Step(Complaints, "_take_complaints", "_accuse", Phase.DEFEND),
        Phase.DEFEND: Step(Defence, "_take_defence", "_judge", Phase.UPLOAD, optional=True),
        Phase.UPLOAD: Step(Upload, "_add", "_announce_survivors", Phase.CONSENT),
        Phase.CONSENT: Step(Consent, "_take_consent", "_pass_on_consents", Phase.REVEAL, Charge.COMMIT),
        Phase.REVEAL: Step(Reveal, "_take_reveal", "_unmask", Phase.DONE),
    }
    done, failed = Phase.DONE, Phase.FAILED

    def __init__(self, plan: RoundPlan, roster: Roster, *, ledger: Ledger | None = None, engine: Engine = HERE) -> None:
        super().__init__(plan, roster, ledger=ledger, engine=engine)
        self._t, self._q = parameters_of(plan).threshold, parameters_of(plan).quorum
        self._least = max(self._t, plan.min_contributors)
        self._adverts: dict[int, Advert] = {}  # by roster number
        self._headers: dict[int, UploadHeader] = {}  # U3
        self._masked_with: dict[int, frozenset[int]] = {}
        self._total = plan.ring.zeros(plan.encoding.coordinates)
        self._consents: dict[int, bytes] = {}
        self._shares: dict[int, dict[int, bytes]] = {}  # whose secret -> holder -> share, t of them
        self._own_shares: dict[int, bytes] = {}  # to which nobody has committed: for want of others
        self._excess: dict[int, bytes] = {}  # survivor -> the seed of its removable noise
        self.masks_removed = 0
        """Mask streams expanded at the end: what the round cost the server."""

    # 1 ADVERTISE

    def _admit(self, number: int, advert: Advert) -> None:
        if advert.client != number:
            raise PeerError("an advert in somebody else's name")
        if len(self._adverts) == self.plan.clients:
            raise UnblamedError(f"the cohort of {self.plan.clients} is full")
        check_advert(self.plan, self.roster, advert)
        self._adverts[number] = advert

    def _introduce(self) -> Sends:
        self._need(len(self._adverts), self._least, "clients advertised")
        self._clients = sorted(self._adverts)  # U1: position -> roster number
        self._positions = {number: u for u, number in enumerate(self._clients)}
        self._leaves = [advert_leaf(self._adverts[number]) for number in self._clients]
        self._tree = MerkleTree(self._leaves)
        self._cohort = Cohort(self.plan, self._tree.root, len(self._clients))
        self._holders = [self._cohort.holders(u) for u in range(len(self._clients))]
        self._exchange = Exchange(self._cohort, self._holders.__getitem__, self._t, SECRETS)
        self._need(len(self._holders[0]), self._t, "neighbours are there for each client")
        return Sends(self._clients, self._introduction)

    def _introduction(self, number: int) -> Introduction:
        u = self._positions[number]
        others = [v for v in self._holders[u] if v != u]
        neighbours = tuple(Neighbour(v, self._adverts[self._clients[v]]) for v in others)
        return Introduction(self._tree.root, len(self._clients), u, neighbours, self._tree.proof([u, *others]))

    # 2 SHARE

    def _take_boxes(self, number: int, dealt: Dealt) -> None:
        self._exchange.take(self._positions[number], dealt)

    def _deliver(self) -> Sends:
        self._need(len(self._exchange.dealers), self._least, "clients dealt shares")
        return Sends(self._reached(), self._delivery)

    def _dealers_to(self, v: int) -> Set[int]:
        """Those of whom v is to hold a share, and with whom it shares a mask."""
        return self._exchange.dealers & self._holders[v]

    def _reached(self) -> list[int]:
        """Whom enough have dealt shares to, as numbers in the roster."""
        return [self._clients[v] for v in sorted(self._exchange.dealers) if len(self._dealers_to(v)) >= self._t]

    def _delivery(self, number: int) -> Delivery:
        v = self._positions[number]
        return Delivery(tuple(self._exchange.delivered(u, v) for u in sorted(self._dealers_to(v)) if u != v))

    # 3 COMPLAIN

    def _take_complaints(self, number: int, said: Complaints) -> None:
        v = self._positions[number]
        self._exchange.complain(v, self.roster.keys[number], self._dealers_to(v), said)

    def _accuse(self) -> Sends:
        """Who has fallen silent is left out now: nobody has masked with it, so it costs nobody anything."""
        there = {self._positions[number] for number in self._heard}
        self._leave_out(self._exchange.dealers - there)
        accused = [self._clients[u] for u in self._exchange.accused]
        return Sends(accused, lambda number: self._exchange.accusations(self._positions[number]))

    # 4 DEFEND

    def _take_defence(self, number: int, defence: Defence) -> None:
        self._exchange.defend(self._positions[number], defence)

    def _judge(self) -> Sends:
        self._leave_out(self._exchange.undefended)
        self.disputes = tuple((self._name(v), self._name(u)) for u, v in self._exchange.answered)
        self._need(len(self._exchange.dealers), self._least, "clients dealt shares that hold")
        return Sends(self._reached(), self._verdict)

    def _leave_out(self, dealers: Set[int]) -> None:
        self._exchange.leave_out(dealers)
        self.excluded = tuple(sorted({*self.excluded, *map(self._name, dealers)}))

    def _verdict(self, number: int) -> Verdict:
        v = self._positions[number]
        return Verdict(to_bitmap(self._dealers_to(v), self._holders[v]), self._exchange.opened_for(v))

    # 5 UPLOAD

    def _add(self, number: int, upload: Upload) -> None:
        u = self._positions[number]
        if upload.header.position != u:
            raise PeerError("an upload in somebody else's place")
        listed = check_header(self._cohort, self.roster, number, self._t, upload.header)
        if digest(labels.VECTOR, upload.vector) != upload.header.vector_hash:
            raise PeerError("a vector that is not the signed one")
        if listed != self._dealers_to(u):
            raise PeerError("masked with others than those whose shares it was to keep")
        self._total += self.plan.ring.unpack(upload.vector, len(self._total))
        self._headers[u], self._masked_with[u] = upload.header, listed

    def _announce_survivors(self) -> Sends:
        survivors = sorted(self._headers)  # U3
        self._need(len(survivors), self._least, "clients uploaded")
        self._exchange.keep_commitments(lambda u: SELF_MASK if u in self._headers else MASK_KEY)
        self._bitmap = to_bitmap(self._headers.keys(), range(self._cohort.size))
        self._agreed = self._cohort.survivors_digest(self._bitmap)
        return Sends([self._clients[u] for u in survivors], self._survivors)

    def _survivors(self, number: int) -> Survivors:
        u = self._positions[number]
        alive = sorted(v for v in self._masked_with[u] if v in self._headers and v != u)
        return Survivors(self._bitmap, tuple(self._headers[v] for v in alive))

    # 6 CONSENT

    def _take_consent(self, number: int, consent: Consent) -> None:
        check_consent(self.roster, number, consent.signature, self._agreed)
        self._consents[number] = consent.signature

    def _pass_on_consents(self) -> Sends:
        self._need(len(self._consents), self._least, "survivors signed")
        self._signers = [self._positions[number] for number in sorted(self._consents)]  # U4
        self._witnesses = [u for u in self._cohort.witnesses() if self._clients[u] in self._consents]
        self._need(len(self._witnesses), self._q, "witnesses signed")
        reached = [u for u in self._signers if len(self._own_signers(u)) >= self._t]
        return Sends([self._clients[u] for u in reached], self._signatures)

    def happened(self) -> SecureSum:
        return agreed_sum(self.plan, self.roster, self._cohort.root, self._cohort.size, self._bitmap, self._consents)

    def _own_signers(self, u: int) -> list[int]:
        return [v for v in self._holders[u] if self._clients[v] in self._consents]

    def _signatures(self, number: int) -> Consents:
        u = self._positions[number]
        chosen = set(self._own_signers(u)[: self._t])
        known = {u, *self._holders[u]}
        chosen.update(sorted(self._witnesses, key=lambda v: v not in known)[: self._q])
        least = self.plan.min_contributors if self.plan.clients <= ENFORCED_UP_TO else 0
        chosen.update(islice((v for v in self._signers if v not in chosen), max(least - len(chosen), 0)))
        strangers = sorted(chosen - known)
        return Consents(
            tuple(SignedConsent(v, self._consents[self._clients[v]]) for v in sorted(chosen)),
            tuple(self._leaves[v] for v in strangers),
            self._tree.proof(strangers),
        )

    # 7 REVEAL

    def _take_reveal(self, number: int, reveal: Reveal) -> None:
        v, survivors = self._positions[number], self._headers.keys()
        held, revealed = self._masked_with[v], (*reveal.self_shares, *reveal.key_shares)
        alive, dead = sorted(held & survivors), sorted(held - survivors)
        if [share.peer for share in revealed] != alive + dead or len(reveal.self_shares) != len(alive):
            raise PeerError("shares of others than asked for")
        check_excess(self.plan, len(survivors), reveal.excess)
        for share in revealed:
            self._exchange.check_share(share.peer, v, SELF_MASK if share.peer in survivors else MASK_KEY, share.share)
        for share in revealed:
            collected = self._shares.setdefault(share.peer, {})
            if share.peer == v:
                self._own_shares[v] = share.share
            elif len(collected) < self._t:
                collected[v] = share.share
        if reveal.excess:
            self._excess[number] = reveal.excess

    def _unmask(self) -> Sends:
        survivors = sorted(self._headers)
        dead = sorted(set().union(*self._masked_with.values()) - self._headers.keys())
        secrets = self._rebuilt([*survivors, *dead])
        added, subtracted = [self._cohort.self_seed(secrets[u], u) for u in survivors], list[bytes]()
        for w in dead:
            key = AgreementKey(secrets[w])
            for u in (v for v in self._holders[w] if w in self._masked_with.get(v, ())):
                advert = self._adverts[self._clients[u]]
                seed = self._cohort.pair_seed(key.agree(advert.mask_key), u, w)
                (added if u < w else subtracted).append(seed)
        self.masks_removed = len(added) + len(subtracted)
        add_masks_on(self._engine, self._total, subtracted, added)
        self.outcome = released(
            self.plan,
            self.roster,
            self.plan.ring.centred(self._total),
            advertised=self._clients,
            survivors=[self._clients[u] for u in survivors],
            agreed=self._agreed,
            consents=self._consents,
            excess=self._excess,
            engine=self._engine,
        )
        return NOTHING

    def _rebuilt(self, wanted: list[int]) -> dict[int, bytes]:
        """Self-mask seeds of survivors and mask keys of the dead, all at once, each checked against its advert.

        Every share is one that its dealer committed to, and those that honest holders accepted are of one polynomial.
        So where the secret is another than the advertised one, its dealer has dealt another, to all or to liars.
        """
        for u in wanted:
            if u in self._own_shares and len(self._shares[u]) < self._t:
                self._shares[u][u] = self._own_shares[u]
            self._need(len(self._shares.get(u, ())), self._t, f"shares came to remove the mask of {self._name(u)}")
        holders = np.array([list(self._shares[u]) for u in wanted]) + 1
        shares = np.stack([unpack_shares(b"".join(self._shares[u].values()), self._t) for u in wanted])
        rebuilt, false = dict[int, bytes](), list[int]()
        for u, secret in zip(wanted, reconstruct(holders, shares), strict=True):
            if secret is not None and self._is_secret_of(u, secret):
                rebuilt[u] = secret
            else:
                false.append(u)
        if false:
            self._liars.update(map(self._name, false))
            raise PeerError("shares of another secret than the advertised one", culprits=map(self._name, false))
        return rebuilt

    def _is_secret_of(self, u: int, secret: bytes) -> bool:
        advert = self._adverts[self._clients[u]]
        if u in self._headers:
            return digest(labels.SELF_COMMITMENT, secret) == advert.commitment
        return AgreementKey(secret).public == advert.mask_key

    def _name(self, u: int) -> str:
        return self.roster.names[self._clients[u]]
