"""The protocols there are, as values: what is said about them, their messages, and both sides' machines.

A new one is a package with ``parameters.RULES`` and ``protocol.PROTOCOLS``, and one line in ``protocols.parameters``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from protocols.parameters import PACKAGES, module_of
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.rounds.client import ClientRound
from protocols.rounds.server import ServerRound
from protocols.wire import Messages


@dataclass(frozen=True, slots=True)
class Protocol:
    """What the rest of the library needs to know of a protocol."""

    name: str
    code: int
    """Its number in the frame header."""
    paper: str
    threat_model: str
    server_learns: str
    cost: str
    check_policy: Callable[[RoundPlan, Policy], None]
    """Refuse (``PolicyError``) a plan that this client must not accept."""
    messages: Messages
    client: type[ClientRound]
    server: type[ServerRound]
    replays: bool = True
    """Whether a seeded run repeats byte for byte; not if a library draws randomness that nobody can seed."""


def names() -> tuple[str, ...]:
    """Of all protocols."""
    return tuple(PACKAGES)


@cache
def find(name: str) -> Protocol:
    """
    >>> find("secagg+").name
    'secagg+'
    """
    protocol: Protocol = module_of(name, "protocol").PROTOCOLS[name]
    return protocol
