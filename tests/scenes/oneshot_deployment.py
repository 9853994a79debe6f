"""Seeded deployments for the tests of one-shot rounds: everybody on the committee, or lots drawn with a beacon."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from protocols import registry
from protocols.client import Client
from protocols.oneshot.committee import Committee
from protocols.oneshot.messages import Answer, Upload, Vote
from protocols.oneshot.parameters import sharing_of
from protocols.oneshot.server import OneshotServer
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from protocols.server import serve
from protocols.simulation.network import Envelope, Faults, Simulation, simulate
from secagg.crypto import labels
from secagg.crypto.keys import digest
from secagg.crypto.prg import Prg
from secagg.crypto.seal import OVERHEAD_BYTES
from secagg.encoding import Encoding

BEACON = b"dice thrown in public"
SESSION = b"one-shot session"


@cache
def identities(n: int) -> tuple[Identity, ...]:
    return tuple(Identity.generate(f"client-{i:03}", Prg(i.to_bytes(32, "big"))) for i in range(n))


@dataclass(frozen=True)
class Scene:
    plan: RoundPlan
    roster: Roster
    policy: Policy

    @property
    def names(self) -> list[str]:
        return list(self.roster.names)

    def client(self, name: str, **options: Any) -> Client:
        number = self.roster.number(name)
        given: dict[str, Any] = {"policy": self.policy, "rng": Prg((1000 + number).to_bytes(32, "big"))} | options
        return Client(identities(len(self.roster))[number], self.roster, **given)

    def clients(self, **options: Any) -> dict[str, Client]:
        return {name: self.client(name, **options) for name in self.names}

    def updates(self) -> dict[str, np.ndarray]:
        rng, largest = np.random.default_rng(5), self.plan.encoding.largest
        return {name: rng.integers(-largest, largest, self.plan.encoding.length, endpoint=True) for name in self.names}

    def decode(self, frame: bytes) -> Any:
        return registry.find("oneshot").messages.decode(self.plan, frame)

    def encode(self, message: object) -> bytes:
        return registry.find("oneshot").messages.encode(self.plan, message)

    def signed(self, seats: Committee, upload: Upload, **header: Any) -> Upload:
        """The same client's upload with another header, and what it says of vector and boxes true: a cheat's."""
        hashes = {
            "vector_hash": digest(labels.ONESHOT_VECTOR, upload.vector),
            "boxes_hash": digest(labels.ONESHOT_BOX, upload.boxes),
        }
        new = replace(upload.header, **hashes | header)
        key = identities(len(self.roster))[upload.header.client].key
        signed = (*seats.bound(new.client), new.key, new.vector_hash, new.boxes_hash)
        return replace(upload, header=replace(new, signature=key.sign(labels.ONESHOT_UPLOAD, *signed)))


def scene(
    n: int,
    length: int = 5,
    *,
    bits: int = 16,
    beacon: bytes = BEACON,
    policy: dict[str, Any] | None = None,
    **options: Any,
) -> Scene:
    roster = Roster.of(list(identities(n)))
    given: dict[str, Any] = {"min_contributors": 3, "corrupt": "0.1", "dropout": "0.2", "session": SESSION} | options
    plan = RoundPlan.propose("oneshot", roster, Encoding.integers(length, bits), beacon=beacon, **given)
    settings: dict[str, Any] = {"min_contributors": 3, "protocols": {"oneshot"}, "beacon": beacon}
    settings |= {"corrupt": given["corrupt"], "dropout": given["dropout"]} | (policy or {})
    return Scene(plan, roster, Policy(**settings))


Forge = Callable[[Any], object]


def changing(scene: Scene, phase: str, names: set[str], forge: Forge) -> Callable[[Envelope], bytes]:
    """What these clients send in this phase is replaced."""

    def corrupted(envelope: Envelope) -> bytes:
        if envelope.phase == phase and envelope.sender in names:
            return scene.encode(forge(scene.decode(envelope.frame)))
        return envelope.frame

    return corrupted


def lie(scene: Scene) -> Callable[[Answer], Answer]:
    """Another share than it has: random, in every element."""
    junk = sharing_of(scene.plan).split(
        np.zeros(sharing_of(scene.plan).length, np.int64), sharing_of(scene.plan).threshold, Prg(b"lie" + bytes(29))
    )[0]
    return lambda answer: replace(answer, share=junk.tobytes())


def complaint(*clients: int) -> Vote:
    return Vote(b"", tuple(clients))


def spoiled(scene: Scene, boxes: bytes, places: set[int]) -> bytes:
    """Boxes of which those at these places (members in order) do not open."""
    size = sharing_of(scene.plan).share_bytes + OVERHEAD_BYTES
    return b"".join(bytes(size) if i in places else boxes[i * size : (i + 1) * size] for i in range(len(boxes) // size))


def hearing(scene: Scene, phase: str, name: str, forge: Forge) -> Callable[[Envelope], bytes]:
    """What the server sends this client in this phase is replaced."""

    def corrupted(envelope: Envelope) -> bytes:
        if envelope.phase == phase and envelope.receiver == name:
            return scene.encode(forge(scene.decode(envelope.frame)))
        return envelope.frame

    return corrupted


TWELVE = {"corrupt": "1/6", "dropout": 0}
FIRST = "client-000"


def run(here: Scene, faults: Faults | None = None) -> tuple[Simulation, OneshotServer]:
    made = serve(here.plan, here.roster)
    assert isinstance(made, OneshotServer)
    return simulate(made, here.clients(), here.updates().get, faults=faults), made


def total_of(here: Scene) -> list[int]:
    return sum(here.updates().values()).tolist()  # type: ignore[union-attr]
