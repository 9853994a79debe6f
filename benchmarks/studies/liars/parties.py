"""Rounds among honest clients and liars, all in one process; and the same round played to a server again.

A server draws nothing: the same frames in the same order are the same round to it. So what its clients say is recorded
once, and its own seconds are taken as often as one likes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from time import process_time
from typing import cast

import numpy as np
from numpy.typing import NDArray

from benchmarks.rounds import people, update_of
from benchmarks.studies.liars.lies import Liar, other
from protocols import registry
from protocols.client import Client
from protocols.journal import ForgetfulJournal
from protocols.pairwise.client import PairwiseClient
from protocols.pairwise.messages import Reveal, Revealed
from protocols.pairwise.server import PairwiseServer
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Roster
from protocols.rounds.phases import Phase
from protocols.rounds.server import ServerRound
from protocols.server import serve
from protocols.simulation.network import Answers, Faults, Frames, Simulation, answer_or_refusal, drive, first_or_refusal
from secagg.crypto.keys import derive, verifying_once
from secagg.crypto.prg import Prg
from secagg.encoding import Encoding
from secagg.errors import PeerError, SecAggError


@dataclass(frozen=True, slots=True)
class Setting:
    """n clients, of which at most ``corrupt`` lie, and at most ``dropout`` lie or are silent."""

    protocol: str
    n: int
    d: int
    corrupt: str = "0.05"
    dropout: str = "0.1"

    @property
    def policy(self) -> Policy:
        protocols = frozenset({self.protocol})
        return Policy(min_contributors=2, protocols=protocols, corrupt=self.corrupt, dropout=self.dropout)

    def plan(self) -> tuple[RoundPlan, Roster]:
        _, roster = people(self.n)
        encoding = Encoding.integers(self.d, 16)
        terms = {"min_contributors": max(self.n // 2, 2), "corrupt": self.corrupt, "dropout": self.dropout}
        return RoundPlan.propose(self.protocol, roster, encoding, **terms), roster  # type: ignore[arg-type]


class Mixed:
    """The parties of a simulation. ``lies`` says who lies, and how."""

    def __init__(self, plan: RoundPlan, policy: Policy, lies: Mapping[str, type[PairwiseClient]]) -> None:
        identities, self.roster = people(plan.clients)
        self._plan, messages = plan, registry.find(plan.protocol).messages
        self.honest = {
            one.name: Client(one, self.roster, policy=policy, journal=ForgetfulJournal())
            for one in identities
            if one.name not in lies
        }
        self._liars = {
            one.name: Liar(
                lies[one.name](plan, self.roster, messages, one, policy, self._integers_of(one.name), _secret(one.name))
            )
            for one in identities
            if one.name in lies
        }

    def _integers_of(self, name: str) -> Callable[[], NDArray[np.int64]]:
        return lambda: self._plan.encode_update(self.update_of(name), 1, Prg(bytes(32)))

    def update_of(self, name: str) -> NDArray[np.int64]:
        return update_of(self.roster.number(name), self._plan)

    def begin(self) -> Answers:
        for name in self.roster.names:
            if name in self._liars:
                yield name, self._liars[name].start()
            else:
                yield name, first_or_refusal(self.honest[name], self._plan, self.update_of(name))

    def answers(self, requests: Frames) -> Answers:
        for name, frame in requests:
            if name in self._liars:
                yield name, self._answer(self._liars[name], frame)
            else:
                yield name, answer_or_refusal(self.honest[name], frame)

    @staticmethod
    def _answer(liar: Liar, frame: bytes) -> bytes | SecAggError:
        try:
            return liar.receive(frame)
        except SecAggError as error:
            return error  # it has nothing to say

    def sum_of(self, names: tuple[str, ...]) -> NDArray[np.int64]:
        total = np.zeros(self._plan.encoding.length, np.int64)
        for name in names:
            total += self.update_of(name)
        return total


def _secret(name: str) -> bytes:
    return derive(b"benchmark secret, not a secret..", b"liar", name.encode())


def played(server: ServerRound, parties: Mixed, silent: Mapping[str, str]) -> Simulation:
    with verifying_once():  # a signature that one of them has verified, the others need not
        return drive(server, parties, Faults(dropouts=silent))


@dataclass(frozen=True, slots=True)
class Recording:
    """What the clients of one round said in each phase, in the order in which it came."""

    plan: RoundPlan
    roster: Roster
    frames: Mapping[str, list[tuple[str, bytes]]]
    bytes_down: Mapping[str, int]
    """Bytes to all clients together, by phase."""

    @classmethod
    def of(cls, setting: Setting, lies: Mapping[int, type[PairwiseClient]] | None = None) -> Recording:
        """A round in which the clients of these numbers lie."""
        plan, roster = setting.plan()
        named = {roster.names[number]: lie for number, lie in (lies or {}).items()}
        parties = Mixed(plan, setting.policy, named)
        server = _Listening(plan, roster)
        ran = played(server, parties, {})
        check_sum(ran, parties)
        return cls(plan, roster, server.frames, ran.bytes_down)

    def with_wrong_shares(self, number: int) -> Recording:
        """The same, but for the last share that one client reveals, after many true ones."""
        messages = registry.find(self.plan.protocol).messages

        def altered(name: str, frame: bytes) -> bytes:
            if name != self.roster.names[number]:
                return frame
            said = cast(Reveal, messages.decode(self.plan, frame))
            *good, last = said.self_shares
            shares = (*good, Revealed(last.peer, other(last.share)))
            return messages.encode(self.plan, replace(said, self_shares=shares))

        revealed = [(name, altered(name, frame)) for name, frame in self.frames[Phase.REVEAL]]
        return replace(self, frames={**self.frames, Phase.REVEAL: revealed})

    def replayed(self) -> dict[str, float]:
        """Processor seconds of a new server: phase -> making what opens it, taking the answers in, closing it."""
        server, took = serve(self.plan, self.roster), dict[str, float]()
        while server.outcome is None:
            phase, began = str(server.phase), process_time()
            for _ in server.outbox():
                pass
            for name, frame in self.frames.get(phase, ()):
                try:
                    server.receive(name, frame)
                except PeerError:
                    continue  # a lie, seen through
            server.close(phase)
            took[phase] = process_time() - began
        return took


class _Listening(PairwiseServer):
    """Keeps what it hears."""

    def __init__(self, plan: RoundPlan, roster: Roster) -> None:
        super().__init__(plan, roster, registry.find(plan.protocol).messages)
        self.frames = dict[str, list[tuple[str, bytes]]]()

    def receive(self, name: str, frame: bytes, *, known: bool = True) -> None:
        self.frames.setdefault(str(self.phase), []).append((name, frame))
        super().receive(name, frame, known=known)


def check_sum(ran: Simulation, parties: Mixed, gone: Collection[str] = ()) -> None:
    """A benchmark of a wrong sum is worth nothing. Everybody is in it who is honest and was not gone."""
    if not np.array_equal(ran.outcome.total, parties.sum_of(ran.outcome.survivors)):
        raise RuntimeError("the sum is wrong")
    if missing := parties.honest.keys() - set(ran.outcome.survivors) - set(gone):
        raise RuntimeError(f"{len(missing)} honest clients are not in the sum")
    if refused := [one for one in ran.incidents if one.party in parties.honest]:
        raise RuntimeError(f"an honest client refuses what the server says: {refused[0].error}")
