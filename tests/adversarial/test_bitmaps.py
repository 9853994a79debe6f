"""A set has one bitmap. Another one that stands for the same set has another digest: whoever signed it could not be
counted with the others, and no ledger would take what was signed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from protocols import registry
from protocols.ckks import client as ckks_client
from protocols.client import Client
from protocols.pairwise import client as pairwise_client
from protocols.pairwise.client import PairwiseClient
from protocols.pairwise.messages import Upload
from protocols.parameters import rules_of
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity
from protocols.rounds import client as client_module
from protocols.rounds import sets
from protocols.rounds import survivors as survivors_module
from protocols.rounds.server import ServerRound
from protocols.server import serve
from protocols.simulation.network import local_clients
from protocols.threshold_ckks import client as threshold_client
from secagg.crypto import labels
from secagg.crypto.prg import Prg
from secagg.encoding import Encoding
from secagg.errors import PeerError
from tests.controls import switch_off

pytestmark = pytest.mark.thinned(4)

N, VICTIM, SILENT = 6, "client-2", "client-5"


@dataclass(frozen=True)
class Told:
    """A message of the server's with a set in it, and the module that reads it."""

    protocol: str
    message: str
    field: str
    module: ModuleType


TOLD = [
    Told("secagg", "Survivors", "survivors", pairwise_client),
    Told("secagg+", "Survivors", "survivors", pairwise_client),
    Told("ckks", "Survivors", "survivors", ckks_client),
    Told("threshold_ckks", "JointKey", "members", threshold_client),
    Told("threshold_ckks", "Survivors", "survivors", threshold_client),
    Told("threshold_ckks", "Missing", "missing", threshold_client),
]
every_set = pytest.mark.parametrize("told", TOLD, ids=[f"{told.protocol} {told.message}" for told in TOLD])


def stray(bitmap: bytes) -> bytes:
    """A bit beyond the last client."""
    return bitmap[:-1] + bytes([bitmap[-1] | 0x80])


def longer(bitmap: bytes) -> bytes:
    return bitmap + b"\0"


LENGTH, STRAY = "len(bitmap) != (len(universe) + 7) // 8", "any(bits[len(universe):])"
every_other_name = pytest.mark.parametrize(("other", "check"), [(stray, STRAY), (longer, LENGTH)])
Other = Callable[[bytes], bytes]


class Scene:
    """Six clients, one of whom falls silent after its first two messages, and the honest server."""

    def __init__(self, protocol: str) -> None:
        if protocol == "ckks":
            pytest.importorskip("tenseal", reason="NOT TESTED: ckks needs tenseal, pip install 'secagg[ckks]'")
        policy = Policy(min_contributors=3, protocols={protocol}, adversary=rules_of(protocol).against, corrupt=0)
        roster, self.clients = local_clients(N, policy, Prg(bytes(32)))
        settings = {"min_contributors": 3, "corrupt": 0, "dropout": "0.34", "session": bytes(16)}
        plan = RoundPlan.propose(protocol, roster, Encoding.integers(4), **settings)  # type: ignore[arg-type]
        self.server: ServerRound = serve(plan, roster)
        self.wire = registry.find(protocol).messages
        self.updates = {name: np.arange(4) + i for i, name in enumerate(self.clients)}

    @property
    def victim(self) -> Client:
        return self.clients[VICTIM]

    def hand_in(self, name: str, frame: bytes) -> None:
        if not (name == SILENT and str(self.server.phase) not in ("advertise", "share", "key")):
            self.server.receive(name, frame)

    def told(self, message: str) -> Iterator[tuple[bytes, Any]]:
        """Plays the round; what the victim is told of this kind, before it hears it, as bytes and decoded."""
        replies = {name: client.start(self.server.plan, self.updates[name]) for name, client in self.clients.items()}
        while True:
            for name, frame in replies.items():
                self.hand_in(name, frame)
            self.server.close(self.server.phase)
            if self.server.outcome is not None:
                break
            frames, replies = dict(self.server.outbox()), {}
            for name, frame in frames.items():
                decoded = self.wire.decode(self.server.plan, frame)
                if name == VICTIM and type(decoded).__name__ == message:
                    yield frame, decoded
                replies[name] = self.clients[name].receive(frame)

    def encoded(self, message: Any) -> bytes:
        return self.wire.encode(self.server.plan, message)


def loose(check: str, monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> None:
    with monkeypatch.context() as patched:
        switch_off(patched, sets, "from_bitmap", check)
        read = sets.from_bitmap
    for module in (*modules, survivors_module, client_module):
        monkeypatch.setattr(module, "from_bitmap", read, raising=module is not ckks_client)


@every_set
@every_other_name
def test_a_set_under_another_name(told: Told, other: Other, check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused, at no cost: the same client hears the right one next, and is in the exact sum."""
    scene, heard = Scene(told.protocol), 0
    for _, message in scene.told(told.message):
        heard += 1
        altered = scene.encoded(replace(message, **{told.field: other(getattr(message, told.field))}))
        with pytest.raises(PeerError, match="not a set of the clients in question") as refused:
            scene.victim.receive(altered)
        assert refused.value.culprits == ("server",)
    assert heard == 1
    outcome = scene.server.outcome
    assert outcome is not None
    assert VICTIM in outcome.survivors
    assert outcome.total.tolist() == sum(scene.updates[name] for name in outcome.survivors).tolist()  # type: ignore[union-attr]

    loose(check, monkeypatch, told.module)
    scene = Scene(told.protocol)
    frame, message = next(scene.told(told.message))
    scene.victim.receive(scene.encoded(replace(message, **{told.field: other(getattr(message, told.field))})))
    with pytest.raises(PeerError, match="does not belong in phase"):
        scene.victim.receive(frame)  # it has answered, and cannot any more what the others answer


def lying(other: Other, monkeypatch: pytest.MonkeyPatch) -> None:
    """One client signs its list of neighbours under another name."""
    honest = PairwiseClient._upload

    def upload(self: PairwiseClient) -> Upload:
        said = honest(self)
        if self.identity.name != VICTIM:
            return said
        header = replace(said.header, holders=other(said.header.holders))
        signed = (*self._cohort.bound(self._u), header.holders, header.vector_hash)
        return replace(said, header=replace(header, signature=sign(self.identity, *signed)))

    monkeypatch.setattr(PairwiseClient, "_upload", upload)


def sign(identity: Identity, *said: bytes) -> bytes:
    return identity.key.sign(labels.UPLOAD, *said)


@pytest.mark.parametrize("protocol", ["secagg", "secagg+"])
@every_other_name
def test_a_list_of_neighbours_under_another_name(
    protocol: str, other: Other, check: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The honest server names the client that signed it."""
    lying(other, monkeypatch)
    scene = Scene(protocol)
    with pytest.raises(PeerError, match="not a set of the clients in question") as refused:
        for _ in scene.told("nothing"):
            pass
    assert refused.value.culprits == (VICTIM,)

    loose(check, monkeypatch, pairwise_client)
    scene = Scene(protocol)
    for _ in scene.told("nothing"):
        pass
    assert scene.server.outcome is not None
