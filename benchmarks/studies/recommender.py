"""What secure sums cost a federated recommender, each part in one run on a made-up population, a user a client.

silos    Rounds of DP-SGD with its noise inside the sum, over silos with many users, in turn: with the machines of the
         protocol, and with the same clipping, encoding and noise added up in the clear.

cost     The same rounds twice, in turn: with the machines of the protocol, and with the ideal functionality, which
         encodes and adds up. No noise, the same seeds: so times can be divided, and the two models compared.
memory   Many clients, of which few take part in a round: the peak of each round, which must not grow.
central  Training in rounds without noise or masks, beside the same model trained in one place.
"""

from __future__ import annotations

import gc
from collections import defaultdict
from dataclasses import dataclass
from statistics import median
from time import perf_counter, process_time
from typing import Any, cast

import numpy as np

from benchmarks.case import Measured, Say
from benchmarks.memory import peak, start_peak
from benchmarks.studies.utility.charged import ledger_of
from benchmarks.studies.utility.divided import AMONG, WEAK, Weak
from benchmarks.studies.utility.recipes import FEDERATED
from dp.ledger import Ledger
from protocols.engines.local import Threads
from recsys.aggregator import Aggregator
from recsys.assembly import Prepared, prepare
from recsys.budgets import DistributedNoise
from recsys.config import Config as Asked
from recsys.federated import Federation
from recsys.ideal_aggregator import IdealAggregator
from recsys.models.recommender import SharedModel
from recsys.secure_aggregator import SecureAggregator
from secagg.errors import UsageError

SECRET = bytes(range(32))
_BATCH = 64
"""Clients in a round, beside training in one place with batches of so many users."""


@dataclass(frozen=True, slots=True)
class Config:
    parts: str = "cost,memory,central,silos"
    model: str = "mf"
    """one that trains in rounds"""
    path: str = ""
    """a folder with MovieLens, instead of a made-up population; not for memory"""
    items: int = 9724
    population: int = 610
    clients: int = 100
    """in a round"""
    rounds: int = 3
    epochs: int = 1
    """of local training in a round, for the part on cost"""
    many: int = 10_000
    """clients for the part on memory"""
    long: int = 10
    """rounds of it"""
    central_rounds: int = 0
    """of the part on central training; 0: as many as the recipe says"""
    silos: int = 20
    """for the part on silos"""
    silo_users: int = 200
    """in each of them"""
    silo_items: int = 1000
    workers: int = 2
    corrupt: str = "0.05"
    dropout: str = "0.1"

    def __post_init__(self) -> None:
        if not set(self.parts.split(",")) <= {"cost", "memory", "central", "silos"}:
            raise UsageError("parts are some of cost, memory, central, silos")
        if self.model not in FEDERATED:
            raise UsageError("the model is one that trains in rounds, as mf does")
        if min(self.rounds, self.epochs, self.clients, self.workers) < 1 or self.long < 4 or self.silos < 2:
            raise UsageError("there is a round, epoch, client and worker, and there are 4 rounds for memory, 2 silos")


DEFAULTS = Config()


def run(config: Config, say: Say) -> Measured:
    parts = {"cost": _cost, "memory": _memory, "central": _central, "silos": _silos}
    figures: dict[str, float] = {}
    ratios: dict[str, float] = {}
    for name in config.parts.split(","):
        measured = parts[name](config, say)
        figures |= measured.figures
        ratios |= measured.ratios
    return Measured(figures, ratios)


def _prepared(config: Config, data: dict[str, Any], **training: Any) -> Prepared:
    way = FEDERATED[config.model]
    return prepare(
        Asked.parse(
            {
                "data": data,
                "clients": {"kind": "devices"},
                "model": {"name": config.model, "settings": dict(way.settings)},
                "training": {**way.training, **training},
                "privacy": {"mode": "none"},
                "protocol": {"corrupt": config.corrupt, "dropout": config.dropout, "workers": config.workers},
            }
        )
    )


def _data(config: Config) -> dict[str, Any]:
    if config.path:
        return {"source": "movielens", "path": config.path}
    return {"users": config.population, "item_count": config.items, "habits": "first"}


def _federation(prepared: Prepared, *, secure: bool, ledger: Ledger | None = None) -> tuple[Federation, SharedModel]:
    workers, model = prepared.config.protocol.workers, cast(SharedModel, prepared.model())
    aggregator: Aggregator = IdealAggregator(SECRET)
    if secure:
        aggregator = SecureAggregator(prepared.deployment, SECRET, ledger=ledger, engine=Threads(workers))
    return prepared.federation(model, aggregator, SECRET), model


def _cost(config: Config, say: Say) -> Measured:
    prepared = _prepared(
        config, _data(config), draw="fixed", size=config.clients, rounds=config.rounds, epochs=config.epochs
    )
    sides = {name: _federation(prepared, secure=name == "secure") for name in ("plain", "secure")}
    length = prepared.encoding.length
    prepared.encoding.encode(np.zeros(length), weight=1, seed=bytes(32), rng=bytes)  # loads what is compiled
    clients = len(prepared.client_data.names)
    say(f"{config.rounds} rounds of {config.clients} out of {clients} clients, {length} numbers each")
    wall, seconds = defaultdict[str, float](float), defaultdict[str, float](float)
    sent = 0
    for number in range(config.rounds):
        for side, (federation, _) in sides.items():
            gc.collect()
            began = perf_counter()
            done = federation.advance()
            wall[side] += perf_counter() - began
            for name, value in done.seconds.items():
                seconds[f"{side} {name}"] += value
            sent += done.bytes_up
        say(f"round {number}: {wall['secure']:.2f} s with secure sums so far, {wall['plain']:.2f} s without")
    figures = {f"{name.replace(' ', '_')}_s": value / config.rounds for name, value in {**wall, **seconds}.items()}
    figures["update_s"] = seconds["plain updates"] / config.rounds / config.clients
    figures["bytes_up_a_client"] = sent / config.rounds / config.clients
    plain, secure = (model for _, model in sides.values())
    figures["largest_difference"] = float(np.abs(plain.vector - secure.vector).max())
    figures["quantum"] = 1 / prepared.encoding.scale
    for side, model in (("plain", plain), ("secure", secure)):
        figures |= {f"{side}_{name}": value for name, value in Weak(prepared.split).scored(model)[1].items()}
    without = wall["plain"] - seconds["plain adding"]  # as if encoding and adding up in the clear took no time
    return Measured(
        figures,
        {"secure_vs_plain": wall["secure"] / wall["plain"], "secure_vs_training_alone": wall["secure"] / without},
    )


def _silos(config: Config, say: Say) -> Measured:
    """Wall time, and seconds of all processors, which say more on a machine that does other things as well."""
    prepared = prepare(
        Asked.parse(
            {
                "data": {"users": config.silo_users * config.silos, "item_count": config.silo_items, "habits": "first"},
                "clients": {"count": config.silos},
                "model": {"name": "autoencoder", "settings": {"width": 8, "fading": 0.95}},
                "training": {"rounds": 64, "rate": 1.0, "clip": 0.1, "server": "fedavgm", "server_rate": 15.0},
                "privacy": {"mode": "distributed"},
                "protocol": {"corrupt": config.corrupt, "dropout": config.dropout, "workers": config.workers},
            }
        )
    )
    wall, used, seconds = (defaultdict[str, list[float]](list) for _ in range(3))
    with ledger_of(cast(DistributedNoise, prepared.distributed), SECRET) as ledger:
        sides = {name: _federation(prepared, secure=name == "secure", ledger=ledger)[0] for name in ("clear", "secure")}
        for federation in sides.values():
            federation.advance()  # the first measures, and loads what is compiled
        say(f"{config.rounds} rounds of {config.silos} silos, {prepared.encoding.length} numbers of each user")
        for number in range(config.rounds):
            for side, federation in sides.items():
                gc.collect()
                began, used_before = perf_counter(), process_time()
                done = federation.advance()
                wall[side].append(perf_counter() - began)
                used[side].append(process_time() - used_before)
                for name, value in done.seconds.items():
                    seconds[f"{side} {name}"].append(value)
            say(f"round {number + 1}: {wall['secure'][-1]:.2f} s with secure sums, {wall['clear'][-1]:.2f} s without")
    figures = {f"silos_{name.replace(' ', '_')}_s": median(values) for name, values in {**wall, **seconds}.items()}
    figures |= {f"silos_{name}_processor_s": median(values) for name, values in used.items()}
    return Measured(
        figures,
        {
            "secure_over_clear": median(wall["secure"]) / median(wall["clear"]),
            "secure_over_clear_processor": median(used["secure"]) / median(used["clear"]),
        },
    )


def _memory(config: Config, say: Say) -> Measured:
    """The peak of each round alone (Linux starts it again on demand); from the third on it must not grow."""
    prepared = _prepared(
        config,
        {"users": config.many, "item_count": config.items, "habits": "first"},
        draw="fixed",
        size=config.clients,
        rounds=config.long,
    )
    federation, _ = _federation(prepared, secure=True)
    gc.collect()
    start_peak()
    before, peaks = peak(), list[int]()
    for number in range(config.long):
        start_peak()
        federation.advance()
        peaks.append(peak())
        say(f"round {number} of {config.many} clients: {peaks[-1] / 2**20:.0f} MiB")
    figures = {
        "memory_before_mib": before / 2**20,
        "memory_round_3_mib": peaks[2] / 2**20,
        "memory_last_round_mib": peaks[-1] / 2**20,
    }
    return Measured(figures, {"memory_growth": peaks[-1] / peaks[2]})


def _central(config: Config, say: Say) -> Measured:
    rounds = config.central_rounds or FEDERATED[config.model].training["rounds"]
    prepared = _prepared(config, _data(config), measured=0.0, rounds=rounds, draw="fixed", size=_BATCH)
    federation, federated = _federation(prepared, secure=False)
    clients = len(prepared.client_data.names)
    say(f"{rounds} rounds with {prepared.planned_clients} of {clients} clients, then training in one place")
    for _ in range(rounds):
        federation.advance()
    central = prepared.model()
    central.fit(prepared.split.train)
    figures: dict[str, float] = {}
    for side, model in (("federated", federated), ("central", central)):
        figures |= {f"{side}_{name}": value for name, value in Weak(prepared.split).scored(model)[1].items()}
    for name in (*WEAK, *AMONG):
        figures[f"federated_minus_central_{name}"] = figures[f"federated_{name}"] - figures[f"central_{name}"]
    return Measured(figures, {})
