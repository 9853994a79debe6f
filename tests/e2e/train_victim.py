"""``secagg train`` in processes that are killed.

One warm process forks a run for each line that it is sent. A line is JSON: {"config": file, "changes":
[section.key=value ...], "out": directory} and perhaps "stop": k, to kill it with SIGKILL when for the k-th time it is
about to make something durable or has just done so (a sync, a renaming, an insertion into a ledger or its commit), or
"after": seconds, to kill it at a moment. The answer is {"code": its exit code, None if it was
killed, "error": what it said}.

"control" names a run that is wrong: "anew" charges local steps each time they are begun, "fresh" draws new noise.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import recsys.federated
from recsys.config import Config
from recsys.prepare import prepare
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
    Path.replace = around(Path.replace)  # type: ignore[method-assign]


def anew() -> None:
    def charge(self: Any, number: int, cohort: Any) -> None:
        private, ledger = self._local_privacy, self._ledger
        if ledger is not None:
            ledger.charge(private.event(self._fleet.examples(cohort, private.unit)), private.steps)

    recsys.federated.Federation._charge = charge  # type: ignore[method-assign]


def fresh() -> None:
    recsys.federated.Prg = lambda seed: os.urandom  # type: ignore[misc, assignment]


@cache
def warm(config: Path, *changes: str) -> None:
    """What preparing a run leaves in caches, each of its forks need not work out again."""
    prepare(Config.load(config, changes))


def forked(order: dict[str, Any]) -> dict[str, Any]:
    warm(Path(order["config"]), *order["changes"])
    changes = [word for change in order["changes"] for word in ("--set", change)]
    with tempfile.TemporaryFile("w+") as said:
        if (child := os.fork()) == 0:
            try:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                os.dup2(said.fileno(), 2)
                os.environ["XDG_STATE_HOME"] = f"{order['out']}.state"  # its own list of runs
                {"anew": anew, "fresh": fresh, "": lambda: None}[order.get("control", "")]()
                if "stop" in order:
                    kill_at(order["stop"])
                code = cli.main(["train", order["config"], "--out", order["out"], "--json", *changes])
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
