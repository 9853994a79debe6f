"""Seeds are fixed, so nothing varies from run to run; the thresholds are what a right sampler would exceed with the
probability given, all together below 1e-8.
"""

from __future__ import annotations

import math
import os
from math import erf, sqrt

import numpy as np
import pytest
import torch

from dp.training import noise
from dp.training.noise import gaussian
from secagg.errors import UsageError
from secagg.prg import Prg
from tests.adversarial.attack import switch_off

COUNT = 1 << 19
SEED = b"distribution of training noise ."
_cdf = np.vectorize(lambda x: (1 + erf(x / sqrt(2))) / 2)


def problems(samples: torch.Tensor) -> list[str]:
    """What is wrong with standard normal samples; each item is false with probability below 1e-9."""
    x = samples.numpy()
    root = math.sqrt(len(x))
    ordered = np.sort(x)[:: len(x) // 4096]  # the greatest distance on a grid is at most that of Kolmogorov
    distance = np.abs(_cdf(ordered) - np.arange(len(x))[:: len(x) // 4096] / len(x)).max()
    found = {
        "distribution": distance * root > 3.3 + 1 / root,  # 2 exp(-2 * 3.3^2) < 1e-9
        "mean": abs(x.mean()) * root > 6.2,
        "variance": abs(np.mean(x**2) - 1) * root / sqrt(2) > 6.5,
        "skewness": abs(np.mean(x**3)) * root / sqrt(15) > 6.5,
        "kurtosis": abs(np.mean(x**4) - 3) * root / sqrt(96) > 7,
        "neighbours": abs(np.mean(x[1:] * x[:-1])) * root > 6.5,
        "blocks": abs(np.mean(x[noise._BLOCK :] * x[: -noise._BLOCK])) * root > 6.5,
        "tail": abs(np.mean(np.abs(x) > 3.5) - 4.6526e-4) * root / 0.02157 > 7,
    }
    return [name for name, wrong in found.items() if wrong]


def test_it_is_gaussian() -> None:
    assert problems(gaussian(COUNT, 1.0, Prg(SEED))) == []
    assert problems(gaussian(COUNT, 250.0, Prg(SEED)) / 250) == []


@pytest.mark.parametrize(
    ("part", "instead", "caught_by"),
    [
        ("deviation / 2", "deviation / 4", "variance"),  # halved
        ("deviation / 2", "deviation / 2 * 1.02", "variance"),  # 2% off
        ("angle.cos() + angle.sin()", "angle.cos()", "variance"),  # half of it forgotten
        ("angle.cos() + angle.sin()", "angle.sign() * 2 ** 0.5", "mean"),
        ("rng(SEED_BYTES)", "bytes(32)", None),
    ],
)
def test_a_wrong_sampler_is_caught(
    monkeypatch: pytest.MonkeyPatch, part: str, instead: str, caught_by: str | None
) -> None:
    switch_off(monkeypatch, noise, "gaussian", part, instead)
    if caught_by is None:  # a seed that repeats
        with pytest.raises(AssertionError):
            differs_every_time()
    else:
        assert caught_by in problems(noise.gaussian(COUNT, 1.0, Prg(SEED)))


def differs_every_time() -> None:
    """No state, hence none that a fork could copy."""
    assert not torch.equal(noise.gaussian(100, 1.0, os.urandom), noise.gaussian(100, 1.0, os.urandom))


def test_it_differs_every_time() -> None:
    differs_every_time()


def test_opacus_generator_would_repeat_after_a_fork() -> None:
    """torch's generator is state: a copy of it, as a forked process has one, draws the same noise."""
    state = torch.get_rng_state()
    one = torch.normal(0, 1, (5,))
    torch.set_rng_state(state)
    torch.testing.assert_close(one, torch.normal(0, 1, (5,)))


def test_a_number_is_half_the_sum_of_four_samples() -> None:
    words = np.frombuffer(Prg(Prg(SEED)(32))(32 * 3), "<u8").reshape(2, 2, 3)
    radius = np.sqrt(-2 * np.log(((words[0] >> np.uint64(11)) + np.uint64(1)) * 2.0**-53))
    angle = 2 * np.pi * ((words[1] >> np.uint64(11)) * 2.0**-53)
    four = [*(radius * np.cos(angle)), *(radius * np.sin(angle))]
    np.testing.assert_allclose(gaussian(3, 5.0, Prg(SEED)), 5.0 * sum(four) / 2, rtol=1e-12)


@pytest.mark.parametrize("byte", [b"\x00", b"\xff"])
def test_extreme_uniforms_give_finite_noise(monkeypatch: pytest.MonkeyPatch, byte: bytes) -> None:
    class Stuck:
        def update(self, data: bytes) -> bytes:
            return byte * len(data)

    monkeypatch.setattr(noise, "keystream", lambda seed: Stuck())
    assert gaussian(10, 1.0, os.urandom).isfinite().all()
    assert gaussian(10, 1.0, os.urandom).abs().max() <= 18


@pytest.mark.parametrize("count", [0, 1, noise._BLOCK - 1, noise._BLOCK, noise._BLOCK + 1])
def test_any_count(count: int) -> None:
    assert gaussian(count, 1.0, os.urandom).shape == (count,)


@pytest.mark.parametrize(("count", "deviation"), [(-1, 1.0), (1, 0.0), (1, -1.0), (1, math.inf), (1, math.nan)])
def test_nonsense_is_refused(count: int, deviation: float) -> None:
    with pytest.raises(UsageError):
        gaussian(count, deviation, os.urandom)
