"""What a member, a client and a plan of a one-shot round refuse at their limits."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from protocols.oneshot import client as client_module
from protocols.oneshot.client import OneshotClient
from protocols.oneshot.committee import MAX_MEMBERS, check_policy
from protocols.oneshot.messages import Member, Members
from protocols.oneshot.parameters import CommitteeSize, choose_committee
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from secagg import extras
from secagg.assumptions import Adversary, CostModel
from secagg.codec import u32
from secagg.crypto import labels
from secagg.crypto.prg import Prg
from secagg.encoding import Encoding
from secagg.errors import MissingExtraError, PeerError, PolicyError, UsageError
from tests.controls import switch_off
from tests.scenes.oneshot import Evil, make

LOW_ORDER = (1).to_bytes(32, "little")


def test_more_contributors_than_the_plan_has_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ring, the noise and the shares are made for so many and no more."""

    def signed(extra: int) -> bytes:
        evil = make(outsiders=2)
        evil.join()
        evil.upload()
        for outsider in range(12, 12 + extra):
            evil.uploads[outsider] = evil.forged(outsider)
        return evil.consent(0, evil.uploads)

    assert signed(extra=0)
    with pytest.raises(PeerError, match="more than the plan allows"):
        signed(extra=1)
    condition = "not ascending(clients) or len(clients) > self.plan.clients"
    switch_off(monkeypatch, OneshotClient, "_open", condition, "not ascending(clients)")
    assert signed(extra=1)


def test_a_member_with_a_key_of_low_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused in time it costs nothing: the client goes on with the right committee. Taken, it breaks the client in
    the middle of its upload."""

    def poisoned() -> tuple[Evil, Members]:
        evil = make()
        evil.join()
        corrupt = evil.corrupt[0]
        by = evil.identities[evil.name(corrupt)].key
        signature = by.sign(labels.ONESHOT_SEAT, evil.plan.digest(), u32.encode(corrupt), LOW_ORDER)
        bad = Member(corrupt, LOW_ORDER, signature)
        return evil, Members(tuple(bad if seat.client == corrupt else seat for seat in evil.shown.members))

    evil, members = poisoned()
    with pytest.raises(PeerError, match="unusable X25519 public key") as refused:
        evil.tell(0, members)
    assert evil.name(evil.corrupt[0]) in refused.value.culprits
    evil.upload([0])
    assert 0 in evil.uploads

    switch_off(
        monkeypatch,
        client_module,
        "check_member",
        "check_agreement_key(member.key, culprit=name)",
        "None",
    )
    evil, members = poisoned()
    with pytest.raises(PeerError, match="unusable X25519 public key"):
        evil.tell(0, members)
    with pytest.raises(UsageError, match="no round is under way"):
        evil.upload([0])


def test_a_contributor_that_is_not_in_the_roster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever signs in its name, a number that is nobody's is refused before anything is looked up under it."""

    def told() -> None:
        evil = make()
        evil.join()
        evil.upload()
        evil.uploads[10**6] = evil.forged(10**6, signer=evil.corrupt[0])
        evil.consent(0, sorted(evil.uploads)[1:])

    with pytest.raises(PeerError, match="client number 1000000 is not in the roster"):
        told()
    switch_off(monkeypatch, client_module, "check_header", "known_client(roster, header.client)", "None")
    with pytest.raises(IndexError):  # an undeclared error
        told()


def test_without_a_compiler_a_client_does_not_even_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    evil = make()
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="the protocol oneshot needs the extra"):
        evil.start(0)


def test_no_committee_is_larger_than_a_committee_can_be() -> None:
    """Nearly all of 2000 clients would do, and are too many."""
    with pytest.raises(UsageError, match=f"no committee of up to {MAX_MEMBERS}"):
        choose_committee(2000, Fraction(3, 10), Fraction(33, 100), Adversary.ACTIVE, 40, 20)


def test_as_many_contributors_as_are_feared_corrupt() -> None:
    """Of a committee drawn by lot few are corrupt; of the contributors all that a client fears may be, and two more
    must be honest for a sum to hide them."""
    roster = Roster.build({f"client-{i}": Prg(bytes(32), start=32 * i)(32) for i in range(4)})
    small = RoundPlan.propose("oneshot", roster, Encoding.integers(3), min_contributors=2, corrupt=0, dropout=0)
    plan = replace(small, clients=1000, ring_bits=40, beacon=b"b" * 32, parameters=CommitteeSize(75, 32))
    policy = Policy(min_contributors=2, protocols={"oneshot"}, corrupt="0.1", beacon=b"b" * 32)
    check_policy(replace(plan, min_contributors=102), policy)
    for few in (2, 101):
        with pytest.raises(PolicyError, match="100 are feared corrupt"):
            check_policy(replace(plan, min_contributors=few), policy)


def test_a_policy_may_insist_on_core_svp() -> None:
    """It refuses rings that have 128 bits by the standard's tables only, and takes the others."""
    names = [f"client-{i}" for i in range(9)]
    roster = Roster.of([Identity.generate(name, Prg(name.encode().ljust(32))) for name in names])
    lax, strict = (
        RoundPlan.propose(
            "oneshot", roster, Encoding.integers(3), min_contributors=3, corrupt=0, dropout=0, cost_model=cost_model
        )
        for cost_model in ("standard", "core-svp")
    )
    easy = Policy(min_contributors=3, protocols={"oneshot"}, corrupt=0)
    insisting = replace(easy, cost_model=CostModel.CORE_SVP)

    for plan, policy in ((lax, easy), (strict, easy), (strict, insisting)):
        check_policy(plan, policy)
    with pytest.raises(PolicyError, match="core-SVP"):
        check_policy(lax, insisting)
