"""A policy is a client's own arithmetic; that it refuses plans is in tests/adversarial/pairwise/test_plans.py."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from protocols import registry
from protocols.parameters import ENFORCED_UP_TO, rules_of
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Roster
from secagg.assumptions import Adversary
from secagg.crypto.prg import Prg
from secagg.encoding import Encoding
from secagg.errors import UsageError

WRONG: dict[str, dict[str, Any]] = {
    "one contributor": {"min_contributors": 1},
    "none": {"min_contributors": 0},
    "security of nothing": {"security": 0},
    "security of everything": {"security": 513},
    "more corrupt than there are": {"corrupt": 1},
    "negative": {"dropout": "-0.1"},
    "no number": {"corrupt": "a few"},
    "an unknown adversary": {"adversary": "bored"},
    "exact counts for a server that lies": {"exact_counts": True},
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_policies(what: str) -> None:
    with pytest.raises(UsageError):
        Policy(**{"min_contributors": 2} | WRONG[what])


def test_fractions_are_exact() -> None:
    """0.07 * 100 is 7.000000000000001 in floats, and 0.29 * 100 is 28.999999999999996."""
    assert Policy(min_contributors=2, corrupt=0.29, dropout=0).corrupt_of(100) == 29
    assert Policy(min_contributors=2, corrupt=0.07, dropout="1/3").corrupt_or_dropped_of(100) == 7 + 33
    assert Policy(min_contributors=2, corrupt="0.1").corrupt == Fraction(1, 10)


def test_words_for_the_adversary() -> None:
    assert Policy(min_contributors=2, adversary="curious").adversary is Adversary.CURIOUS  # type: ignore[arg-type]


@pytest.mark.parametrize("protocols", [{"ckks"}, {"threshold_ckks"}, {"secagg+", "ckks"}])
def test_a_policy_allows_no_protocol_that_does_not_hold_against_whom_it_fears(protocols: set[str]) -> None:
    """So each that is allowed can be accepted. One that holds against liars holds against the curious, too."""
    for asked in ({}, {"adversary": Adversary.ACTIVE}):  # the first by default
        with pytest.raises(UsageError, match="ckks holds only against a server that is curious"):
            Policy(min_contributors=2, protocols=protocols, **asked)
    assert Policy(min_contributors=2, protocols=protocols, adversary=Adversary.CURIOUS).protocols == protocols
    for name in registry.names():
        Policy(min_contributors=2, protocols={name}, adversary=rules_of(name).against)


@pytest.mark.parametrize("protocols", [set(), frozenset(), "ckks", "secagg+", ["secagg+", "typo"]])
@pytest.mark.parametrize("adversary", list(Adversary))
def test_a_policy_allows_a_protocol_that_there_is(protocols: Any, adversary: Adversary) -> None:
    """Else its client would refuse every plan, and say nothing of why."""
    with pytest.raises(UsageError, match=r"at least one name|a set of names|unknown protocol '"):
        Policy(min_contributors=2, protocols=protocols, adversary=adversary)


def test_what_is_said_of_a_protocol_and_what_is_computed_with_agree() -> None:
    """Control: a threat model in words says the same as the value."""
    for name in registry.names():
        curious = rules_of(name).against is Adversary.CURIOUS
        assert ("honest but curious" in registry.find(name).threat_model) == curious
        assert ("malicious" in registry.find(name).threat_model) != curious


def test_a_policy_allows_no_protocol_that_is_none() -> None:
    with pytest.raises(UsageError, match="unknown protocol 'secag'"):
        Policy(min_contributors=2, protocols={"secag"})
    with pytest.raises(UsageError, match="protocols is a set of names, not 'secagg'"):
        Policy(min_contributors=2, protocols="secagg")  # type: ignore[arg-type]


def roster_of(count: int) -> Roster:
    return Roster.build({f"client-{i:05}": Prg(bytes(32), start=32 * i)(32) for i in range(count)})


@pytest.mark.parametrize("protocol", ["secagg", "secagg+"])
@pytest.mark.parametrize("n", [2, 3, 5, 10, 100, 500, 1000, ENFORCED_UP_TO, ENFORCED_UP_TO + 1])
def test_what_is_proposed_is_accepted(protocol: str, n: int) -> None:
    """With the same corrupt, dropout, adversary and security on both sides."""
    roster = roster_of(n)
    for adversary in Adversary:
        same: dict[str, Any] = {"corrupt": "0.05", "dropout": "0.1", "adversary": adversary, "security": 40}
        plan = RoundPlan.propose(protocol, roster, Encoding.integers(3), min_contributors=2, **same)
        policy = Policy(min_contributors=2, **same)
        policy.check(plan, roster)
        registry.find(protocol).check_policy(plan, policy)
