"""Noise of local training that is missing somewhere, or comes again, is seen in its steps."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

pytest.importorskip("opacus")

import torch

from dp.audit import Verdict
from dp.audit.examples import step_claim
from dp.audit.steps import audit_steps, trainer_noise
from dp.training import noise, trainer
from secagg.crypto.prg import Prg
from tests.controls import switch_off

MULTIPLIER = Fraction(1, 64)
DRAWN = "self.drawn(parameter.numel())"
FRESH = "discrete_gaussian(variance, count, rng(SEED_BYTES))"


def seen() -> set[str]:
    checks = audit_steps(trainer_noise(1.0, MULTIPLIER, Prg(b"n" * 32)), step_claim(1.0, MULTIPLIER))
    return {check.name for check in checks if check.verdict is not Verdict.PASSED}


def test_the_trainer_passes() -> None:
    assert seen() == set()


@pytest.mark.parametrize(
    ("owner", "name", "part", "instead", "by"),
    [
        (trainer.PrivateOptimizer, "add_noise", DRAWN, f"0 * {DRAWN}", "noise variance"),
        (trainer.PrivateOptimizer, "add_noise", DRAWN, f"{DRAWN} * (parameter.dtype == torch.float32)",
         "noise in each place"),
        (noise, "noise", FRESH, "np.tile(discrete_gaussian(variance, 4096, rng(SEED_BYTES)), 99)[:count]",
         "noise repeats"),
        (noise, "noise", FRESH, "discrete_gaussian(variance, count, bytes(32))", "noise repeats"),
    ],
)  # fmt: skip
def test_what_is_missing_or_comes_again_is_seen(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, part: str, instead: str, by: str
) -> None:
    if owner is noise:
        monkeypatch.setattr(noise, "np", pytest.importorskip("numpy"), raising=False)
        switch_off(monkeypatch, noise, name, part, instead)
        monkeypatch.setattr(trainer, "noise", noise.noise)
    else:
        monkeypatch.setattr(trainer, "torch", torch)
        switch_off(monkeypatch, owner, name, part, instead)
    assert by in seen()
