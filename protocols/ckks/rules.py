"""What both sides compute from the plan and the cohort: how many hold the key, who, the bindings, the checks."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from math import floor

import numpy as np

from protocols.ckks.engine import require
from protocols.ckks.layout import MAX_CLIENTS, Layout
from protocols.plan import RoundPlan
from protocols.policy import Policy
from secagg.assumptions import Adversary, CostModel
from secagg.codec import Codec, enumeration, struct, u32
from secagg.crypto import labels
from secagg.crypto.keys import derive, digest
from secagg.crypto.prg import Prg, random_words
from secagg.errors import PolicyError, UsageError

LEAST_ANSWERS = 2
"""One client's word alone is not taken for the sum."""


class Reveal(StrEnum):
    SERVER = "server"
    """The makers hold the secret key, decrypt, and tell the server."""
    CLIENTS = "clients"
    """All clients hold it and decrypt; the server learns that they agree."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """Who learns the sum, and how many clients each make a key, of which one is used."""

    reveal: Reveal
    makers: int


PARAMETERS: Codec[Parameters] = struct(Parameters, reveal=enumeration(Reveal), makers=u32)


def parameters_of(plan: RoundPlan) -> Parameters:
    if not isinstance(plan.parameters, Parameters):
        raise UsageError(f"{plan.protocol} needs ckks parameters")
    return plan.parameters


def layout_of(plan: RoundPlan) -> Layout:
    """It follows from the plan: the ring is as wide as bits, weights, clients and noise demand."""
    return Layout.choose(plan.ring_bits, plan.clients, plan.encoding.coordinates)


def choose(
    n: int,
    _corrupt: Fraction,
    dropout: Fraction,
    _adversary: Adversary,
    _security: int,
    correctness: int,
    _cost_model: CostModel = CostModel.STANDARD,
) -> Parameters:
    """The fewest makers of whom two stay, but with probability 2^-correctness if clients leave independently.

    >>> [choose(n, Fraction(0), Fraction(1, 10), Adversary.CURIOUS, 40, 20).makers for n in (2, 10, 1000)]
    [2, 3, 8]
    """
    require()
    if not 0 <= dropout < 1:
        raise UsageError("a dropout is a fraction of the clients below 1")
    most = min(n, floor(dropout * n) + LEAST_ANSWERS)  # no more than planned can be gone
    for makers in range(LEAST_ANSWERS, most):
        too_few = dropout**makers + makers * dropout ** (makers - 1) * (1 - dropout)
        if too_few <= Fraction(1, 1 << correctness):
            return Parameters(Reveal.SERVER, makers)
    return Parameters(Reveal.SERVER, most)


def check_parameters(plan: RoundPlan) -> None:
    """Refuse what no round could run with."""
    parameters = parameters_of(plan)
    if not LEAST_ANSWERS <= parameters.makers <= plan.clients:
        raise UsageError(f"{parameters.makers} makers of a key are not between 2 and the {plan.clients} clients")
    if parameters.reveal is Reveal.CLIENTS and plan.noise is not None and plan.noise.components:
        raise UsageError("noise is taken off by the server, and a sum that only clients see has no excess to take")
    layout_of(plan)


def check_policy(plan: RoundPlan, policy: Policy) -> None:
    """The whole protocol is a matter of trust: a client that names it in ``Policy.protocols`` has decided.

    What is left to refuse is fewer dropouts than it expects, and a ring that is what the library below makes.
    """
    policy.check_cost_model(CostModel.STANDARD)
    if (stay := plan.clients - policy.gone_of(plan.clients)) < LEAST_ANSWERS:
        raise PolicyError(f"{stay} clients are expected to stay, {LEAST_ANSWERS} are needed")


class Cohort:
    """The clients of U1 under their Merkle root: who makes keys, who holds the one that is used, and every binding."""

    def __init__(self, plan: RoundPlan, root: bytes, size: int) -> None:
        if not plan.min_contributors <= size <= min(plan.clients, MAX_CLIENTS):
            raise PolicyError(f"{size} clients advertised, the plan allows {plan.min_contributors} to {plan.clients}")
        self.root, self.size = root, size
        self._plan = plan.digest()
        parameters = parameters_of(plan)
        lots = random_words(Prg(digest(labels.CKKS_MAKERS, *self.bound())), size)
        self.makers: tuple[int, ...] = tuple(sorted(np.argsort(lots)[: parameters.makers].tolist()))
        self.holders = self.makers if parameters.reveal is Reveal.SERVER else tuple(range(size))

    def knows(self, position: int) -> tuple[int, ...]:
        """Whose adverts a client needs: the makers', and a maker those of all that hold."""
        return self.holders if position in self.makers else self.makers

    def box_key(self, agreed: bytes, sender: int, receiver: int) -> bytes:
        return derive(agreed, labels.CKKS_BOX, *self.bound(sender, receiver))

    def survivors_digest(self, bitmap: bytes) -> bytes:
        return digest(labels.SURVIVORS, *self.bound(), bitmap)

    def server_key(self, agreed: bytes, sender: int, label: bytes) -> bytes:
        """What this client seals to the server under, for one purpose."""
        return derive(agreed, label, *self.bound(sender))

    def bound(self, *positions: int) -> tuple[bytes, ...]:
        """The context of everything derived or signed in this cohort."""
        return (self._plan, self.root, *[u32.encode(position) for position in positions])
