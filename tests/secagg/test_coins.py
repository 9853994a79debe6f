"""Seeds are fixed; a right sampler would exceed some threshold of 6.5 standard errors with probability below 1e-7."""

from __future__ import annotations

import os
from fractions import Fraction
from math import sqrt

import numpy as np
import pytest
from numpy.typing import NDArray

from secagg import coins
from secagg.coins import among_others, most_sampled, poisson_sample
from secagg.crypto.prg import Prg
from secagg.errors import UsageError
from tests.controls import switch_off

POPULATION, ROUNDS = 200, 5000


def drawn(rate: Fraction) -> NDArray[np.bool_]:
    """(rounds, population): who was in."""
    rng = Prg(b"poisson sampling, fixed seed ...")
    taken = np.zeros((ROUNDS, POPULATION), bool)
    for i in range(ROUNDS):
        taken[i, coins.poisson_sample(POPULATION, rate, rng)] = True
    return taken


def problems(taken: NDArray[np.bool_], rate: float) -> list[str]:
    deviation = sqrt(rate * (1 - rate))
    sizes = taken.sum(1)
    centred = (taken - rate) / deviation
    found = {
        "rate": abs(centred.mean()) * sqrt(taken.size) > 6.5,
        "one example": (np.abs(centred.mean(0)) * sqrt(ROUNDS)).max() > 6.5,
        "sizes": abs(sizes.var() / (POPULATION * deviation**2) - 1) * sqrt(ROUNDS / 2) > 6.5,
        "neighbours": abs((centred[:, 1:] * centred[:, :-1]).mean()) * sqrt(taken.size) > 6.5,
        "rounds": abs((centred[1:] * centred[:-1]).mean()) * sqrt(taken.size) > 6.5,
    }
    return [name for name, wrong in found.items() if wrong]


@pytest.mark.parametrize("rate", [Fraction(1, 10), Fraction(2, 3)])
def test_each_by_itself_at_the_rate(rate: Fraction) -> None:
    assert problems(drawn(rate), float(rate)) == []


@pytest.mark.parametrize(
    ("part", "instead", "caught_by"),
    [
        ("np.uint64(threshold)", "np.uint64(threshold + threshold // 20)", "rate"),  # q 5% too large
        ("np.uint64(threshold)", "np.uint64(threshold - threshold // 20)", "rate"),
        ("random_words(rng, population)", "np.repeat(random_words(rng, population // 2), 2)", "neighbours"),
        ("random_words(rng, population)", "np.full(population, random_words(rng, 1)[0])", "sizes"),
    ],
)
def test_a_wrong_sampler_is_caught(monkeypatch: pytest.MonkeyPatch, part: str, instead: str, caught_by: str) -> None:
    switch_off(monkeypatch, coins, "poisson_sample", part, instead)
    assert caught_by in problems(drawn(Fraction(1, 10)), 0.1)


def test_batches_of_one_size_are_caught() -> None:
    draw = np.random.default_rng(1)
    taken = np.zeros((ROUNDS, POPULATION), bool)
    for row in taken:
        row[draw.choice(POPULATION, POPULATION // 10, replace=False)] = True
    assert "sizes" in problems(taken, 0.1)


def test_the_edge_is_exact() -> None:
    def word(value: int) -> list[int]:
        return poisson_sample(1, Fraction(1, 3), lambda count: value.to_bytes(8, "little")).tolist()

    assert word(2**64 // 3 - 1) == [0]
    assert word(2**64 // 3) == []


def test_empty_and_whole_samples() -> None:
    assert poisson_sample(5, Fraction(1, 2), lambda count: b"\xff" * count).tolist() == []
    assert poisson_sample(0, Fraction(1, 2), os.urandom).tolist() == []
    assert poisson_sample(4, Fraction(1), lambda count: b"\xff" * count).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("rate", [Fraction(0), Fraction(-1, 2), Fraction(3, 2)])
def test_nonsense_is_refused(rate: Fraction) -> None:
    with pytest.raises(UsageError):
        poisson_sample(10, rate, os.urandom)


# Hidden among others


@pytest.mark.parametrize(("population", "rate"), [(200, Fraction(1, 10)), (200, Fraction(9, 10)), (1, Fraction(1, 2))])
def test_how_many_are_looked_at_follows_from_no_coin(population: int, rate: Fraction) -> None:
    """Each is looked at once, whoever is in the sample is among them, and so many as are declared."""
    rng = Prg(bytes(32))
    for _ in range(50):
        places, sampled = among_others(population, rate, rng)
        assert len(places) == len(sampled) == most_sampled(population, rate)
        assert len(set(places.tolist())) == len(places)


def test_the_sample_is_what_poisson_sampling_draws() -> None:
    """The same coins, whoever is beside them."""
    for seed in range(50):
        places, sampled = among_others(60, Fraction(1, 5), Prg(bytes([seed]) * 32))
        assert sorted(places[sampled].tolist()) == poisson_sample(60, Fraction(1, 5), Prg(bytes([seed]) * 32)).tolist()


def test_who_is_beside_the_sample_is_drawn_by_lot() -> None:
    """Each equally often: a threshold of 6.5 standard errors over 60 users, below 1e-8 in all."""
    rng, rounds, rate = Prg(bytes(32)), 1000, Fraction(1, 20)
    beside = np.zeros(60)
    for _ in range(rounds):
        places, sampled = among_others(60, rate, rng)
        beside[places[~sampled]] += 1
    share = beside.mean() / rounds
    assert (np.abs(beside / rounds - share) < 6.5 * sqrt(share * (1 - share) / rounds)).all()


def test_where_one_of_a_sample_stands_says_nothing_of_the_coin_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vector may follow from its place in a batch, in its last bits. So the places of all others are the same in law
    whether one user is in the sample, beside it, or neither: uniform. Two means are within 7 standard errors of the
    middle, but for 6e-12. Control: in ascending order user 1 stands first, or second after user 0."""

    def means() -> list[float]:
        rng, found = Prg(bytes(32)), (list[int](), list[int]())
        for _ in range(3000):
            places, sampled = coins.among_others(POPULATION, Fraction(1, 4), rng)
            sample = places[sampled].tolist()
            if 1 in sample:
                found[0 in sample].append(places.tolist().index(1))
        assert min(map(len, found)) > 100
        return [float(np.mean(one) - 49.5) * sqrt(12 * len(one)) / 100 for one in found]

    assert max(map(abs, means())) < 7
    switch_off(monkeypatch, coins, "among_others", "first[order]", "np.sort(first)")
    assert min(map(abs, means())) > 7


def test_a_sample_beyond_all_expectation_is_taken_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it was cut, the coins would not be independent any more. Control: cut, some are missing."""

    def all_heads(count: int) -> bytes:
        return bytes(count)

    places, sampled = among_others(200, Fraction(1, 10), all_heads)
    assert (sorted(places.tolist()), sampled.all()) == (list(range(200)), True)
    switch_off(
        monkeypatch,
        coins,
        "among_others",
        "max(most_sampled(population, rate), len(sample))",
        "most_sampled(200, rate)",
    )
    assert len(coins.among_others(200, Fraction(1, 10), all_heads)[0]) < 200


def test_a_sample_is_larger_than_said_with_a_probability_below_2_to_the_minus_40() -> None:
    from scipy.stats import binom

    for population, rate in [(100, Fraction(1, 5)), (200, Fraction(1, 100))]:
        most = most_sampled(population, rate)
        assert binom.sf(most, population, float(rate)) <= 2.0**-40
        assert binom.sf(most // 2, population, float(rate)) > 2.0**-40  # and the bound is not empty
    assert (most_sampled(5, Fraction(1)), most_sampled(0, Fraction(1, 2))) == (5, 0)
