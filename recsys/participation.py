"""Who takes part in which sum.

The cohort is drawn from a seed that the deployment fixes (a beacon drawn after the plan, for clients who do not trust
their server), not by the server: each client draws it again, and a plan for another cohort is a plan for another
roster, which clients refuse. So of a roster in which a fraction is dishonest, about that fraction of a cohort is.

The draw is over the names of all clients and the kind and size of the cohort: a name that is added or changed after
the seed is known changes every cohort, so nobody can choose a name that is drawn. (Whoever could try many names could
still wait for a draw that suits it. The names must be fixed before the seed is known.)

All parties know the cohort, so sampling makes no epsilon smaller: every sum is charged as if everybody were in it.

Where clients take time to train, more of them can be drawn than a sum needs (``over``): it goes on with the first that
are done, and the others count as dropped out, in noise as in everything.

With turns (``dp.turns``) there is one draw for the whole run, an order of all clients, and each is in a few sums that
are known in advance. So each is charged for these alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import ceil

import numpy as np

from dp.turns import cohort as turn
from dp.turns import most_turns
from secagg.crypto import labels
from secagg.crypto.keys import derive, digest
from secagg.crypto.prg import Prg, random_words
from secagg.errors import UsageError


def beacon(seed: int) -> bytes:
    """The beacon of a simulated run. It follows from the run's seed, so that the same seed draws the same cohorts."""
    return digest(labels.SIMULATED, b"beacon", str(seed).encode())


class Draw(StrEnum):
    EVERYONE = "everyone"
    """all clients"""
    FIXED = "fixed"
    """a fixed number of clients, each as likely as any other"""
    POISSON = "poisson"
    """each client by itself, with one probability, so that the number of clients varies"""
    TURNS = "turns"
    """the next clients in a cyclic order that all know: each is in a few rounds, and is charged for these alone. A turn
    that is missed, or whose round fails, is lost"""
    ARRIVALS = "arrivals"
    """whoever has trained, from whatever version of the model: asynchronous training (FedBuff). Each is charged for the
    sums that it is in, of which there are ``most`` at the most"""


@dataclass(frozen=True, slots=True)
class Participation:
    """
    >>> names = [f"client-{i}" for i in range(10)]
    >>> Participation(Draw.FIXED, 3).cohort(names, bytes(32), number=0)
    ('client-1', 'client-4', 'client-6')
    >>> len(Participation().cohort(names, bytes(32), number=0))
    10
    """

    draw: Draw = Draw.EVERYONE
    size: int = 0
    """the number of clients in a cohort, or its mean; without meaning where everyone takes part"""
    over: float = 1.0
    """for fixed draws and turns: so many times ``size`` are called, of whom the first ``size`` are waited for"""
    most: int = 0
    """for arrivals: in how many sums a client is, at the most; 0: twice its even share, rounded up"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "draw", Draw(self.draw))
        if not 1 <= self.over <= 10 or (self.over > 1 and self.draw not in (Draw.FIXED, Draw.TURNS)):
            raise UsageError("over-selection is 1 to 10 times the size of a fixed draw, or of a turn")
        if self.most < 0 or (self.most and self.draw is not Draw.ARRIVALS):
            raise UsageError("in how many sums a client is at the most is said of arrivals, and not below zero")
        if self.draw is not Draw.EVERYONE and self.size < 2:
            raise UsageError("a cohort has at least two clients: set the size of participation")

    def planned(self, clients: int) -> int:
        """How many clients a sum is planned over, on average."""
        if (drawn := self._drawn) > clients:
            raise UsageError(f"a cohort of {drawn} cannot be drawn from {clients} clients")
        return clients if self.draw is Draw.EVERYONE else drawn

    def expected(self, clients: int) -> int:
        """How many of these are waited for: the constant that sums with noise are divided by.

        >>> over = Participation(Draw.FIXED, 10, over=1.3)
        >>> over.planned(100), over.expected(100)
        (13, 10)
        """
        return self.size if self.over > 1 else self.planned(clients)

    @property
    def _drawn(self) -> int:
        return ceil(round(self.size * self.over, 6))

    def charged(self, clients: int, sums: int) -> int:
        """For how many of so many sums any of these clients is charged, at the most.

        >>> Participation(Draw.TURNS, 100).charged(1000, sums=100), Participation(Draw.FIXED, 100).charged(1000, 100)
        (10, 100)
        """
        if self.draw is Draw.ARRIVALS:
            return self.most or 2 * most_turns(clients, self.planned(clients), sums)
        return most_turns(clients, self.planned(clients), sums) if self.draw is Draw.TURNS else sums

    def cohort(self, names: Sequence[str], seed: bytes, number: int) -> tuple[str, ...]:
        """The names of those who take part in sum ``number``, in the order of ``names``."""
        planned = self.planned(len(names))
        if self.draw is Draw.ARRIVALS:
            raise UsageError("who has trained, no draw says")
        if self.draw is Draw.EVERYONE:
            return tuple(names)
        if self.draw is Draw.TURNS:
            members = set(turn(tuple(sorted(names)), seed, planned, number))
            return tuple(name for name in names if name in members)
        drawn = [str(self.draw), str(planned), *names]
        drawn_from = digest(labels.SIMULATED, b"cohort", *[part.encode() for part in drawn])
        key = derive(seed, labels.SIMULATED, b"cohort", number.to_bytes(8, "big"), drawn_from)
        words = random_words(Prg(key), len(names))
        if self.draw is Draw.FIXED:
            chosen = np.sort(np.argsort(words, kind="stable")[:planned])
        else:
            chosen = np.flatnonzero(
                words < np.uint64(planned / len(names) * 2.0**64) if planned < len(names) else words >= 0
            )
        return tuple(names[i] for i in chosen)
