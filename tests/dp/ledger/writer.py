"""Ledger writers to be killed.

One warm process forks a writer for each line that it is sent, kills it, and says what it had acknowledged.

A line is JSON: {"path": file, "stop": k} kills it when it has been stopped k times on its way into or out of the
kernel, so before and after every write and every sync if k runs through them all; {"path": file, "after": seconds} at
a moment; {"path": file} never. The answer is {"acknowledged": [[what, head], ...], "ended": whether it came to its end,
"stops": how often it was stopped, "calls": its writes (w), syncs (s) and acknowledgements (a) in order, "untraceable":
whether the machine allows no stops}.

"control" names a writer that is wrong: "late" has every entry written with the next one, "unsynced" never syncs.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from dp.ledger import Ledger, file
from dp.ledger.state import LedgerState, PreparedEntry
from tests.scenes import ledger as scene

ROUNDS = 2
NO_TRACING = 77

_LIBC = ctypes.CDLL(None, use_errno=True)
_TRACEME, _SYSCALL, _SET_OPTIONS, _SYSCALL_INFO = 0, 24, 0x4200, 0x420E  # ptrace(2)
_MARK_SYSCALLS = 1
_WRITES, _SYNCS, _WRITE = {"x86_64": ({18}, {74, 75}, 1), "aarch64": ({68}, {82, 83}, 64)}.get(
    platform.machine(), (set[int](), set[int](), -1)
)


class _Info(ctypes.Structure):
    """struct ptrace_syscall_info, on entry."""

    _fields_ = (
        *(("op", ctypes.c_uint8), ("pad", ctypes.c_uint8 * 3), ("arch", ctypes.c_uint32)),
        *(("ip", ctypes.c_uint64), ("sp", ctypes.c_uint64), ("nr", ctypes.c_uint64), ("args", ctypes.c_uint64 * 6)),
    )


def write(path: Path, acknowledge: int) -> None:
    """Create the ledger or go on with it: rounds that are committed, and now and then an aborted one."""

    def done(what: str) -> None:
        os.write(acknowledge, f"{what} {ledger.head.hex()}\n".encode())

    if path.exists():
        ledger = Ledger.open(path, scene.KEY)
    else:
        ledger = scene.new(path, budget=scene.LARGE)
        done("create")
    with closing(ledger):
        first = sum(1 for entry in ledger.entries() if entry["phase"] == "reserve")
        for number in range(first, first + ROUNDS):
            ledger.reserve(scene.planned(number))
            done(f"reserve {number}")
            if number % 3 == 2:
                ledger.abort(scene.planned(number), "too few")
                done(f"abort {number}")
            else:
                ledger.commit(scene.happened(number, gone=[number % 4]))
                done(f"commit {number}")


def late() -> None:
    waiting = list[tuple[int, bytes, bytes]]()

    def append(ledger: Any, prepare: Callable[[LedgerState], PreparedEntry | None]) -> None:
        entry = prepare(ledger._state)
        assert entry is not None
        if waiting:
            number, body, signature = waiting.pop()
            ledger._db.execute("BEGIN IMMEDIATE")
            ledger._db.execute(file._INSERT, (number, body))
            ledger._db.execute(file._SIGN, (signature,))
            ledger._db.execute("COMMIT")
        waiting.append((len(ledger._state.heads), entry.body, ledger._state.signed_by(ledger._key, entry).signature))
        ledger._state.apply(entry)

    Ledger._append = append  # type: ignore[method-assign]


def unsynced() -> None:
    connected = file._connected

    def connect(*arguments: Any) -> sqlite3.Connection:
        database = connected(*arguments)
        database.execute("PRAGMA synchronous = OFF")
        return database

    file._connected = connect


def killed(order: dict[str, Any]) -> dict[str, Any]:
    heard, say = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.close(heard)
            {"late": late, "unsynced": unsynced, "": lambda: None}[order.get("control", "")]()
            if "after" not in order:
                if _LIBC.ptrace(_TRACEME, 0, None, None) != 0:
                    os._exit(NO_TRACING)
                os.kill(os.getpid(), signal.SIGSTOP)
            write(Path(order["path"]), say)
            os._exit(0)
        finally:
            os._exit(1)
    os.close(say)
    calls = list[str]()
    if "after" in order:
        ended, stops = _after(child, order["after"]), 0
    else:
        ended, stops = _stopped(child, order.get("stop", 1 << 30), say, calls)
    with os.fdopen(heard) as lines:
        acknowledged = [line.rstrip().rsplit(" ", 1) for line in lines]
    answer = {"acknowledged": acknowledged, "stops": stops, "calls": "".join(calls)}
    return answer | {"ended": ended == 0, "untraceable": ended == NO_TRACING}


def _stopped(child: int, most: int, say: int, calls: list[str]) -> tuple[int | None, int]:
    """(its exit code if it came to an end, how often it was stopped)."""
    info = _Info()
    for number in range(most + 1):
        _pid, status = os.waitpid(child, 0)
        if not os.WIFSTOPPED(status):
            return _code(status), number
        if number == most:
            break
        if number == 0:
            _LIBC.ptrace(_SET_OPTIONS, child, None, _MARK_SYSCALLS)
        _LIBC.ptrace(_SYSCALL_INFO, child, ctypes.c_void_p(ctypes.sizeof(info)), ctypes.byref(info))
        if info.op == 1:  # on its way in
            calls.append("w" * (info.nr in _WRITES) + "s" * (info.nr in _SYNCS))
            calls.append("a" * (info.nr == _WRITE and info.args[0] == say))
        _LIBC.ptrace(_SYSCALL, child, None, None)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None, most


def _after(child: int, seconds: float) -> int | None:
    time.sleep(seconds)  # the moment of the kill; nothing waits for anything
    os.kill(child, signal.SIGKILL)
    _pid, status = os.waitpid(child, 0)
    return _code(status) if os.WIFEXITED(status) else None


def _code(status: int) -> int:
    if (code := os.waitstatus_to_exitcode(status)) not in (0, NO_TRACING):
        raise SystemExit(f"the writer failed by itself: {code}")
    return code


def main() -> None:
    scene.LARGE.limits()
    for number in range(10):  # whatever is computed on first use, before the forks
        scene.happened(number, gone=[number % 4])
    for line in sys.stdin:
        print(json.dumps(killed(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
