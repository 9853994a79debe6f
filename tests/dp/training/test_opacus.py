"""Where Opacus 1.6.0 is right, we agree with it; where it is not, these tests show what it does and what we do.

They fail when Opacus is mended: then the remark in question can go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from opacus import PrivacyEngine
from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping
from opacus.optimizers import (
    AdaClipDPOptimizer,
    DPOptimizer,
    DPOptimizerFastGradientClipping,
    DPPerLayerOptimizer,
)
from opacus.utils.fast_gradient_clipping_utils import DPTensorFastGradientClipping
from opacus.validators import ModuleValidator
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.regression import embedding
from dp.training.clipping import Flat, PerLayer
from dp.training.gradients import written_out
from dp.training.isolate import Objective, per_example_gradients
from tests.dp.training import reference

pytestmark = [
    pytest.mark.filterwarnings("ignore:Full backward hook is firing"),  # Opacus' hooks on a first layer
    pytest.mark.filterwarnings("ignore:Secure RNG turned off"),
]


def total(model: nn.Module, *inputs: Tensor) -> Tensor:
    return model(*inputs).sum()


def ours(model: nn.Module, *inputs: Tensor, loss: Callable[..., Tensor] = total) -> dict[str, Tensor]:
    found = per_example_gradients(Objective(model, loss), dict(model.named_parameters()), inputs)
    shapes = {name: (len(inputs[0]), *parameter.shape) for name, parameter in model.named_parameters()}
    return {name: written_out([gradient], shapes[name]).float() for name, gradient in found.items()}


def opacus(model: nn.Module, *inputs: Tensor, loss: Callable[..., Tensor] = total) -> dict[str, Tensor]:
    wrapped = GradSampleModule(model, loss_reduction="sum")
    loss(wrapped, *inputs).backward()
    found = {name: parameter.grad_sample for name, parameter in model.named_parameters()}
    wrapped.remove_hooks()
    return found


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=1.0)


# Where both are right


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        (nn.Linear(3, 2), torch.randn(6, 4, 3)),
        (nn.Embedding(5, 3), torch.randint(5, (6, 4))),
        (nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 2)), torch.randn(6, 3)),
        (nn.Sequential(nn.Conv1d(2, 4, 3), nn.GroupNorm(2, 4)), torch.randn(6, 2, 8)),
    ],
)
def test_the_same_gradients(model: nn.Module, inputs: Tensor) -> None:
    def loss(model: nn.Module, x: Tensor) -> Tensor:
        return (model(x) + 1).square().sum()

    theirs, mine = opacus(model, inputs, loss=loss), ours(model, inputs, loss=loss)
    for name in theirs:
        torch.testing.assert_close(mine[name], theirs[name], rtol=1e-4, atol=1e-4)


def test_the_same_clipped_sums_of_a_table() -> None:
    inputs = embedding.Task(rows=300, examples=20, length=6, width=4).inputs()
    mine = embedding._ours(*inputs)
    torch.testing.assert_close(mine, embedding._opacus(*inputs), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mine, embedding._opacus_ghost(*inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.long
def test_memory_of_a_large_table() -> None:
    """Opacus' own grad sampler takes 6.5 GB."""
    measured = embedding.compare(embedding.Task(repeats=1))
    assert measured.ratios["opacus_memory_vs_ours"] > 20
    assert measured.figures["opacus_difference"] < 1e-5


@pytest.mark.long  # by default test_isolate.py looks at the largest tensor
def test_small_comparison() -> None:
    measured = embedding.compare(embedding.Task(rows=20_000, examples=64, length=10, width=16, repeats=1))
    assert measured.ratios["opacus_memory_vs_ours"] > 5
    assert measured.figures["opacus_difference"] < 1e-5
    assert measured.figures["opacus_ghost_difference"] < 1e-5


# Tables


def test_bags_with_repeated_ids() -> None:
    """Opacus assigns where it should add: a repeated id counts once, and its norm comes out too small."""
    bag = nn.EmbeddingBag(4, 1, mode="sum")
    theirs = opacus(bag, torch.tensor([1, 1, 2]), torch.tensor([0]))["weight"]
    mine = ours(bag, torch.tensor([[1, 1, 2]]))["weight"]
    assert theirs.flatten().tolist() == [0, 1, 1, 0]
    assert mine.flatten().tolist() == [0, 2, 1, 0]


def test_bags_as_a_matrix() -> None:
    with pytest.raises(ValueError, match="not enough values to unpack"):
        opacus(nn.EmbeddingBag(4, 1, mode="sum"), torch.tensor([[1, 1, 2]]))


def test_padding_rows() -> None:
    """Opacus gives the padding row a gradient, which crowds out the others in the norm, and trains it."""
    table = nn.Embedding(4, 1, padding_idx=0)
    assert opacus(table, torch.tensor([[0, 0, 2]]))["weight"].flatten().tolist() == [2, 0, 1, 0]
    assert ours(table, torch.tensor([[0, 0, 2]]))["weight"].flatten().tolist() == [0, 0, 1, 0]


def test_a_table_that_is_rescaled_when_it_is_read() -> None:
    """max_norm changes the rows that the data looks up, without noise. Opacus finds nothing wrong; we refuse
    (test_isolate.py).
    """
    table = nn.Embedding(4, 2, max_norm=0.1)
    assert ModuleValidator.validate(table) == []
    before = table.weight.detach().clone()
    GradSampleModule(table)(torch.tensor([2]))
    assert (before != table.weight).any(1).tolist() == [False, False, True, False]


# Positions that all examples share


class Places(nn.Module):
    def __init__(self, length: int, leading: bool) -> None:
        super().__init__()
        self.items = nn.Embedding(9, 2)
        self.places = nn.Embedding(length, 2)
        self.positions = torch.arange(length).unsqueeze(0) if leading else torch.arange(length)

    def forward(self, ids: Tensor) -> Tensor:
        return (self.items(ids) + self.places(self.positions)).square().sum((1, 2))


def test_positions_that_opacus_refuses() -> None:
    model = GradSampleModule(Places(5, leading=True), loss_reduction="sum")
    model(torch.randint(9, (3, 5))).sum().backward()
    optimizer = DPOptimizer(sgd(model), noise_multiplier=0.0, max_grad_norm=1.0, expected_batch_size=1)
    with pytest.raises(RuntimeError, match="stack expects each tensor to be equal size"):
        optimizer.clip_and_accumulate()


def test_positions_as_many_as_examples() -> None:
    """Opacus takes position i for example i, and clips a sum over all examples as if it were one."""
    model, ids = Places(5, leading=False), torch.randint(9, (5, 5))
    theirs, mine = opacus(model, ids)["places.weight"], ours(model, ids)["places.weight"]
    single = [reference.gradients(model, total, (row,))["places.weight"] for row in ids]
    torch.testing.assert_close(mine, torch.stack(single))
    assert not torch.allclose(theirs, mine)
    assert [int(gradient.any(1).sum()) for gradient in theirs] == [1] * 5  # each "example" has one position


def test_positions_clipped_by_layer() -> None:
    """Opacus clips the sum over the batch: three examples move the position table as far as one may."""
    model, ids = Places(5, leading=True), torch.randint(9, (3, 5))
    wrapped = GradSampleModule(model, loss_reduction="sum")
    optimizer = DPPerLayerOptimizer(sgd(model), noise_multiplier=0.0, max_grad_norm=[0.1, 0.1], expected_batch_size=1)
    wrapped(ids).sum().backward()
    optimizer.clip_and_accumulate()
    wrapped.remove_hooks()
    parameters = dict(model.named_parameters())
    found = per_example_gradients(Objective(model, total), parameters, (ids,))
    totals, _ = reference.added(found, model, PerLayer({"items": 0.1, "places": 0.1}).layers(list(parameters)))
    wanted = reference.clipped_sum(model, total, ids.unsqueeze(1), {("items.weight",): 0.1, ("places.weight",): 0.1})
    assert model.places.weight.summed_grad.norm() == pytest.approx(0.1, rel=1e-4)
    assert wanted["places.weight"].norm() > 0.15
    torch.testing.assert_close(totals["places.weight"].double(), wanted["places.weight"], rtol=1e-4, atol=1e-6)


# What hooks do not see


class Tied(nn.Module):
    """Scores all items by the table that embeds them, as sequential recommenders do."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(6, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return (100 * self.items(ids) @ self.items.weight.T).square().sum(1)


def test_a_weight_used_without_its_module() -> None:
    """Opacus leaves out the part of the gradient that goes past the module."""
    model, ids = Tied(), torch.tensor([1, 4])
    single = torch.stack([reference.gradients(model, total, (i,))["items.weight"] for i in ids])
    torch.testing.assert_close(ours(model, ids)["items.weight"], single)
    theirs = opacus(model, ids)["items.weight"]
    assert theirs[:, [0, 2, 3, 5]].count_nonzero() == 0
    assert single[:, [0, 2, 3, 5]].count_nonzero() > 0


def test_a_weight_used_without_its_module_under_ghost_clipping() -> None:
    """There the second pass sums what the norm has missed: one example moves the sum by more than the bound."""
    torch.manual_seed(1)
    model, ids = Tied(), torch.tensor([1])
    wrapped = GradSampleModuleFastGradientClipping(model, loss_reduction="sum", max_grad_norm=1.0)
    optimizer = DPOptimizerFastGradientClipping(
        sgd(model), noise_multiplier=0.0, max_grad_norm=1.0, expected_batch_size=1, loss_reduction="sum"
    )
    DPTensorFastGradientClipping(wrapped, optimizer, wrapped(ids), "sum").backward()
    optimizer.accumulate()
    wrapped.remove_hooks()
    assert model.items.weight.summed_grad.norm() > 1.1
    found = per_example_gradients(Objective(model, total), dict(model.named_parameters()), (ids,))
    totals, _ = reference.added(found, model, Flat(1.0).layers(["items.weight"]))
    assert totals["items.weight"].norm() == pytest.approx(1.0, abs=1e-5)


def test_batch_norm_without_parameters() -> None:
    """It mixes examples all the same. Opacus looks only at trainable modules; we refuse (test_trainer.py)."""
    assert ModuleValidator.validate(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, affine=False))) == []


# Batches


def engine(count: int, batch: int, **options: Any) -> tuple[DPOptimizer, Any]:
    layer = nn.Linear(2, 1)
    loader = DataLoader(TensorDataset(torch.randn(count, 2)), batch_size=batch, **options)
    _, optimizer, loader = PrivacyEngine(accountant="rdp").make_private(
        module=layer, optimizer=sgd(layer), data_loader=loader, noise_multiplier=1.0, max_grad_norm=1.0
    )
    return optimizer, loader


@pytest.mark.parametrize(("count", "batch", "rate", "expected"), [(10, 4, 1 / 3, 3), (3, 2, 1 / 2, 1), (5, 8, 1, 5)])
def test_the_rate_of_small_data(count: int, batch: int, rate: float, expected: int) -> None:
    """Not batch / count: 1 / number of batches; and the gradient is divided by that, rounded down. Ours is exact
    (test_trainer.py).
    """
    optimizer, loader = engine(count, batch)
    assert (loader.sample_rate, optimizer.expected_batch_size) == (rate, expected)


def test_fewer_examples_than_a_batch() -> None:
    with pytest.raises(ZeroDivisionError):
        engine(5, 8, drop_last=True)


def adaptive(model: nn.Module) -> AdaClipDPOptimizer:
    return AdaClipDPOptimizer(
        sgd(model), noise_multiplier=1.0, max_grad_norm=1.0, expected_batch_size=4, target_unclipped_quantile=0.5,
        clipbound_learning_rate=0.2, max_clipbound=10.0, min_clipbound=0.1, unclipped_num_std=5.0,
    )  # fmt: skip


def test_empty_batches() -> None:
    """Flat clipping takes a step of noise, as it should; adaptive clipping breaks down."""
    for make, works in ((lambda m: DPOptimizer(sgd(m), noise_multiplier=1.0, max_grad_norm=1.0, expected_batch_size=4), True), (adaptive, False)):  # fmt: skip  # noqa: E501
        layer = nn.Linear(2, 1)
        model, before = GradSampleModule(layer), layer.weight.detach().clone()
        optimizer = make(layer)
        model(torch.zeros(0, 2)).mean().backward()
        if works:
            optimizer.step()
            assert (layer.weight != before).all()
        else:
            with pytest.raises(RuntimeError, match="cannot reshape tensor of 0 elements"):
                optimizer.step()


def test_the_quantile_is_of_the_actual_batch() -> None:
    """Opacus divides the noised count by how many examples were drawn, which is private and not noised. Ours divides
    by the expected batch (test_clipping.py).
    """
    bounds = []
    for drawn in (2, 40):
        layer = nn.Linear(2, 1, bias=False)
        optimizer = adaptive(layer)
        optimizer.noise_multiplier, optimizer.unclipped_num_std = 0.0, 1e-9
        GradSampleModule(layer, loss_reduction="sum")(torch.full((drawn, 2), 0.1)).sum().backward()
        optimizer.step()
        bounds.append(float(optimizer.max_grad_norm))
    assert bounds[0] == pytest.approx(bounds[1])


def test_one_bad_example_spoils_the_model() -> None:
    """That one NaN shows that the example was there. Ours counts it as zero (test_clipping.py)."""
    layer = nn.Linear(2, 1)
    optimizer = DPOptimizer(sgd(layer), noise_multiplier=1.0, max_grad_norm=1.0, expected_batch_size=4)
    GradSampleModule(layer)(torch.tensor([[1.0, 2.0], [float("nan"), 1.0]])).mean().backward()
    optimizer.step()
    assert layer.weight.isnan().all()


def test_a_new_engine_has_spent_nothing() -> None:
    """One for each round, as federated frameworks make it, forgets all earlier rounds. Ours: test_trainer.py."""
    engines = [PrivacyEngine(accountant="rdp") for _ in range(2)]
    for one in engines:
        for _ in range(50):
            one.accountant.step(noise_multiplier=1.0, sample_rate=0.1)
    whole = PrivacyEngine(accountant="rdp")
    for _ in range(100):
        whole.accountant.step(noise_multiplier=1.0, sample_rate=0.1)
    assert engines[1].get_epsilon(1e-5) < 0.8 * whole.get_epsilon(1e-5)
