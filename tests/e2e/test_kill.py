"""A client killed with SIGKILL in every phase, at moments spread over the time it needs to answer.

Each time it comes back from its journal file, the round goes on to the exact sum, and it has said nothing twice in two
ways: what the server had from it before the kill is what it says again.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from protocols.machine import Client
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from protocols.simulate import serve
from secagg.encoding import Encoding

LENGTH = 50
ROOT = Path(__file__).parents[2]


class Victim:
    """The process, and what it has said."""

    def __init__(self, folder: Path, plan: RoundPlan) -> None:
        self._folder, self._plan, self._process = folder, plan, None  # type: ignore[var-annotated]
        self.kills = 0

    def begin(self) -> bytes:
        command = [sys.executable, "-m", "tests.e2e.victim", str(self._folder)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        return self.ask(self._plan.encode())

    def ask(self, frame: bytes) -> bytes:
        self.tell(frame)
        return bytes.fromhex(self._process.stdout.readline())

    def tell(self, frame: bytes) -> None:
        self._process.stdin.write(frame.hex() + "\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()
        self.kills += 1


@pytest.mark.parametrize("delay", [0.0, 0.001, 0.003, 0.01])
def test_killed_in_every_phase(tmp_path: Path, delay: float) -> None:
    identities = [Identity.generate(name) for name in ("ann", "ben", "cat", "victim")]
    roster = Roster.of(identities)
    roster.save(tmp_path / "roster.toml")
    identities[-1].save(tmp_path / "victim.key")
    plan = RoundPlan.propose("secagg", roster, Encoding.integers(LENGTH), min_contributors=3)
    others = {i.name: Client(i, roster, policy=Policy(min_contributors=3)) for i in identities[:-1]}
    victim, server = Victim(tmp_path, plan), serve(plan, roster)

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

    answers = {name: client.start(plan, np.arange(LENGTH)) for name, client in others.items()}
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
    assert server.outcome.survivors == roster.names
    assert server.outcome.total.tolist() == (4 * np.arange(LENGTH)).tolist()
    assert victim.kills == 11
