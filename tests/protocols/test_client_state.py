"""What a client says of itself, and what it says again."""

from __future__ import annotations

import numpy as np
import pytest

from protocols.client import Client
from protocols.journal import MemoryJournal
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from protocols.server import serve
from secagg.crypto.prg import Prg
from secagg.encoding import Encoding
from secagg.errors import PolicyError

IDENTITIES = [Identity.generate(f"client-{i}", Prg(bytes([i]) * 32)) for i in range(4)]
ROSTER = Roster.of(IDENTITIES)


def test_a_client_is_done_when_it_has_said_all() -> None:
    plan = RoundPlan.propose("secagg", ROSTER, Encoding.integers(3), min_contributors=3, corrupt=0, dropout=0)
    policy, journal = Policy(min_contributors=3, corrupt=0, dropout=0), MemoryJournal()
    clients = {identity.name: Client(identity, ROSTER, policy=policy) for identity in IDENTITIES[1:]}
    client = clients[IDENTITIES[0].name] = Client(IDENTITIES[0], ROSTER, policy=policy, journal=journal)
    assert not client.done
    server, frame = serve(plan, ROSTER), b""
    replies = {name: each.start(plan, np.ones(3)) for name, each in clients.items()}
    while server.outcome is None:
        assert client.done == (client.phase == "done")
        assert client.done or server.phase != "reveal"
        for name, reply in replies.items():
            server.receive(name, reply)
        server.close(server.phase)
        frames = dict(server.outbox())
        frame = frames.get(client.identity.name, frame)
        replies = {name: clients[name].receive(heard) for name, heard in frames.items()}
    assert client.done
    assert client.receive(frame) == client.receive(frame)
    journal.retire(client._session(plan), plan.round + 1)
    for heard in (plan.encode(), frame):  # the first thing that it answered to, and the last
        with pytest.raises(PolicyError, match="have been destroyed"):
            client.receive(heard)
