"""A client in a process of its own, to be killed. Frames come and go as hexadecimal lines.

This one process has everything loaded and lives on: each line ``begin`` makes a child of it the client.
"""

import os
import sys
from pathlib import Path

import numpy as np

from protocols.client import Client
from protocols.journal import SqliteJournal
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster

BEGIN, GONE = "begin", "gone"


def main(folder: Path) -> None:
    while line := heard():
        if line == BEGIN:  # and not what the last one left unread
            if (child := os.fork()) == 0:
                live(folder)
                return
            os.waitpid(child, 0)
            say(GONE)


def live(folder: Path) -> None:
    say(str(os.getpid()))
    identity, roster = Identity.load(folder / "victim.key"), Roster.load(folder / "roster.toml")
    client = Client(identity, roster, policy=Policy(min_contributors=3), journal=SqliteJournal(folder / "victim.db"))
    plan = RoundPlan.decode(bytes.fromhex(heard()))
    say(client.start(plan, np.arange(plan.encoding.length)).hex())
    while line := heard():
        say(client.receive(bytes.fromhex(line)).hex())


def heard() -> str:
    """A line and not a byte more: what follows may be for the next."""
    line = b""
    while (byte := os.read(0, 1)) not in (b"", b"\n"):
        line += byte
    return line.decode()


def say(word: str) -> None:
    """At once and whole, or not at all: a pipe takes as much in one go."""
    line = f"{os.getpid()} {word}\n".encode()
    assert os.write(1, line) == len(line)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
