"""The sampler itself is tested in tests/secagg; here, that training takes the law and the deviation that it charges."""

from __future__ import annotations

import math
import os
from fractions import Fraction

import pytest
import torch
from mpmath import log

from dp.accountants.rdp import curve
from dp.events import Gaussian, Guarantee, PoissonSample, Relation, Release, Trust, Unit
from dp.training import noise as module
from dp.training.noise import DEVIATION, Grid, noise
from secagg.crypto.prg import Prg
from secagg.crypto.sampling import LARGEST_VARIANCE
from secagg.crypto.sampling.draws import discrete_gaussian
from secagg.errors import UsageError
from tests.controls import switch_off
from tests.reference.noise import gaussian


def test_it_is_the_discrete_gaussian_of_that_deviation() -> None:
    assert DEVIATION**2 == LARGEST_VARIANCE
    seed = Prg(bytes(32))(32)
    assert noise(5, Prg(bytes(32))).tolist() == discrete_gaussian(Fraction(DEVIATION) ** 2, 5, seed).tolist()
    assert noise(5, Prg(bytes(32)), Fraction(9)).tolist() == discrete_gaussian(Fraction(9), 5, seed).tolist()


def differs_every_time() -> None:
    """No state, hence none that a fork could copy."""
    assert not torch.equal(noise(100, os.urandom), noise(100, os.urandom))


def test_it_differs_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    differs_every_time()
    switch_off(monkeypatch, module, "noise", "rng(SEED_BYTES)", "bytes(32)")
    monkeypatch.setitem(globals(), "noise", module.noise)
    with pytest.raises(AssertionError):
        differs_every_time()


@pytest.mark.parametrize("multiplier", [1e-3, 0.3, 1.0, 7.7, 1e5])
@pytest.mark.parametrize("bound", [1e-12, 0.7, 1e12])
@pytest.mark.parametrize("rounding", [0.0, 0.01])
def test_noise_is_the_multiplier_times_what_one_example_moves(multiplier: float, bound: float, rounding: float) -> None:
    """Exactly, in the rationals that the floats are."""
    grid = Grid.of(multiplier, bound, rounding)
    moved = Fraction(grid.limit) * (1 + Fraction(rounding))
    assert moved * Fraction(multiplier) <= DEVIATION
    assert moved * Fraction(multiplier) >= DEVIATION * (1 - Fraction(1, 10**11))
    assert grid.limit * grid.unit == pytest.approx(bound)


def test_layers_share_the_limit() -> None:
    grid = Grid.of(1.0, math.hypot(0.3, 0.4), 0.0)
    assert math.hypot(grid.share(0.3), grid.share(0.4)) == pytest.approx(grid.limit)


@pytest.mark.parametrize("multiplier", [1e-7, 1e7, math.inf])
def test_what_no_integer_can_hold_is_refused(multiplier: float) -> None:
    with pytest.raises(UsageError, match="noise multiplier"):
        Grid.of(multiplier, 1.0, 0.0)


@pytest.mark.parametrize("rate", [Fraction(1, 20), Fraction(1, 2), Fraction(1)])
@pytest.mark.parametrize("shift", [1, 3, 5])
@pytest.mark.parametrize("order", [2, 8])
def test_integers_cost_no_more_than_what_is_charged(rate: Fraction, shift: int, order: int) -> None:
    """With and without sampling, in both directions, on a deviation at which sums can be written out."""
    deviation, example = 4, Guarantee(Unit.EXAMPLE, Relation.ZERO_OUT, Trust.LOCAL)
    half = gaussian(Fraction(deviation**2))
    law = {x: half[abs(x)] for x in range(1 - len(half), len(half))}
    inside = [x for x in law if x - shift in law]
    without = [law[x] for x in inside]
    mixed = [(1 - float(rate)) * law[x] + float(rate) * law[x - shift] for x in inside]
    release = Release(Gaussian(Fraction(deviation, shift)), PoissonSample(rate), example)
    [charged] = curve(release, (order,))
    for one, other in ((mixed, without), (without, mixed)):
        cost = sum(p**order * q ** (1 - order) for p, q in zip(one, other, strict=True))
        assert float(log(cost)) / (order - 1) <= charged * (1 + 1e-9)
    assert charged == pytest.approx(float(log(sum(
        p**order * q ** (1 - order) for p, q in zip(mixed, without, strict=True)
    ))) / (order - 1), rel=1e-6)  # fmt: skip
