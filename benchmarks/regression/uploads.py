"""What a server has to do with uploads: one of them, from its frame to the sum, and all of a round.

The limit for one is to hash what is signed and to unpack and add it in one pass. The limit for a round is to add as
many mask streams as have to be removed, and nothing else. Seconds are those of the processor: the server waits for
nobody here, and what else runs on the machine counts for nothing.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from statistics import median
from time import process_time, thread_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.case import Measured, Say, ratio
from benchmarks.regression.oneshot.driving import drive
from benchmarks.rounds import LENIENT, check_total, people, update_of, with_ring
from protocols.client import Client
from protocols.engines import Engine, add_masks_on
from protocols.engines.local import HERE
from protocols.journal import ForgetfulJournal
from protocols.pairwise.server import PairwiseServer
from protocols.plan import RoundPlan
from protocols.roster import Roster
from protocols.rounds.phases import Phase
from protocols.rounds.server import ServerRound
from protocols.server import serve
from secagg.crypto import labels
from secagg.crypto.keys import digest, verifying_once
from secagg.encoding import Encoding

_VARIANTS = 4
"""So many different vectors there are: each client adds one of them, and a round of a thousand fits into memory."""


def time_upload(d: int, repeats: int, say: Say) -> Measured:
    """One upload through ``ServerRound.receive``, beside its limit, in turns."""
    say(f"taking in one upload: d = {d}")
    plan, roster = _plan(26, d, 10, 6, 0)
    server, clients, ring = serve(plan, roster), _Clients(plan), plan.ring
    total, took = ring.zeros(plan.encoding.coordinates), defaultdict[str, list[float]](list)
    with verifying_once():
        while server.phase is not Phase.UPLOAD:
            requests = dict(server.outbox()) or dict.fromkeys(roster.names, b"")
            for name, request in requests.items():
                server.receive(name, clients.answer(name, request))
            server.close(server.phase)
        asked = list(server.outbox())[:repeats]
    for name, request in asked:
        frame = clients.answer(name, request)
        vector = memoryview(frame)[-ring.packed_size(len(total)) :]
        for step, work, arguments in (
            ("upload", server.receive, (name, frame)),
            ("hash", digest, (labels.VECTOR, vector)),
            ("add", ring.add_packed, (vector, total)),
        ):
            started = thread_time()
            work(*arguments)
            took[step].append(thread_time() - started)
    took["limit"] = [one + other for one, other in zip(took["hash"], took["add"], strict=True)]
    figures = {f"server_{name}_s": median(seconds) for name, seconds in took.items()}
    return Measured(figures, {"server_upload": ratio(took, "upload", "limit")})


def time_round(n: int, d: int, k: int, t: int, drop: float, say: Say, engine: Engine = HERE) -> Measured:
    """A whole round of one server, frames that it sends included, beside adding the masks that it had to remove.

    The clients are in a child, so that the server's seconds are its own.
    """
    gone = round(drop * n)
    say(f"a server's round: n = {n}, d = {d}, k = {k}, {gone} clients gone before UPLOAD")
    plan, roster = _plan(n, d, k, t, gone)
    silent = frozenset(roster.names[:: max(n // max(gone, 1), 1)][:gone])
    server = serve(plan, roster, engine=engine)
    with _child(plan) as ask:

        def said(phase: str, name: str, request: bytes) -> bytes | None:
            late = phase not in (Phase.ADVERTISE, Phase.SHARE, Phase.COMPLAIN, Phase.DEFEND)
            return None if late and name in silent else ask(name, request)

        before = _mask_seconds(d, plan, engine)
        seconds = drive(server, said, process_time)
        mask = (before + _mask_seconds(d, plan, engine)) / 2
    check_total(server, _expected(server))
    if not isinstance(server, PairwiseServer):
        raise TypeError("secagg+ has another server")
    removal, whole = mask * server.masks_removed, sum(seconds.values())
    figures = {f"server_round_{step}_s": spent for step, spent in seconds.items()}
    figures |= {"server_round_s": whole, "server_round_masks": server.masks_removed, "server_round_removal_s": removal}
    return Measured(figures, {"server_round": whole / removal})


def _plan(n: int, d: int, k: int, t: int, silent: int) -> tuple[RoundPlan, Roster]:
    _, roster = people(n)
    plan = RoundPlan.propose("secagg+", roster, Encoding.integers(d, 16), min_contributors=min(t, n))
    return with_ring(plan, k, t, silent), roster


_MASKS = 256


def _mask_seconds(d: int, plan: RoundPlan, engine: Engine) -> float:
    """To add one mask of as many that are added together."""
    seeds, total = [os.urandom(32) for _ in range(_MASKS)], plan.ring.zeros(d)
    started = process_time()
    add_masks_on(engine, total, seeds, [])
    return (process_time() - started) / _MASKS


def _expected(server: ServerRound) -> NDArray[np.int64]:
    if server.outcome is None:
        raise RuntimeError("the round did not end")
    numbers = map(server.roster.number, server.outcome.survivors)
    counts = np.bincount([number % _VARIANTS for number in numbers], minlength=_VARIANTS)
    total = np.zeros(server.plan.encoding.length, np.int64)
    for variant, count in enumerate(counts):
        total += count * update_of(variant, server.plan)
    return total


class _Clients:
    """Real clients of one round, of whom a few have a vector of their own and the others one of theirs."""

    def __init__(self, plan: RoundPlan) -> None:
        identities, self._roster = people(plan.clients)
        self._plan, self._values = plan, dict[int, Callable[[], NDArray[np.int64]]]()
        self._clients = {
            i.name: Client(i, self._roster, policy=LENIENT, journal=ForgetfulJournal()) for i in identities
        }

    def answer(self, name: str, request: bytes) -> bytes:
        """To a frame; to an empty one the first that this client says."""
        client = self._clients[name]
        if request:
            return client.receive(request)
        variant = self._roster.number(name) % _VARIANTS
        frame = client.start(self._plan, update_of(variant, self._plan))
        machine: Any = client._round
        machine.values = self._values.setdefault(variant, machine.values)
        return frame


@contextmanager
def _child(plan: RoundPlan) -> Iterator[Callable[[str, bytes], bytes]]:
    """Clients in a process of their own: name, request -> answer."""
    context = multiprocessing.get_context("spawn")
    near, far = context.Pipe()
    child = context.Process(target=_answers, args=(far, plan.encode()), daemon=True)
    child.start()
    far.close()  # so that a child that dies is an error here, and no wait for ever

    def ask(name: str, request: bytes) -> bytes:
        near.send_bytes(name.encode())
        near.send_bytes(request)
        return near.recv_bytes()

    yield ask
    near.send_bytes(b"")
    child.join()


def _answers(pipe: Connection, plan: bytes) -> None:
    clients = _Clients(RoundPlan.decode(plan))
    with verifying_once():
        while name := pipe.recv_bytes().decode():
            pipe.send_bytes(clients.answer(name, pipe.recv_bytes()))
