"""Clients with ledgers and journals that outlive them, in rounds of any protocol."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from dp.calibrate import user_level
from dp.events import Relation
from dp.ledger import Budget, Ledger
from dp.noise import Family, NoiseSpec
from protocols.client import Client
from protocols.parameters import rules_of
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from protocols.server import serve
from protocols.simulation.network import Faults, simulate
from secagg.crypto.keys import SigningKey
from secagg.crypto.prg import Prg
from secagg.encoding import Encoding
from tests.scenes.journals import KeptJournal

N, LENGTH = 10, 8


NAMES = [f"client-{i}" for i in range(N)]
IDENTITIES = [Identity.generate(name, Prg(name.encode().ljust(32))) for name in NAMES]
ROSTER = Roster.of(IDENTITIES)
NOISE = NoiseSpec(Family.SKELLAM, Fraction(4_000_000), dropouts=3, colluders=1, components=3)
HUGE = Budget(Fraction(30), Fraction(1, 1000), slack=Fraction(1, 10**6))


def new_ledger(path: Path) -> Ledger:
    key = SigningKey(b"l" * 32)
    return Ledger.create(path, key, HUGE, user_level(Relation.ZERO_OUT), run="test", elsewhere="-")


class Deployment:
    def __init__(self, protocol: str, folder: Path) -> None:
        policy = self.policy = Policy(
            min_contributors=5, protocols={protocol}, adversary=rules_of(protocol).against, corrupt="0.1", dropout="0.3"
        )
        self.plan = RoundPlan.propose(
            protocol,
            ROSTER,
            Encoding.integers(LENGTH, bits=5),
            min_contributors=7,
            corrupt="0.1",
            dropout="0.3",
            noise=NOISE,
        )
        self.ledgers = {name: new_ledger(folder / f"{name}.db") for name in NAMES}
        self.books = new_ledger(folder / "server.db")
        self.clients = {
            identity.name: Client(
                identity, ROSTER, policy=policy, journal=KeptJournal(), ledger=self.ledgers[identity.name]
            )
            for identity in IDENTITIES
        }
        self.server: Any = serve(self.plan, ROSTER, ledger=self.books)

    def run(self, **silent: str) -> Any:
        updates = {name: np.ones(LENGTH) for name in NAMES}
        return simulate(self.server, self.clients, updates.get, faults=Faults(silent))

    def phases(self, name: str) -> list[str]:
        return [entry["phase"] for entry in self.ledgers[name].entries()]
