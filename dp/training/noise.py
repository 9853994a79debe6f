"""Gaussian noise for gradients: AES-CTR, Box-Muller in float64, and the sum of four samples for each number.

This is floating-point noise, for local training only: inside a secure sum noise is discrete (``dp.noise``). A single
floating-point Gaussian can be told from the grid on which its sampler lives (Mironov 2012; Jin et al. 2022, also
against Opacus). So each number here is (x1 + x2 + x3 + x4) / 2 of independent samples, which nobody can take apart in
feasible time (Holohan and Braghin 2021, "Secure random sampling in differential privacy", section 5.1, n = 2); Opacus
does the same in its secure mode, for which it needs torchcsprng, which no longer exists.

A uniform has 53 bits, so a sample stays within 8.6 standard deviations; a true one leaves them with probability 1e-17.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from secagg.errors import UsageError
from secagg.prg import SEED_BYTES, Rng, keystream

_BLOCK = 1 << 13
"""Numbers at a time: everything about a block stays in the processor's cache."""


def gaussian(count: int, deviation: float, rng: Rng) -> torch.Tensor:
    """``count`` samples of N(0, deviation^2), in float64.

    Each call takes a fresh seed from ``rng``: there is no state that a fork or a restored snapshot could repeat.

    >>> from secagg.prg import Prg
    >>> gaussian(3, 2.0, Prg(bytes(32))).tolist() == gaussian(3, 2.0, Prg(bytes(32))).tolist()
    True
    >>> bool(gaussian(10_000, 2.0, Prg(bytes(32))).std().round() == 2)
    True
    """
    if count < 0 or not 0 < deviation < math.inf:
        raise UsageError("noise has a count, and a deviation that is above zero and finite")
    context = keystream(rng(SEED_BYTES))
    noise = torch.empty(count, dtype=torch.float64)
    for block in noise.split(_BLOCK):
        words = np.frombuffer(context.update(bytes(32 * len(block))), "<u8")
        uniform = torch.from_numpy((words >> np.uint64(11)).view(np.int64) * 2.0**-53).view(2, 2, len(block))
        radius = uniform[0].add_(2.0**-53).log_().mul_(-2).sqrt_()  # of (0, 1]: the logarithm is finite
        angle = uniform[1].mul_(2 * math.pi)
        halves = (angle.cos() + angle.sin()).mul_(radius)
        torch.add(*halves, out=block).mul_(deviation / 2)
    return noise
