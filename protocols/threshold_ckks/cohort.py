"""What both sides compute from the plan and the cohort: the threshold, the scheme, the bindings, what they verify."""

from __future__ import annotations

from collections.abc import Sequence, Set
from functools import lru_cache

from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Number, Roster, known_client
from protocols.rounds.cohort import Position
from protocols.rounds.dealer import DealingCohort
from protocols.rounds.sets import ascending
from protocols.rounds.survivors import SignedBy
from protocols.threshold_ckks.messages import ADVERT, Advert
from protocols.threshold_ckks.parameters import least_of, parameters_of, sizes_of
from protocols.threshold_ckks.scheme import Scheme
from secagg.codec import u32
from secagg.crypto import labels
from secagg.crypto.keys import check_agreement_key, derive, digest, verify
from secagg.crypto.merkle import MerkleTree, leaf
from secagg.errors import PeerError, PolicyError, ThresholdError
from secagg.params import complete_threshold


@lru_cache(maxsize=2)
def scheme_of(plan: RoundPlan) -> Scheme:
    return Scheme.of(sizes_of(plan), digest(labels.THRESHOLD_PUBLIC, plan.digest()))


def check_policy(plan: RoundPlan, policy: Policy) -> None:
    """Refuse a threshold that this client's own calculation does not accept for the planned number of clients."""
    policy.check_cost_model(parameters_of(plan).cost_model)
    _check_threshold(plan, plan.clients, policy.corrupt_of(plan.clients))


def check_cohort(plan: RoundPlan, policy: Policy, size: int) -> None:
    """The same again for the ``size`` clients that really advertised; all the corrupt ones are thought to be there."""
    if not least_of(plan) <= size <= plan.clients:
        raise PolicyError(f"{size} clients advertised, the plan allows {least_of(plan)} to {plan.clients}")
    _check_threshold(plan, size, min(policy.corrupt_of(plan.clients), size))


def most_complaints(plan: RoundPlan, policy: Policy, size: int) -> int:
    """How many holders a client opens boxes for before it takes them for more than liars.

    As many as its policy takes for corrupt; or more, as long as fewer than t shares of its seed would be known if all
    who complain were honest, and corrupt ones kept silent.
    """
    corrupt = min(policy.corrupt_of(plan.clients), size)
    return max(corrupt, parameters_of(plan).threshold - 1 - corrupt)


def _check_threshold(plan: RoundPlan, size: int, corrupt: int) -> None:
    threshold = parameters_of(plan).threshold
    if threshold < (needed := complete_threshold(size, corrupt)):
        raise PolicyError(f"threshold {threshold} is too low for {size} clients: at least {needed} is needed")


class Cohort(DealingCohort):
    """The clients of U1 under their Merkle root. Every binding of the round goes through here."""

    def __init__(self, plan: RoundPlan, roster: Roster, adverts: Sequence[Advert]) -> None:
        """Adverts that were checked, in the order of the roster: the tree refuses another, and one client twice."""
        root = MerkleTree([leaf(advert.client, ADVERT.encode(advert)) for advert in adverts]).root
        super().__init__(plan, root, len(adverts))
        self.adverts, self._roster = tuple(adverts), roster

    def name(self, position: Position) -> str:
        return self._roster.names[self.adverts[position].client]

    def key_of(self, position: Position) -> bytes:
        """The identity key."""
        return self._roster.keys[self.adverts[position].client]

    def pad_key(self, agreed: bytes, dealer: Position, holder: Position) -> bytes:
        """What hides a box on its way from its dealer to its holder."""
        return derive(agreed, labels.THRESHOLD_BOX, *self.bound(dealer, holder))

    def joint_digest(self, members: bytes, key: bytes) -> bytes:
        return digest(labels.THRESHOLD_JOINT, *self.bound(), members, key)

    def ciphertext_digest(self, joint: bytes, survivors: bytes, c1: bytes | memoryview) -> bytes:
        """What a sum is called in every signature that helps to decrypt it."""
        return digest(labels.THRESHOLD_SUM, *self.bound(), joint, survivors, c1)

    def missing_digest(self, ciphertext: bytes, bitmap: bytes) -> bytes:
        return digest(labels.THRESHOLD_MISSING, *self.bound(), ciphertext, bitmap)

    def check_signers(
        self, signed: Sequence[SignedBy], allowed: Set[Position], least: int, label: bytes, said: bytes
    ) -> None:
        """At least so many of those allowed have signed this, each once."""
        signers = [one.signer for one in signed]
        if not ascending(signers) or not allowed >= set(signers):
            raise PeerError("signers out of order, repeated, or not among those asked")
        if len(signers) < least:
            raise ThresholdError(f"{len(signers)} clients signed, at least {least} are needed")
        for one in signed:
            signer = Position(one.signer)
            verify(self.key_of(signer), one.signature, label, said, culprit=self.name(signer))

    def by_client(self, signed: Sequence[SignedBy]) -> dict[Number, bytes]:
        """Signatures by number in the roster."""
        return {self.adverts[one.signer].client: one.signature for one in signed}


def check_advert(plan: RoundPlan, roster: Roster, advert: Advert) -> None:
    known_client(roster, advert.client)
    name = roster.names[advert.client]
    check_agreement_key(advert.seal_key, culprit=name)
    signed = (plan.digest(), u32.encode(advert.client), advert.seal_key, advert.commitment)
    verify(roster.keys[advert.client], advert.signature, labels.THRESHOLD_ADVERT, *signed, culprit=name)


def commitment_to(plan: RoundPlan, client: Number, key: bytes) -> bytes:
    """To a part of the joint key, before anybody has seen one: else the last to choose chooses the sum."""
    return digest(labels.THRESHOLD_KEY, plan.digest(), u32.encode(client), key)
