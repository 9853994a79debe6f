"""What both sides compute from the plan and the cohort: the graph, the bindings, the checks of (k, t)."""

from __future__ import annotations

from typing import cast

from protocols.pairwise.parameters import check_enforced, parameters_of
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.rounds.cohort import Position
from protocols.rounds.dealer import DealingCohort
from secagg.assumptions import Adversary
from secagg.crypto import labels
from secagg.crypto.graph import Graph, Neighbourhoods
from secagg.crypto.keys import derive, digest
from secagg.errors import PolicyError
from secagg.params import GRINDING_BITS, GRINDING_FLOOR, check_private, corrupt_neighbours


def check_policy(plan: RoundPlan, policy: Policy) -> None:
    """Refuse (k, t) that this client's own calculation does not accept for the planned number of clients."""
    check_enforced(plan, policy.min_contributors)
    _check_graph(plan, policy, plan.clients, GRINDING_BITS)


def check_cohort(plan: RoundPlan, policy: Policy, size: int) -> None:
    """The same again for the ``size`` clients that really advertised; all the corrupt ones are thought to be there."""
    if not plan.min_contributors <= size <= plan.clients:
        raise PolicyError(f"{size} clients advertised, the plan allows {plan.min_contributors} to {plan.clients}")
    _check_graph(plan, policy, size, GRINDING_FLOOR)


def most_complaints(plan: RoundPlan, policy: Policy, size: int) -> int:
    """How many holders a client opens boxes for before it takes them for more than liars.

    As many as its policy takes for corrupt; or more, as long as fewer than t shares of its secrets would be known if
    all who complain were honest, and corrupt ones kept silent.
    """
    corrupt, degree = min(policy.corrupt_of(plan.clients), size), min(parameters_of(plan).degree, size - 1)
    if parameters_of(plan).graph is not Graph.COMPLETE:
        corrupt = corrupt_neighbours(size, corrupt, degree, _security(policy, GRINDING_FLOOR) + 1)
    return max(corrupt, parameters_of(plan).threshold - 1 - corrupt)


def _security(policy: Policy, grinding: int) -> int:
    return policy.security + (grinding if policy.adversary is Adversary.ACTIVE else 0)


def _check_graph(plan: RoundPlan, policy: Policy, size: int, grinding: int) -> None:
    security = _security(policy, grinding)
    corrupt, absent = min(policy.corrupt_in(plan), size), plan.clients - size
    dropped = max(policy.corrupt_or_dropped_of(plan.clients) - absent, corrupt)
    check_private(size, corrupt, dropped, parameters_of(plan), policy.adversary, security)


class Cohort(DealingCohort):
    """The clients of U1 under their Merkle root, and the graph that hash and plan give them."""

    def __init__(self, plan: RoundPlan, root: bytes, size: int) -> None:
        super().__init__(plan, root, size)
        self._graph = Neighbourhoods(parameters_of(plan), size, digest(labels.GRAPH, self._plan, root))

    def holders(self, position: Position) -> tuple[Position, ...]:
        """Who holds this client's shares: its neighbours (and on the complete graph itself)."""
        return cast("tuple[Position, ...]", self._graph.of(position))

    def witnesses(self) -> tuple[Position, ...]:
        """Those of whom enough must sign one set of survivors, so that no other can be signed; on the ring only."""
        return cast("tuple[Position, ...]", self._graph.witnesses())

    def pad_key(self, agreed: bytes, dealer: Position, holder: Position) -> bytes:
        """What hides a box on its way from its dealer to its holder."""
        return derive(agreed, labels.SHARE_KEY, *self.bound(dealer, holder))

    def pair_seed(self, agreed: bytes, u: Position, v: Position) -> bytes:
        """The mask that u and v share; the lower position adds it, the higher subtracts it."""
        return derive(agreed, labels.PAIR_MASK, *self.bound(min(u, v), max(u, v)))

    def self_seed(self, secret: bytes, u: Position) -> bytes:
        return derive(secret, labels.SELF_MASK, *self.bound(u))
