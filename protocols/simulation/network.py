"""All parties of a round in one process: the same machines as in production, and a network that can misbehave."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from protocols.client import Client
from protocols.outcome import RoundOutcome
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import SERVER, Identity, Roster
from protocols.rounds.server import ServerRound
from secagg.crypto.keys import verifying_once
from secagg.crypto.prg import Prg, Rng, random_words
from secagg.encoding import UserVectors
from secagg.errors import DecodeError, PeerError, SecAggError, ThresholdError, UsageError

Update: TypeAlias = Callable[[str], ArrayLike | UserVectors | None]
"""What a client adds, by its name; None is nothing, and goes in as zeros."""

Frames: TypeAlias = Iterable[tuple[str, bytes]]
Answers: TypeAlias = Iterator[tuple[str, bytes | SecAggError]]


@dataclass(frozen=True, slots=True)
class Envelope:
    """A frame on its way; ``phase`` is the server's."""

    phase: str
    sender: str
    receiver: str
    frame: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong: who falls silent from which phase on, and what the network does to frames."""

    dropouts: Mapping[str, str] = field(default_factory=dict)
    """name -> the first phase in which nothing more is heard of this client"""
    duplicated: frozenset[str] = frozenset()
    """phases in which every frame arrives twice"""
    shuffled: bytes | None = None
    """a 32-byte seed: clients' frames arrive in random order"""
    corrupted: Callable[[Envelope], bytes] = lambda envelope: envelope.frame
    """what arrives instead of what was sent"""


@dataclass(frozen=True, slots=True)
class Incident:
    """An error that one party raised; the round went on without that message.

    Whatever a client refuses is one, with the first frame or any later: a plan, a message, a release that its own
    ledger does not allow, an answer that its journal cannot keep.
    """

    phase: str
    party: str
    error: SecAggError


@dataclass(frozen=True, slots=True)
class Simulation:
    """What came of a round, who said what was refused, how many bytes went where, and how long it took."""

    outcome: RoundOutcome
    incidents: tuple[Incident, ...]
    bytes_up: Mapping[str, int]
    """phase -> bytes that clients sent"""
    bytes_down: Mapping[str, int]
    seconds: Mapping[str, float]
    """phase -> seconds, all parties together"""


def local_clients(count: int, policy: Policy, rng: Rng = os.urandom) -> tuple[Roster, dict[str, Client]]:
    """A roster of ``count`` fresh identities, and their clients."""
    digits = len(str(count - 1))
    identities = [Identity.generate(f"client-{i:0{digits}}", rng) for i in range(count)]
    roster = Roster.of(identities)
    return roster, {identity.name: Client(identity, roster, policy=policy, rng=rng) for identity in identities}


def simulate(
    server: ServerRound,
    clients: Mapping[str, Client],
    update: Update,
    *,
    weights: Mapping[str, int] | None = None,
    faults: Faults | None = None,
) -> Simulation:
    """One round of all these clients, from the plan to the sum. ``update`` gives what each of them adds.

    ``ThresholdError`` or ``PeerError`` if the server has to give up, and what the server's own ledger raises. An update
    that cannot be encoded is the caller's mistake (``UsageError``).

    >>> from protocols.server import serve
    >>> from secagg.encoding import Encoding
    >>> roster, clients = local_clients(5, Policy(min_contributors=3))
    >>> plan = RoundPlan.propose("secagg", roster, Encoding.integers(4), min_contributors=3, dropout="0.4")
    >>> updates = {name: np.full(4, i) for i, name in enumerate(clients)}
    >>> faults = Faults(dropouts={"client-1": "upload"})
    >>> simulate(serve(plan, roster), clients, updates.get, faults=faults).outcome.decode().vector.tolist()
    [9.0, 9.0, 9.0, 9.0]
    """
    with verifying_once():  # all parties are here: a signature that one has verified, the others need not
        return drive(server, _Here(server.plan, clients, update, weights or {}), faults or Faults())


class Parties(Protocol):
    """The clients of a simulation, wherever they are."""

    def begin(self) -> Answers:
        """Each one's first frame, or why it does not take part."""

    def answers(self, requests: Frames) -> Answers:
        """What becomes of each request: an answer, or the client's refusal."""


@dataclass(frozen=True, slots=True)
class _Here:
    plan: RoundPlan
    clients: Mapping[str, Client]
    update: Update
    weights: Mapping[str, int]

    def begin(self) -> Answers:
        for name, client in self.clients.items():
            update = self.update(name)  # what fails here is no refusal
            yield name, first_or_refusal(client, self.plan, update, self.weights.get(name, 1))

    def answers(self, requests: Frames) -> Answers:
        for name, frame in requests:
            yield name, answer_or_refusal(self.clients[name], frame)


def first_or_refusal(
    client: Client, plan: RoundPlan, update: ArrayLike | UserVectors | None, weight: int = 1
) -> bytes | SecAggError:
    try:
        return client.start(plan, update, weight)
    except UsageError:
        raise  # the caller's mistake
    except SecAggError as error:
        return error


def answer_or_refusal(client: Client, frame: bytes) -> bytes | SecAggError:
    """Here ``UsageError`` is a refusal, too: the client is latched, or keeps no such release."""
    try:
        return client.receive(frame)
    except SecAggError as error:
        return error


def drive(server: ServerRound, parties: Parties, faults: Faults) -> Simulation:
    """The network between a server and its clients."""
    incidents = list[Incident]()
    bytes_up, bytes_down, seconds = dict[str, int](), dict[str, int](), dict[str, float]()
    plan = server.plan
    phases = [str(phase) for phase in server.steps]
    if not set(faults.dropouts.values()) | faults.duplicated <= set(phases):
        raise UsageError(f"the phases of {plan.protocol} are {', '.join(phases)}")

    def requests() -> Frames:
        for name, frame in server.outbox():
            bytes_down[server.phase] = bytes_down.get(server.phase, 0) + len(frame)
            for arrived in _network(faults, server.phase, SERVER, name, frame):
                yield name, arrived

    def heard(answers: Answers) -> Frames:
        for name, answer in answers:
            if isinstance(answer, bytes):
                yield name, answer
            else:
                incidents.append(Incident(server.phase, name, answer))

    replies = heard(parties.begin())
    while server.outcome is None:
        phase, began = server.phase, perf_counter()
        for name, frame in _in_order(faults, replies):
            if name in faults.dropouts and phases.index(phase) >= phases.index(faults.dropouts[name]):
                continue
            bytes_up[phase] = bytes_up.get(phase, 0) + len(frame)
            for arrived in _network(faults, phase, name, SERVER, frame):
                try:
                    server.receive(name, arrived)
                except (PeerError, DecodeError) as error:
                    incidents.append(Incident(phase, SERVER, error))
        try:
            server.close(phase)
        except ThresholdError as error:
            refused = [one for one in incidents if one.phase == phase and one.party != SERVER]
            if not refused:
                raise
            reason = f"{error.reason}; {refused[0].party} said: {refused[0].error}"
            raise ThresholdError(reason, culprits=error.culprits) from refused[0].error
        seconds[phase] = perf_counter() - began
        replies = heard(parties.answers(requests()))
    return Simulation(server.outcome, tuple(incidents), bytes_up, bytes_down, seconds)


def _in_order(faults: Faults, frames: Frames) -> Frames:
    if faults.shuffled is None:
        return frames
    collected = list(frames)
    return [collected[i] for i in np.argsort(random_words(Prg(faults.shuffled), len(collected)))]


def _network(faults: Faults, phase: str, sender: str, receiver: str, frame: bytes) -> Iterator[bytes]:
    arrived = faults.corrupted(Envelope(phase, sender, receiver, frame))
    yield arrived
    if phase in faults.duplicated:
        yield arrived
