"""A client signs a public key of low order, correctly. Seen in time it costs the round that one client and nothing
else; unseen, the others agree with it at the moment of sealing or masking, where what fails latches them.

``Poisoned`` stands in for one of a client's key pairs: it shows a point of low order and works otherwise, so all that
this client says is well signed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from protocols import registry
from protocols.ckks import client as ckks_client
from protocols.ckks import server as ckks_server
from protocols.ckks.client import CkksClient
from protocols.ckks.parameters import KeyMakers, Recipient
from protocols.client import Client
from protocols.oneshot import client as oneshot_client
from protocols.oneshot import server as oneshot_server
from protocols.oneshot.client import OneshotClient
from protocols.oneshot.messages import Upload
from protocols.oneshot.server import OneshotServer
from protocols.pairwise import client as pairwise_client
from protocols.pairwise import server as pairwise_server
from protocols.pairwise.client import PairwiseClient
from protocols.parameters import rules_of
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.rounds.client import ClientRound
from protocols.rounds.server import ServerRound
from protocols.server import serve
from protocols.simulation.network import local_clients, simulate
from protocols.threshold_ckks import client as threshold_client
from protocols.threshold_ckks import cohort as threshold_rules
from protocols.threshold_ckks import server as threshold_server
from protocols.threshold_ckks.client import ThresholdClient
from secagg.crypto import labels
from secagg.crypto.keys import AgreementKey
from secagg.crypto.prg import Prg
from secagg.encoding import Encoding
from secagg.errors import PeerError, SecAggError, ThresholdError
from tests.controls import switch_off

N, EVIL, LOW_ORDER = 6, "client-1", (1).to_bytes(32, "little")


@dataclass(frozen=True)
class Key:
    """One public key of one protocol, and the check of it that both sides share."""

    protocol: str
    held_as: str
    machine: type[ClientRound]
    where: ModuleType
    function: str
    check: str
    client: ModuleType
    server: ModuleType


def pairwise(protocol: str, field: str) -> Key:
    check = f"check_agreement_key(advert.{field}, culprit=name)"
    here, there = pairwise_client, pairwise_server
    return Key(protocol, f"_{field}", PairwiseClient, here, "check_advert", check, here, there)


CHECKED = "check_agreement_key(advert.seal_key, culprit=name)"
KEYS = [
    *[pairwise(protocol, field) for protocol in ("secagg", "secagg+") for field in ("mask_key", "seal_key")],
    Key("ckks", "_seal_key", CkksClient, ckks_client, "check_advert", CHECKED, ckks_client, ckks_server),
    Key(
        *("threshold_ckks", "_seal_key", ThresholdClient, threshold_rules, "check_advert", CHECKED),
        *(threshold_client, threshold_server),
    ),
    Key(
        *("oneshot", "_member_key", OneshotClient, oneshot_client, "check_member"),
        *("check_agreement_key(member.key, culprit=name)", oneshot_client, oneshot_server),
    ),
]
every_key = pytest.mark.parametrize("key", KEYS, ids=[f"{key.protocol} {key.held_as}" for key in KEYS])


class Poisoned:
    def __init__(self, key: AgreementKey) -> None:
        self._key, self.public, self.secret = key, LOW_ORDER, key.secret

    def agree(self, public: bytes, *, culprit: str = "") -> bytes:
        return self._key.agree(public, culprit=culprit)


def scene(protocol: str) -> tuple[ServerRound, dict[str, Client], Mapping[str, Any]]:
    """Six clients, of whom two may be gone."""
    if protocol == "ckks":
        pytest.importorskip("tenseal", reason="NOT TESTED: ckks needs tenseal, pip install 'secagg[ckks]'")
    policy = Policy(min_contributors=3, protocols={protocol}, adversary=rules_of(protocol).against, corrupt=0)
    roster, clients = local_clients(N, policy, Prg(bytes(32)))
    plan = RoundPlan.propose(
        protocol, roster, Encoding.integers(4), min_contributors=3, corrupt=0, dropout="0.34", session=bytes(16)
    )
    if protocol == "ckks":  # all make keys, so all seal to all
        plan = replace(plan, parameters=KeyMakers(Recipient.SERVER, N))
    updates = {name: np.arange(4) + i for i, name in enumerate(clients)}
    return serve(plan, roster), clients, updates


def poison(key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    begin = key.machine.__init__

    def begun(self: Any, *arguments: Any) -> None:
        begin(self, *arguments)
        if self.identity.name == EVIL:
            setattr(self, key.held_as, Poisoned(getattr(self, key.held_as)))

    monkeypatch.setattr(key.machine, "__init__", begun)


def unseen(key: Key, monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> None:
    """Both sides' check is the same function; these modules get one without the condition."""
    with monkeypatch.context() as patched:
        switch_off(patched, key.where, key.function, key.check, "None")
        loose = getattr(key.where, key.function)
    for module in modules:
        monkeypatch.setattr(module, key.function, loose)


@every_key
def test_it_costs_the_round_one_client(key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(key, monkeypatch)
    server, clients, updates = scene(key.protocol)
    ran = simulate(server, clients, updates.get)
    [incident] = ran.incidents
    assert isinstance(incident.error, PeerError)
    assert incident.error.culprits == (EVIL,)
    assert "unusable X25519 public key" in str(incident.error)
    assert ran.outcome.total.tolist() == sum(vector for name, vector in updates.items() if name != EVIL).tolist()


@every_key
def test_control_unseen_it_ends_every_round(key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(key, monkeypatch)
    server, clients, updates = scene(key.protocol)
    unseen(key, monkeypatch, key.client, key.server)
    with pytest.raises((ThresholdError, PeerError)):
        simulate(server, clients, updates.get)
    assert server.outcome is None


def shown(server: ServerRound, clients: Mapping[str, Client], updates: Mapping[str, Any]) -> dict[str, SecAggError]:
    """A server that lets it pass. Plays until clients refuse; returns what becomes of those that are asked again."""
    replies = {name: clients[name].start(server.plan, update) for name, update in updates.items()}
    while True:
        for name, frame in replies.items():
            server.receive(name, frame)
        server.close(server.phase)
        frames, replies, refused = dict(server.outbox()), dict[str, bytes](), set[str]()
        for name, frame in frames.items():
            try:
                replies[name] = clients[name].receive(frame)
            except PeerError:
                refused.add(name)
        if refused:
            break
    again = {}
    for name in refused:
        with pytest.raises(SecAggError) as caught:
            clients[name].receive(frames[name])
        again[name] = caught.value
    return again


@every_key
def test_a_client_to_whom_the_server_passes_it_on_can_go_on(key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(key, monkeypatch)
    server, clients, updates = scene(key.protocol)
    unseen(key, monkeypatch, key.server)
    again = shown(server, clients, updates)
    assert again.keys() >= clients.keys() - {EVIL}
    for error in again.values():
        assert isinstance(error, PeerError)
        assert error.culprits == (EVIL, "server")


@every_key
def test_control_unseen_it_latches_the_client(key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(key, monkeypatch)
    server, clients, updates = scene(key.protocol)
    unseen(key, monkeypatch, key.client, key.server)
    again = shown(server, clients, updates)
    assert len(again) >= N - 2
    assert all("no round is under way" in str(error) for error in again.values())


def poison_upload(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key that a one-shot client makes for its boxes, and signs with them."""
    honest = OneshotClient._upload

    def upload(self: OneshotClient) -> Upload:
        said = honest(self)
        if self.identity.name != EVIL:
            return said
        header = replace(said.header, key=LOW_ORDER)
        signed = (*self._committee.bound(self._u), header.key, header.vector_hash, header.boxes_hash)
        signature = self.identity.key.sign(labels.ONESHOT_UPLOAD, *signed)
        return replace(said, header=replace(header, signature=signature))

    monkeypatch.setattr(OneshotClient, "_upload", upload)


def test_an_upload_with_such_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Taken, no member can open its boxes, and no sum can do without its vector any more."""
    poison_upload(monkeypatch)
    server, clients, updates = scene("oneshot")
    ran = simulate(server, clients, updates.get)
    [incident] = ran.incidents
    assert isinstance(incident.error, PeerError)
    assert incident.error.culprits == (EVIL,)
    assert set(ran.outcome.survivors) == clients.keys() - {EVIL}

    switch_off(monkeypatch, OneshotServer, "_add", "check_agreement_key(header.key)", "None")
    server, clients, updates = scene("oneshot")
    with pytest.raises(PeerError, match=r"shares that do not open \[client-1\]"):
        simulate(server, clients, updates.get)


def test_every_protocol_is_here() -> None:
    assert {key.protocol for key in KEYS} == set(registry.names())
