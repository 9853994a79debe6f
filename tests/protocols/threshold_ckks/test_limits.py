"""Limits of what threshold CKKS plans and clients accept, on both sides."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from protocols.threshold_ckks.cohort import check_cohort, check_policy
from protocols.threshold_ckks.parameters import MAX_CLIENTS, Threshold, choose
from secagg.assumptions import Adversary
from secagg.crypto.prg import Prg
from secagg.encoding import Encoding
from secagg.errors import PolicyError, UsageError

ROSTER = Roster.of([Identity.generate(f"client-{i}", Prg(bytes([i]) * 32)) for i in range(10)])


def test_the_largest_cohort() -> None:
    nobody = Fraction(0)
    assert choose(MAX_CLIENTS, nobody, nobody, Adversary.CURIOUS, 40, 20).threshold == MAX_CLIENTS // 2 + 1
    with pytest.raises(UsageError, match=f"up to {MAX_CLIENTS} clients"):
        choose(MAX_CLIENTS + 1, nobody, nobody, Adversary.CURIOUS, 40, 20)


def test_a_cohort_is_no_larger_than_planned_and_no_smaller_than_allowed() -> None:
    plan = RoundPlan.propose(
        "threshold_ckks", ROSTER, Encoding.integers(3), min_contributors=3, clients=8, corrupt=0, dropout=0
    )
    plan = replace(plan, parameters=Threshold(5))
    policy = Policy(min_contributors=3, protocols={"threshold_ckks"}, adversary=Adversary.CURIOUS, corrupt=0)
    for good in (5, 8):
        check_cohort(plan, policy, good)
    for bad in (4, 9):
        with pytest.raises(PolicyError, match="clients advertised"):
            check_cohort(plan, policy, bad)


def test_a_client_computes_the_threshold_itself() -> None:
    """More than half of the honest and all the corrupt, of those planned and of those who have come."""
    plan = RoundPlan.propose("threshold_ckks", ROSTER, Encoding.integers(3), min_contributors=3, corrupt=0, dropout=0)
    policy = Policy(min_contributors=3, protocols={"threshold_ckks"}, adversary=Adversary.CURIOUS, corrupt="0.2")
    enough, too_few = replace(plan, parameters=Threshold(7)), replace(plan, parameters=Threshold(6))
    check_policy(enough, policy)
    check_cohort(enough, policy, 10)
    check_cohort(too_few, policy, 9)
    with pytest.raises(PolicyError, match="threshold 6 is too low for 10 clients: at least 7"):
        check_policy(too_few, policy)
    with pytest.raises(PolicyError, match="threshold 6 is too low for 10 clients: at least 7"):
        check_cohort(too_few, policy, 10)
