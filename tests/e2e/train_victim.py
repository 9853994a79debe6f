"""``secagg train`` in processes that are killed.

One warm process forks a run for each line that it is sent. A line is JSON: {"config": file, "changes":
[section.key=value ...], "out": directory} and perhaps "stop": k, to kill it with SIGKILL when for the k-th time it is
about to make something durable or has just done so (a sync, a renaming, an insertion into a ledger or its commit), or
"renaming": [name, k], to kill it when for the k-th time a file is about to get this name, or "after": seconds, to kill
it at a moment. The answer is {"code": its exit code, None if it was killed, "error": what it said}.

"elsewhere": k makes it another machine: each update that is computed is up to 16 k of a float32's smallest steps away,
and torch has two threads. "log" is a file that gets a line for each frame that a client sends and for each sum.

"control" names a run that is wrong: "anew" charges local steps each time they are begun, "twice" computes the updates
of a sum that was begun.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._dynamo  # what the first optimiser of a process would load
from numpy.typing import NDArray

import recsys.federated
import recsys.secure_aggregator
from protocols.roster import SERVER
from protocols.simulation import network as simulate
from protocols.simulation.network import Envelope, Faults
from recsys.aggregator import LazyVectors
from recsys.assembly import prepare
from recsys.config import Config
from recsys.pending_sum import PendingSums
from recsys.report.plots import Curve, plot
from secagg import cli
from secagg.cli import train  # noqa: F401  # all that a run needs, before the forks


def kill_at(stop: int) -> None:
    """Count what becomes durable, and end at ``stop``."""
    steps = count()

    def step() -> None:
        if next(steps) == stop:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(real: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **more: Any) -> Any:
            step()
            result = real(*arguments, **more)
            step()
            return result

        return counted

    class Counted(sqlite3.Connection):
        def execute(self, sql: str, *rest: Any) -> sqlite3.Cursor:
            real = super().execute
            cursor: sqlite3.Cursor = (around(real) if sql.startswith(("INSERT", "COMMIT")) else real)(sql, *rest)
            return cursor

    connect = sqlite3.connect
    sqlite3.connect = lambda *arguments, **more: connect(*arguments, **more, factory=Counted)  # type: ignore[assignment]
    os.fsync = around(os.fsync)
    os.link = around(os.link)
    os.rename = around(os.rename)


def kill_before_renaming(name: str, times: int) -> None:
    real, left = os.rename, count(times, -1)

    def renamed(draft: str, target: str, **more: int) -> None:
        if target == name and next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        real(draft, target, **more)

    os.rename = renamed  # type: ignore[assignment]


def move_elsewhere(far: int) -> None:
    torch.set_num_threads(2)
    real = recsys.secure_aggregator.SecureAggregator.aggregate

    def aggregate(self: Any, request: Any, update: Any) -> Any:
        def moved(made: NDArray[np.float64]) -> NDArray[np.float64]:
            vector = made.astype(np.float32)
            steps = far * np.random.default_rng(far).integers(-16, 17, len(vector))
            return (vector + steps * np.spacing(vector)).astype(np.float64)

        def computed(name: str) -> NDArray[np.float64] | LazyVectors:
            made = update(name)
            if not isinstance(made, LazyVectors):
                return moved(made)
            return LazyVectors(len(made), lambda: map(moved, made))

        return real(self, request, computed)

    recsys.secure_aggregator.SecureAggregator.aggregate = aggregate  # type: ignore[method-assign]


def note(log: Path) -> None:
    """Before the server has it. A line is a place, where one thing is said, and a digest of what was."""
    file, real = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), simulate.drive

    def drive(server: Any, parties: Any, faults: Faults) -> Any:
        place = f"{server.plan.session.hex()}/{server.plan.round}"

        def said(phase: str, who: str, data: bytes) -> None:
            os.write(file, f"{place}/{phase}/{who} {sha256(data).hexdigest()}\n".encode())

        def seen(envelope: Envelope) -> bytes:
            if envelope.receiver == SERVER:
                said(envelope.phase, envelope.sender, envelope.frame)
            return envelope.frame

        ran = real(server, parties, replace(faults, corrupted=seen))
        said("sum", SERVER, ran.outcome.total.tobytes())
        return ran

    recsys.secure_aggregator.drive = drive  # type: ignore[attr-defined]


def anew() -> None:
    @contextmanager
    def charged(self: Any, number: int, cohort: Any) -> Iterator[bool]:
        private, ledger = self._local_privacy, self._ledger
        if ledger is not None:
            reserved, _taken = self._steps(private, ledger.budget.kind, number, cohort)
            ledger.reserve(reserved)
            ledger.charge(reserved.event, private.steps)
        yield False

    recsys.federated.Federation._charged = charged  # type: ignore[method-assign]


def twice() -> None:
    PendingSums.read = lambda self, number: None  # type: ignore[method-assign]
    recsys.secure_aggregator.SecureAggregator._check_new = lambda self, plan, request: None  # type: ignore[method-assign]


@cache
def warm(config: Path, *changes: str) -> None:
    """What preparing a run and drawing leave in caches, each of its forks need not work out again."""
    prepare(Config.load(config, changes))
    plot("warm", "x", "y", [Curve("line", [0, 1], [0, 1], 0)], whole_x=True)


def forked(order: dict[str, Any]) -> dict[str, Any]:
    warm(Path(order["config"]), *order["changes"])
    changes = [word for change in order["changes"] for word in ("--set", change)]
    with tempfile.TemporaryFile("w+") as said:
        if (child := os.fork()) == 0:
            try:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                os.dup2(said.fileno(), 2)
                os.environ["XDG_STATE_HOME"] = f"{order['out']}.state"  # its own list of runs
                {"anew": anew, "twice": twice, "": lambda: None}[order.get("control", "")]()
                if order.get("elsewhere"):
                    move_elsewhere(order["elsewhere"])
                if "log" in order:
                    note(Path(order["log"]))
                if "renaming" in order:
                    kill_before_renaming(*order["renaming"])
                if "stop" in order:
                    kill_at(order["stop"])
                code = cli.main(["train", order["config"], "--out", order["out"], "--json", "--keep-secrets", *changes])
                sys.stderr.flush()
                os._exit(code)
            finally:
                sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
                os._exit(99)
        if "after" in order:
            time.sleep(order["after"])  # the moment of the kill; nothing waits for anything
            os.kill(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said.seek(0)
        return {"code": None if code == -signal.SIGKILL else code, "error": said.read()}


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(forked(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
