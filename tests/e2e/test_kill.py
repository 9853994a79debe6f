"""A client killed with SIGKILL in every phase, at moments spread over the time it needs to answer.

Each time it comes back from its journal file, the round goes on to the exact sum, and it has said nothing twice in two
ways: what the server had from it before the kill is what it says again.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from protocols.client import Client
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from protocols.rounds.server import ServerRound
from protocols.server import serve
from secagg.encoding import Encoding
from tests.e2e.victim import BEGIN, GONE

LENGTH = 50
ROOT = Path(__file__).parents[2]


class Victim:
    """The process that is killed, and comes back as another child of one that lives on."""

    def __init__(self, folder: Path, plan: RoundPlan) -> None:
        self._plan, self.kills, self._living = plan, 0, ""
        command = [sys.executable, "-m", "tests.e2e.victim", str(folder)]
        self._parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)

    def begin(self) -> bytes:
        self._write(BEGIN)
        self._living, _ = self._read()
        return self.ask(self._plan.encode())

    def ask(self, frame: bytes) -> bytes:
        self.tell(frame)
        return bytes.fromhex(self._read()[1])

    def tell(self, frame: bytes) -> None:
        self._write(frame.hex())

    def kill(self) -> None:
        """And wait until it is dead, or it could still read a byte of what is for the next."""
        os.kill(int(self._living), signal.SIGKILL)
        while self._read()[1] != GONE:  # what it had still said
            pass
        self.kills += 1

    def close(self) -> None:
        self._parent.communicate()

    def _write(self, line: str) -> None:
        assert self._parent.stdin is not None
        self._parent.stdin.write(line + "\n")
        self._parent.stdin.flush()

    def _read(self) -> list[str]:
        assert self._parent.stdout is not None
        return self._parent.stdout.readline().split()


@pytest.mark.thinned(4)
@pytest.mark.parametrize("delay", [0.0, 0.001, 0.003, 0.01])
def test_killed_in_every_phase(tmp_path: Path, delay: float) -> None:
    identities = [Identity.generate(name) for name in ("ann", "ben", "cat", "victim")]
    roster = Roster.of(identities)
    roster.save(tmp_path / "roster.toml")
    identities[-1].save(tmp_path / "victim.key")
    plan = RoundPlan.propose("secagg", roster, Encoding.integers(LENGTH), min_contributors=3)
    others = {i.name: Client(i, roster, policy=Policy(min_contributors=3)) for i in identities[:-1]}
    with closing(Victim(tmp_path, plan)) as victim:
        survive(victim, delay, others, serve(plan, roster))


def survive(victim: Victim, delay: float, others: dict[str, Client], server: ServerRound) -> None:
    def killed(begin: Callable[[], bytes], frame: bytes | None) -> bytes:
        """Ask, kill before the answer is read, come back, ask again."""
        if frame is None:
            begin()
        else:
            victim.tell(frame)
            time.sleep(delay)
        victim.kill()
        said = begin()
        return said if frame is None else victim.ask(frame)

    answers = {name: client.start(server.plan, np.arange(LENGTH)) for name, client in others.items()}
    answers["victim"] = killed(victim.begin, None)
    while server.outcome is None:
        for name, answer in answers.items():
            server.receive(name, answer)
        victim.kill()
        assert victim.begin() == answers["victim"]  # the stored bytes, not new ones
        server.close(server.phase)
        requests = dict(server.outbox())
        answers = {name: others[name].receive(requests[name]) for name in others if name in requests}
        if "victim" in requests:
            answers["victim"] = killed(victim.begin, requests["victim"])
    victim.kill()
    assert server.outcome.survivors == server.roster.names
    assert server.outcome.total.tolist() == (4 * np.arange(LENGTH)).tolist()
    assert victim.kills == 13
