"""What a client itself may not contribute: bad updates are refused before anything is journaled or sent, weights are
bounded without a word. A client that has nothing to contribute takes part all the same, and nobody sees it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from protocols.client import Client
from protocols.journal import EMPTY_HEAD, MemoryJournal
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.server import serve
from protocols.simulation.network import Envelope, Faults, simulate
from secagg.encoding import Encoding
from secagg.errors import PolicyError, UsageError
from tests.controls import switch_off
from tests.scenes.pairwise import BOTH, LENGTH, Evil, small
from tests.scenes.updates import BAD_UPDATES

VICTIM = 2
BOUND = 4
ADMITTED: dict[str, tuple[Any, int]] = {
    "zero": (0, 1),
    "negative": (-1, 1),
    "above the bound": (5, BOUND),
    "huge": (1 << 70, BOUND),
    "half": (1.5, 1),
    "NaN": (float("nan"), 1),
    "infinite": (float("inf"), BOUND),
    "the bound": (BOUND, BOUND),
}


def scene(protocol: str) -> tuple[Evil, Client, MemoryJournal]:
    journal = MemoryJournal()
    evil = small(protocol)
    evil.plan = weighing(evil.plan, BOUND)
    for client in evil.clients.values():
        client.policy = replace(client.policy, weight_bound=BOUND)
    evil.clients[VICTIM]._journal = journal
    return evil, evil.clients[VICTIM], journal


def weighing(plan: RoundPlan, bound: int) -> RoundPlan:
    encoding = replace(plan.encoding, weight_bound=bound)
    return replace(plan, encoding=encoding, ring_bits=encoding.ring_bits(plan.clients))


@BOTH
@pytest.mark.parametrize("what", BAD_UPDATES)
def test_bad_updates(protocol: str, what: str) -> None:
    evil, client, journal = scene(protocol)
    with pytest.raises(UsageError):
        client.start(evil.plan, BAD_UPDATES[what])
    assert (journal.head(), client.phase) == (EMPTY_HEAD, None)
    assert client.start(evil.plan, np.zeros(LENGTH))


@BOTH
@pytest.mark.parametrize("what", ADMITTED)
def test_a_weight_counts_as_the_nearest_that_is_allowed(protocol: str, what: str) -> None:
    evil, client, _ = scene(protocol)
    weight, admitted = ADMITTED[what]
    assert client.start(evil.plan, np.ones(LENGTH), weight=weight)
    assert client._round.values().tolist() == [admitted] * (LENGTH + 1)


@BOTH
@pytest.mark.parametrize("bound", [1, BOUND])
def test_nothing_to_contribute_is_zeros_and_nobody_sees_it(protocol: str, bound: int) -> None:
    """Its frames are as long as anybody's, and the sum is over the others, with a weight of their own."""
    evil, client, _ = scene(protocol)
    plan = weighing(evil.plan, bound)
    server = serve(plan, evil.roster)
    identities = [evil.identities[evil.name(u)] for u in evil.members]
    clients = {one.name: Client(one, evil.roster, policy=client.policy) for one in identities}
    updates: dict[str, Any] = {name: np.full(LENGTH, i) for i, name in enumerate(clients)}
    victim, said = evil.name(VICTIM), dict[str, list[int]]()

    def heard(envelope: Envelope) -> bytes:
        said.setdefault(f"{envelope.sender} {envelope.receiver}", []).append(len(envelope.frame))
        return envelope.frame

    updates[victim] = None
    ran = simulate(server, clients, updates.get, weights=dict.fromkeys(clients, 3), faults=Faults(corrupted=heard))
    total = ran.outcome.decode()
    others = [name for name in clients if name != victim]
    factor = min(3, bound)
    assert total.vector.tolist() == (factor * sum(updates[name] for name in others)).tolist()
    assert total.weight == (len(clients) if bound == 1 else factor * len(others))
    assert victim in ran.outcome.survivors
    assert said[f"{victim} server"] in [said[f"{name} server"] for name in others]


def halving(client: Client, plan: RoundPlan, weight: int, most: int) -> int | None:
    """What a server finds out about the weight of a client that it asks to take part in one plan after the other."""
    low, high = 1, most
    while low < high:
        middle, plan = (low + high) // 2, plan.next_round()
        try:
            client.start(weighing(plan, middle), np.zeros(LENGTH), weight)
        except PolicyError:
            return None  # for whatever weight
        except UsageError:
            low = middle + 1
        else:
            high = middle
    return low


@pytest.mark.parametrize("weight", [1, 777, 8000])
def test_no_plan_tells_a_weight(weight: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without either check, 13 plans tell it exactly. Either one is enough to say nothing."""

    def found() -> int | None:
        evil = small("secagg")
        client = evil.clients[VICTIM]
        client.policy = replace(client.policy, weight_bound=8192)
        return halving(client, evil.plan, weight, 8192)

    def refusing(encoding: Encoding, given: int) -> int:
        if given > encoding.weight_bound:
            raise UsageError("too large")
        return given

    assert found() is None
    with monkeypatch.context() as patched:
        patched.setattr(Encoding, "_admitted", refusing)
        assert found() is None
    switch_off(monkeypatch, Policy, "check", "plan.encoding.weight_bound not in (1, self.weight_bound)")
    assert found() == 1  # it never complains, whatever the weight is
    monkeypatch.setattr(Encoding, "_admitted", refusing)
    assert found() == weight


def test_a_client_can_be_asked_whether_it_would_take_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """``check`` refuses what ``start`` refuses, journals nothing, and sees no data."""
    evil, client, journal = scene("secagg")
    client.check(evil.plan)
    assert (journal.head(), client.phase) == (EMPTY_HEAD, None)
    first = client.start(evil.plan.next_round(), np.zeros(LENGTH))
    client.check(evil.plan.next_round())  # it is under way
    refused = [
        (evil.plan, "past round"),
        (weighing(evil.plan, BOUND + 1), "weights are bounded"),
        (replace(evil.plan.next_round(), model=bytes(31) + b"x"), "another plan"),
        (replace(evil.plan, roster=bytes(32)), "another roster"),
    ]
    for plan, reason in refused:
        with pytest.raises(PolicyError, match=reason):
            client.check(plan)
        with pytest.raises(PolicyError, match=reason):
            client.start(plan, None)
    assert client.start(evil.plan.next_round(), None) == first


@BOTH
def test_control_not_a_number(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the check NaN becomes some integer, and the round goes on with it: the sum is spoilt and nobody knows."""
    evil, client, journal = scene(protocol)
    switch_off(monkeypatch, Encoding, "_clipped", "np.isfinite(vector).all()", "True")
    assert client.start(evil.plan, BAD_UPDATES["one NaN"])
    assert journal.head() != EMPTY_HEAD


@BOTH
def test_control_a_weight_too_large(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One client outweighs all the others."""
    evil, client, _ = scene(protocol)
    switch_off(monkeypatch, Encoding, "encode_into", "self._admitted(weight)", "weight")
    assert client.start(evil.plan, np.ones(LENGTH), weight=15)
    assert client._round.values().tolist() == [15] * (LENGTH + 1)


@BOTH
def test_a_bad_update_disturbs_no_running_round(protocol: str) -> None:
    evil, client, _ = scene(protocol)
    first = client.start(evil.plan, np.zeros(LENGTH))
    with pytest.raises(UsageError):
        client.start(evil.plan.next_round(), BAD_UPDATES["NaN"])
    assert client.start(evil.plan, np.zeros(LENGTH)) == first
