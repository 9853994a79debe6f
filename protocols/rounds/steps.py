"""Transition tables: what a party hears in each phase of a round, what it checks and answers, what that costs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Charge(StrEnum):
    RESERVE = "reserve"
    """The worst case: from here on the sum can come out."""
    COMMIT = "commit"
    """What happened: the survivors have signed, and are about to be unmasked."""


@dataclass(frozen=True, slots=True)
class Step:
    """One row of a transition table. Both methods are named, so that the table can stand before them."""

    hears: type
    check: str
    """Verifies a message and keeps what it says; raises before it changes anything."""
    reply: str
    """Client: makes the answer, as a pure function of the state. Server: closes the phase and says what to send."""
    then: StrEnum
    charge: Charge | None = None
    """What has to be in the privacy ledger before the reply (server: what the phase sends) leaves."""
    optional: bool = False
    """Client: it may hear what the next phase hears, and skips this one. Server: if nobody is asked anything, the phase
    is over as it begins."""
