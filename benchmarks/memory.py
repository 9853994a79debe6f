"""The peak of a process's resident memory, in bytes. Linux keeps it, and starts it again on demand."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

from secagg.errors import UsageError


def peak(process: int | str = "self") -> int:
    """Since the process began, or since ``start_peak``."""
    status = Path(f"/proc/{process}/status")
    for line in status.read_text().splitlines():
        if line.startswith("VmHWM"):
            return 1024 * int(line.split()[1])
    raise UsageError(f"peak memory is read from {status}, which has none here")


def start_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        raise UsageError("peak memory is started again by /proc/self/clear_refs, which is not here") from None


def extra_of(work: Callable[[], object]) -> int:
    """The peak of this process during ``work`` beyond what it had before."""
    gc.collect()
    start_peak()
    before = peak()
    work()
    return peak() - before
