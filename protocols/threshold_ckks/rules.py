"""What both sides compute from the plan and the cohort: the threshold, the scheme, the bindings, what they verify."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Roster
from protocols.rounds.cohort import ascending, known_client
from protocols.threshold_ckks.messages import ADVERT, MAX_CLIENTS, Advert, Signed
from protocols.threshold_ckks.scheme import Scheme
from protocols.threshold_ckks.sizes import Sizes, choose_sizes
from secagg.assumptions import Adversary, CostModel
from secagg.codec import Codec, enumeration, struct, u32
from secagg.crypto import labels
from secagg.crypto.keys import check_agreement_key, derive, digest, verify
from secagg.crypto.merkle import MerkleTree, leaf
from secagg.errors import PeerError, PolicyError, ThresholdError, UsageError
from secagg.params import complete, complete_threshold


@dataclass(frozen=True, slots=True)
class Parameters:
    """How many clients must agree before anything is decrypted or rebuilt. Fewer learn nothing with the server.

    ``cost_model`` says by which account the ring has 128 bits of security.
    """

    threshold: int
    cost_model: CostModel = CostModel.CORE_SVP


PARAMETERS: Codec[Parameters] = struct(Parameters, threshold=u32, cost_model=enumeration(CostModel))


def parameters_of(plan: RoundPlan) -> Parameters:
    if not isinstance(plan.parameters, Parameters):
        raise UsageError(f"{plan.protocol} needs a threshold")
    return plan.parameters


def least_of(plan: RoundPlan) -> int:
    """No fewer clients may advertise, deal, have a part in the key, be in the sum or sign it."""
    return max(parameters_of(plan).threshold, plan.min_contributors)


def sizes_of(plan: RoundPlan) -> Sizes:
    """They follow from the plan, so nobody chooses anybody's ring or flooding."""
    return choose_sizes(plan.ring_bits, plan.clients, plan.encoding.coordinates, parameters_of(plan).cost_model)


@lru_cache(maxsize=2)
def scheme_of(plan: RoundPlan) -> Scheme:
    return Scheme.of(sizes_of(plan), digest(labels.THRESHOLD_PUBLIC, plan.digest()))


def choose(
    n: int,
    corrupt: Fraction,
    dropout: Fraction,
    _adversary: Adversary,
    _security: int,
    _correctness: int,
    cost_model: CostModel = CostModel.CORE_SVP,
) -> Parameters:
    """More than half of the honest clients, plus all the corrupt: two different sets never have so many signatures.

    >>> [choose(n, Fraction(1, 10), Fraction(1, 5), Adversary.CURIOUS, 40, 20).threshold for n in (10, 100, 1000)]
    [6, 56, 551]
    """
    if n > MAX_CLIENTS:
        raise UsageError(f"threshold_ckks has up to {MAX_CLIENTS} clients, not {n}")
    return Parameters(complete(n, corrupt, dropout).threshold, cost_model)


def check_parameters(plan: RoundPlan) -> None:
    """Refuse what no round could run with."""
    threshold = parameters_of(plan).threshold
    if plan.clients > MAX_CLIENTS:
        raise UsageError(f"threshold_ckks has up to {MAX_CLIENTS} clients, not {plan.clients}")
    if not 2 <= threshold <= plan.clients:
        raise UsageError(f"threshold {threshold} is not between 2 and the {plan.clients} clients")
    sizes_of(plan)


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


class Cohort:
    """The clients of U1 under their Merkle root. Every binding of the round goes through here."""

    def __init__(self, plan: RoundPlan, roster: Roster, adverts: Sequence[Advert]) -> None:
        """Adverts that were checked, in the order of the roster: the tree refuses another, and one client twice."""
        self.adverts, self.size, self._roster = tuple(adverts), len(adverts), roster
        self.root = MerkleTree([leaf(advert.client, ADVERT.encode(advert)) for advert in adverts]).root
        self._plan = plan.digest()

    def name(self, position: int) -> str:
        return self._roster.names[self.adverts[position].client]

    def key_of(self, position: int) -> bytes:
        """The identity key."""
        return self._roster.keys[self.adverts[position].client]

    def pad_key(self, agreed: bytes, dealer: int, holder: int) -> bytes:
        """What hides a box on its way from its dealer to its holder."""
        return derive(agreed, labels.THRESHOLD_BOX, *self.bound(dealer, holder))

    def joint_digest(self, members: bytes, key: bytes) -> bytes:
        return digest(labels.THRESHOLD_JOINT, *self.bound(), members, key)

    def survivors_digest(self, bitmap: bytes) -> bytes:
        return digest(labels.SURVIVORS, *self.bound(), bitmap)

    def ciphertext_digest(self, joint: bytes, survivors: bytes, c1: bytes) -> bytes:
        """What a sum is called in every signature that helps to decrypt it."""
        return digest(labels.THRESHOLD_SUM, *self.bound(), joint, survivors, c1)

    def missing_digest(self, ciphertext: bytes, bitmap: bytes) -> bytes:
        return digest(labels.THRESHOLD_MISSING, *self.bound(), ciphertext, bitmap)

    def bound(self, *positions: int) -> tuple[bytes, ...]:
        """The context of everything derived or signed in this cohort."""
        return (self._plan, self.root, *[u32.encode(position) for position in positions])

    def check_signers(self, signed: Sequence[Signed], allowed: Set[int], least: int, label: bytes, said: bytes) -> None:
        """At least so many of those allowed have signed this, each once."""
        signers = [one.position for one in signed]
        if not ascending(signers) or not allowed >= set(signers):
            raise PeerError("signers out of order, repeated, or not among those asked")
        if len(signers) < least:
            raise ThresholdError(f"{len(signers)} clients signed, at least {least} are needed")
        for one in signed:
            verify(self.key_of(one.position), one.signature, label, said, culprit=self.name(one.position))

    def by_client(self, signed: Sequence[Signed]) -> Mapping[int, bytes]:
        """Signatures by number in the roster."""
        return {self.adverts[one.position].client: one.signature for one in signed}


def check_advert(plan: RoundPlan, roster: Roster, advert: Advert) -> None:
    known_client(roster, advert.client)
    name = roster.names[advert.client]
    check_agreement_key(advert.seal_key, culprit=name)
    signed = (plan.digest(), u32.encode(advert.client), advert.seal_key, advert.commitment)
    verify(roster.keys[advert.client], advert.signature, labels.THRESHOLD_ADVERT, *signed, culprit=name)


def commitment_to(plan: RoundPlan, client: int, key: bytes) -> bytes:
    """To a part of the joint key, before anybody has seen one: else the last to choose chooses the sum."""
    return digest(labels.THRESHOLD_KEY, plan.digest(), u32.encode(client), key)
