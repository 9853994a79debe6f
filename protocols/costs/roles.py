"""What a round costs, by role: bytes, seconds, memory.

Bytes are those of the messages: sizes are read off the very codecs that write them, numbers of items (neighbours,
shares, signatures, Merkle nodes) follow from the parameters that the protocol itself chooses. Seconds are counts of
what each role does, read off the machines, times what one of it costs (``UnitCosts``, measured). Memory is what the
server keeps at its fullest moment, in CPython's sizes. Nothing here is fitted to a measured round.

A protocol's package has ``costs.COSTS``: protocol -> ``CostOf``. Some clients answer until their upload is due, and
never again: for pairwise masks the most expensive moment, for the others as good as any. What depends on who they are
(nodes in a proof) is an expected value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from protocols.costs.units import UnitCosts


@dataclass(frozen=True, slots=True)
class Step:
    """What one client does in one phase: the frame it gets, its answer, and the time in between."""

    phase: str
    down: float
    up: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Role:
    """``count`` clients that all do the same."""

    name: str
    count: float
    steps: tuple[Step, ...]

    @property
    def down(self) -> float:
        return sum(step.down for step in self.steps)

    @property
    def up(self) -> float:
        return sum(step.up for step in self.steps)

    @property
    def seconds(self) -> float:
        return sum(step.seconds for step in self.steps)


@dataclass(frozen=True, slots=True)
class Cost:
    """What one round costs."""

    roles: tuple[Role, ...]
    server: Mapping[str, float]
    """Seconds on one core by phase: to make what opens it, to take the answers in, to close it."""
    server_memory: float
    """Bytes at the peak, beyond what the process had before."""

    @property
    def client(self) -> Role:
        """What most clients do that stay to the end."""
        return max((role for role in self.roles if role.name != GONE), key=lambda role: role.count)

    @property
    def heaviest(self) -> Role:
        return max(self.roles, key=lambda role: role.seconds)

    @property
    def up(self) -> float:
        """Bytes, all clients together."""
        return sum(role.count * role.up for role in self.roles)

    @property
    def down(self) -> float:
        return sum(role.count * role.down for role in self.roles)

    @property
    def clients_s(self) -> float:
        return sum(role.count * role.seconds for role in self.roles)

    @property
    def server_s(self) -> float:
        return sum(self.server.values())


GONE = "gone"


CostOf = Callable[[Any, int, UnitCosts], Cost]
"""(plan, how many of its clients fall silent when their upload is due, unit costs) -> cost of one round."""
