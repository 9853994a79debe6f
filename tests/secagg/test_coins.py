"""Seeds are fixed; a right sampler would exceed some threshold of 6.5 standard errors with probability below 1e-7."""

from __future__ import annotations

import os
from fractions import Fraction
from math import sqrt

import numpy as np
import pytest
from numpy.typing import NDArray

from secagg import coins
from secagg.coins import poisson_sample
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
