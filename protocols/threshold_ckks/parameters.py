"""The threshold: how it is chosen, which sizes follow from it, and what no round could run with."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from protocols.parameters import Facts, Rules
from protocols.threshold_ckks.sizes import Sizes, choose_sizes
from secagg.assumptions import Adversary, CostModel
from secagg.codec import Codec, enumeration, struct, u32
from secagg.errors import UsageError
from secagg.params import complete

MAX_CLIENTS = 1024
"""Every client deals a share to every other one, and the server hands all of them on."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """How many clients must agree before anything is decrypted or rebuilt. Fewer learn nothing with the server.

    ``cost_model`` says by which account the ring has 128 bits of security.
    """

    threshold: int
    cost_model: CostModel = CostModel.CORE_SVP


PARAMETERS: Codec[Threshold] = struct(Threshold, threshold=u32, cost_model=enumeration(CostModel))


def parameters_of(plan: Facts) -> Threshold:
    if not isinstance(plan.parameters, Threshold):
        raise UsageError(f"{plan.protocol} needs a threshold")
    return plan.parameters


def least_of(plan: Facts) -> int:
    """No fewer clients may advertise, deal, have a part in the key, be in the sum or sign it."""
    return max(parameters_of(plan).threshold, plan.min_contributors)


def sizes_of(plan: Facts) -> Sizes:
    """They follow from the plan, so nobody chooses anybody's ring or flooding."""
    return choose_sizes(plan.ring_bits, plan.clients, plan.encoding.coordinates, parameters_of(plan).cost_model)


def choose(
    n: int,
    corrupt: Fraction,
    dropout: Fraction,
    _adversary: Adversary,
    _security: int,
    _correctness: int,
    cost_model: CostModel = CostModel.CORE_SVP,
) -> Threshold:
    """More than half of the honest clients, plus all the corrupt: two different sets never have so many signatures.

    >>> [choose(n, Fraction(1, 10), Fraction(1, 5), Adversary.CURIOUS, 40, 20).threshold for n in (10, 100, 1000)]
    [6, 56, 551]
    """
    if n > MAX_CLIENTS:
        raise UsageError(f"threshold_ckks has up to {MAX_CLIENTS} clients, not {n}")
    return Threshold(complete(n, corrupt, dropout).threshold, cost_model)


def check_parameters(plan: Facts) -> None:
    """Refuse what no round could run with."""
    threshold = parameters_of(plan).threshold
    if plan.clients > MAX_CLIENTS:
        raise UsageError(f"threshold_ckks has up to {MAX_CLIENTS} clients, not {plan.clients}")
    if not 2 <= threshold <= plan.clients:
        raise UsageError(f"threshold {threshold} is not between 2 and the {plan.clients} clients")
    sizes_of(plan)


RULES = {"threshold_ckks": Rules(PARAMETERS, choose, check_parameters, least_of, Adversary.CURIOUS, extra="lattice")}
