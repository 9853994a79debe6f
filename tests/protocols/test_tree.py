"""Trees of cohorts: who is with whom, what goes up, what it costs; and what a lying root or aggregator can do."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dp.calibrate import user_level
from dp.events import Holder, Relation
from dp.ledger import Budget, Ledger
from dp.noise import Family, NoiseSpec
from protocols import tree as tree_module
from protocols.client import Client
from protocols.engines.local import Threads
from protocols.outcome import RoundOutcome
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from protocols.server import serve
from protocols.simulation.network import Faults, Simulation, local_clients, simulate
from protocols.simulation.trees import TreeRun, grown, simulate_tree
from protocols.tree import Terms, Tree, decoded, encoding_above, largest_epsilon, settled, update_above
from secagg.crypto.keys import SigningKey
from secagg.crypto.prg import Prg
from secagg.encoding import Encoding
from secagg.errors import PeerError, PolicyError, ThresholdError, UsageError
from tests.controls import switch_off

SECRET, BEACON = b"s" * 32, bytes(32)
LENGTH = 5
ENCODING = Encoding.integers(LENGTH, bits=10)
ENGINE = Threads(2)
LOW, TOP = Terms(5, corrupt="0.02", dropout="0.06"), Terms(2, "secagg", dropout="0.4")
BOTH = (LOW, TOP)


def people(prefix: str, count: int) -> Roster:
    return Roster.build({f"{prefix}-{i:03}": Prg(f"{prefix}{i}".encode().ljust(32, b"."))(32) for i in range(count)})


def tree_of(clients: int = 50, size: int = 12, beacon: bytes = BEACON) -> Tree:
    return Tree((people("c", clients), people("a", -(-clients // size))), size, beacon, BOTH)


# Who is with whom


@pytest.mark.parametrize(("clients", "size"), [(50, 12), (48, 12), (49, 48), (7, 4), (200, 15)])
def test_cohorts_are_a_partition_as_even_as_can_be(clients: int, size: int) -> None:
    tree = tree_of(clients, size)
    cohorts = [tree.cohort(0, number) for number in range(tree.cohorts(0))]
    assert sorted(name for cohort in cohorts for name in cohort.names) == list(tree.rosters[0].names)
    sizes = [len(cohort) for cohort in cohorts]
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True)
    for number, cohort in enumerate(cohorts):
        for name in cohort.names:
            assert tree.number_of(0, name) == number
            assert cohort.keys[cohort.number(name)] == tree.rosters[0].keys[tree.rosters[0].number(name)]


def test_who_is_with_whom_depends_on_beacon_rosters_and_size_and_nothing_else() -> None:
    names = [tree_of().cohort(0, 0).names, tree_of(beacon=b"b" * 32).cohort(0, 0).names]
    assert names[0] == tree_of().cohort(0, 0).names
    assert names[0] != names[1]
    sizes = [tree_of(50, size).cohort(0, 0).names for size in (25, 13)]
    assert not set(sizes[1]) <= set(sizes[0])  # or two sizes would give cohorts that differ by little
    assert len(set(names[0]) & set(tree_of(51, 13).cohort(0, 0).names)) < 12
    assert replace(tree_of(), terms=(Terms(9), TOP)).cohort(0, 0).names == names[0]


def test_pairs_meet_as_often_as_chance_has_it() -> None:
    """400 beacons, 12 clients, cohorts of 4: two of them meet with probability 3/11. 6 deviations; fixed beacons."""
    met = 0
    for i in range(400):
        tree = tree_of(12, 4, beacon=i.to_bytes(16, "big"))
        met += tree.number_of(0, "c-000") == tree.number_of(0, "c-001")
    assert abs(met - 400 * 3 / 11) < 6 * np.sqrt(400 * 3 / 11 * 8 / 11)


def test_leaders_are_the_members_of_the_level_above() -> None:
    tree = tree_of()
    leaders = [tree.leader(0, number) for number in range(5)]
    assert sorted(leaders) == list(tree.rosters[1].names)
    assert [tree.leads(1, leader) for leader in leaders] == [*range(5)]
    with pytest.raises(UsageError, match="nobody's client"):
        tree.leader(1, 0)
    with pytest.raises(UsageError, match="lead nobody"):
        tree.leads(0, "c-000")
    with pytest.raises(UsageError, match="not in the roster"):
        tree.leads(1, "c-000")


def test_on_three_levels_a_leader_is_with_those_whose_cohorts_its_own_leader_sums_up() -> None:
    tree = grown(60, 5, SECRET, LOW, TOP)
    for number in range(12):
        above = tree.number_of(1, tree.leader(0, number))
        assert tree.leader(0, number) in tree.cohort(1, above).names
        assert tree.leads(2, tree.leader(1, above)) == above


def test_everybody_leads_everywhere_as_often_as_chance_has_it() -> None:
    """400 beacons, 4 cohorts: a name leads a given one with probability 1/4. 6 deviations; fixed beacons."""
    led = Counter[tuple[str, int]]()
    for i in range(400):
        tree = tree_of(16, 4, beacon=i.to_bytes(16, "big"))
        led.update((tree.leader(0, number), number) for number in range(4))
    assert len(led) == 16
    assert all(abs(count - 100) < 6 * np.sqrt(400 * 3 / 16) for count in led.values())


def test_what_is_settled_before_the_beacon_is_all_that_is_drawn_from() -> None:
    rosters = tree_of().rosters
    others = [
        settled((people("d", 50), rosters[1]), 12),
        settled((rosters[0], people("b", 5)), 12),
        settled(rosters, 13),
        settled(rosters[:1], 12),
    ]
    assert len({settled(rosters, 12), *others}) == 5


@pytest.mark.parametrize(
    ("rosters", "size", "beacon", "reason"),
    [
        ((people("c", 50),), 12, BEACON, "aggregators"),
        ((people("c", 50), people("a", 4)), 12, BEACON, "which 4 lead"),
        ((people("c", 50), people("a", 6)), 12, BEACON, "which 6 lead"),
        ((people("c", 50), people("a", 5)), 12, b"short", "beacon"),
        ((people("c", 50), people("a", 5)), 1, BEACON, "at least two"),
        ((people("c", 50), people("a", 13)), 4, BEACON, "at the top are more than one cohort"),
        ((people("c", 10), people("a", 1)), 12, BEACON, "fewer than two members"),
        ((people("c", 3), people("a", 2)), 2, BEACON, "fewer than two members"),
    ],
)
def test_what_is_no_tree(rosters: tuple[Roster, ...], size: int, beacon: bytes, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        Tree(rosters, size, beacon, (LOW,) * len(rosters))


@pytest.mark.parametrize("terms", [(), (LOW,), (LOW, TOP, TOP)])
def test_terms_for_each_level(terms: tuple[Terms, ...]) -> None:
    with pytest.raises(UsageError, match="2 levels"):
        replace(tree_of(), terms=terms)


@pytest.mark.parametrize("number", [-1, 5])
def test_a_cohort_that_is_not_there(number: int) -> None:
    with pytest.raises(UsageError, match="cohorts 0 to 4"):
        tree_of().cohort(0, number)


def test_no_cohort_has_more_marked_members_than_said() -> None:
    """300 draws of 8 cohorts at 10 bits a draw: more than 3 failures have probability below 1e-4... so 10 bits are
    checked at 2^-10 * 300 = 0.3 expected failures; with a bound one half as large, failures are the rule."""
    clients, marked = people("c", 200), {f"c-{i:03}" for i in range(20)}

    def most(beacon: int) -> int:
        tree = Tree((clients, people("a", 8)), 25, beacon.to_bytes(16, "big"), BOTH)
        return max(len(marked & set(tree.cohort(0, number).names)) for number in range(8))

    bound = tree_of(200, 25).marked(0, "0.1", bits=10)
    worst = [most(i) for i in range(60)]
    assert sum(one > bound for one in worst) <= 3
    assert sum(one > bound // 2 for one in worst) > 30
    assert tree_of(200, 25).marked(0, "0.1", bits=40) > bound
    assert tree_of().marked(1, "0.4") == 2  # a single cohort: neither more nor fewer


def test_a_client_refuses_the_plan_of_another_cohort() -> None:
    """The root or an aggregator cannot choose with whom a client is summed up."""
    tree = grown(24, 8, SECRET, LOW, TOP)
    name = tree.rosters[0].names[0]
    mine, other = tree.number_of(0, name), (tree.number_of(0, name) + 1) % 3
    identity = Identity.generate(name, Prg(_secret_of(name)))
    client = Client(identity, tree.cohort(0, mine), policy=Policy(min_contributors=2, dropout="0.2"))
    plans = [RoundPlan.propose("secagg", tree.cohort(0, i), ENCODING, min_contributors=5) for i in (mine, other)]
    with pytest.raises(PolicyError, match="another roster"):
        client.start(plans[1], np.zeros(LENGTH))
    assert client.start(plans[0], np.zeros(LENGTH))


def _secret_of(name: str) -> bytes:
    from secagg.crypto import labels
    from secagg.crypto.keys import derive

    return derive(SECRET, labels.SIMULATED, b"identity", name.encode())


# What goes up


def round_over(plan: RoundPlan, clients: dict[str, Client], value: Callable[[int], Any]) -> Simulation:
    roster = next(iter(clients.values())).roster
    return simulate(serve(plan, roster), clients, {name: value(i) for i, name in enumerate(clients)}.get)


@pytest.fixture(scope="module")
def outcome() -> RoundOutcome:
    roster, clients = local_clients(6, Policy(min_contributors=2))
    plan = RoundPlan.propose("secagg", roster, ENCODING, min_contributors=3, session=bytes(16))
    return round_over(plan, clients, lambda i: np.arange(LENGTH) - i).outcome


DEEP = Tree(
    (people("c", 24), people("a", 6), people("b", 2)), 4, BEACON, (Terms(3), Terms(2, "secagg"), Terms(2, "secagg"))
)


def said_of(tree: Tree, outcome: RoundOutcome, level: int, missing: int, count: int) -> RoundOutcome:
    """A sum above the clients, of the first cohort of its level but for so many, and the count that is in it."""
    cohort = tree.cohort(level, 0)
    plan = replace(outcome.event.plan, roster=cohort.digest)
    survivors, total = cohort.names[missing:], np.append(outcome.total[: LENGTH - (level + 1 < tree.levels)], count)
    return RoundOutcome(total, survivors, replace(outcome.event, plan=plan, survivors=survivors))


def plan_above(encoding: Encoding, session: bytes = bytes(16)) -> RoundPlan:
    return RoundPlan.propose("secagg", people("a", 5), encoding, min_contributors=3, session=session)


def test_the_sum_of_a_cohort_goes_up_with_its_count(outcome: RoundOutcome) -> None:
    encoding = encoding_above([outcome.event.plan], 0)
    vector = update_above(tree_of(), plan_above(encoding), outcome, 0)
    assert vector.tolist() == [*outcome.total.tolist(), 6]
    assert encoding.encode(vector, weight=1, seed=bytes(32), rng=Prg(bytes(32))).tolist() == vector.tolist()


def test_above_that_the_count_is_in_it_already(outcome: RoundOutcome) -> None:
    encoding = encoding_above([outcome.event.plan], 1)
    assert encoding.length == LENGTH
    above = said_of(DEEP, outcome, 1, 0, 12)
    assert update_above(DEEP, plan_above(encoding), above, 1).tolist() == above.total.tolist()


BAD_ENCODINGS = {
    "too few bits": lambda bits: Encoding.integers(LENGTH + 1, bits=bits - 1),
    "no count": lambda bits: Encoding.integers(LENGTH, bits=bits),
    "clipped": lambda bits: replace(Encoding.integers(LENGTH + 1, bits=bits), clip_l2=1.0),
    "scaled": lambda bits: replace(Encoding.integers(LENGTH + 1, bits=bits), clip_inf=3.0),
    "rotated": lambda bits: replace(
        Encoding.integers(LENGTH + 1, bits=bits), rotate=True, rounding="nearest", clip_l2=1e9
    ),
}


@pytest.mark.parametrize("bad", BAD_ENCODINGS)
def test_an_aggregator_refuses_a_plan_that_is_not_for_its_sum(bad: str, outcome: RoundOutcome) -> None:
    plan = plan_above(BAD_ENCODINGS[bad](outcome.event.plan.ring_bits))
    with pytest.raises(PolicyError, match="not one for the sum"):
        update_above(tree_of(), plan, outcome, 0)


def test_without_that_check_its_sum_would_be_clipped(outcome: RoundOutcome, monkeypatch: pytest.MonkeyPatch) -> None:
    switch_off(monkeypatch, tree_module, "update_above", "encoding.bits < below.ring_bits")
    plan = plan_above(Encoding.integers(LENGTH + 1, bits=4))
    vector = tree_module.update_above(tree_of(), plan, outcome, 0)
    encoded = plan.encoding.encode(vector, weight=1, seed=bytes(32), rng=Prg(bytes(32)))
    assert encoded.tolist() != vector.tolist()


@pytest.mark.parametrize("other", ["session", "round"])
def test_a_cohorts_sum_goes_up_once(other: str, outcome: RoundOutcome, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under two plans, with one aggregator missing in the second, the difference would be that cohort's sum alone."""
    right = plan_above(encoding_above([outcome.event.plan], 0))
    wrong = replace(right, session=b"x" * 16) if other == "session" else right.next_round()
    assert len(update_above(tree_of(), right, outcome, 0)) == LENGTH + 1
    with pytest.raises(PolicyError, match="another session or round"):
        update_above(tree_of(), wrong, outcome, 0)
    with pytest.raises(UsageError, match="another session or round"):
        decoded(tree_of(), wrong, outcome)
    condition = "(plan.session, plan.round) != (below.session, below.round)"
    switch_off(monkeypatch, tree_module, "update_above", condition)
    assert len(tree_module.update_above(tree_of(), wrong, outcome, 0)) == LENGTH + 1


def test_the_widest_ring_may_be_the_smallest_cohorts() -> None:
    """A part of the noise is for the missing: where fewer make it, each makes more."""
    noise = NoiseSpec(Family.SKELLAM, Fraction(1 << 25), dropouts=3)
    plans = [
        RoundPlan.propose("secagg", people("c", n), Encoding.integers(1, bits=8), min_contributors=5, noise=noise)
        for n in (6, 5)
    ]
    assert plans[1].ring_bits > plans[0].ring_bits
    assert encoding_above(plans, 0).bits == encoding_above(plans[::-1], 0).bits == plans[1].ring_bits


def test_a_plan_for_a_part_of_the_cohort_is_refused() -> None:
    """Which part, the aggregator would choose, and the fears are for a cohort that was drawn."""
    tree = grown(24, 8, SECRET, LOW, TOP)
    name = tree.rosters[0].names[0]
    cohort = tree.cohort(0, tree.number_of(0, name))
    policy = Policy(min_contributors=2, dropout="0.2", whole_roster=True)
    client = Client(Identity.generate(name, Prg(_secret_of(name))), cohort, policy=policy)
    plan = RoundPlan.propose("secagg", cohort, ENCODING, min_contributors=3, clients=5)
    with pytest.raises(PolicyError, match="5 of the 8 clients"):
        client.start(plan, np.zeros(LENGTH))


def test_sums_that_outgrow_an_encoding_are_refused() -> None:
    clients = people("c", 300)
    plan = RoundPlan.propose("secagg+", clients, Encoding.integers(LENGTH, bits=32), min_contributors=100)
    with pytest.raises(UsageError, match="1 to 32 bits"):
        encoding_above([plan], 0)


# Whole trees


def value_of(name: str) -> np.ndarray:
    number = int(name.rpartition("-")[2])
    return (np.arange(LENGTH) + number) % 200 - 100


def run(tree: Tree, **more: Any) -> TreeRun:
    return simulate_tree(tree, ENCODING, value_of, engine=ENGINE, secret=SECRET, **({"round_": 0} | more))


def expected(tree: Tree, ran: TreeRun) -> list[float]:
    names = [name for one in ran.rounds[0] if not isinstance(one, str) for name in one.outcome.survivors]
    return np.sum([value_of(name) for name in names], axis=0).tolist() if names else []


def test_a_tree_gives_the_exact_sum() -> None:
    tree = grown(50, 12, SECRET, LOW, TOP)
    ran = run(tree)
    assert ran.total.vector.tolist() == expected(tree, ran)
    assert ran.total.weight == 50
    assert [len(level) for level in ran.rounds] == [5, 1]


def test_three_levels() -> None:
    all_of_them = Terms(2, "secagg", corrupt="0", dropout="0")
    tree = grown(60, 8, SECRET, all_of_them, all_of_them)
    assert [len(roster) for roster in tree.rosters] == [60, 8]
    tree = grown(60, 5, SECRET, all_of_them, all_of_them)
    assert [len(roster) for roster in tree.rosters] == [60, 12, 3]
    ran = run(tree)
    assert ran.total.vector.tolist() == expected(tree, ran)
    assert ran.total.weight == 60


def test_floats_come_back_unrotated_and_unscaled() -> None:
    tree = grown(30, 10, SECRET, LOW, TOP)
    encoding = Encoding(LENGTH, clip_l2=20.0, bits=16, rotate=True)
    update = lambda name: value_of(name) / 50  # noqa: E731
    ran = simulate_tree(tree, encoding, update, engine=ENGINE, secret=SECRET, round_=0)
    truth = np.sum([update(name) for name in tree.rosters[0].names], axis=0)
    assert np.abs(ran.total.vector - truth).max() < 30 * 2 / encoding.scale


def test_clients_and_whole_cohorts_drop_out() -> None:
    tree = grown(50, 12, SECRET, LOW, TOP)
    gone = tree.cohort(0, 1).names

    def faults(level: int, number: int) -> Faults:
        if level == 0 and number == 0:
            return Faults(dropouts={tree.cohort(0, 0).names[3]: "upload"})
        if level == 0 and number == 1:
            return Faults(dropouts=dict.fromkeys(gone[:9], "upload"))
        return Faults()

    ran = run(tree, faults=faults)
    assert isinstance(ran.rounds[0][1], str)
    assert "at least" in ran.rounds[0][1]
    assert ran.total.weight == 50 - 1 - len(gone)
    assert ran.total.vector.tolist() == expected(tree, ran)


def test_an_aggregator_that_falls_silent_takes_its_cohort_along() -> None:
    tree = grown(50, 12, SECRET, LOW, TOP)
    silent = Faults(dropouts={tree.leader(0, 2): "upload"})
    ran = run(tree, faults=lambda level, number: silent if level == 1 else Faults())
    assert ran.total.weight == 50 - len(tree.cohort(0, 2))
    [root] = ran.rounds[1]
    assert not isinstance(root, str)
    assert root.outcome.survivors == tuple(n for n in tree.rosters[1].names if n != tree.leader(0, 2))


def test_every_level_enforces_its_minimum() -> None:
    tree = grown(50, 12, SECRET, LOW, TOP)
    lost = {0, 1}

    def faults(level: int, number: int) -> Faults:
        everybody = tree.cohort(level, number).names
        return Faults(dropouts=dict.fromkeys(everybody, "upload")) if level == 0 and number in lost else Faults()

    three, four = (replace(tree, terms=(LOW, replace(TOP, min_contributors=least))) for least in (3, 4))
    assert run(three, faults=faults).total.weight == 30
    with pytest.raises(ThresholdError, match=r"no sum at the root: .* at least 4"):
        run(four, faults=faults)


def test_clients_and_aggregators_enforce_it_themselves() -> None:
    """Not only the servers: a plan with a smaller minimum is refused on either level."""
    tree = grown(24, 8, SECRET, LOW, TOP)
    for level in (0, 1):
        roster = tree.cohort(level, 0)
        name = roster.names[0]
        client = Client(Identity.generate(name, Prg(_secret_of(name))), roster, policy=Policy(min_contributors=3))
        with pytest.raises(PolicyError, match="below the 3 demanded"):
            client.start(RoundPlan.propose("secagg", roster, ENCODING, min_contributors=2), np.zeros(LENGTH))


def test_a_run_repeats_itself() -> None:
    tree = grown(24, 8, SECRET, Terms(3), TOP)
    first, second = run(tree), run(tree)
    for one, other in zip(first.rounds[0], second.rounds[0], strict=True):
        assert not isinstance(one, str)
        assert not isinstance(other, str)
        assert one.outcome.event == other.outcome.event


# Privacy


NOISE = NoiseSpec(Family.SKELLAM, Fraction(500_000), dropouts=3, colluders=2, components=3)
HUGE = Budget(Fraction(30), Fraction(1, 1000), slack=Fraction(1, 10**6))
QUIET = Terms(9, corrupt="0.03", dropout="0.03")
KEY = SigningKey(b"l" * 32)


class Ledgers:
    """One a cohort; opened where it is needed."""

    def __init__(
        self,
        folder: Path,
        budget: Budget = HUGE,
        relation: Relation = Relation.ZERO_OUT,
        holder: Holder = Holder.DEVICE,
    ) -> None:
        self.folder, self.budget, self.relation, self.holder = folder, budget, relation, holder

    def __call__(self, number: int) -> Ledger:
        path = self.folder / f"{number}.db"
        if path.exists():
            return Ledger.open(path, KEY)
        guarantee = user_level(self.relation, self.holder)
        return Ledger.create(path, KEY, self.budget, guarantee, run=f"cohort {number}", elsewhere="nothing")


@pytest.fixture
def ledgers(tmp_path: Path) -> Ledgers:
    return Ledgers(tmp_path)


@contextmanager
def opened(ledgers: Ledgers) -> Iterator[list[Ledger]]:
    with ExitStack() as held:
        yield [held.enter_context(closing(ledgers(number))) for number in range(4)]


def noised(tree: Tree, ledgers: Ledgers, **more: Any) -> TreeRun:
    encoding = Encoding.integers(LENGTH, bits=6)
    return simulate_tree(
        tree,
        encoding,
        lambda name: value_of(name) // 4,
        engine=ENGINE,
        secret=SECRET,
        noise=NOISE,
        ledger=ledgers,
        **({"round_": 0} | more),
    )


def test_each_cohort_is_noised_and_charged_once(ledgers: Ledgers) -> None:
    tree = grown(48, 12, SECRET, QUIET, TOP)
    ran = noised(tree, ledgers)
    assert ran.made is not None
    assert ran.made == ran.added
    with opened(ledgers) as books:
        epsilons = [book.epsilon for book in books]
        assert largest_epsilon(tree, books) == max(epsilons)
        assert max(epsilons) < 1.01 * min(epsilons)  # four cohorts, and nothing adds up over them
    guarantee = user_level(Relation.ZERO_OUT)
    held = NOISE.honest_variance(12, 12)
    assert ran.made.to_aggregators(guarantee).mechanism.variance == held  # type: ignore[union-attr]
    assert ran.made.to_root(guarantee, 1).mechanism.variance == 3 * held  # type: ignore[union-attr]


@pytest.mark.long
def test_a_tree_of_silos(tmp_path: Path) -> None:
    """Its units are users, and its ledgers those of users."""
    tree = grown(48, 12, SECRET, replace(QUIET, users=3), TOP)
    ledgers = Ledgers(tmp_path, holder=Holder.SILO)
    ran = simulate_tree(
        tree,
        replace(Encoding.integers(LENGTH, bits=6), users=3),
        lambda name: [value_of(name) // 4] * 3,
        engine=ENGINE,
        secret=SECRET,
        noise=NOISE,
        ledger=ledgers,
        round_=0,
    )
    assert ran.total.weight == 48
    plain = 3 * np.sum([value_of(name) // 4 for name in tree.rosters[0].names], axis=0)
    assert np.abs(ran.total.vector - plain).max() < 6 * float(4 * NOISE.honest_variance(12, 12) * 12 / 10) ** 0.5
    with opened(ledgers) as books:
        assert largest_epsilon(tree, books) == max(book.epsilon for book in books) > 0


def test_a_round_that_is_done_again_is_charged_once(ledgers: Ledgers) -> None:
    """A worker died after its cohort's release: the same release, which the ledger knows."""
    tree = grown(48, 12, SECRET, QUIET, TOP)
    first = noised(tree, ledgers)
    with opened(ledgers) as books:
        epsilons = [book.epsilon for book in books]
    second = noised(tree, ledgers)
    assert first.total.vector.tolist() == second.total.vector.tolist()
    with opened(ledgers) as books:
        assert [book.epsilon for book in books] == epsilons


def test_the_next_round_is_charged_on_top(ledgers: Ledgers) -> None:
    tree = grown(48, 12, SECRET, QUIET, TOP)
    noised(tree, ledgers)
    with opened(ledgers) as books:
        before = largest_epsilon(tree, books)
    noised(tree, ledgers, round_=1)
    with opened(ledgers) as books:
        assert largest_epsilon(tree, books) > before


def test_a_budget_stops_a_cohort(tmp_path: Path) -> None:
    tight = Ledgers(tmp_path, Budget(Fraction(1, 100), Fraction(1, 1000), slack=Fraction(1, 10**6)))
    with pytest.raises(ThresholdError, match=r"no sum on level 0: .*epsilon could reach"):
        noised(grown(48, 12, SECRET, QUIET, TOP), tight)


def test_ledgers_of_other_cohorts_are_no_bound(ledgers: Ledgers) -> None:
    tree = grown(48, 12, SECRET, QUIET, TOP)
    noised(tree, ledgers)
    other = replace(tree, beacon=b"other beacon" * 2)
    with opened(ledgers) as books:
        with pytest.raises(UsageError, match="cohort 0 holds something else"):
            largest_epsilon(tree, [books[1], books[0], *books[2:]])
        with pytest.raises(UsageError, match="4 cohorts"):
            largest_epsilon(tree, books[:3])
        with pytest.raises(UsageError, match="holds something else"):
            largest_epsilon(other, books)


def test_epsilons_at_different_deltas_have_no_largest(ledgers: Ledgers, tmp_path: Path) -> None:
    budget = Budget(Fraction(30), Fraction(1, 500), slack=Fraction(1, 10**6))
    (tmp_path / "other").mkdir()
    others = Ledgers(tmp_path / "other", budget)
    with opened(ledgers) as books, closing(others(0)) as other, pytest.raises(UsageError, match="different deltas"):
        largest_epsilon(grown(48, 12, SECRET, QUIET, TOP), [other, *books[1:]])


def test_a_cohort_whose_aggregator_is_lost_hides_nobody_at_the_root(ledgers: Ledgers) -> None:
    tree = grown(48, 12, SECRET, QUIET, TOP)
    silent = Faults(dropouts={tree.leader(0, 2): "upload"})
    ran = noised(tree, ledgers, faults=lambda level, number: silent if level == 1 else Faults())
    assert ran.made is not None
    assert ran.added is not None
    assert len(ran.made.cohorts) == 4
    assert [one.plan_digest for one in ran.added.cohorts] == [
        one.plan_digest for number, one in enumerate(ran.made.cohorts) if number != 2
    ]


def test_two_drawings_on_one_set_of_ledgers_are_no_bound(ledgers: Ledgers) -> None:
    """A client in cohort 0 now and in cohort 1 then is charged in neither ledger for both."""
    tree = grown(48, 12, SECRET, QUIET, TOP)
    noised(tree, ledgers)
    redrawn = replace(tree, beacon=b"another" * 4)
    simulate_tree(
        redrawn,
        Encoding.integers(LENGTH, bits=6),
        value_of_small,
        engine=ENGINE,
        secret=SECRET,
        round_=1,
        noise=NOISE,
        ledger=ledgers,
    )
    with opened(ledgers) as books, pytest.raises(UsageError, match="holds something else"):
        largest_epsilon(tree, books)


def value_of_small(name: str) -> np.ndarray:
    return value_of(name) // 4


def test_without_that_check_it_would_be_called_a_bound(ledgers: Ledgers, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = grown(48, 12, SECRET, QUIET, TOP)
    noised(tree, ledgers)
    switch_off(monkeypatch, tree_module, "largest_epsilon", "_roster_of(entry) != roster")
    other = replace(tree, beacon=b"other beacon" * 2)
    with opened(ledgers) as books:
        assert tree_module.largest_epsilon(other, books) > 0


def test_clients_who_come_or_go_change_all_cohorts(tmp_path: Path) -> None:
    ledgers = Ledgers(tmp_path, relation=Relation.REPLACE_ONE)
    with opened(ledgers) as books, pytest.raises(UsageError, match="zero-out only"):
        largest_epsilon(grown(48, 12, SECRET, QUIET, TOP), books)


def test_noise_needs_ledgers_and_ledgers_noise(ledgers: Ledgers) -> None:
    tree = grown(48, 12, SECRET, QUIET, TOP)
    with pytest.raises(UsageError, match="ledgers"):
        run(tree, noise=NOISE)
    with pytest.raises(UsageError, match="ledgers"):
        run(tree, ledger=ledgers)


def test_the_sum_is_decoded_as_any_cohort_encodes(outcome: RoundOutcome) -> None:
    for tree, count in ((tree_of(), 50), (DEEP, 24)):
        root = said_of(tree, outcome, tree.levels - 1, 0, count)
        assert decoded(tree, outcome.event.plan, root).weight == count


def test_the_sum_of_something_else_is_not_that_at_the_root(outcome: RoundOutcome) -> None:
    """Of one of the cohorts below, for instance: of fewer clients than whoever decodes it believes."""
    with pytest.raises(UsageError, match="not the sum at the root of this tree"):
        decoded(DEEP, outcome.event.plan, said_of(DEEP, outcome, 1, 0, 12))


# 24 clients in cohorts of 4, of which at least 3 take part; 6 aggregators in cohorts of 3, at least 2; 2 above these.
@pytest.mark.parametrize(
    ("level", "missing", "least", "most"), [(1, 0, 9, 12), (1, 1, 6, 8), (2, 0, 2 * 6, 2 * 12), (2, 1, 6, 12)]
)
def test_how_many_clients_a_sum_can_be_of(
    level: int, missing: int, least: int, most: int, outcome: RoundOutcome
) -> None:
    def used(count: int) -> tuple[str, ...]:
        said = said_of(DEEP, outcome, level, missing, count)
        if level == 2:
            decoded(DEEP, outcome.event.plan, said)
        else:
            update_above(DEEP, plan_above(encoding_above([outcome.event.plan], 1)), said, level)
        return said.survivors

    survivors = used(least)
    assert used(most) == survivors
    for count in (least - 1, most + 1, -9):
        with pytest.raises(PeerError, match=f"of {least} to {most}") as refused:
            used(count)
        assert refused.value.culprits == survivors


def test_bounds_are_those_of_the_members_own_cohorts() -> None:
    """22 clients in cohorts of 6, 6, 5 and 5: who leads a smaller one can have summed up no more."""
    tree = tree_of(22, 6)
    assert [tree.contributors(0, number) for number in range(4)] == [(5, 6), (5, 6), (5, 5), (5, 5)]
    assert tree.contributors(1, 0) == (2 * 5, 22)
