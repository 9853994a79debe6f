"""What a pairwise round costs: whole rounds between a server process and a client process; shares and signatures alone.

The limit for removing masks is the time that ``cryptography``'s AES-CTR, same cipher and key size, needs to write as
many bytes of keystream into a cache-sized buffer. Masking alone stands beside it in ``speed``.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from numpy.typing import NDArray

from benchmarks.case import Measured, Say, ratio, worked
from benchmarks.regression.dealing import Amid
from benchmarks.regression.kernels import write_keystream
from benchmarks.rounds import LENIENT, check_total, people, run_round, update_of, with_ring
from protocols import registry
from protocols.engines.local import Threads
from protocols.pairwise.parameters import parameters_of
from protocols.pairwise.server import PairwiseServer
from protocols.plan import RoundPlan
from protocols.roster import Roster
from protocols.rounds.phases import Phase
from protocols.server import serve
from protocols.simulation.network import local_clients, simulate
from secagg.crypto import labels
from secagg.crypto.keys import AgreementKey, SigningKey, transcript, verify_raw
from secagg.crypto.shamir import reconstruct, split
from secagg.encoding import Encoding
from secagg.errors import UsageError


@dataclass(frozen=True, slots=True)
class Config:
    n: int = 1000
    d: int = 1_000_000
    k: int = 96
    t: int = 67
    drop: float = 0.1
    workers: int = 1
    bits: int = 16
    parts: str = "keys,round,growth"
    growth: str = "100,1000,5000"
    repeats: int = 9

    def __post_init__(self) -> None:
        if not set(self.parts.split(",")) <= _PARTS:
            raise UsageError(f"parts are some of {', '.join(sorted(_PARTS))}")
        if not 0 <= self.drop < 1 or min(self.d, self.t, self.workers, self.repeats) < 1 or self.k < 2 or self.n < 2:
            raise UsageError("n and k are at least 2, d, t, workers and repeats at least 1, drop is in [0, 1)")
        if not all(size.isdecimal() and int(size) >= 20 for size in self.growth.split(",")):
            raise UsageError("growth is a list of numbers of clients, 20 or more, separated by commas")


_PARTS = {"keys", "round", "growth"}
DEFAULTS = Config()


def run(config: Config, say: Say) -> Measured:
    parts = set(config.parts.split(","))
    figures: dict[str, float] = {}
    ratios: dict[str, float] = {}
    if "round" in parts:  # first: the server's peak memory must not be that of something else
        _whole_round(config, figures, ratios, say)
    if "keys" in parts:
        _keys(config, figures, ratios, say)
    if "growth" in parts:
        _growth(config, figures, ratios, say)
    return Measured(figures, ratios)


# The inner loops.


def keystream_seconds(size: int) -> float:
    """The limit for masking ``size`` bytes."""
    started = perf_counter()
    write_keystream(size)
    return perf_counter() - started


def _keys(config: Config, figures: dict[str, float], ratios: dict[str, float], say: Say) -> None:
    say(f"shares: {config.k} of two secrets, threshold {config.t}")
    dealing = Amid(config.k, config.t).seconds(config.repeats)
    figures["agree_s"] = median(_seconds(lambda: _agree(config.k)) for _ in range(config.repeats))
    _signatures(config, figures, ratios)
    figures["deal_s"], figures["open_s"] = dealing.deal, dealing.open
    holders, shares = _dealt(config.n, config.t)
    figures["reconstruct_s"] = median(_seconds(lambda: reconstruct(holders, shares)) for _ in range(config.repeats))


def _agree(k: int) -> None:
    """Keys with all neighbours, for dealing in either direction."""
    sealing = AgreementKey(os.urandom(32))
    for _ in range(k):
        sealing.agree(_PEER)


_PEER = AgreementKey(b"peer" * 8).public


def _signatures(config: Config, figures: dict[str, float], ratios: dict[str, float]) -> None:
    """Verifying and agreeing by the library that is chosen, beside ``cryptography``, and on two threads beside one."""
    signing, agreement = SigningKey(os.urandom(32)), AgreementKey(os.urandom(32))
    message = transcript(labels.ADVERT, *[bytes(32)] * 5)
    signature = signing.sign(labels.ADVERT, *[bytes(32)] * 5)
    theirs = Ed25519PublicKey.from_public_bytes(signing.public)

    def often(work: Callable[[], object]) -> None:
        for _ in range(_OFTEN):
            work()

    def agreed_on(threads: int) -> float:
        with ThreadPoolExecutor(threads) as pool:
            return _seconds(lambda: list(pool.map(often, [lambda: agreement.agree(_PEER)] * 10)))

    took = dict[str, list[float]]()
    for _ in range(5 * config.repeats):
        worked(took, "verify", often, lambda: verify_raw(signing.public, signature, message))
        worked(took, "bare", often, lambda: theirs.verify(signature, message))
    threads = [(agreed_on(1), agreed_on(2)) for _ in range(config.repeats)]
    figures["verify_s"] = median(took["verify"]) / _OFTEN
    figures["agree_one_s"] = median(one for one, _ in threads) / (10 * _OFTEN)
    ratios["verify_vs_cryptography"] = ratio(took, "verify", "bare")
    ratios["agree_two_threads_vs_one"] = median(two / one for one, two in threads)


_OFTEN = 20


def _dealt(n: int, t: int) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    """For each of n secrets, t shares from holders of its own."""
    generator = np.random.default_rng(1)
    holders = np.stack([generator.choice(np.arange(1, n + 1), t, replace=False) for _ in range(n)])
    shares = np.stack([split([os.urandom(32)], t, row.tolist(), os.urandom)[:, 0] for row in holders])
    return holders, shares


# Whole rounds.


def _whole_round(config: Config, figures: dict[str, float], ratios: dict[str, float], say: Say) -> None:
    dropped = round(config.drop * config.n)
    say(f"a whole round: n = {config.n}, d = {config.d}, k = {config.k}, {dropped} clients gone before UPLOAD")
    plan, roster = _plan(config)
    server = PairwiseServer(plan, roster, registry.find(plan.protocol).messages, engine=Threads(config.workers))
    cost = run_round(server, Phase.UPLOAD, roster.names[:: max(config.n // max(dropped, 1), 1)][:dropped])
    removed = server.masks_removed * config.d * plan.ring.dtype.itemsize
    limit = keystream_seconds(removed)
    check_total(server)

    for phase, seconds in cost.client_s.items():
        figures[f"client_{phase}_s"] = seconds / config.n
    for phase, seconds in cost.server_s.items():
        figures[f"server_{phase.replace(' ', '_')}_s"] = seconds
    for phase in cost.bytes_up:
        figures[f"client_{phase}_bytes_up"] = cost.bytes_up[phase] / config.n
        figures[f"client_{phase}_bytes_down"] = cost.bytes_down[phase] / config.n
    total_bytes = config.d * plan.ring.dtype.itemsize
    figures["masks_removed"] = server.masks_removed
    figures["removal_keystream_s"] = limit
    figures["client_extra_mib"] = cost.clients_extra_bytes / 2**20 / config.n
    figures["server_extra_mib"] = cost.server_extra_bytes / 2**20
    figures["server_extra_mib_over_sum"] = (cost.server_extra_bytes - total_bytes) / 2**20
    ratios["upload_expansion"] = sum(cost.bytes_up.values()) / (config.n - dropped) / (config.d * config.bits / 8)


def _plan(config: Config) -> tuple[RoundPlan, Roster]:
    _, roster = people(config.n)
    least = min(config.t, config.n)
    plan = RoundPlan.propose("secagg+", roster, Encoding.integers(config.d, config.bits), min_contributors=least)
    return with_ring(plan, config.k, config.t, round(config.drop * config.n)), roster


def _growth(config: Config, figures: dict[str, float], ratios: dict[str, float], say: Say) -> None:
    """Seconds a client, all parties in this process, d = 10^4, parameters as the protocol chooses them."""
    sizes = [int(size) for size in config.growth.split(",")]
    per_client, degree = {}, {}
    for n in sizes:
        roster, clients = local_clients(n, LENIENT)
        plan = RoundPlan.propose("secagg+", roster, Encoding.integers(10_000, 16), min_contributors=min(50, n))
        degree[n] = parameters_of(plan).degree
        say(f"growth: n = {n}, k = {degree[n]}, d = 10000")
        updates = {name: update_of(number, plan) for number, name in enumerate(roster.names)}
        per_client[n] = _seconds(lambda: simulate(serve(plan, roster), clients, updates.get)) / n  # noqa: B023
        figures[f"growth_{n}_s_per_client"] = per_client[n]
        figures[f"growth_{n}_degree"] = degree[n]
        ratios[f"growth_{n}_vs_k"] = per_client[n] / per_client[sizes[0]] / (degree[n] / degree[sizes[0]])


def _seconds(work: Callable[[], object]) -> float:
    gc.collect()
    started = perf_counter()
    work()
    return perf_counter() - started
