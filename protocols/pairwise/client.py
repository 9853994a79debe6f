"""A client of the pairwise protocols (the paper and the threat model are in ``protocols.pairwise``).

u is this client, v a neighbour; both are positions in U1. Each check raises before the client has changed, so a
forged message costs nothing; each reply is a pure function of what is known, so a replay after a crash repeats it.
"""

from __future__ import annotations

from protocols.pairwise.cohort import Cohort, check_cohort, most_complaints
from protocols.pairwise.messages import (
    ADVERT,
    MASK_KEY,
    SELF_MASK,
    Advert,
    ConsistencySignatures,
    Introduction,
    Reveal,
    Revealed,
    Survivors,
    Upload,
    UploadHeader,
    Verdict,
)
from protocols.pairwise.parameters import parameters_of
from protocols.parameters import ENFORCED_UP_TO
from protocols.plan import RoundPlan
from protocols.roster import Number, Roster, known_client
from protocols.rounds.cohort import Position, positions
from protocols.rounds.dealer import DealingClient
from protocols.rounds.dealing import Accusations, Dealt, Delivery, share_of
from protocols.rounds.phases import Phase
from protocols.rounds.sets import ascending, from_bitmap, to_bitmap
from protocols.rounds.steps import Charge, Step, Steps, table
from protocols.rounds.survivors import check_consistency
from secagg.codec import u32
from secagg.crypto import labels
from secagg.crypto.keys import SIGNATURE_BYTES, AgreementKey, check_agreement_key, digest, verify
from secagg.crypto.masking import pack_masked
from secagg.crypto.merkle import HASH_BYTES, Node, check_inclusion, leaf
from secagg.errors import PeerError, ThresholdError


class PairwiseClient(DealingClient):
    _cohort: Cohort
    _peers: dict[Position, Advert]

    @table
    def steps(cls: type[PairwiseClient]) -> Steps:
        return {
            Phase.SHARE: Step(Introduction, cls._meet, cls._deal, Phase.COMPLAIN),
            Phase.COMPLAIN: Step(Delivery, cls._open, cls._complain, Phase.DEFEND),
            Phase.DEFEND: Step(Accusations, cls._hear_complaints, cls._defend, Phase.UPLOAD, optional=True),
            Phase.UPLOAD: Step(Verdict, cls._hear_verdict, cls._upload, Phase.CONSISTENCY, Charge.RESERVE),
            Phase.CONSISTENCY: Step(Survivors, cls._hear_survivors, cls._sign_survivors, Phase.REVEAL),
            Phase.REVEAL: Step(ConsistencySignatures, cls._check_signatures, cls._reveal, Phase.DONE, Charge.COMMIT),
        }

    def _prepare(self) -> None:
        super()._prepare()
        self._t = parameters_of(self.plan).threshold
        self._mask_key = AgreementKey(self._drawn(b"mask key"))
        self._self_secret = self._drawn(b"self mask")

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

        self._cohort, self._u, self._holders, self._peers = cohort, u, holders, adverts

    def _secrets(self) -> list[bytes]:
        return [self._mask_key.secret, self._self_secret]

    def _deal(self) -> Dealt:
        return self._dealing().dealt

    # 3 COMPLAIN and 4 DEFEND: see protocols.rounds.dealer.

    def _most_complaints(self) -> int:
        return most_complaints(self.plan, self.policy, self._cohort.size)

    # 5 UPLOAD: mask with those whose shares hold, if these are at least t (round 2).

    def _hear_verdict(self, message: Verdict) -> None:
        dealers = from_bitmap(message.dealers, self._holders)
        if self._u in self._holders and self._u not in dealers:
            raise PeerError("this client dealt its shares and is left out")
        held = self._good_shares(dealers, message.opened)
        if len(dealers) < self._t:
            raise ThresholdError(f"shares of {len(dealers)} neighbours hold, at least {self._t} are needed")
        if self._u in dealers:
            held[self._u] = self._own_points()
        self._held, self._doubted = dict(sorted(held.items())), {}

    def _upload(self) -> Upload:
        plus, minus = [self._cohort.self_seed(self._self_secret, self._u)], list[bytes]()
        for v in self._held.keys() - {self._u}:
            seed = self._cohort.pair_seed(self._mask_key.agree(self._peers[v].mask_key), self._u, v)
            (plus if self._u < v else minus).append(seed)
        values, holders = self.noised(*self._cohort.bound(self._u)), to_bitmap(self._held.keys(), self._holders)
        blank = UploadHeader(self._u, holders, bytes(HASH_BYTES), bytes(SIGNATURE_BYTES))
        vector = self._drafted(lambda vector: Upload(blank, vector), self.plan.ring.packed_size(len(values)))
        pack_masked(values, self.plan.ring, plus, minus, vector)
        vector_hash = digest(labels.VECTOR, vector)
        signed = (*self._cohort.bound(self._u), holders, vector_hash)
        signature = self.identity.key.sign(labels.UPLOAD, *signed)
        return Upload(UploadHeader(self._u, holders, vector_hash, signature), vector)

    # 6 CONSISTENCY: sign the one set of survivors (round 3, the consistency check).

    def _hear_survivors(self, message: Survivors) -> None:
        least = max(self._t, self.plan.min_contributors)
        survivors = self._survivors_in(message.survivors, positions(self._cohort.size), self._u, least)
        # Masking is mutual: this client masked with every neighbour in the sum, and each of these with this client.
        # Bonawitz et al. get this from an honest delivery of U2; here the server could tell two verdicts.
        alive = sorted(v for v in self._peers if v in survivors)
        if not self._held.keys() >= set(alive):
            raise PeerError("a surviving neighbour whose shares were not to be kept here")
        if [header.position for header in message.headers] != alive:
            raise PeerError("upload headers that are not those of the surviving neighbours")
        for header in message.headers:
            client = self._peers[header.position].client
            if self._u not in check_header(self._cohort, self.roster, client, self._t, header):
                raise PeerError("a surviving neighbour did not mask with this client")  # it was told another verdict
        self._agreed = self._cohort.agreed(message.survivors)
        self._forget_values()

    # 7 REVEAL: against the signatures of t neighbours and of a quorum of witnesses, one share for each client, never
    # both (round 4).

    def _check_signatures(self, message: ConsistencySignatures) -> None:
        signers, survivors = [Position(signed.signer) for signed in message.signatures], self._agreed.survivors
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

        clients = {v: advert.client for v, advert in self._peers.items()} | {self._u: self._number}
        strangers = [v for v in signers if v not in clients]
        if len(strangers) != len(message.others):
            raise PeerError("signers of whom it is not shown that they are in the cohort")
        if strangers:
            leaves = dict(zip(strangers, message.others, strict=True))
            check_inclusion(self._cohort.root, self._cohort.size, leaves, message.proof)
            clients |= {v: Number(node.low) for v, node in leaves.items()}  # distinct: key ranges do not overlap
        signed = {clients[v]: one.signature for v, one in zip(signers, message.signatures, strict=True)}
        for client, signature in signed.items():
            check_consistency(self.roster, client, signature, self._agreed.digest)
        self._signed = signed

    def _reveal(self) -> Reveal:
        survivors = self._agreed.survivors
        alive, dropped = sorted(self._held.keys() & survivors), sorted(self._held.keys() - survivors)
        return Reveal(
            self_shares=tuple(Revealed(v, share_of(self._held[v], SELF_MASK)) for v in alive),
            key_shares=tuple(Revealed(v, share_of(self._held[v], MASK_KEY)) for v in dropped),
            excess=self._excess_seed(self.plan.clients - len(survivors), *self._cohort.bound(self._u)),
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


def check_header(cohort: Cohort, roster: Roster, client: Number, t: int, header: UploadHeader) -> frozenset[Position]:
    """Whom the uploader masked with: itself signed it, and it is at least t."""
    name = roster.names[client]
    signed = (*cohort.bound(header.position), header.holders, header.vector_hash)
    verify(roster.keys[client], header.signature, labels.UPLOAD, *signed, culprit=name)
    listed = from_bitmap(header.holders, cohort.holders(header.position))
    if len(listed) < t:
        raise PeerError(f"masked with {len(listed)} neighbours, at least {t} are needed", culprits=[name])
    return listed
