"""The protocols there are. A new one is a module with a ``PROTOCOL`` of this shape, and one line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from secagg.assumptions import Adversary, CostModel
from secagg.codec import Codec
from secagg.errors import UsageError

if TYPE_CHECKING:
    from protocols.plan import RoundPlan
    from protocols.policy import Policy
    from protocols.rounds.client import ClientRound
    from protocols.rounds.server import ServerRound
    from protocols.wire import Messages

_WHERE = {
    "secagg": "protocols.pairwise:SECAGG",
    "secagg+": "protocols.pairwise:SECAGG_PLUS",
    "ckks": "protocols.ckks:CKKS",
    "oneshot": "protocols.oneshot:ONESHOT",
    "threshold_ckks": "protocols.threshold_ckks:THRESHOLD_CKKS",
}


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
    parameters: Codec[Any]
    choose: Callable[[int, Fraction, Fraction, Adversary, int, int, CostModel], object]
    """(n, corrupt, dropout, adversary, security, correctness, cost model of lattices) -> parameters for a round."""
    check_parameters: Callable[[RoundPlan], None]
    """Refuse (``UsageError``) a plan that makes no sense for anybody."""
    check_policy: Callable[[RoundPlan, Policy], None]
    """Refuse (``PolicyError``) a plan that this client must not accept."""
    signers: Callable[[RoundPlan], int]
    """How many signatures on one set of survivors a client has seen before it reveals anything for the sum. An auditor
    asks for as many."""
    messages: Messages
    client: type[ClientRound]
    server: type[ServerRound]
    replays: bool = True
    """Whether a seeded run repeats byte for byte; not if a library draws randomness that nobody can seed."""


def names() -> tuple[str, ...]:
    return tuple(_WHERE)


@cache
def find(name: str) -> Protocol:
    """
    >>> find("secagg+").name
    'secagg+'
    """
    if name not in _WHERE:
        raise UsageError(f"unknown protocol {name!r}; there are {', '.join(_WHERE)}")
    module, attribute = _WHERE[name].split(":")
    protocol: Protocol = getattr(import_module(module), attribute)
    return protocol
