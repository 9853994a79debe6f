"""The limits of what a client of a pairwise round accepts, each on both sides."""

from __future__ import annotations

from dataclasses import replace
from math import comb

import pytest

from protocols.pairwise.cohort import check_cohort, check_policy
from protocols.parameters import ENFORCED_UP_TO
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Roster
from secagg.assumptions import Adversary
from secagg.crypto.graph import Graph, GraphParameters
from secagg.crypto.prg import Prg
from secagg.encoding import Encoding
from secagg.errors import PolicyError


def plan_of(clients: int, degree: int, threshold: int) -> RoundPlan:
    roster = Roster.build({f"client-{i}": Prg(bytes(32), start=32 * i)(32) for i in range(4)})
    small = RoundPlan.propose("secagg+", roster, Encoding.integers(3), min_contributors=2, corrupt=0, dropout=0)
    parameters = GraphParameters(Graph.RING, degree, threshold)
    return replace(small, clients=clients, parameters=parameters, ring_bits=40)


def policy_of(contributors: int, corrupt: str) -> Policy:
    return Policy(
        min_contributors=contributors,
        protocols={"secagg+"},
        corrupt=corrupt,
        dropout=0,
        adversary=Adversary.CURIOUS,
        security=40,
    )


def test_only_the_threshold_can_be_enforced_in_a_large_cohort() -> None:
    threshold = 6
    more, just = policy_of(threshold + 1, "0"), policy_of(threshold, "0")
    check_policy(plan_of(ENFORCED_UP_TO, 8, threshold), more)
    check_policy(plan_of(ENFORCED_UP_TO + 1, 8, threshold), just)
    with pytest.raises(PolicyError, match="can be enforced"):
        check_policy(plan_of(ENFORCED_UP_TO + 1, 8, threshold), more)


def test_more_corrupt_clients_than_have_come() -> None:
    """All of a small cohort may be corrupt then: that is refused, and is no error of arithmetic."""
    plan = plan_of(100, 60, 40)
    with pytest.raises(PolicyError, match="threshold 40 is too low"):
        check_cohort(plan, policy_of(2, "0.5"), 41)


def test_the_absent_are_not_the_corrupt() -> None:
    """If ten stay away, the twenty that are feared may still all be there: they must not be able to cut the graph."""
    degree, corrupt, size = 16, 20, 100
    chance = comb(corrupt, degree) / comb(size, degree)  # that all neighbours of one client are corrupt
    assert size * chance < 2**-41 < size * (size - degree - 1) / 2 * chance
    policy = policy_of(2, "0.1819")
    assert policy.corrupt_of(110) == policy.corrupt_or_dropped_of(110) == corrupt
    with pytest.raises(PolicyError, match="do not keep 100 clients connected when 20 are lost"):
        check_cohort(plan_of(110, degree, degree), policy, size)
    check_cohort(plan_of(110, degree, degree), policy_of(2, "0.1"), size)
