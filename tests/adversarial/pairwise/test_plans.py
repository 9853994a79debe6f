"""Plans that serve the server: each is refused before the client has drawn a key or written a record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from protocols.client import Client
from protocols.journal import EMPTY_HEAD, MemoryJournal
from protocols.pairwise import cohort as rules
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from secagg import params
from secagg.crypto.graph import Graph, GraphParameters
from secagg.crypto.prg import Prg
from secagg.encoding import Encoding
from secagg.errors import DecodeError, PeerError, PolicyError, UsageError
from tests.controls import switch_off
from tests.scenes.pairwise import BOTH, LENGTH, Evil, small

CLIENTS = 600
POLICY = Policy(min_contributors=60, corrupt="0.1", dropout="0.1")


def roster_of(count: int) -> tuple[Roster, Identity]:
    me = Identity.generate("me", Prg(bytes(32)))
    keys = {f"client-{i:04}": Prg(bytes([1]) * 32, start=32 * i)(32) for i in range(count - 1)}
    return Roster.build(keys | {"me": me.key.public}), me


ROSTER, ME = roster_of(CLIENTS)
GOOD = {
    protocol: RoundPlan.propose(
        protocol,
        ROSTER,
        Encoding.integers(LENGTH),
        min_contributors=60,
        corrupt="0.1",
        dropout="0.1",
        session=bytes(16),
    )
    for protocol in ("secagg", "secagg+")
}


def start(plan: RoundPlan, policy: Policy = POLICY, roster: Roster = ROSTER) -> bytes:
    """A fresh client's first frame; if it refuses, its journal must be as empty as before."""
    journal = MemoryJournal()
    try:
        return Client(ME, roster, policy=policy, journal=journal).start(plan, np.zeros(LENGTH))
    except PolicyError:
        assert journal.head() == EMPTY_HEAD
        raise


@BOTH
def test_the_good_plan_is_accepted(protocol: str) -> None:
    assert start(GOOD[protocol])
    assert GOOD["secagg+"].parameters.graph is Graph.RING


Change = Callable[[RoundPlan], RoundPlan]


def parameters(**changes: Any) -> Change:
    return lambda plan: replace(plan, parameters=replace(plan.parameters, **changes))


def degree_of(degree: int, threshold: int) -> Change:
    return parameters(degree=degree, threshold=threshold)


REFUSED: dict[str, tuple[str, Change, str, Any, str, str]] = {
    # what: (protocol, change, reason, owner and name of the check, its condition)
    "t one too low, complete": (
        "secagg",
        lambda plan: replace(plan, parameters=replace(plan.parameters, threshold=plan.parameters.threshold - 1)),
        "threshold 330 is too low",
        params,
        "check_private",
        "parameters.threshold < needed",
    ),
    "t one too low, ring": (
        "secagg+",
        lambda plan: replace(plan, parameters=replace(plan.parameters, threshold=plan.parameters.threshold - 1)),
        "is too low for",
        params,
        "check_private",
        "parameters.threshold < needed",
    ),
    "t of two": (
        "secagg+",
        parameters(threshold=2),
        "threshold 2 is too low",
        params,
        "check_private",
        "parameters.threshold < needed",
    ),
    "few neighbours": (
        "secagg+",
        degree_of(40, 40),
        "40 neighbours do not keep 600 clients connected when 120 are lost",
        params,
        "check_private",
        "not _connected(n, degree, gone, security + 1)",
    ),
    "few contributors": (
        "secagg+",
        lambda plan: replace(plan, min_contributors=59),
        "min_contributors 59 is below the 60 demanded",
        Policy,
        "check",
        "plan.min_contributors < self.min_contributors",
    ),
    "more clients than the roster has": (
        "secagg",
        lambda plan: replace(plan, clients=601, parameters=GraphParameters(Graph.COMPLETE, 600, 400)),
        "the plan speaks of 601 clients, the roster has 600",
        Policy,
        "check",
        "plan.clients > len(roster)",
    ),
    "another roster": (
        "secagg",
        lambda plan: replace(plan, roster=bytes(32)),
        "the plan is for another roster",
        Policy,
        "check",
        "plan.roster != roster.digest",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused_plans(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    protocol, change, reason, owner, name, condition = REFUSED[what]
    plan = change(GOOD[protocol])
    with pytest.raises(PolicyError, match=reason):
        start(plan)
    switch_off(monkeypatch, owner, name, condition)
    monkeypatch.setattr(rules, "check_private", params.check_private)
    assert start(plan)


@BOTH
def test_a_protocol_that_is_not_allowed(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    other = replace(POLICY, protocols=frozenset({"secagg", "secagg+"} - {protocol}))
    with pytest.raises(PolicyError, match="is not among those allowed"):
        start(GOOD[protocol], other)
    switch_off(monkeypatch, Policy, "check", "plan.protocol not in self.protocols")
    assert start(GOOD[protocol], other)


def test_a_ring_under_the_name_of_the_complete_graph() -> None:
    """A client that allows only ``secagg`` has asked for everybody as its neighbour."""
    with pytest.raises((PolicyError, UsageError)):
        start(replace(GOOD["secagg+"], protocol="secagg"), replace(POLICY, protocols={"secagg"}))


def test_many_clients_and_more_contributors_than_can_be_enforced(monkeypatch: pytest.MonkeyPatch) -> None:
    roster, _ = roster_of(5000)
    plan = RoundPlan.propose("secagg+", roster, Encoding.integers(LENGTH), min_contributors=500, corrupt="0.1")
    policy = replace(POLICY, min_contributors=500)
    with pytest.raises(PolicyError, match=r"among 5000 clients only \d+ contributors can be enforced"):
        start(plan, policy, roster)
    condition = "plan.clients > ENFORCED_UP_TO and minimum > (threshold := parameters_of(plan).threshold)"
    switch_off(monkeypatch, rules, "check_enforced", condition)
    assert start(plan, policy, roster)


def test_a_cohort_that_the_server_picks_from_a_larger_roster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gamma is a fraction of the cohort (docs/threat_model.md): a client that fears 60 of 600, in a cohort of 100 of
    the server's choice, says so with corrupt = 0.6."""
    plan = RoundPlan.propose("secagg", ROSTER, Encoding.integers(LENGTH), min_contributors=60, clients=100)
    worst = replace(POLICY, corrupt="0.6")
    with pytest.raises(PolicyError, match="at least 81 is needed"):
        start(plan, worst)
    switch_off(monkeypatch, Policy, "corrupt_of", "floor(Fraction(self.corrupt) * n)", "0")
    assert start(plan, worst)


NARROW: dict[str, Callable[[], object]] = {
    "built": lambda: replace(GOOD["secagg"], ring_bits=GOOD["secagg"].ring_bits - 1),
    "decoded": lambda: RoundPlan.decode(narrow_bytes()),
}


def narrow_bytes() -> bytes:
    wide, narrow = (GOOD["secagg"].ring_bits - less for less in (0, 1))
    data = GOOD["secagg"].encode()
    at = data.index(bytes([wide]), 4 + 6 + 16 + 4 + 32 + 32 + 8)
    return data[:at] + bytes([narrow]) + data[at + 1 :]


@pytest.mark.parametrize("how", NARROW)
def test_a_ring_too_narrow(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no such plan, so nobody can be asked. If there were, sums would wrap."""
    with pytest.raises((UsageError, DecodeError), match="too narrow for 600 clients"):
        NARROW[how]()
    monkeypatch.setattr(Encoding, "check_ring", lambda *_: None)
    plan = NARROW[how]()
    assert start(plan)
    largest = np.full(1, plan.encoding.largest)
    total = sum(plan.ring.lift(largest).astype(np.uint64) for _ in range(CLIENTS)).astype(plan.ring.dtype)
    assert plan.ring.centred(total)[0] != CLIENTS * largest[0]


NO_PLANS: dict[str, Change] = {
    "odd degree": degree_of(41, 40),
    "degree zero": degree_of(0, 2),
    "degree above the cohort": degree_of(600, 300),
    "t of one": parameters(threshold=1),
    "t above k": parameters(threshold=1000),
    "complete with holes": parameters(graph=Graph.COMPLETE),
    "one contributor": lambda plan: replace(plan, min_contributors=1),
    "more contributors than clients": lambda plan: replace(plan, min_contributors=601),
    "one client": lambda plan: replace(plan, clients=1),
    "round too far": lambda plan: replace(plan, round=1 << 32),
    "weights that do not fit": lambda plan: replace(plan, encoding=replace(plan.encoding, weight_bound=1 << 20)),
    "ring of 65 bits": lambda plan: replace(plan, ring_bits=65),
    "short session": lambda plan: replace(plan, session=b"x"),
    "unknown protocol": lambda plan: replace(plan, protocol="secagg-"),
}


@pytest.mark.parametrize("what", NO_PLANS)
def test_plans_that_cannot_be(what: str) -> None:
    with pytest.raises(UsageError):
        NO_PLANS[what](GOOD["secagg+"])


def test_scale_beyond_numbers() -> None:
    """A clip so small that its scale is infinite turns every update into NaN."""
    with pytest.raises(UsageError):
        Encoding(LENGTH, clip_l2=1.0, clip_inf=1e-320)


# Two plans for one round.


def split(evil: Evil) -> None:
    """Half the clients hear of another model; their adverts, under one root with those of the others, are signed for
    that plan."""
    two = replace(evil.plan, model=b"2" * 32)
    for u in evil.members:
        if u in evil.honest and u % 2:
            frame = evil.clients[u].start(two, evil.values[u])
            evil.adverts[u] = evil.messages.decode(two, frame)  # the frame header does not tell them apart
        else:
            evil.adverts[u] = evil.start(u)
    evil.found([evil.adverts[u] for u in evil.members])
    evil.share([u for u in evil.honest if not u % 2])


@BOTH
def test_plan_split(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PeerError, match="bad signature"):
        split(small(protocol))
    monkeypatch.setattr(RoundPlan, "digest", lambda plan: bytes(32))
    split(small(protocol))
