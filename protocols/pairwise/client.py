"""A client of the pairwise protocols (the paper and the threat model are in ``protocols.pairwise``).

u is this client, v a neighbour; both are positions in U1. Each check raises before the client has changed, so a
forged message costs nothing; each reply is a pure function of what is known, so a replay after a crash repeats it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from dp.secure_sum import SecureSum
from protocols.pairwise.messages import (
    ADVERT,
    MASK_KEY,
    SECRETS,
    SELF_MASK,
    Advert,
    Consent,
    Consents,
    Introduction,
    Reveal,
    Revealed,
    Survivors,
    Upload,
    UploadHeader,
    Verdict,
)
from protocols.pairwise.phases import Phase
from protocols.pairwise.rules import Cohort, check_cohort, most_complaints, parameters_of
from protocols.plan import RoundPlan
from protocols.policy import ENFORCED_UP_TO, Policy
from protocols.roster import Identity, Roster
from protocols.rounds.client import ClientRound
from protocols.rounds.cohort import agreed_sum, ascending, check_consent, from_bitmap, known_client, to_bitmap
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
    check_complaint,
    complaint,
    opened,
    share_of,
)
from protocols.rounds.steps import Charge, Step
from secagg.codec import u32
from secagg.crypto import labels
from secagg.crypto.keys import AgreementKey, check_agreement_key, digest, verify
from secagg.crypto.masking import add_masks
from secagg.crypto.merkle import Node, check_inclusion, leaf
from secagg.crypto.prg import Prg
from secagg.crypto.ring import Words
from secagg.errors import PeerError, PolicyError, ThresholdError


class PairwiseClient(ClientRound):
    steps = {  # noqa: RUF012  # declared final by the base class
        Phase.SHARE: Step(Introduction, "_meet", "_deal", Phase.COMPLAIN),
        Phase.COMPLAIN: Step(Delivery, "_open", "_complain", Phase.DEFEND),
        Phase.DEFEND: Step(Accusations, "_hear_complaints", "_defend", Phase.UPLOAD, optional=True),
        Phase.UPLOAD: Step(Verdict, "_hear_verdict", "_upload", Phase.CONSENT, Charge.RESERVE),
        Phase.CONSENT: Step(Survivors, "_hear_survivors", "_consent", Phase.REVEAL),
        Phase.REVEAL: Step(Consents, "_check_consents", "_reveal", Phase.DONE, Charge.COMMIT),
    }
    done = Phase.DONE

    def __init__(
        self,
        plan: RoundPlan,
        roster: Roster,
        identity: Identity,
        policy: Policy,
        values: Callable[[], Words],
        secret: bytes,
    ) -> None:
        super().__init__(plan, roster, identity, policy, values, secret)
        self._t = parameters_of(plan).threshold
        self._number = roster.number(identity.name)
        self._mask_key = AgreementKey(self._drawn(b"mask key"))
        self._seal_key = AgreementKey(self._drawn(b"seal key"))
        self._self_secret = self._drawn(b"self mask")
        self._neighbours: dict[int, Advert] = {}
        self._agreed: dict[int, bytes] = {}
        self._held: dict[int, bytes] = {}  # dealer -> its points for u: a share of its mask key, one of its self-mask
        self._doubted: dict[int, Delivered] = {}

    # 1 ADVERTISE: fresh keys, signed together with the plan (Bonawitz et al., round 0).

    def opening(self) -> Advert:
        commitment = digest(labels.SELF_COMMITMENT, self._self_secret)
        keys = (self._mask_key.public, self._seal_key.public, commitment)
        signature = self.identity.key.sign(labels.ADVERT, self.plan.digest(), u32.encode(self._number), *keys)
        return Advert(self._number, *keys, signature)

    # 2 SHARE: check who the neighbours are, deal them shares of both secrets (round 1).

    def _meet(self, message: Introduction) -> None:
        check_cohort(self.plan, self.policy, message.size)
        adverts = {neighbour.position: neighbour.advert for neighbour in message.neighbours}
        if (u := message.position) in adverts:
            raise PeerError("a neighbour in this client's own place")
        leaves = {position: advert_leaf(advert) for position, advert in (adverts | {u: self.opening()}).items()}
        check_inclusion(message.root, message.size, leaves, message.proof)

        cohort = Cohort(self.plan, message.root, message.size)
        holders = cohort.holders(u)
        if [neighbour.position for neighbour in message.neighbours] != [v for v in holders if v != u]:
            raise PeerError("these are not the neighbours that the cohort's hash demands")
        if len(holders) < self._t:
            raise ThresholdError(f"{len(holders)} neighbours are there, at least {self._t} are needed")
        for advert in adverts.values():
            check_advert(self.plan, self.roster, advert)

        self._cohort, self._u, self._holders, self._neighbours = cohort, u, holders, adverts

    def _dealing(self) -> Dealing:
        """The polynomials depend on the cohort: should a copy of this client deal in another one, shares must not add
        up."""
        return Dealing(
            self._cohort,
            self._u,
            self._holders,
            self._t,
            [self._mask_key.secret, self._self_secret],
            Prg(self._drawn(b"polynomials", *self._cohort.bound(self._u))),
            lambda v: self._pad_key(self._u, v),
        )

    def _deal(self) -> Dealt:
        return self._dealing().dealt

    def _pad_key(self, dealer: int, holder: int) -> bytes:
        v = holder if dealer == self._u else dealer
        if v not in self._agreed:  # once for both directions
            peer = self._neighbours[v]
            self._agreed[v] = self._seal_key.agree(peer.seal_key, culprit=self.roster.names[peer.client])
        return self._cohort.pad_key(self._agreed[v], dealer, holder)

    # 3 COMPLAIN: say whose points do not fit what it committed to and what its proof says.

    def _open(self, message: Delivery) -> None:
        dealers = [box.peer for box in message.boxes]
        if not ascending(dealers) or not self._neighbours.keys() >= set(dealers):
            raise PeerError("shares from somebody who is not a neighbour, or twice from one")
        self._held = opened(
            self._cohort, self._u, message.boxes, SECRETS, lambda dealer: self._pad_key(dealer, self._u)
        )
        self._doubted = {box.peer: box for box in message.boxes if box.peer not in self._held}

    def _complain(self) -> Complaints:
        return Complaints(
            tuple(complaint(self.identity.key, self._cohort, self._u, box) for box in self._doubted.values())
        )

    # 4 DEFEND: open what was dealt to those who complain. They are corrupt, or this client would not be asked.

    def _hear_complaints(self, message: Accusations) -> None:
        complaining = [said.peer for said in message.complaints]
        if not complaining or not ascending(complaining) or not self._neighbours.keys() >= set(complaining):
            raise PeerError("complaints of others than the neighbours, or twice of one")
        most = most_complaints(self.plan, self.policy, self._cohort.size)
        if len(complaining) > most:
            raise PolicyError(f"{len(complaining)} neighbours complain, boxes are opened for at most {most}")
        dealing = self._dealing()
        for said in message.complaints:
            self._check_complaint(dealing, said)
        self._opened = tuple(Opened(v, self._pad_key(self._u, v)) for v in complaining)

    def _check_complaint(self, dealing: Dealing, said: Complaint) -> None:
        client = self._neighbours[said.peer].client
        check_complaint(self.roster.keys[client], self._cohort, said.peer, dealing.delivered(said.peer), said)

    def _defend(self) -> Defence:
        return Defence(self._opened)

    # 5 UPLOAD: mask with those whose shares hold, if these are at least t (round 2).

    def _hear_verdict(self, message: Verdict) -> None:
        dealers = from_bitmap(message.dealers, self._holders)
        if self._u in self._holders and self._u not in dealers:
            raise PeerError("this client dealt its shares and is left out")
        answered = sorted(self._doubted.keys() & dealers)
        if [one.peer for one in message.opened] != answered:
            raise PeerError("boxes opened of others than of those whom this client complained about")
        keys, boxes = {one.peer: one.key for one in message.opened}, [self._doubted[dealer] for dealer in answered]
        held = self._held | opened(self._cohort, self._u, boxes, SECRETS, keys.__getitem__)
        if not held.keys() >= dealers - {self._u}:
            raise PeerError("shares to be kept that are not good, or were never delivered here")
        if len(dealers) < self._t:
            raise ThresholdError(f"shares of {len(dealers)} neighbours hold, at least {self._t} are needed")
        if self._u in dealers:
            held[self._u] = self._dealing().points[self._u]
        self._held, self._doubted = {dealer: held[dealer] for dealer in sorted(dealers)}, {}

    def _upload(self) -> Upload:
        plus, minus = [self._cohort.self_seed(self._self_secret, self._u)], list[bytes]()
        for v in self._held.keys() - {self._u}:
            seed = self._cohort.pair_seed(self._mask_key.agree(self._neighbours[v].mask_key), self._u, v)
            (plus if self._u < v else minus).append(seed)
        masked = self._noised(*self._cohort.bound(self._u))
        add_masks(masked, plus, minus)
        vector = self.plan.ring.pack(masked)
        holders = to_bitmap(self._held.keys(), self._holders)
        vector_hash = digest(labels.VECTOR, vector)
        signed = (*self._cohort.bound(self._u), holders, vector_hash)
        signature = self.identity.key.sign(labels.UPLOAD, *signed)
        return Upload(UploadHeader(self._u, holders, vector_hash, signature), vector)

    # 6 CONSENT: sign the one set of survivors (round 3, the consistency check).

    def _hear_survivors(self, message: Survivors) -> None:
        survivors = from_bitmap(message.survivors, range(self._cohort.size))
        if self._u not in survivors:
            raise PeerError("this client uploaded and is called dead")
        if len(survivors) < max(self._t, self.plan.min_contributors):
            raise ThresholdError(
                f"{len(survivors)} survivors, at least {max(self._t, self.plan.min_contributors)} are needed"
            )
        # Masking is mutual: this client masked with every neighbour in the sum, and each of these with this client.
        # Bonawitz et al. get this from an honest delivery of U2; here the server could tell two verdicts.
        alive = sorted(v for v in self._neighbours if v in survivors)
        if not self._held.keys() >= set(alive):
            raise PeerError("a surviving neighbour whose shares were not to be kept here")
        if [header.position for header in message.headers] != alive:
            raise PeerError("upload headers that are not those of the surviving neighbours")
        for header in message.headers:
            client = self._neighbours[header.position].client
            if self._u not in check_header(self._cohort, self.roster, client, self._t, header):
                raise PeerError("a surviving neighbour did not mask with this client")  # it was told another verdict
        self._bitmap = message.survivors
        self._values = partial(self.plan.ring.zeros, 0)  # sent, and never needed again

    @property
    def _survivors(self) -> frozenset[int]:
        """U3, made anew from its bitmap: a set of thousands is not worth keeping in thousands of clients."""
        return from_bitmap(self._bitmap, range(self._cohort.size))

    def _consent(self) -> Consent:
        return Consent(self.identity.key.sign(labels.SURVIVORS, self._cohort.survivors_digest(self._bitmap)))

    # 7 REVEAL: against the signatures of t neighbours and of a quorum of witnesses, one share for each client, never
    # both (round 4).

    def _check_consents(self, message: Consents) -> None:
        signers, survivors = [signed.position for signed in message.signatures], self._survivors
        if not ascending(signers) or not survivors >= set(signers):
            raise PeerError("signers out of order, repeated, or not among the survivors")
        own = survivors.intersection(self._holders, signers)
        if len(own) < self._t:
            raise ThresholdError(f"{len(own)} neighbours signed the survivors, at least {self._t} are needed")
        witnesses, quorum = self._cohort.witnesses(), parameters_of(self.plan).quorum
        if (seen := len(set(signers).intersection(witnesses))) < quorum:
            raise ThresholdError(f"{seen} witnesses signed the survivors, at least {quorum} are needed")
        least = self.plan.min_contributors if self.plan.clients <= ENFORCED_UP_TO else 0
        if len(signers) < least:
            raise ThresholdError(f"{len(signers)} clients signed the survivors, at least {least} are needed")

        clients = {v: advert.client for v, advert in self._neighbours.items()} | {self._u: self._number}
        strangers = [v for v in signers if v not in clients]
        if len(strangers) != len(message.others):
            raise PeerError("signers of whom it is not shown that they are in the cohort")
        if strangers:
            leaves = dict(zip(strangers, message.others, strict=True))
            check_inclusion(self._cohort.root, self._cohort.size, leaves, message.proof)
            clients |= {v: node.low for v, node in leaves.items()}  # distinct: key ranges do not overlap
        agreed = self._cohort.survivors_digest(self._bitmap)
        for signed in message.signatures:
            check_consent(self.roster, clients[signed.position], signed.signature, agreed)
        self._signed = {clients[signed.position]: signed.signature for signed in message.signatures}

    def happened(self) -> SecureSum:
        return agreed_sum(self.plan, self.roster, self._cohort.root, self._cohort.size, self._bitmap, self._signed)

    def _reveal(self) -> Reveal:
        survivors = self._survivors
        alive, dead = sorted(self._held.keys() & survivors), sorted(self._held.keys() - survivors)
        return Reveal(
            self_shares=tuple(Revealed(v, share_of(self._held[v], SELF_MASK)) for v in alive),
            key_shares=tuple(Revealed(v, share_of(self._held[v], MASK_KEY)) for v in dead),
            excess=self._excess_seed(self.plan.clients - len(self._survivors), *self._cohort.bound(self._u)),
        )


# What both sides verify.


def advert_leaf(advert: Advert) -> Node:
    return leaf(advert.client, ADVERT.encode(advert))


def check_advert(plan: RoundPlan, roster: Roster, advert: Advert) -> None:
    known_client(roster, advert.client)
    name = roster.names[advert.client]
    check_agreement_key(advert.mask_key, culprit=name)
    check_agreement_key(advert.seal_key, culprit=name)
    keys = (advert.mask_key, advert.seal_key, advert.commitment)
    signed = (plan.digest(), u32.encode(advert.client), *keys)
    verify(roster.keys[advert.client], advert.signature, labels.ADVERT, *signed, culprit=name)


def check_header(cohort: Cohort, roster: Roster, client: int, t: int, header: UploadHeader) -> frozenset[int]:
    """Whom the uploader masked with: itself signed it, and it is at least t."""
    name = roster.names[client]
    signed = (*cohort.bound(header.position), header.holders, header.vector_hash)
    verify(roster.keys[client], header.signature, labels.UPLOAD, *signed, culprit=name)
    listed = from_bitmap(header.holders, cohort.holders(header.position))
    if len(listed) < t:
        raise PeerError(f"masked with {len(listed)} neighbours, at least {t} are needed", culprits=[name])
    return listed
