"""What a sum over very many clients costs, on paper: one flat round, or a tree of cohorts (``protocols.tree``).

In a tree every cohort runs a round of its own. Its aggregator, the server of that round, is a client of the level
above, with the cohort's sum (and the number of clients in it) as its vector, in as many bits as the ring below has.
Cohorts are drawn by lot, so one of them can have more than its share of corrupt or silent clients: parameters of every
cohort are chosen for the most that any of them has, but for 2^-40 (2^-20).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from math import floor, sqrt

from benchmarks.studies.scale.deployments import Deployment, cost
from protocols.costs.roles import Cost
from protocols.costs.units import UnitCosts
from secagg.hypergeometric import most_marked


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a tree: so many cohorts, each with this round in it."""

    cohorts: int
    deployment: Deployment
    """That of the largest cohort."""
    cost: Cost


@dataclass(frozen=True, slots=True)
class Tree:
    levels: tuple[Level, ...]
    """The clients' level is the first, the root's the last."""

    @property
    def aggregator_s(self) -> float:
        """Seconds of who leads a cohort of clients: its server, and a client of the next level."""
        below, *above = self.levels
        return below.cost.server_s + (above[0].cost.client.seconds if above else 0)

    @property
    def servers_s(self) -> float:
        """Of all servers on all levels, and of what they do as clients."""
        return sum(level.cohorts * level.cost.server_s for level in self.levels) + sum(
            level.cohorts * level.cost.clients_s for level in self.levels[1:]
        )

    @property
    def noise(self) -> float:
        """Standard deviation in the total, over that of one flat sum, if every cohort's sum has noise of its own."""
        return sqrt(self.levels[0].cohorts)


def tree(protocol: str, deployment: Deployment, size: int, units: UnitCosts) -> Tree:
    """A tree over ``deployment``, cohorts of up to ``size``; the shares of corrupt and silent hold on every level."""
    levels = list[Level]()
    members, d, bits = deployment.n, deployment.d, deployment.bits
    while not levels or levels[-1].cohorts > 1:
        cohorts = -(-members // size)
        each = -(-members // cohorts)
        own = replace(
            deployment,
            n=each,
            d=d,
            bits=bits,
            minimum=min(deployment.minimum, max(each // 2, 2)),
            corrupt=marked(members, cohorts, deployment.corrupt, 40),
            dropout=marked(members, cohorts, deployment.dropout, 20),
            gone=Fraction(0) if levels else deployment.gone,
        )
        levels.append(Level(cohorts, own, cost(protocol, own, units)))
        d, bits, members = deployment.d + 1, own.plan(protocol).ring_bits, cohorts
    return Tree(tuple(levels))


def marked(members: int, cohorts: int, share: Fraction, bits: int) -> Fraction:
    """The largest share in any of so many cohorts, if this is the share of all members, but for 2^-bits.

    >>> marked(10_000, 100, Fraction(1, 20), 40)
    Fraction(7, 25)
    """
    if cohorts == 1:
        return share
    each = -(-members // cohorts)
    return Fraction(most_marked(members, floor(share * members), each, bits, times=cohorts), each)
