"""What proofs weigh that some leaves are in a Merkle tree: nodes that are sent, steps that are climbed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import lgamma
from statistics import mean

import numpy as np

from secagg.crypto.merkle import NODE
from secagg.crypto.prg import Prg, random_words

DRAWS, DRAWN_UP_TO = 24, 5000
"""Where an expected value is the mean of so many draws; with more clients it follows from theory."""


SEED = bytes(32)
"""Of what is drawn for a mean: no secret."""


@dataclass(frozen=True, slots=True)
class Proof:
    """That so many leaves are there: ``nodes`` have to be sent, computing the root takes ``steps``."""

    leaves: float
    nodes: float
    steps: float

    @property
    def size(self) -> float:
        return NODE.least * self.nodes


def proof_of(width: int, indices: Iterable[int]) -> Proof:
    """Of these leaves, as ``secagg.crypto.merkle`` makes it.

    >>> proof_of(8, [0, 3])
    Proof(leaves=2, nodes=3, steps=4)
    """
    known, nodes, steps = set(indices), 0, 0
    leaves = len(known)
    while width > 1 and known:
        nodes += sum(i ^ 1 not in known and i ^ 1 < width for i in known)
        known, width = {i // 2 for i in known}, (width + 1) // 2
        steps += len(known)
    return Proof(leaves, nodes, steps)


@lru_cache(maxsize=1024)
def random_proof(width: int, leaves: int) -> Proof:
    """Of so many random leaves, on average: a few draws' mean, or, where drawing takes long, what theory says.

    A subtree of s leaves has none of them with probability C(n - s, m) / C(n, m).

    >>> random_proof(1000, 1000).nodes, round(random_proof(10**6, 167).nodes)
    (0, 1948)
    """
    if width <= DRAWN_UP_TO:
        lots = Prg(SEED)
        return mean_of([proof_of(width, order(lots, width)[:leaves]) for _ in range(DRAWS)])

    def empty(size: int) -> float:
        if size > width - leaves:
            return 0.0
        logs = lgamma(width - size + 1) - lgamma(width - size - leaves + 1) - lgamma(width + 1)
        return float(np.exp(logs + lgamma(width - leaves + 1)))

    nodes, steps, size = 0.0, 0.0, 1
    while size < width:
        pairs = width / (2 * size)
        nodes += 2 * pairs * (empty(size) - empty(2 * size))
        size *= 2
        steps += -(-width // size) * (1 - empty(size))
    return Proof(leaves, nodes, steps)


def order(lots: Prg, width: int) -> list[int]:
    """So many numbers in a random order, the same on every machine.

    >>> sorted(order(Prg(bytes(32)), 4))
    [0, 1, 2, 3]
    """
    drawn: list[int] = np.argsort(random_words(lots, width), kind="stable").tolist()
    return drawn


def mean_of(proofs: Sequence[Proof]) -> Proof:
    return Proof(*(mean(getattr(proof, name) for proof in proofs) for name in ("leaves", "nodes", "steps")))
