"""The trainer against DP-SGD as on paper, step by step, noise included; and that it charges first."""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from dp.accountants import RdpAccountant
from dp.accountants.rdp import curve
from dp.events import Everyone, Gaussian, Guarantee, PoissonSample, Relation, Release, Trust, Unit
from dp.ledger import Budget, Ledger
from dp.training import EXAMPLE, Adaptive, Flat, PerLayer, Settings, Trainer, trainer
from dp.training.chunks import Chunks
from dp.training.gradients import Dense
from dp.training.noise import DEVIATION, noise
from secagg.coins import poisson_sample
from secagg.crypto.keys import SigningKey
from secagg.crypto.prg import Prg
from secagg.errors import BudgetError, UsageError
from tests.controls import switch_off
from tests.dp.training import reference

ROWS, COUNT, RATE = 9, 12, 0.25
SEED = b"seed of a training run in a test"
SETTINGS = Settings(Flat(0.5), Fraction(3, 4), expected_batch=4, physical_batch=3)
NOBODY = staticmethod(lambda count: b"\xff" * count)
"""A source of randomness by which no example is ever drawn."""


class Items(nn.Module):
    """Items, positions and a dense layer: what a recommender trains on a client."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(ROWS, 4, padding_idx=0)
        self.places = nn.Embedding(3, 4)
        self.out = nn.Linear(4, 1)

    def forward(self, ids: Tensor) -> Tensor:
        return self.out((self.items(ids) + self.places(torch.arange(3))).tanh().mean(1)).squeeze(1)


def model() -> Items:
    torch.manual_seed(2)
    return Items()


def examples() -> TensorDataset:
    draw = torch.Generator().manual_seed(3)
    ids = torch.randint(0, ROWS - 2, (COUNT, 3), generator=draw)  # nobody has item 7 or 8
    return TensorDataset(ids, 5 * torch.randn(COUNT, generator=draw))


def loss(model: nn.Module, ids: Tensor, wanted: Tensor) -> Tensor:
    return (model(ids) - wanted).square().sum()


def nothing(event: Any, count: int) -> None:
    """Charges go nowhere."""


def trained(
    settings: Settings = SETTINGS,
    *,
    steps: int = 1,
    start: nn.Module | None = None,
    data: Any = None,
    loss: Callable[..., Tensor] = loss,
    rng: Callable[[int], bytes] | None = None,
    charge: Callable[..., None] = nothing,
) -> tuple[nn.Module, Trainer]:
    start = start or model()
    optimizer = torch.optim.SGD(start.parameters(), lr=RATE)
    made = Trainer(start, optimizer, loss, settings, charge=charge, rng=rng or Prg(SEED))
    made.run(examples() if data is None else data, steps)
    return start, made


def on_paper(settings: Settings, steps: int, layers: dict[Sequence[str], float]) -> nn.Module:
    """The same run, one example after the other."""
    plain, rng, data = model(), Prg(SEED), examples()
    deviation = float(settings.noise_multiplier) * math.hypot(*layers.values())
    for _ in range(steps):
        rate = Fraction(settings.expected_batch, COUNT)
        batch = poisson_sample(COUNT, rate, rng)
        Chunks.of(COUNT, rate, settings.physical_batch).filled(batch, rng)
        total = reference.clipped_sum(plain, loss, [data[i] for i in batch], layers)
        with torch.no_grad():
            for name, parameter in plain.named_parameters():
                drawn = noise(parameter.numel(), rng).view_as(parameter) / DEVIATION
                noised = total[name] + deviation * drawn
                if name == "items.weight":
                    noised[0] = 0  # padding
                parameter -= RATE * noised / settings.expected_batch
    return plain


def assert_same(one: nn.Module, other: nn.Module) -> None:
    for name, value in one.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[name], rtol=1e-4, atol=1e-5)


EVERYTHING = tuple(name for name, _ in model().named_parameters())
LAYERS = {("items.weight",): 0.2, ("places.weight",): 0.1, ("out.weight", "out.bias"): 1.5}


@pytest.mark.parametrize("physical_batch", [1, 3, 100])
def test_a_run_is_that_on_paper(physical_batch: int) -> None:
    settings = replace(SETTINGS, physical_batch=physical_batch)
    assert_same(trained(settings, steps=5)[0], on_paper(settings, 5, {EVERYTHING: 0.5}))


def test_a_run_by_layers_is_that_on_paper() -> None:
    settings = replace(SETTINGS, clipping=PerLayer({"items": 0.2, "places": 0.1, "out": 1.5}))
    assert_same(trained(settings, steps=5)[0], on_paper(settings, 5, LAYERS))


DRAWN = "self.drawn(parameter.numel())"
TOUCHED_ROWS_ONLY = f"{DRAWN} * (parameter.summed_grad.flatten() != 0)"
DESCENT = "self._optimizer.descend({p: totals[name] for name, p in self._parameters.items()}, grid)"
ACTUAL_BATCH = f"(setattr(self._optimizer, 'expected_batch_size', sum((c >= 0).sum() for c in batch)), {DESCENT})"


@pytest.mark.thinned(3)
@pytest.mark.parametrize(
    ("owner", "name", "part", "instead"),
    [
        (trainer.PrivateOptimizer, "add_noise", DRAWN, f"{DRAWN} // 2"),
        (trainer.PrivateOptimizer, "add_noise", "parameter in self._padding", "False"),
        (Trainer, "_step", "total_bound(layers)", "layers[0].clip / 2"),
        (Trainer, "__init__", "settings.expected_batch", "settings.expected_batch + 1"),
        (Trainer, "run", "poisson_sample(population, sampling.rate, self._rng)",
         "poisson_sample(population, sampling.rate / 2, self._rng)"),
        (trainer.PrivateOptimizer, "add_noise", DRAWN, TOUCHED_ROWS_ONLY),
        (Trainer, "_step", DESCENT, ACTUAL_BATCH),
    ],
)  # fmt: skip
def test_a_wrong_run_would_be_seen(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, part: str, instead: str
) -> None:
    switch_off(monkeypatch, owner, name, part, instead)
    with pytest.raises(AssertionError):
        test_a_run_is_that_on_paper(3)


# Adaptive clipping


def test_adaptive_clipping_moves_the_bound_and_thickens_the_noise() -> None:
    settings = replace(SETTINGS, clipping=Adaptive(0.5, rate=0.5, count_noise=1.0))
    z = settings.clipping.gradient_noise(settings.noise_multiplier)
    charged: list[Any] = []
    start, made = trained(settings, charge=lambda *charge: charged.append(charge))
    assert_same(start, on_paper(replace(SETTINGS, noise_multiplier=Fraction(z)), 1, {EVERYTHING: 0.5}))
    assert charged == [(Release(Gaussian(Fraction(3, 4)), PoissonSample(Fraction(1, 3)), EXAMPLE), 1)]
    assert isinstance(made.settings.clipping, Adaptive)
    assert made.settings.clipping.clip != 0.5
    assert made.settings == replace(settings, clipping=replace(settings.clipping, clip=made.settings.clipping.clip))


def test_an_adaptive_run_goes_on_where_it_was() -> None:
    settings = replace(SETTINGS, clipping=Adaptive(0.5, rate=0.5, count_noise=1.0))
    whole, _ = trained(settings, steps=4)
    rng = Prg(SEED)
    half, made = trained(settings, steps=2, rng=rng)
    other_half, _ = trained(made.settings, steps=2, start=half, rng=rng)
    assert_same(whole, other_half)


# Batches


def test_an_empty_batch_is_a_step_of_noise() -> None:
    start, _ = trained(rng=NOBODY)
    before, deviation = model(), 0.75 * 0.5
    for name, parameter in before.named_parameters():
        drawn = (deviation * noise(parameter.numel(), NOBODY).double() / DEVIATION).view_as(parameter).float()
        if name == "items.weight":
            drawn[0] = 0
        torch.testing.assert_close(start.get_parameter(name), parameter - RATE * drawn / 4)


def test_an_adaptive_empty_batch_is_a_step_of_noise() -> None:
    _, made = trained(replace(SETTINGS, clipping=Adaptive(0.5, count_noise=1.0)), rng=NOBODY)
    assert isinstance(made.settings.clipping, Adaptive)
    assert 0 < made.settings.clipping.clip < 1


def noise_of(steps_model: nn.Module) -> Tensor:
    return (steps_model.get_parameter("items.weight") - model().items.weight).detach()


def test_rows_that_nobody_looked_up_are_noised_and_padding_is_not() -> None:
    moved = noise_of(trained()[0])
    assert moved[7:].all()
    assert not moved[0].any()


@pytest.mark.parametrize("count", [1, 3])
def test_tiny_data(count: int) -> None:
    """Opacus would train on 3 examples with expected batch 4 as if nothing were amiss (test_opacus.py)."""
    data = TensorDataset(*(tensor[:count] for tensor in examples().tensors))
    charged: list[Any] = []
    trained(replace(SETTINGS, expected_batch=count), data=data, charge=lambda *charge: charged.append(charge))
    assert charged[0][0].sampling == PoissonSample(Fraction(1))
    assert curve(charged[0][0]) == pytest.approx(curve(replace(charged[0][0], sampling=Everyone())))
    with pytest.raises(UsageError, match=f"{count} examples are fewer than the expected batch of 4"):
        trained(data=data)
    with pytest.raises(UsageError, match="0 examples"):
        trained(data=TensorDataset(*(tensor[:0] for tensor in examples().tensors)))


@pytest.mark.parametrize("data", [list(examples()), torch.ones(COUNT, 3)])
def test_other_data_sets_are_refused(data: Any) -> None:
    """What an example looks like would be known from the examples only."""
    charged: list[Any] = []
    with pytest.raises(UsageError, match="TensorDataset"):
        trained(data=data, charge=lambda *charge: charged.append(charge))
    assert not charged


def test_a_model_that_draws_or_fails_is_refused_before_the_charge() -> None:
    charged: list[Any] = []
    for wrong in (lambda m, ids, y: loss(m, ids, y) * torch.rand(1).sum(), lambda m, ids, y: m.missing):
        with pytest.raises(UsageError, match="one example alone"):
            trained(loss=wrong, charge=lambda *charge: charged.append(charge))
    assert not charged


@pytest.mark.parametrize("draw", [random.random, np.random.random_sample])
def test_a_model_that_draws_from_other_generators_is_refused(
    draw: Callable[[], float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One draw serves a whole chunk. An example that raises is computed again, and all later ones draw others."""

    def drawing() -> list[Any]:
        charged = list[Any]()
        with suppress(UsageError):
            trained(loss=lambda m, ids, y: draw() * loss(m, ids, y), charge=lambda *charge: charged.append(charge))
        return charged

    assert not drawing()
    switch_off(monkeypatch, Trainer, "_rehearsed", "_generators() != before")
    assert drawing()


def test_a_reference_is_the_same_recipe_without_noise() -> None:
    start = model()
    made = Trainer.without_noise(start, torch.optim.SGD(start.parameters(), lr=RATE), loss, SETTINGS, rng=Prg(SEED))
    made.run(examples(), 1)
    batch = poisson_sample(COUNT, Fraction(1, 3), Prg(SEED))
    plain = model()
    total = reference.clipped_sum(plain, loss, [examples()[i] for i in batch], {EVERYTHING: 0.5})
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(start.get_parameter(name), parameter - RATE * total[name].float() / 4)


# Privacy spent


def test_charged_before_anything_is_drawn() -> None:
    def refuse(event: Any, count: int) -> None:
        raise BudgetError("enough")

    def no_rng(count: int) -> bytes:
        raise RuntimeError("something was drawn first")

    start = model()
    with pytest.raises(BudgetError):
        trained(start=start, charge=refuse, rng=no_rng)
    assert_same(start, model())
    with pytest.raises(RuntimeError, match="drawn first"):
        trained(start=start, rng=no_rng)


def test_that_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    switch_off(monkeypatch, Trainer, "run", "self._charge(Release(Gaussian(settings.noise_multiplier), sampling, self._guarantee), steps)", "None")  # fmt: skip  # noqa: E501
    with pytest.raises(RuntimeError, match="drawn first"):
        test_charged_before_anything_is_drawn()


def test_all_steps_are_charged_at_the_true_rate() -> None:
    accountant = RdpAccountant()
    trained(steps=7, charge=accountant.compose)
    [(event, count)] = accountant.events.items()
    assert count == 7
    assert event == Release(Gaussian(Fraction(3, 4)), PoissonSample(Fraction(4, COUNT)), EXAMPLE)


def test_what_an_example_is_is_what_is_charged() -> None:
    charged: list[Any] = []
    start = model()
    optimizer = torch.optim.SGD(start.parameters(), lr=RATE)
    users = Trainer(
        start, optimizer, loss, SETTINGS, charge=lambda *charge: charged.append(charge), rng=Prg(SEED), unit=Unit.USER
    )
    users.run(examples(), 2)
    [(event, count)] = charged
    assert count == 2
    assert event.guarantee == Guarantee(Unit.USER, Relation.ZERO_OUT, Trust.LOCAL)
    assert_same(start, trained(steps=2)[0])  # a word about the data, no other computation


def test_another_unit_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    switch_off(monkeypatch, Trainer, "run", "self._guarantee", "EXAMPLE")
    with pytest.raises(AssertionError):
        test_what_an_example_is_is_what_is_charged()


CRASH = """
import os, sys
sys.path[:0] = [os.getcwd()]
import torch
from dp.ledger import Ledger
from tests.dp.training.test_trainer import KEY, loss, trained

def crash(model, *example):
    if len(calls) == 1:  # a rehearsal without data comes before the charge
        os._exit(9)
    calls.append(1)
    return loss(model, *example)

calls = []
trained(steps=5, loss=crash, charge=Ledger.open(sys.argv[1], KEY).charge)
"""
KEY = SigningKey(b"k" * 32)


def one_ledger(path: Path) -> Path:
    """For the whole life of the data, created once."""
    budget = Budget(Fraction(400), Fraction(1, 10**5), slack=Fraction(0))
    Ledger.create(path, KEY, budget, EXAMPLE, run="training", elsewhere="nothing").close()
    return path


def counts(path: Path) -> list[int]:
    with closing(Ledger.open(path, KEY)) as ledger:
        return [entry["steps"]["count"] for entry in ledger.entries() if entry["phase"] == "commit"]


def test_a_crash_keeps_the_charge(tmp_path: Path) -> None:
    path = one_ledger(tmp_path / "ledger.db")
    assert subprocess.run([sys.executable, "-c", CRASH, str(path)], check=False).returncode == 9
    assert counts(path) == [5]


def test_rounds_add_up(tmp_path: Path) -> None:
    """With a fresh accountant each round, three rounds would seem to cost as much as one."""
    path = one_ledger(tmp_path / "ledger.db")
    for _ in range(3):  # each time after a restart
        with closing(Ledger.open(path, KEY)) as ledger:
            trained(steps=4, charge=ledger.charge)
    with pytest.raises(UsageError, match="a ledger at"):
        one_ledger(path)
    whole, fresh = RdpAccountant(), RdpAccountant()
    trained(steps=12, charge=whole.compose)
    trained(steps=4, charge=fresh.compose)
    assert counts(path) == [4, 4, 4]
    with closing(Ledger.open(path, KEY)) as ledger:
        assert ledger.spent.amounts == pytest.approx([1e12 * value for value in whole.curve])
    assert fresh.epsilon(1e-5) < 0.7 * whole.epsilon(1e-5)


def test_a_spent_budget_ends_the_training(tmp_path: Path) -> None:
    budget = Budget(Fraction(15), Fraction(1, 10**5), slack=Fraction(0))
    path = tmp_path / "ledger.db"
    with closing(Ledger.create(path, KEY, budget, EXAMPLE, run="training", elsewhere="nothing")) as ledger:
        start, _ = trained(charge=ledger.charge)
        before = [parameter.clone() for parameter in start.parameters()]
        with pytest.raises(BudgetError):
            trained(steps=1000, start=start, charge=ledger.charge)
    assert all(torch.equal(a, b) for a, b in zip(before, start.parameters(), strict=True))
    assert counts(path) == [1]


def test_nothing_without_noise_is_left_behind() -> None:
    start, _ = trained()
    for parameter in start.parameters():
        assert parameter.grad is None
        assert parameter.summed_grad is None  # type: ignore[attr-defined]


def what_stays() -> list[Any]:
    """On the parameters, after an optimiser that looks at them and fails: they are what people save."""
    seen, start = list[Any](), nn.Linear(3, 1)

    class Failing(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:
            seen.extend(parameter.summed_grad for parameter in start.parameters())
            raise RuntimeError("no step")

    made = Trainer(start, Failing(start.parameters(), lr=RATE), lambda model, x: model(x).sum(), SETTINGS,
                   charge=nothing, rng=Prg(SEED))  # fmt: skip
    with pytest.raises(RuntimeError, match="no step"):
        made.run(TensorDataset(torch.ones(COUNT, 3)), 1)
    return [one for one in [*seen, *(parameter.summed_grad for parameter in start.parameters())] if one is not None]


def test_an_optimiser_that_fails_leaves_no_sums() -> None:
    assert not what_stays()


def test_sums_that_stay_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    switch_off(monkeypatch, trainer.PrivateOptimizer, "add_noise", "(gradient, None)",
               "(gradient, parameter.summed_grad)")  # fmt: skip
    assert what_stays()


class Odd(nn.Module):
    """A number, a vector that is multiplied with, nothing, and two matrices of one size."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.line = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.ones(3))
        self.none = nn.Parameter(torch.ones(0, 3))
        self.first, self.second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
        for layer, value in (self.first, 1.0), (self.second, 2.0):
            nn.init.constant_(layer.weight, value)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * F.linear(self.second(self.first(x)), self.line) + (x @ self.none.T).sum()


def odd(change: Callable[[list[nn.Parameter]], Sequence[nn.Parameter]] = lambda parameters: parameters) -> nn.Module:
    made = Odd()
    optimizer = torch.optim.SGD([{"params": [one]} for one in change(list(made.parameters()))], lr=RATE)
    settings = Settings(Flat(1e4), Fraction(1, 10**5), expected_batch=COUNT)
    data = TensorDataset(torch.tensor([[1.0, 2.0, 3.0]]).expand(COUNT, 3))
    Trainer(made, optimizer, lambda model, x: model(x).sum(), settings, charge=nothing, rng=Prg(SEED)).run(data, 1)
    return made


def test_parameters_have_any_shape_and_the_optimiser_any_order() -> None:
    """Each takes its own step, that of the mean of these equal examples."""
    paper = Odd()
    paper(torch.tensor([[1.0, 2.0, 3.0]])).sum().backward()
    for made in odd(), odd(lambda parameters: parameters[::-1]):
        for one, own in zip(made.parameters(), paper.parameters(), strict=True):
            torch.testing.assert_close(one, own - RATE * own.grad, rtol=0, atol=0.5)


def test_an_order_that_is_taken_for_granted_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    switch_off(monkeypatch, trainer.PrivateOptimizer, "descend", "sums.items()", "zip(self.params, sums.values())")
    with pytest.raises((AssertionError, RuntimeError)):
        test_parameters_have_any_shape_and_the_optimiser_any_order()


def test_what_cannot_be_clipped_is_refused_before_anything_is_charged(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of gradients of a shape that nobody thought of."""

    def spent() -> list[Any]:
        charged = list[Any]()
        with pytest.raises((IndexError, UsageError)):
            trained(charge=lambda event, count: charged.append(event))
        return charged

    switch_off(
        monkeypatch, Dense, "squared_norms", "self.values.reshape(len(self.values), -1)", "self.values.flatten(7)"
    )
    assert not spent()
    rehearsed = "add_clipped(gradients, layers, torch.zeros(1, dtype=torch.bool), grid, self._zeros())"
    switch_off(monkeypatch, Trainer, "_rehearsed", rehearsed, "None")
    assert spent()


# Learning


def test_it_learns() -> None:
    draw = torch.Generator().manual_seed(4)
    inputs = torch.randn(600, 5, generator=draw)
    labels = (inputs @ torch.tensor([1.0, -2.0, 0.5, 0.0, 1.0]) > 0).long()
    line, accountant = nn.Linear(5, 2), RdpAccountant()
    trained(
        Settings(Flat(1.0), Fraction(2), expected_batch=120),
        start=line,
        steps=60,
        data=TensorDataset(inputs, labels),
        loss=lambda m, x, y: F.cross_entropy(m(x), y),
        charge=accountant.compose,
    )
    assert (line(inputs).argmax(1) == labels).double().mean() > 0.9
    assert accountant.epsilon(1e-5) < 5


def test_other_optimisers_keep_their_state() -> None:
    start = model()
    adam = torch.optim.Adam(start.parameters())
    for _ in range(2):  # rounds
        Trainer(start, adam, loss, SETTINGS, charge=nothing).run(examples(), 3)
    assert {int(state["step"]) for state in adam.state.values()} == {6}


# What is refused


def batch_norm() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3, affine=False), nn.Flatten(0))


def frozen_batch_norm() -> nn.Module:
    made = batch_norm()
    made[1].eval()
    return made


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (batch_norm, "BatchNorm"),
        (lambda: nn.Sequential(nn.BatchNorm1d(3)), "BatchNorm"),
        (lambda: nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3, track_running_stats=False)).eval(), "BatchNorm"),
        (lambda: nn.InstanceNorm1d(3, affine=True, track_running_stats=True), "statistics"),
        (lambda: nn.GRU(3, 3), "opacus.layers"),
        (lambda: nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.1)), "dropout"),
        (lambda: nn.Linear(3, 1).half(), "float32 or float64"),
    ],
)
def test_models_that_are_refused(make: Callable[[], nn.Module], message: str) -> None:
    charged: list[Any] = []
    with pytest.raises(UsageError, match=message):
        trained(start=make(), charge=lambda *charge: charged.append(charge))
    assert not charged


def test_a_frozen_batch_norm_is_no_danger() -> None:
    data = TensorDataset(torch.ones(4, 3))
    trained(start=frozen_batch_norm(), data=data, loss=lambda m, x: m(x).sum())


def test_optimisers_that_are_refused() -> None:
    start = model()
    for optimizer in (
        torch.optim.SGD(start.out.parameters(), lr=1.0),  # the rest would be clipped and noised for nothing
        torch.optim.SGD([*start.parameters(), nn.Parameter(torch.zeros(1))], lr=1.0),
        torch.optim.SGD(model().parameters(), lr=1.0),
    ):
        with pytest.raises(UsageError, match="optimiser"):
            Trainer(start, optimizer, loss, SETTINGS, charge=nothing)


def test_layers_that_do_not_fit_are_refused_before_the_charge() -> None:
    charged: list[Any] = []
    with pytest.raises(UsageError, match="layers that are trained"):
        trained(replace(SETTINGS, clipping=PerLayer({"out": 1.0})), charge=lambda *charge: charged.append(charge))
    assert not charged


@pytest.mark.parametrize(
    "change",
    [
        {"noise_multiplier": Fraction(0)},
        {"noise_multiplier": Fraction(-1)},
        {"expected_batch": 0},
        {"physical_batch": 0},
        {"clipping": Adaptive(1.0, count_noise=0.1)},
    ],
)
def test_settings_that_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        replace(SETTINGS, **change)


def test_no_steps_are_refused() -> None:
    with pytest.raises(UsageError, match="at least one step"):
        trained(steps=0)


def test_dp_does_not_import_torch() -> None:
    code = "import sys, dp, dp.events, dp.accountants; assert not {'torch', 'opacus'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=os.getcwd())
