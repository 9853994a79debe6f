"""One real round between two processes: the server here, all its clients in a child. Frames travel through a pipe.

So each role's seconds are its own, and the peak memory of this process is the server's.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from protocols.client import Client
from protocols.journal import ForgetfulJournal
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from protocols.rounds.server import ServerRound
from secagg.crypto.graph import Graph, GraphParameters
from secagg.crypto.prg import Prg
from secagg.params import GRINDING_BITS, GRINDING_FLOOR, choose_witnesses

LENIENT = Policy(min_contributors=2, corrupt="0.01", dropout="0.01")
"""Benchmarks choose k and t themselves; clients with this policy accept."""


def with_ring(plan: RoundPlan, degree: int, threshold: int, silent: int) -> RoundPlan:
    """The plan with a ring of the benchmark's choice, and the witnesses that ``LENIENT`` clients insist on."""
    n = plan.clients
    bits = LENIENT.security + GRINDING_BITS, LENIENT.security + GRINDING_FLOOR
    witnesses = choose_witnesses(n, LENIENT.corrupt_of(n), silent, n - silent, *bits, 20)
    return replace(plan, parameters=GraphParameters(Graph.RING, degree, threshold, *witnesses))


@dataclass(frozen=True, slots=True)
class RoundCost:
    client_s: dict[str, float]
    """Seconds of all clients together, by phase."""
    server_s: dict[str, float]
    """Seconds to take in the messages of a phase; under "close " and its name, seconds to end it."""
    bytes_up: Counter[str]
    bytes_down: Counter[str]
    server_extra_bytes: int
    """Peak resident memory of the server's process beyond what it had before the round."""
    clients_extra_bytes: int
    """The same of the process in which all the clients live."""


def people(count: int) -> tuple[list[Identity], Roster]:
    """The same identities in both processes."""
    rng = Prg(b"benchmark identities, not secret")
    identities = [Identity.generate(f"client-{i:07}", rng) for i in range(count)]
    return identities, Roster.of(identities)


def update_of(number: int, plan: RoundPlan) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """A client's vector: integers of the plan's width, from a seed that both processes know."""
    largest = plan.encoding.largest
    return np.random.default_rng(number).integers(-largest, largest + 1, plan.encoding.length)


def run_round(server: ServerRound, silent_at: str, silent: Iterable[str]) -> RoundCost:
    """Drive ``server`` to its outcome; ``silent`` clients answer nothing from phase ``silent_at`` on."""
    cost = RoundCost(defaultdict(float), defaultdict(float), Counter(), Counter(), 0, 0)
    gone, phases = frozenset(silent), [str(phase) for phase in server.steps]
    context = multiprocessing.get_context("spawn")
    near, far = context.Pipe()
    child = context.Process(target=_clients, args=(far, len(server.roster)), daemon=True)
    child.start()
    far.close()  # so that a child that dies is an error here, and no wait for ever
    near.send_bytes(server.plan.encode())
    before, began = _resident(), _peak()
    requests: Iterator[tuple[str, bytes]] = iter([(name, b"") for name in server.roster.names])
    while server.outcome is None:
        phase = str(server.phase)
        for name, request in requests:
            if name in gone and phases.index(phase) >= phases.index(silent_at):
                continue
            cost.bytes_down[phase] += len(request)
            near.send_bytes(name.encode())
            near.send_bytes(request)
            answer = near.recv_bytes()
            cost.client_s[phase] += float(near.recv_bytes())
            cost.bytes_up[phase] += len(answer)
            started = perf_counter()
            server.receive(name, answer)
            cost.server_s[phase] += perf_counter() - started
        started = perf_counter()
        server.close(phase)
        cost.server_s[f"close {phase}"] += perf_counter() - started
        requests = server.outbox()
    near.send_bytes(b"")
    clients_extra = int(near.recv_bytes())
    child.join()
    extra = _peak() - before if _peak() > began else 0
    return RoundCost(cost.client_s, cost.server_s, cost.bytes_up, cost.bytes_down, extra, clients_extra)


def check_total(server: ServerRound, expected: NDArray[np.int64] | None = None) -> None:
    """A benchmark of a wrong sum is worth nothing. Expected is that of the survivors, unless said otherwise."""
    if server.outcome is None:
        raise RuntimeError("the round did not end")
    if expected is None:
        expected = np.zeros(server.plan.encoding.length, np.int64)
        for name in server.outcome.survivors:
            expected += update_of(server.roster.number(name), server.plan)
    if not np.array_equal(server.outcome.total, expected):
        raise RuntimeError("the sum is wrong")


def _clients(pipe: Connection, count: int) -> None:
    """The child: answer every request with a frame and the seconds it took."""
    identities, roster = people(count)
    clients = {i.name: Client(i, roster, policy=LENIENT, journal=ForgetfulJournal()) for i in identities}
    plan, before = RoundPlan.decode(pipe.recv_bytes()), _resident()
    while name := pipe.recv_bytes().decode():
        request = pipe.recv_bytes()
        update = None if request else update_of(roster.number(name), plan).astype(np.float64)  # as models have them
        started = perf_counter()
        answer = clients[name].receive(request) if update is None else clients[name].start(plan, update)
        seconds = perf_counter() - started
        pipe.send_bytes(answer)
        pipe.send_bytes(repr(seconds).encode())
    pipe.send_bytes(str(_peak() - before).encode())


def _peak() -> int:
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage if sys.platform == "darwin" else usage * 1024


def _resident() -> int:
    """Resident memory now (Linux); elsewhere the peak so far, which makes the figure a lower bound."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return _peak()
    return pages * resource.getpagesize()
