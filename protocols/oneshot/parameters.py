"""The committee: how many members, how many must agree, layouts of vectors and secrets.

The calculator. m members are drawn by lot from n clients, of which floor(gamma n) are corrupt; HG is the hypergeometric
law. The committee is the smallest for which

1. f = least with Pr[HG > f] <= 2^-security / 1024: no more than f members are corrupt, and f shares say nothing (lots
   of all sizes are prefixes of one order, and the server may try the sizes, of which there are up to 1024);
2. Q = floor((m + f) / 2) + 1 signatures are a quorum: two quorums share more than f members, so an honest one, who
   signs once. It is also how many shares give a sum: Q - f secrets are packed into one polynomial;
3. Q members stay, but with probability 2^-correctness, when floor(delta n) clients fall silent.

Up to ``EVERYBODY`` clients there is no lot: everyone who joins is a member, and f = floor(gamma n).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import floor

from protocols.parameters import Facts, Rules
from secagg.assumptions import Adversary, CostModel
from secagg.codec import Codec, enumeration, struct, u32
from secagg.crypto.lattice import Parameters
from secagg.crypto.lattice.parameters import VARIANCE, candidates, tail
from secagg.crypto.packed import Sharing
from secagg.encoding import Encoding
from secagg.errors import PolicyError, UsageError
from secagg.hypergeometric import most_marked

MAX_MEMBERS = 1024
EVERYBODY = 128
"""Up to so many clients all are members of the committee."""

SLACK = Fraction(11, 10)


@dataclass(frozen=True, slots=True)
class CommitteeSize:
    """Parameters of a plan: how many members, and how many of them may be corrupt. The plan's beacon draws them.

    ``cost_model`` says by which account the ring of the masks has 128 bits of security.
    """

    members: int
    corrupt: int
    cost_model: CostModel = CostModel.CORE_SVP

    @property
    def quorum(self) -> int:
        """How many must sign one set of survivors, and how many shares give the sum of the secrets."""
        return (self.members + self.corrupt) // 2 + 1

    @property
    def private(self) -> int:
        """So many shares say nothing: at least one, so that no member alone learns anything."""
        return max(self.corrupt, 1)


PARAMETERS: Codec[CommitteeSize] = struct(CommitteeSize, members=u32, corrupt=u32, cost_model=enumeration(CostModel))


def parameters_of(plan: Facts) -> CommitteeSize:
    if not isinstance(plan.parameters, CommitteeSize):
        raise UsageError(f"{plan.protocol} needs a committee")
    return plan.parameters


def choose_committee(
    n: int,
    corrupt: Fraction,
    dropout: Fraction,
    _adversary: Adversary,
    security: int,
    correctness: int,
    cost_model: CostModel = CostModel.CORE_SVP,
) -> CommitteeSize:
    """The smallest committee. Against a curious server it is the same: what is saved by trusting it is little.

    >>> choose_committee(1000, Fraction(1, 10), Fraction(1, 10), Adversary.ACTIVE, 40, 20)
    CommitteeSize(members=75, corrupt=32, cost_model=<CostModel.CORE_SVP: 'core-svp'>)
    """
    bad, dropped = floor(corrupt * n), floor(dropout * n)
    if n <= EVERYBODY:
        everybody = CommitteeSize(n, bad, cost_model)
        if everybody.quorum > n - dropped:
            raise UsageError(
                f"infeasible: {everybody.quorum} of {n} must sign, but only {n - dropped} are sure to stay"
            )
        return everybody
    for size in range(3, min(n, MAX_MEMBERS)):
        committee = CommitteeSize(size, most_marked(n, bad, size, security, times=MAX_MEMBERS), cost_model)
        if committee.quorum <= size - most_marked(n, dropped, size, correctness):
            return committee
    raise UsageError(f"infeasible: no committee of up to {MAX_MEMBERS} outlives these dropouts and corruptions")


def check_parameters(plan: Facts) -> None:
    """Refuse what no round could run with."""
    committee = parameters_of(plan)
    if not 2 <= committee.members <= min(plan.clients, MAX_MEMBERS):
        raise UsageError(f"a committee of {committee.members} is not between 2 and {min(plan.clients, MAX_MEMBERS)}")
    if committee.members < plan.clients <= EVERYBODY:
        raise UsageError(f"of {plan.clients} clients all are members, not {committee.members}")
    if not committee.private < committee.quorum <= committee.members:
        raise UsageError(f"of a committee of {committee.members} {committee.corrupt} corrupt ones are too many")
    lattice_of(plan)


def least_contributors(plan: Facts) -> int:
    """With so many at least two are honest, as hint-RLWE needs: one's vector is not a sum. All members reckon with the
    plan's committee, not each with its own fears, since who fears most is not asked again after its upload."""
    return max(plan.min_contributors, parameters_of(plan).corrupt + 2)


def check_contributors(plan: Facts, corrupt: int) -> None:
    """Refuse (``PolicyError``) a plan in which fewer than two of the least contributors are honest."""
    if (least := least_contributors(plan)) < corrupt + 2:
        raise PolicyError(f"{least} contributors are enough for this plan, and {corrupt} are feared corrupt")


def _accept(plan: Facts, roster: int, corrupt: int) -> None:
    if parameters_of(plan).members < plan.clients:
        if not plan.beacon:
            raise PolicyError("members are drawn by lot, and there is no beacon for that")
        if roster != plan.clients:
            raise PolicyError("members are drawn from the whole roster: a cohort must be a roster of its own")
    check_contributors(plan, corrupt)


def lattice_of(plan: Facts) -> Parameters:
    """The ring and the layout in it that the plan's vectors take."""
    return _lattice(plan.encoding, plan.clients, plan.noise_bound, parameters_of(plan))


def sharing_of(plan: Facts) -> Sharing:
    """How the coefficients of a secret are shared."""
    return _sharing(lattice_of(plan).layout.ring.degree, plan.clients, parameters_of(plan))


@lru_cache(maxsize=256)
def _lattice(encoding: Encoding, n: int, noise_bound: int, committee: CommitteeSize) -> Parameters:
    """The smallest N with which vector and shares take at most a tenth more than with the best."""
    found = list(candidates(encoding, n, noise_bound, cost_model=committee.cost_model))
    sizes = [
        one.upload_bytes + committee.members * _sharing(one.layout.ring.degree, n, committee).share_bytes
        for one in found
    ]
    if not found:
        raise UsageError(f"no ring has room for sums of {encoding.ring_bits(n, noise_bound)} bits")
    return next(one for one, size in zip(found, sizes, strict=True) if size <= SLACK * min(sizes))


def _sharing(degree: int, n: int, committee: CommitteeSize) -> Sharing:
    """Sums of all clients' secrets stay below the bound, but for 2^-40."""
    bound = tail(degree, n, n * VARIANCE)
    return Sharing(degree, bound, committee.quorum - committee.private, committee.private)


RULES = {
    "oneshot": Rules(
        PARAMETERS,
        choose_committee,
        check_parameters,
        lambda plan: parameters_of(plan).quorum,
        accept=_accept,
        extra="lattice",
    )
}
