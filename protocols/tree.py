"""Trees of cohorts: one sum over more clients than one round should have.

Clients are cut into cohorts of about a thousand. Each cohort runs a round of its own, with an aggregator as its server,
and only the cohort's sum goes on: the aggregators are the clients of the next level, in rounds of their own over sums
of integers, and so on up to one root. So a client's cost stays that of a cohort (but for the drawing: it needs the
roster of all), and nobody but its own aggregator ever sees less than the sum of many cohorts; every level has its
minimum, which the clients of that level enforce.

Who is with whom, and who leads whom, is drawn from a beacon: random bytes that the deployment publishes once all the
rosters are fixed. Every party draws its cohort again and takes it for its roster, so it refuses a plan for any other,
and nobody can choose with whom it is summed up (an aggregator still chooses whom it calls silent, down to the minimum).
One change to any roster, on any level, draws everything anew. So whoever could still change one when the beacon is out
could try changes until the draw suits it: publish what is ``settled`` before the beacon. Cohorts stay as they are for a
session; a client is in one of them. Protocols do not say which server is speaking: that it is the leader of its cohort,
and not the root, a client knows from the transport.

    who dishonest                     what it learns of a client
    its aggregator                    the sum of its cohort, who took part in it
    the root                          the sum of everything, who of the aggregators took part
    aggregator and root               the same two; further aggregators: the same two, and their own sums
    a fraction of all the clients     nothing more, with any of these: cohorts are drawn so that none has many more
                                      than its share (``Tree.marked``), which clients and noise must reckon with

No name and no key is on two levels: an aggregator that were a member of its own cohort would know one vector of a sum
that has few. One that has a client of another name and key, or a friend among the clients, cannot be told from the
outside: those clients belong to the fraction that is reckoned with.

A lying aggregator can send up any vector that its place in the sum has room for, which is about what its whole cohort
could come to; so the total is right only if the aggregators are honest. How many clients it claims to have summed is
held against what its part of the tree can be (``Tree.contributors``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dp.events import Relation
from dp.noise import NoiseSpec
from protocols.outcome import RoundOutcome
from protocols.parameters import AUTO
from protocols.plan import MAX_BEACON, NO_MODEL, RoundPlan
from protocols.policy import Policy
from protocols.roster import Roster
from secagg.assumptions import Adversary, fraction
from secagg.codec import u32
from secagg.crypto import labels
from secagg.crypto.keys import digest
from secagg.crypto.prg import Prg, random_words
from secagg.encoding import Encoding, Sum
from secagg.errors import PeerError, PolicyError, UsageError
from secagg.hypergeometric import most_marked

if TYPE_CHECKING:
    from dp.ledger import Ledger
    from dp.ledger.heads import SignedHead


@dataclass(frozen=True, slots=True)
class Terms:
    """What the rounds of a level agree on, and each of its members insists on.

    ``corrupt`` and ``dropout`` are fractions of the level's members. Plans and policies are made for the most of them
    that a cohort may have (``Tree.marked``), which is many more if cohorts are small. Only clients have weights, so
    ``weight_bound`` is 1 on the levels above, and only clients can be silos with ``users`` (``Policy``).
    """

    min_contributors: int
    protocol: str = "secagg+"
    corrupt: str = "0.05"
    dropout: str = "0.1"
    adversary: Adversary = Adversary.ACTIVE
    weight_bound: int = 1
    users: int = 0
    overlap: int = 1

    def __post_init__(self) -> None:
        if self.protocol == AUTO:
            raise UsageError("every member of a tree makes its plan anew, so its terms name a protocol, and not auto")


@dataclass(frozen=True, slots=True)
class Tree:
    """``rosters[0]`` are the clients, ``rosters[i + 1]`` who leads the cohorts of level i; ``terms[i]`` are level i's.

    The last level is a single cohort, whose server is the root. No cohort has more than ``size`` members; they differ
    by at most one.

    >>> from protocols.roster import Identity
    >>> clients = Roster.of([Identity.generate(f"client-{i}") for i in range(8)])
    >>> aggregators = Roster.of([Identity.generate(f"aggregator-{i}") for i in range(3)])
    >>> tree = Tree((clients, aggregators), size=3, beacon=bytes(32), terms=(Terms(2), Terms(2)))
    >>> [len(tree.cohort(0, number)) for number in range(3)], len(tree.cohort(1, 0))
    ([3, 3, 2], 3)
    >>> "client-5" in tree.cohort(0, tree.number_of(0, "client-5")).names
    True
    >>> tree.leads(1, tree.leader(0, 2))
    2
    """

    rosters: tuple[Roster, ...]
    size: int
    beacon: bytes = field(repr=False)
    terms: tuple[Terms, ...]
    _orders: tuple[NDArray[np.int64], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.rosters) < 2 or self.size < 2:
            raise UsageError("a tree has clients, aggregators, and cohorts of at least two")
        if len(self.terms) != len(self.rosters):
            raise UsageError(f"a tree of {len(self.rosters)} levels has terms for each, not for {len(self.terms)}")
        if not 16 <= len(self.beacon) <= MAX_BEACON:
            raise UsageError(f"a beacon has 16 to {MAX_BEACON} random bytes")
        for level, (below, above) in enumerate(zip(self.rosters, self.rosters[1:], strict=False)):
            if len(above) != (count := self.cohorts(level)):
                raise UsageError(f"{len(below)} members of level {level} are {count} cohorts, which {len(above)} lead")
        if any(len(roster) // self.cohorts(level) < 2 for level, roster in enumerate(self.rosters)):
            raise UsageError("a cohort with fewer than two members: make cohorts smaller, or do without a tree")
        if self.cohorts(len(self.rosters) - 1) != 1:
            raise UsageError(f"{len(self.rosters[-1])} at the top are more than one cohort of {self.size}")
        self._check_disjoint()
        draw = settled(self.rosters, self.size)
        object.__setattr__(self, "_orders", tuple(self._order(level, draw) for level in range(self.levels)))

    def _order(self, level: int, draw: bytes) -> NDArray[np.int64]:
        seed = digest(labels.TREE, self.beacon, draw, u32.encode(level))
        return np.argsort(random_words(Prg(seed), len(self.rosters[level])), kind="stable")

    def _check_disjoint(self) -> None:
        above = set[str | bytes]()
        for level in range(len(self.rosters) - 1, 0, -1):
            above.update(self.rosters[level].names, self.rosters[level].keys)
            below = self.rosters[level - 1]
            if not above.isdisjoint(below.names) or not above.isdisjoint(below.keys):
                raise UsageError(f"a name or a key of level {level - 1} is on a level above, too: nobody leads itself")

    @property
    def levels(self) -> int:
        return len(self.rosters)

    def cohorts(self, level: int) -> int:
        return -(-len(self.rosters[level]) // self.size)

    def cohort(self, level: int, number: int) -> Roster:
        """Who runs a round together."""
        roster = self.rosters[level]
        start, stop = self._span(level, number)
        return roster.part(roster.names[i] for i in self._orders[level][start:stop].tolist())

    def number_of(self, level: int, name: str) -> int:
        """In which cohort a member of a level is."""
        at = self._place(level, name)
        return next(n for n in range(self.cohorts(level)) if at < self._span(level, n)[1])

    def leader(self, level: int, number: int) -> str:
        """Who is the server of a cohort, and its voice on the level above. The root has no name."""
        if level + 1 == self.levels:
            raise UsageError("the root is nobody's client")
        return self.rosters[level + 1].names[int(self._orders[level + 1][number])]

    def leads(self, level: int, name: str) -> int:
        """Which cohort of the level below a member of a level is the server of: the inverse of ``leader``."""
        if level == 0:
            raise UsageError("clients lead nobody")
        return self._place(level, name)

    def _place(self, level: int, name: str) -> int:
        """Where in the order of its level a member is: its cohort is around there, and that cohort below is its own."""
        return int(np.flatnonzero(self._orders[level] == self.rosters[level].number(name))[0])

    def _span(self, level: int, number: int) -> tuple[int, int]:
        count, members = self.cohorts(level), len(self.rosters[level])
        if not 0 <= number < count:
            raise UsageError(f"level {level} has cohorts 0 to {count - 1}, not {number}")
        least, larger = divmod(members, count)
        start = number * least + min(number, larger)
        return start, start + least + (number < larger)

    def marked(self, level: int, share: str | float | Fraction, bits: int = 40) -> int:
        """If that fraction of a level's members is marked, no cohort has more, but for a chance of 2^-bits.

        Policies and plans of a tree reckon with it (corrupt: 40 bits, silent: 20); so must the noise's colluders.

        >>> from protocols.roster import Identity
        >>> clients = Roster.of([Identity.generate(f"client-{i}") for i in range(400)])
        >>> aggregators = Roster.of([Identity.generate(f"aggregator-{i}") for i in range(4)])
        >>> Tree((clients, aggregators), 100, bytes(32), (Terms(60), Terms(3))).marked(0, "0.05")
        19
        """
        members = len(self.rosters[level])
        marked = int(fraction(share) * members)
        return most_marked(members, marked, -(-members // self.cohorts(level)), bits, times=self.cohorts(level))

    def contributors(self, level: int, number: int) -> tuple[int, int]:
        """The fewest and the most clients that the sum of a cohort can be of, whoever falls silent: each level below
        has had its minimum.

        >>> from protocols.simulation.trees import grown
        >>> tree = grown(60, 5, bytes(32), Terms(3), Terms(2))
        >>> tree.contributors(0, 0), tree.contributors(1, 0), tree.contributors(2, 0)
        ((3, 5), (6, 20), (12, 60))
        """
        start, stop = self._span(level, number)
        minimum = self.terms[level].min_contributors
        if level == 0:
            return minimum, stop - start
        least, most = zip(*[self.contributors(level - 1, led) for led in range(start, stop)], strict=True)
        return sum(sorted(least)[:minimum]), sum(most)

    # A cohort's round. Plan and policy are made here and nowhere else, so that no member forgets what a drawn cohort
    # needs: all of it, its beacon, and fears for the worst cohort instead of the average one.

    def plan(
        self,
        level: int,
        number: int,
        encoding: Encoding,
        *,
        session: bytes,
        round_: int = 0,
        noise: NoiseSpec | None = None,
        model: bytes = NO_MODEL,
        ledger: SignedHead | None = None,
    ) -> RoundPlan:
        """What the leader of a cohort proposes to it."""
        terms = self.terms[level]
        first = RoundPlan.propose(
            terms.protocol,
            self.cohort(level, number),
            encoding,
            min_contributors=terms.min_contributors,
            corrupt=self._share(level, number, terms.corrupt, 40),
            dropout=self._share(level, number, terms.dropout, 20),
            adversary=terms.adversary,
            noise=noise,
            session=session,
            model=model,
            beacon=self.beacon,
            ledger=ledger,
        )
        return replace(first, round=round_)

    def policy(self, level: int, number: int) -> Policy:
        """What every member of a cohort insists on. Whoever wants more (noise, for instance) replaces that part."""
        terms = self.terms[level]
        return Policy(
            min_contributors=terms.min_contributors,
            protocols={terms.protocol},
            corrupt=self._share(level, number, terms.corrupt, 40),
            dropout=self._share(level, number, terms.dropout, 20),
            adversary=terms.adversary,
            beacon=self.beacon,
            whole_roster=True,
            weight_bound=terms.weight_bound,
            users=terms.users,
            overlap=terms.overlap,
        )

    def _share(self, level: int, number: int, share: str, bits: int) -> str:
        start, stop = self._span(level, number)
        return f"{min(self.marked(level, share, bits), stop - start)}/{stop - start}"


def settled(rosters: Sequence[Roster], size: int) -> bytes:
    """The digest of all that the beacon draws from. Who publishes it before the beacon can exchange nothing after."""
    return digest(labels.TREE, u32.encode(size), *[roster.digest for roster in rosters])


# What goes up


def encoding_above(plans: Iterable[RoundPlan], level: int) -> Encoding:
    """For the sums of a level's cohorts. ``plans`` are at least those of the first cohort (the largest) and the last.

    Above the clients there is one more coordinate: how many clients are in the sum.
    """
    first, *others = plans
    bits = max(plan.ring_bits for plan in (first, *others))  # noise may need more where there are fewer to make it
    return Encoding.integers(first.encoding.coordinates + (level == 0), bits=bits)


def update_above(tree: Tree, plan: RoundPlan, outcome: RoundOutcome, level: int) -> NDArray[np.int64]:
    """What the aggregator of a cohort of ``level`` adds under ``plan``, that of its own round on the level above.

    Once: the same session and round, of which its journal knows one plan. Under another, the root would take the
    difference. ``PeerError``: the sum claims to be of more clients, or fewer, than it can be of.
    """
    below, encoding = outcome.event.plan, plan.encoding
    if level > 0:
        _check_count(tree, level, outcome)
    vector = np.append(outcome.total, len(outcome.survivors)) if level == 0 else outcome.total
    if (plan.session, plan.round) != (below.session, below.round):
        raise PolicyError("the plan of the level above is for another session or round than this cohort's sum")
    if encoding != Encoding.integers(len(vector), encoding.bits) or encoding.bits < below.ring_bits:
        raise PolicyError("the plan of the level above is not one for the sum of this cohort")
    return vector


def decoded(tree: Tree, clients: RoundPlan, root: RoundOutcome) -> Sum:
    """The sum of all clients whose cohort, and whose aggregators, came through, in the units of their updates.

    ``clients`` is the plan of any cohort of clients. ``PeerError``: the sum claims to be of more clients, or fewer,
    than it can be of.
    """
    top = tree.levels - 1
    if (clients.session, clients.round) != (root.event.plan.session, root.event.plan.round):
        raise UsageError("these clients' vectors are not in this sum: it is of another session or round")
    if root.event.plan.roster != tree.cohort(top, 0).digest:
        raise UsageError("this is not the sum at the root of this tree")
    _check_count(tree, top, root)
    return clients.decode_total(root.total[:-1], int(root.total[-1]))


def _check_count(tree: Tree, level: int, outcome: RoundOutcome) -> None:
    """Aggregators that tell the truth are each within their bounds, and so is their sum. So if it is not, one of those
    that are in it has lied (or has passed on, unchecked, what its own aggregators said)."""
    bounds = [tree.contributors(level - 1, tree.leads(level, name)) for name in outcome.survivors]
    least, most = sum(one[0] for one in bounds), sum(one[1] for one in bounds)
    if not least <= (count := int(outcome.total[-1])) <= most:
        raise PeerError(
            f"a sum that is said to be of {count} clients, and is of {least} to {most}", culprits=outcome.survivors
        )


# What it costs in privacy


def largest_epsilon(tree: Tree, ledgers: Sequence[Ledger]) -> float:
    """What the clients' cohorts come to, each on a ledger of its own: the largest, since every client is in one.

    ``ledgers[i]`` must hold the sums of cohort i and nothing else: in another's, its clients might be, too. So might
    users who may be in several silos, which is refused.
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
            if entry.get("sum", {}).get("overlap", 1) > 1:
                raise UsageError("users who may be in several silos may be in several cohorts, and no ledger has all")
    return max(ledger.epsilon for ledger in ledgers)


def _roster_of(entry: Mapping[str, Any]) -> bytes:
    return RoundPlan.decode(bytes.fromhex(entry["sum"]["plan"])).roster if "sum" in entry else b""
