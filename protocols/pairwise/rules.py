"""What both sides compute from the plan and the cohort: the graph, the bindings, the checks of (k, t)."""

from __future__ import annotations

from protocols.plan import RoundPlan
from protocols.policy import ENFORCED_UP_TO, Policy
from secagg.assumptions import Adversary
from secagg.codec import Codec, enumeration, struct, u32
from secagg.crypto import labels
from secagg.crypto.graph import Graph, GraphParameters, Neighbourhoods
from secagg.crypto.keys import derive, digest
from secagg.errors import PolicyError, UsageError
from secagg.params import GRINDING_BITS, GRINDING_FLOOR, check_private, corrupt_neighbours

PARAMETERS: Codec[GraphParameters] = struct(
    GraphParameters, graph=enumeration(Graph), degree=u32, threshold=u32, witnesses=u32, quorum=u32
)


def parameters_of(plan: RoundPlan) -> GraphParameters:
    if not isinstance(plan.parameters, GraphParameters):
        raise UsageError(f"{plan.protocol} needs graph parameters")
    return plan.parameters


def check_parameters(plan: RoundPlan) -> None:
    """Refuse what no round could run with."""
    graph, degree, threshold = (p := parameters_of(plan)).graph, p.degree, p.threshold
    if plan.protocol == "secagg" and graph is not Graph.COMPLETE:
        raise UsageError("secagg runs on the complete graph; the ring is secagg+")
    if graph is Graph.COMPLETE:
        fits, holders = degree == plan.clients - 1, plan.clients  # its own share included
    else:
        fits, holders = 2 <= degree <= plan.clients - 1 and degree % 2 == 0, degree
    if not fits:
        raise UsageError(f"degree {degree} does not make a {graph} graph of {plan.clients} clients")
    if not 2 <= threshold <= holders:
        raise UsageError(f"threshold {threshold} is not between 2 and the {holders} holders of a client's shares")
    if graph is Graph.COMPLETE and p.witnesses:
        raise UsageError("on the complete graph everybody is a neighbour: there are no witnesses besides")
    if not min(p.witnesses, 1) <= p.quorum <= p.witnesses <= plan.clients:
        raise UsageError(f"{p.quorum} of {p.witnesses} witnesses cannot speak for {plan.clients} clients")


def check_policy(plan: RoundPlan, policy: Policy) -> None:
    """Refuse (k, t) that this client's own calculation does not accept for the planned number of clients."""
    if plan.clients > ENFORCED_UP_TO and policy.min_contributors > parameters_of(plan).threshold:
        raise PolicyError(
            f"among {plan.clients} clients only {parameters_of(plan).threshold} contributors can be enforced "
            f"(the threshold), not the {policy.min_contributors} demanded"
        )
    _check_graph(plan, policy, plan.clients, GRINDING_BITS)


def signers(plan: RoundPlan) -> int:
    """How many survivors have signed the set before any of them reveals a share: each client sees at least so many."""
    p, least = parameters_of(plan), plan.min_contributors if plan.clients <= ENFORCED_UP_TO else 0
    return max(p.threshold, p.quorum, least)


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
    corrupt, absent = min(policy.corrupt_of(plan.clients), size), plan.clients - size
    gone = max(policy.gone_of(plan.clients) - absent, corrupt)
    check_private(size, corrupt, gone, parameters_of(plan), policy.adversary, security)


class Cohort:
    """The clients of U1 under their Merkle root, and the graph that hash and plan give them.

    Every binding of the round goes through here, so that none forgets the plan or the root. Clients are positions in
    U1, and a vertex set is a bitmap over positions.
    """

    def __init__(self, plan: RoundPlan, root: bytes, size: int) -> None:
        self.root, self.size = root, size
        self._plan = plan.digest()
        self._graph = Neighbourhoods(parameters_of(plan), size, digest(labels.GRAPH, self._plan, root))

    def holders(self, position: int) -> tuple[int, ...]:
        """Who holds this client's shares: its neighbours (and on the complete graph itself)."""
        return self._graph.of(position)

    def witnesses(self) -> tuple[int, ...]:
        """Those of whom enough must sign one set of survivors, so that no other can be signed; on the ring only."""
        return self._graph.witnesses()

    def pad_key(self, agreed: bytes, dealer: int, holder: int) -> bytes:
        """What hides a box on its way from its dealer to its holder."""
        return derive(agreed, labels.SHARE_KEY, *self.bound(dealer, holder))

    def pair_seed(self, agreed: bytes, u: int, v: int) -> bytes:
        """The mask that u and v share; the lower position adds it, the higher subtracts it."""
        return derive(agreed, labels.PAIR_MASK, *self.bound(min(u, v), max(u, v)))

    def self_seed(self, secret: bytes, u: int) -> bytes:
        return derive(secret, labels.SELF_MASK, *self.bound(u))

    def survivors_digest(self, bitmap: bytes) -> bytes:
        return digest(labels.SURVIVORS, *self.bound(), bitmap)

    def bound(self, *positions: int) -> tuple[bytes, ...]:
        """The context of everything derived or signed in this cohort."""
        return (self._plan, self.root, *[u32.encode(position) for position in positions])
