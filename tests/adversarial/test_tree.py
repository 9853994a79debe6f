"""Trees of cohorts under attack: with whom a victim is summed up, what goes up twice, what privacy is claimed of it;
and engines that lose what they keep.

The attackers are the root, aggregators and marked clients together, on the real machines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from itertools import combinations
from math import comb, lgamma, log
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dp.accountants import rdp
from dp.calibrate import user_level
from dp.events import Everyone, Holder, Relation, Release, Skellam
from dp.ledger import Budget, Ledger
from dp.noise import Family, NoiseSpec
from dp.tree import TreeSum
from protocols import journal as journal_module
from protocols import tree as tree_module
from protocols.client import Client
from protocols.engines import Engine, Hosted
from protocols.engines.local import Threads
from protocols.journal import ForgetfulJournal, MemoryJournal
from protocols.outcome import RoundOutcome
from protocols.parameters import rules_of
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from protocols.server import serve
from protocols.simulation import workers as crowd
from protocols.simulation.network import Envelope, Faults, simulate
from protocols.simulation.trees import _identity, grown, simulate_tree
from protocols.simulation.workers import simulate_on_workers
from protocols.tree import Terms, Tree, decoded, encoding_above, largest_epsilon
from secagg.crypto.keys import SigningKey
from secagg.crypto.prg import Prg
from secagg.encoding import Encoding
from secagg.errors import PeerError, PolicyError, SecAggError, ThresholdError, UsageError
from secagg.hypergeometric import most_marked
from tests.controls import switch_off
from tests.scenes.pairwise import BOTH, LENGTH, Evil
from tests.scenes.restarts import STEPS, Life

pytestmark = pytest.mark.thinned(4)

SESSION, BEACON = bytes(16), b"published when the rosters stood"
ENCODING = Encoding.integers(LENGTH)
USERS = user_level(Relation.ZERO_OUT)


def identities(prefix: str, count: int) -> dict[str, Identity]:
    names = [f"{prefix}-{i:04}" for i in range(count)]
    return {name: Identity.generate(name, Prg(name.encode().ljust(32))) for name in names}


def roster(prefix: str, count: int) -> Roster:
    return Roster.of(list(identities(prefix, count).values()))


TERMS = (Terms(8), Terms(2, "secagg", dropout="0.4"))


def tree_of(clients: int, size: int) -> Tree:
    return Tree((roster("c", clients), roster("a", -(-clients // size))), size, BEACON, TERMS)


# With whom


def failing(tree: Tree, marked: int, most: int) -> Fraction:
    """The chance that some cohort has more than ``most`` of them, at most: each one's own, exactly, and added up."""
    n, chance = len(tree.rosters[0]), Fraction(0)
    for size in (len(tree.cohort(0, number)) for number in range(tree.cohorts(0))):
        ways = sum(comb(marked, i) * comb(n - marked, size - i) for i in range(most + 1, min(marked, size) + 1))
        chance += Fraction(ways, comb(n, size))
    return chance


SCENES = [(400, 100, "0.05", 40), (50, 12, "0.2", 20), (200, 15, "0.1", 10), (210, 15, "0.1", 20), (120, 11, "0.2", 20)]


def test_no_cohort_has_more_marked_members_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all the cohorts together, with the smaller ones in it; and one less would be too few."""

    def bounds() -> Iterator[tuple[Fraction, Fraction]]:
        for clients, size, share, bits in SCENES:
            tree, marked = tree_of(clients, size), int(Fraction(share) * clients)
            most = tree.marked(0, share, bits)
            yield failing(tree, marked, most) * 2**bits, failing(tree, marked, most - 1) * 2**bits

    assert all(right <= 1 for right, _less in bounds())
    assert all(less > 1 for _right, less in bounds())
    with monkeypatch.context() as patched:
        switch_off(patched, Tree, "marked", "-(-members // self.cohorts(level))", "members // self.cohorts(level)")
        assert any(right > 1 for right, _less in bounds())
    monkeypatch.setattr(tree_module, "most_marked", lambda *facts, times: most_marked(*facts))
    assert any(right > 1 for right, _less in bounds())


def test_trees_of_two_sizes_share_no_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Same rosters, same beacon, cut at 501 or at 251 and 502: two cohorts minus another would be one client."""
    clients = roster("c", 1002)

    def difference() -> set[str]:
        small, large = (Tree((clients, roster("a", count)), -(-1002 // count), BEACON, TERMS) for count in (4, 2))
        return {*small.cohort(0, 0).names, *small.cohort(0, 1).names} ^ {*large.cohort(0, 0).names}

    assert len(difference()) > 300
    drawn = "digest(labels.TREE, u32.encode(size), *[roster.digest for roster in rosters])"
    switch_off(monkeypatch, tree_module, "settled", drawn, "rosters[0].digest")
    assert len(difference()) == 1


SIX = identities("c", 6)
SMALL = (Terms(2, "secagg", corrupt="0", dropout="0.17"), Terms(2, "secagg", dropout="0"))


def led_by_a_member(beacon: bytes = BEACON) -> Tree:
    """Two cohorts of three clients; one of the two aggregators is a client, too, with the same key."""
    own = {"a-0000": SIX["c-0000"].key.public, "a-0001": identities("a", 2)["a-0001"].key.public}
    return Tree((Roster.of(list(SIX.values())), Roster.build(own)), 3, beacon, SMALL)


def robbed_by_its_aggregator() -> tuple[list[int], list[int], int]:
    """It leads its own cohort, calls all but the victim silent, and takes its own vector off the sum. Gives what it has
    then, the victim's vector, and how many marked members the tree would reckon with."""
    draws = (led_by_a_member(bytes([i]) * 16) for i in range(100))
    tree = next(tree for tree in draws if tree.leads(1, "a-0000") == tree.number_of(0, "c-0000"))
    number = tree.number_of(0, "c-0000")
    cohort = tree.cohort(0, number)
    victim, other = (name for name in cohort.names if name != "c-0000")
    plan = tree.plan(0, number, ENCODING, session=SESSION)
    clients = {name: Client(SIX[name], cohort, policy=tree.policy(0, number)) for name in cohort.names}
    values = {name: np.arange(LENGTH) * (i + 2) for i, name in enumerate(cohort.names)}
    done = simulate(serve(plan, cohort), clients, values.get, faults=Faults(dropouts={other: "upload"}))
    return (done.outcome.total - values["c-0000"]).tolist(), values[victim].tolist(), tree.marked(0, "0")


def test_nobody_leads_its_own_cohort(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sum of two, one of which the server knows: the other is left. No share of marked clients was reckoned with."""
    with pytest.raises(UsageError, match="nobody leads itself"):
        robbed_by_its_aggregator()
    condition = "not above.isdisjoint(below.names) or not above.isdisjoint(below.keys)"
    switch_off(monkeypatch, Tree, "_check_disjoint", condition)
    got, victim, reckoned_with = robbed_by_its_aggregator()
    assert got == victim
    assert reckoned_with == 0


@pytest.mark.parametrize(("lower", "upper"), [(0, 1), (0, 2), (1, 2)])
@pytest.mark.parametrize("same", ["name", "key"])
def test_nobody_is_on_two_levels(same: str, lower: int, upper: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under one name or under two, next to each other or not."""
    levels = [dict(zip(one.names, one.keys, strict=True)) for one in (roster("c", 24), roster("b", 6), roster("a", 2))]
    name, key = next(iter(levels[lower].items()))
    replaced = next(iter(levels[upper]))
    own = levels[upper].pop(replaced)
    levels[upper] |= {name: own} if same == "name" else {replaced: key}

    def made() -> Tree:
        return Tree(tuple(Roster.build(one) for one in levels), 4, BEACON, (TERMS[0], TERMS[1], TERMS[1]))

    with pytest.raises(UsageError, match=f"of level {lower} is on a level above"):
        made()
    condition = "not above.isdisjoint(below.names) or not above.isdisjoint(below.keys)"
    switch_off(monkeypatch, Tree, "_check_disjoint", condition)
    assert made().levels == 3


def renamed(beacon: bytes) -> bool:
    """An aggregator sees the draw. It takes the name that, in the order of names, stands where the lot of the victim's
    cohort has fallen. Whether it leads the victim then."""
    clients, own = roster("c", 12), identities("a", 3)
    leaders = {name: one.key.public for name, one in own.items()}
    before = Tree((clients, Roster.build(leaders)), 4, beacon, TERMS)
    victims = before.number_of(0, "c-0007")
    wanted = before.rosters[1].names.index(before.leader(0, victims))
    key, others = leaders.pop("a-0001"), sorted(leaders)
    name = ["A", f"{others[0]}-", "z"][wanted]
    after = Tree((clients, Roster.build(leaders | {name: key})), 4, beacon, TERMS)
    published = tree_module.settled(before.rosters, 4)
    assert (tree_module.settled(after.rosters, 4) == published) == (after.cohort(0, 0) == before.cohort(0, 0))
    return after.leads(1, name) == after.number_of(0, "c-0007")


def test_a_new_name_leads_nobody_in_particular(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of three leads the victim in a third of the cases, whatever it is called. More than 20 of 30 (chance 1e-4;
    the beacons are fixed) would be a choice; if only the clients were drawn from, it would be 30."""
    beacons = [bytes([i]) * 16 for i in range(30)]
    assert sum(map(renamed, beacons)) <= 20
    drawn = "digest(labels.TREE, u32.encode(size), *[roster.digest for roster in rosters])"
    switch_off(monkeypatch, tree_module, "settled", drawn, "digest(labels.TREE, u32.encode(size), rosters[0].digest)")
    assert all(map(renamed, beacons))


FOUR = identities("a", 4)


def asked(invited: int, beacon: bytes = BEACON) -> list[int]:
    """A plan for some of four aggregators: of so many cohorts the root would learn the sum, and choose which ones."""
    tree = replace(tree_of(48, 12), terms=(TERMS[0], Terms(2, "secagg", dropout="0")))
    everybody = tree.cohort(1, 0)
    plan = RoundPlan.propose(
        "secagg", everybody, ENCODING, clients=invited, min_contributors=2, dropout=0, session=SESSION, beacon=beacon
    )
    chosen = everybody.names[:invited]
    clients = {name: Client(FOUR[name], everybody, policy=tree.policy(1, 0)) for name in chosen}
    updates = dict.fromkeys(chosen, np.ones(LENGTH))
    return simulate(serve(plan, everybody), clients, updates.get).outcome.total.tolist()


def test_aggregators_join_no_plan_for_some_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their policies come from the tree, which forgets nothing."""
    with pytest.raises(ThresholdError, match="2 of the 4 clients"):
        asked(2)
    switch_off(monkeypatch, Tree, "policy", "True")
    assert asked(2) == [2] * LENGTH


def test_members_of_a_tree_know_its_beacon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lots inside a cohort would be drawn with one that its aggregator has chosen."""
    with pytest.raises(ThresholdError, match="another beacon"):
        asked(4, b"of the root's choice")
    switch_off(monkeypatch, Tree, "policy", "self.beacon", "b''")
    assert asked(4, b"of the root's choice") == [4] * LENGTH


def invited(clients: int) -> Evil:
    """A cohort of 20, of which a client fears 6, and a plan for only so many of it: all the marked, and four more."""
    people = identities("c", 40)
    tree = Tree((Roster.of(list(people.values())), roster("a", 2)), 20, BEACON, TERMS)
    cohort, feared = tree.cohort(0, 0), 6
    policy = Policy(min_contributors=8, corrupt=f"{feared}/{len(cohort)}", dropout=0, whole_roster=True)
    plan = RoundPlan.propose(
        "secagg",
        cohort,
        ENCODING,
        clients=clients,
        min_contributors=8,
        corrupt=f"{feared}/{len(cohort)}",
        dropout=0,
        session=SESSION,
        beacon=BEACON,
    )
    return Evil(plan, cohort, people, range(clients - feared, clients), policy)


def rob(evil: Evil, victim: int = 0) -> list[int]:
    """Two halves of the honest are told two sets of survivors; the marked sign both, and hold shares of both kinds."""
    evil.advertise()
    evil.share()
    evil.upload()
    alive, dead = evil.members, [u for u in evil.members if u != victim]
    half = len(evil.honest) // 2
    for told, survivors in ((evil.honest[:half], alive), (evil.honest[half:], dead)):
        signatures = {u: evil.consent(u, survivors) for u in [*told, *evil.corrupt]}
        for u in told:
            evil.reveal(u, signatures)
    return evil.sum_of([victim])


def test_an_aggregator_cannot_invite_all_the_marked_and_few_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 20 of whom 6 are feared, 10 are invited: the client would reckon with 3, and all 6 are there."""
    with pytest.raises(PolicyError, match="10 of the 20 clients"):
        rob(invited(10))
    with pytest.raises(SecAggError, match="at least"):  # the whole cohort: 14 signatures are not to be had twice
        rob(invited(20))
    switch_off(monkeypatch, Policy, "check", "self.whole_roster and plan.clients != len(roster)")
    evil = invited(10)
    assert rob(evil) == evil.values[0].tolist()


def test_noise_reckons_with_the_marked_of_a_cohort(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not with their share of all: 5% of 400 are 5 of 100 on average, and 19 now and then."""
    people = identities("c", 400)
    terms = (Terms(60, "secagg"), TERMS[1])
    tree = Tree((Roster.of(list(people.values())), roster("a", 4)), 100, BEACON, terms)
    cohort, feared = tree.cohort(0, 0), tree.marked(0, "0.05")
    name = cohort.names[0]

    def start(colluders: int) -> bytes:
        noise = NoiseSpec(Family.SKELLAM, Fraction(1000), dropouts=10, colluders=colluders)
        plan = RoundPlan.propose(
            "secagg", cohort, ENCODING, min_contributors=90, corrupt=f"{feared}/100", noise=noise, beacon=BEACON
        )
        return Client(people[name], cohort, policy=tree.policy(0, 0)).start(plan, np.zeros(LENGTH))

    assert feared == 19
    assert start(19)
    with pytest.raises(PolicyError, match="allows for 18 colluders, not the 19 feared"):
        start(18)
    with monkeypatch.context() as patched:
        switch_off(patched, Policy, "check", "plan.noise.colluders < (feared := colluders(self.corrupt, plan.clients))")
        assert start(5)
    switch_off(monkeypatch, Tree, "policy", "self._share(level, number, terms.corrupt, 40)", "terms.corrupt")
    assert start(5)


def test_two_plans_for_one_cohort_and_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever adds two sums would be asked for both, for their difference: a journal knows one plan of a round."""
    people = identities("c", 24)
    everybody = Roster.of(list(people.values()))
    name = everybody.names[0]

    def both() -> bytes:
        journal, frame = MemoryJournal(), b""
        tree = Tree((everybody, roster("a", 3)), 8, BEACON, TERMS)
        cohort = tree.cohort(0, tree.number_of(0, name))
        for least in (5, 6):
            client = Client(people[name], cohort, policy=Policy(min_contributors=3), journal=journal)
            plan = RoundPlan.propose("secagg", cohort, ENCODING, min_contributors=least, session=SESSION)
            frame = client.start(plan, np.zeros(LENGTH))
        return frame

    with pytest.raises(PolicyError, match="another plan was already accepted"):
        both()
    switch_off(monkeypatch, Client, "_accepted", "records and records[0].request != plan.encode()")
    assert both()


# What goes up


class Above:
    """The level above: what came of the cohorts, and their aggregators, who are honest."""

    def __init__(self) -> None:
        secret = b"t" * 32
        terms = Terms(4, corrupt="0", dropout="0.05"), Terms(3, "secagg", corrupt="0", dropout="0.25")
        self.tree = grown(32, 8, secret, *terms)
        ran = simulate_tree(
            self.tree,
            Encoding.integers(LENGTH, bits=10),
            lambda name: np.arange(LENGTH) * int(name.rpartition("-")[2]),
            engine=Threads(1),
            secret=secret,
            round_=0,
        )
        leaders = [self.tree.leader(0, number) for number in range(4)]
        self.outcomes: dict[str, RoundOutcome] = {}
        for leader, one in zip(leaders, ran.rounds[0], strict=True):
            assert not isinstance(one, str)
            self.outcomes[leader] = one.outcome
        [root] = ran.rounds[1]
        assert not isinstance(root, str)
        self.plan, self.roster = root.outcome.event.plan, self.tree.cohort(1, 0)
        self.clients_plan = self.outcomes[leaders[0]].event.plan
        people = {name: _identity(name, secret) for name in leaders}
        policy = self.tree.policy(1, 0)
        self.clients = {name: Client(one, self.roster, policy=policy) for name, one in people.items()}

    def total(self, plan: RoundPlan, without: Iterable[str] = ()) -> np.ndarray:
        """A round of the root, who calls somebody silent."""
        updates = {
            name: tree_module.update_above(self.tree, plan, outcome, 0) for name, outcome in self.outcomes.items()
        }
        faults = Faults(dropouts=dict.fromkeys(without, "upload"))
        done = simulate(serve(plan, self.roster), self.clients, updates.get, faults=faults)
        for client in self.clients.values():
            client.finish()
        return done.outcome.total


@pytest.fixture(scope="module")
def above() -> Callable[[], Above]:
    made = Above()
    policy = next(iter(made.clients.values())).policy

    def again() -> Above:
        made.clients = {name: Client(c.identity, made.roster, policy=policy) for name, c in made.clients.items()}
        return made

    return again


TWICE: Mapping[str, Callable[[RoundPlan], RoundPlan]] = {
    "another session": lambda plan: replace(plan, session=b"another session!"),
    "the next round": lambda plan: plan.next_round(),
    "another plan": lambda plan: replace(plan, model=b"m" * 32),
}


@pytest.mark.parametrize("how", TWICE)
def test_a_root_takes_no_difference(how: str, above: Callable[[], Above], monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the same sums, and one aggregator silent the second time: the difference is its cohort alone."""

    def difference() -> tuple[list[int], list[int]]:
        level = above()
        victim = level.roster.names[2]
        first, second = level.total(level.plan), level.total(TWICE[how](level.plan), [victim])
        return (first - second)[:-1].tolist(), level.outcomes[victim].total.tolist()

    with pytest.raises((PolicyError, ThresholdError), match=r"another session or round|past round 0"):
        difference()
    if how == "another plan":
        switch_off(monkeypatch, Client, "_accepted", "not records and last is not None and plan.round <= last")
        monkeypatch.setattr(journal_module, "check_next", lambda *_: None)
    else:
        condition = "(plan.session, plan.round) != (below.session, below.round)"
        switch_off(monkeypatch, tree_module, "update_above", condition)
    got, alone = difference()
    assert got == alone


def told(above: Above, liar: str, count: int) -> float:
    """How many clients the root believes in, if one aggregator says ``count`` of its own cohort."""
    updates = {name: tree_module.update_above(above.tree, above.plan, one, 0) for name, one in above.outcomes.items()}
    updates[liar][-1] = count
    root = simulate(serve(above.plan, above.roster), above.clients, updates.get).outcome
    return tree_module.decoded(above.tree, above.clients_plan, root).weight


@pytest.mark.parametrize("lie", [-15, -4000, 33])
def test_an_aggregator_does_not_invent_clients(
    lie: int, above: Callable[[], Above], monkeypatch: pytest.MonkeyPatch
) -> None:
    """32 clients in four cohorts, in each at least 4 and at most 8. What four such cohorts can be is believed."""
    liar = above().roster.names[1]
    with pytest.raises(PeerError, match=f"of {24 + lie} clients, and is of 16 to 32") as refused:
        told(above(), liar, lie)
    assert liar in refused.value.culprits
    assert told(above(), liar, -8) == 16
    switch_off(monkeypatch, tree_module, "_check_count", "not least <= (count := int(outcome.total[-1])) <= most")
    assert told(above(), liar, lie) == 24 + lie


def test_a_leader_in_between_does_not_pass_on_what_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """24 clients in cohorts of 4 (at least 3), whose sums are added up by threes. The liar says 5 for its 4, so 13 for
    12. In the other half some are silent, 9 are left, and at the root 22 could be as well as 21."""
    people = identities("c", 24) | identities("b", 6) | identities("a", 2)
    rosters = tuple(Roster.of([one for name, one in people.items() if name[0] == level]) for level in "cba")
    tree = Tree(
        rosters, 4, BEACON, (Terms(3, "secagg", dropout="0"), *[Terms(2, "secagg", corrupt="0", dropout="0.17")] * 2)
    )
    encodings = [ENCODING, *[Encoding.integers(LENGTH + 1, bits=bits) for bits in (24, 30)]]

    def summed(level: int, number: int, updates: Mapping[str, Any]) -> RoundOutcome:
        cohort = tree.cohort(level, number)
        clients = {name: Client(people[name], cohort, policy=tree.policy(level, number)) for name in updates}
        plan = tree.plan(level, number, encodings[level], session=SESSION)
        return simulate(serve(plan, cohort), clients, updates.get).outcome

    def believed() -> float:
        said = {name: np.append(np.ones(LENGTH), 4) for number in range(2) for name in tree.cohort(1, number).names}
        said[tree.cohort(1, 0).names[0]][-1] = 5
        said |= {name: np.append(np.ones(LENGTH), 3) for name in tree.cohort(1, 1).names}
        halves = [summed(1, number, {name: said[name] for name in tree.cohort(1, number).names}) for number in (0, 1)]
        plan = tree.plan(2, 0, encodings[2], session=SESSION)
        up = {tree.leader(1, n): tree_module.update_above(tree, plan, half, 1) for n, half in enumerate(halves)}
        return decoded(tree, tree.plan(0, 0, ENCODING, session=SESSION), summed(2, 0, up)).weight

    with pytest.raises(PeerError, match="of 13 clients, and is of 9 to 12"):
        believed()
    switch_off(monkeypatch, tree_module, "update_above", "level > 0")
    assert believed() == 13 + 9


def test_sums_turned_by_another_session_do_not_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rotations come from session and round. Cohorts with sessions of their own would add up to noise, unnoticed."""
    encoding, one = Encoding(8, clip_l2=10.0, rotate=True), np.array([1.0, -2, 3, -4, 5, 0, 1, 2])
    outcomes, plans = [], []
    for number in range(2):
        people = identities(f"c{number}", 4)
        cohort = Roster.of(list(people.values()))
        plan = RoundPlan.propose(
            "secagg", cohort, encoding, min_contributors=3, dropout="0.25", session=bytes([number]) * 16
        )
        clients = {
            name: Client(person, cohort, policy=Policy(min_contributors=3, dropout="0.25"))
            for name, person in people.items()
        }
        outcomes.append(simulate(serve(plan, cohort), clients, dict.fromkeys(clients, one).get).outcome)
        plans.append(plan)
    tree, leaders = tree_of(8, 4), roster("a", 2)
    tree = replace(tree, terms=(Terms(3), TERMS[1]))
    upper = RoundPlan.propose(
        "secagg", leaders, encoding_above(plans, 0), min_contributors=2, dropout=0, session=plans[0].session
    )

    def off() -> float:
        vectors = [tree_module.update_above(tree, upper, outcome, 0) for outcome in outcomes]
        root = RoundOutcome(np.sum(vectors, axis=0), leaders.names, replace(outcomes[0].event, plan=upper))
        return float(np.abs(decoded(tree, plans[0], root).vector - 8 * one).max())

    with pytest.raises(PolicyError, match="another session or round"):
        off()
    switch_off(monkeypatch, tree_module, "update_above", "(plan.session, plan.round) != (below.session, below.round)")
    assert off() > 5
    outcomes[1] = outcomes[0]
    assert off() < 0.1


# What privacy is claimed


def divergence(pmf: np.ndarray, order: int) -> float:
    """Renyi, exactly but for float rounding, between a distribution on integers and itself moved by one."""
    p, q = pmf[:-1], pmf[1:]
    seen = (p > 1e-250) & (q > 1e-250)
    return log(np.exp(order * np.log(p[seen]) + (1 - order) * np.log(q[seen])).sum()) / (order - 1)


def skellam(variance: Fraction) -> np.ndarray:
    mean = float(variance) / 2
    k = np.arange(int(mean + 40 * mean**0.5 + 40))
    poisson = np.exp(k * log(mean) - mean - np.array([lgamma(i + 1) for i in k.tolist()]))
    return np.convolve(poisson, poisson[::-1])


def cohort_sum(number: int, noise: NoiseSpec, missing: int, planned: int = 12) -> Any:
    from tests.scenes.secure_sums import cohort

    return cohort(number, missing, noise, planned=planned, survivors=planned - missing, l2_squared=1, l1=1, dimension=1)


def test_what_the_root_sees_exactly() -> None:
    """One dimension, a client that moves it by one, three cohorts of which some are lost: whichever these are, what is
    left diverges by no more than is claimed. Were the lost not reckoned with, it would."""
    noise = NoiseSpec(Family.SKELLAM, Fraction(24), dropouts=3, colluders=1)
    sums = TreeSum((cohort_sum(0, noise, 0), cohort_sum(1, noise, 3), cohort_sum(2, noise, 1)))
    held = [one.noise.honest_variance(one.planned, one.survivors) for one in sums.cohorts]
    for lost in range(3):
        claimed = rdp.curve(sums.to_root(USERS, lost))
        forgotten = rdp.curve(sums.to_root(USERS, 0))
        for honest in combinations(held, 3 - lost):
            pmf = skellam(sum(honest, Fraction(0)))
            for order, most, wrong in zip(rdp.ORDERS[:6], claimed, forgotten, strict=False):
                exact = divergence(pmf, order)
                assert exact <= most
                assert lost == 0 or exact > wrong
    assert sums.to_root(USERS, 2) == sums.to_aggregators(USERS)


def test_small_discrete_gaussians_have_no_sum_of_that_kind() -> None:
    """334 of parameter 0.3 and 2 of 50 hold as much. The quieter cohort would stand for both, with divergence 0.0100 at
    order 2; the other's is 0.0106: their small Gaussians have less variance than they are named by."""
    gaussian = np.exp(-(np.arange(-20, 21) ** 2) / 0.6)
    pmf = gaussian / gaussian.sum()
    for _ in range(333):
        pmf = np.convolve(pmf, gaussian / gaussian.sum())[20:-20] if len(pmf) > 600 else np.convolve(pmf, gaussian)
        pmf = pmf / pmf.sum()
    assert 0.0106 < divergence(pmf, 2) < 0.0107
    assert 2 / (2 * 334 * 0.3) < 0.01
    noises = [NoiseSpec(Family.DISCRETE_GAUSSIAN, Fraction(v)) for v in ("100.2", "100")]
    sums = TreeSum((cohort_sum(0, noises[0], 0, planned=334), cohort_sum(1, noises[1], 0, planned=2)))
    for release in (sums.to_aggregators, lambda guarantee: sums.to_root(guarantee, 0)):
        with pytest.raises(UsageError, match="below 8"):
            release(USERS)


def test_a_leader_in_between_sees_its_part() -> None:
    """Three levels. To the root and one such leader all cohorts are lost but those below it (or all the others)."""
    noise = NoiseSpec(Family.SKELLAM, Fraction(100))
    tree = grown(60, 5, b"t" * 32, *TERMS)
    sums = TreeSum(tuple(cohort_sum(number, noise, 0, planned=5) for number in range(12)))
    parts = [len(tree.cohort(1, number)) for number in range(tree.cohorts(1))]
    assert parts == [4, 4, 4]
    seen = Release(Skellam(min(parts) * noise.honest_variance(5, 5), 1, 1), Everyone(), USERS)
    assert sums.to_root(USERS, 12 - min(parts)) == seen
    assert rdp.curve(sums.to_root(USERS, 1))[0] < rdp.curve(seen)[0]  # one lost cohort is not what it amounts to


KEY = SigningKey(b"l" * 32)
BUDGET = Budget(Fraction(30), Fraction(1, 1000), slack=Fraction(1, 10**6))


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Callable[[Relation], Ledger]]:
    opened: list[Ledger] = []

    def create(relation: Relation = Relation.ZERO_OUT) -> Ledger:
        path = tmp_path / f"{len(opened)}.db"
        opened.append(Ledger.create(path, KEY, BUDGET, user_level(relation), run="a cohort", elsewhere="nothing"))
        return opened[-1]

    yield create
    for one in opened:
        one.close()


def plan_of(tree: Tree, number: int, **silos: int) -> RoundPlan:
    noise = NoiseSpec(Family.SKELLAM, Fraction(10_000), dropouts=1)
    cohort, encoding = tree.cohort(0, number), replace(Encoding.integers(2, bits=4), **silos)  # type: ignore[arg-type]
    return RoundPlan.propose("secagg", cohort, encoding, min_contributors=len(cohort) - 1, corrupt=0, noise=noise)


def test_a_ledger_that_held_another_cohorts_sum(book: Callable[[], Ledger], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if that was given back, and also if it was no secure sum."""
    tree = tree_of(16, 8)
    right, aborted, stepped = book(), book(), book()
    for ledger, number in ((right, 0), (aborted, 0), (stepped, 0)):
        ledger.reserve(plan_of(tree, number).secure_sum(8))
    other = plan_of(tree, 1).secure_sum(8)
    aborted.reserve(other)
    aborted.abort(other, "it never came through")
    stepped.charge(other.worst().release(USERS))
    second = book()
    second.reserve(other)
    assert largest_epsilon(tree, [right, second]) == max(right.epsilon, second.epsilon)
    for wrong in (aborted, stepped):
        with pytest.raises(UsageError, match="cohort 0 holds something else"):
            largest_epsilon(tree, [wrong, second])
    switch_off(monkeypatch, tree_module, "largest_epsilon", "_roster_of(entry) != roster")
    assert tree_module.largest_epsilon(tree, [stepped, second]) > right.epsilon


def test_users_in_several_cohorts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who may be in several silos may be in several cohorts, and none of their ledgers has all of its sums."""
    tree, ledgers = tree_of(16, 8), list[Ledger]()
    inside = user_level(Relation.ZERO_OUT, Holder.SILO)
    for number in range(2):
        path = tmp_path / f"{number}.db"
        ledgers.append(Ledger.create(path, KEY, BUDGET, inside, run="a cohort", elsewhere="nothing"))
        ledgers[-1].reserve(plan_of(tree, number, users=3, overlap=2).secure_sum(8))
    with pytest.raises(UsageError, match="may be in several cohorts"):
        largest_epsilon(tree, ledgers)
    switch_off(monkeypatch, tree_module, "largest_epsilon", "entry.get('sum', {}).get('overlap', 1) > 1")
    assert tree_module.largest_epsilon(tree, ledgers) == max(ledger.epsilon for ledger in ledgers)
    for ledger in ledgers:
        ledger.close()


def test_one_client_more_or_less_is_in_no_single_cohort(
    book: Callable[[Relation], Ledger], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order depends on the digest of the roster: without one client, the others have other company. And the root is
    told the number of clients as it is. So the largest over cohorts says nothing of another client in the place of one,
    whose name and key would be in the roster; one client less is refused under any distributed trust."""
    tree = tree_of(16, 8)
    everybody, leaders = tree.rosters
    without_last = Roster.build(dict(zip(everybody.names[:-1], everybody.keys, strict=False)))
    fewer = Tree((without_last, leaders), 8, BEACON, TERMS)
    company = [{*one.cohort(0, one.number_of(0, "c-0000")).names} for one in (tree, fewer)]
    assert len(company[0] ^ company[1]) > 2
    ledgers = [book(Relation.REPLACE_ONE), book(Relation.REPLACE_ONE)]
    with pytest.raises(UsageError, match="under zero-out only"):
        largest_epsilon(tree, ledgers)
    condition = "any((ledger.guarantee.relation is not Relation.ZERO_OUT for ledger in ledgers))"
    switch_off(monkeypatch, tree_module, "largest_epsilon", condition)
    assert tree_module.largest_epsilon(tree, ledgers) == 0


def test_a_tree_sum_is_for_clients_who_stay_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    relation = Relation.REPLACE_ONE
    sums = TreeSum((cohort_sum(0, NoiseSpec(Family.SKELLAM, Fraction(100)), 0),))
    for release in (sums.to_aggregators, lambda guarantee: sums.to_root(guarantee, 0)):
        with pytest.raises(UsageError, match="under zero-out only"):
            release(user_level(relation))
    switch_off(monkeypatch, TreeSum, "_under", "guarantee.relation is not Relation.ZERO_OUT")
    assert sums.to_root(user_level(relation), 0)


# Engines that lose what they keep


class Losing(Engine):
    """Before every question all that was placed is lost; it is made, and told everything, again."""

    workers = 2

    def map(self, work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        return map(work, items)

    def host(self, make: Callable[[], Any]) -> Hosted[Any]:
        return _Lost(make)


class _Lost(Hosted[Any]):
    def __init__(self, make: Callable[[], Any]) -> None:
        self.make, self.asked = make, list[tuple[Callable[[Any, Any], Any], Any]]()

    def ask(self, work: Callable[[Any, Any], Any], argument: Any) -> Callable[[], Any]:
        self.asked.append((work, argument))
        made = self.make()
        answers = [old(made, said) for old, said in self.asked]
        return lambda: answers[-1]


PEOPLE = identities("client", 9)
CROWD = Roster.of(list(PEOPLE.values()))
NAMES = [*PEOPLE]


def spoiled(envelope: Envelope) -> bytes:
    """Two clients are lied to: one refuses for good, the other until it is told the truth."""
    if envelope.receiver in NAMES[1:3] and envelope.phase == "upload":
        return envelope.frame[:-1] + bytes([envelope.frame[-1] ^ 1])
    return envelope.frame


def crowd_round(protocol: str, engine: Engine, update: Callable[[str], Any]) -> tuple[list[Any], RoundOutcome]:
    """All that came to the server, and every refusal, in order; with lies, repetitions and silence on the way."""
    plan = RoundPlan.propose(
        protocol, CROWD, Encoding.integers(6), min_contributors=4, corrupt=0, dropout="0.4", session=SESSION
    )
    seen: list[Any] = []

    def network(envelope: Envelope) -> bytes:
        if envelope.receiver == "server":
            seen.append((envelope.phase, envelope.sender, envelope.frame))
        return spoiled(envelope)

    phases = [str(phase) for phase in serve(plan, CROWD).steps]
    faults = Faults(dropouts={NAMES[4]: phases[-1]}, duplicated=frozenset(phases[1:]), corrupted=network)
    policy = Policy(
        min_contributors=4, protocols={protocol}, adversary=rules_of(protocol).against, corrupt=0, dropout="0.4"
    )
    ran = simulate_on_workers(
        serve(plan, CROWD),
        list(PEOPLE.values()),
        update,
        policy=policy,
        engine=engine,
        secret=bytes(32),
        faults=faults,
    )
    refusals = [(one.phase, one.party, type(one.error), str(one.error)) for one in ran.incidents]
    return [*seen, *refusals], ran.outcome


def counted(name: str) -> np.ndarray:
    return np.arange(6) * (1 + NAMES.index(name))


@pytest.mark.parametrize("protocol", ["secagg", "secagg+", "oneshot"])
def test_lost_parts_say_the_same_also_after_refusals(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Byte for byte, and every refusal in its place. With randomness of its own a remade client would be another."""
    said, outcome = crowd_round(protocol, Threads(2), counted)
    again, repeated = crowd_round(protocol, Losing(), counted)
    assert said == again
    assert outcome.total.tolist() == repeated.total.tolist()
    assert outcome.total.tolist() == np.sum([counted(name) for name in outcome.survivors], axis=0).tolist()
    secret = "Prg(derive(secret, labels.SIMULATED, b'client', name.encode(), plan.digest()))"
    switch_off(monkeypatch, crowd, "clients_of", secret, "__import__('os').urandom")
    with pytest.raises((SecAggError, AssertionError)):
        assert crowd_round(protocol, Losing(), counted)[0] == said


@pytest.mark.parametrize("protocol", ["secagg", "oneshot"])
def test_lost_parts_add_the_same_noise(protocol: str, book: Callable[[], Ledger]) -> None:
    """To keep and to be taken off; and what a part says again is charged once. The seed is fixed."""
    noise = NoiseSpec(Family.SKELLAM, Fraction(10_000), dropouts=3, colluders=1, components=3)
    plan = RoundPlan.propose(
        protocol,
        CROWD,
        Encoding.integers(6, bits=8),
        min_contributors=6,
        corrupt=0,
        dropout="0.4",
        noise=noise,
        session=SESSION,
    )
    policy = Policy(
        min_contributors=6, protocols={protocol}, adversary=rules_of(protocol).against, corrupt=0, dropout="0.4"
    )
    totals, epsilons = list[list[int]](), list[float]()
    for engine in (Threads(2), Losing()):
        ledger = book()
        server = serve(plan, CROWD, ledger=ledger)
        ran = simulate_on_workers(
            server, list(PEOPLE.values()), counted, policy=policy, engine=engine, secret=bytes(32)
        )
        totals.append(ran.outcome.total.tolist())
        epsilons.append(ledger.epsilon)
    plain = np.sum([counted(name) for name in NAMES], axis=0)
    assert totals[0] == totals[1] != plain.tolist()
    assert np.abs(totals[0] - plain).max() < 6 * float(noise.honest_variance(9, 9)) ** 0.5
    assert epsilons[0] == epsilons[1] > 0


@pytest.mark.parametrize("protocol", ["secagg", "secagg+", "oneshot"])
def test_an_update_that_is_no_function(protocol: str) -> None:
    """Training that is not deterministic: the remade client has another vector, and the sum is of those uploaded."""
    made: dict[str, list[np.ndarray]] = {name: [] for name in NAMES}

    def update(name: str) -> np.ndarray:
        made[name].append(np.arange(6) * (1 + NAMES.index(name)) + 1000 * len(made[name]))
        return made[name][-1]

    _said, outcome = crowd_round(protocol, Losing(), update)
    assert {len(vectors) for vectors in made.values()} == {len(made[NAMES[0]])}
    sums = [
        np.sum([made[name][life] for name in outcome.survivors], axis=0).tolist() for life in range(len(made[NAMES[0]]))
    ]
    assert sums.count(outcome.total.tolist()) == 1


@BOTH
@pytest.mark.parametrize("step", STEPS)
def test_who_forgets_says_nothing_twice(protocol: str, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``test_restart``, with a journal that remembers only that steps were taken."""
    kept = ForgetfulJournal()
    life = Life(protocol, lambda: kept)
    life.live(step)
    evil = life.evil
    answered = life.client
    for update in (None, evil.values[3]):
        with pytest.raises(PolicyError, match="this session is past round 0"):
            life.restart(update)
        with pytest.raises(PolicyError, match="this session is past round 0"):
            life.restart(update, replace(evil.plan, model=b"m" * 32))
        with pytest.raises(PolicyError, match="this session is past round 0"):
            life.client.resume(evil.plan, lambda: b"")
    evil.clients[2] = answered
    for u in evil.corrupt:
        with pytest.raises(SecAggError):  # a message of a phase that is over, or of one to come
            answered.receive(evil.frame(evil.puppets[u].round.opening()))
    switch_off(monkeypatch, Client, "_accepted", "not records and last is not None and plan.round <= last")
    with pytest.raises(PolicyError, match="this session is past round 0: it is over, or was begun already"):
        life.restart()
    monkeypatch.setattr(journal_module, "check_next", lambda *_: None)
    assert life.restart() != life.said[0]
