"""A whole round, frames going straight to the server, and what the server took for each step of it."""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import TypeAlias

from protocols.rounds.server import ServerRound

Seconds: TypeAlias = dict[str, float]
"""For how long each step was worked on."""


def drive(
    server: ServerRound, say: Callable[[str, str, bytes], bytes | None], clock: Callable[[], float] = perf_counter
) -> Seconds:
    """A whole round; the server's seconds to take frames in, to close each phase, and to make frames."""
    seconds: Seconds = defaultdict(float)
    gc.collect()
    requests: Iterator[tuple[str, bytes]] = iter([(name, b"") for name in server.roster.names])
    while server.outcome is None:
        phase = str(server.phase)
        while True:
            started = clock()
            request = next(requests, None)
            seconds[f"{phase}_frames"] += clock() - started
            if request is None:
                break
            answer = say(phase, *request)
            if answer is not None:
                started = clock()
                server.receive(request[0], answer)
                seconds[f"{phase}_received"] += clock() - started
        started = clock()
        server.close(phase)
        seconds[f"{phase}_closed"] += clock() - started
        requests = server.outbox()
    return seconds
