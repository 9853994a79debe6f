"""Adapters of a text encoder, trained by silos: what the sums cost, and what training apart, and noise, cost.

Two towers over the texts of items, in five ways:

    frozen                the encoder stands still; the towers are trained on all data in one place
    central               the same, and FFA-LoRA adapters in the encoder's last layer with them
    federated             towers and adapters, by silos, in sums without noise; the server takes Adam's steps
    federated, epsilon E  the same under privacy: each user moves the model alone, and is the unit
    frozen, epsilon E     the towers alone, as privately

How each is trained, and for how long, was chosen on made-up populations of 600 users (``docs/benchmarks.md``).

NDCG@10 is over all items. ``adapter_overhead`` is what a secure round takes beyond the clients' training, as a part of
it: the time of all silos and the server together, in one process, of a round with one pass.

The encoder is the one that is named, else a tiny one with random weights, which says nothing about quality; the items
are those that most have taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any, cast

from benchmarks.case import Measured, Say
from benchmarks.studies.large.config import Config
from benchmarks.studies.large.tiny import tiny_encoder, titled_tables
from benchmarks.studies.utility.cells import Kind, of_sums
from recsys.aggregator import Aggregator, Request, Result, Update
from recsys.assembly import Prepared, prepare
from recsys.config import Config as RunConfig
from recsys.metrics.ranking import Scorer, evaluate
from recsys.models.over_text import TwoTower
from recsys.models.recommender import Local, SharedModel
from recsys.models.tuned_encoder import TunedEncoder
from recsys.secure_aggregator import SecureAggregator
from recsys.text.coordinates import COORDINATES, Coordinates
from recsys.text.layers import LayeredVectors

METRIC = "NDCG@10"
TUNED, FROZEN = "tuned-encoder", "two-tower"

_TOWERS: Mapping[str, Any] = {"width": 32, "recent": 20, "negatives": 200, "dropout": 0.0, "popular": False}
_APART = {"rounds": 20, "batch": 64, "rate": 1.0, "clip": 100.0, "server": "fedadam", "server_rate": 0.03}
_PRIVATE = {"rounds": 8, "rate": 1.0, "server": "fedavgm", "momentum": 0.9, "server_rate": 2.0, "clip": 0.3}
_CENTRAL = Local(epochs=8, batch=32, rate=0.003)
_ALPHA = 2.0
"""of the adapters that silos train; of those in one place 16. It says how far a step of Adam moves a map, and the
server's steps are ten times as large as those in one place"""
ENCODED = 8


def run(config: Config, say: Say) -> Measured:
    with TemporaryDirectory() as folder:
        source = _source(config, Path(folder))
        figures, ratios = _overhead(config, source, say)
        found = dict[str, list[float]]()
        for seed in range(config.seeds):
            for name, model, items in _models(config, source, seed):
                score = evaluate(model, items.split).mean(METRIC)
                found.setdefault(name, []).append(score)
                say(f"seed {seed}, {name}: {METRIC} {score:.4f}")
    figures |= {name: mean(scores) for name, scores in found.items()}
    ratios["ffa_vs_central"] = figures["federated"] / figures["central"]
    ratios["central vs frozen"] = figures["central"] / figures["frozen"]
    for epsilon in config.budgets:
        ratios[f"tuned vs frozen, epsilon {epsilon:g}"] = (
            figures[f"federated, epsilon {epsilon:g}"] / figures[f"frozen, epsilon {epsilon:g}"]
        )
    return Measured(figures, ratios)


def _models(config: Config, source: dict[str, Any], seed: int) -> Iterator[tuple[str, Scorer, Prepared]]:
    """Trained in each way, by name."""
    prepared = prepare(_run(config, source, TUNED, seed))
    vectors = cast(LayeredVectors, prepared.vectors)
    text = Coordinates.of(vectors, COORDINATES)
    for name, made in (
        ("frozen", TwoTower(text, central=_CENTRAL, **_TOWERS)),
        ("central", TunedEncoder(text, vectors, central=_CENTRAL, encoded=ENCODED, **_TOWERS)),
    ):
        made.fit(prepared.split.train, seed)
        yield name, made, prepared
    yield "federated", of_sums(prepared, Kind.NOISELESS, ideal=True)[0], prepared
    for epsilon in config.budgets:
        for name, model in (("federated", TUNED), ("frozen", FROZEN)):
            prepared = prepare(_run(config, source, model, seed, epsilon))
            yield f"{name}, epsilon {epsilon:g}", of_sums(prepared, Kind.PRIVATE, ideal=True)[0], prepared


def _run(config: Config, source: dict[str, Any], model: str, seed: int, epsilon: float = 0.0) -> RunConfig:
    settings: dict[str, Any] = dict(_TOWERS)
    if model == TUNED:
        settings |= {"tokens": config.tokens, "encoded": ENCODED, "alpha": _ALPHA}
    privacy: dict[str, Any] = {"mode": "none"}
    if epsilon:
        privacy = {"mode": "distributed", "epsilon": epsilon, "n_min": config.n_min or config.users}
    return RunConfig.parse(
        {
            "title": f"{model}, seed {seed}",
            "seed": seed,
            "data": source["data"],
            "clients": {"kind": "silos", "count": config.silos},
            "model": {"name": model, "encoder": source["encoder"], "settings": settings},
            "training": {"measured": 0.0, **(_PRIVATE if epsilon else _APART)},
            "privacy": privacy,
            "protocol": {"name": "secagg+"},
        }
    )


def _source(config: Config, folder: Path) -> dict[str, Any]:
    """Where events, items and encoder are; what is made up is written to ``folder``."""
    encoder = config.encoder or str(tiny_encoder(folder / "encoder"))
    return {"encoder": encoder, "data": titled_tables(config, folder)}


def _overhead(config: Config, source: dict[str, Any], say: Say) -> tuple[dict[str, float], dict[str, float]]:
    """Rounds over ten silos under secagg+; what the clients' training takes is measured within each."""
    run = _run(replace(config, silos=10), source, TUNED, 0)
    prepared, secret = prepare(run), bytes(32)
    training, more = list[float](), list[float]()
    for _ in range(config.repeats):
        timed = _Timed(SecureAggregator(prepared.deployment, secret, seed=0))
        prepared.federation(cast(SharedModel, prepared.model()), timed, secret).advance()
        training.append(timed.training)
        more.append(timed.whole - timed.training)
    say(f"a round of training {median(training):.2f} s, and {median(more):.2f} s for secagg+")
    figures = {"training, s": median(training), "secagg+, s": median(more)}
    return figures, {"adapter_overhead": median(more) / median(training)}


@dataclass(slots=True)
class _Timed:
    """An aggregator, the processor time of its sums, and how much of it is the clients' training."""

    aggregator: Aggregator
    training: float = 0.0
    whole: float = 0.0

    def aggregate(self, request: Request, update: Update) -> Result:
        def timed(name: str) -> Any:
            began = process_time()
            found = update(name)
            self.training += process_time() - began
            return found

        began = process_time()
        result = self.aggregator.aggregate(request, timed)
        self.whole += process_time() - began
        return result
