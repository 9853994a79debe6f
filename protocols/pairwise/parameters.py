"""Degree, threshold, witnesses and quorum: how they are chosen, and which no round could run with."""

from __future__ import annotations

from fractions import Fraction

from protocols.parameters import ENFORCED_UP_TO, Facts, Rules
from secagg.assumptions import Adversary, CostModel
from secagg.codec import Codec, enumeration, struct, u32
from secagg.crypto.graph import Graph, GraphParameters
from secagg.errors import PolicyError, UsageError
from secagg.params import choose_for_round, complete

PARAMETERS: Codec[GraphParameters] = struct(
    GraphParameters, graph=enumeration(Graph), degree=u32, threshold=u32, witnesses=u32, quorum=u32
)


def parameters_of(plan: Facts) -> GraphParameters:
    if not isinstance(plan.parameters, GraphParameters):
        raise UsageError(f"{plan.protocol} needs graph parameters")
    return plan.parameters


def check_parameters(plan: Facts) -> None:
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


def check_enforced(plan: Facts, minimum: int) -> None:
    """Refuse (``PolicyError``) a minimum that the clients of this plan could not enforce."""
    if plan.clients > ENFORCED_UP_TO and minimum > (threshold := parameters_of(plan).threshold):
        raise PolicyError(
            f"among {plan.clients} clients only {threshold} contributors can be enforced (the threshold), "
            f"not the {minimum} demanded"
        )


def _accept(plan: Facts, _roster: int, _corrupt: int) -> None:
    check_enforced(plan, plan.min_contributors)


def signers(plan: Facts) -> int:
    """How many survivors have signed the set before any of them reveals a share: each client sees at least so many."""
    p, least = parameters_of(plan), plan.min_contributors if plan.clients <= ENFORCED_UP_TO else 0
    return max(p.threshold, p.quorum, least)


def _choose_complete(
    n: int,
    corrupt: Fraction,
    dropout: Fraction,
    _adversary: Adversary,
    _security: int,
    _correctness: int,
    _cost_model: CostModel,
) -> GraphParameters:
    return complete(n, corrupt, dropout)


def _choose_ring(
    n: int,
    corrupt: Fraction,
    dropout: Fraction,
    adversary: Adversary,
    security: int,
    correctness: int,
    _cost_model: CostModel,
) -> GraphParameters:
    return choose_for_round(n, corrupt, dropout, adversary, security, correctness)


RULES = {
    "secagg": Rules(PARAMETERS, _choose_complete, check_parameters, signers, accept=_accept),
    "secagg+": Rules(PARAMETERS, _choose_ring, check_parameters, signers, accept=_accept),
}
