"""In every protocol: a phase that ends with too few answers ends the round then and there, and nothing leaves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from protocols import registry
from protocols.client import Client
from protocols.parameters import rules_of
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from protocols.rounds.phases import Phase
from protocols.server import serve
from secagg.crypto.prg import Prg
from secagg.encoding import Encoding
from secagg.errors import ThresholdError

pytestmark = pytest.mark.thinned(4)

N, LEAST = 6, 4
IDENTITIES = [Identity.generate(f"client-{i}", Prg(bytes([i]) * 32)) for i in range(N)]
ROSTER = Roster.of(IDENTITIES)
PHASES = [
    (protocol, phase)
    for protocol in registry.names()
    for phase, step in registry.find(protocol).server.steps.items()
    if not step.optional  # nobody is asked: tests/adversarial/pairwise/test_server.py has the case in which all are
]


def played_until(protocol: str, phase: str) -> tuple[Any, dict[str, bytes]]:
    """An honest round up to this phase, and what its clients are about to say."""
    plan = RoundPlan.propose(protocol, ROSTER, Encoding.integers(3), min_contributors=LEAST, corrupt=0, dropout="0.3")
    policy = Policy(
        min_contributors=2, protocols={protocol}, adversary=rules_of(protocol).against, corrupt=0, dropout="0.3"
    )
    clients = {identity.name: Client(identity, ROSTER, policy=policy) for identity in IDENTITIES}
    server: Any = serve(plan, ROSTER)
    replies = {name: client.start(plan, np.ones(3)) for name, client in clients.items()}
    while server.phase != phase:
        for name, frame in replies.items():
            server.receive(name, frame)
        server.close(server.phase)
        replies = {name: clients[name].receive(frame) for name, frame in server.outbox()}
    return server, replies


@pytest.mark.parametrize("fewer", [1, LEAST - 1])
@pytest.mark.parametrize(("protocol", "phase"), PHASES)
def test_fewer_answers_are_not_enough(protocol: str, phase: str, fewer: int) -> None:
    """Of CKKS the makers of keys speak first: it takes two of them, and that is not what is missing here."""
    if (protocol, phase) == ("ckks", "reveal"):
        fewer = 1  # two holders of the key do there
    server, replies = played_until(protocol, phase)
    assert len(replies) >= LEAST
    makers = getattr(getattr(server, "_cohort", None), "makers", ())
    for name in sorted(replies, key=lambda name: ROSTER.number(name) not in makers)[:fewer]:
        server.receive(name, replies[name])
    with pytest.raises(ThresholdError):
        server.close(server.phase)
    assert (server.outcome, server.phase) == (None, Phase.FAILED)
    assert list(server.outbox()) == []


@pytest.mark.parametrize(("protocol", "phase"), PHASES)
def test_all_answers_are_enough(protocol: str, phase: str) -> None:
    server, replies = played_until(protocol, phase)
    for name, frame in replies.items():
        server.receive(name, frame)
    server.close(server.phase)
    assert server.phase != Phase.FAILED
