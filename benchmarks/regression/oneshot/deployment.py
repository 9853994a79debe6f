"""The deployment of one-shot sums that is timed: settings, one plan for so many clients, and a lenient policy."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.rounds import people
from protocols.oneshot.parameters import EVERYBODY
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Roster
from secagg.encoding import Encoding
from secagg.errors import UsageError

SCENES = ("none", "before", "after")
"""When clients fall silent: never, before their upload, after it."""

BEACON = b"benchmark lots, not secret"
POLICY = Policy(min_contributors=2, protocols={"oneshot"}, corrupt=0, dropout=0, beacon=BEACON)


@dataclass(frozen=True, slots=True)
class Config:
    n: int = 1000
    d: int = 1_000_000
    bits: int = 16
    k: int = 96
    drop: float = 0.3
    dropout: float = 0.1
    corrupt: float = 0.05
    repeats: int = 9
    rounds: int = 3
    real_n: int = 100
    real_d: int = 20_000

    def __post_init__(self) -> None:
        if self.n <= EVERYBODY:
            raise UsageError(f"with n up to {EVERYBODY} everybody has a seat: nobody only contributes")
        if min(self.real_n, self.k) < 8 or min(self.d, self.real_d, self.repeats, self.rounds) < 1:
            raise UsageError("real_n and k are at least 8, all others at least 1")
        if self.repeats > self.k:
            raise UsageError("at most k repeats: each takes another neighbour")
        if not 0 < self.drop < 1 or not 0 <= self.dropout < 1 or not 0 <= self.corrupt < 1:
            raise UsageError("drop, dropout and corrupt are fractions of the clients, and somebody drops out")


def plan_of(n: int, d: int, dropout: float, config: Config) -> tuple[RoundPlan, Roster]:
    _, roster = people(n)
    plan = RoundPlan.propose(
        "oneshot",
        roster,
        Encoding.integers(d, config.bits),
        min_contributors=max(2, n // 2),
        corrupt=config.corrupt,
        dropout=dropout,
        beacon=BEACON,
    )
    return plan, roster
