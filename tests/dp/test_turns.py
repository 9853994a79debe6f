"""Turns: whose turn a sum is follows from names, beacon and number, and from nothing else."""

from __future__ import annotations

import random
from collections import Counter
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dp.client_filters import ClientFilters
from dp.filter import Budget, Filter, Kind, PrivacyCost
from dp.turns import Turns, cohort, most_turns, order
from protocols.roster import Roster
from secagg.errors import BudgetError, UsageError
from tests.controls import switch_off
from tests.scenes.ledger import NAMES, TURNS, turn, turn_happened

BUDGET = Budget(Fraction(2), Fraction(1, 10**5), slack=Fraction(1, 10**9), kind=Kind.GDP)


def many(clients: int) -> tuple[str, ...]:
    return tuple(sorted(f"c{number}" for number in range(clients)))


@given(st.integers(2, 40), st.data())
def test_each_client_is_in_as_many_sums_as_any_other_or_one_fewer(clients: int, data: st.DataObject) -> None:
    size, sums = data.draw(st.integers(1, clients)), data.draw(st.integers(1, 30))
    taken = Counter(name for number in range(sums) for name in cohort(many(clients), b"noon", size, number))
    counts = [taken[name] for name in many(clients)]
    most = most_turns(clients, size, sums)
    assert max(counts) == most
    assert min(counts) >= most - 1
    assert sum(counts) == sums * size


def test_cohorts_follow_one_another_around_the_circle() -> None:
    names = many(7)
    circle = order(names, b"noon")
    for number in range(9):
        assert cohort(names, b"noon", 3, number) == tuple(sorted(circle[(3 * number + i) % 7] for i in range(3)))


def test_a_name_added_after_the_beacon_is_known_makes_another_order_of_all() -> None:
    """Those who were neighbours are no more: what was promised of a cohort's dishonest part is drawn anew."""
    names = many(200)
    before, after = order(names, b"noon"), order((*names, "late"), b"noon")
    followed = set(pairwise(before))
    assert len(followed & set(pairwise(after))) < 20  # 1 of 200 by chance; so many: below 1e-15
    assert order(names, b"dusk") != before
    assert order(names, b"noon") == before


def test_the_order_is_that_of_a_uniformly_drawn_permutation() -> None:
    """Each place is as likely for each name: chi-squared of 24 degrees of freedom below 90, false alarm below 1e-8."""
    names, runs = many(5), 2000
    seen = Counter((name, place) for run in range(runs) for place, name in enumerate(order(names, b"%d" % run)))
    expected = runs / 5
    assert sum((seen[name, place] - expected) ** 2 / expected for name in names for place in range(5)) < 90


def test_the_digest_of_a_cohort_is_that_of_its_roster() -> None:
    for number in range(4):
        assert TURNS.roster(number) == Roster.build(TURNS.members(number)).digest


@pytest.mark.parametrize(
    ("names", "keys", "beacon", "size"),
    [
        (("b", "a"), (b"a" * 32, b"b" * 32), b"x", 2),
        (("a", "a"), (b"a" * 32, b"b" * 32), b"x", 2),
        (("a", "b"), (b"a" * 32, b"a" * 32), b"x", 2),
        (("a", "b"), (b"a" * 32, b"b" * 31), b"x", 2),
        (("a", "b"), (b"a" * 32,), b"x", 2),
        (("a", "b"), (b"a" * 32, b"b" * 32), b"", 2),
        (("a", "b"), (b"a" * 32, b"b" * 32), b"x" * 65, 2),
        (("a", "b"), (b"a" * 32, b"b" * 32), b"x", 1),
        (("a", "b"), (b"a" * 32, b"b" * 32), b"x", 3),
        (("a", "\ud800"), (b"a" * 32, b"b" * 32), b"x", 2),
    ],
)
def test_what_are_no_turns(names: tuple[str, ...], keys: tuple[bytes, ...], beacon: bytes, size: int) -> None:
    with pytest.raises(UsageError):
        Turns(names, keys, beacon, size)


def test_names_are_in_one_order_before_they_are_drawn_from() -> None:
    """Else the same clients could be drawn from in two ways."""
    for names in (("b", "a"), ("a", "a")):
        with pytest.raises(UsageError, match="names are sorted"):
            order(names, b"noon")


def test_no_cohort_is_larger_than_all() -> None:
    for size, number in ((0, 0), (4, 0), (2, -1)):
        with pytest.raises(UsageError, match="cannot be drawn"):
            cohort(many(3), b"noon", size, number)


def test_a_sum_over_others_is_not_charged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer than the cohort, the cohort of another number, and users in several clients. Control: without the check a
    sum over the clients of number 1 would be charged to those of number 0."""
    assert tuple(TURNS.charged(turn(3))) == TURNS.cohort(3)
    wrong = turn(0, turns=Turns(TURNS.names, TURNS.keys, b"dusk", TURNS.size))
    fewer = turn(0, turns=Turns(TURNS.names, TURNS.keys, b"noon", 9))
    for other in (wrong, fewer, turn(0, planned=9, survivors=9)):
        with pytest.raises(BudgetError, match="not over the clients whose turn it is"):
            TURNS.charged(other)
    with pytest.raises(UsageError, match="no two of them hold data of one user"):
        TURNS.charged(turn(0, users=3, overlap=2))
    switch_off(monkeypatch, Turns, "charged", "what.planned != self.size or what.roster != roster_of(members)")
    TURNS.charged(wrong)


def test_signers_are_those_whose_turn_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither somebody whose turn it is not, nor a key that is in the roster under another name."""
    happened = turn_happened(1)
    TURNS.check_signers(happened)
    (idle,) = set(NAMES) - set(TURNS.cohort(1)) - set(sorted(set(NAMES) - set(TURNS.cohort(1)))[1:])
    first = happened.signatures[0]
    lies = [
        [type(first)(idle, TURNS.keys[NAMES.index(idle)], first.signature)],
        [type(first)(TURNS.cohort(1)[1], first.key, first.signature)],
    ]
    for lie in lies:
        with pytest.raises(BudgetError, match="not its turn, or not its key"):
            TURNS.check_signers(type(happened)(**_fields(happened) | {"signatures": tuple(lie)}))
    switch_off(monkeypatch, Turns, "check_signers", "members.get(one.name) != one.key")
    for lie in lies:
        TURNS.check_signers(type(happened)(**_fields(happened) | {"signatures": tuple(lie)}))


def _fields(what: object) -> dict[str, object]:
    return {name: getattr(what, name) for name in type(what).__slots__}  # type: ignore[attr-defined]


# What each client spends


def test_each_client_has_the_budget_of_its_own_sums() -> None:
    """Against a filter for each client, kept apart, over random histories of reservations, commits and aborts."""
    drawn, names = random.Random(7), many(6)
    filters, alone = ClientFilters.of(BUDGET, names), {name: Filter.of(BUDGET) for name in names}
    open_: dict[str, tuple[PrivacyCost, list[str]]] = {}
    refused = 0
    for step in range(300):
        if open_ and drawn.random() < 0.6:
            release = drawn.choice(sorted(open_))
            cost, members = open_.pop(release)
            if drawn.random() < 0.3:
                filters = filters.abort(release)
                alone |= {name: alone[name].abort(release) for name in members}
            else:
                actual = PrivacyCost((drawn.randint(0, cost.amounts[0] or 0),), drawn.randint(0, cost.samples))
                filters = filters.commit(release, actual)
                alone |= {name: alone[name].commit(release, actual) for name in members}
        else:
            members = drawn.sample(names, 3)
            cost = PrivacyCost((drawn.randint(1, BUDGET.limits()[0] // 12),), drawn.randint(1, 10**6))
            allowed = all(alone[name].allows(cost) for name in members)
            assert filters.allows(cost, members) == allowed
            if allowed:
                filters = filters.reserve(str(step), cost, members)
                alone |= {name: alone[name].reserve(str(step), cost) for name in members}
                open_[str(step)] = cost, members
            else:
                refused += 1
                with pytest.raises(BudgetError, match="client c"):
                    filters.reserve(str(step), cost, members)
        assert filters.each == alone
        assert filters.total.amounts == (max(one.total.amounts[0] or 0 for one in alone.values()),)
        assert filters.total.samples == max(one.total.samples for one in alone.values())
        assert filters.spent.amounts == (max(one.spent.amounts[0] or 0 for one in alone.values()),)
    assert refused > 20
    assert filters.reached == max(one.reached or 0 for one in alone.values())
    assert filters.reached <= BUDGET.epsilon * 10**12


def test_the_slack_allows_samples_for_each_client(monkeypatch: pytest.MonkeyPatch) -> None:
    most = BUDGET.samples()
    filters = ClientFilters.of(BUDGET, many(3)).reserve("one", PrivacyCost((1,), most), ["c0", "c1"])
    assert filters.allows(PrivacyCost((1,), most), ["c2"])
    assert not filters.allows(PrivacyCost((1,), 1))
    with pytest.raises(BudgetError, match="client c1: the slack"):
        filters.reserve("two", PrivacyCost((1,), 1), ["c1", "c2"])


def test_only_a_budget_of_kind_gdp_is_kept_client_by_client() -> None:
    with pytest.raises(UsageError, match="kind gdp"):
        ClientFilters.of(Budget(Fraction(2), Fraction(1, 10**5), slack=Fraction(0)), many(3))
    with pytest.raises(UsageError, match="nothing is reserved"):
        ClientFilters.of(BUDGET, many(3)).abort("one")
