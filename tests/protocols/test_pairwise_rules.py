"""What pairwise plans may say of graph and witnesses, and how many sign before any share leaves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dp.noise import Family, NoiseSpec
from protocols.parameters import ENFORCED_UP_TO, rules_of
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from protocols.server import serve
from protocols.simulation.network import Faults, local_clients, simulate
from secagg.assumptions import Adversary
from secagg.crypto.graph import Graph, GraphParameters, Neighbourhoods
from secagg.crypto.prg import Prg
from secagg.encoding import Encoding
from secagg.errors import ThresholdError, UsageError

ROSTER = Roster.of([Identity.generate(f"client-{i}", Prg(bytes([i]) * 32)) for i in range(9)])


def plan(protocol: str, parameters: GraphParameters, **more: Any) -> RoundPlan:
    made = RoundPlan.propose(protocol, ROSTER, Encoding.integers(3), min_contributors=3, corrupt=0, dropout=0, **more)
    return replace(made, parameters=parameters)


RING = GraphParameters(Graph.RING, 4, 3, 9, 5)
COMPLETE = GraphParameters(Graph.COMPLETE, 8, 5)


def test_what_fits_is_taken() -> None:
    for ring in (
        RING,
        replace(RING, quorum=9),
        replace(RING, witnesses=1, quorum=1),
        replace(RING, witnesses=0, quorum=0),
    ):
        assert plan("secagg+", ring).parameters == ring
    assert plan("secagg", COMPLETE).parameters == COMPLETE


@pytest.mark.parametrize(
    "change",
    [{"quorum": 0}, {"quorum": 10}, {"witnesses": 0}, {"witnesses": 4}, {"witnesses": 10, "quorum": 10}],
    ids=str,
)
def test_witnesses_that_cannot_speak_for_the_cohort(change: dict[str, int]) -> None:
    """None of whom need sign, fewer than must sign, or more than there are clients."""
    with pytest.raises(UsageError, match="witnesses cannot speak for 9 clients"):
        plan("secagg+", replace(RING, **change))


@pytest.mark.parametrize("protocol", ["secagg", "secagg+"])
def test_complete_graphs(protocol: str) -> None:
    with pytest.raises(UsageError, match="there are no witnesses besides"):
        plan(protocol, replace(COMPLETE, witnesses=9, quorum=5))
    for degree in (6, 7):
        with pytest.raises(UsageError, match=f"degree {degree} does not make a complete graph of 9 clients"):
            plan(protocol, replace(COMPLETE, degree=degree))


# How many have signed before anything comes out: what an auditor asks for.


@pytest.mark.parametrize(
    ("ring", "least", "expected"),
    [
        (RING, 3, 5),  # the quorum of witnesses
        (replace(RING, threshold=4, witnesses=3, quorum=2), 3, 4),  # t neighbours
        (RING, 7, 7),  # min_contributors
    ],
)
def test_so_many_have_signed(ring: GraphParameters, least: int, expected: int) -> None:
    made = replace(plan("secagg+", ring), min_contributors=least)
    assert rules_of("secagg+").signers(made) == expected
    noised = replace(made, min_contributors=9, ring_bits=32, noise=NoiseSpec(Family.SKELLAM, np.int64(100).item()))  # type: ignore[arg-type]
    assert noised.secure_sum(9).signers == 9


def test_beyond_so_many_clients_strangers_are_not_counted() -> None:
    """A client cannot enforce more than its neighbours' and the witnesses' signatures there."""
    count = ENFORCED_UP_TO + 1
    names = [f"client-{i:04}" for i in range(count)]
    key = Identity.generate("x", Prg(bytes(32))).key.public
    roster = Roster(
        tuple(names), tuple((int.from_bytes(key, "little") ^ i << 8).to_bytes(32, "little") for i in range(count))
    )
    made = RoundPlan.propose("secagg+", roster, Encoding.integers(1), min_contributors=4000)
    signers = rules_of("secagg+").signers
    assert signers(made) < 200
    assert signers(replace(made, clients=ENFORCED_UP_TO)) == 4000


# Too few witnesses.


def test_a_server_does_not_ask_for_shares_that_no_client_would_give() -> None:
    """Too few witnesses sign: the round ends before its clients are asked, and before it looks like their fault."""
    policy = Policy(min_contributors=3, corrupt=0, dropout=0, adversary=Adversary.CURIOUS, security=1)
    roster, clients = local_clients(12, policy, Prg(bytes(32)))
    made = RoundPlan.propose(
        "secagg+", roster, Encoding.integers(3), min_contributors=3, corrupt=0, dropout=0, session=bytes(16)
    )
    made = replace(made, parameters=GraphParameters(Graph.RING, 8, 3, 3, 3))
    server: Any = serve(made, roster)
    updates = {name: np.ones(3) for name in clients}
    graph: list[Neighbourhoods] = []

    def lost(envelope: Any) -> bytes:
        if envelope.phase == "consistency" and envelope.sender != "server":
            graph[:] = [server._cohort._graph]
            if server._positions[roster.number(envelope.sender)] == server._cohort.witnesses()[0]:
                return b""
        return envelope.frame

    with pytest.raises(ThresholdError, match="2 witnesses signed, at least 3 are needed"):
        simulate(server, clients, updates.get, faults=Faults(corrupted=lost))
    assert server.phase == "failed"
