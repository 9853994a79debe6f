"""No example moves the sum by more than the bound, whatever it is; and the quantile is followed and paid for."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from dp.training import clipping
from dp.training.clipping import Adaptive, Flat, Layer, PerLayer, total_bound
from dp.training.gradients import Dense, Products, Rows, written_out
from dp.training.isolate import Objective, per_example_gradients
from secagg.crypto.prg import Prg
from secagg.errors import UsageError
from tests.controls import switch_off
from tests.dp.training import reference

ROWS = 20


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(5)


def recommender() -> nn.Module:
    return nn.Sequential(
        nn.Embedding(ROWS, 4, padding_idx=0), nn.Flatten(), nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 1)
    )


def loss(model: nn.Module, ids: Tensor, scale: Tensor) -> Tensor:
    return scale * (model(ids) + 1).square().sum()


def examples(count: int) -> tuple[Tensor, Tensor]:
    """Small gradients and huge ones."""
    return torch.randint(0, ROWS, (count, 3)), 10 ** torch.linspace(-3, 6, count)


def sums(model: nn.Module, batch: tuple[Tensor, ...], layers: list[Layer]) -> tuple[dict[str, Tensor], int]:
    gradients = per_example_gradients(Objective(model, loss), dict(model.named_parameters()), batch)
    return reference.added(gradients, model, layers)


def kinds(model: nn.Module) -> list[list[Layer]]:
    names = [name for name, _ in model.named_parameters()]
    uneven = PerLayer({"0": 0.5, "2": 2.0, "4": 0.01})
    return [
        kind.layers(names) for kind in (Flat(0.7), PerLayer.even(model, 0.7), uneven, Adaptive(0.7, count_noise=9.0))
    ]


@pytest.mark.parametrize("which", range(4))
def test_sums_are_those_of_the_reference(which: int) -> None:
    model, batch = recommender(), examples(12)
    layers = kinds(model)[which]
    wanted = reference.clipped_sum(model, loss, list(zip(*batch, strict=True)), {la.names: la.clip for la in layers})
    found, _ = sums(model, batch, layers)
    for name in wanted:
        torch.testing.assert_close(found[name].double(), wanted[name], rtol=1e-4, atol=2e-5)


def largest_move(layers: list[Layer]) -> float:
    """By how much one example moves the sum, in bounds."""
    model, batch = recommender(), examples(12)
    moves = []
    for i in range(12):
        one, _ = sums(model, (batch[0][i : i + 1], batch[1][i : i + 1]), layers)
        moves.append(reference.norm(one))
    return max(moves) / total_bound(layers)


@pytest.mark.parametrize("which", range(4))
def test_one_example_moves_the_sum_by_the_bound_at_most(which: int) -> None:
    assert 0.9999 < largest_move(kinds(recommender())[which]) <= 1


@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize(
    ("name", "part", "instead"),
    [
        ("add_clipped", "norms.clamp(min=layer.clip)", "layer.clip"),
        ("norms_above", "1 + (numbers + 32) * 2.0**-52", "0.999"),
    ],
)
def test_that_would_be_seen(monkeypatch: pytest.MonkeyPatch, which: int, name: str, part: str, instead: str) -> None:
    switch_off(monkeypatch, reference if name == "add_clipped" else clipping, name, part, instead)
    assert largest_move(kinds(recommender())[which]) > 1


def test_parts_add_up_to_the_whole() -> None:
    model, batch = recommender(), examples(12)
    layers = kinds(model)[0]
    whole, within = sums(model, batch, layers)
    left, some = sums(model, (batch[0][:5], batch[1][:5]), layers)
    right, rest = sums(model, (batch[0][5:], batch[1][5:]), layers)
    assert within == some + rest
    for name in whole:
        torch.testing.assert_close(whole[name], left[name] + right[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("which", range(4))
def test_an_example_without_a_finite_gradient_counts_as_zero(bad: float, which: int) -> None:
    model, (ids, scale) = recommender(), examples(6)
    layers = kinds(model)[which]
    wanted, within = sums(model, (ids[:5], scale[:5]), layers)
    found, within_bad = sums(model, (ids, torch.cat([scale[:5], torch.tensor([bad])])), layers)
    assert within_bad == within
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name])


def test_that_too_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    switch_off(
        monkeypatch, reference, "add_clipped", "torch.isfinite(torch.stack([*squares.values()])).all(0)",
        "torch.ones(len(next(iter(squares.values()))), dtype=torch.bool)",
    )  # fmt: skip
    with pytest.raises(AssertionError):
        test_an_example_without_a_finite_gradient_counts_as_zero(math.nan, 0)


def test_zero_gradients() -> None:
    total, within = reference.added(
        {"0": Dense(torch.zeros(3, 2))}, nn.ParameterList([torch.zeros(2)]), Flat(1.0).layers(["0"])
    )
    assert within == 3
    assert total["0"].tolist() == [0, 0]


def test_whoever_is_not_there_adds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    there = torch.tensor([True, False, True])

    def added() -> tuple[list[float], int]:
        model, values = nn.ParameterList([torch.zeros(1)]), torch.tensor([[0.25], [0.5], [8.0]])
        total, within = reference.added({"0": Dense(values)}, model, Flat(1.0).layers(["0"]), there)
        return total["0"].tolist(), within

    assert added() == (pytest.approx([1.25], abs=1e-5), 0)
    switch_off(monkeypatch, reference, "add_clipped", "torch.isfinite(torch.stack([*squares.values()])).all(0) & there", "torch.ones(3, dtype=torch.bool)")  # fmt: skip  # noqa: E501
    assert added() == (pytest.approx([1.75], abs=1e-5), 1)


@given(st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), min_size=1, max_size=4))
def test_norms_of_repeated_ids(ids: list[list[int]]) -> None:
    values = torch.arange(1.0, 1 + len(ids) * 6).reshape(len(ids), 3, 2)
    rows = Rows.of(torch.tensor(ids), values)
    torch.testing.assert_close(rows.squared_norms(), Dense(written_out([rows], (len(ids), 4, 2))).squared_norms())


def test_norms_that_cancel_are_not_too_small() -> None:
    """Large outer products whose sum is small: Gram matrices in float32 would find less than nothing."""
    left = torch.tensor([[[3e4, 1.0], [-3e4, 1.0]]])
    right = torch.tensor([[[3e4, 1.0, 0.0], [3e4, 1.0, 1e-3]]])
    norm = Products.of(left, right).squared_norms()
    torch.testing.assert_close(norm, Dense(left.double().mT @ right.double()).squared_norms(), rtol=1e-6, atol=0)


# Adaptive clipping


def test_gradient_and_count_together_cost_the_noise_multiplier() -> None:
    """Two Gaussian mechanisms of sensitivities C and 1/2: z^-2 is the sum of their (sensitivity / deviation)^2."""
    for z in (Fraction(1, 2), Fraction(1), Fraction(7, 2)):
        gradient = Adaptive(3.0, count_noise=2.0).gradient_noise(z)
        assert 1 / gradient**2 + (0.5 / 2.0) ** 2 == pytest.approx(1 / float(z) ** 2)
        assert gradient > z


def test_count_noise_must_leave_something() -> None:
    with pytest.raises(UsageError, match="count_noise"):
        Adaptive(1.0, count_noise=0.5).gradient_noise(Fraction(1))


def test_the_bound_follows_the_quantile() -> None:
    """Norms are uniform on (0, 10), of which 30% shall be within."""
    adaptive, rng = Adaptive(0.1, quantile=0.3, rate=0.2, count_noise=10.0), Prg(bytes(32))
    draw = torch.Generator().manual_seed(1)
    for _ in range(300):
        norms = 10 * torch.rand(200, generator=draw)
        adaptive = adaptive.after_step(int((2 * (norms <= adaptive.clip) - 1).sum()), 200, rng)
    assert adaptive.clip == pytest.approx(3.0, rel=0.15)


def test_the_share_is_of_the_expected_batch_and_noised(monkeypatch: pytest.MonkeyPatch) -> None:
    start = Adaptive(1.0, quantile=0.5, rate=1.0, count_noise=4.0)
    moved = start.after_step(6, 20, Prg(bytes(32)))
    halves = int(clipping.noise(1, Prg(bytes(32)), Fraction(8) ** 2))
    assert moved.clip == pytest.approx(math.exp(-(6 + halves) / 2 / 20))
    drawn = "int(noise(1, rng, (2 * Fraction(self.count_noise)) ** 2))"
    switch_off(monkeypatch, Adaptive, "after_step", drawn, "0")
    assert start.after_step(6, 20, Prg(bytes(32))).clip != pytest.approx(moved.clip)


def test_an_adaptive_bound_stays_a_number() -> None:
    adaptive, rng = Adaptive(1.0, rate=50.0, count_noise=1e-3), Prg(bytes(32))
    for _ in range(50):
        adaptive = adaptive.after_step(10**9, 1, rng)
    assert adaptive.clip == clipping._SMALLEST
    for _ in range(50):
        adaptive = adaptive.after_step(-(10**9), 1, rng)
    assert adaptive.clip == clipping._LARGEST


# Layers


def test_layers_are_modules_that_own_parameters() -> None:
    model = recommender()
    names = [name for name, _ in model.named_parameters()]
    assert PerLayer({"0": 1.0, "2": 2.0, "4": 3.0}).layers(names) == [
        Layer(("0.weight",), 1.0),
        Layer(("2.weight", "2.bias"), 2.0),
        Layer(("4.weight", "4.bias"), 3.0),
    ]
    assert total_bound(PerLayer.even(model, 0.3).layers(names)) == pytest.approx(0.3)


def test_a_layer_that_is_not_used() -> None:
    model = nn.ModuleDict({name: nn.ParameterDict({"w": torch.zeros(2)}) for name in "ab"})
    layers = PerLayer({"a": 1.0, "b": 1.0}).layers([name for name, _ in model.named_parameters()])
    total, _ = reference.added({"b.w": Dense(torch.ones(1, 2))}, model, layers)
    assert total["a.w"].tolist() == [0, 0]
    assert total["b.w"].norm() == pytest.approx(1.0, abs=1e-5)


def test_other_layers_are_refused() -> None:
    with pytest.raises(UsageError, match="layers that are trained"):
        PerLayer({"0": 1.0}).layers(["0.weight", "1.weight"])


@pytest.mark.parametrize(
    "make",
    [
        lambda: Flat(0.0),
        lambda: Flat(math.nan),
        lambda: Flat(math.inf),
        lambda: PerLayer({"0": -1.0}),
        lambda: Adaptive(1.0, quantile=0.0, count_noise=1.0),
        lambda: Adaptive(1.0, quantile=1.0, count_noise=1.0),
        lambda: Adaptive(1.0, rate=0.0, count_noise=1.0),
        lambda: Adaptive(1.0, count_noise=0.0),
        lambda: Adaptive(math.inf, count_noise=1.0),
    ],
)
def test_nonsense_is_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(UsageError):
        make()
