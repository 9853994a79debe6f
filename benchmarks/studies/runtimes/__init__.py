"""What a securely aggregated round costs inside another system, beside a plain one of the same app in the same run.

Plain and secure averaging make rounds in turn, with the same clients, the same model and the same training, which takes
each client so many seconds of processor time (``training``, with commas between them). Several exchanges take the place
of one, and runtimes look for messages at intervals: what that costs is nearly the same whatever the training takes, so
it weighs most beside no training at all.

*flower* is Flower's simulation with ``clients``, *nvflare* NVFlare's simulator with ``sites``, each a process. Both run
in a child process in namespaces of its own, with no network but ``lo``: Ray opens ports on all addresses. Where there
are no such namespaces, ``network=shared`` goes without.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.case import Measured, Say
from protocols import registry
from secagg.errors import UsageError
from secagg.extras import need
from secagg.files import write_file

PARTS = ("flower", "nvflare")
"""Each is called as the extra that it needs."""


@dataclass(frozen=True, slots=True)
class Config:
    parts: str = "flower,nvflare"
    clients: int = 10
    sites: int = 4
    d: int = 1_000_000
    rounds: int = 5
    training: str = "0,0.5,1"
    protocol: str = "secagg+"
    network: str = "own"

    def __post_init__(self) -> None:
        if unknown := set(self.parts.split(",")) - set(PARTS):
            raise UsageError(f"unknown parts {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
        if min(self.clients, self.sites) < 4 or min(self.d, self.rounds) < 1:
            raise UsageError("there are at least 4 clients and sites, d and rounds are at least 1")
        if self.network not in ("own", "shared"):
            raise UsageError(f"network is own or shared, not {self.network!r}")
        registry.find(self.protocol)
        _ = self.seconds

    @property
    def seconds(self) -> list[float]:
        try:
            found = [float(part) for part in self.training.split(",")]
        except ValueError:
            found = [-1.0]
        if not all(0 <= value < 3600 for value in found):
            raise UsageError(f"training is seconds with commas between them, not {self.training!r}")
        return found


DEFAULTS = Config()

_ALONE = ["unshare", "-rnpf", "--kill-child", "--mount-proc", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
_QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "RAY_USAGE_STATS_ENABLED": "0"}
_CHILD = "from benchmarks.studies.runtimes.{part} import main; main()"

Rounds = list[dict[str, Any]]


def run(config: Config, say: Say) -> Measured:
    if config.network == "own" and not can_be_alone():
        raise UsageError("no namespaces can be made here, and Ray listens on all addresses: see network=shared")
    figures: dict[str, float] = {}
    ratios: dict[str, float] = {}
    for part in config.parts.split(","):
        need(part, f"the comparison with {part}")
        say(f"{part}: {2 + 2 * config.rounds * len(config.seconds)} rounds")
        with TemporaryDirectory() as folder:
            rounds, states = _in_child(part, config, Path(folder))
        if states:
            figures[f"{part}_state_bytes"] = max(states)
        for seconds in config.seconds:
            _compare(part, seconds, rounds, figures, ratios)
    return Measured(figures, ratios)


def _compare(part: str, training: float, rounds: Rounds, figures: dict[str, float], ratios: dict[str, float]) -> None:
    plain, secure = (
        [one for one in rounds if (one["kind"], one["training"]) == (kind, training)] for kind in ("plain", "secure")
    )
    figures[f"{part}_plain_{training:g}_s"] = median(one["seconds"] for one in plain)
    figures[f"{part}_secure_{training:g}_s"] = median(one["seconds"] for one in secure)
    for phase in secure[0]["phases"]:
        figures[f"{part}_secure_{training:g}_{phase}_s"] = median(one["phases"][phase] for one in secure)
    pairs = zip(secure, plain, strict=True)
    ratios[f"{part}_secure_vs_plain_{training:g}"] = median(ours["seconds"] / its["seconds"] for ours, its in pairs)


def can_be_alone() -> bool:
    """Whether a process can have namespaces of its own here."""
    try:
        return subprocess.run([*_ALONE, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _in_child(part: str, config: Config, folder: Path) -> tuple[Rounds, list[int]]:
    """The rounds, and how many bytes of state clients had, each time."""
    clients = config.clients if part == "flower" else config.sites
    asked = asdict(config) | {"clients": clients, "training": config.seconds}
    write_file(folder / "settings.json", json.dumps(asked).encode(), private=False)
    done = subprocess.run(
        [*(_ALONE if config.network == "own" else []), sys.executable, "-c", _CHILD.format(part=part)],
        env=os.environ | _QUIET | {"SECAGG_RUNTIMES": str(folder), "PYTHONPATH": str(Path(__file__).parents[3])},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    found, states = folder / "rounds.json", folder / "states"
    if done.returncode or not found.exists():
        raise RuntimeError(f"the child process failed:\n{done.stdout[-4000:]}")
    return json.loads(found.read_text()), [int(line) for line in states.read_text().split()] if states.exists() else []
