"""The integers on which clipped gradients are added up, and the discrete Gaussian noise that is added to them.

Floating point is where DP-SGD leaks: a sum of floats depends on the order and on the size of everything in it, and a
Gaussian in floating point has holes (Mironov 2012). So the sum is one of integers, exact in every order, and the noise
is a discrete Gaussian on the same integers, of one deviation, ``DEVIATION``. The unit is chosen to fit it: if noise is
to be z times the clipping bound C, then C is DEVIATION / z units.

For integer vectors at a distance of at most D, discrete Gaussian noise of deviation s gives the Renyi divergences of
continuous noise of deviation s, order by order, with no error term (Canonne, Kamath and Steinke 2020, Theorem 4); with
Poisson sampling as well, since for integer orders the moments of the mixture are sums of E exp(k <x, v> / s^2), which a
shift by the integer vector kv evaluates alike in both cases (Mironov, Talwar and Zhang 2019, section 3.3). So a step is
charged as ``Gaussian(z)``. A number that is drawn is within 2^-128 of its law (``secagg.crypto.sampling``): 10^12
numbers add less than 10^-26 (1 + e^epsilon) to delta.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from secagg.crypto.prg import SEED_BYTES, Rng
from secagg.crypto.sampling import LARGEST_VARIANCE
from secagg.crypto.sampling.draws import discrete_gaussian
from secagg.errors import UsageError

DEVIATION = math.isqrt(int(LARGEST_VARIANCE))
"""The standard deviation of the noise on the integers, 2^22: rounding is small beside it, whatever the bound."""

_FINEST = float(1 << 40)
"""The largest clipping bound as an integer: sums of 2^22 examples then fit into 63 bits."""

_LOWER = 1 - 2.0**-40
"""The factor by which the clipping bound in integers is made smaller, so that rounding never makes noise too small."""


def noise(count: int, rng: Rng, variance: Fraction = LARGEST_VARIANCE) -> Tensor:
    """``count`` integers from a discrete Gaussian, by default of deviation ``DEVIATION``.

    Each call takes a fresh seed from ``rng``: there is no state that a fork or a restored snapshot could repeat.

    >>> from secagg.crypto.prg import Prg
    >>> bool(noise(3, Prg(bytes(32))).equal(noise(3, Prg(bytes(32)))))
    True
    >>> round(float(noise(10_000, Prg(bytes(32))).double().std() / DEVIATION), 1)
    1.0
    """
    return torch.from_numpy(discrete_gaussian(variance, count, rng(SEED_BYTES)))


@dataclass(frozen=True, slots=True)
class Grid:
    """The integers of a step. ``bound`` is the clipping bound, ``limit`` that in integers, ``unit`` the value of 1."""

    bound: float
    limit: float

    @classmethod
    def of(cls, multiplier: float, bound: float, rounding: float) -> Grid:
        """A grid for noise of ``multiplier`` times what one example moves: ``bound``, and the part ``rounding`` of it.

        >>> grid = Grid.of(multiplier=2.0, bound=0.5, rounding=0.0)
        >>> round(grid.limit) == DEVIATION / 2, round(DEVIATION * grid.unit, 9)
        (True, 1.0)
        """
        limit = DEVIATION / (multiplier * (1 + rounding)) * _LOWER
        if not 1 <= limit <= _FINEST:
            raise UsageError(f"a noise multiplier of {multiplier:g} is beyond the integers that noise is drawn in")
        return cls(bound, limit)

    @property
    def unit(self) -> float:
        return self.bound / self.limit

    def share(self, clip: float) -> float:
        """The bound in integers of a layer whose clipping bound is ``clip``."""
        return self.limit * (clip / self.bound)
