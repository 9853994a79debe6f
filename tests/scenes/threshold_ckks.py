"""A round of threshold CKKS in which a test can change any frame on its way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from protocols import registry
from protocols.client import Client
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.rounds.phases import Phase
from protocols.rounds.sets import to_bitmap
from protocols.simulation.network import Envelope, Faults, Simulation, local_clients, simulate
from protocols.threshold_ckks.cohort import scheme_of
from protocols.threshold_ckks.scheme import Scheme
from protocols.threshold_ckks.server import ThresholdServer
from secagg.assumptions import Adversary
from secagg.crypto.prg import Prg
from secagg.encoding import Encoding
from secagg.errors import PeerError, ThresholdError

POLICY = Policy(min_contributors=3, protocols={"threshold_ckks"}, adversary=Adversary.CURIOUS, corrupt=0)
WIRE = registry.find("threshold_ckks").messages
Change = Callable[[Envelope, Any], Any]


def unchanged(envelope: Envelope, message: Any) -> Any:
    return message


@dataclass
class Scene:
    """6 clients, t = 4, and a network that may replace what the server says. Everything that passes is kept."""

    n: int = 6
    least: int = 3
    length: int = 7
    session: bytes = bytes(16)
    change: Change = unchanged
    passed: list[Envelope] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.roster, self.clients = local_clients(self.n, POLICY, Prg(bytes(32)))
        self.plan = RoundPlan.propose(
            "threshold_ckks",
            self.roster,
            Encoding.integers(self.length),
            min_contributors=self.least,
            corrupt=0,
            dropout="0.3",
            session=self.session,
        )
        self.server = ThresholdServer(self.plan, self.roster, registry.find(self.plan.protocol).messages)
        rng = np.random.default_rng(1)
        self.updates = {name: rng.integers(-99, 100, self.length) for name in self.clients}
        self.uploads: dict[str, Any] = {}

    @property
    def scheme(self) -> Scheme:
        return scheme_of(self.plan)

    def network(self, envelope: Envelope) -> bytes:
        if envelope.sender in self.clients:
            self.passed.append(envelope)
            return envelope.frame
        said = self.change(envelope, WIRE.decode(self.plan, envelope.frame))
        frame = WIRE.encode(self.plan, said)
        self.passed.append(replace(envelope, frame=frame))
        return frame

    def run(self, **silent: str) -> Simulation:
        return simulate(self.server, self.clients, self.updates.get, faults=Faults(silent, corrupted=self.network))

    def fails(self, **silent: str) -> None:
        with pytest.raises((ThresholdError, PeerError)):
            self.run(**silent)
        assert self.server.outcome is None

    def said(self, kind: type) -> dict[str, Any]:
        """What clients said (or, of the server's messages, what they were told)."""
        messages = [(e, WIRE.decode(self.plan, e.frame)) for e in self.passed]
        return {
            e.sender if e.sender in self.clients else e.receiver: message
            for e, message in messages
            if isinstance(message, kind)
        }

    def sum(self, *without: str) -> list[int]:
        return sum(vector for name, vector in self.updates.items() if name not in without).tolist()  # type: ignore[union-attr]

    def current(self, u: int) -> Any:
        return self.clients[self.roster.names[u]].current

    def phases(self, until: Phase, evil: Callable[[Phase], None] = lambda phase: None) -> dict[str, bytes]:
        """Play up to this phase of the server's, and return the frames that it sends then.

        ``evil`` is called before the server closes each phase.
        """
        replies = {name: client.start(self.plan, self.updates[name]) for name, client in self.clients.items()}
        while self.server.phase != until:
            if self.server.phase == Phase.UPLOAD:
                self.uploads = {name: WIRE.decode(self.plan, frame) for name, frame in replies.items()}
            for name, frame in replies.items():
                self.server.receive(name, frame)
            evil(self.server.phase)
            self.server.close(self.server.phase)
            frames = dict(self.server.outbox())
            if self.server.phase != until:
                replies = {name: self.clients[name].receive(frame) for name, frame in frames.items()}
        return frames

    def restarted(self, name: str) -> Client:
        """The same client in a new process."""
        old = self.clients[name]
        client = Client(old.identity, self.roster, policy=POLICY, journal=old._journal)
        client.start(self.plan, self.updates[name])
        return client


def bitmap(*members: int) -> bytes:
    return to_bitmap(set(members), range(6))


def telling(kind: type, make: Callable[[Any], Any]) -> Change:
    return lambda envelope, message: make(message) if isinstance(message, kind) else message
