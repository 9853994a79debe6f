"""Threshold CKKS beside what is used today: TenSEAL with NVFlare's parameters, one key for all, one core each.

*encrypt* is both on the same vector, in turns, down to the bytes (``beside``). ``n`` sizes ring and flooding; a whole
round is made with ``clients`` of them, one of whom falls silent after its upload, so that its part of the key is
rebuilt.
"""

from __future__ import annotations

import gc
import os
from dataclasses import dataclass
from math import log2
from statistics import median

import numpy as np
from numpy.typing import NDArray

from benchmarks.baselines import nvflare_encryption, pairwise_masking
from benchmarks.case import Measured, Say, timed
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.rounds.phases import Phase
from protocols.server import serve
from protocols.simulation.network import Faults, local_clients, simulate
from protocols.threshold_ckks.scheme import Scheme
from protocols.threshold_ckks.sizes import Sizes, choose_sizes
from secagg.assumptions import Adversary
from secagg.crypto.lattice.polynomials import Coefficients
from secagg.encoding import Encoding
from secagg.errors import UsageError


@dataclass(frozen=True, slots=True)
class Config:
    n: int = 100
    d: int = 1_000_000
    bits: int = 16
    clients: int = 6
    repeats: int = 5
    tenseal: int = 1  # 0: without the comparison

    def __post_init__(self) -> None:
        if not 4 <= self.clients <= self.n or min(self.d, self.repeats) < 1:
            raise UsageError("of n clients at least 4 take part, d and repeats are at least 1")


DEFAULTS = Config()


def run(config: Config, say: Say) -> Measured:
    figures: dict[str, float] = {}
    ratios: dict[str, float] = {}
    width = Encoding.integers(config.d, config.bits).ring_bits(config.n)
    scheme = Scheme.of(choose_sizes(width, config.n, config.d), os.urandom(32))
    _sizes(scheme.sizes, width, figures, ratios)
    say(f"one vector: N = {scheme.ring.degree}, {scheme.sizes.layout.values} values a coefficient")
    _steps(config, scheme, width, figures, ratios)
    say(f"a round of {config.clients} clients")
    _round(config, figures)
    return Measured(figures, ratios)


def _sizes(sizes: Sizes, width: int, figures: dict[str, float], ratios: dict[str, float]) -> None:
    ring, d = sizes.layout.ring, sizes.length
    figures["degree"], figures["modulus_bits"], figures["values"] = ring.degree, ring.bits, sizes.layout.values
    figures["flooding_sigma_log2"] = log2(sizes.flooding) / 2
    figures["failure_log2"], figures["flooding_log2"] = sizes.failure_log2, sizes.flooding_log2
    figures["bytes_per_coordinate"] = (sizes.c0_bytes + sizes.c1_bytes) / d
    figures["partial_bytes_per_coordinate"] = sizes.c0_bytes / d
    figures["key_bytes"] = sizes.key_bytes
    ratios["upload_expansion"] = (sizes.c0_bytes + sizes.c1_bytes) / (d * width / 8)


def _steps(config: Config, scheme: Scheme, width: int, figures: dict[str, float], ratios: dict[str, float]) -> None:
    values, seeds = _values(0, config), [os.urandom(32), os.urandom(32)]
    joint = scheme.public(seeds[0]) + scheme.public(seeds[1])
    theirs = nvflare_encryption(values) if config.tenseal else None
    took: dict[str, list[float]] = {}
    for _ in range(config.repeats):
        gc.collect()
        timed(took, "part_of_key", _part_of_key, scheme)
        sent = timed(took, "encrypt", _encrypted, scheme, joint, values)
        if theirs is not None:
            figures["nvflare_bytes_per_coordinate"] = len(timed(took, "nvflare_encrypt", theirs)) / config.d
        timed(took, "pairwise_mask", pairwise_masking, values, width)
        c0, c1 = timed(took, "unpack", _received, scheme, *sent)
        partials = [timed(took, "partial", _partial, scheme, c1, seed) for seed in seeds]
        decoded = timed(took, "decode", scheme.decode, c0 + partials[0] + partials[1])
        if not np.array_equal(decoded, values):
            raise RuntimeError("the sum is wrong")
    for step, seconds in took.items():
        figures[f"{step}_s"] = median(seconds)
    pairs = zip(took["encrypt"], took["pairwise_mask"], strict=True)
    ratios["encrypt_vs_pairwise"] = median(ours / other for ours, other in pairs)
    if theirs is not None:
        pairs = zip(took["encrypt"], took["nvflare_encrypt"], strict=True)
        ratios["encrypt_vs_nvflare"] = median(ours / other for ours, other in pairs)
        ratios["bytes_vs_nvflare"] = figures["bytes_per_coordinate"] / figures["nvflare_bytes_per_coordinate"]


def _part_of_key(scheme: Scheme) -> bytes:
    return scheme.pack_key(scheme.public(os.urandom(32)))


def _encrypted(scheme: Scheme, joint: Coefficients, values: NDArray[np.int64]) -> tuple[bytes, bytes]:
    c0, c1 = scheme.encrypt(joint, values, os.urandom(32))
    return scheme.pack_used(c0), scheme.pack_all(c1)


def _received(scheme: Scheme, c0: bytes, c1: bytes) -> tuple[Coefficients, Coefficients]:
    return scheme.unpack_used(c0), scheme.unpack_all(c1)


def _partial(scheme: Scheme, c1: Coefficients, seed: bytes) -> Coefficients:
    return scheme.partial(c1, seed, flooded_by=os.urandom(32))


def _round(config: Config, figures: dict[str, float]) -> None:
    policy = Policy(min_contributors=2, protocols={"threshold_ckks"}, adversary=Adversary.CURIOUS, dropout="0.25")
    roster, clients = local_clients(config.clients, policy)
    encoding = Encoding.integers(config.d, config.bits)
    plan = RoundPlan.propose("threshold_ckks", roster, encoding, min_contributors=2, dropout="0.25")
    updates = {name: _values(number, config) for number, name in enumerate(roster.names)}
    gone = Faults(dropouts={roster.names[0]: Phase.DECRYPT})
    ran = simulate(serve(plan, roster), clients, updates.get, faults=gone)
    if not np.array_equal(ran.outcome.total, sum(updates.values())):
        raise RuntimeError("the sum is wrong")
    for phase, seconds in ran.seconds.items():
        figures[f"round_{phase}_s"] = seconds
    figures["client_bytes_up"] = sum(ran.bytes_up.values()) / config.clients
    figures["client_bytes_down"] = sum(ran.bytes_down.values()) / config.clients


def _values(number: int, config: Config) -> NDArray[np.int64]:
    largest = Encoding.integers(config.d, config.bits).largest
    return np.random.default_rng(number).integers(-largest, largest, config.d, endpoint=True)
