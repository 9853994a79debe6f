"""The calculator, the lots, the plans and policies that are refused, and the numbers that everything hangs on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import cache
from itertools import combinations
from math import floor, log2

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from protocols.oneshot import committee as rules
from protocols.oneshot import parameters as parameters_module
from protocols.oneshot.committee import Committee, public_of, sortition
from protocols.oneshot.messages import Header, Member
from protocols.oneshot.parameters import (
    EVERYBODY,
    MAX_MEMBERS,
    CommitteeSize,
    choose_committee,
    lattice_of,
    least_contributors,
    parameters_of,
    sharing_of,
)
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Roster
from secagg.assumptions import Adversary
from secagg.crypto.lattice import VARIANCE, candidates, tail
from secagg.crypto.packed import Sharing
from secagg.crypto.sampling.draws import discrete_gaussian
from secagg.encoding import Encoding
from secagg.errors import PolicyError, UsageError
from secagg.hypergeometric import most_marked
from tests.controls import switch_off
from tests.reference import packed as reference
from tests.reference.parameters import above

BEACON = b"dice thrown after the plan"


def chosen(n: int, g: str | Fraction, d: str | Fraction, security: int = 40, correctness: int = 20) -> CommitteeSize:
    return choose_committee(n, Fraction(g), Fraction(d), Adversary.ACTIVE, security, correctness)


@cache
def people(n: int) -> Roster:
    return Roster.build({f"c{i:04}": (i + 2).to_bytes(32, "little") for i in range(n)})


def proposal(n: int = 150, encoding: Encoding | None = None, **options: object) -> RoundPlan:
    given: dict[str, object] = {"min_contributors": min(n, 3), "corrupt": "0.1", "beacon": BEACON} | options
    return RoundPlan.propose("oneshot", people(n), encoding or Encoding.integers(5), **given)  # type: ignore[arg-type]


# The calculator.


def slow_choice(n: int, g: Fraction, d: Fraction, security: int, correctness: int) -> CommitteeSize | None:
    """The rule in the docstring of ``rules``, in exact fractions."""
    bad, gone = floor(g * n), floor(d * n)
    if n <= EVERYBODY:
        return CommitteeSize(n, bad) if floor(Fraction(n + bad, 2)) + 1 <= n - gone else None
    for m in range(3, n):
        f = next(f for f in range(m + 1) if above(n, bad, m, f) <= Fraction(1, 2**security * 1024))
        left = m - next(k for k in range(m + 1) if above(n, gone, m, k) <= Fraction(1, 2**correctness))
        if floor(Fraction(m + f, 2)) + 1 <= left:
            return CommitteeSize(m, f)
    return None


fractions = st.sampled_from([Fraction(0), Fraction(1, 50), Fraction(1, 10), Fraction(1, 5), Fraction(3, 10)])


@pytest.mark.long
@given(
    n=st.integers(2, 40) | st.integers(120, 170),
    g=fractions,
    d=fractions,
    security=st.integers(1, 20),
    correctness=st.integers(1, 10),
)
def test_the_choice_is_that_of_the_slow_rule(n: int, g: Fraction, d: Fraction, security: int, correctness: int) -> None:
    expected = slow_choice(n, g, d, security, correctness)
    if expected is None:
        with pytest.raises(UsageError, match="infeasible"):
            chosen(n, g, d, security, correctness)
    else:
        assert chosen(n, g, d, security, correctness) == expected


def test_committees_at_full_strength_are_safe_and_no_smaller_one_is() -> None:
    """The three rules at 40 (of all sizes together) and 20 bits, again in fractions."""
    for n, g, d in ((1000, Fraction(1, 10), Fraction(1, 10)), (150, Fraction(1, 20), Fraction(1, 5))):
        bad, gone = floor(g * n), floor(d * n)
        committee = chosen(n, g, d)
        m, f, quorum = committee.members, committee.corrupt, committee.quorum
        assert above(n, bad, m, f) <= Fraction(1, 2**50) < above(n, bad, m, f - 1)
        assert 2 * quorum - m > f
        assert above(n, gone, m, m - quorum) <= Fraction(1, 2**20)
        smaller = next(f for f in range(m) if above(n, bad, m - 1, f) <= Fraction(1, 2**50))
        assert above(n, gone, m - 1, m - 1 - CommitteeSize(m - 1, smaller).quorum) > Fraction(1, 2**20)


@given(n=st.integers(129, 2000), g=fractions, d=fractions, more=st.integers(1, 20))
def test_more_to_fear_never_takes_a_smaller_committee(n: int, g: Fraction, d: Fraction, more: int) -> None:
    assume(d < Fraction(3, 10) or g < Fraction(1, 10))  # beyond, it takes seconds to see that there is none
    base = chosen(n, g, d, 20, 10)
    assert base.members <= chosen(n, g, d, 20 + more, 10).members
    assert base.members <= chosen(n, g, d, 20, 10 + more).members
    assert base.members >= chosen(n, g / 2, d, 20, 10).members
    assert base.members >= chosen(n, g, d / 2, 20, 10).members


def test_a_committee_of_a_hundred() -> None:
    """The example that was asked for: f = 37 and Q = 69, 32 secrets in a polynomial, however large n is. A smaller
    committee will do."""
    hundred = CommitteeSize(100, 37)
    assert (hundred.quorum, hundred.quorum - hundred.private) == (69, 32)
    for n in (1000, 10**6):
        assert most_marked(n, n // 10, 100, 40) <= 37
        assert hundred.quorum <= 100 - most_marked(n, n // 10, 100, 20)
        assert chosen(n, "0.1", "0.1").members < 100


@pytest.mark.parametrize(
    ("n", "g", "d"),
    [
        (10, "0.5", "0.3"),
        (2, "0", "0.5"),
        (128, "0.34", "0.34"),
        (129, "0.5", "0.3"),
        (300, "0", "0.6"),
    ],
)
def test_too_much_to_bear_is_infeasible(n: int, g: str, d: str) -> None:
    with pytest.raises(UsageError, match="infeasible"):
        chosen(n, g, d)


@pytest.mark.parametrize("n", [2, 3, 10, EVERYBODY])
def test_up_to_128_everybody_has_a_seat(n: int) -> None:
    assert chosen(n, "0.1", "0") == CommitteeSize(n, n // 10)
    assert sortition(proposal(n, dropout=0), people(n)) == frozenset(range(n))


def test_one_more_and_lots_are_drawn() -> None:
    assert chosen(EVERYBODY + 1, "0.05", "0.1").members < EVERYBODY


# Quorums.


@pytest.mark.parametrize("seats", range(2, 8))
def test_two_quorums_share_an_honest_seat_and_smaller_ones_need_not(seats: int) -> None:
    """Every pair of sets, whichever f seats are corrupt: the corrupt ones can be all that two sets share, or not."""
    for corrupt in range(seats):
        quorum = CommitteeSize(seats, corrupt).quorum
        assert least_common(seats, quorum) > corrupt
        assert least_common(seats, quorum - 1) <= corrupt


def least_common(seats: int, size: int) -> int:
    sets = [frozenset(some) for some in combinations(range(seats), min(size, seats))]
    return min(len(one & other) for one in sets for other in sets)


@given(members=st.integers(2, MAX_MEMBERS), corrupt=st.integers(0, MAX_MEMBERS))
def test_fewer_than_a_quorum_of_shares_leave_the_secrets_open(members: int, corrupt: int) -> None:
    committee = CommitteeSize(members, corrupt)
    assume(committee.quorum <= members)
    assert committee.private >= max(corrupt, 1)
    sharing = Sharing(100, 10, committee.quorum - committee.private, committee.private)
    assert (sharing.threshold, sharing.private) == (committee.quorum, committee.private)


# Lots.


def test_lots_follow_the_beacon_and_the_roster_and_nothing_else() -> None:
    """What the server may choose, such as the session, draws nobody else."""
    plan, roster = proposal(), people(150)
    seats = sortition(plan, roster)
    assert len(seats) == parameters_of(plan).members < 150
    assert seats <= set(range(150))
    assert sortition(proposal(session=b"another session."), roster) == seats
    assert sortition(plan.next_round(), roster) == seats
    assert sortition(proposal(encoding=Encoding.integers(99), min_contributors=9), roster) == seats
    assert sortition(replace(plan, beacon=b"other dice"), roster) != seats
    others = Roster.build({f"d{i:04}": (i + 2).to_bytes(32, "little") for i in range(150)})
    assert sortition(plan, others) != seats
    assert sortition(replace(plan, parameters=CommitteeSize(41, 15)), roster) > seats


def drawn(times: int) -> np.ndarray:
    """How often each of 150 has a seat under so many beacons."""
    plan, counts = proposal(), np.zeros(150, int)
    for i in range(times):
        counts[list(rules.sortition(replace(plan, beacon=i.to_bytes(4, "big")), people(150)))] += 1
    return counts


def test_lots_are_fair(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is drawn 53.3 of 200 times, give or take 6.25: 6.5 sigma both ways for 150 of them is below 1e-7 (and the
    beacons are fixed). The control: one bit decides, and ties go to whoever comes first in the roster."""
    share = parameters_of(proposal()).members / 150
    assert share == pytest.approx(40 / 150)
    mean, allowed = 200 * share, 6.5 * np.sqrt(200 * share * (1 - share))
    assert abs(drawn(200) - mean).max() < allowed
    switch_off(monkeypatch, rules, "sortition", "np.argsort(lots)", "np.argsort(lots & np.uint64(1), kind='stable')")
    assert abs(drawn(200) - mean).max() > allowed


def test_seats_of_a_part_of_the_roster_are_refused() -> None:
    plan = proposal(160, clients=150)
    with pytest.raises(PolicyError, match="a roster of its own"):
        sortition(plan, people(160))


# Plans.


@pytest.mark.parametrize(
    ("n", "parameters", "reason"),
    [
        (150, CommitteeSize(1, 0), "a committee of 1 is not between 2 and 150"),
        (150, CommitteeSize(151, 7), "a committee of 151 is not between"),
        (10, CommitteeSize(9, 0), "of 10 clients all are members"),
        (EVERYBODY, CommitteeSize(100, 37), "all are members"),
        (150, CommitteeSize(30, 30), "too many"),
        (150, CommitteeSize(30, 100), "too many"),
        (10, CommitteeSize(10, 10), "too many"),
        (10, "another protocol's", "needs a committee"),
    ],
)
def test_plans_that_make_no_sense(n: int, parameters: object, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        replace(proposal(n), parameters=parameters)


def test_more_than_1024_seats_are_refused() -> None:
    plan = proposal(1100)
    replace(plan, parameters=CommitteeSize(MAX_MEMBERS, 100))
    with pytest.raises(UsageError, match="a committee of 1025"):
        replace(plan, parameters=CommitteeSize(MAX_MEMBERS + 1, 100))


def test_a_vector_that_fits_no_ring_is_refused_when_the_plan_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that an encoding can ask for is that wide today: the widest ring has 438 bits."""
    monkeypatch.setattr(parameters_module, "candidates", lambda *arguments, **options: iter(()))
    odd = Encoding.integers(31)  # asked for nowhere else: answers are remembered
    with pytest.raises(UsageError, match="no ring has room for sums of 20 bits"):
        proposal(10, odd)


@pytest.mark.parametrize(
    "plan", [proposal(), proposal(10, dropout=0), proposal(beacon=b"")], ids=["lot", "all", "none"]
)
def test_a_plan_survives_the_wire(plan: RoundPlan) -> None:
    assert RoundPlan.decode(plan.encode()) == plan


# Policies.


def checks(plan: RoundPlan, **changes: object) -> Callable[[], None]:
    settings: dict[str, object] = {
        "min_contributors": 3, "protocols": {"oneshot"}, "beacon": BEACON, "corrupt": "0.1",
    } | changes  # fmt: skip

    def check() -> None:
        policy = Policy(**settings)  # type: ignore[arg-type]
        policy.check(plan, people(plan.clients))
        rules.check_policy(plan, policy)

    return check


def test_a_client_accepts_what_its_own_calculation_gives() -> None:
    checks(proposal())()
    checks(proposal(), corrupt="0.01")()
    checks(proposal(10, beacon=b""), beacon=b"")()


@pytest.mark.parametrize(
    ("plan", "policy", "reason"),
    [
        (proposal(), {"corrupt": "0.2"}, "bears 15 corrupt members, not the 26 feared"),
        (proposal(400, dropout="0.05"), {"security": 60}, "bears 23 corrupt members, not the 27 feared"),
        (proposal(400, security=20), {}, "bears 20 corrupt members, not the 25 feared"),
        (proposal(10, corrupt=0), {}, "bears 0 corrupt members, not the 1 feared"),
        (proposal(), {"beacon": b""}, "knows no beacon"),
        (proposal(1000, dropout="0.05"), {}, "contributors are enough for this plan, and 100 are feared corrupt"),
        (proposal(beacon=b"the server's dice"), {}, "another beacon"),
        (proposal(beacon=b""), {}, "another beacon"),
        (proposal(), {"protocols": {"secagg"}}, "not among those allowed"),
        (proposal(), {"min_contributors": 4}, "below the 4 demanded"),
    ],
)
def test_a_client_refuses(plan: RoundPlan, policy: dict[str, object], reason: str) -> None:
    with pytest.raises(PolicyError, match=reason):
        checks(plan, **policy)()


@pytest.mark.parametrize(
    ("plan", "policy", "check", "condition"),
    [
        (proposal(min_contributors=40), {"corrupt": "0.2"}, "check_policy", "committee.corrupt < bad"),
        (proposal(), {"beacon": b""}, "check_policy", "not policy.beacon"),
        (
            proposal(1000, dropout="0.05"),
            {},
            "check_contributors",
            "(least := least_contributors(plan)) < corrupt + 2",
        ),
    ],
)
def test_without_the_check_it_accepts(
    plan: RoundPlan, policy: dict[str, object], check: str, condition: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch_off(monkeypatch, rules, check, condition)
    checks(plan, **policy)()


# Rings, secrets and shares.


def test_the_defaults_of_a_thousand_clients() -> None:
    """N = 4096, three primes of 30 bits, 3 values of 26 bits in a coefficient; shares of less than 32 KB a client."""
    plan = proposal(1000, Encoding.integers(1_000_000, bits=16), min_contributors=500)
    chosen_ring, sharing = lattice_of(plan), sharing_of(plan)
    layout = chosen_ring.layout
    assert (layout.ring.degree, layout.values, layout.width, plan.ring_bits) == (4096, 3, 26, 26)
    assert [q.bit_length() for q in layout.ring.primes] == [30, 30, 30]
    assert 1.15 < chosen_ring.expansion < 1.2
    assert parameters_of(plan) == CommitteeSize(75, 32)
    assert (sharing.packing, sharing.private, sharing.threshold, sharing.digits) == (22, 32, 54, 2)
    assert 75 * sharing.share_bytes < 32_000


@given(
    n=st.integers(2, 120), length=st.integers(1, 10**6), bits=st.integers(2, 30), corrupt=st.sampled_from(["0", "0.1"])
)
def test_a_ring_costs_at_most_a_tenth_more_than_the_best(n: int, length: int, bits: int, corrupt: str) -> None:
    """Vector and shares together; with a small vector the shares decide. No smaller N would do."""
    plan = proposal(n, Encoding.integers(length, bits), corrupt=corrupt, dropout=0)
    layout, sizes = lattice_of(plan).layout, dict[int, int]()
    quorum, private = parameters_of(plan).quorum, parameters_of(plan).private
    for one in candidates(plan.encoding, n):
        degree = one.layout.ring.degree
        bound = tail(degree, n, n * VARIANCE)
        elements = -(-degree // (reference.digits_of(bound) * (quorum - private)))
        sizes[degree] = one.layout.ring.packed_size(one.layout.coefficients(length)) + 4 * elements * n
    assert sizes[layout.ring.degree] <= 1.1 * min(sizes.values())
    assert all(size > 1.1 * min(sizes.values()) for degree, size in sizes.items() if degree < layout.ring.degree)


@given(honest=st.integers(2, 10**7))
def test_hints_leave_errors_of_at_least_3_2(honest: int) -> None:
    """1/sigma0^2 = 2 (1/sigma^2 + 1/((h - 1) sigma^2)), Kim et al. 2023; the standard's table is for 3.2. With one
    honest client nothing is left, as its secret is the sum's: at least two contributors are honest (below)."""
    remaining = 1 / (2 * (1 / VARIANCE + 1 / ((honest - 1) * VARIANCE)))
    assert remaining >= Fraction(32, 10) ** 2
    assert (remaining == Fraction(32, 10) ** 2) == (honest == 2)


@pytest.mark.parametrize(("corrupt", "demanded", "least"), [("0", 2, 2), ("0.1", 2, 3), ("0.3", 2, 5), ("0.3", 8, 8)])
def test_contributors_are_so_many_that_two_are_honest(corrupt: str, demanded: int, least: int) -> None:
    plan = proposal(10, min_contributors=demanded, corrupt=corrupt, dropout=0)
    assert least_contributors(plan) == least
    assert least - int(Fraction(corrupt) * 10) >= 2


@pytest.mark.parametrize(("n", "length"), [(2, 1), (10, 1000), (150, 10), (1000, 1_000_000), (20_000, 100)])
def test_sums_of_secrets_stay_below_the_bound(n: int, length: int) -> None:
    """The bound T again: 2 N exp(-T^2 / 2nV) + n N 2^-128 <= 2^-40, and T - 2 would be too small."""
    sharing = sharing_of(proposal(n, Encoding.integers(length)))
    degree = lattice_of(proposal(n, Encoding.integers(length))).layout.ring.degree
    assert sharing.length == degree

    def failure_log2(bound: int) -> float:
        e = np.exp(1.0)
        return float(log2(2 * degree) - bound**2 / (2 * n * float(VARIANCE)) * log2(e))

    assert failure_log2(sharing.bound) < -40 <= failure_log2(sharing.bound - 2)
    assert n * degree * 2.0**-128 < 2.0**-60
    assert sharing.bound * 2 + 1 <= 2**30


def test_sums_of_real_secrets_come_out_of_their_shares() -> None:
    """150 secrets and all members; the largest sum is where 4096 Gaussians have their maximum, half of the bound."""
    sharing = sharing_of(proposal(encoding=Encoding.integers(1_000_000)))
    secrets = [discrete_gaussian(VARIANCE, sharing.length, i.to_bytes(32, "big")) for i in range(150)]
    total = np.sum(secrets, axis=0)
    assert sharing.bound / 3 < abs(total).max() < sharing.bound
    dealt = [sharing.split(secret, 40, lambda count: bytes(count)) for secret in secrets[:20]]
    shares = np.stack([sharing.total([one[i] for one in dealt]) for i in range(40)])
    holders = list(range(40, 40 - sharing.threshold, -1))
    found = sharing.rebuild(holders, shares[[i - 1 for i in holders]])
    assert found.tolist() == np.sum(secrets[:20], axis=0).tolist()


def test_public_polynomials_are_a_hash_of_the_plan() -> None:
    plan = proposal(encoding=Encoding.integers(20_000))
    public = public_of(plan)
    assert public.blocks == lattice_of(plan).layout.blocks(20_000) > 1
    assert (public_of(RoundPlan.decode(plan.encode())).words == public.words).all()
    for other in (plan.next_round(), replace(plan, beacon=b"x"), replace(plan, min_contributors=4)):
        assert (public_of(other).words == public.words).mean() < 0.01


# What binds a round to its members.


def members(count: int) -> list[Member]:
    return [Member(i, bytes([i + 1]) * 32, bytes([i + 1]) * 64) for i in range(count)]


def test_keys_and_digests_differ_for_every_plan_committee_and_pair() -> None:
    plan, agreed = proposal(), b"k" * 32
    swapped = [*members(2), replace(members(3)[2], key=b"x" * 32)]
    committees = [(plan, members(3)), (plan, members(2)), (plan, swapped), (plan.next_round(), members(3))]
    scenes = [Committee(one, who) for one, who in committees]
    keys = {scene.box_key(agreed, u, v) for scene in scenes for u in range(4) for v in range(4)}
    assert len(keys) == 64
    assert list(scenes[0].members) == [0, 1, 2]
    one = Header(1, bytes(32), bytes(32), bytes(32), bytes(64))
    uploads = [
        [one],
        [one, replace(one, client=2)],
        [replace(one, vector_hash=b"v" * 32)],
        [replace(one, key=b"k" * 32)],
    ]
    contributed = [scene.contributed(headers) for scene in scenes for headers in uploads]
    assert len(set(contributed)) == 16
    digests = {scenes[0].agreed(what, 3, bitmap).digest for what in contributed for bitmap in (b"\x07", b"\x07\x00")}
    assert len(digests) == 32
