"""The server in one round, as a state machine without input or output."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from threading import Lock
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from dp.secure_sum import SecureSum
from protocols.engines import Engine
from protocols.engines.local import HERE
from protocols.outcome import RoundEvent, RoundOutcome
from protocols.plan import RoundPlan
from protocols.roster import Number, Roster
from protocols.rounds.excess import excess_due, excess_of
from protocols.rounds.phases import Phase
from protocols.rounds.steps import Charge, Step, Steps
from protocols.rounds.survivors import Agreed, agreed_sum
from protocols.wire import Messages
from secagg.errors import (
    DecodeError,
    PeerError,
    SecAggError,
    ThresholdError,
    UnblamedError,
    UsageError,
)

if TYPE_CHECKING:
    from dp.ledger import Ledger


_END = 1 << 16


def _fingerprint(frame: bytes) -> bytes:
    """Tells a frame that comes again from another one: by its length and its ends, where the signatures are.

    What differs only in between is not validly signed. It is passed over like a repetition, and as harmless.
    """
    return sha256(len(frame).to_bytes(8, "big") + frame[:_END] + frame[-_END:]).digest()


@dataclass(frozen=True, slots=True)
class Sends:
    """What the server sends when a phase closes: to whom, and how each one's message is made."""

    receivers: Sequence[Number]
    message_for: Callable[[Number], object]


NOTHING = Sends((), lambda number: None)


def _listed(names: Sequence[str], most: int = 20) -> str:
    """Not all of them, if they are many: one liar can complain about everybody."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


class ServerRound(ABC):
    """The server in one round. It keeps no secret: whatever it sees, it may publish.

    Carry what ``outbox`` gives, hand in what comes back with ``receive``, and ``close`` a phase when everybody has
    answered or time is up; whoever has not is a dropout. At the end ``outcome`` is there. Threads may call it: they
    hash and add large messages at the same time, and wait for one another with all else.
    """

    steps: ClassVar[Steps]
    _agreed: Agreed
    """The survivors whom the clients are to sign."""

    def __init__(
        self,
        plan: RoundPlan,
        roster: Roster,
        messages: Messages,
        *,
        ledger: Ledger | None = None,
        engine: Engine = HERE,
    ) -> None:
        if plan.roster != roster.digest:
            raise UsageError("the plan is for another roster")
        if (plan.noise is None) != (ledger is None):
            raise UsageError("a sum with noise is charged to a ledger, and only that")
        self.plan, self.roster, self._messages = plan, roster, messages
        self.phase = next(iter(self.steps))
        self.outcome: RoundOutcome | None = None
        self._engine, self._ledger, self._committed = engine, ledger, False
        self._expected: frozenset[Number] = frozenset(map(Number, range(len(roster))))
        self._heard: dict[Number, bytes] = {}  # in this phase: client number -> fingerprint of its frame
        self._signatures: dict[Number, bytes] = {}  # signatures on the survivors
        self._excess: dict[Number, bytes] = {}  # survivor -> the seed of its excess noise
        self._liars: set[str] = set()
        self.excluded: tuple[str, ...] = ()
        """Who dealt shares and was left out before anybody put a vector in: silent since, without an answer to a
        complaint about them, or not asked any more since too few others had dealt to it. That is a fact and no verdict;
        who was caught lying is among ``liars``."""
        self.disputes: tuple[tuple[str, str], ...] = ()
        """(holder, dealer): who complained about whom and was answered. One of the two lied, and nobody else can tell
        which; it costs nobody anything."""
        self._sends = NOTHING
        self._one_at_a_time = Lock()
        self._prepare()
        if ledger is not None:
            if plan.ledger is not None:
                ledger.check_head(plan.ledger)
            ledger.reserve(plan.secure_sum(plan.clients, members=roster.names))

    @abstractmethod
    def _prepare(self) -> None:
        """What a protocol's server begins a round with."""

    def happened(self) -> SecureSum:
        """What the sum's privacy follows from, once the survivors have signed."""
        return agreed_sum(self.plan, self.roster, self._agreed, self._signatures)

    @property
    def failed(self) -> bool:
        """Whether the round was given up: then it has no outcome, and nothing was revealed."""
        return self.phase is Phase.FAILED

    @property
    def waiting_for(self) -> tuple[str, ...]:
        """Who may still answer in this phase."""
        return tuple(self.roster.names[number] for number in sorted(self._expected - self._heard.keys()))

    @property
    def liars(self) -> tuple[str, ...]:
        """Who has said what no honest client says, where the transport tells truly who speaks."""
        return tuple(sorted(self._liars))

    @property
    def remarks(self) -> str:
        """Who was caught lying, who was left out, who of two lied, in words for a log; empty if there is nothing."""
        said = {
            "caught lying": self.liars,
            "left out before the vectors were sent": self.excluded,
            "one of two lied": [f"{holder} about {dealer}" for holder, dealer in self.disputes],
        }
        return "; ".join(f"{what}: {_listed(names)}" for what, names in said.items() if names)

    def receive(self, name: str, frame: bytes, *, known: bool = True) -> None:
        """Take a frame that the transport says is from ``name``. A bad one raises, and changes nothing.

        ``name`` is blamed for what no honest client sends: that is right if, and only if, the transport authenticates.
        Where it does not know who speaks, and only the sender says so, hand in the frame with ``known=False``: a bad
        one blames nobody then. A message of another phase, round or version blames nobody, since an honest client's may
        come late.

        ``bytes`` are read where they lie. Of anything else, which somebody could write to between two looks at it, a
        copy is taken first.
        """
        frame = bytes(frame)
        number, fingerprint = self.roster.number(name), _fingerprint(frame)
        with self._one_at_a_time:
            phase = self.phase
            step = self.steps.get(phase)
            if step is None:
                raise UsageError(f"the round is over ({phase})")
            if self._heard.get(number) == fingerprint:
                return
        try:
            self._take(step, phase, number, frame, fingerprint)
        except (DecodeError, PeerError) as error:
            if not known:
                raise type(error)(error.reason) from None
            blamed = error.blaming(name)
            with self._one_at_a_time:
                self._liars.update(blamed.culprits)
            raise blamed from None

    def _take(self, step: Step, phase: Phase, number: Number, frame: bytes, fingerprint: bytes) -> None:
        message = self._messages.decode(self.plan, frame)
        if not isinstance(message, step.hears):
            raise UnblamedError(f"{type(message).__name__} does not belong in phase {phase}")
        known = () if step.before is None else (step.before(self, message),)
        with self._one_at_a_time:
            if self._heard.get(number) == fingerprint:  # it came twice at the same time
                return
            self._check(step, phase, number)
            step.check(self, number, message, *known)
            self._heard[number] = fingerprint
        if step.after is not None:
            step.after(self)

    def _check(self, step: Step, phase: Phase, number: Number) -> None:
        if phase is not self.phase:  # it was closed while the message was read
            raise UnblamedError(f"{step.hears.__name__} does not belong in phase {self.phase}")
        if number not in self._expected:
            raise PeerError(f"nothing is expected of this client in phase {self.phase}")
        if number in self._heard:
            raise PeerError("a second, different message")

    def close(self, phase: str) -> None:
        """End the phase with whoever has answered. ``ThresholdError``: too few; the round is over, nothing revealed."""
        with self._one_at_a_time:
            self._closed(phase)

    def _closed(self, phase: str) -> None:
        step = self.steps.get(self.phase)
        if step is None or phase != self.phase:
            raise UsageError(f"phase {phase} cannot be closed in phase {self.phase}")
        self.phase, self._sends, self._expected = Phase.FAILED, NOTHING, frozenset()  # unless the next lines come back
        try:
            sends: Sends = step.reply(self)
            while not sends.receivers and step.then in self.steps and self.steps[step.then].optional:
                step = self.steps[step.then]
                sends = step.reply(self)
        except SecAggError as error:
            if self._ledger is not None and not self._committed:  # nothing was unmasked
                self._ledger.abort(self.plan.secure_sum(self.plan.clients), str(error))
            raise
        if self._ledger is not None and step.charge is Charge.COMMIT:
            self._ledger.commit(self.happened())
            self._committed = True
        self._sends = sends
        self._expected, self._heard = frozenset(self._sends.receivers), {}
        self.phase = step.then

    def outbox(self) -> Iterator[tuple[str, bytes]]:
        """The frames that open this phase, with their receivers. Made one by one, and again on every call."""
        for number in self._sends.receivers:
            yield self.roster.names[number], self._messages.encode(self.plan, self._sends.message_for(number))

    def _need(self, count: int, least: int, what: str) -> None:
        if count < least:
            raise ThresholdError(f"{count} {what}, at least {least} are needed", culprits=self._liars)

    def _release(
        self,
        total: NDArray[np.int64],
        *,
        advertised: Sequence[Number],
        survivors: Sequence[Number],
    ) -> None:
        """The outcome: the sum without its excess noise, and what happened. Both lists are ascending."""
        plan, names, left = self.plan, self.roster.names, tuple[str, ...]()
        if plan.noise is not None and excess_due(plan, len(survivors)):
            level = plan.noise.removal_level(plan.clients - len(survivors))
            seeds = self._excess.values()
            total = total - excess_of(plan.noise, plan.clients, len(total), level, seeds, self._engine)
            left = tuple(names[number] for number in survivors if number not in self._excess)
        signatures = tuple((names[number], signature) for number, signature in sorted(self._signatures.items()))
        alive = tuple(names[number] for number in survivors)
        advertised_names = tuple(names[number] for number in advertised)
        event = RoundEvent(plan, advertised_names, alive, self._agreed.digest, signatures, left)
        self.outcome = RoundOutcome(total, alive, event)
