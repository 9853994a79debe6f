"""What a CKKS round costs beside the bare TenSEAL calls that it is made of, with which everybody starts.

Bare: in this process, the same parameters, one vector after the other: encrypt and serialise, load and add, load and
decrypt, with ``tenseal.ckks_vector``. Ours, on the same vectors: *engine*, the calls that the machines make, through
the child process and with checks, rounding and recombining; *round*, whole rounds, with hashing, signing, sealing,
journal and frames on top, from which the key's phases are left out and shown apart. Beside encryption stand that with
NVFlare's parameters, and a client's masks in SecAgg+ (``beside``).
"""

from __future__ import annotations

import gc
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.baselines import nvflare_encryption, pairwise_masking
from benchmarks.case import Measured, Say, timed
from protocols.ckks import ciphertexts
from protocols.ckks.layout import DEGREE, MODULI, SLOTS, Layout
from protocols.ckks.parameters import layout_of
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.rounds.phases import Phase
from protocols.server import serve
from protocols.simulation.network import Envelope, Faults, local_clients, simulate
from secagg.assumptions import Adversary
from secagg.encoding import Encoding
from secagg.errors import UsageError


@dataclass(frozen=True, slots=True)
class Config:
    n: int = 1000
    d: int = 1_000_000
    bits: int = 16
    clients: int = 4
    repeats: int = 5

    def __post_init__(self) -> None:
        if not 2 <= self.clients <= self.n or min(self.d, self.repeats) < 1:
            raise UsageError("of n clients at least 2 take part, d and repeats are at least 1")


DEFAULTS = Config()


def run(config: Config, say: Say) -> Measured:
    """``n`` sizes scale and sum; ``clients`` really take part."""
    ciphertexts.require()
    figures: dict[str, float] = {}
    ratios: dict[str, float] = {}
    layout = Layout.choose(Encoding.integers(config.d, config.bits).ring_bits(config.n), config.n, config.d)
    _beside_bare(config, layout, figures, ratios, say)
    _round(config, figures, ratios, say)
    return Measured(figures, ratios)


# One vector: encrypted, added to another, decrypted.


def _beside_bare(config: Config, layout: Layout, figures: dict[str, float], ratios: dict[str, float], say: Say) -> None:
    import tenseal as ts

    say(f"one vector: d = {config.d}, {layout.digits} slots a coordinate, scale 2^{layout.scale_bits}")
    context = ts.context(ts.SCHEME_TYPE.CKKS, DEGREE, -1, list(MODULI), n_threads=1)
    pair, values = ciphertexts.make_keys(), _values(1, config)
    nvflare, width = nvflare_encryption(values), Encoding.integers(config.d, config.bits).ring_bits(config.n)
    took: dict[str, list[float]] = {}
    for _ in range(config.repeats):
        gc.collect()
        figures["nvflare_bytes_per_coordinate"] = len(timed(took, "nvflare_encrypt", nvflare)) / config.d
        timed(took, "pairwise_mask", pairwise_masking, values, width)
        bare = _bare(ts, context, layout, values, took)
        ours = _engine(layout, pair, values, took)
        if not np.array_equal(ours, 2 * values) or np.abs(bare - layout.split(2 * values)).max() > layout.error:
            raise RuntimeError("the sum is wrong")
    for step, seconds in took.items():
        figures[f"{step}_s"] = median(seconds)
    for step in ("encrypt", "add", "decrypt"):
        pairs = zip(took[f"engine_{step}"], took[f"bare_{step}"], strict=True)
        ratios[f"{step}_vs_bare"] = median(ours / limit for ours, limit in pairs)
    for other in ("nvflare_encrypt", "pairwise_mask"):
        pairs = zip(took["engine_encrypt"], took[other], strict=True)
        ratios[f"encrypt_vs_{other.partition('_')[0]}"] = median(ours / theirs for ours, theirs in pairs)
    sides = [[took[f"{side}_{step}"] for step in ("encrypt", "add", "decrypt")] for side in ("engine", "bare")]
    ours_s, bare_s = ([sum(steps) for steps in zip(*side, strict=True)] for side in sides)
    ratios["engine_vs_bare"] = median(ours / limit for ours, limit in zip(ours_s, bare_s, strict=True))
    figures["error_bound"] = layout.error
    figures["error_seen"] = float(np.abs(bare - np.rint(bare)).max())
    figures["scale_bits"] = layout.scale_bits


def _bare(
    ts: Any, context: Any, layout: Layout, values: NDArray[np.int64], took: dict[str, list[float]]
) -> NDArray[np.float64]:
    slots, scale = layout.split(values), 2.0**layout.scale_bits
    pieces = [slots[start : start + SLOTS] for start in range(0, len(slots), SLOTS)]

    def encrypt() -> list[bytes]:
        return [ts.ckks_vector(context, piece.tolist(), scale).serialize() for piece in pieces]

    def add() -> list[bytes]:
        for one, data in zip(total, sent, strict=True):
            one.add_(ts.ckks_vector_from(context, data))
        return [one.serialize() for one in total]

    def decrypt() -> NDArray[np.float64]:
        return np.concatenate([ts.ckks_vector_from(context, data).decrypt() for data in summed])

    sent: list[bytes] = timed(took, "bare_encrypt", encrypt)
    total = [ts.ckks_vector_from(context, data) for data in sent]
    summed: list[bytes] = timed(took, "bare_add", add)
    decrypted: NDArray[np.float64] = timed(took, "bare_decrypt", decrypt)
    return decrypted


def _engine(
    layout: Layout, pair: ciphertexts.KeyPair, values: NDArray[np.int64], took: dict[str, list[float]]
) -> NDArray[np.int64]:
    sent = timed(took, "engine_encrypt", lambda: ciphertexts.encrypt(layout, pair.public, values))
    adder = ciphertexts.Adder(layout)
    adder.add(sent)

    def add() -> tuple[bytes, ...]:
        adder.add(sent)
        return adder.total()

    summed = timed(took, "engine_add", add)
    total: NDArray[np.int64] = timed(took, "engine_decrypt", lambda: ciphertexts.decrypt(layout, pair.secret, summed))
    return total


# A whole round.


def _round(config: Config, figures: dict[str, float], ratios: dict[str, float], say: Say) -> None:
    """Few clients at the scale of many; bytes by phase, seconds of the phases that touch the vector."""
    say(f"a round: {config.clients} clients, d = {config.d}")
    roster, clients = local_clients(
        config.clients, Policy(min_contributors=2, protocols={"ckks"}, adversary=Adversary.CURIOUS)
    )
    encoding = Encoding.integers(config.d, config.bits)
    plan = RoundPlan.propose("ckks", roster, encoding, min_contributors=2, dropout="0.1")
    updates = {name: _values(number, config) for number, name in enumerate(roster.names)}
    sizes: dict[str, list[int]] = {}

    def watched(envelope: Envelope) -> bytes:
        way = "up" if envelope.sender in clients else "down"
        sizes.setdefault(f"{envelope.phase}_bytes_{way}", []).append(len(envelope.frame))
        return envelope.frame

    started = perf_counter()
    outcome = simulate(serve(plan, roster), clients, updates.get, faults=Faults(corrupted=watched)).outcome
    seconds = perf_counter() - started
    if not np.array_equal(outcome.total, sum(updates.values())):
        raise RuntimeError("the sum is wrong")
    for name, of_frames in sizes.items():
        figures[f"client_{name}"] = max(of_frames)
    holders = sum(size > config.d for size in sizes[f"{Phase.REVEAL}_bytes_down"])
    limit = config.clients * (figures["bare_encrypt_s"] + figures["bare_add_s"]) + holders * figures["bare_decrypt_s"]
    figures["round_s"] = seconds
    figures["bytes_per_coordinate"] = figures[f"client_{Phase.UPLOAD}_bytes_up"] / config.d
    figures["slots_per_coordinate"] = layout_of(plan).digits
    ratios["round_vs_bare"] = seconds / limit


def _values(number: int, config: Config) -> NDArray[np.int64]:
    largest = Encoding.integers(config.d, config.bits).largest
    return np.random.default_rng(number).integers(-largest, largest, config.d, endpoint=True)
