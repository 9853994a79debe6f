"""A client in a process of its own, to be killed: frames come and go as hexadecimal lines."""

import sys
from pathlib import Path

import numpy as np

from protocols.journal import SqliteJournal
from protocols.machine import Client
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster


def main(folder: Path) -> None:
    identity, roster = Identity.load(folder / "victim.key"), Roster.load(folder / "roster.toml")
    client = Client(identity, roster, policy=Policy(min_contributors=3), journal=SqliteJournal(folder / "victim.db"))
    plan = RoundPlan.decode(bytes.fromhex(sys.stdin.readline()))
    print(client.start(plan, np.arange(plan.encoding.length)).hex(), flush=True)
    for line in sys.stdin:
        print(client.receive(bytes.fromhex(line)).hex(), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
