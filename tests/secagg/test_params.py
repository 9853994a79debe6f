"""The (k, t) rule: the published check points, the slow reference in exact fractions, and every refusal."""

from dataclasses import replace
from fractions import Fraction
from math import comb, floor

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from secagg.assumptions import Adversary, fraction
from secagg.crypto.graph import Graph, GraphParameters
from secagg.errors import PolicyError, UsageError
from secagg.hypergeometric import EXACT_UP_TO, most_marked_between
from secagg.params import (
    GRINDING_BITS,
    GRINDING_FLOOR,
    _connected,
    check_private,
    choose,
    choose_for_round,
    choose_witnesses,
    complete,
    complete_threshold,
    corrupt_neighbours,
    least_quorum,
    least_threshold,
    surviving_neighbours,
)
from tests.reference import parameters as reference
from tests.reference import tails

A, C = Adversary.ACTIVE, Adversary.CURIOUS
percents = st.integers(0, 40).map(lambda percent: Fraction(percent, 100))


@pytest.mark.parametrize(
    ("n", "each", "adversary", "security", "expected"),
    [
        (1000, "0.05", C, 40, (30, 17)),
        (1000, "0.1", A, 40, (96, 67)),
        (100_000, "0.05", C, 40, (36, 21)),
        (1000, "0.1", A, 40 + GRINDING_BITS, (140, 104)),
        pytest.param(10_000, "0.1", A, 40 + GRINDING_BITS, (190, 141), marks=pytest.mark.long),  # slow in fractions
        (1000, "0.05", A, 40 + GRINDING_BITS, (76, 58)),
    ],
)
def test_check_points(n: int, each: str, adversary: Adversary, security: int, expected: tuple[int, int]) -> None:
    chosen = choose(n, fraction(each), fraction(each), adversary, security, 20)
    assert chosen == GraphParameters(Graph.RING, *expected)
    k, t = expected
    arguments = (fraction(each), fraction(each))
    assert reference.ring_fits(n, *arguments, k, adversary is A, security, 20) == t
    assert reference.ring_fits(n, *arguments, k - 2, adversary is A, security, 20) is None


@pytest.mark.parametrize(
    ("n", "each", "adversary", "expected"),
    [
        (1000, "0.1", A, (140, 104, 120, 91)),
        (10_000, "0.1", A, (190, 141, 144, 110)),
        (1000, "0.05", A, (76, 58, 64, 50)),
        (1000, "0.05", C, (30, 18, 0, 0)),  # 17 for 1000, one more for the 950 that are sure to come
    ],
)
def test_what_a_round_uses(n: int, each: str, adversary: Adversary, expected: tuple[int, ...]) -> None:
    """And a client accepts it for the planned cohort, and for each smaller one down to those that are sure to come."""
    share = fraction(each)
    chosen = choose_for_round(n, share, share, adversary)
    assert chosen == GraphParameters(Graph.RING, *expected)
    bad, gone = floor(share * n), floor(share * n)
    grinding = (GRINDING_BITS, GRINDING_FLOOR) if adversary is A else (0, 0)
    check_private(n, bad, bad + gone, chosen, adversary, 40 + grinding[0])
    for absent in range(0, gone + 1, max(gone // 10, 1)):
        check_private(n - absent, bad, bad + gone - absent, chosen, adversary, 40 + grinding[1])


@settings(max_examples=30)
@given(n=st.integers(4, 100), corrupt=percents, dropout=percents, active=st.booleans(), security=st.integers(1, 40))
def test_what_a_round_uses_is_the_references(
    n: int, corrupt: Fraction, dropout: Fraction, active: bool, security: int
) -> None:
    assume(corrupt + dropout * (2 if active else 1) <= Fraction(9, 10))
    expected = reference.choose_for_round(n, corrupt, dropout, active, security, 10)
    if expected is not None:
        chosen = choose_for_round(n, corrupt, dropout, A if active else C, security, 10)
        assert (chosen.graph, chosen.degree, chosen.threshold) == (Graph.RING, *expected)
        bad, silent = floor(corrupt * n), floor(dropout * n)
        if active:
            assert chosen.quorum >= reference.least_quorum(n, bad, chosen.witnesses, security + 80)
            assert chosen.quorum >= reference.least_quorum(n - silent, bad, chosen.witnesses, security + 64)
            if chosen.witnesses < n:
                assert reference.witnesses_fit(n, bad, silent, chosen.witnesses, chosen.quorum, 10)
        else:
            assert (chosen.witnesses, chosen.quorum) == (0, 0)
    elif max(floor((n + corrupt * n) / 2) + 1, 2) <= n - floor(dropout * n):
        assert choose_for_round(n, corrupt, dropout, A if active else C, security, 10).graph is Graph.COMPLETE
    else:
        with pytest.raises(UsageError, match="infeasible"):
            choose_for_round(n, corrupt, dropout, A if active else C, security, 10)


@given(n=st.integers(3, 200), data=st.data(), active=st.booleans())
def test_a_ring_that_closes_on_itself_is_judged_by_its_neighbours(n: int, data: st.DataObject, active: bool) -> None:
    """With fewer clients than the degree everybody is a neighbour, and all the corrupt are among them."""
    corrupt = data.draw(st.integers(0, n - 2))
    t = least_threshold(n, corrupt, n - 1, A if active else C, 40)
    assert t > corrupt
    assert not active or 2 * t > n - 1 + corrupt
    q = (n + corrupt) // 2 + 1
    check_private(n, corrupt, corrupt, GraphParameters(Graph.RING, n + 3, t, n, q), A if active else C, 40)
    with pytest.raises(PolicyError, match="threshold"):
        check_private(n, corrupt, corrupt, GraphParameters(Graph.RING, n + 3, t - 1, n, q), A if active else C, 40)


@settings(max_examples=30)
@given(
    n=st.integers(4, 120),
    corrupt=percents,
    dropout=percents,
    active=st.booleans(),
    security=st.integers(1, 60),
    correctness=st.integers(1, 40),
)
def test_the_choice_is_the_references(
    n: int, corrupt: Fraction, dropout: Fraction, active: bool, security: int, correctness: int
) -> None:
    adversary = A if active else C
    if corrupt + dropout * (2 if active else 1) > Fraction(9, 10):
        with pytest.raises(UsageError, match="infeasible"):
            choose(n, corrupt, dropout, adversary, security, correctness)
        return
    expected = reference.choose(n, corrupt, dropout, active, security, correctness)
    if expected is not None:
        assert choose(n, corrupt, dropout, adversary, security, correctness) == GraphParameters(Graph.RING, *expected)
        return
    threshold = max(floor((n + corrupt * n) / 2) + 1, 2)
    if threshold <= n - floor(dropout * n):
        chosen = choose(n, corrupt, dropout, adversary, security, correctness)
        assert chosen == GraphParameters(Graph.COMPLETE, n - 1, threshold)
    else:
        with pytest.raises(UsageError, match="infeasible"):
            choose(n, corrupt, dropout, adversary, security, correctness)


@pytest.mark.parametrize("size", [300, 1000])
def test_small_tolerances_give_a_ring_the_reference_agrees_with(size: int) -> None:
    for g, d in ((Fraction(0), Fraction(0)), (Fraction(1, 100), Fraction(1, 100)), (Fraction(0), Fraction(1, 10))):
        for active in (False, True):
            chosen = choose(size, g, d, A if active else C, 10, 10)
            assert chosen.graph is Graph.RING
            assert (chosen.degree, chosen.threshold) == reference.choose(size, g, d, active, 10, 10)


def in_integers(
    n: int, corrupt: Fraction, dropout: Fraction, adversary: Adversary, security: int, correctness: int
) -> list[object]:
    """(degree, threshold) of the formula and of a round, every degree tried."""
    grinding = (GRINDING_BITS, GRINDING_FLOOR) if adversary is A else (0, 0)
    for_round = security + grinding[0], security + grinding[1], correctness
    bits, least = (security, security, correctness), n - floor(dropout * n)
    arguments = n, corrupt, dropout, adversary is A
    return [tails.choose(*arguments, bits, n), tails.choose(*arguments, for_round, least)]


def compare_with_integers(count: int, most: float, seed: int) -> None:
    """Cohorts, loads and bits from everywhere, also where only the complete graph is left."""
    numbers = np.random.default_rng(seed)
    rings = 0
    for _ in range(count):
        n, adversary = int(2 ** numbers.uniform(2, most)), (A, C)[numbers.integers(2)]
        corrupt = Fraction(int(numbers.integers(900)), 1000)
        share = (Fraction(9, 10) - corrupt) / (2 if adversary is A else 1)
        dropout = Fraction(int(numbers.integers(floor(1000 * share) + 1)), 1000)
        security, correctness = (int(numbers.choice([1, 5, 20, 40, 80, 512])) for _ in range(2))
        arguments = n, corrupt, dropout, adversary, security, correctness
        for function, expected in zip((choose, choose_for_round), in_integers(*arguments), strict=True):
            if expected is None:
                try:
                    assert function(*arguments).graph is Graph.COMPLETE
                except UsageError:  # not even the complete graph
                    assert max((n + floor(corrupt * n)) // 2 + 1, 2) > n - floor(dropout * n)
            else:
                rings += 1
                chosen = function(*arguments)
                assert (chosen.graph, chosen.degree, chosen.threshold) == (Graph.RING, *expected)
    assert rings > count // 4


def test_no_smaller_degree_would_do() -> None:
    compare_with_integers(60, 7.5, seed=1)


def test_nor_where_floating_point_cannot_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if chances were known to within a factor of two: integers decide far more often."""
    for module in ("params", "hypergeometric"):
        monkeypatch.setattr(f"secagg.{module}.log2_error", lambda population: 0.9)
    for cached in (choose, choose_witnesses, least_threshold, least_quorum):
        cached.cache_clear()
    compare_with_integers(40, 7.5, seed=1)
    for n, degree, gone, bits in (
        (10, 3, 3, 2),
        (100, 10, 30, 5),
        (100, 10, 30, 6),
        (100, 10, 30, 7),
        (100, 10, 30, 8),
    ):
        assert _connected(n, degree, gone, bits + 1) == reference.connected(n, degree, gone, bits)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2, 6))
def test_no_smaller_degree_would_do_in_larger_cohorts(seed: int) -> None:
    compare_with_integers(150, 11, seed)


LARGE = [
    (100_000, "0.3", "0.3", A, 40, 20),
    (10**7, "0.3", "0.3", A, 40, 20),
    (10**7, "0.3", "0.3", A, 512, 512),
    (10**7, "0.2", "0.345", A, 40, 512),  # what is missing grows with the square root of the degree only
    (10**7, "0.45", "0.45", C, 512, 512),
    (10**6, "0.705", "0.093", A, 40, 20),
]


@pytest.mark.thinned(6)
@pytest.mark.parametrize("arguments", LARGE)
def test_the_largest_choices_take_few_tails(
    arguments: tuple[int, str, str, Adversary, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes a tenth of a millisecond, or one of the longest a few; and a client accepts what is chosen."""
    taken = list[int]()

    def counted(*case: int) -> tuple[int, int]:
        taken.append(case[2])
        return most_marked_between(*case)

    monkeypatch.setattr("secagg.params.most_marked_between", counted)
    n, corrupt, dropout, adversary, security, correctness = arguments
    chosen = choose_for_round(n, fraction(corrupt), fraction(dropout), adversary, security, correctness)
    assert 30 < len(taken) < 3000
    bad, gone = floor(fraction(corrupt) * n), floor(fraction(dropout) * n)
    grinding = (GRINDING_BITS, GRINDING_FLOOR) if adversary is A else (0, 0)
    check_private(n, bad, bad + gone, chosen, adversary, security + grinding[0])
    check_private(n - gone, bad, bad, chosen, adversary, security + grinding[1])


def test_nine_thousand_neighbours_are_found() -> None:
    """What took more than half an hour when every degree was tried in integers."""
    arguments = 100_000, Fraction(3, 10), Fraction(3, 10)
    assert choose(*arguments, A) == GraphParameters(Graph.RING, 9388, 6286)


@pytest.mark.long
def test_nine_thousand_neighbours_are_the_fewest() -> None:
    """In integers, of the degree and of those just before it, where the threshold is nearly small enough."""
    arguments = 100_000, Fraction(3, 10), Fraction(3, 10)
    fits = {k: tails.fitting(*arguments, k, True, (40, 40, 20), 100_000) for k in range(9380, 9390, 2)}
    assert fits == dict.fromkeys(range(9380, 9388, 2)) | {9388: 6286}


def test_beyond_the_degrees_that_are_all_tried_a_choice_is_safe() -> None:
    chosen = choose_for_round(100_000, Fraction(3, 10), Fraction(3, 10), A)
    assert chosen == GraphParameters(Graph.RING, 72_520, 50_000, 72_392, 50_001)
    assert chosen.degree > EXACT_UP_TO
    check_private(100_000, 30_000, 60_000, chosen, A, 40 + GRINDING_BITS)
    for weaker in (replace(chosen, threshold=chosen.threshold - 600), replace(chosen, quorum=chosen.quorum - 1)):
        with pytest.raises(PolicyError):
            check_private(70_000, 30_000, 30_000, weaker, A, 40 + GRINDING_FLOOR)


@given(n=st.integers(2, 200), data=st.data(), bits=st.integers(0, 80))
def test_the_tails_are_the_hypergeometric_ones(n: int, data: st.DataObject, bits: int) -> None:
    k, marked = data.draw(st.integers(1, n - 1)), data.draw(st.integers(0, n))
    limit = Fraction(1, n * 2**bits)
    t1 = corrupt_neighbours(n, marked, k, bits)
    assert reference.above(n, marked, k, t1) <= limit
    assert t1 == 0 or reference.above(n, marked, k, t1 - 1) > limit
    t2 = surviving_neighbours(n, marked, k, bits)
    assert reference.below(n, marked, k, t2) <= limit
    assert t2 == min(k, marked) or reference.below(n, marked, k, t2 + 1) > limit


def test_a_tail_of_exactly_the_limit_is_small_enough() -> None:
    """One of two clients marked, one drawn: each outcome has chance 1/2, which is 2^-0 / n."""
    assert corrupt_neighbours(2, 1, 1, 0) == 0
    assert surviving_neighbours(2, 1, 1, 0) == 1


@pytest.mark.parametrize(("n", "g", "adversary"), [(1000, "0.05", C), (1000, "0.1", A), (2000, "0.2", A)])
def test_a_client_accepts_the_threshold_and_refuses_one_less(n: int, g: str, adversary: Adversary) -> None:
    corrupt, dropout = fraction(g), fraction("0.05")
    bad, gone = floor(corrupt * n), floor(corrupt * n) + floor(dropout * n)
    chosen = replace(choose(n, corrupt, dropout, adversary, 40, 20), witnesses=n, quorum=(n + bad) // 2 + 1)
    check_private(n, bad, gone, chosen, adversary, 40)
    lower = replace(chosen, threshold=chosen.threshold - 1)
    with pytest.raises(PolicyError, match=f"at least {chosen.threshold} is needed"):
        check_private(n, bad, gone, lower, adversary, 40)


@given(n=st.integers(2, 300), data=st.data())
def test_the_complete_graph_needs_more_than_half_of_the_honest_and_all_the_corrupt(n: int, data: st.DataObject) -> None:
    corrupt = data.draw(st.integers(0, n))
    t = complete_threshold(n, corrupt)
    assert t == max(floor(Fraction(n + corrupt, 2)) + 1, 2)
    assert 2 * t > n + corrupt, "two quorums of t would share an honest client"
    check_private(n, corrupt, corrupt, GraphParameters(Graph.COMPLETE, n - 1, t), A, 40)
    with pytest.raises(PolicyError):
        check_private(n, corrupt, corrupt, GraphParameters(Graph.COMPLETE, n - 1, t - 1), A, 40)


@given(n=st.integers(2, 200), corrupt=percents, dropout=percents)
def test_complete_refuses_exactly_what_cannot_finish(n: int, corrupt: Fraction, dropout: Fraction) -> None:
    least, most = max(floor((n + corrupt * n) / 2) + 1, 2), n - floor(dropout * n)
    if least <= most:
        assert complete(n, corrupt, dropout) == GraphParameters(Graph.COMPLETE, n - 1, least)
    else:
        with pytest.raises(UsageError, match=f"threshold {least}, but only {most}"):
            complete(n, corrupt, dropout)


def test_a_ring_that_may_fall_apart_is_refused() -> None:
    """Four neighbours, 100 of 1000 may vanish: rule 1 is broken whatever the threshold."""
    with pytest.raises(PolicyError, match="do not keep 1000 clients connected"):
        check_private(1000, 50, 100, GraphParameters(Graph.RING, 4, 4), C, 40)
    assert not reference.connected(1000, 4, 100, 40)
    assert reference.connected(1000, 30, 100, 40)


def test_against_an_active_server_two_quorums_share_an_honest_client() -> None:
    """With at most c corrupt among k neighbours, quorums of t that share only corrupt ones need 2t <= k + c."""
    for n, corrupt, k in ((1000, 100, 96), (1000, 50, 60), (5000, 1000, 200)):
        t1 = corrupt_neighbours(n, corrupt, k, 41)
        assert 2 * least_threshold(n, corrupt, k, A, 40) > k + t1
        assert least_threshold(n, corrupt, k, C, 40) == t1 + 1


@settings(max_examples=30)
@given(n=st.integers(4, 120), data=st.data(), security=st.integers(1, 60))
def test_two_quorums_of_witnesses_share_an_honest_one(n: int, data: st.DataObject, security: int) -> None:
    """Each honest witness signs once, the corrupt ones twice: two sets need 2q <= w + c signatures."""
    corrupt, w = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    q = least_quorum(n, corrupt, w, security)
    assert q == reference.least_quorum(n, corrupt, w, security)
    assert reference.above(n, corrupt, w, 2 * q - w - 1) <= Fraction(1, 2**security)


@pytest.mark.parametrize(("n", "corrupt", "silent"), [(200, 10, 20), (1000, 50, 100), (10_000, 1000, 1000)])
def test_enough_witnesses_stay_and_a_client_accepts_no_quorum_below(n: int, corrupt: int, silent: int) -> None:
    w, q = choose_witnesses(n, corrupt, silent, n - silent, 120, 104, 20)
    assert reference.witnesses_fit(n, corrupt, silent, w, q, 20)
    chosen = replace(choose(n, Fraction(corrupt, n), Fraction(silent, n), A, 120), witnesses=w, quorum=q)
    check_private(n, corrupt, corrupt + silent, chosen, A, 120)
    weaker = [replace(chosen, quorum=least_quorum(n, corrupt, w, 120) - 1), replace(chosen, witnesses=0, quorum=0)]
    for one in weaker:
        with pytest.raises(PolicyError, match="could sign two sets of survivors"):
            check_private(n, corrupt, corrupt + silent, one, A, 120)
        check_private(n, corrupt, corrupt + silent, one, C, 120)  # a curious server tells everybody the same


@pytest.mark.parametrize(
    ("value", "count", "of"), [(0.29, 29, 100), ("0.29", 29, 100), (0.57, 57, 100), (0.1, 3, 30), ("1/3", 33, 99)]
)
def test_a_fraction_is_what_was_written(value: str | float, count: int, of: int) -> None:
    """floor(0.29 * 100) is 28 in doubles: one corrupt client would go uncounted."""
    assert floor(0.29 * 100) == 28
    assert floor(fraction(value) * of) == count


@pytest.mark.parametrize(
    "value", ["", "a", "1/0", "nan", "inf", "-0.1", "1", "1.5", "0.1.1", float("nan"), float("inf"), -0.5, 1, 2.0]
)
def test_what_is_not_a_fraction_of_clients_is_refused(value: str | float) -> None:
    with pytest.raises(UsageError, match="fraction") as caught:
        fraction(value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((1, "0", "0", A, 40, 20), "clients must be between 2"),
        ((0, "0", "0", A, 40, 20), "clients must be between 2"),
        ((10_000_001, "0", "0", A, 40, 20), "clients must be between 2"),
        ((1000, "0.1", "0.1", A, 0, 20), "security and correctness"),
        ((1000, "0.1", "0.1", A, 40, 0), "security and correctness"),
        ((1000, "0.1", "0.1", A, 513, 20), "security and correctness"),
        ((1000, "0.5", "0.41", C, 40, 20), r"corrupt \+ dropout = 0.91"),
        ((1000, "0.1", "0.41", A, 40, 20), r"corrupt \+ 2 dropout = 0.92"),
        ((10, "0.5", "0.3", C, 40, 20), "10 clients need threshold 8, but only 7"),
    ],
)  # fmt: skip
def test_infeasible_inputs_are_refused_in_one_line(
    arguments: tuple[int, str, str, Adversary, int, int], reason: str
) -> None:
    n, corrupt, dropout, *more = arguments
    with pytest.raises(UsageError, match=reason) as caught:
        choose(n, Fraction(corrupt), Fraction(dropout), *more)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("corrupt", "dropout", "adversary"),
    [("0.5", "0.4", C), ("0.3", "0.3", A), pytest.param("0.3", "0.6", C, marks=pytest.mark.long)],
)
def test_exactly_nine_tenths_are_not_too_much(corrupt: str, dropout: str, adversary: Adversary) -> None:
    g, d = Fraction(corrupt), Fraction(dropout)
    expected = reference.choose(120, g, d, adversary is A, 1, 1)
    assert expected is not None
    assert choose(120, g, d, adversary, 1, 1) == GraphParameters(Graph.RING, *expected)


@pytest.mark.parametrize("name", ["", "Active", "honest", 1, None])
def test_an_unknown_adversary_is_refused(name: object) -> None:
    with pytest.raises(UsageError, match="curious or active"):
        Adversary(name)


@pytest.mark.parametrize(("n", "corrupt"), [(1000, "0.05"), (1000, "0.1"), (10_000, "0.1"), (100_000, "0.05")])
def test_cutting_the_ring_at_two_windows_leaves_seventy_grinding_bits(n: int, corrupt: str) -> None:
    """A server that sees the graph first needs two windows of k/2 places, all dead or corrupt, between which the
    survivors fall apart; t neighbours must sign, so t - k/2 in each window are corrupt. Over all pairs of windows."""
    chosen = choose_for_round(n, Fraction(corrupt), Fraction("0.1"), Adversary.ACTIVE)
    bad, window = int(Fraction(corrupt) * n), chosen.degree // 2
    needed = range(chosen.threshold - window, min(window, bad) + 1)
    ways = sum(
        comb(bad, a) * comb(n - bad, window - a) * comb(bad - a, b) * comb(n - window - bad + a, window - b)
        for a in needed
        for b in needed
    )
    assert ways * n * n << (41 + 70) <= 2 * comb(n, window) * comb(n - window, window)
