"""The case ``engines`` on small numbers, on real Ray (which listens on 127.0.0.1 only), and what it refuses."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.regression import engines
from benchmarks.regression.engines import DEFAULTS
from protocols.engines import Engine
from protocols.engines.local import Threads
from secagg.crypto.ring import Words
from secagg.errors import UsageError

SMALL = {
    "d": 70_000,
    "masks": 4,
    "repeats": 1,
    "crowd": 24,
    "crowd_d": 50,
    "drop": 0.05,
    "tree": 60,
    "cohort": 30,
}


@pytest.mark.long
def test_all_parts_are_measured() -> None:
    """In a process of its own, as Ray leaves some of its resources to the interpreter's end."""
    pytest.importorskip("ray", reason="NOT TESTED: the case needs the extra ray")
    settings = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    command = "import sys; from secagg.cli import main; sys.exit(main(sys.argv[1:]))"
    ran = subprocess.run(
        [sys.executable, "-c", command, "bench", "engines", *settings, "--json"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    report = json.loads(ran.stdout.splitlines()[-1])
    figures, ratios = report["figures"], report["ratios"]
    assert set(ratios) == {"removal_speedup_threads", "removal_speedup_ray", "removal_cpu_threads"}
    assert figures["crowd_24_survivors"] == 24 - 2
    assert figures["crowd_24_all_mib"] > figures["crowd_24_server_mib"] + figures["crowd_24_worker_mib"]
    assert figures["tree_clients"] == 60
    assert figures["tree_cohorts"] == 2


def test_wrong_sums_are_worth_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def add_wrongly(engine: Engine, target: Words, _plus: list[bytes], _minus: list[bytes]) -> None:
        target += np.uint32(engine.workers)

    monkeypatch.setattr(engines, "add_masks_on", add_wrongly)
    with pytest.raises(RuntimeError, match="masks are wrong"):
        engines._removal(replace(DEFAULTS, d=9, masks=4), {"threads": Threads(2)}, {}, {}, lambda line: None)
    with pytest.raises(RuntimeError, match="sum is wrong"):
        engines._check(np.zeros(3), ["client-1"], 3)


@pytest.mark.parametrize(
    "settings",
    [
        {"parts": "removal,nothing"},
        {"workers": 0},
        {"masks": 0},
        {"crowd": "19"},
        {"crowd": "many"},
        {"drop": 0.5},
        {"tree": 500},
        {"cohort": 5},
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        replace(DEFAULTS, **settings)  # type: ignore[arg-type]
