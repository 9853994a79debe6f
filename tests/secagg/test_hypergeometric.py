"""Tails: fast ones beside integers, where floating point cannot tell, and why degrees may be skipped."""

from __future__ import annotations

from fractions import Fraction
from math import comb, log2

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from secagg import hypergeometric
from secagg.hypergeometric import (
    EXACT_UP_TO,
    least_marked,
    log2_chance,
    log2_error,
    most_marked,
    most_marked_between,
)
from tests.reference import tails as reference

Case = tuple[int, int, int, int, int]


@st.composite
def cases(draw: st.DrawFn, most: int = 400) -> Case:
    """(population, marked, draws, bits, times); the limit is below 1."""
    population = draw(st.integers(2, most))
    marked, draws = draw(st.integers(0, population)), draw(st.integers(1, population))
    return population, marked, draws, draw(st.integers(1, 600)), draw(st.sampled_from([1, 3, population]))


@given(cases())
@example((2, 1, 1, 1, 1))  # chances of exactly the limit
@example((200, 100, 101, 1, 1))
@example((400, 300, 390, 1, 1))
@example((400, 10, 1, 600, 400))
def test_tails_are_those_in_integers(case: Case) -> None:
    assert most_marked(*case) == reference.most_marked(*case)
    assert least_marked(*case) == reference.least_marked(*case)
    least, most = most_marked_between(*case)
    assert least <= most_marked(*case) <= most <= least + 1


LARGE = [(100_000, 30_000, 900, 121, 100_000), (10**7, 10**6, 2000, 41, 10**7), (10**6, 5 * 10**5, 1501, 1, 1)]


@pytest.mark.parametrize("case", LARGE)
def test_tails_of_large_cohorts(case: Case) -> None:
    assert most_marked(*case) == reference.most_marked(*case)
    assert least_marked(*case) == reference.least_marked(*case)


@pytest.mark.parametrize("case", [(100, 40, 30, 12, 1), (1000, 100, 100, 40, 1000)])
def test_where_floating_point_cannot_tell_integers_decide(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if chances were known to within 2^6: with the decision switched off the answer is another one."""
    exact = reference.most_marked(*case)
    monkeypatch.setattr(hypergeometric, "log2_error", lambda population: 6.0)
    least, most = most_marked_between(*case)
    assert least < exact < most
    assert most_marked(*case) == exact
    monkeypatch.setattr(hypergeometric, "EXACT_UP_TO", 1)
    assert most_marked(*case) == most, "with too many draws for integers it is the safe side"
    monkeypatch.setattr(hypergeometric, "EXACT_UP_TO", EXACT_UP_TO)
    monkeypatch.setattr(hypergeometric, "_rare", lambda *_: True)
    assert most_marked(*case) == least


@given(st.data())
def test_a_chance_is_right_to_its_error(data: st.DataObject) -> None:
    """Also of the largest cohorts; the integers' logarithms are right to 2^-52 of themselves."""
    population = data.draw(st.one_of(st.integers(2, 600), st.integers(2, 10**7)))
    marked = data.draw(st.integers(0, population))
    draws = data.draw(st.integers(0, min(population, 300)))
    count = data.draw(st.integers(max(0, draws - (population - marked)), min(marked, draws)))
    ways = comb(marked, count) * comb(population - marked, draws - count)
    exact = log2(ways) - log2(comb(population, draws))
    assert abs(log2_chance(population, marked, draws, count) - exact) <= log2_error(population)


@given(cases(most=120))
def test_one_more_draw_marks_one_more_at_most(case: Case) -> None:
    """Why a degree that lacks g neighbours rules out the next g - 1: neither tail can move by more than one a draw."""
    population, marked, draws, bits, times = case
    if draws < population:
        now = reference.most_marked(population, marked, draws, bits, times)
        assert reference.most_marked(population, marked, draws + 1, bits, times) - now in (0, 1)


def test_beyond_the_draws_for_integers_nothing_is_slow_or_unsafe() -> None:
    """Half of ten million marked, of five million and one drawn: more than half has chance 1/2, the limit itself."""
    case = (10**7, 5 * 10**6, 5 * 10**6 + 1, 1, 1)
    assert most_marked_between(*case) == (2_500_000, 2_500_001)
    assert most_marked(*case) == 2_500_001


def test_the_limit_is_met_by_the_count_and_by_none_before() -> None:
    """In fractions, for 36 of 1000."""
    t = most_marked(1000, 100, 36, 30)
    tails = [sum(Fraction(comb(100, i) * comb(900, 36 - i), comb(1000, 36)) for i in range(s, 37)) for s in (t + 1, t)]
    assert tails[0] <= Fraction(1, 2**30) < tails[1]
