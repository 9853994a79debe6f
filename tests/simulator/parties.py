"""The parties of a simulated round, and what is written down about them for the oracles.

An honest party is a real ``Client``, with a journal that survives it: it may die and start again between any two
messages. A lying client is the real machine of one round without journal and restraint; a move (``moves``) makes of
each of its messages whatever it likes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dp.ledger import Ledger
from protocols import registry
from protocols.client import Client
from protocols.journal import Journal, SqliteJournal
from protocols.oneshot.messages import HEADER, Delivery
from protocols.pairwise.messages import Advert, Verdict
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from protocols.rounds.dealing import Accusations, Delivered, Opened
from protocols.rounds.dealing import Delivery as PairwiseDelivery
from secagg.crypto.dealing import unpadded
from secagg.crypto.prg import Prg
from secagg.errors import SecAggError
from tests.scenes.journals import KeptJournal

UNMASKING = {"Reveal", "Answer"}
"""Messages with which a client gives away what opens the sum."""


class Failure(AssertionError):
    """An oracle says that a promise was broken."""


def insist(condition: bool, promise: str, *facts: object) -> None:
    if not condition:
        raise Failure(" ".join([promise, *map(str, facts)]))


@dataclass(frozen=True)
class Said:
    """A frame on its way, as it arrived. ``honest``: its sender meant it, and nothing happened to it."""

    phase: str
    sender: str
    receiver: str
    message: Any
    """None if it does not decode."""
    honest: bool = True
    note: str = ""


@dataclass
class Record:
    """All that the oracles need to know of one round."""

    plan: RoundPlan
    number: int
    said: list[Said] = field(default_factory=list)
    errors: list[tuple[str, str, str, SecAggError]] = field(default_factory=list)
    """(phase, who raised, whose frame it was, what)"""
    values: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    """The integers that honest clients put in, before noise."""
    noised: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    """The same with the noise that was really in the upload."""
    answers: dict[tuple[str, str], set[bytes]] = field(default_factory=lambda: defaultdict(set))
    """(honest client, type of message) -> the frames that it said"""
    refused: dict[str, SecAggError] = field(default_factory=dict)
    """Clients that did not take part from the beginning."""
    insiders: frozenset[str] = frozenset()
    """Clients who do as they should, and tell the server all they know."""
    machines: dict[str, Any] = field(default_factory=dict)
    """Each party's side of the round, at the end."""
    touched: set[str] = field(default_factory=set)
    """Clients whose frames, or frames to whom, were damaged on their way."""
    outcome: Any = None
    server: Any = None
    failed: SecAggError | None = None
    """Why the server gave up."""
    charged: list[tuple[str, str, list[str]]] = field(default_factory=list)
    """(whose ledger, before which message left, what was in it about this round)"""
    liars: Mapping[str, Liar] = field(default_factory=dict)
    opened: dict[str, tuple[tuple[str, bytes], ...]] = field(default_factory=dict)
    """One-shot: honest member -> (client, header) of the uploads whose shares it has added up."""

    def honest(self, name: str) -> bool:
        """Whether this is a client whose vector is to stay a secret."""
        return name in self.values and name not in self.insiders

    def hear(self, phase: str, sender: str, receiver: str, frame: bytes, honest: bool = True, note: str = "") -> None:
        try:
            message = registry.find(self.plan.protocol).messages.decode(self.plan, frame)
        except SecAggError:
            message = None
        self.said.append(Said(phase, sender, receiver, message, honest, note))

    def from_clients(self, kind: type) -> list[tuple[str, Any]]:
        """What clients meant to say, each thing once."""
        found = {(one.sender, one.message): None for one in self.said if one.honest and isinstance(one.message, kind)}
        return list(found)


class Party:
    """An honest client for the length of a session."""

    def __init__(
        self, identity: Identity, roster: Roster, policy: Policy, seed: bytes, folder: Path | None, book: Ledger | None
    ) -> None:
        self.name, self._identity, self._roster, self._policy = identity.name, identity, roster, policy
        self._path = None if folder is None else folder / f"{identity.name}.db"
        self._journal: Journal = KeptJournal() if self._path is None else SqliteJournal(self._path)
        self.book, self._seed, self._lives = book, seed, 0
        self.record: Record | None = None
        self._started: tuple[RoundPlan, NDArray[np.float64], int] | None = None
        self._encoded: bytes | None = None
        self._last = b""
        self._born()

    def _born(self) -> None:
        rng = Prg(self._seed[:30] + self._lives.to_bytes(2, "big"))
        self.client = Client(
            self._identity, self._roster, policy=self._policy, journal=self._journal, ledger=self.book, rng=rng
        )
        self._lives += 1

    @property
    def current(self) -> Any:
        return self.client.current

    def join(self, record: Record, update: NDArray[np.float64], weight: int = 1) -> bytes:
        """The first frame of a round."""
        self.record = record
        frame = self.start(record.plan, update, weight)
        self._started = record.plan, update, weight
        self._encoded = self.client.encoded()
        record.values[self.name] = self.current.values().copy()
        return frame

    def start(self, plan: RoundPlan, update: NDArray[np.float64], weight: int = 1) -> bytes:
        return self._noted(self.client.start(plan, update, weight), plan)

    def restart(self, draw: Random) -> None:
        """Die, start again, and say once more what was said last."""
        if self._started is None or self.client.current is None:
            return
        if self._path is not None and isinstance(self._journal, SqliteJournal):
            pinned = self._journal.head()
            self._journal.close()
            self._journal = SqliteJournal(self._path, pinned=pinned)
        self._born()
        plan, update, weight = self._started
        try:
            if self._encoded is not None and draw.random() < 0.5:
                encoded = self._encoded
                frame = self.client.resume(plan, lambda: encoded)
            else:
                frame = self.client.start(plan, update, weight)
        except SecAggError as error:
            raise Failure(f"a restarted client goes on where it was: {self.name} {error}") from error
        insist(frame == self._last, "a restarted client repeats its last frame:", self.name)

    def receive(self, frame: bytes) -> bytes:
        plan = self.current.plan
        answer = self._noted(self.client.receive(frame), plan)
        if plan.protocol == "oneshot" and self.record is not None and self.name not in self.record.opened:
            message = registry.find(plan.protocol).messages.decode(plan, frame)
            if isinstance(message, Delivery) and self.current._mine.bitmap:
                headers = [one.header for one in message.contributions]
                names = self._roster.names
                self.record.opened[self.name] = tuple((names[one.client], HEADER.encode(one)) for one in headers)
        return answer

    def _noted(self, frame: bytes, plan: RoundPlan) -> bytes:
        record = self.record
        if record is None or plan != record.plan:
            self._last = frame
            return frame
        message = registry.find(plan.protocol).messages.decode(plan, frame)
        kind = type(message).__name__
        if frame not in record.answers[self.name, kind]:  # an answer that is said again is not the last one
            self._last = frame
        record.answers[self.name, kind].add(frame)
        record.machines[self.name] = self.current
        if kind == "Upload" and self.name not in record.noised:
            record.noised[self.name] = self.current.noised(*bound_of(self.current))
        if self.book is not None and kind in {"Upload", *UNMASKING}:
            record.charged.append((self.name, kind, phases_of(self.book, plan)))
        return frame

    def close(self) -> None:
        if isinstance(self._journal, SqliteJournal):
            self._journal.close()
        if self.book is not None:
            self.book.close()


def bound_of(machine: Any) -> tuple[bytes, ...]:
    """What a machine's upload is bound to: cohort or committee, and its own place."""
    return (machine._committee if hasattr(machine, "_committee") else machine._cohort).bound(machine._u)  # type: ignore[no-any-return]


def phases_of(ledger: Ledger, plan: RoundPlan) -> list[str]:
    """What a ledger holds about a round."""
    name = plan.digest().hex()
    return [entry["phase"] for entry in ledger.entries() if entry.get("release") == name]


Move = Callable[["Liar", Any], "list[Any] | None"]
"""What a lying client says instead of a message: messages or frames, in this order. None: the message itself."""


class Liar:
    """A client that says what its move makes of what the machine would say."""

    def __init__(
        self,
        identity: Identity,
        roster: Roster,
        draw: Random,
        move: Move,
        strict: Policy,
        friends: frozenset[int] = frozenset(),
    ) -> None:
        self.name, self.identity, self.roster, self.draw, self.move = identity.name, identity, roster, draw, move
        self.policy, self.friends = strict, friends
        """The friends, as numbers in the roster: it does not complain about what they deal it."""
        self.phase = ""
        """The server's, in which it speaks."""
        self.heard: dict[str, bytes] = {}
        """phase -> the last frame from the server"""
        self.frames: list[bytes] = []
        """All that it has said, in earlier rounds too."""
        self.overheard: list[bytes] = []
        """What others have said in this round; a liar may have friends at the server."""

    def join(self, plan: RoundPlan, update: NDArray[np.float64], weight: int) -> list[bytes]:
        secret = self.draw.randbytes(32)
        values = plan.encode_update(update, weight, Prg(secret))
        self.plan, self.values = plan, values
        self.machine: Any = self.another(secret)
        self.overheard = []
        self.phase = str(self.machine.phase)
        self.boxes: dict[int, Delivered] = {}
        """Dealer -> the box that came from it, where there are complaints."""
        self.dealt: dict[int, bytes] = {}
        """Holder -> the points that it was really dealt, if not those of the machine."""
        return self._said(self.machine.opening())

    def another(self, secret: bytes) -> Any:
        """The machine of this round with another secret."""
        values = self.values
        protocol = registry.find(self.plan.protocol)
        return protocol.client(
            self.plan, self.roster, protocol.messages, self.identity, self.policy, lambda: values, secret
        )

    def receive(self, frame: bytes) -> list[bytes]:
        machine = self.machine
        message = registry.find(self.plan.protocol).messages.decode(self.plan, frame)
        step = machine.steps.get(machine.phase)
        if step is not None and step.optional and not isinstance(message, step.hears):
            step = machine.steps[step.then]
        if step is None or not isinstance(message, step.hears):
            return []
        if isinstance(message, Verdict):  # it may have complained about what it need not doubt
            doubted = tuple(one for one in message.opened if one.peer in machine._doubted)
            message = replace(message, opened=doubted)
        if isinstance(message, Accusations):  # whatever it has dealt, and however many complain
            keys = [(said.peer, machine._pad_key(machine._u, said.peer)) for said in message.complaints]
            machine._opened = tuple(Opened(v, key) for v, key in keys)
        else:
            step.check(machine, message)
        if isinstance(message, PairwiseDelivery):
            self._keep(message)
        self.heard[str(machine.phase)] = frame
        reply = step.reply(machine)
        machine.phase = step.then
        return self._said(reply)

    def _keep(self, delivery: PairwiseDelivery) -> None:
        machine = self.machine
        self.boxes = {box.peer: box for box in delivery.boxes}
        for dealer in [u for u in machine._doubted if machine._peers[u].client in self.friends]:
            words = np.frombuffer(machine._doubted.pop(dealer).points, "<u4")[None]
            machine._held[dealer] = unpadded(words, [machine._pad_key(dealer, machine._u)]).astype("<u4").tobytes()

    def unasked(self) -> list[bytes]:
        """What it says in a phase in which nothing was asked of it."""
        return [self.encode(one) for one in self.move(self, None) or [] if one is not None]

    def _said(self, message: Any) -> list[bytes]:
        lies = self.move(self, message)
        if lies and isinstance(message, Advert) and isinstance(lies[0], Advert):
            advert = lies[0]
            self.machine.opening = lambda: advert  # it looks for it under the root
        frames = [self.encode(one) for one in ([message] if lies is None else lies)]
        self.frames += frames
        return frames

    def encode(self, message: Any) -> bytes:
        if isinstance(message, bytes):
            return message
        return registry.find(self.plan.protocol).messages.encode(self.plan, message)
