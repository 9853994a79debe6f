"""Cohorts: of the right size, drawn evenly, and the same for whoever draws them again.

Statistical tests: fixed seeds; by Hoeffding, a frequency over N draws is further than t/N from its probability with
probability at most 2 exp(-2 t^2 / N). With N = 4000 and t = 240 that is below 2e-12, for the 57 frequencies that are
looked at together below 1.2e-10.
"""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest

from recsys.participation import Draw, Participation
from secagg.errors import UsageError
from tests.controls import switch_off

NAMES = [f"client-{i}" for i in range(10)]
SEED = bytes(range(32))
N, T = 4000, 240


def cohorts(participation: Participation, count: int = N) -> list[tuple[str, ...]]:
    return [participation.cohort(NAMES, SEED, number) for number in range(count)]


def off(drawn: list[tuple[str, ...]], one: float, two: float) -> list[tuple[str, ...]]:
    """Clients and pairs that are drawn more or less often than with these probabilities."""
    counted = Counter(subset for cohort in drawn for size in (1, 2) for subset in combinations(cohort, size))
    subsets = [subset for size in (1, 2) for subset in combinations(NAMES, size)]
    return [subset for subset in subsets if abs(counted[subset] - N * (one, two)[len(subset) - 1]) > T]


def test_everyone_is_everyone() -> None:
    assert Participation().cohort(NAMES, SEED, 7) == tuple(NAMES)
    assert Participation().planned(10) == 10


def test_a_fixed_cohort_is_of_that_size_in_order_and_even() -> None:
    drawn = cohorts(Participation(Draw.FIXED, 3))
    assert all(len(set(cohort)) == 3 and list(cohort) == sorted(cohort) for cohort in drawn)
    assert off(drawn, 3 / 10, 3 * 2 / (10 * 9)) == []


def test_control_an_uneven_draw_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ties (of the two highest bits) go to whoever comes first."""
    expression = 'np.argsort(words, kind="stable")'
    switch_off(monkeypatch, Participation, "cohort", expression, 'np.argsort(words >> np.uint64(62), kind="stable")')
    drawn = cohorts(Participation(Draw.FIXED, 3))
    assert all(len(cohort) == 3 for cohort in drawn)
    assert off(drawn, 3 / 10, 3 * 2 / (10 * 9))


def test_poisson_draws_each_client_by_itself() -> None:
    drawn = cohorts(Participation(Draw.POISSON, 3))
    assert off(drawn, 0.3, 0.09) == []
    assert {len(cohort) for cohort in drawn} > {0, 1, 2, 3, 4, 5, 6}


def test_control_clients_that_come_together_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each at the right rate, but two of them always together."""
    drawn = "words < np.uint64(planned / len(names) * 2.0 ** 64)"
    switch_off(monkeypatch, Participation, "cohort", drawn, drawn.replace("words", "words[[0, 0, *range(2, 10)]]"))
    assert off(cohorts(Participation(Draw.POISSON, 3)), 0.3, 0.09) == [("client-0", "client-1")]


@pytest.mark.parametrize("draw", [Draw.FIXED, Draw.POISSON])
def test_who_draws_again_draws_the_same_and_the_seed_decides(draw: Draw) -> None:
    participation = Participation(draw, 5)
    again = [Participation(draw, 5).cohort(NAMES, SEED, number) for number in range(20)]
    assert cohorts(participation, 20) == again
    assert len(set(again)) > 10  # the number matters
    assert again != [participation.cohort(NAMES, bytes(32), number) for number in range(20)]


@pytest.mark.parametrize("draw", [Draw.FIXED, Draw.POISSON])
def test_as_many_as_there_are_is_everyone(draw: Draw) -> None:
    assert all(cohort == tuple(NAMES) for cohort in cohorts(Participation(draw, 10), 50))


def test_what_cannot_be_drawn_is_refused() -> None:
    for draw in (Draw.FIXED, Draw.POISSON):
        with pytest.raises(UsageError, match="at least two"):
            Participation(draw, 1)
        with pytest.raises(UsageError, match="cannot be drawn"):
            Participation(draw, 11).cohort(NAMES, SEED, 0)
    assert Participation("fixed", 4).planned(10) == 4  # type: ignore[arg-type]  # as a file has it


def renamed(number: int) -> bool:
    """Mallory sees the seed, and takes the name that stands, in the order of names, where a lot has fallen. Whether it
    is in the cohort then."""
    participation, others = Participation(Draw.FIXED, 3), NAMES[1:]
    before = sorted([*others, "mallory"])
    place = before.index(participation.cohort(before, SEED, number)[0])
    name = f"{others[place - 1]}-" if place else "a"
    after = sorted([*others, name])
    assert after.index(name) == place
    return name in participation.cohort(after, SEED, number)


def test_a_new_name_is_drawn_no_more_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three of ten are drawn: more than 20 of 30 times has probability 1e-5 (fixed seed). If places were drawn and not
    names, it would always be there."""
    assert sum(map(renamed, range(30))) <= 20
    drawn = "[str(self.draw), str(planned), *names]"
    switch_off(monkeypatch, Participation, "cohort", drawn, "[str(self.draw), str(self.size)]")
    assert all(map(renamed, range(30)))


def test_cohorts_of_two_sizes_are_not_one_in_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one seed and number, with sizes that differ by one: the difference would be one client."""

    def differ_by_one() -> int:
        pairs = [[set(Participation(Draw.FIXED, size).cohort(NAMES, SEED, i)) for size in (4, 5)] for i in range(30)]
        return sum(small < large for small, large in pairs)

    assert differ_by_one() < 15
    drawn = "[str(self.draw), str(planned), *names]"
    switch_off(monkeypatch, Participation, "cohort", drawn, "[str(self.draw), *names]")
    assert differ_by_one() == 30
