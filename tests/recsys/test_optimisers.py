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


@pytest.mark.parametrize("rule", Rule)
def test_decay_takes_the_model_from_the_update(rule: Rule) -> None:
    decayed, plain = Optimiser(rule, decay=0.1), Optimiser(rule)
    model, other = (np.random.default_rng(0).normal(size=5) for _ in range(2))
    for update in np.random.default_rng(1).normal(size=(4, 5)):
        step = decayed(update, model)
        assert step.tolist() == plain(update - 0.1 * other, other).tolist()
        model, other = model + step, other + step
    with pytest.raises(UsageError, match="needs to know the model"):
        decayed(model)


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_impossible_decays_are_refused(decay: float) -> None:
    with pytest.raises(UsageError, match="decay"):
        Optimiser(decay=decay)


def test_with_torch_it_is_sgd_with_weight_decay() -> None:
    torch = pytest.importorskip("torch", reason="NOT TESTED: needs torch, pip install 'secagg[train]'")
    weights = torch.nn.Parameter(torch.tensor([0.5, -2.0, 1.0], dtype=torch.float64))
    theirs = torch.optim.SGD([weights], lr=0.3, momentum=0.9, weight_decay=0.05)
    ours, model = Optimiser(Rule.FEDAVGM, 0.3, 0.9, decay=0.05), weights.detach().numpy().copy()
    for gradient in np.random.default_rng(2).normal(size=(6, 3)):
        weights.grad = torch.from_numpy(gradient)
        theirs.step()
        model = model + ours(-gradient, model)
    np.testing.assert_allclose(model, weights.detach().numpy(), rtol=1e-12)


@pytest.mark.parametrize(
    "wrong", [{"rate": 0.0}, {"rate": -1.0}, {"tau": 0.0}, {"momentum": 1.0}, {"second": -0.1}, {"momentum": -0.1}]
)
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Optimiser(**wrong)  # type: ignore[arg-type]
