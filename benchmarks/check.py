"""``make bench-check``: ratios of ``secagg bench speed`` beside those that are committed, in half a minute.

``limits.json`` has for each ratio what was measured when it was written, and the most that is tolerated: so far away
that a busy machine does not break it, and so near that the loss of a compiled pass, or a copy that comes back, does. A
ratio is of two things timed in turns in one run, so most of what a machine does to one it does to the other. What is
above its limit is measured again, twice at most, and the least counts: noise passes, a slower program does not.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.case import run_case
from secagg.cli.output import say

LIMITS = Path(__file__).with_name("limits.json")
_SETTINGS = ("parts=kernels,clients,upload", "repeats=9")
_TRIES = 3
_LINE = "{:28}{:>8}{:>12}{:>10}"

Measure = Callable[[], Mapping[str, float]]
"""Measures all ratios once."""


@dataclass(frozen=True, slots=True)
class Limit:
    """Of one ratio."""

    measured: float
    at_most: float


def limits(path: Path = LIMITS) -> dict[str, Limit]:
    """
    >>> all(limit.measured < limit.at_most for limit in limits().values())
    True
    """
    return {name: Limit(**values) for name, values in json.loads(path.read_text()).items()}


def least(wanted: Mapping[str, Limit], measure: Measure) -> dict[str, float]:
    """The least of up to three measurements of each ratio, of which the first is enough if it is within its limit.

    >>> noisy = iter([{"a": 3.0, "b": 1.0}, {"a": 1.2, "b": 9.0}])
    >>> least({"a": Limit(1.0, 2.0), "b": Limit(1.0, 2.0)}, lambda: next(noisy))
    {'a': 1.2, 'b': 1.0}
    """
    found = dict.fromkeys(wanted, float("inf"))
    for _ in range(_TRIES):
        now = measure()
        found = {name: min(value, now[name]) for name, value in found.items()}
        if all(found[name] <= limit.at_most for name, limit in wanted.items()):
            break
    return found


def main() -> int:
    """The exit status: 1 if a ratio is above its limit."""
    wanted = limits()
    found = least(wanted, lambda: run_case("speed", _SETTINGS, partial(say, aside=True)).ratios)
    above = [name for name, limit in wanted.items() if found[name] > limit.at_most]
    say(_LINE.format("ratio", "now", "committed", "at most"))
    for name, limit in wanted.items():
        numbers = (f"{value:.2f}" for value in (found[name], limit.measured, limit.at_most))
        say(_LINE.format(name, *numbers) + ("   above" if name in above else ""))
    return 1 if above else 0


if __name__ == "__main__":
    sys.exit(main())
