"""The committee of one round: who its members are, what everything is bound to, and what a client accepts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from protocols.oneshot.messages import HEADER, MEMBER, Header, Member
from protocols.oneshot.parameters import MAX_MEMBERS, check_contributors, lattice_of, parameters_of
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Number, Roster
from protocols.rounds.survivors import Agreed
from secagg.crypto import labels
from secagg.crypto.keys import derive, digest
from secagg.crypto.lattice.polynomials import Evaluations
from secagg.crypto.lattice.sampling import uniform
from secagg.crypto.prg import Prg, random_words
from secagg.errors import PolicyError
from secagg.hypergeometric import most_marked


def check_policy(plan: RoundPlan, policy: Policy) -> None:
    """Refuse a committee that this client's own calculation does not trust, or that it cannot draw again."""
    committee, feared = parameters_of(plan), policy.corrupt_in(plan)
    policy.check_cost_model(committee.cost_model)
    bad = feared
    if committee.members < plan.clients:
        if not policy.beacon:
            raise PolicyError("members are drawn by lot, and this client knows no beacon (Policy.beacon)")
        bad = most_marked(plan.clients, feared, committee.members, policy.security, times=MAX_MEMBERS)
    if committee.corrupt < bad:
        raise PolicyError(f"the committee bears {committee.corrupt} corrupt members, not the {bad} feared")
    check_contributors(plan, feared)


def public_of(plan: RoundPlan) -> Evaluations:
    """The public polynomials a, one for each block: nobody chooses them, they are a hash of the plan."""
    layout = lattice_of(plan).layout
    return uniform(layout.ring, layout.blocks(plan.encoding.coordinates), digest(labels.ONESHOT_PUBLIC, plan.digest()))


class Committee:
    """The members who came, in the order of the roster, and every binding of the round to them and to the plan."""

    def __init__(self, plan: RoundPlan, members: Sequence[Member]) -> None:
        self.members = {member.client: member for member in members}
        self.root = digest(labels.ONESHOT_COMMITTEE, plan.digest(), *map(MEMBER.encode, members))
        self._plan = plan.digest()

    def box_key(self, agreed: bytes, sender: Number, receiver: Number) -> bytes:
        return derive(agreed, labels.ONESHOT_BOX, *self.bound(sender, receiver))

    def contributed(self, headers: Sequence[Header]) -> bytes:
        """Committee and uploads: what was added up, and not only by whom."""
        return digest(labels.ONESHOT_UPLOAD, *self.bound(), *map(HEADER.encode, headers))

    def agreed(self, contributed: bytes, size: int, bitmap: bytes) -> Agreed:
        """This set of survivors out of a roster of ``size``, with these uploads, as it is signed."""
        return Agreed(contributed, size, bitmap, digest(labels.SURVIVORS, self._plan, contributed, bitmap))

    def bound(self, *clients: Number) -> tuple[bytes, ...]:
        """The context of everything derived or signed under this committee. Clients are numbers in the roster."""
        return (self._plan, self.root, *[client.to_bytes(4, "big") for client in clients])


def sortition(plan: RoundPlan, roster: Roster) -> frozenset[Number]:
    """Who may sit on the committee: by lot, or everybody."""
    committee = parameters_of(plan)
    if committee.members == plan.clients:
        return frozenset(map(Number, range(len(roster))))
    if plan.clients != len(roster):
        raise PolicyError("members are drawn from the whole roster: a cohort must be a roster of its own")
    lots = random_words(Prg(digest(labels.ONESHOT_SEATS, roster.digest, plan.beacon)), len(roster))
    return frozenset(map(Number, np.argsort(lots)[: committee.members].tolist()))
