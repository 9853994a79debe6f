"""The cases of ``secagg bench``: where each is found, how one is run, and what it gives back.

A case is a module with ``DEFAULTS`` (a frozen dataclass, one field a setting) and ``run(config, say)``, which returns
figures and ratios. Ratios compare two things measured in the same run; figures are what they were made from.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from importlib import import_module
from pathlib import Path
from statistics import median
from time import perf_counter, thread_time
from typing import Any

from secagg.errors import UsageError
from secagg.machine import machine

REGRESSION = {
    "ckks": "CKKS: bytes a coordinate, and time beside the bare TenSEAL calls.",
    "dp": "Samplers, calibration, accounting, the ledger, embedding gradients against Opacus.",
    "encode": "Users' vectors to integers: compiled loops beside numpy, random words, whole silos.",
    "engines": "What cores and Ray buy: removal of masks by ranges, thousands of clients, trees of cohorts.",
    "lattice": "Transforms against SEAL's, sampling, packing and exact decoding of coefficients.",
    "oneshot": "One-shot sums: client and server beside pairwise masks and bare additions; what dropouts cost.",
    "pairwise": "SecAgg and SecAgg+: phases, bytes, memory, masking against the keystream limit.",
    "params": "The slowest choices of neighbours and thresholds, up to ten million clients.",
    "speed": "What is not masks: encoding, packing, adding, a server's uploads and rounds beside their limits.",
    "threshold_ckks": "Threshold CKKS: bytes, and time beside TenSEAL with NVFlare's parameters.",
}
STUDIES = {
    "bytes": "What clients send where it is less than a number for each coordinate, and what that costs.",
    "correlated": "Noise that is correlated over the steps of a training: errors and NDCG@10 beside independent noise.",
    "edge": "Models on devices: bytes and their quality, a user's list beside torch, approximate search; sealed files.",
    "flow": "Streams: events a second, memory, kills. Clients that come when they are ready: time to a quality.",
    "large": "Recommenders that know what items are about: items and users that came after training; adapters.",
    "liars": "SecAgg and SecAgg+ with clients that lie: the server's time, what the exchange costs, random rounds.",
    "peers": "Whole rounds beside Flower's SecAgg+, uploads beside NVFlare's CKKS, attacks on both; or --quick.",
    "population": "How near the made-up population comes to real data: density, tail, what models gain over ItemPop.",
    "recommender": "What secure sums cost a federated recommender: time, memory, quality.",
    "runtimes": "Secure rounds beside plain ones of the same app in Flower's and NVFlare's simulations.",
    "scale": "What rounds cost with 10^3 to 10^8 clients: a model, checked against real rounds; trees of cohorts.",
    "turns": "Clients that take turns: how much less noise a run over cohorts has, and its epsilon from a real ledger.",
    "uneven": "Silos that differ: FedProx, SCAFFOLD and weights by users beside FedAvg, over Dirichlet's alpha.",
    "utility": "What privacy costs a recommender: models x budgets x seeds, beside references; over silos or devices.",
}
"""The name of a case, which is also that of its module in ``benchmarks.regression`` or ``benchmarks.studies``, and what
it measures."""

CASES = dict(sorted((REGRESSION | STUDIES).items()))

QUICK = {
    "bytes": (
        "sparse_items=20000",
        "sparse_users=100",
        "sparse_touches=20",
        "sparse_least=2",
        "training_users=200",
        "training_items=100",
        "training_seeds=2",
        "training_rounds=3",
    ),
    "correlated": ("users=300", "items=200", "gaps=5", "epsilons=3", "steps=20", "bands=5", "compared_on=2"),
    "edge": ("users=300", "items=1000", "passes=3", "repeats=20", "million=20000"),
    "engines": ("masks=200", "crowd=200", "tree=300", "cohort=100", "repeats=3"),
    "flow": (
        *("events=20000", "users=2000", "kills=5", "killed_events=200"),
        *("wall_users=900", "wall_silos=30", "wall_size=10", "wall_rounds=24", "wall_seeds=1"),
    ),
    "large": ("users=800", "items=400", "models=ItemPop,popularity within genre,private-ease", "seeds=2", "passes=2"),
    "liars": ("n=40", "d=1000", "large_n=100", "large_d=1000", "rounds=4", "repeats=1"),
    "peers": ("n=10", "d=10000,100000", "repeats=2"),
    "population": ("sizes=943x1682", "models=ItemKNN,EASE,tuned EASE", "seeds=3"),
    "recommender": ("items=2000", "clients=30", "rounds=2", "many=1000", "long=5", "central_rounds=50"),
    "runtimes": ("training=0,0.5", "rounds=3"),
    "scale": ("n=20,60", "d=2000", "long_n=8", "long_d=100000", "repeats=1", "cohorts=100,1000"),
    "speed": ("d=100000", "n=100", "k=20", "t=14"),
    "uneven": ("alphas=0.1,10", "users=300", "items=200", "seeds=2", "rounds=10", "out=runs/uneven-quick"),
    "utility": ("users=300", "items=500", "models=private-ease,mf", "seeds=2", "out=runs/utility-quick"),
}
"""The settings with which a case takes minutes, for those that take longer."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Measured:
    figures: Mapping[str, float]
    ratios: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Report:
    case: str
    config: Mapping[str, Any]
    machine: Mapping[str, Any]
    commit: str
    figures: Mapping[str, float]
    ratios: Mapping[str, float]


def run_case(case: str, settings: Sequence[str], say: Say) -> Report:
    """Run a case with ``key=value`` settings over its defaults."""
    if case not in CASES:
        raise UsageError(f"unknown benchmark {case!r}; there are {', '.join(CASES)}")
    module = import_module(f"benchmarks.{'regression' if case in REGRESSION else 'studies'}.{case}")
    config = configured(module.DEFAULTS, settings)
    measured: Measured = module.run(config, say)
    return Report(case, asdict(config), machine(), commit(), measured.figures, measured.ratios)


def configured(defaults: Any, settings: Sequence[str]) -> Any:
    """``defaults`` with some fields replaced, each read as the type it has there."""
    kinds = {field.name: type(getattr(defaults, field.name)) for field in fields(defaults)}
    changes: dict[str, Any] = {}
    for setting in settings:
        key, separator, value = setting.partition("=")
        if not separator or key not in kinds:
            raise UsageError(f"{setting!r} is not one of {', '.join(f'{name}=...' for name in kinds)}")
        try:
            changes[key] = kinds[key](value) if kinds[key] is not int else int(float(value))
        except (ValueError, OverflowError):
            wanted = "a whole number" if kinds[key] is int else "a number"
            raise UsageError(f"{key} is {wanted}, not {value!r}") from None
    return replace(defaults, **changes)


def timed(took: dict[str, list[float]], name: str, work: Callable[..., Any], *arguments: Any) -> Any:
    """What ``work`` returns; the seconds go to ``took``."""
    started = perf_counter()
    result = work(*arguments)
    took.setdefault(name, []).append(perf_counter() - started)
    return result


def worked(took: dict[str, list[float]], name: str, work: Callable[..., Any], *arguments: Any) -> Any:
    """``timed`` by the clock of this thread's processor: for work of one thread that waits for nothing."""
    started = thread_time()
    result = work(*arguments)
    took.setdefault(name, []).append(thread_time() - started)
    return result


def ratio(took: Mapping[str, list[float]], one: str, other: str) -> float:
    """The median of ratios of what was timed in turns."""
    return median(a / b for a, b in zip(took[one], took[other], strict=True))


def commit() -> str:
    """The commit of the source tree, "+" appended when it has been changed; "unknown" outside a checkout."""
    root = Path(__file__).parent.parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return described.stdout.strip()
