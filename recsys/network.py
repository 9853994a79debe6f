"""A simulated network on which clients drop out, with a seed and without a clock.

A deadline closes each phase. A client whose answer would take longer drops out, as does one that vanishes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from protocols.simulation.network import Faults
from secagg.errors import UsageError


@dataclass(frozen=True, slots=True)
class Network:
    """
    >>> Network(dropout=0.5).faults(["a", "b", "c", "d"], ["upload", "reveal"], seed=1).dropouts
    {'c': 'reveal'}
    """

    dropout: float = 0.0
    """the probability with which a client vanishes from a sum, in any of its phases"""
    latency: float = 1.0
    """the median of what an answer takes, in simulated seconds"""
    spread: float = 0.5
    """the deviation of the logarithm of that time"""
    deadline: float = 0.0
    """simulated seconds after which a phase is closed; 0: as long as it takes"""

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise UsageError("network.dropout is a probability below 1")
        if self.latency <= 0 or self.spread < 0 or self.deadline < 0:
            raise UsageError("network.latency is above zero, its spread and the deadline are not below")

    def faults(self, names: Sequence[str], phases: Sequence[str], seed: int) -> Faults:
        """Which clients drop out, and in which phase."""
        rng = np.random.default_rng(seed)
        gone = np.where(rng.random(len(names)) < self.dropout, rng.integers(0, len(phases), len(names)), len(phases))
        if self.deadline:
            takes = self.latency * np.exp(self.spread * rng.standard_normal((len(names), len(phases))))
            late = np.hstack([takes > self.deadline, np.ones((len(names), 1), bool)])
            gone = np.minimum(gone, late.argmax(axis=1))
        return Faults(dropouts={names[i]: phases[gone[i]] for i in range(len(names)) if gone[i] < len(phases)})
