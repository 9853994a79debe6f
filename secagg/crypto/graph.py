"""Who is whose neighbour: everybody's (Bonawitz et al. 2017), or a k-ring in random order (Bell et al. 2020).

Clients are positions 0 .. n-1 in the list of adverts. The ring is a Harary graph: positions are put in an order
drawn from a public seed, and each is joined to the k/2 before and the k/2 after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from secagg.crypto.prg import Prg, random_words
from secagg.errors import UsageError


class Graph(StrEnum):
    """The two kinds of graphs."""

    COMPLETE = "complete"
    RING = "ring"


@dataclass(frozen=True, slots=True)
class GraphParameters:
    """Which graph it is, how many neighbours each client has, and how many of them must help to recover its secrets.

    Against an active server ``quorum`` of ``witnesses`` clients, drawn from the whole ring, must sign a set of
    survivors before anybody reveals a share for it. Both are 0 where nothing is asked of witnesses: on the complete
    graph, where the threshold says the same, and against a curious server, which tells everybody the same.
    """

    graph: Graph
    degree: int
    threshold: int
    witnesses: int = 0
    quorum: int = 0


class Neighbourhoods:
    """The graph over ``size`` clients.

    >>> ring = Neighbourhoods(GraphParameters(Graph.RING, 4, 3), 10, bytes(32))
    >>> [len(ring.of(i)) for i in range(10)] == [4] * 10
    True
    >>> all(i in ring.of(j) for i in range(10) for j in ring.of(i))
    True
    """

    def __init__(self, parameters: GraphParameters, size: int, seed: bytes) -> None:
        if size < 2:
            raise UsageError("a graph needs two clients")
        self._size = size
        self._complete = parameters.graph is Graph.COMPLETE
        reach = parameters.degree // 2
        self._witnesses = parameters.witnesses
        self._closed = 2 * reach >= size - 1  # so few are left that all are neighbours
        self._steps = np.delete(np.arange(-reach, reach + 1), reach)
        self._order = np.argsort(random_words(Prg(seed), size), kind="stable").astype(np.int32)
        self._rank = np.argsort(self._order).astype(np.int32)

    def of(self, position: int) -> tuple[int, ...]:
        """The holders of this client's shares, ascending.

        On the complete graph a client is a holder of its own share, as in Bonawitz et al.; on the ring it is not.
        """
        if self._complete:
            return tuple(range(self._size))
        if self._closed:
            return tuple(i for i in range(self._size) if i != position)
        around = self._order[(self._rank[position] + self._steps) % self._size]
        return tuple(sorted(around.tolist()))

    def witnesses(self) -> tuple[int, ...]:
        """The clients whose signatures speak for the whole cohort, ascending: those at even distances on the ring.

        The order of the ring is random, so this is a uniformly random set of so many clients.
        """
        count = min(self._witnesses, self._size)
        return tuple(sorted(int(self._order[i * self._size // count]) for i in range(count)))
