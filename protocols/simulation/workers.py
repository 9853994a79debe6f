"""Simulations of thousands of clients: the same machines as always, shared out among an engine's workers.

The server is here, and each worker keeps a part of the clients. Requests go to the parts in batches, and the server
takes in the answers as they come, so only a few batches are in memory at once; what a client itself needs, it needs
until the round is over. All clients' randomness comes from one secret: a part that is lost with its worker is made
again, told what it was told, and says what it said. Its updates are computed again, and may differ: of each client one
upload reaches the server, and after it nothing depends on the vector.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

from protocols import registry
from protocols.client import Client
from protocols.engines import Engine, ahead
from protocols.journal import ForgetfulJournal
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from protocols.rounds.server import ServerRound
from protocols.simulation.network import (
    Answers,
    Faults,
    Frames,
    Simulation,
    Update,
    answer_or_refusal,
    drive,
    first_or_refusal,
)
from secagg.crypto import labels
from secagg.crypto.keys import KEY_BYTES, Known, SigningKey, derive, verifying_once
from secagg.crypto.prg import Prg
from secagg.errors import SecAggError, UsageError

_BATCH = 32
"""Requests that travel together."""


def simulate_on_workers(
    server: ServerRound,
    identities: Sequence[Identity],
    update: Update,
    *,
    policy: Policy,
    engine: Engine,
    secret: bytes | None = None,
    faults: Faults | None = None,
) -> Simulation:
    """One round over all of ``identities``, like ``simulate``; their clients live with the workers of ``engine``.

    ``update`` travels to the workers. The same ``secret`` (32 bytes, by default a new one) repeats a round.

    >>> import numpy as np
    >>> from protocols.engines.local import Threads
    >>> from protocols.server import serve
    >>> from secagg.encoding import Encoding
    >>> people = [Identity.generate(f"client-{i}") for i in range(8)]
    >>> roster, policy = Roster.of(people), Policy(min_contributors=3)
    >>> plan = RoundPlan.propose("secagg", roster, Encoding.integers(4), min_contributors=3)
    >>> server, ones = serve(plan, roster), lambda name: np.ones(4)
    >>> ran = simulate_on_workers(server, people, ones, policy=policy, engine=Threads(2))
    >>> ran.outcome.total.tolist()
    [8, 8, 8, 8]
    """
    plan = server.plan
    if not registry.find(plan.protocol).replays:
        raise UsageError(f"clients of {plan.protocol} would not say the same again, if their worker were lost")
    secret = os.urandom(KEY_BYTES) if secret is None else secret
    known = Known()  # shared with the parts that live in this process; the others have copies of their own
    with verifying_once(known):
        return drive(
            server, _Spread(engine, plan, server.roster, identities, policy, update, secret, known), faults or Faults()
        )


class _Spread:
    """The parts, dealt round: neighbours in the order of a phase live with different workers."""

    def __init__(
        self,
        engine: Engine,
        plan: RoundPlan,
        roster: Roster,
        identities: Sequence[Identity],
        policy: Policy,
        update: Update,
        secret: bytes,
        known: Known,
    ) -> None:
        self._engine, self._names = engine, [identity.name for identity in identities]
        self._part_of = {name: i % engine.workers for i, name in enumerate(self._names)}

        # A key does not travel: its bytes do.
        def maker(part: int) -> Callable[[], _Part]:
            mine = [(one.name, one.key.secret) for one in identities[part :: engine.workers]]
            return lambda: _Part(plan, roster, mine, policy, update, secret, known)

        self._parts = [engine.host(maker(part)) for part in range(engine.workers)]

    def begin(self) -> Answers:
        return self._asked(_begin, ((name, b"") for name in self._names))

    def answers(self, requests: Frames) -> Answers:
        return self._asked(_answer, requests)

    def _asked(self, work: _Work, requests: Frames) -> Answers:
        def begin(batch: tuple[int, list[tuple[str, bytes]]]) -> Callable[[], _Batch]:
            part, asked = batch
            return self._parts[part].ask(work, asked)

        for answers in ahead(2 * self._engine.workers, begin, self._batches(requests)):
            yield from answers

    def _batches(self, requests: Frames) -> Iterator[tuple[int, list[tuple[str, bytes]]]]:
        waiting: list[list[tuple[str, bytes]]] = [[] for _ in self._parts]
        for name, frame in requests:
            part = self._part_of[name]
            waiting[part].append((name, frame))
            if len(waiting[part]) == _BATCH:
                yield part, waiting[part]
                waiting[part] = []
        yield from ((part, batch) for part, batch in enumerate(waiting) if batch)


class _Part:
    """Some of the clients, with one worker. A signature that one of them has verified, the others need not."""

    def __init__(
        self,
        plan: RoundPlan,
        roster: Roster,
        people: Iterable[tuple[str, bytes]],
        policy: Policy,
        update: Update,
        secret: bytes,
        known: Known,
    ) -> None:
        self.plan, self.update, self.known = plan, update, known
        self.clients = clients_of(plan, roster, people, policy, secret)


def clients_of(
    plan: RoundPlan, roster: Roster, people: Iterable[tuple[str, bytes]], policy: Policy, secret: bytes
) -> dict[str, Client]:
    """For one round, whose randomness comes from ``secret``. People are names and keys."""
    return {
        name: Client(
            Identity(name, SigningKey(key)),
            roster,
            policy=policy,
            journal=ForgetfulJournal(),
            rng=Prg(derive(secret, labels.SIMULATED, b"client", name.encode(), plan.digest())),
        )
        for name, key in people
    }


_Batch: TypeAlias = list[tuple[str, bytes | SecAggError]]
_Work: TypeAlias = Callable[[_Part, list[tuple[str, bytes]]], _Batch]


def _begin(part: _Part, requests: list[tuple[str, bytes]]) -> _Batch:
    return [(name, first_or_refusal(part.clients[name], part.plan, part.update(name))) for name, _nothing in requests]


def _answer(part: _Part, requests: list[tuple[str, bytes]]) -> _Batch:
    with verifying_once(part.known):
        return [(name, answer_or_refusal(part.clients[name], frame)) for name, frame in requests]
