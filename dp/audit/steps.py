"""Audit of the noise of local training, by steps in which no example has a gradient, so that only noise comes out.

Crafted examples (``dp.audit.examples``) show what one example moves; that is too far only beside the noise that is
claimed. So it is looked at like that of sums: whether all of it is there, in every coordinate of every parameter (of
one that is longer than a block of the sampler, of a table of which no row is looked up, of a single number, in float32
and in float64), in every step of one trainer and in those of the next, and not the same twice. Extra ``train``.
"""

from __future__ import annotations

import os
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from dp.audit.claim import FALSE_ALARM, Check, Claim
from dp.audit.coordinates import coordinates_check, patterns_checks, tails_check
from dp.audit.noise import peak_check, repeats_check, variance_check
from dp.audit.streams import LONG
from secagg.crypto.prg import Rng

_EXAMPLES = 4


class Still(nn.Module):  # type: ignore[misc]  # torch goes untyped here
    """A model whose gradient is always zero. It has 5 2^13 numbers, a length for which transforms are fast."""

    def __init__(self) -> None:
        super().__init__()
        self.long = nn.Parameter(torch.zeros(LONG))
        self.table = nn.Embedding(32, 64)
        self.wide = nn.Parameter(torch.zeros(2047, dtype=torch.float64))
        self.number = nn.Parameter(torch.tensor(0.0))

    def forward(self, ids: Tensor) -> Tensor:
        found = self.table(ids).sum() + self.long.sum() + self.wide.sum() + self.number
        return 0.0 * found


def trainer_noise(clip: float, noise_multiplier: Fraction, rng: Rng = os.urandom) -> NDArray[np.float64]:
    """The noise in the sums of ``dp.training.Trainer``, a row for each step: two of one trainer, two of another."""
    return np.concatenate([_noise_of_one(clip, noise_multiplier, rng) for _ in range(2)])


def _noise_of_one(clip: float, noise_multiplier: Fraction, rng: Rng) -> NDArray[np.float64]:
    from dp.training import Flat, Settings, Trainer

    model, rows = Still(), list[NDArray[np.float64]]()

    class Watched(torch.optim.SGD):  # type: ignore[misc]
        def step(self, closure: None = None) -> None:
            rows.append(torch.cat([p.grad.double().flatten() for p in model.parameters()]).numpy().copy())

    settings = Settings(Flat(clip), noise_multiplier, expected_batch=_EXAMPLES // 2)
    trainer = Trainer(
        model,
        Watched(model.parameters()),
        lambda model, ids: model(ids),
        settings,
        charge=lambda event, count: None,
        rng=rng,
    )
    examples = TensorDataset(torch.zeros(_EXAMPLES, 1, dtype=torch.int64))
    trainer.run(examples, 2)
    return np.stack(rows) * settings.expected_batch


def audit_steps(residuals: NDArray[np.float64], claim: Claim, *, false_alarm: float = FALSE_ALARM) -> tuple[Check, ...]:
    """The checks of ``residuals``, which are the noise of steps, a row for each."""
    noise = claim.noise
    return (
        variance_check(residuals, claim, false_alarm),
        peak_check(residuals, claim, false_alarm),
        repeats_check(residuals, noise, false_alarm),
        coordinates_check(residuals, noise, false_alarm),
        *patterns_checks(residuals, noise, false_alarm),
        tails_check(residuals, noise, false_alarm),
    )
