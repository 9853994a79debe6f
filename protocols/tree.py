"""Trees of cohorts: one sum over more clients than one round should have.

Clients are cut into cohorts of about a thousand. Each cohort runs a round of its own, with an aggregator as its server,
and only the cohort's sum goes on: the aggregators are the clients of the next level, in rounds of their own over sums
of integers, and so on up to one root. So a client's cost stays that of a cohort (but for the drawing: it needs the
roster of all), and nobody but its own aggregator ever sees less than the sum of many cohorts; every level has its
minimum, which the clients of that level enforce.

Who is with whom is drawn from a beacon: random bytes that the deployment publishes once the rosters are fixed. Every
client draws its cohort again and takes it for its roster, so it refuses a plan for any other, and nobody can choose
with whom it is summed up (an aggregator still chooses whom it calls silent, down to the minimum). Cohorts stay as they
are for a session; a client is in one of them. Protocols do not say which server is speaking: that it is the leader of
its cohort, and not the root, a client knows from the transport.

    who dishonest                     what it learns of a client
    its aggregator                    the sum of its cohort, who took part in it
    the root                          the sum of everything, who of the aggregators took part
    aggregator and root               the same two; further aggregators: the same two, and their own sums
    a fraction of all the clients     nothing more, with any of these: cohorts are drawn so that none has many more
                                      than its share (``Tree.marked``), which clients and noise must reckon with
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dp.events import Relation
from protocols.outcome import RoundOutcome
from protocols.plan import MAX_BEACON, RoundPlan
from protocols.roster import Roster
from secagg import labels
from secagg.codec import u32
from secagg.encoding import Encoding, Sum
from secagg.errors import PolicyError, UsageError
from secagg.keys import digest
from secagg.params import fraction, most_marked
from secagg.prg import Prg, random_words

if TYPE_CHECKING:
    from dp.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Tree:
    """``rosters[0]`` are the clients, ``rosters[i + 1]`` who leads the cohorts of level i, in the order of their names.

    The last one is a single cohort, whose server is the root. No cohort has more than ``size`` members; they differ by
    at most one.

    >>> from protocols.roster import Identity
    >>> clients = Roster.of([Identity.generate(f"client-{i}") for i in range(8)])
    >>> aggregators = Roster.of([Identity.generate(f"aggregator-{i}") for i in range(3)])
    >>> tree = Tree((clients, aggregators), size=3, beacon=bytes(32))
    >>> [len(tree.cohort(0, number)) for number in range(3)], len(tree.cohort(1, 0))
    ([3, 3, 2], 3)
    >>> "client-5" in tree.cohort(0, tree.number_of(0, "client-5")).names
    True
    """

    rosters: tuple[Roster, ...]
    size: int
    beacon: bytes = field(repr=False)
    _orders: tuple[NDArray[np.int64], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.rosters) < 2 or self.size < 2:
            raise UsageError("a tree has clients, aggregators, and cohorts of at least two")
        if not 16 <= len(self.beacon) <= MAX_BEACON:
            raise UsageError(f"a beacon has 16 to {MAX_BEACON} random bytes")
        for level, (below, above) in enumerate(zip(self.rosters, self.rosters[1:], strict=False)):
            if len(above) != (count := self.cohorts(level)):
                raise UsageError(f"{len(below)} members of level {level} are {count} cohorts, which {len(above)} lead")
        if any(len(roster) // self.cohorts(level) < 2 for level, roster in enumerate(self.rosters)):
            raise UsageError("a cohort with fewer than two members: make cohorts smaller, or do without a tree")
        if self.cohorts(len(self.rosters) - 1) != 1:
            raise UsageError(f"{len(self.rosters[-1])} at the top are more than one cohort of {self.size}")
        object.__setattr__(self, "_orders", tuple(self._order(level) for level in range(len(self.rosters))))

    def _order(self, level: int) -> NDArray[np.int64]:
        seed = digest(labels.TREE, self.beacon, u32.encode(level), u32.encode(self.size), self.rosters[level].digest)
        return np.argsort(random_words(Prg(seed), len(self.rosters[level])), kind="stable")

    @property
    def levels(self) -> int:
        return len(self.rosters)

    def cohorts(self, level: int) -> int:
        return -(-len(self.rosters[level]) // self.size)

    def cohort(self, level: int, number: int) -> Roster:
        """Who runs a round together."""
        roster = self.rosters[level]
        start, stop = self._span(level, number)
        return Roster.build({roster.names[i]: roster.keys[i] for i in self._orders[level][start:stop].tolist()})

    def number_of(self, level: int, name: str) -> int:
        """In which cohort a member of a level is."""
        at = int(np.flatnonzero(self._orders[level] == self.rosters[level].number(name))[0])
        return next(n for n in range(self.cohorts(level)) if at < self._span(level, n)[1])

    def leader(self, level: int, number: int) -> str:
        """Who is the server of a cohort, and its voice on the level above. The root has no name."""
        if level + 1 == self.levels:
            raise UsageError("the root is nobody's client")
        return self.rosters[level + 1].names[number]

    def _span(self, level: int, number: int) -> tuple[int, int]:
        count, members = self.cohorts(level), len(self.rosters[level])
        if not 0 <= number < count:
            raise UsageError(f"level {level} has cohorts 0 to {count - 1}, not {number}")
        least, larger = divmod(members, count)
        start = number * least + min(number, larger)
        return start, start + least + (number < larger)

    def marked(self, level: int, share: str | float | Fraction, bits: int = 40) -> int:
        """If that fraction of a level's members is marked, no cohort has more, but for a chance of 2^-bits.

        It is for clients' policies and plans (corrupt: 40 bits, silent: 20 will do) and for colluders in the noise.

        >>> from protocols.roster import Identity
        >>> clients = Roster.of([Identity.generate(f"client-{i}") for i in range(400)])
        >>> aggregators = Roster.of([Identity.generate(f"aggregator-{i}") for i in range(4)])
        >>> Tree((clients, aggregators), size=100, beacon=bytes(32)).marked(0, "0.05")
        19
        """
        members = len(self.rosters[level])
        marked = int(fraction(share) * members)
        return most_marked(members, marked, -(-members // self.cohorts(level)), bits, times=self.cohorts(level))


# What goes up


def encoding_above(plans: Iterable[RoundPlan], level: int) -> Encoding:
    """For the sums of a level's cohorts. ``plans`` are at least those of the first cohort (the largest) and the last.

    Above the clients there is one more coordinate: how many clients are in the sum.
    """
    first, *others = plans
    bits = max(plan.ring_bits for plan in (first, *others))  # noise may need more where there are fewer to make it
    return Encoding.integers(first.encoding.coordinates + (level == 0), bits=bits)


def update_above(plan: RoundPlan, outcome: RoundOutcome, level: int) -> NDArray[np.int64]:
    """What the aggregator of a cohort of ``level`` adds under ``plan``, that of its own round on the level above.

    Once: the same session and round, of which its journal knows one plan. Under another, the root would take the
    difference.
    """
    below, encoding = outcome.event.plan, plan.encoding
    vector = np.append(outcome.total, len(outcome.survivors)) if level == 0 else outcome.total
    if (plan.session, plan.round) != (below.session, below.round):
        raise PolicyError("the plan of the level above is for another session or round than this cohort's sum")
    if encoding != Encoding.integers(len(vector), encoding.bits) or encoding.bits < below.ring_bits:
        raise PolicyError("the plan of the level above is not one for the sum of this cohort")
    return vector


def decoded(clients: RoundPlan, root: RoundOutcome) -> Sum:
    """The sum of all clients whose cohort, and whose aggregators, came through, in the units of their updates.

    ``clients`` is the plan of any cohort of clients.
    """
    if (clients.session, clients.round) != (root.event.plan.session, root.event.plan.round):
        raise UsageError("these clients' vectors are not in this sum: it is of another session or round")
    return clients.decode_total(root.total[:-1], int(root.total[-1]))


# What it costs in privacy


def largest_epsilon(tree: Tree, ledgers: Sequence[Ledger]) -> float:
    """What the clients' cohorts come to, each on a ledger of its own: the largest, since every client is in one.

    ``ledgers[i]`` must hold the sums of cohort i and nothing else: in another's, its clients might be, too.
    """
    if len(ledgers) != tree.cohorts(0):
        raise UsageError(f"{tree.cohorts(0)} cohorts have as many ledgers, not {len(ledgers)}")
    if any(ledger.guarantee.relation is not Relation.ZERO_OUT for ledger in ledgers):
        raise UsageError("cohorts are disjoint under zero-out only: one client more, or another, and all are redrawn")
    if len({(ledger.guarantee, ledger.budget.delta) for ledger in ledgers}) > 1:
        raise UsageError("the cohorts' ledgers are for different guarantees, or at different deltas")
    for number, ledger in enumerate(ledgers):
        roster = tree.cohort(0, number).digest
        for entry in ledger.entries():
            if entry["phase"] in ("reserve", "commit") and _roster_of(entry) != roster:
                raise UsageError(f"the ledger of cohort {number} holds something else than its sums")
    return max(ledger.epsilon for ledger in ledgers)


def _roster_of(entry: Mapping[str, Any]) -> bytes:
    return RoundPlan.decode(bytes.fromhex(entry["sum"]["plan"])).roster if "sum" in entry else b""
