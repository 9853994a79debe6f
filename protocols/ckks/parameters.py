"""Who learns the sum, and how many clients make keys: how that is chosen, and what no round could run with."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from math import floor

from protocols.ckks.ciphertexts import require
from protocols.ckks.layout import Layout
from protocols.parameters import Facts, Rules
from secagg.assumptions import Adversary, CostModel
from secagg.codec import Codec, enumeration, struct, u32
from secagg.errors import UsageError

LEAST_ANSWERS = 2
"""One client's word alone is not taken for the sum."""


class Recipient(StrEnum):
    SERVER = "server"
    """The makers hold the secret key, decrypt, and tell the server."""
    CLIENTS = "clients"
    """All clients hold it and decrypt; the server learns that they agree."""


@dataclass(frozen=True, slots=True)
class KeyMakers:
    """Who learns the sum, and how many clients each make a key, of which one is used."""

    reveal: Recipient
    makers: int


PARAMETERS: Codec[KeyMakers] = struct(KeyMakers, reveal=enumeration(Recipient), makers=u32)


def parameters_of(plan: Facts) -> KeyMakers:
    if not isinstance(plan.parameters, KeyMakers):
        raise UsageError(f"{plan.protocol} needs ckks parameters")
    return plan.parameters


def layout_of(plan: Facts) -> Layout:
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
) -> KeyMakers:
    """The fewest makers of whom two stay, but with probability 2^-correctness if clients leave independently.

    >>> [choose(n, Fraction(0), Fraction(1, 10), Adversary.CURIOUS, 40, 20).makers for n in (2, 10, 1000)]
    [2, 3, 8]
    """
    require()
    if not 0 <= dropout < 1:
        raise UsageError("a dropout is a fraction of the clients below 1")
    most = min(n, floor(dropout * n) + LEAST_ANSWERS)  # no more than planned drop out
    for makers in range(LEAST_ANSWERS, most):
        too_few = dropout**makers + makers * dropout ** (makers - 1) * (1 - dropout)
        if too_few <= Fraction(1, 1 << correctness):
            return KeyMakers(Recipient.SERVER, makers)
    return KeyMakers(Recipient.SERVER, most)


def check_parameters(plan: Facts) -> None:
    """Refuse what no round could run with."""
    parameters = parameters_of(plan)
    if not LEAST_ANSWERS <= parameters.makers <= plan.clients:
        raise UsageError(f"{parameters.makers} makers of a key are not between 2 and the {plan.clients} clients")
    if parameters.reveal is Recipient.CLIENTS and plan.noise is not None and plan.noise.components:
        raise UsageError("noise is taken off by the server, and a sum that only clients see has no excess to take")
    layout_of(plan)


RULES = {
    "ckks": Rules(
        PARAMETERS, choose, check_parameters, lambda plan: plan.min_contributors, Adversary.CURIOUS, extra="ckks"
    )
}
