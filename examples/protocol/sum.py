"""Rounds of the protocol in this folder: ``python sum.py``."""

from __future__ import annotations

import numpy as np
from all_or_nothing.protocol import NAME, register

from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.server import serve
from protocols.simulation.network import Faults, local_clients, simulate
from secagg.encoding import Encoding
from secagg.errors import ThresholdError


def main() -> None:
    register()
    policy = Policy(min_contributors=3, protocols={NAME})
    roster, clients = local_clients(5, policy)
    updates = {name: np.arange(4) * number for number, name in enumerate(clients, 1)}
    plan = RoundPlan.propose(NAME, roster, Encoding.integers(4), min_contributors=3)
    outcome = simulate(serve(plan, roster), clients, updates.get).outcome
    print("the sum over", ", ".join(outcome.survivors), "is", outcome.total.tolist())
    late = Faults({"client-1": "upload"})
    try:
        simulate(serve(plan.next_round(), roster), clients, updates.get, faults=late)
    except ThresholdError as error:
        print("given up:", error)


if __name__ == "__main__":
    main()
