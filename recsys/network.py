"""A simulated network on which clients drop out, and simulated time.

A deadline closes each phase. A client whose answer would take longer drops out, as does one that vanishes.

Where ``training`` is above zero, clients take time to train: each has its own pace for a whole run, drawn by its name,
and nothing of its data is in that. A round waits for all, for so many seconds, or for so many clients; whoever is later
is a dropout like any other. Nothing sleeps: the clock is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import exp, inf
from statistics import NormalDist

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
    training: float = 0.0
    """the median of what training for a round takes, in simulated seconds, with ``spread`` from round to round; 0: no
    time, and there is no clock"""
    speeds: float = 0.0
    """the deviation of the logarithm of that from client to client: with 1.7 the quartiles are ten times apart"""
    wait: float = 0.0
    """simulated seconds that a round waits for those who train. Whoever is late counts as dropped out; 0: for all"""

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise UsageError("network.dropout is a probability below 1")
        if self.latency <= 0 or self.spread < 0 or self.deadline < 0:
            raise UsageError("network.latency is above zero, its spread and the deadline are not below")
        if min(self.training, self.speeds, self.wait) < 0 or max(self.speeds, self.spread) > 20:
            raise UsageError("network.training, speeds and wait are not below zero, and deviations at most 20")
        if (self.speeds or self.wait) and not self.training:
            raise UsageError("network.speeds and wait are for clients that take time to train: set network.training")

    def faults(self, names: Sequence[str], phases: Sequence[str], seed: int) -> Faults:
        """Which clients drop out, and in which phase."""
        rng = np.random.default_rng(seed)
        gone = np.where(rng.random(len(names)) < self.dropout, rng.integers(0, len(phases), len(names)), len(phases))
        if self.deadline:
            takes = self.latency * np.exp(self.spread * rng.standard_normal((len(names), len(phases))))
            late = np.hstack([takes > self.deadline, np.ones((len(names), 1), bool)])
            gone = np.minimum(gone, late.argmax(axis=1))
        return Faults(dropouts={names[i]: phases[gone[i]] for i in range(len(names)) if gone[i] < len(phases)})

    def messages(self, names: int, phases: int, seed: int) -> float:
        """What the phases of a sum take together, each as long as its slowest answer or its deadline."""
        if not self.training:
            return 0.0
        drawn = np.random.default_rng((seed, 1)).standard_normal((names, phases))
        slowest = (self.latency * np.exp(self.spread * drawn)).max(axis=0)
        return float(np.minimum(slowest, self.deadline or inf).sum())

    def takes(self, name: str, number: int, seed: int) -> float:
        """What this client's training of this number takes, in simulated seconds.

        >>> network = Network(training=60, speeds=1.7, spread=0)
        >>> network.takes("a", 0, seed=1) == network.takes("a", 9, seed=1) != network.takes("b", 0, seed=1)
        True
        """
        own = self.speeds * _normal(f"{seed} {name}") + self.spread * _normal(f"{seed} {name} {number}")
        return self.training * exp(own)

    def late(self, names: Sequence[str], number: int, seed: int, enough: int) -> tuple[float, frozenset[str]]:
        """How long a round waits for those who train, and for whom it does not: ``enough`` are waited for, at most."""
        if not self.training:
            return 0.0, frozenset()
        taken = {name: self.takes(name, number, seed) for name in names}
        closes = min(sorted(taken.values())[min(enough, len(taken)) - 1], self.wait or inf)
        return closes, frozenset(name for name, seconds in taken.items() if seconds > closes)


def _normal(drawn_for: str) -> float:
    """A standard normal number that follows from a text."""
    word = int.from_bytes(sha256(drawn_for.encode()).digest()[:8], "big") >> 11
    return NormalDist().inv_cdf((word + 0.5) / 2.0**53)
