"""What a plan says of this protocol beyond what every plan says: nothing."""

from __future__ import annotations

from dataclasses import dataclass

from protocols.parameters import Facts, Rules
from secagg.codec import struct
from secagg.errors import UsageError


@dataclass(frozen=True, slots=True)
class Nothing:
    """A protocol's parameters are a value with a codec, also where there are none."""


def check(plan: Facts) -> None:
    """Refuse noise: a ledger is charged for a set of survivors that enough have signed, and here nobody signs one."""
    if plan.noise is not None:
        raise UsageError(f"{plan.protocol} makes no sums with noise")


RULES = {
    "all-or-nothing": Rules(
        codec=struct(Nothing),
        choose=lambda n, corrupt, dropout, adversary, security, correctness, cost_model: Nothing(),
        check=check,
        signers=lambda plan: plan.clients,
    )
}
