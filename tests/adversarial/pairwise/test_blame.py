"""Who is named: a client that hears a forgery hears it from the server, which should have checked it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import pytest

from protocols.client import Client
from protocols.pairwise.messages import ConsistencySignatures
from protocols.parameters import rules_of
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import SERVER
from protocols.rounds.client import ClientRound
from protocols.rounds.server import ServerRound
from protocols.server import serve
from protocols.simulation.network import local_clients
from secagg.encoding import Encoding
from secagg.errors import PeerError
from tests.controls import switch_off
from tests.scenes.pairwise import BOTH, Evil, small

pytestmark = pytest.mark.thinned(4)

VICTIM = 2


def upto(evil: Evil, phase: int) -> None:
    evil.advertise()
    if phase > 1:
        evil.share()
        evil.upload()
    if phase > 2:
        evil.consent(VICTIM, evil.members)


def forged_advert(evil: Evil) -> None:
    upto(evil, 1)
    first = evil.others(VICTIM)[0]
    for attempt in range(100):  # until they are neighbours under the new root too
        leaves = [
            replace(a, commitment=bytes([attempt]) * 32) if a.client == first else a for a in evil.adverts.values()
        ]
        evil.found(leaves)
        if first in evil.others(VICTIM):
            break
    evil.share([VICTIM])


def forged_proof(evil: Evil) -> None:
    upto(evil, 1)
    evil.tell(VICTIM, replace(evil.introduction(VICTIM), root=bytes(32)))


def forged_header(evil: Evil) -> None:
    upto(evil, 2)
    message = evil.survivors(VICTIM, evil.members)
    first = replace(message.headers[0], signature=bytes(64))
    evil.tell(VICTIM, replace(message, headers=(first, *message.headers[1:])))


def forged_consent(evil: Evil) -> None:
    upto(evil, 3)
    evil.reveal(VICTIM, dict.fromkeys(evil.holders(VICTIM), bytes(64)))


def forged_survivors(evil: Evil) -> None:
    upto(evil, 2)
    evil.tell(VICTIM, replace(evil.survivors(VICTIM, evil.members), survivors=b""))


def forged_order(evil: Evil) -> None:
    upto(evil, 3)
    signatures = evil.consents(VICTIM, {u: bytes(64) for u in evil.holders(VICTIM)}).signatures
    evil.tell(VICTIM, ConsistencySignatures(signatures[::-1], (), ()))


FORGERIES: list[Callable[[Evil], None]] = [
    forged_advert,
    forged_proof,
    forged_header,
    forged_consent,
    forged_survivors,
    forged_order,
]


# What a slow network does to honest parties.

PROTOCOLS = ["secagg", "secagg+", "oneshot", "threshold_ckks", *(["ckks"] if find_spec("tenseal") else [])]


def honest(protocol: str, invited: int) -> tuple[ServerRound, dict[str, Client]]:
    policy = Policy(
        min_contributors=3, protocols={protocol}, adversary=rules_of(protocol).against, corrupt=0, dropout="0.2"
    )
    roster, clients = local_clients(6, policy)
    options: dict[str, Any] = {"min_contributors": 3, "corrupt": 0, "dropout": "0.2", "clients": invited}
    return serve(RoundPlan.propose(protocol, roster, Encoding.integers(4), **options), roster), clients


def blamed(hand_over: Callable[[], object], match: str) -> tuple[str, ...]:
    with pytest.raises(PeerError, match=match) as refused:
        hand_over()
    return refused.value.culprits


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_who_comes_late_is_not_blamed(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    server, clients = honest(protocol, 6)
    (name, *_), frames = clients, {name: client.start(server.plan, [1] * 4) for name, client in clients.items()}
    for other in [*clients][1:]:
        server.receive(other, frames[other])
    server.close(server.phase)
    late = partial(server.receive, name, frames[name])
    assert blamed(late, "does not belong in phase") == ()
    switch_off(monkeypatch, ServerRound, "_take", "UnblamedError", "PeerError")
    assert blamed(late, "does not belong in phase") == (name,)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_for_whom_there_is_no_room_is_not_blamed(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan is for five of six; the sixth came last."""
    server, clients = honest(protocol, 5)
    *first, last = clients
    for name in first:
        server.receive(name, clients[name].start(server.plan, [1] * 4))
    too_many = partial(server.receive, last, clients[last].start(server.plan, [1] * 4))
    assert blamed(too_many, "is full") == ()
    switch_off(monkeypatch, type(server), "_admit", "UnblamedError", "PeerError")
    assert blamed(too_many, "is full") == (last,)


def test_a_server_whose_message_was_lost_is_not_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A one-shot server passes signatures on to all survivors, also to a member whom its last message did not reach."""
    server, clients = honest("oneshot", 6)
    (name, *_), answers = clients, {name: client.start(server.plan, [1] * 4) for name, client in clients.items()}
    for phase in ("join", "upload", "consistency"):
        for other, frame in answers.items():
            server.receive(other, frame)
        server.close(phase)
        lost = {name} if phase == "upload" else set[str]()
        if phase != "consistency":
            answers = {to: clients[to].receive(frame) for to, frame in server.outbox() if to not in lost}
    heard = partial(clients[name].receive, dict(server.outbox())[name])
    assert blamed(heard, "does not belong in phase consistency") == ()
    switch_off(monkeypatch, ClientRound, "hear", "UnblamedError", "PeerError")
    assert blamed(heard, "does not belong in phase consistency") == (SERVER,)


# What a server hands on, it should have checked.


@BOTH
@pytest.mark.parametrize("forge", FORGERIES, ids=lambda forge: forge.__name__)
def test_the_server_is_among_the_culprits(protocol: str, forge: Callable[[Evil], None]) -> None:
    with pytest.raises(PeerError) as refused:
        forge(small(protocol))
    assert SERVER in refused.value.culprits
