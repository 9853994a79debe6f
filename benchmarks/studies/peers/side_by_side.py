"""A cell of ``secagg bench peers``: the same vectors summed up by ours, by Flower's and by ours again.

Every round has a server process and a client process of its own, so that peaks of memory are its own. Everybody checks
all the signatures that the protocol says, and each sum is compared with the mean of the vectors.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from math import sqrt
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, median
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from benchmarks.case import Say, timed
from benchmarks.memory import peak, start_peak
from benchmarks.rounds import RoundCost, people, run_round, update_of, with_ring
from protocols import registry
from protocols.pairwise.messages import ConsistencySignatures, Introduction, Survivors
from protocols.pairwise.server import PairwiseServer
from protocols.plan import RoundPlan
from protocols.rounds.phases import Phase
from secagg.crypto import labels
from secagg.crypto.graph import Graph, GraphParameters
from secagg.crypto.keys import SigningKey, verify
from secagg.encoding import Encoding
from secagg.errors import DecodeError, StorageError
from secagg.files import read_file, write_file
from secagg.foreign import as_declared, parse_json

GRAPHS = {"complete": 0, "k21": 21}
"""Flower's ``num_shares`` in each graph, the client itself included; 0 stands for all."""

DEGREE = 22
"""Our neighbours on the graph that stands beside ``k21``."""

_RING_BITS = 32  # Flower's modulus
_CLIPPING = 8.0
"""How much further than the vectors reach both clip (Flower's default, for vectors between -1 and 1)."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What is compared: n clients, d coordinates, a graph, and how many fall silent."""

    graph: str
    n: int
    d: int
    silent: int

    @property
    def name(self) -> str:
        """
        >>> Cell("k21", 100, 1_000_000, 10).name
        'k21_n100_d1000000_silent10'
        """
        return f"{self.graph}_n{self.n}_d{self.d}_silent{self.silent}"

    @property
    def shares(self) -> int:
        """Flower's ``num_shares``."""
        return GRAPHS[self.graph] or self.n

    @property
    def threshold(self) -> int:
        return round(self.shares * 2 / 3)

    @property
    def gone(self) -> range:
        """Numbers of the clients that fall silent."""
        return range(self.silent)

    def plan(self) -> RoundPlan:
        """Ours; what it says of the vectors and of clipping goes for Flower's round, too."""
        ring = self.graph != "complete"
        _, roster = people(self.n)
        plan = RoundPlan.propose(
            "secagg+" if ring else "secagg", roster, encoding(self.n, self.d), min_contributors=self.threshold
        )
        if ring:
            return with_ring(plan, DEGREE, self.threshold, self.silent)
        return replace(plan, parameters=GraphParameters(Graph.COMPLETE, self.n - 1, self.threshold))

    def mean(self, plan: RoundPlan) -> NDArray[np.float64]:
        total = np.zeros(self.d)
        for number in range(self.silent, self.n):
            total += update_of(number, plan)
        return total / (self.n - self.silent)


def encoding(n: int, d: int) -> Encoding:
    """As many bits as n clients leave room for in the ring. ``update_of`` draws integers up to ``largest`` as vectors.

    >>> encoding(100, 5).bits, encoding(100, 5).ring_bits(100)
    (25, 32)
    """
    bits = next(bits for bits in range(_RING_BITS, 1, -1) if Encoding.integers(d, bits).ring_bits(n) <= _RING_BITS)
    largest = Encoding.integers(d, bits).largest
    return Encoding(d, clip_l2=largest * sqrt(d), bits=bits, clip_inf=_CLIPPING * largest)


@dataclass(frozen=True, slots=True)
class Side:
    """What one round took, ours or Flower's."""

    clients_s: float
    """Seconds of all clients together."""
    server_s: float
    phases: Mapping[str, float]
    """Seconds by role and phase."""
    serialising_s: float
    """Seconds to turn messages into bytes and back, where the others leave that out; 0 where they include it."""
    bytes_up: float
    """Bytes that a client sends which stays to the end."""
    bytes_down: float
    server_mib: float
    clients_mib: float
    """Peak memory of the process in which all the clients live, beyond what it had."""
    error: float
    """The largest distance from the mean, in steps of the rounding."""
    checks: int
    """How many signatures were verified."""
    check_s: float
    """Seconds that one verification takes, measured right after the round."""

    @property
    def round_s(self) -> float:
        return self.clients_s + self.server_s


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished cell, as it is kept."""

    key: str
    name: str
    cell: Cell
    commit: str
    load: tuple[float, ...]
    """The load of the machine before each round, and at the end."""
    ours: tuple[Side, Side]
    """The rounds before Flower's and after it."""
    flower: Side

    @property
    def speedup(self) -> float:
        return self.flower.round_s / mean(side.round_s for side in self.ours)


def measure(cell: Cell, key: str, code: str, say: Say) -> Outcome:
    load, sides = [os.getloadavg()[0]], []
    for who, work in (("ours", ours), ("Flower's", flower), ("ours", ours)):
        say(f"{cell.name}: {who}")
        sides.append(_alone(work, cell))
        load.append(os.getloadavg()[0])
    return Outcome(key, cell.name, cell, code, tuple(load), (sides[0], sides[2]), sides[1])


def _alone(work: Callable[[Cell], Side], cell: Cell) -> Side:
    """In a process of its own, which has not needed any memory yet."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(work, cell).result()


# Ours.


def ours(cell: Cell) -> Side:
    plan, (_, roster) = cell.plan(), people(cell.n)
    server = _Watched(plan, roster, registry.find(plan.protocol).messages)
    start_peak()
    before = peak()
    cost = run_round(server, Phase.UPLOAD, [roster.names[number] for number in cell.gone])
    extra, check_s = peak() - before, _seconds_of_a_check()
    if server.outcome is None:
        raise RuntimeError("the round did not end")
    cost.server_s["frames"] = server.frames_s
    received = cell.n + 2 * (cell.n - cell.silent)  # adverts; uploads and consents; nobody complains
    cost = replace(cost, server_extra_bytes=extra)
    side = _side(cost, cell, Phase.UPLOAD, checks=server.checks + received, check_s=check_s)
    decoded = server.outcome.decode()
    return _checked(side, decoded.vector / decoded.weight, cell.mean(plan), step=1 / plan.encoding.scale)


class _Watched(PairwiseServer):
    """Times the making of frames, too, and counts the signatures in them: each is verified by who receives it."""

    frames_s = 0.0
    checks = 0

    def outbox(self) -> Iterator[tuple[str, bytes]]:
        frames, messages = super().outbox(), self._messages
        while True:
            started = perf_counter()
            sent = next(frames, None)
            self.frames_s += perf_counter() - started
            if sent is None:
                return
            self.checks += _signatures(messages.decode(self.plan, sent[1]))
            yield sent


def _signatures(message: object) -> int:
    match message:
        case Introduction():
            return len(message.neighbours)
        case Survivors():
            return len(message.headers)
        case ConsistencySignatures():
            return len(message.signatures)
        case _:
            return 0


def _seconds_of_a_check() -> float:
    key, parts = SigningKey(bytes(32)), [bytes(32)] * 3
    signature, took = key.sign(labels.SURVIVORS, *parts), dict[str, list[float]]()
    for _ in range(100):
        timed(took, "verify", verify, key.public, signature, labels.SURVIVORS, *parts)
    return median(took["verify"])


# Flower's.


def flower(cell: Cell) -> Side:
    from flwr.common.secure_aggregation.secaggplus_constants import Stage

    from benchmarks.studies.peers.flower import QUANTIZATION
    from benchmarks.studies.peers.flower import run_round as run_flowers

    plan = cell.plan()
    ran = run_flowers(plan, cell.shares, cell.threshold, cell.gone)
    side = _side(ran.cost, cell, Stage.COLLECT_MASKED_VECTORS, serialising_s=sum(ran.serialising_s.values()))
    return _checked(side, ran.mean, cell.mean(plan), step=2 * plan.encoding.clip_inf / QUANTIZATION)


# Either.


def _side(
    cost: RoundCost, cell: Cell, upload: str, *, serialising_s: float = 0.0, checks: int = 0, check_s: float = 0.0
) -> Side:
    clients = {f"clients {phase}": seconds for phase, seconds in cost.client_s.items()}
    return Side(
        clients_s=sum(cost.client_s.values()),
        server_s=sum(cost.server_s.values()),
        phases={**clients, **{f"server {phase}": seconds for phase, seconds in cost.server_s.items()}},
        serialising_s=serialising_s,
        bytes_up=_of_one(cost.bytes_up, cell, upload),
        bytes_down=_of_one(cost.bytes_down, cell, upload),
        server_mib=cost.server_extra_bytes / 2**20,
        clients_mib=cost.clients_extra_bytes / 2**20,
        error=0.0,
        checks=checks,
        check_s=check_s,
    )


def _of_one(phases: Mapping[str, int], cell: Cell, upload: str) -> float:
    """Of a client that stays. Everybody is there until ``upload``."""
    until = list(phases).index(upload)
    return sum(size / (cell.n if i < until else cell.n - cell.silent) for i, size in enumerate(phases.values()))


def _checked(side: Side, found: NDArray[np.float64], expected: NDArray[np.float64], step: float) -> Side:
    """A benchmark of a wrong sum is worth nothing. Each vector is rounded by less than a step, so the mean is, too."""
    error = float(np.abs(found - expected).max()) / step
    if error > 2:  # Flower's floats have 24 bits: a little more than a step
        raise RuntimeError(f"the sum is wrong by {error:.3g} steps of rounding")
    return replace(side, error=error)


# What is kept of finished cells.


class Kept:
    """All in one file, which is replaced when a cell is finished; without a folder, nowhere."""

    def __init__(self, folder: Path | None) -> None:
        self._path = None if folder is None else folder / "cells.json"
        self.found: dict[str, Outcome] = {}
        if self._path is not None and self._path.exists():
            try:
                found = as_declared(tuple[Outcome, ...], parse_json(read_file(self._path, most=1 << 24)))
            except DecodeError:
                raise StorageError(f"{self._path} does not hold finished cells") from None
            self.found = {one.key: one for one in found}

    def add(self, one: Outcome) -> None:
        """On the disk when this returns."""
        self.found[one.key] = one
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            kept = json.dumps([asdict(one) for one in self.found.values()], indent=1).encode()
            write_file(self._path, kept, private=False)
