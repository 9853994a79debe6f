"""How far one example can move the sum: bounds on its gradient, over all parameters, by layer, or following a quantile.

A clipping divides the parameters into layers. In each one an example's gradient is scaled to the layer's bound, so the
whole of it has a norm of at most the root of the sum of their squares. That is the sensitivity: what ``gradient_noise``
multiplies. After a step (``after_step``) a clipping may become another one.

The bound holds for the numbers that are really added, integers of a ``Grid``. The squares of the N numbers of a
gradient are added up in float64, and their root is taken to be larger by (N + 32) 2^-52: more than all that is rounded
on the way, in the norm, the factor and the scaled numbers, can be together.

An example whose gradient is not finite counts as zero: that depends on nobody else, so the bound holds; an error would
tell that such an example exists, and a NaN in the model would as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from types import MappingProxyType
from typing import TypeAlias

import torch
from torch import Tensor, nn

from dp.training.gradients import Gradients
from dp.training.noise import Grid, noise
from secagg.crypto.prg import Rng
from secagg.errors import UsageError

_SMALLEST, _LARGEST = 1e-12, 1e12
"""The smallest and the largest clipping bound, also for one that adapts."""


@dataclass(frozen=True, slots=True)
class Layer:
    """Parameters that are clipped together."""

    names: tuple[str, ...]
    clip: float


@dataclass(frozen=True, slots=True)
class Flat:
    """One bound on the gradient over all parameters."""

    clip: float

    def __post_init__(self) -> None:
        _check_clip(self.clip)

    def layers(self, names: Sequence[str]) -> list[Layer]:
        return [Layer(tuple(names), self.clip)]

    def gradient_noise(self, noise_multiplier: Fraction) -> float:
        return float(noise_multiplier)

    def after_step(self, within: int, expected_batch: int, rng: Rng) -> Flat:
        return self


@dataclass(frozen=True, slots=True)
class PerLayer:
    """A bound for each module that owns parameters, by its name in the model ("" is the model itself)."""

    clips: Mapping[str, float]

    def __post_init__(self) -> None:
        object.__setattr__(self, "clips", MappingProxyType(dict(self.clips)))
        for clip in self.clips.values():
            _check_clip(clip)

    @classmethod
    def even(cls, model: nn.Module, clip: float) -> PerLayer:
        """An equal bound for each layer; all of them together come to ``clip``.

        >>> dict(PerLayer.even(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)), clip=1.0).clips)
        {'0': 0.7071067811865475, '2': 0.7071067811865475}
        """
        owners = {_owner(name): None for name, parameter in model.named_parameters() if parameter.requires_grad}
        return cls(dict.fromkeys(owners, clip / math.sqrt(len(owners))))

    def layers(self, names: Sequence[str]) -> list[Layer]:
        owners = {_owner(name) for name in names}
        if owners != self.clips.keys():
            raise UsageError(f"the layers that are trained are {sorted(owners)}, not {sorted(self.clips)}")
        return [Layer(tuple(n for n in names if _owner(n) == owner), clip) for owner, clip in self.clips.items()]

    def gradient_noise(self, noise_multiplier: Fraction) -> float:
        return float(noise_multiplier)

    def after_step(self, within: int, expected_batch: int, rng: Rng) -> PerLayer:
        return self


@dataclass(frozen=True, slots=True)
class Adaptive:
    """One bound over all parameters that follows the ``quantile`` of the norms (Andrew et al. 2021).

    After each step it is multiplied by exp(-rate (share - quantile)), where share is that of the examples within it.
    Each example adds 1/2 or -1/2 to what is counted, discrete noise of deviation ``count_noise`` is added, and the
    share is of the EXPECTED batch, not of the actual one. A step charges its noise multiplier z for gradient and count
    together; the gradient gets (z^-2 - (2 count_noise)^-2)^(-1/2) (Theorem 1), which is more than z.

    >>> round(Adaptive(1.0, count_noise=5.0).gradient_noise(Fraction(1)), 4)
    1.005
    """

    clip: float
    quantile: float = 0.5
    rate: float = 0.2
    count_noise: float = field(kw_only=True)

    def __post_init__(self) -> None:
        _check_clip(self.clip)
        if not (0 < self.quantile < 1 and 0 < self.rate < math.inf and 0 < self.count_noise < math.inf):
            raise UsageError("a quantile is between 0 and 1; rate and count_noise are above zero and finite")

    def layers(self, names: Sequence[str]) -> list[Layer]:
        return [Layer(tuple(names), self.clip)]

    def gradient_noise(self, noise_multiplier: Fraction) -> float:
        spent = 1 / float(noise_multiplier) ** 2 - 1 / (2 * self.count_noise) ** 2
        if spent <= 0:
            raise UsageError("noise_multiplier is below 2 count_noise, or nothing is left for the gradient")
        return 1 / math.sqrt(spent)

    def after_step(self, within: int, expected_batch: int, rng: Rng) -> Adaptive:
        """The next clipping. ``within`` is how many more examples were within the bound than were not; it is noised."""
        noised = within + int(noise(1, rng, (2 * Fraction(self.count_noise)) ** 2))
        share = min(1.0, max(0.0, noised / (2 * expected_batch) + 0.5))
        clip = self.clip * math.exp(-self.rate * (share - self.quantile))
        return replace(self, clip=min(_LARGEST, max(_SMALLEST, clip)))


Clipping: TypeAlias = Flat | PerLayer | Adaptive


def total_bound(layers: Sequence[Layer]) -> float:
    """The largest norm of one example's whole clipped gradient."""
    return math.hypot(*(layer.clip for layer in layers))


def add_clipped(
    gradients: Mapping[str, Gradients],
    layers: Sequence[Layer],
    there: Tensor,
    grid: Grid,
    totals: Mapping[str, Tensor],
) -> int:
    """Add the clipped gradients of the examples marked in ``there`` to ``totals``, which hold integers of ``grid``.

    Returns how many more examples were within all bounds than were not; those without a finite gradient are neither.
    """
    squares = {name: gradient.squared_norms() for name, gradient in gradients.items()}
    counted = torch.isfinite(torch.stack([*squares.values()])).all(0) & there
    within = counted.clone()
    for layer in layers:
        names = [name for name in layer.names if name in gradients]
        if not names:
            continue
        numbers = sum(gradients[name].numbers for name in names)
        norms = norms_above(torch.stack([squares[name] for name in names]).sum(0), numbers)
        factors = torch.where(counted, grid.share(layer.clip) / norms.clamp(min=layer.clip), 0.0)
        within &= norms <= layer.clip
        for name in names:
            gradients[name].add_scaled(factors, totals[name])
    return int(2 * within.sum() - counted.sum())


def norms_above(squares: Tensor, numbers: int) -> Tensor:
    """Norms that are not below the true ones, of gradients of so many ``numbers`` with rounded ``squares``."""
    return squares.sqrt() * (1 + (numbers + 32) * 2.0**-52)


def _owner(name: str) -> str:
    return name.rpartition(".")[0]


def _check_clip(clip: float) -> None:
    if not _SMALLEST <= clip <= _LARGEST:
        raise UsageError(f"a clipping bound is between {_SMALLEST} and {_LARGEST}, not {clip}")
