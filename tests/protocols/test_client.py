"""Clients and servers in ordinary use, and used wrongly; nothing that they print holds a secret."""

from __future__ import annotations

import gc
import os
import traceback
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from protocols import registry
from protocols.client import Client
from protocols.journal import MemoryJournal
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from protocols.rounds.phases import Phase
from protocols.rounds.server import ServerRound
from protocols.server import serve
from protocols.simulation.network import Envelope, Faults, local_clients, simulate
from secagg.crypto.keys import AgreementKey
from secagg.crypto.prg import Prg
from secagg.encoding import Encoding
from secagg.errors import PolicyError, SecAggError, ThresholdError, UsageError

PROTOCOLS = pytest.mark.parametrize("protocol", ["secagg", "secagg+"])
POLICY = Policy(min_contributors=3, corrupt=0, dropout="0.3")
N = 6


def scene(protocol: str, **options: Any) -> tuple[RoundPlan, Roster, dict[str, Client]]:
    encoding = Encoding.integers(4, **options)
    roster, clients = local_clients(N, replace(POLICY, weight_bound=encoding.weight_bound))
    plan = RoundPlan.propose(protocol, roster, encoding, min_contributors=3, corrupt=0, dropout="0.3")
    return plan, roster, clients


def updates_of(clients: dict[str, Client]) -> dict[str, np.ndarray]:
    return {name: np.arange(4) * (i + 1) for i, name in enumerate(clients)}


@PROTOCOLS
def test_a_round_by_hand(protocol: str) -> None:
    """As in the documentation: start, receive until done; receive, close, outbox."""
    plan, roster, clients = scene(protocol)
    server = serve(plan, roster)
    updates = updates_of(clients)
    frames = {name: client.start(plan, updates[name]) for name, client in clients.items()}
    while server.outcome is None:
        assert set(server.waiting_for) == set(frames)
        for name, frame in frames.items():
            assert name in server.waiting_for
            server.receive(name, frame)
        assert server.waiting_for == ()
        server.close(server.phase)
        frames = {name: clients[name].receive(frame) for name, frame in server.outbox()}
    assert all(client.done for client in clients.values())
    assert server.outcome.total.tolist() == sum(updates.values()).tolist()
    assert server.outcome.decode().weight == N
    assert server.outcome.survivors == roster.names
    with pytest.raises(ValueError, match="read-only"):
        server.outcome.total[0] = 1


@PROTOCOLS
def test_rounds_of_a_session(protocol: str) -> None:
    """The same identities, new masks: no upload of one round is an upload of the next."""
    plan, roster, clients = scene(protocol)
    updates = updates_of(clients)
    uploads: list[bytes] = []

    def watched(envelope: Envelope) -> bytes:
        if (envelope.phase, envelope.sender) == (Phase.UPLOAD, roster.names[0]):
            uploads.append(envelope.frame)
        return envelope.frame

    for _ in range(3):
        simulation = simulate(serve(plan, roster), clients, updates.get, faults=Faults(corrupted=watched))
        assert simulation.outcome.total.tolist() == sum(updates.values()).tolist()
        plan = plan.next_round()
    bodies = [frame[-plan.ring.packed_size(4) :] for frame in uploads]
    assert len(set(bodies)) == 3


@PROTOCOLS
def test_weights(protocol: str) -> None:
    plan, roster, clients = scene(protocol, weight_bound=10)
    updates = updates_of(clients)
    weights = {name: i + 1 for i, name in enumerate(clients)}
    outcome = simulate(serve(plan, roster), clients, updates.get, weights=weights).outcome.decode()
    assert outcome.vector.tolist() == sum(weights[name] * updates[name] for name in clients).tolist()
    assert outcome.weight == sum(weights.values())


@PROTOCOLS
def test_a_seeded_run_replays(protocol: str) -> None:
    def run() -> list[bytes]:
        roster, clients = local_clients(N, POLICY, Prg(bytes(32)))
        plan = RoundPlan.propose(
            protocol, roster, Encoding.integers(4), min_contributors=3, corrupt=0, dropout="0.3", session=bytes(16)
        )
        frames: list[bytes] = []

        def watched(envelope: Envelope) -> bytes:
            frames.append(envelope.frame)
            return envelope.frame

        simulate(serve(plan, roster), clients, updates_of(clients).get, faults=Faults(corrupted=watched))
        return frames

    assert run() == run()


# Wrong use.


@PROTOCOLS
def test_check_says_whether_the_round_has_been_begun(protocol: str) -> None:
    plan, roster, clients = scene(protocol)
    first, other = clients[roster.names[0]], clients[roster.names[1]]
    assert first.check(plan) is False
    frame, vector = first.start(plan, np.arange(4)), first.encoded()
    assert first.check(plan) is True
    assert first.resume(plan, lambda: vector) == frame
    assert first.check(plan.next_round()) is False
    assert other.check(plan) is False
    first.finish()
    with pytest.raises(PolicyError, match="is past round"):
        first.check(plan)


def test_a_client_that_is_not_in_its_roster() -> None:
    roster, _ = local_clients(3, POLICY)
    with pytest.raises(UsageError, match="'mallory' is not in the roster"):
        Client(Identity.generate("mallory"), roster, policy=POLICY)
    with pytest.raises(UsageError, match="the roster has another key for client-1"):
        Client(Identity.generate("client-1"), roster, policy=POLICY)


def test_a_server_of_another_roster() -> None:
    plan, _, _ = scene("secagg")
    other, _ = local_clients(N, POLICY)
    with pytest.raises(UsageError, match="the plan is for another roster"):
        serve(plan, other)


@PROTOCOLS
def test_receive_before_start(protocol: str) -> None:
    _, _, clients = scene(protocol)
    client = next(iter(clients.values()))
    assert (client.phase, client.done) == (None, False)
    with pytest.raises(UsageError, match="no round is under way"):
        client.receive(b"")


@PROTOCOLS
def test_close_of_the_wrong_phase(protocol: str) -> None:
    plan, roster, clients = scene(protocol)
    server = serve(plan, roster)
    phases = list(server.steps)
    for phase in [*phases[1:], "never", Phase.DONE, Phase.FAILED]:
        with pytest.raises(UsageError, match=f"phase {phase} cannot be closed in phase {phases[0]}"):
            server.close(phase)
    assert server.phase == phases[0]
    for name, client in clients.items():
        server.receive(name, client.start(plan, np.zeros(4)))
    server.close(phases[0])
    with pytest.raises(UsageError):
        server.close(phases[0])


@PROTOCOLS
def test_nothing_after_the_end(protocol: str) -> None:
    plan, roster, clients = scene(protocol)
    server = serve(plan, roster)
    simulate(server, clients, updates_of(clients).get)
    assert list(server.outbox()) == []
    assert server.waiting_for == ()
    with pytest.raises(UsageError, match="the round is over"):
        server.receive(roster.names[0], b"")
    with pytest.raises(UsageError):
        server.close(server.phase)


@PROTOCOLS
def test_nothing_after_too_few(protocol: str) -> None:
    plan, roster, _ = scene(protocol)
    server = serve(plan, roster)
    with pytest.raises(ThresholdError):
        server.close(server.phase)
    assert (server.outcome, server.waiting_for, list(server.outbox())) == (None, (), [])


@PROTOCOLS
def test_an_outbox_may_be_read_again(protocol: str) -> None:
    """The transport may lose what it was given."""
    plan, roster, clients = scene(protocol)
    server = serve(plan, roster)
    for name, client in clients.items():
        server.receive(name, client.start(plan, np.zeros(4)))
    server.close(server.phase)
    assert dict(server.outbox()) == dict(server.outbox())


@PROTOCOLS
def test_finish(protocol: str) -> None:
    """The secrets are destroyed: no repetition, no resumption, and no second round of that number."""
    plan, roster, clients = scene(protocol)
    simulate(serve(plan, roster), clients, updates_of(clients).get)
    client = clients[roster.names[0]]
    client.finish()
    client.finish()
    assert client.phase is None
    with pytest.raises(UsageError, match="no round is under way"):
        client.receive(b"")
    with pytest.raises(PolicyError, match="this session is past round 0"):
        client.start(plan, np.zeros(4))
    assert client.start(plan.next_round(), np.zeros(4))


@PROTOCOLS
def test_a_newer_session_takes_the_place_of_the_older(protocol: str) -> None:
    plan, roster, clients = scene(protocol)
    other = RoundPlan.propose(protocol, roster, Encoding.integers(4), min_contributors=3, corrupt=0, dropout="0.3")
    client = clients[roster.names[0]]
    first = client.start(plan, np.zeros(4))
    assert client.start(plan, np.zeros(4)) == first
    assert client.start(other.next_round(), np.zeros(4)) != first
    with pytest.raises(PolicyError, match="this session is past round 0"):
        client.start(plan, np.zeros(4))
    assert client.start(plan.next_round(), np.zeros(4))


def test_unknown_protocol() -> None:
    with pytest.raises(UsageError, match="unknown protocol 'shamir'; there are secagg, secagg\\+"):
        registry.find("shamir")


# No secret is ever printed.


class Spy:
    """An rng that remembers what it gave."""

    def __init__(self) -> None:
        self.drawn: list[bytes] = []

    def __call__(self, count: int) -> bytes:
        self.drawn.append(os.urandom(count))
        return self.drawn[-1]


def secrets_of(client: Client, spy: Spy) -> Iterator[bytes]:
    machine: Any = client._round
    yield from (drawn for drawn in spy.drawn if len(drawn) >= 32)
    yield client.identity.key.secret
    yield client._journal_key
    yield machine._mask_key.secret
    yield machine._seal_key.secret
    yield machine._self_secret
    yield machine._secret
    if not machine._held:
        return
    for points in (*machine._dealing().points.values(), *machine._held.values()):
        yield points
        yield from (points[:36], points[36:72], points[72:])


def forms(secret: bytes) -> Iterator[str]:
    yield secret.hex()
    yield repr(secret)[2:-1]
    yield str(int.from_bytes(secret, "big"))
    yield str(int.from_bytes(secret, "little"))
    yield str(list(secret))[1:-1]


def ours(thing: object) -> bool:
    return str(type(thing).__module__).split(".")[0] in ("secagg", "protocols")


def printed_in_a_round(protocol: str) -> tuple[str, set[bytes]]:
    """A round with a spoilt frame in each phase: the reprs of every object of ours that is alive, and every error
    with its traceback; and all secrets that there were."""
    others = [thing for thing in gc.get_objects() if ours(thing)]  # of other tests; kept, so that ids are not reused
    spy, known = Spy(), {id(thing) for thing in others}
    roster, clients = local_clients(N, POLICY, spy)
    plan = RoundPlan.propose(protocol, roster, Encoding.integers(4), min_contributors=3, corrupt=0, dropout="0.3")
    server = serve(plan, roster)
    spoilt: set[str] = set()

    def spoil(envelope: Envelope) -> bytes:
        at = f"{envelope.phase} {envelope.sender == 'server'}"
        if at in spoilt or envelope.phase == Phase.REVEAL:
            return envelope.frame
        spoilt.add(at)
        middle = len(envelope.frame) // 2
        return envelope.frame[:middle] + bytes([envelope.frame[middle] ^ 1]) + envelope.frame[middle + 1 :]

    texts: list[str] = []
    try:
        simulation = simulate(server, clients, updates_of(clients).get, faults=Faults(corrupted=spoil))
        texts += ["".join(traceback.format_exception(incident.error)) for incident in simulation.incidents]
    except SecAggError as error:
        texts.append("".join(traceback.format_exception(error)))
    texts += [f"{thing!r} {thing!s}" for thing in gc.get_objects() if ours(thing) and id(thing) not in known]
    assert len(texts) > 20
    return "\n".join(texts), {secret for client in clients.values() for secret in secrets_of(client, spy)}


@PROTOCOLS
def test_no_secret_is_printed(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In several notations. With one careless repr there would be."""
    text, secrets = printed_in_a_round(protocol)
    assert "<redacted>" in text
    assert len(secrets) > 40
    assert not [form for secret in secrets for form in forms(secret) if form in text]
    monkeypatch.setattr(AgreementKey, "__repr__", lambda key: f"AgreementKey({key.secret!r})")
    text, secrets = printed_in_a_round(protocol)
    assert [form for secret in secrets for form in forms(secret) if form in text]


def test_control_the_search_finds_a_secret() -> None:
    secret = os.urandom(32)
    for text in (f"{secret!r}", secret.hex(), f"{int.from_bytes(secret, 'big')}", f"{list(secret)}"):
        assert any(form in text for form in forms(secret))


def test_reprs_that_say_so() -> None:
    identity = Identity.generate("alice")
    assert identity.key.secret.hex() not in repr(identity)
    assert repr(Prg(bytes(32))) == "Prg(<redacted>)"
    assert "object at" in repr(MemoryJournal())
    assert isinstance(serve(*scene("secagg")[:2]), ServerRound)


def test_remarks_do_not_grow_with_what_liars_say() -> None:
    """One client can complain about all others, and logs are read by people."""
    plan, roster, _ = scene("secagg")
    server = serve(plan, roster)
    assert server.remarks == ""
    server.excluded = ("bob",)
    server.disputes = tuple(("eve", f"client-{u}") for u in range(1000))
    assert server.remarks.startswith(
        "left out before the vectors were sent: bob; one of two lied: eve about client-0, "
    )
    assert server.remarks.endswith("eve about client-19 and 980 more")
