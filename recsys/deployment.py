"""How the parties of a run are set up: which protocol, against whom, and how many may be corrupt or drop out."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, replace
from fractions import Fraction

from dp.noise import Family, NoiseSpec
from protocols.parameters import ALLOWED, AUTO, check_adversary, rules_of
from protocols.plan import RoundPlan
from secagg.assumptions import Adversary, CostModel, colluders, fraction
from secagg.encoding import Encoding
from secagg.errors import StorageError

_COMPONENTS = 4
"""Excess noise is taken off in at most this many parts: each costs every client one more draw of full length."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """``corrupt`` and ``dropout`` are fractions of a cohort. Where ``protocol`` is "auto" it is ``chosen`` before
    anything is summed up, among the ``allowed`` ones, which clients take part in; ``why`` says in a line why that one.
    """

    protocol: str = "secagg+"
    adversary: Adversary = Adversary.ACTIVE
    corrupt: str = "0.05"
    dropout: str = "0.1"
    allowed: Set[str] = ALLOWED
    why: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "adversary", Adversary(self.adversary))
        for name in sorted(self.allowed) if self.protocol == AUTO else [self.protocol]:
            check_adversary(name, self.adversary)
        fraction(self.corrupt), fraction(self.dropout)

    def least(self, clients: int) -> int:
        """The fewest clients of a cohort of this size in a sum: all but those who may drop out, and at least two."""
        return max(2, clients - self.dropouts(clients))

    def chosen(self, clients: int, encoding: Encoding, noise: NoiseSpec | None) -> Deployment:
        """The same with a protocol, and why it is that one, if it is still to be chosen.

        >>> Deployment("auto").chosen(20, Encoding.integers(10_000), None).protocol
        'secagg+'
        """
        if self.protocol != AUTO:
            return self
        choice = RoundPlan.compare(
            clients,
            encoding,
            min_contributors=self.least(clients),
            corrupt=self.corrupt,
            dropout=self.dropout,
            adversary=self.adversary,
            noise=noise,
            beacon=bytes(1),  # there is one, and it is not known yet
            allowed=self.allowed,
        )
        return replace(self, protocol=choice.protocol, why=choice.why)

    def begun(self, protocol: str) -> Deployment:
        """For a run that was begun with this protocol: what was chosen then is not chosen again, since another release
        may choose otherwise. ``StorageError`` if that protocol cannot have been chosen."""
        if protocol == self.protocol or not self.why:
            return self
        if protocol not in self.allowed:
            raise StorageError(f"the record of the run names {protocol[:40]!r}, which is not among protocol.allowed")
        return replace(self, protocol=protocol, why=f"{protocol} was chosen when the run began")

    def dropouts(self, clients: int) -> int:
        """How many clients of a cohort of this size may drop out."""
        return int(fraction(self.dropout) * clients)

    def corrupt_of(self, clients: int, *, noised: bool) -> Fraction:
        """The fraction of a cohort of this size that may be corrupt: with noise, no fewer than it is counted against.

        >>> Deployment().corrupt_of(11, noised=False), Deployment().corrupt_of(11, noised=True)
        (Fraction(1, 20), Fraction(1, 11))
        """
        asked = fraction(self.corrupt)
        return max(asked, Fraction(colluders(asked, clients), clients)) if noised else asked

    def parameters(self, clients: int, *, noised: bool) -> object:
        """The protocol's parameters for a cohort of this size; ``UsageError`` if no parameters resist that much."""
        choose, corrupt = rules_of(self.protocol).choose, self.corrupt_of(clients, noised=noised)
        return choose(clients, corrupt, fraction(self.dropout), self.adversary, 40, 20, CostModel.CORE_SVP)

    def noise(self, clients: int) -> NoiseSpec:
        """The kind of noise for a cohort of this size, with variance 1. What was drawn for dropouts who did not drop
        out is taken off in a few parts."""
        dropouts, known = self.dropouts(clients), colluders(self.corrupt, clients)
        return NoiseSpec(Family.DISCRETE_GAUSSIAN, Fraction(1), dropouts, known, min(dropouts, _COMPONENTS))
