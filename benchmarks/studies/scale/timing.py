"""Processor seconds of one call, in caches that other work has filled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median
from threading import get_native_id
from time import process_time

import numpy as np

from secagg.errors import UsageError

_LEAST_SECONDS = 0.001
OTHER = np.ones(1 << 20)
"""What fills the caches between trials, as other work does between the frames of a round."""


def processor_seconds() -> float:
    """Of this process and those that it has started, which do the work of CKKS (Linux)."""
    seconds = process_time()
    try:
        for child in Path(f"/proc/self/task/{get_native_id()}/children").read_text().split():
            seconds += int(Path(f"/proc/{child}/schedstat").read_text().split()[0]) / 1e9
    except OSError:
        raise UsageError("processor time of other processes is read from /proc, which has none here") from None
    return seconds


def seconds_of(work: Callable[[], object], repeats: int, clock: Callable[[], float] = process_time) -> float:
    """Of one call: the median of several trials, each long enough to be timed. Processor seconds, unless said."""
    work()
    times, trials = 1, list[float]()
    while len(trials) < repeats:
        np.add(OTHER, 1, out=OTHER)
        started = clock()
        for _ in range(times):
            work()
        took = clock() - started
        if took < _LEAST_SECONDS:
            times *= 4
        else:
            trials.append(took / times)
    return median(trials)
