"""Simulations of whole trees of cohorts: each cohort with all its parties is one piece of work for an engine.

Everybody's keys and randomness come from one secret, so a cohort whose worker is lost is run again and says the same.
Memory holds the cohorts that are being worked on, and the sums of a level.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from numpy.typing import ArrayLike

from dp.noise import NoiseSpec
from dp.tree import TreeSum
from protocols.engines import Engine
from protocols.outcome import RoundEvent, RoundOutcome
from protocols.plan import SESSION_BYTES, RoundPlan
from protocols.roster import Identity, Roster
from protocols.server import serve
from protocols.simulation.network import Faults, Simulation, Update, simulate
from protocols.simulation.workers import clients_of
from protocols.tree import Terms, Tree, decoded, encoding_above, update_above
from secagg.crypto import labels
from secagg.crypto.keys import derive
from secagg.crypto.prg import Prg
from secagg.encoding import Encoding, Sum, UserVectors
from secagg.errors import BudgetError, PeerError, StorageError, ThresholdError, UsageError

if TYPE_CHECKING:
    from dp.ledger import Ledger


@dataclass(frozen=True, slots=True)
class TreeRun:
    """``rounds[level][number]`` is what became of a cohort: its round, or why there is no sum of it."""

    total: Sum
    """of the clients that are in it; its weight without weights is their number"""
    rounds: tuple[tuple[Simulation | str, ...], ...]
    made: TreeSum | None
    """the cohorts whose sums their aggregators have, if there was noise: what privacy follows from there"""
    added: TreeSum | None
    """those whose sums are in the total: what it follows from at the root"""


def grown(clients: int, size: int, secret: bytes, terms: Terms, above: Terms) -> Tree:
    """A tree for a simulation: of made-up people, in as many levels as it takes. Clients have terms of their own.

    >>> [len(roster) for roster in grown(40, 6, bytes(32), Terms(3), Terms(2)).rosters]
    [40, 7, 2]
    """
    rosters = list[Roster]()
    count, digits = clients, len(str(clients))
    while not rosters or len(rosters[-1]) > size or len(rosters) < 2:
        names = [f"{'client' if not rosters else f'level-{len(rosters)}'}-{i:0{digits}}" for i in range(count)]
        rosters.append(Roster.of([_identity(name, secret) for name in names]))
        count = -(-count // size)
    return Tree(
        tuple(rosters), size, derive(secret, labels.SIMULATED, b"beacon"), (terms, *[above] * (len(rosters) - 1))
    )


def simulate_tree(
    tree: Tree,
    encoding: Encoding,
    update: Update,
    *,
    engine: Engine,
    secret: bytes,
    round_: int,
    noise: NoiseSpec | None = None,
    ledger: Callable[[int], Ledger] | None = None,
    faults: Callable[[int, int], Faults] = lambda level, number: Faults(),
) -> TreeRun:
    """One sum over all the clients of a tree that was ``grown`` from ``secret``. Each sum has a ``round_`` of its own.

    With ``noise``, that of every cohort of clients, ``ledger(number)`` opens the one
    that a cohort is charged to, where the cohort is worked on. ``faults(level, number)`` go wrong in a cohort's round.

    >>> from protocols.engines.local import Threads
    >>> tree = grown(12, 4, bytes(32), Terms(3, dropout="0"), Terms(2, "secagg", dropout="0"))
    >>> settings = {"engine": Threads(2), "secret": bytes(32), "round_": 0}
    >>> run = simulate_tree(tree, Encoding.integers(2), lambda name: [1, 2], **settings)
    >>> run.total.vector.tolist(), run.total.weight
    ([12.0, 24.0], 12)
    """
    if (noise is None) != (ledger is None):
        raise UsageError("sums with noise are charged to ledgers, and only those")
    session = derive(secret, labels.SIMULATED, b"session")[:SESSION_BYTES]
    rounds = list[tuple[Simulation | str, ...]]()
    add: Add = partial(_of_client, update)
    dropouts: frozenset[str] = frozenset()
    for number in range(tree.levels):
        level = _Level(tree, number, encoding, noise, session, round_, secret)
        work = partial(level.run, add=add, dropouts=dropouts, ledger=ledger, faults=partial(faults, number))
        rounds.append(tuple(engine.map(work, range(tree.cohorts(number)))))
        if all(isinstance(ran, str) for ran in rounds[-1]):
            where = "at the root" if number + 1 == tree.levels else f"on level {number}"
            raise ThresholdError(f"no sum {where}: {rounds[-1][0]}")
        if number + 1 < tree.levels:
            ends = level.plan(0), level.plan(tree.cohorts(number) - 1)
            encoding, noise, ledger = encoding_above(ends, number), None, None
            leaders = {tree.leader(number, i): ran for i, ran in enumerate(rounds[-1])}
            dropouts = frozenset(name for name, ran in leaders.items() if isinstance(ran, str))
            outcomes = {name: ran.outcome for name, ran in leaders.items() if not isinstance(ran, str)}
            add = partial(_of_cohort, tree, outcomes, number)
    [root] = [ran for ran in rounds[-1] if not isinstance(ran, str)]
    made = {number: ran.outcome.event for number, ran in enumerate(rounds[0]) if not isinstance(ran, str)}
    added = [event for number, event in made.items() if _added(tree, rounds, 0, number)]
    total = decoded(tree, added[0].plan, root.outcome)
    return TreeRun(total, tuple(rounds), _sums(made.values()), _sums(added))


def _added(tree: Tree, rounds: Sequence[Sequence[Simulation | str]], level: int, number: int) -> bool:
    """Whether the sum of a cohort got as far as the root."""
    if isinstance(rounds[level][number], str) or level + 1 == tree.levels:
        return not isinstance(rounds[level][number], str)
    leader = tree.leader(level, number)
    ran = rounds[level + 1][above := tree.number_of(level + 1, leader)]
    return not isinstance(ran, str) and leader in ran.outcome.survivors and _added(tree, rounds, level + 1, above)


def _sums(events: Iterable[RoundEvent]) -> TreeSum | None:
    sums = tuple(event.plan.secure_sum(len(event.survivors)) for event in events if event.plan.noise is not None)
    return TreeSum(sums) if sums else None


Add: TypeAlias = Callable[[RoundPlan, str], ArrayLike | UserVectors | None]
"""What a member of a level adds under its plan."""


def _of_client(update: Update, _plan: RoundPlan, name: str) -> ArrayLike | UserVectors | None:
    return update(name)


def _of_cohort(tree: Tree, outcomes: Mapping[str, RoundOutcome], level: int, plan: RoundPlan, name: str) -> ArrayLike:
    return update_above(tree, plan, outcomes[name], level)


@dataclass(frozen=True, slots=True)
class _Level:
    tree: Tree
    level: int
    encoding: Encoding
    noise: NoiseSpec | None
    session: bytes = field(repr=False)
    round_: int
    secret: bytes = field(repr=False)

    def plan(self, number: int) -> RoundPlan:
        return self.tree.plan(
            self.level, number, self.encoding, session=self.session, round_=self.round_, noise=self.noise
        )

    def run(
        self,
        number: int,
        *,
        add: Add,
        dropouts: Set[str],
        ledger: Callable[[int], Ledger] | None,
        faults: Callable[[int], Faults],
    ) -> Simulation | str:
        """A cohort's round, or why it has no sum: also if it is its ledger that refuses, which is no other cohort's."""
        plan, cohort = self.plan(number), self.tree.cohort(self.level, number)
        people = [(name, _identity(name, self.secret).key.secret) for name in cohort.names if name not in dropouts]
        clients = clients_of(plan, cohort, people, self.tree.policy(self.level, number), self.secret)
        try:
            with ExitStack() as held:
                opened = None if ledger is None else held.enter_context(closing(ledger(number)))
                return simulate(serve(plan, cohort, ledger=opened), clients, partial(add, plan), faults=faults(number))
        except (PeerError, ThresholdError, BudgetError, StorageError) as error:
            return str(error)


def _identity(name: str, secret: bytes) -> Identity:
    return Identity.generate(name, Prg(derive(secret, labels.SIMULATED, b"identity", name.encode())))
