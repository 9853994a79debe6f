"""A round of CKKS in which a test can change any frame on its way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from protocols import registry
from protocols.ckks.messages import KeyShown
from protocols.ckks.server import CkksServer
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.rounds.phases import Phase
from protocols.simulation.network import Envelope, Faults, Simulation, local_clients, simulate
from secagg.assumptions import Adversary
from secagg.crypto import labels
from secagg.encoding import Encoding

LENGTH = 7
POLICY = Policy(min_contributors=3, protocols={"ckks"}, adversary=Adversary.CURIOUS, corrupt=0)


def unchanged(envelope: Envelope, message: Any) -> Any:
    return message


@dataclass
class Scene:
    """A round, and a network that may replace what the server says. Everything that passes is kept."""

    n: int = 6
    least: int = 3
    session: bytes = bytes(16)
    change: Callable[[Envelope, Any], Any] = unchanged
    passed: list[Envelope] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.roster, self.clients = local_clients(self.n, POLICY)
        self.plan = RoundPlan.propose(
            "ckks",
            self.roster,
            Encoding.integers(LENGTH),
            min_contributors=self.least,
            dropout="0.2",
            session=self.session,
        )
        self.wire = registry.find("ckks").messages
        self.server = CkksServer(self.plan, self.roster, registry.find(self.plan.protocol).messages)
        rng = np.random.default_rng(1)
        self.updates = {name: rng.integers(-99, 100, LENGTH) for name in self.clients}

    def network(self, envelope: Envelope) -> bytes:
        self.passed.append(envelope)
        if envelope.sender != "server":
            return envelope.frame
        return self.wire.encode(self.plan, self.change(envelope, self.wire.decode(self.plan, envelope.frame)))

    def run(self, **silent: str) -> Simulation:
        faults = Faults(silent, corrupted=self.network)
        return simulate(self.server, self.clients, self.updates.get, faults=faults)

    def sum(self, *without: str) -> list[int]:
        return sum(vector for name, vector in self.updates.items() if name not in without).tolist()  # type: ignore[union-attr]

    @property
    def makers(self) -> list[str]:
        return [self.server._name(u) for u in self.server._cohort.makers]

    @property
    def shown_keys(self) -> set[bytes]:
        down: list[Any] = [self.wire.decode(self.plan, e.frame) for e in self.passed if e.sender == "server"]
        return {message.public for message in down if isinstance(message, KeyShown)}

    def opened(self, kind: str) -> Iterator[bytes]:
        """What the server can read of what was sealed to it."""
        label, phase = {"key": (labels.CKKS_KEY, Phase.KEY), "upload": (labels.CKKS_UPLOAD, Phase.UPLOAD)}[kind]
        for envelope in self.passed:
            if envelope.sender in self.clients and envelope.phase == phase:
                message: Any = self.wire.decode(self.plan, envelope.frame)
                box = message.made if kind == "key" else message.encrypted
                if box:
                    yield self.server._opened(self.server._positions[self.roster.number(envelope.sender)], label, box)
