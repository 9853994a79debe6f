"""The server of the pairwise protocols (the paper and the threat model are in ``protocols.pairwise``).

It routes messages, adds masked vectors as they arrive, and in the end rebuilds and removes the masks. An honest server
makes the same checks as the clients, so that a lying client cannot spoil the round of the others unnoticed. Clients
are positions in U1 once U1 is there; u is an uploader, v a holder of its shares, w a dead client.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Set
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dp.secure_sum import SecureSum
from protocols.cohort import agreed_sum, ascending, check_consent, check_surplus, released, to_bitmap
from protocols.engines import Engine, add_masks_on
from protocols.engines.local import HERE
from protocols.machine import NOTHING, Charge, Sends, ServerRound, Step
from protocols.pairwise.client import advert_leaf, check_advert, check_header
from protocols.pairwise.messages import (
    BOX_BYTES,
    Advert,
    Consent,
    Consents,
    Dealt,
    Delivery,
    Introduction,
    Neighbour,
    Reveal,
    SealedShares,
    SignedConsent,
    Survivors,
    Upload,
    UploadHeader,
)
from protocols.pairwise.phases import Phase
from protocols.pairwise.rules import Cohort, parameters_of
from protocols.plan import RoundPlan
from protocols.policy import ENFORCED_UP_TO
from protocols.rebuild import rebuilt_despite_liars
from protocols.roster import Roster
from secagg import labels
from secagg.errors import PeerError, UnblamedError
from secagg.keys import AgreementKey, digest
from secagg.merkle import MerkleTree
from secagg.params import Graph
from secagg.shamir import reconstruct, unpack_shares

if TYPE_CHECKING:
    from dp.ledger import Ledger


class PairwiseServer(ServerRound):
    steps = {  # noqa: RUF012  # declared final by the base class
        Phase.ADVERTISE: Step(Advert, "_admit", "_introduce", Phase.SHARE),
        Phase.SHARE: Step(Dealt, "_take_boxes", "_deliver", Phase.UPLOAD),
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
        self._dealt: dict[int, bytes] = {}  # U2: dealer -> its boxes, in the order of its holders
        self._headers: dict[int, UploadHeader] = {}  # U3
        self._masked_with: dict[int, frozenset[int]] = {}
        self._total = plan.ring.zeros(plan.encoding.coordinates)
        self._consents: dict[int, bytes] = {}
        self._shares: dict[int, _Shares] = {}  # whose secret -> what came of it
        self._surplus: dict[int, bytes] = {}  # survivor -> the seed of its removable noise
        self.outliers: tuple[str, ...] = ()
        """Holders whose share of some secret did not fit the others', and was done without. That is a fact and no
        verdict: they lied, or the dealer dealt them another share, or several others lied in a way that fits."""
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
        self._hold_own = parameters_of(self.plan).graph is Graph.COMPLETE
        self._holders = [self._cohort.holders(u) for u in range(len(self._clients))]
        self._need(len(self._holders[0]), self._t, "neighbours are there for each client")
        return Sends(self._clients, self._introduction)

    def _introduction(self, number: int) -> Introduction:
        u = self._positions[number]
        others = [v for v in self._holders[u] if v != u]
        neighbours = tuple(Neighbour(v, self._adverts[self._clients[v]]) for v in others)
        return Introduction(self._tree.root, len(self._clients), u, neighbours, self._tree.proof([u, *others]))

    # 2 SHARE

    def _take_boxes(self, number: int, dealt: Dealt) -> None:
        u = self._positions[number]
        if [box.peer for box in dealt.boxes] != [v for v in self._holders[u] if v != u]:
            raise PeerError("shares for others than the neighbours")
        self._dealt[u] = b"".join([box.box for box in dealt.boxes])

    def _deliver(self) -> Sends:
        self._need(len(self._dealt), self._least, "clients dealt shares")
        reached = [u for u in sorted(self._dealt) if len(self._dealers_to(u)) >= self._t]
        return Sends([self._clients[u] for u in reached], self._delivery)

    def _dealers_to(self, v: int) -> Set[int]:
        """Those of whom v is to hold a share, and with whom it shares a mask."""
        return self._dealt.keys() & self._holders[v]

    def _delivery(self, number: int) -> Delivery:
        v = self._positions[number]
        boxes = []
        for u in sorted(self._dealers_to(v)):
            if u != v:
                before = bisect_left(self._holders[u], v) - (u < v and self._hold_own)  # u has no box for itself
                at = before * BOX_BYTES
                boxes.append(SealedShares(u, self._dealt[u][at : at + BOX_BYTES]))
        return Delivery(tuple(boxes))

    # 3 UPLOAD

    def _add(self, number: int, upload: Upload) -> None:
        u = self._positions[number]
        if upload.header.position != u:
            raise PeerError("an upload in somebody else's place")
        listed = check_header(self._cohort, self.roster, number, self._t, upload.header)
        if digest(labels.VECTOR, upload.vector) != upload.header.vector_hash:
            raise PeerError("a vector that is not the signed one")
        if listed != self._dealers_to(u):
            raise PeerError("masked with others than those whose shares it was sent")
        self._total += self.plan.ring.unpack(upload.vector, len(self._total))
        self._headers[u], self._masked_with[u] = upload.header, listed

    def _announce_survivors(self) -> Sends:
        survivors = sorted(self._headers)  # U3
        self._need(len(survivors), self._least, "clients uploaded")
        self._dealt = {}
        self._bitmap = to_bitmap(self._headers.keys(), range(self._cohort.size))
        self._agreed = self._cohort.survivors_digest(self._bitmap)
        return Sends([self._clients[u] for u in survivors], self._survivors)

    def _survivors(self, number: int) -> Survivors:
        u = self._positions[number]
        alive = sorted(v for v in self._masked_with[u] if v in self._headers and v != u)
        return Survivors(self._bitmap, tuple(self._headers[v] for v in alive))

    # 4 CONSENT

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

    # 5 REVEAL

    def _take_reveal(self, number: int, reveal: Reveal) -> None:
        v, survivors = self._positions[number], self._headers.keys()
        alive, dead = [s.peer for s in reveal.self_shares], [s.peer for s in reveal.key_shares]
        asked = self._masked_with[v].issuperset((*alive, *dead))  # it may hold fewer: some shares did not open
        right = all(u in survivors for u in alive) and not any(u in survivors for u in dead)
        if not (asked and right and ascending(alive) and ascending(dead)):
            raise PeerError("shares of others than asked for")
        check_surplus(self.plan, len(survivors), reveal.surplus)
        shares = (*reveal.self_shares, *reveal.key_shares)
        for share in shares:
            unpack_shares(share.share, 1)
        for share in shares:
            collected = self._shares.setdefault(share.peer, _Shares([], bytearray()))
            collected.holders.append(v)
            collected.shares.extend(share.share)
        if reveal.surplus:
            self._surplus[number] = reveal.surplus

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
            surplus=self._surplus,
            engine=self._engine,
        )
        return NOTHING

    def _rebuilt(self, wanted: list[int]) -> dict[int, bytes]:
        """Self-mask seeds of survivors and mask keys of the dead, all at once, each checked against its advert."""
        for u in wanted:
            self._check_enough(u)
        holders = np.array([self._shares[u].holders[: self._t] for u in wanted]) + 1
        shares = np.stack([self._shares[u].array()[: self._t] for u in wanted])
        rebuilt: dict[int, bytes] = {}
        for u, secret in zip(wanted, reconstruct(holders, shares), strict=True):
            good = secret is not None and self._is_secret_of(u, secret)
            rebuilt[u] = secret if secret is not None and good else self._rebuilt_despite_liars(u)
        return rebuilt

    def _check_enough(self, u: int) -> None:
        """Raise unless t shares of u's secret came.

        If enough of its holders answered and too few shares came all the same, some of them withhold theirs or u dealt
        them none: all of these are named.
        """
        came = set(self._shares[u].holders) if u in self._shares else set[int]()
        spoke = (self._positions[number] for number in self._heard)
        withheld = {v for v in spoke if u in self._masked_with[v]} - came
        reason = f"shares came to remove the mask of {self._name(u)}"
        if len(came) < self._t <= len(came | withheld):
            raise PeerError(f"{len(came)} {reason}, {self._t} are needed", culprits=map(self._name, (u, *withheld)))
        self._need(len(came), self._t, reason)

    def _is_secret_of(self, u: int, secret: bytes) -> bool:
        advert = self._adverts[self._clients[u]]
        if u in self._headers:
            return digest(labels.SELF_COMMITMENT, secret) == advert.commitment
        return AgreementKey(secret).public == advert.mask_key

    def _rebuilt_despite_liars(self, u: int) -> bytes:
        """Shares beyond t show which of them do not fit; those are done without.

        If there is no secret in them, all who could have caused it are named: the dealer and every holder that
        answered. This server passed the boxes on as they came.
        """
        holders = self._shares[u].holders
        found = rebuilt_despite_liars(
            holders, self._shares[u].array(), self._t, lambda secret: self._is_secret_of(u, secret)
        )
        if found is not None:
            secret, outliers = found
            self.outliers = tuple(sorted({*self.outliers, *map(self._name, outliers)}))
            return secret
        suspects = [u, *holders]  # enough liars can make it look like a lie of the dealer, and the dealer too
        raise PeerError("shares that do not give the secret", culprits=map(self._name, suspects))

    def _name(self, u: int) -> str:
        return self.roster.names[self._clients[u]]


@dataclass(frozen=True, slots=True)
class _Shares:
    """The shares of one secret in the order in which they came, without an object for each."""

    holders: list[int]
    shares: bytearray

    def array(self) -> NDArray[np.uint32]:
        return unpack_shares(bytes(self.shares), len(self.holders))
