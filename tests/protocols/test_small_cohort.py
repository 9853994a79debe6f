"""A ring on which so many stayed away that a client has fewer neighbours than the threshold."""

from dataclasses import replace

import numpy as np
import pytest

from protocols.pairwise import cohort as rules
from protocols.pairwise.server import PairwiseServer
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.rounds.phases import Phase
from protocols.server import serve
from protocols.simulation.network import local_clients
from secagg.crypto.graph import Graph, GraphParameters
from secagg.encoding import Encoding
from secagg.errors import ThresholdError


def cohort_of_four(monkeypatch: pytest.MonkeyPatch) -> tuple[PairwiseServer, dict[str, object]]:
    """Eight clients, each with four neighbours of whom four must help; four clients advertise."""
    monkeypatch.setattr(rules, "check_private", lambda *_: None)  # the sizes here are toys
    roster, clients = local_clients(8, Policy(min_contributors=2))
    plan = RoundPlan.propose("secagg+", roster, Encoding.integers(3), min_contributors=2)
    plan = replace(plan, parameters=GraphParameters(Graph.RING, 4, 4))
    server = serve(plan, roster)
    assert isinstance(server, PairwiseServer)
    for name in roster.names[:4]:
        server.receive(name, clients[name].start(plan, np.ones(3)))
    return server, dict(clients)


def test_the_server_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    server, _ = cohort_of_four(monkeypatch)
    with pytest.raises(ThresholdError, match="3 neighbours are there"):
        server.close(Phase.ADVERTISE)
    assert server.phase is Phase.FAILED
    assert list(server.outbox()) == []


def test_a_client_does_too_and_is_not_wedged(monkeypatch: pytest.MonkeyPatch) -> None:
    server, clients = cohort_of_four(monkeypatch)
    monkeypatch.setattr(server, "_need", lambda *_: None)  # a server that goes on all the same
    server.close(Phase.ADVERTISE)
    for name, frame in server.outbox():
        client = clients[name]
        for _ in range(2):  # the state has not changed: the same error again, not "resume first"
            with pytest.raises(ThresholdError, match="3 neighbours are there"):
                client.receive(frame)  # type: ignore[attr-defined]
