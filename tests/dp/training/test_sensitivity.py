"""What a paper gets for free: one example, whatever it is, moves the sum of a step by the clipping bound at most.

Two worlds differ in one example: in the other one it counts as zero. All else is the same: who is sampled, where each
lies, the noise. The models after the step may be so far apart as the bound allows, and no further.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import count
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from dp.audit.examples import Keeping, Weighted
from dp.training import Flat, PerLayer, Settings, Trainer, chunks, clipping, gradients, isolate, trainer
from dp.training.chunks import Chunks
from dp.training.gradients import Dense, Gradients, Products, Rows
from dp.training.noise import DEVIATION, Grid
from secagg.crypto.prg import Prg
from tests.controls import switch_off

ROWS, WIDTH, LENGTH = 4, 3, 4
CLIP, COUNT, RATE = 1.0, 9, 1.0
NAN = math.nan


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(7)


# One step of the trainer, in both worlds


class Kinked(nn.Module):
    """A layer, a kink, a layer; the first is used at every position."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(WIDTH, 5), nn.Linear(5, 1, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(self.first(inputs).relu()).sum((1, 2))


class Tied(nn.Module):
    """One table for look-ups, for products and by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(ROWS, WIDTH)

    def forward(self, ids: Tensor, weights: Tensor) -> Tensor:
        taste = (self.items(ids) * weights.unsqueeze(2)).sum(1)
        return F.linear(taste, self.items.weight).logsumexp(1) + (taste @ self.items.weight.T).sum(1)


def step(model: nn.Module, clipping: Any, data: tuple[Tensor, ...], *, physical: int = 100, seed: int = 0) -> Tensor:
    """The model after one step in which everybody is sampled, as one vector in float64."""
    made = Trainer(
        model,
        torch.optim.SGD(model.parameters(), lr=RATE),
        lambda model, *inputs: model(*inputs).sum(),
        Settings(clipping, Fraction(1), expected_batch=len(data[0]), physical_batch=physical),
        charge=lambda event, count: None,
        rng=Prg(seed.to_bytes(32, "big")),
    )
    made.run(TensorDataset(*data), 1)
    return torch.cat([parameter.detach().double().flatten() for parameter in model.parameters()])


def moved(
    make: Callable[[], nn.Module], data: tuple[Tensor, ...], odd: int, clipping: Any = None, **options: Any
) -> float:
    """By how much example ``odd`` moves the sum, in bounds. In the other world it has no gradient: numbers are NaN."""
    clipping = clipping or Flat(CLIP)
    others = tuple(tensor.clone() for tensor in data)
    for tensor in others:
        tensor[odd] = NAN if tensor.is_floating_point() else 0
    results = []
    for world in (data, others):
        torch.manual_seed(7)
        results.append(step(make(), clipping, world, **options))
    bound = math.hypot(*clipping.clips.values()) if isinstance(clipping, PerLayer) else clipping.clip
    return float((results[0] - results[1]).norm()) * len(data[0]) / RATE / bound


def looked_up(odd: int, ids: list[int], weights: list[float]) -> tuple[Tensor, Tensor]:
    all_ids, all_weights = torch.randint(0, ROWS, (COUNT, LENGTH)), torch.ones(COUNT, LENGTH)
    all_ids[odd], all_weights[odd] = torch.tensor(ids), torch.tensor(weights)
    return all_ids, all_weights


HUGE = [0.0, 1.0, -1.0, 1e10, -1e10, 1e-30, 1e20, -1e20, 3e38, 1e-45, math.inf, NAN]
numbers = st.one_of(st.sampled_from(HUGE), st.floats(width=32))
LONG = os.environ.get("SECAGG_HYPOTHESIS") == "long"
whole_steps = settings(deadline=None) if LONG else settings(deadline=None, max_examples=20)
"""Whole steps of training: 20 by default, as many as everywhere in ``make test-long``."""
LEAST = 1e-3
"""Models are float32, and a step of 1 / 9 of the bound on numbers of about 1 rounds by so much at most."""


@whole_steps
@given(
    make=st.sampled_from([Weighted, Tied]),
    ids=st.lists(st.integers(0, ROWS - 1), min_size=LENGTH, max_size=LENGTH),
    weights=st.lists(numbers, min_size=LENGTH, max_size=LENGTH),
    odd=st.integers(0, COUNT - 1),
    physical=st.sampled_from([1, 2, 5, 9, 100]),
    seed=st.integers(0, 3),
)
def test_no_look_up_moves_the_sum_further(
    make: Callable[[], nn.Module], ids: list[int], weights: list[float], odd: int, physical: int, seed: int
) -> None:
    assert moved(make, looked_up(odd, ids, weights), odd, physical=physical, seed=seed) <= 1 + LEAST


@whole_steps
@given(
    inputs=st.lists(numbers, min_size=2 * WIDTH, max_size=2 * WIDTH),
    odd=st.integers(0, COUNT - 1),
    layers=st.booleans(),
    physical=st.sampled_from([1, 2, 5, 9, 100]),
)
def test_no_product_moves_the_sum_further(inputs: list[float], odd: int, layers: bool, physical: int) -> None:
    data = torch.randn(COUNT, 2, WIDTH)
    data[odd] = torch.tensor(inputs).reshape(2, WIDTH)
    clipping = PerLayer({"first": 0.3, "last": 2.0}) if layers else Flat(CLIP)
    assert moved(Kinked, (data,), odd, clipping, physical=physical) <= 1 + LEAST


def cancelling() -> float:
    """One row again and again, with weights that add up to nothing: the gradient is zero, its terms are not."""
    ids, weights = torch.full((COUNT, LENGTH), 2), torch.ones(COUNT, LENGTH)
    weights[4] = torch.tensor([1e10, -1e10, 1e10, -1e10])
    return max(moved(Weighted, (ids, weights), 4, seed=seed) for seed in range(8))  # the place decides who is lost


def repeated() -> float:
    return moved(Weighted, looked_up(4, [2, 2, 2, 2], [1e5, 1e5, 1e5, 1e5]), 4)


def ordinary() -> float:
    return moved(Weighted, looked_up(4, [0, 1, 2, 3], [1.0, 1.0, 1.0, 1.0]), 4)


class Sums(nn.Module):
    """The same layer at two positions, and the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, 5, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(inputs).sum((1, 2))


def cancelling_products() -> float:
    data = torch.randn(COUNT, 2, WIDTH)
    data[4, 0], data[4, 1] = 1e30, -1e30
    return moved(Sums, (data,), 4)


def nearly_cancelling() -> float:
    """Terms of 1e9, whose sum is in the tens: all of it is clipped by its own norm, not by that of its terms."""
    data = torch.zeros(COUNT, 2, WIDTH)
    data[4, 0], data[4, 1] = 1e9, -1e9 + 64
    return moved(Sums, (data,), 4)


def out_of_range() -> float:
    """The model raises at an example; in the other world it has no gradient."""
    ids, weights = looked_up(4, [0, 1, ROWS, 3], [1.0, 1.0, 1.0, 1.0])
    return moved(Weighted, (ids, weights), 4)


def test_what_cancels_takes_nobody_along() -> None:
    assert cancelling() <= LEAST
    assert cancelling_products() <= LEAST


def test_what_repeats_is_one_row() -> None:
    assert repeated() == pytest.approx(1, abs=LEAST)
    assert ordinary() == pytest.approx(1, abs=LEAST)


def test_an_example_at_which_the_model_raises_counts_as_zero() -> None:
    assert out_of_range() <= LEAST


def test_what_nearly_cancels_is_clipped_by_its_own_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    assert nearly_cancelling() == pytest.approx(1, abs=LEAST)
    switch_off(monkeypatch, Products, "of", "terms > _CANCELLED * squares.sqrt()", "terms < 0")
    assert nearly_cancelling() < 0.9


class OldRows(Rows):
    """As it was: norms of what was added up, and then every term added by itself, in float32."""

    @classmethod
    def of(cls, ids: Tensor, values: Tensor) -> Any:
        found = COALESCED(ids, values)
        found = cls(found.ids, found.sums)
        KEPT[id(found.sums)] = ids, values
        return found

    def add_scaled(self, factors: Tensor, total: Tensor) -> None:
        ids, values = KEPT[id(self.sums)]
        floats = total.float()
        scaled = (values.nan_to_num() * factors.float()[:, None, None]).flatten(0, 1)
        total.copy_(floats.index_add_(0, ids.flatten(), scaled))


COALESCED, KEPT = Rows.of, dict[int, tuple[Tensor, Tensor]]()


def test_the_old_sums_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradients, "Rows", OldRows)
    assert cancelling() > 4


@pytest.mark.parametrize(
    ("owner", "name", "changes", "attack"),
    [
        (Rows, "of", {
            "place.gather(1, back)": "torch.arange(ids.shape[1]).expand_as(ids)",
            "torch.zeros_like(ids).scatter_(1, place, ordered)": "ids",
        }, repeated),
        (gradients, "_masked", {"torch.where(_beside(factors, values) > 0, values.double(), 0.0)": "values.double()"},
         ordinary),
        (trainer, "add_clipped", {"norms.clamp(min=layer.clip)": "layer.clip"}, repeated),
    ],
)  # fmt: skip
def test_that_would_be_seen(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, changes: dict[str, str], attack: Callable[[], float]
) -> None:
    for part, instead in changes.items():
        switch_off(monkeypatch, owner, name, part, instead)
    assert attack() > 1.1


def test_an_error_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    switch_off(monkeypatch, trainer, "gradients_of", "_raises(compute, examples, chunk, position)", "False")
    with pytest.raises(IndexError):
        out_of_range()


def test_an_error_that_is_nobodys_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when memory runs out: all examples would count as zero, and nobody would know."""
    calls, computed = count(1), chunks._fetched

    def failing(*arguments: Any) -> Any:
        if next(calls) in (1, COUNT + 2):  # all together, before and after each was tried by itself
            raise MemoryError("no more")
        return computed(*arguments)

    monkeypatch.setattr(chunks, "_fetched", failing)
    with pytest.raises(MemoryError, match="no more"):
        step(Weighted(), Flat(CLIP), looked_up(4, [0, 1, 2, 3], [1.0] * 4))


# A machine on which the last bits depend on the size of a batch and the place in it


@pytest.fixture
def uneven(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than last bits, so that it is seen on every machine."""

    def vmap(info: Any, in_dims: Any, mark: Tensor, function: Any, input: Tensor) -> tuple[Tensor, int]:
        output, dim = EVEN(info, in_dims, mark, function, input)
        places = torch.arange(1.0, 1 + len(output)).view(-1, *[1] * (output.dim() - 1))
        return output + 0.01 * torch.sin(len(output) + 3 * places), dim

    monkeypatch.setattr(isolate._Together, "vmap", staticmethod(vmap))


EVEN = isolate._Together.vmap


def kinked(odd: Tensor) -> tuple[Tensor, Tensor]:
    """Everybody but one is at the kink."""
    data, ids = torch.full((COUNT, 1, WIDTH), 1e-6), torch.zeros(COUNT, 1, dtype=torch.int64)
    ids[4] = odd
    return ids, data


class AtKink(nn.Module):
    """Rows of a table, and a layer whose outputs lie at its kink."""

    def __init__(self) -> None:
        super().__init__()
        self.items, self.layer = nn.Embedding(ROWS, WIDTH), nn.Linear(WIDTH, 1)
        nn.init.zeros_(self.items.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, ids: Tensor, inputs: Tensor) -> Tensor:
        return 100 * self.layer(inputs + self.items(ids)).relu().sum((1, 2))


def company(odd_fails: bool, physical: int = 100) -> Tensor:
    ids, data = kinked(torch.tensor(ROWS if odd_fails else 0))
    if not odd_fails:
        data[4] = NAN
    torch.manual_seed(7)
    return step(AtKink(), Flat(CLIP), (ids, data), physical=physical)


@pytest.mark.usefixtures("uneven")
@pytest.mark.parametrize("physical", [2, 100])
def test_nobody_is_moved_by_the_company(physical: int) -> None:
    torch.testing.assert_close(company(True, physical), company(False, physical))


@pytest.mark.usefixtures("uneven")
def test_the_company_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """If whoever fails is left out, or another's data fill the place, all others lie elsewhere."""
    left_out = "np.array([one for at, one in enumerate(chunk) if at not in raising])"
    switch_off(
        monkeypatch, trainer, "gradients_of", "np.where(np.isin(np.arange(len(chunk)), raising), -1, chunk)", left_out
    )
    assert float((company(True) - company(False)).norm()) > 0.1


# Chunks


def test_all_steps_compute_the_same_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = list[Any]()
    computed = chunks._fetched

    def watched(*arguments: Any) -> Any:
        found = computed(*arguments)
        shapes.append([tuple(tensor.shape) for tensor in found])
        return found

    monkeypatch.setattr(chunks, "_fetched", watched)
    model = Weighted()
    made = Trainer(
        model, torch.optim.SGD(model.parameters(), lr=RATE), lambda model, *inputs: model(*inputs).sum(),
        Settings(Flat(CLIP), Fraction(1), expected_batch=3, physical_batch=4), charge=lambda event, count: None,
    )  # fmt: skip
    made.run(TensorDataset(*looked_up(4, [0, 1, 2, 3], [1.0] * 4)), 20)
    assert len(shapes) == 60
    assert all(one == [(4, LENGTH), (4, LENGTH)] for one in shapes)


def test_a_sample_that_is_too_large_is_still_computed() -> None:
    sample = torch.arange(10).numpy()
    found = Chunks(count=2, size=3).filled(sample, Prg(bytes(32)))
    assert [len(chunk) for chunk in found] == [3, 3, 3, 3]
    assert sorted(one for chunk in found for one in chunk if one >= 0) == sample.tolist()


def test_places_are_random_and_secret() -> None:
    rng = Prg(bytes(32))
    first = [next(at for at, one in enumerate(Chunks(1, 8).filled(torch.arange(3).numpy(), rng)[0]) if one == 0)
             for _ in range(400)]  # fmt: skip
    counts = [first.count(place) for place in range(8)]
    assert sum((count - 50) ** 2 / 50 for count in counts) < 60  # chi^2 of 7: one in 10^10


def test_samples_fit_their_places() -> None:
    from scipy.stats import binom

    for population, rate in [
        (100, Fraction(1, 5)),
        (10_000, Fraction(1, 100)),
        (1000, Fraction(1, 2)),
        (5, Fraction(1)),
    ]:
        found = Chunks.of(population, rate, largest=7)
        assert binom.sf(found.count * found.size, population, float(rate)) <= 2.0**-40


# Exact norms of what is added


def integers(
    gradient: Gradients, shape: tuple[int, ...], multiplier: float = 1.0, clip: float = 0.7
) -> tuple[int, float]:
    """The squared norm of what the only example of a gradient adds, exactly; and the limit."""
    grid = Grid.of(multiplier, clip, 0.0)
    total = torch.zeros(shape, dtype=torch.int64)
    layers = Flat(clip).layers(["w"])
    clipping.add_clipped({"w": gradient}, layers, torch.ones(1, dtype=torch.bool), grid, {"w": total})
    return sum(int(value) ** 2 for value in total.flatten().tolist()), grid.limit


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.lists(finite, min_size=1, max_size=12), st.sampled_from([0.3, 1.0, 17.0, 1e4]))
def test_what_is_written_out_is_never_longer(values: list[float], multiplier: float) -> None:
    found, limit = integers(Dense(torch.tensor([values])), (len(values),), multiplier)
    assert found <= Fraction(limit) ** 2


@given(
    st.lists(st.tuples(st.integers(0, 3), finite), min_size=1, max_size=8),
    st.sampled_from([0.3, 1.0, 17.0, 1e4]),
)
def test_what_is_looked_up_is_never_longer(terms: list[tuple[int, float]], multiplier: float) -> None:
    ids, values = zip(*terms, strict=True)
    found, limit = integers(Rows.of(torch.tensor([ids]), torch.tensor([values]).unsqueeze(2)), (4, 1), multiplier)
    assert found <= Fraction(limit) ** 2


@given(st.lists(finite, min_size=12, max_size=12), st.sampled_from([0.3, 1.0, 17.0, 1e4]))
def test_products_are_longer_by_their_rounding_at_most(values: list[float], multiplier: float) -> None:
    sides = torch.tensor(values).reshape(1, 2, 6)
    products = Products.of(sides[:, :, :4], sides[:, :, 4:])
    found, limit = integers(products, (4, 2), multiplier)
    assert found <= (Fraction(limit) + Fraction(products.rounding(1, limit))) ** 2


def cancelled(sides: Tensor) -> float:
    """The most by which the terms of an example in the common product are longer than their sum."""
    products = Products.of(sides[:, :, :4], sides[:, :, 4:])
    terms = (sides[:, :, :4].double().norm(dim=2) * sides[:, :, 4:].double().norm(dim=2)).sum(1)
    shares = terms / products.squares.sqrt().clamp(min=1e-300)
    return max([0.0, *(float(share) for at, share in enumerate(shares) if at not in products.apart)])


@given(st.lists(st.floats(-100, 100, width=32), min_size=24, max_size=24))
def test_terms_in_the_common_product_do_not_cancel(values: list[float]) -> None:
    sides = torch.tensor(values).reshape(2, 2, 6)
    sides[1, 1, :4], sides[1, 1, 4:] = sides[1, 0, :4], -sides[1, 0, 4:] * (1 + 1e-6)
    assert cancelled(sides) <= 1024 * (1 + 1e-9)


def test_that_they_do_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    switch_off(monkeypatch, Products, "of", "terms > _CANCELLED * squares.sqrt()", "terms < 0")
    sides = torch.ones(1, 2, 6)
    sides[0, 1, 4:] *= -1
    assert cancelled(sides) > 1e6


def shortened() -> Fraction:
    """By how much the norm of a product of very small and very large numbers is taken for less than it is, squared."""
    left, right = (torch.full((1, 2, 3), value, dtype=torch.float64) for value in (1.5e-162, 1e152))
    [taken] = Products.of(left, right).squared_norms().tolist()
    return 9 * (2 * Fraction(1.5e-162) * Fraction(1e152)) ** 2 / max(Fraction(taken), Fraction(1, 10**300))


def test_what_is_too_small_to_be_squared_is_not_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shortened() <= 1
    switch_off(monkeypatch, Products, "of", "_underflow(wide_left, wide_right)", "0.0")
    assert shortened() > 1e6


def counted() -> float:
    ids, weights = looked_up(4, [0, 1, ROWS, 3], [1.0, 1.0, 1.0, 1.0])
    return max(moved(Keeping, (ids, weights), 4, physical=2, seed=seed) for seed in range(4))


def test_a_model_keeps_nothing_in_parameters_that_are_not_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    assert counted() <= LEAST
    switch_off(monkeypatch, Trainer, "_gradients", "self._parameters.values()", "self._model.parameters()")
    assert counted() > 1.1


def test_rounding_to_the_nearest_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    values, multiplier = torch.ones(1, 1000), DEVIATION / (100.5 * math.sqrt(1000))
    found, limit = integers(Dense(values), (1000,), multiplier)
    assert found <= Fraction(limit) ** 2
    whole = "(_masked(values, factors) * _beside(factors, values))"
    switch_off(monkeypatch, gradients, "_scaled", f"{whole}.trunc_()", f"{whole}.add_(0.01).round_()")
    found, limit = integers(Dense(values), (1000,), multiplier)
    assert found > Fraction(limit) ** 2


def true_square(values: list[float]) -> Fraction:
    return sum((Fraction(value) ** 2 for value in values), Fraction())


@given(st.lists(st.floats(0.5, 1.0, width=64), min_size=1, max_size=50))
def test_norms_are_not_below_the_true_ones(values: list[float]) -> None:
    square = Dense(torch.tensor([values], dtype=torch.float64)).squared_norms()
    assert Fraction(float(clipping.norms_above(square, len(values)))) ** 2 >= true_square(values)


def test_too_small_norms_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = torch.Generator().manual_seed(1)
    some = [torch.rand(30, generator=draw, dtype=torch.float64) for _ in range(50)]

    def shortest() -> Fraction:
        return min(
            Fraction(float(clipping.norms_above(Dense(one.unsqueeze(0)).squared_norms(), 30))) ** 2
            / true_square(one.tolist()) for one in some
        )  # fmt: skip

    assert shortest() >= 1
    switch_off(
        monkeypatch, clipping, "norms_above", "squares.sqrt() * (1 + (numbers + 32) * 2.0**-52)", "squares.sqrt()"
    )
    assert shortest() < 1


# The noise is as large as what one example moves


def grids(monkeypatch: pytest.MonkeyPatch, multiplier: Fraction) -> Iterator[Grid]:
    seen = list[Grid]()

    def watched(self: Any, sums: Any, grid: Grid) -> None:
        seen.append(grid)

    monkeypatch.setattr("dp.training.trainer.PrivateOptimizer.descend", watched)
    model = Kinked()
    made = Trainer(
        model, torch.optim.SGD(model.parameters(), lr=RATE), lambda model, *inputs: model(*inputs).sum(),
        Settings(Flat(CLIP), multiplier, expected_batch=COUNT), charge=lambda event, count: None,
    )  # fmt: skip
    made.run(TensorDataset(torch.randn(COUNT, 2, WIDTH)), 1)
    yield from seen


@pytest.mark.parametrize("multiplier", [Fraction(1, 3), Fraction(1), Fraction(1000)])
def test_noise_covers_what_products_round(monkeypatch: pytest.MonkeyPatch, multiplier: Fraction) -> None:
    [grid] = grids(monkeypatch, multiplier)
    sides = [torch.zeros(COUNT, 2, width) for width in (5, WIDTH, 1, 5)]
    products = [Products.of(sides[0], sides[1]), Products.of(sides[2], sides[3])]
    further = math.hypot(*(one.rounding(COUNT, grid.limit) for one in products))
    assert multiplier * Fraction(grid.limit + further) <= DEVIATION
    assert multiplier * Fraction(grid.limit) >= DEVIATION * Fraction(98, 100)


def test_too_little_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    switch_off(monkeypatch, Trainer, "_rehearsed", "further / (1 - _MOST_ROUNDING)", "0.0")
    with pytest.raises(AssertionError):
        test_noise_covers_what_products_round(monkeypatch, Fraction(1000))


def test_sums_that_round_too_much_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from secagg.errors import UsageError

    with pytest.raises(UsageError, match="sums round by"):
        list(grids(monkeypatch, Fraction(20_000)))
    switch_off(monkeypatch, Trainer, "_rehearsed", "further > _MOST_ROUNDING")
    list(grids(monkeypatch, Fraction(20_000)))
