"""A server that lies with what it sends: to one client or to several, with a message of this round or of another.

It works on every protocol's messages and knows none of them. What it needs a real server for (an honest sum in spite
of it) is beside the point: after a lie the round may end, but nobody honest may say two things, or what is not
declared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

from protocols import registry
from protocols.plan import RoundPlan
from tests.simulator.moves import mutated
from tests.simulator.network import damaged


class Tampering:
    """What the server has sent so far, and to whom it lies."""

    def __init__(self, plan: RoundPlan, names: list[str], draw: Random, moves: tuple[str, ...]) -> None:
        self.plan, self.draw = plan, draw
        self.moves = [MOVES[move] for move in moves]
        self.victims = set(draw.sample(names, draw.choice([1, 1, 2, len(names)])))
        self.old: list[bytes] = []
        """Frames of earlier rounds, and of this one."""
        self.latest: dict[str, list[Any]] = {}

    def __call__(self, phase: str, receiver: str, message: Any) -> list[bytes] | None:
        frame = self.encode(message)
        sent = None
        if receiver in self.victims and self.draw.random() < 0.4:
            lies = self.draw.choice(self.moves)(self, receiver, message)
            sent = [one if isinstance(one, bytes) else self.encode(one) for one in lies]
        self.old.append(frame)
        self.latest.setdefault(type(message).__name__, []).append(message)
        return sent

    def encode(self, message: Any) -> bytes:
        return registry.find(self.plan.protocol).messages.encode(self.plan, message)

    def next_round(self, plan: RoundPlan) -> None:
        self.plan, self.latest = plan, {}


def mutate(here: Tampering, receiver: str, message: Any) -> list[Any]:
    return [mutated(message, here.draw)]


def mutate_then_truth(here: Tampering, receiver: str, message: Any) -> list[Any]:
    """A refused lie must not keep a client from the truth, nor an accepted one let it say both."""
    return [mutated(message, here.draw), message]


def truth_then_lie(here: Tampering, receiver: str, message: Any) -> list[Any]:
    return [message, mutated(message, here.draw), message]


def of_another(here: Tampering, receiver: str, message: Any) -> list[Any]:
    """What another client was sent, in this phase."""
    return [here.draw.choice([*here.latest.get(type(message).__name__, []), message]), message]


def earlier_round(here: Tampering, receiver: str, message: Any) -> list[Any]:
    """A frame from before, as it was or with this round's number on it."""
    if not here.old:
        return [message]
    old = here.draw.choice(here.old)
    fresh = here.encode(message)
    return [old[:2] + fresh[2:22] + old[22:] if here.draw.random() < 0.6 else old, message]


def garbage(here: Tampering, receiver: str, message: Any) -> list[Any]:
    return [damaged(here.encode(message), here.draw)]


def another_plan(here: Tampering, receiver: str, message: Any) -> list[Any]:
    """The frame of a round under a plan that differs in one number."""
    other = replace(here.plan, round=here.plan.round + 1)
    return [registry.find(other.protocol).messages.encode(other, message), message]


MOVES: dict[str, Callable[[Tampering, str, Any], list[Any]]] = {
    one.__name__: one
    for one in (mutate, mutate_then_truth, truth_then_lie, of_another, earlier_round, garbage, another_plan)
}
