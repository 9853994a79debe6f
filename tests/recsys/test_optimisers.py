"""The server's optimisers against their formulas, number by number."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.optimisers import Optimiser, Rule
from secagg.errors import UsageError

UPDATES = st.lists(st.floats(-10, 10), min_size=1, max_size=6)
RATE, MOMENTUM, SECOND, TAU = 0.3, 0.8, 0.95, 0.01


def written_out(rule: Rule, updates: list[float]) -> list[float]:
    """How far one coordinate moves with each update."""
    moves, m, v = [], 0.0, 0.0
    for u in updates:
        if rule is Rule.FEDAVG:
            moves.append(RATE * u)
        elif rule is Rule.FEDAVGM:
            m = MOMENTUM * m + u
            moves.append(RATE * m)
        else:
            m = MOMENTUM * m + (1 - MOMENTUM) * u
            if rule is Rule.FEDADAM:
                v = SECOND * v + (1 - SECOND) * u * u
            elif v > u * u:
                v = v - (1 - SECOND) * u * u
            elif v < u * u:
                v = v + (1 - SECOND) * u * u
            moves.append(RATE * m / (math.sqrt(v) + TAU))
    return moves


@pytest.mark.parametrize("rule", Rule)
@given(updates=UPDATES)
def test_each_coordinate_moves_as_the_paper_says(rule: Rule, updates: list[float]) -> None:
    step = Optimiser(rule, RATE, MOMENTUM, SECOND, TAU)
    moves = [step(np.array([u, 0.0, -u])) for u in updates]
    expected = written_out(rule, updates)
    assert [move[0] for move in moves] == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert [move[2] for move in moves] == pytest.approx([-move for move in expected], rel=1e-12, abs=1e-12)
    assert all(move[1] == 0 for move in moves)


@pytest.mark.parametrize("rule", Rule)
def test_one_with_the_state_of_another_goes_on_as_the_other(rule: Rule) -> None:
    first = Optimiser(rule)
    updates = np.random.default_rng(0).normal(size=(4, 5))
    for update in updates[:2]:
        first(update)
    second = Optimiser(rule, state=dict(first.state))
    for update in updates[2:]:
        assert first(update).tolist() == second(update).tolist()


def test_the_rules_are_different() -> None:
    assert len({tuple(written_out(rule, [1.0, 0.5, 2.0])) for rule in Rule}) == len(Rule)


@pytest.mark.parametrize(
    "wrong", [{"rate": 0.0}, {"rate": -1.0}, {"tau": 0.0}, {"momentum": 1.0}, {"second": -0.1}, {"momentum": -0.1}]
)
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Optimiser(**wrong)  # type: ignore[arg-type]
