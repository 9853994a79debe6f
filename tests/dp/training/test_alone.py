"""How far each example alone moves a model: as by plain steps on it, whatever the others are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="NOT TESTED: local training needs torch, pip install 'secagg[train]'")

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from dp.training import alone
from dp.training.alone import changes_alone
from secagg.errors import UsageError
from tests.controls import switch_off

POINTS = torch.tensor([[0.5, -1.0], [2.0, 0.25], [-1.5, 1.0], [0.1, 0.3], [1.0, 1.0]])


class Net(nn.Module):
    """A table, a product, a plain use of a parameter, and one that is not used."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.table, self.inner, self.scale = nn.Embedding(4, 3), nn.Linear(2, 3), nn.Parameter(torch.ones(3))
        self.unused, self.frozen = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(1), requires_grad=False)
        self.calls = 0

    def forward(self, point: Tensor) -> Tensor:
        self.calls += 1
        ids = (point.abs() > 0.4).long()
        return (torch.tanh(self.inner(point)) * self.scale + self.table(ids).sum(1)) * self.frozen


def loss(model: Any, point: Tensor) -> Tensor:
    return (model(point) - 1).square().sum()


def found(points: Tensor = POINTS, *, steps: int = 1, batch: int = 2, **more: Any) -> list[np.ndarray]:
    data = [TensorDataset(points * (1 + step)) for step in range(steps)]
    return list(changes_alone(more.pop("model", Net()), more.pop("loss", loss), data, 0.1, batch=batch, **more))


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("proximal", [0.0, 0.5])
def test_a_change_is_that_of_steps_on_one_example(steps: int, proximal: float) -> None:
    for point, change in zip(POINTS, found(steps=steps, proximal=proximal), strict=True):
        model = Net()
        trained = [one for one in model.parameters() if one.requires_grad]
        start = [one.detach().clone() for one in trained]
        for step in range(steps):
            gradients = torch.autograd.grad(loss(model, point[None] * (1 + step)), trained, allow_unused=True)
            with torch.no_grad():
                for one, before, gradient in zip(trained, start, gradients, strict=True):
                    one -= 0.1 * ((0 if gradient is None else gradient) + proximal * (one - before))
        moved = [(one.detach() - before).flatten() for one, before in zip(trained, start, strict=True)]
        np.testing.assert_allclose(change, torch.cat(moved).numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), 1e30])
def test_what_is_no_number_is_zeros_and_moves_no_other(steps: int, wrong: float, monkeypatch: Any) -> None:
    def told() -> tuple[list[np.ndarray], list[np.ndarray]]:
        points = POINTS.clone()
        points[2] = wrong
        return found(steps=steps, model=Overflowing(), loss=plain), found(
            points, steps=steps, model=Overflowing(), loss=plain
        )

    fine, others = told()
    for place, (one, other) in enumerate(zip(fine, others, strict=True)):
        np.testing.assert_array_equal(other, np.zeros_like(one) if place == 2 else one)
    switch_off(monkeypatch, alone, "changes_alone", "rows.sum(1).isfinite()", "torch.full((batch,), True)")
    assert not np.isfinite(list(alone.changes_alone(Overflowing(), plain, [TensorDataset(torch.full((1, 2), wrong))] * steps, 0.1, batch=1))).all()  # fmt: skip  # noqa: E501


class Overflowing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))


def plain(model: Any, point: Tensor) -> Tensor:
    return (model.weight * point).square().sum().exp().sqrt()


def test_one_that_raises_is_zeros_and_moves_no_other() -> None:
    """A lookup out of range raises for the whole batch."""
    table = nn.Embedding(4, 3)

    def looked_up(model: Any, ids: Tensor) -> Tensor:
        return model(ids).square().sum()

    for steps in (1, 2):
        for wrong in (4, -5):  # with copies of the parameters 4 would be the first row of the next example's
            ids = torch.tensor([[1, 2], [3, 3], [0, 1], [2, 2]])
            fine = list(changes_alone(table, looked_up, [TensorDataset(ids)] * steps, 0.1, batch=3))
            ids = ids.clone()
            ids[1, 0] = wrong
            others = list(changes_alone(table, looked_up, [TensorDataset(ids)] * steps, 0.1, batch=3))
            for place, (one, other) in enumerate(zip(fine, others, strict=True)):
                np.testing.assert_array_equal(other, np.zeros_like(one) if place == 1 else one)


def test_an_error_of_the_machine_is_raised() -> None:
    def broken(model: Any, point: Tensor) -> Tensor:
        raise MemoryError

    with pytest.raises(MemoryError):
        found(loss=broken)


def test_what_a_model_remembers_is_thrown_away() -> None:
    model = Net()
    found(model=model)
    assert model.calls == 0


def test_what_is_prepared_is_prepared_in_batches_of_one_size() -> None:
    sizes = list[int]()

    def doubled(model: nn.Module, chunk: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        sizes.append(len(chunk[0]))
        return (2 * chunk[0],)

    prepared = found(prepare=doubled)
    assert sizes == [2, 2, 2]
    for one, other in zip(prepared, found(2 * POINTS), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_mixes_examples_or_draws_is_refused() -> None:
    with pytest.raises(UsageError, match="mixes examples"):
        found(model=nn.Sequential(nn.BatchNorm1d(2)))
    with pytest.raises(UsageError, match="active dropout"):
        found(model=nn.Sequential(nn.Dropout(0.5)))
    with pytest.raises(UsageError, match="does not depend"):
        found(loss=lambda model, point: point.sum())
    with pytest.raises(UsageError, match="does not depend"):
        found(loss=lambda model, point: point.sum(), steps=2)
    for wrong in ([], [TensorDataset(POINTS), TensorDataset(POINTS[1:])]):
        with pytest.raises(UsageError, match="as many examples"):
            next(changes_alone(Net(), loss, wrong, 0.1, batch=2))
