"""What is asked of a round, and what it costs with each protocol (``protocols.costs``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any, cast

from protocols.choice import Choice
from protocols.costs.roles import Cost
from protocols.costs.units import UnitCosts
from protocols.parameters import PACKAGES, module_of, rules_of
from protocols.plan import HASH_BYTES, RoundPlan
from protocols.roster import Roster
from secagg.assumptions import Adversary, CostModel
from secagg.encoding import Encoding
from secagg.errors import UsageError

MODELS = tuple(PACKAGES)
"""All protocols: each has a model."""

BEACON = b"not secret, used"
"""The public randomness from which committees are drawn."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """n clients with d integers of ``bits`` bits; parameters are chosen for ``dropout`` and ``corrupt`` of them.

    ``gone`` of them really fall silent; no sum of fewer than ``minimum`` clients comes out.
    """

    n: int
    d: int
    bits: int = 16
    dropout: Fraction = Fraction(1, 10)
    corrupt: Fraction = Fraction(1, 20)
    gone: Fraction = Fraction(0)
    minimum: int = 2

    def __post_init__(self) -> None:
        if self.n < 2 or self.d < 1 or not 2 <= self.minimum <= self.n:
            raise UsageError("a round has two clients or more, each a coordinate or more, and a minimum among them")
        if not 0 <= self.gone < 1 or self.left < self.minimum:
            raise UsageError("gone is a fraction of the clients, and leaves the minimum")

    @property
    def silent(self) -> int:
        return round(self.gone * self.n)

    @property
    def left(self) -> int:
        return self.n - self.silent

    def proposed(self, protocol: str, roster: Roster) -> RoundPlan:
        """Of a real round."""
        return RoundPlan.propose(
            protocol,
            roster,
            Encoding.integers(self.d, self.bits),
            min_contributors=self.minimum,
            corrupt=str(self.corrupt),
            dropout=str(self.dropout),
            beacon=BEACON,
        )

    def compare(self, allowed: Sequence[str]) -> Choice:
        """What "auto" would take of these, where the deployment has a beacon."""
        return RoundPlan.compare(
            self.n,
            Encoding.integers(self.d, self.bits),
            min_contributors=self.minimum,
            corrupt=str(self.corrupt),
            dropout=str(self.dropout),
            beacon=BEACON,
            allowed=frozenset(allowed),
        )

    def plan(self, protocol: str) -> RoundPlan:
        """Of a round with this protocol; the roster is not there."""
        encoding = Encoding.integers(self.d, self.bits)
        feared = (self.corrupt, self.dropout, Adversary.ACTIVE)
        chosen = rules_of(protocol).choose(self.n, *feared, 40, 20, CostModel.CORE_SVP)
        return RoundPlan(
            protocol=protocol,
            session=bytes(16),
            round=0,
            roster=bytes(HASH_BYTES),
            model=bytes(HASH_BYTES),
            clients=self.n,
            min_contributors=self.minimum,
            ring_bits=encoding.ring_bits(self.n),
            encoding=encoding,
            noise=None,
            parameters=chosen,
            beacon=BEACON,
        )


def cost(protocol: str, deployment: Deployment, units: UnitCosts) -> Cost:
    """Of one round, or ``UsageError`` where the protocol does not do that."""
    found: Cost = module_of(protocol, "costs").COSTS[protocol](deployment.plan(protocol), deployment.silent, units)
    return found


def parameters_in_words(plan: RoundPlan) -> str:
    """What the protocol chose. There are no witnesses on the complete graph.

    >>> parameters_in_words(Deployment(1000, 10).plan("secagg+"))
    'k = 106, t = 75, w = 88, q = 64'
    """
    chosen = asdict(cast(Any, plan.parameters))
    numbers = {_SHORT.get(name, name): value for name, value in chosen.items() if isinstance(value, int) and value}
    return ", ".join(f"{name} = {value}" for name, value in numbers.items())


_SHORT = {"degree": "k", "threshold": "t", "witnesses": "w", "quorum": "q", "members": "m", "corrupt": "f"}
