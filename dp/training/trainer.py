"""DP-SGD on one client's examples (Abadi et al. 2016), with Opacus' optimiser.

    charge the steps -> for each one: Poisson sample -> gradients of each example alone -> clip -> integers, added up
                        -> discrete noise from a CSPRNG -> divide by the EXPECTED batch -> the optimiser's own step

Unit: one example; what an example is, is for the caller to say, and it may be all there is of one user. Relation: an
example counts as zero or does not; how many there are (so the rate) is no secret. Trust: local, the client is trusted
with its own noise. The guarantee covers the model after every step. It assumes that nobody sees the samples.

What one example moves is bounded for the numbers that a computer adds, not for those on paper: the sum of a step is
one of integers (``dp.training.noise``), into which each example goes truncated, with a norm of at most the clipping
bound (``dp.training.clipping``), whatever its gradient is: huge, cancelling, or no number. Another example's gradient
does not depend on it (``dp.training.chunks``). Only large products are added in floating point, with a known error, for
which the noise is raised (``dp.training.gradients``). So the noise is never below ``noise_multiplier`` times what one
example moves.
"""

from __future__ import annotations

import copy
import math
import os
import random  # noqa: TID251 - to see that no model drew from it
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Self, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.optimizers import DPOptimizerFastGradientClipping
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.optim import Optimizer
from torch.utils.data import TensorDataset

from dp.events import Event, Gaussian, Guarantee, PoissonSample, Relation, Release, Trust, Unit
from dp.training.chunks import Chunks, dummies, gradients_of
from dp.training.clipping import Clipping, add_clipped, total_bound
from dp.training.gradients import Gradients
from dp.training.isolate import Loss, Objective, per_example_gradients
from dp.training.noise import Grid, noise
from secagg.coins import poisson_sample
from secagg.crypto.prg import Rng
from secagg.errors import UsageError

EXAMPLE = Guarantee(Unit.EXAMPLE, Relation.ZERO_OUT, Trust.LOCAL)
"""What is guaranteed to whom, where nothing else is said."""

_MOST_ROUNDING = 0.01
"""By which share of the clipping bound an example may move a sum further than by its clipped gradient."""

ChargeFunction: TypeAlias = Callable[[Event, int], None]
"""Records that an event will happen so many times, for good, before it returns; raises to forbid it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """
    noise_multiplier: deviation of the noise over the clipping bound; all that a step charges.
    expected_batch: examples in a batch on average; each comes by itself with probability expected_batch / examples.
    physical_batch: examples in memory at once; a larger batch is worked off in parts.
    """

    clipping: Clipping
    noise_multiplier: Fraction
    expected_batch: int
    physical_batch: int = 256

    def __post_init__(self) -> None:
        object.__setattr__(self, "noise_multiplier", Fraction(self.noise_multiplier))
        if self.noise_multiplier <= 0:
            raise UsageError("noise_multiplier must be above zero")
        if self.expected_batch < 1 or self.physical_batch < 1:
            raise UsageError("a batch has at least one example")
        self.clipping.gradient_noise(self.noise_multiplier)  # refused if there is none

    def sampling(self, examples: int) -> PoissonSample:
        """How a batch is drawn from so many examples.

        >>> from dp.training.clipping import Flat
        >>> Settings(Flat(1.0), Fraction(1), expected_batch=4).sampling(10)
        PoissonSample(rate=Fraction(2, 5))
        """
        if examples < self.expected_batch:
            raise UsageError(f"{examples} examples are fewer than the expected batch of {self.expected_batch}")
        return PoissonSample(Fraction(self.expected_batch, examples))


class Trainer:
    """Trains ``model`` in place with ``optimizer``, which holds all of its trainable parameters.

    ``loss(model, *example)`` is the loss of one example, given as a batch of one. Nothing but the model comes out: the
    losses of the examples are not private. A model is a function of its parameters and one example, and so is the loss:
    what a model keeps in itself from one call to the next is thrown away, and what a loss keeps elsewhere would tell
    how often it was called, which depends on examples that raise. Nothing may be drawn in a model (dropout, sampled
    negatives): what is drawn about an example is part of it, and follows from that example alone.

    ``unit``: ``Unit.USER`` when each example is one whole user, and no user is in two. It is what is charged; nothing
    here can check it.

    To go on in the next round, make a trainer with the same ``charge`` (``Ledger.open(...).charge``, or ``compose`` of
    one accountant) and the ``settings`` of this one: with adaptive clipping they hold the bound that was reached.

    >>> from dp.training.clipping import Flat
    >>> from dp.accountants import RdpAccountant
    >>> model, examples = nn.Linear(3, 1), TensorDataset(torch.randn(50, 3), torch.randn(50, 1))
    >>> accountant = RdpAccountant()
    >>> trainer = Trainer(
    ...     model,
    ...     torch.optim.SGD(model.parameters(), lr=0.1),
    ...     lambda model, x, y: (model(x) - y).square().sum(),
    ...     Settings(Flat(1.0), noise_multiplier=Fraction(1), expected_batch=5),
    ...     charge=accountant.compose,
    ... )
    >>> trainer.run(examples, steps=100)
    >>> round(accountant.epsilon(1e-5), 2)
    7.97
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        loss: Loss,
        settings: Settings,
        *,
        charge: ChargeFunction,
        rng: Rng = os.urandom,
        unit: Unit = Unit.EXAMPLE,
    ) -> None:
        self._settings = settings
        self._guarantee = replace(EXAMPLE, unit=unit)
        self._model, self._loss = model, loss
        self._charge, self._rng = charge, rng
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        _check_parameters(self._parameters.values(), optimizer)
        self._optimizer = PrivateOptimizer(optimizer, settings.expected_batch, _padding(model), rng)

    @classmethod
    def without_noise(
        cls, model: nn.Module, optimizer: Optimizer, loss: Loss, settings: Settings, *, rng: Rng = os.urandom
    ) -> Self:
        """The same training without noise: a non-private reference. It samples and clips alike, and charges nothing."""
        trainer = cls(model, optimizer, loss, settings, charge=lambda event, count: None, rng=rng)
        trainer._optimizer.drawn = lambda count: torch.zeros(count, dtype=torch.int64)
        return trainer

    @property
    def settings(self) -> Settings:
        """The settings to go on with: an adaptive bound has changed."""
        return self._settings

    def run(self, examples: TensorDataset, steps: int) -> None:
        """Charge ``steps`` steps, then take them."""
        if steps < 1:
            raise UsageError(f"at least one step is taken, not {steps}")
        if not isinstance(examples, TensorDataset):
            raise UsageError("examples are a TensorDataset: tensors of one shape, whoever is in the data")
        check_modules(self._model)
        population, settings = len(examples), self._settings
        sampling = settings.sampling(population)
        chunks = Chunks.of(population, sampling.rate, settings.physical_batch)
        rounding = self._rehearsed(examples, chunks.size)  # all of this is refused before anything is spent
        self._charge(Release(Gaussian(settings.noise_multiplier), sampling, self._guarantee), steps)
        for _ in range(steps):
            sample = poisson_sample(population, sampling.rate, self._rng)
            self._step(examples, chunks.filled(sample, self._rng), rounding)
        self._optimizer.zero_grad(set_to_none=True)

    def _rehearsed(self, examples: TensorDataset, batch: int) -> float:
        """Try a step on zeros: by which part of its clip rounding lets one example of ``batch`` move a sum further."""
        before = _generators()
        try:
            gradients = self._gradients(dummies(examples, 1))
        except UsageError:
            raise
        except Exception as error:
            raise UsageError(f"the model cannot be trained on one example alone, of zeros: {error}") from error
        if _generators() != before:
            raise UsageError("the model draws numbers: what comes next then tells how often it drew, for whom")
        grid = self._grid(bound=1.0, rounding=0.0)
        layers = self._settings.clipping.layers(list(self._parameters))
        add_clipped(gradients, layers, torch.zeros(1, dtype=torch.bool), grid, self._zeros())
        further = math.hypot(*(one.rounding(batch, grid.limit) for one in gradients.values())) / grid.limit
        if further > _MOST_ROUNDING:
            raise UsageError(f"sums round by {further:.1%} of the clipping bound: take a smaller physical_batch")
        return further / (1 - _MOST_ROUNDING)  # relative to a bound that is smaller by it

    def _step(self, examples: TensorDataset, batch: list[NDArray[np.int64]], rounding: float) -> None:
        settings = self._settings
        layers = settings.clipping.layers(list(self._parameters))
        grid = self._grid(total_bound(layers), rounding)
        totals, within = self._zeros(), 0
        for chunk in batch:
            gradients, there = gradients_of(self._gradients, examples, chunk)
            within += add_clipped(gradients, layers, there, grid, totals)
        self._optimizer.descend({p: totals[name] for name, p in self._parameters.items()}, grid)
        clipping = settings.clipping.after_step(within, settings.expected_batch, self._rng)
        self._settings = replace(settings, clipping=clipping)

    def _zeros(self) -> dict[str, Tensor]:
        return {name: torch.zeros_like(p, dtype=torch.int64) for name, p in self._parameters.items()}

    def _gradients(self, chunk: tuple[Tensor, ...]) -> dict[str, Gradients]:
        """Gradients from a copy of the model, so that what it remembers, like a count of calls, is thrown away.

        What is trained is not copied, but handed in for each example. What is not trained may be such a memory, too.
        """
        model = copy.deepcopy(self._model, {id(p): p for p in self._parameters.values()})
        return per_example_gradients(Objective(model, self._loss), self._parameters, chunk)

    def _grid(self, bound: float, rounding: float) -> Grid:
        settings = self._settings
        return Grid.of(settings.clipping.gradient_noise(settings.noise_multiplier), bound, rounding)


class PrivateOptimizer(DPOptimizerFastGradientClipping):
    """Opacus' optimiser for sums that are clipped already, in the integers of a grid, with discrete noise of a CSPRNG.

    Every coordinate is noised, the rows of a table that nobody looked up as well: which rows were, is private. Only a
    padding row stays as it is, whoever is in the data.
    """

    def __init__(
        self, optimizer: Optimizer, expected_batch: int, padding: Mapping[nn.Parameter, int], rng: Rng
    ) -> None:
        super().__init__(optimizer, noise_multiplier=0.0, max_grad_norm=0.0, expected_batch_size=expected_batch)
        self._padding, self._grid = padding, Grid(1.0, 1.0)
        self.drawn: Callable[[int], Tensor] = lambda count: noise(count, rng)

    def descend(self, sums: Mapping[nn.Parameter, Tensor], grid: Grid) -> None:
        """Take one step by these sums. They have no noise, so they are dropped even if the step fails."""
        self._grid = grid
        for parameter, total in sums.items():
            parameter.summed_grad = total
        try:
            self.step()
        finally:
            self.zero_grad()

    def accumulate(self) -> None:
        """Do nothing: ``descend`` has set the sums."""

    def add_noise(self) -> None:
        for parameter in self.params:
            noised = parameter.summed_grad.flatten() + self.drawn(parameter.numel())
            gradient = (noised.double() * self._grid.unit).to(parameter.dtype).view_as(parameter)
            if parameter in self._padding:
                gradient[self._padding[parameter]] = 0
            parameter.grad, parameter.summed_grad = gradient, None


def _generators() -> tuple[object, ...]:
    """The states of the random generators that this process shares."""
    numpy = cast(tuple[object, ...], np.random.get_state(legacy=True))  # noqa: TID251
    arrays = [bytes(one) if isinstance(one, np.ndarray) else one for one in numpy]
    return random.getstate(), *arrays, bytes(torch.get_rng_state().numpy())


def _padding(model: nn.Module) -> dict[nn.Parameter, int]:
    tables = [module for module in model.modules() if isinstance(module, nn.Embedding | nn.EmbeddingBag)]
    return {table.weight: table.padding_idx for table in tables if table.padding_idx is not None}


def _check_parameters(parameters: Iterable[nn.Parameter], optimizer: Optimizer) -> None:
    held = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
    if {id(p) for p in held} != {id(p) for p in parameters}:
        raise UsageError("the optimiser holds all trainable parameters of the model and no others")
    if any(p.dtype not in (torch.float32, torch.float64) or p.device.type != "cpu" for p in held):
        raise UsageError("parameters are float32 or float64, on the CPU")


def check_modules(model: nn.Module) -> None:
    """Refuse modules that cannot be trained on one example at a time."""
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and (module.training or module.running_mean is None):
            raise UsageError(f"{name} is a BatchNorm: it mixes examples. Take GroupNorm or LayerNorm, or its eval mode")
        if isinstance(module, _NormBase) and module.training and module.track_running_stats:
            raise UsageError(f"{name} keeps statistics of the examples, without noise")
        if isinstance(module, _DropoutNd) and module.training and module.p:
            raise UsageError(f"{name} is an active dropout: what it draws about one example depends on others")
        if isinstance(module, nn.RNNBase):
            raise UsageError(f"{name} is a fused {type(module).__name__}: take the one in opacus.layers")
