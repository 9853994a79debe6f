"""Transition tables: what a party hears in each phase of a round, what it checks and answers, and what is charged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, NamedTuple, TypeAlias, cast

from protocols.rounds.phases import Phase


class Charge(StrEnum):
    """What has to be in the privacy ledger before a step's answer leaves."""

    RESERVE = "reserve"
    """The worst case, before the sum can come out."""
    COMMIT = "commit"
    """What happened: the survivors have signed, and are about to be unmasked."""


class Step(NamedTuple):
    """One row of a transition table. ``check`` and ``reply`` are methods of the party's class."""

    hears: type
    check: Callable[..., None]
    """Verifies a message and keeps what it says; raises before it changes anything."""
    reply: Callable[..., Any]
    """Client: makes the answer, as a pure function of the state. Server: closes the phase and says what to send."""
    then: Phase
    charge: Charge | None = None
    optional: bool = False
    """Client: it may hear what the next phase hears, and skips this one. Server: if nobody is asked anything, the phase
    is over as it begins."""
    before: Callable[..., Any] | None = None
    """Server: what takes long and follows from the message alone, like its hash; threads do it at the same time, for
    all messages that are of this phase. What it returns, ``check`` is given with the message."""
    after: Callable[..., None] | None = None
    """Server: work that a message leaves which was accepted. Threads do it at the same time, and other messages are
    accepted meanwhile; a phase may end before it, so whoever needs what comes of it finishes it first."""


Steps: TypeAlias = Mapping[Phase, Step]


def table(make: Callable[[Any], Steps]) -> Steps:
    """A transition table that stands at the top of a class, before the methods that it holds.

    ``make`` is given the class, and is called each time the table is looked at: a subclass that overrides a method has
    its own in the table.
    """
    return cast(Steps, _Table(make))


class _Table:
    def __init__(self, make: Callable[[Any], Steps]) -> None:
        self._make = make

    def __get__(self, party: object, kind: type) -> Steps:
        return self._make(kind)
