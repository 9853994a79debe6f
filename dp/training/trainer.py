"""DP-SGD on one client's examples (Abadi et al. 2016), with Opacus' optimiser.

    charge the steps -> for each one: Poisson sample -> gradients of each example alone -> clip -> add up
                        -> noise from a CSPRNG -> divide by the EXPECTED batch -> the optimiser's own step

Unit: one example; what an example is, is for the caller to say, and it may be all there is of one user. Relation: an
example is added or removed. Trust: local, the client is trusted with its own noise. The guarantee covers the model
after every step. It assumes that nobody sees the samples, and that the number of examples (so the rate) is no secret.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Protocol, Self, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.optimizers import DPOptimizerFastGradientClipping
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.optim import Optimizer
from torch.utils.data import TensorDataset, default_collate

from dp.events import Event, Gaussian, Guarantee, PoissonSample, Relation, Release, Trust, Unit
from dp.training.clipping import Clipping, add_clipped, total_bound
from dp.training.isolate import Loss, Objective, per_example_gradients
from dp.training.noise import gaussian
from dp.training.sampling import poisson_sample
from secagg.errors import UsageError
from secagg.prg import Rng

EXAMPLE = Guarantee(Unit.EXAMPLE, Relation.ADD_OR_REMOVE, Trust.LOCAL)
"""What is guaranteed to whom, where nothing else is said."""

Charge: TypeAlias = Callable[[Event, int], None]
"""Records that an event will happen so many times, for good, before it returns; raises to forbid it."""


class Examples(Protocol):
    """A torch data set, or a list: tensors, or tuples or dicts of them, all of one shape."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


@dataclass(frozen=True, slots=True)
class Settings:
    """
    noise_multiplier: deviation of the noise over the clipping bound; all that a step charges.
    expected_batch: examples in a batch on average; each comes by itself with probability expected_batch / examples.
    physical_batch: examples in memory at once; a larger batch is worked off in parts, with the same result.
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
    losses of the examples are not private.

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
        charge: Charge,
        rng: Rng = os.urandom,
        unit: Unit = Unit.EXAMPLE,
    ) -> None:
        self._settings = settings
        self._guarantee = replace(EXAMPLE, unit=unit)
        self._objective = Objective(model, loss)
        self._charge, self._rng = charge, rng
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        _check_parameters(self._parameters.values(), optimizer)
        self._optimizer = PrivateOptimizer(optimizer, settings.expected_batch, _padding(model), rng)

    @classmethod
    def without_noise(
        cls, model: nn.Module, optimizer: Optimizer, loss: Loss, settings: Settings, *, rng: Rng = os.urandom
    ) -> Self:
        """The same recipe, sampling and clipping and all, without noise: a reference. It promises nothing."""
        trainer = cls(model, optimizer, loss, settings, charge=lambda event, count: None, rng=rng)
        trainer._optimizer.drawn = lambda count, deviation, rng: torch.zeros(count, dtype=torch.float64)
        return trainer

    @property
    def settings(self) -> Settings:
        """To go on with; an adaptive bound has moved."""
        return self._settings

    def run(self, examples: Examples, steps: int) -> None:
        """Charge ``steps`` steps, then take them."""
        if steps < 1:
            raise UsageError(f"at least one step is taken, not {steps}")
        _check_modules(self._objective)
        population = len(examples)
        sampling = self._settings.sampling(population)
        self._settings.clipping.layers(list(self._parameters))  # refused before anything is spent
        self._charge(Release(Gaussian(self._settings.noise_multiplier), sampling, self._guarantee), steps)
        for _ in range(steps):
            self._step(examples, poisson_sample(population, sampling.rate, self._rng))
        self._optimizer.zero_grad(set_to_none=True)  # the last sum without noise is on the parameters

    def _step(self, examples: Examples, batch: NDArray[np.int64]) -> None:
        settings = self._settings
        layers = settings.clipping.layers(list(self._parameters))
        totals = {name: torch.zeros_like(parameter) for name, parameter in self._parameters.items()}
        within = 0.0
        for start in range(0, len(batch), settings.physical_batch):
            part = _fetch(examples, batch[start : start + settings.physical_batch])
            gradients = per_example_gradients(self._objective, self._parameters, part)
            within += add_clipped(gradients, layers, totals)
        self._optimizer.zero_grad()
        for name, parameter in self._parameters.items():
            parameter.grad = totals[name]
        self._optimizer.max_grad_norm = total_bound(layers)
        self._optimizer.noise_multiplier = settings.clipping.gradient_noise(settings.noise_multiplier)
        self._optimizer.step()
        clipping = settings.clipping.after_step(within, settings.expected_batch, self._rng)
        self._settings = replace(settings, clipping=clipping)


class PrivateOptimizer(DPOptimizerFastGradientClipping):
    """Opacus' optimiser for gradients that are clipped sums already, with noise from a CSPRNG.

    Every coordinate is noised, the rows of a table that nobody looked up as well: which rows were, is private. Only a
    padding row stays as it is, whoever is in the data.
    """

    def __init__(
        self, optimizer: Optimizer, expected_batch: int, padding: Mapping[nn.Parameter, int], rng: Rng
    ) -> None:
        super().__init__(optimizer, noise_multiplier=0.0, max_grad_norm=0.0, expected_batch_size=expected_batch)
        self._padding, self._rng, self.drawn = padding, rng, gaussian

    def add_noise(self) -> None:
        for parameter in self.params:
            noise = self.drawn(parameter.numel(), self.noise_multiplier * self.max_grad_norm, self._rng)
            noised = noise.add_(parameter.summed_grad.flatten()).to(parameter.dtype).view_as(parameter)
            if parameter in self._padding:
                noised[self._padding[parameter]] = 0
            parameter.grad = noised


def _fetch(examples: Examples, indices: NDArray[np.int64]) -> Any:
    if isinstance(examples, TensorDataset):
        return examples[torch.from_numpy(indices)]
    batch = default_collate([examples[i] for i in indices.tolist()])
    return tuple(batch) if isinstance(batch, list) else batch


def _padding(model: nn.Module) -> dict[nn.Parameter, int]:
    tables = [module for module in model.modules() if isinstance(module, nn.Embedding | nn.EmbeddingBag)]
    return {table.weight: table.padding_idx for table in tables if table.padding_idx is not None}


def _check_parameters(parameters: Iterable[nn.Parameter], optimizer: Optimizer) -> None:
    held = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
    if {id(p) for p in held} != {id(p) for p in parameters}:
        raise UsageError("the optimiser holds all trainable parameters of the model and no others")
    if any(p.dtype not in (torch.float32, torch.float64) or p.device.type != "cpu" for p in held):
        raise UsageError("parameters are float32 or float64, on the CPU")


def _check_modules(model: nn.Module) -> None:
    """What cannot be trained on one example at a time."""
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and (module.training or module.running_mean is None):
            raise UsageError(f"{name} is a BatchNorm: it mixes examples. Take GroupNorm or LayerNorm, or its eval mode")
        if isinstance(module, _NormBase) and module.training and module.track_running_stats:
            raise UsageError(f"{name} keeps statistics of the examples, without noise")
        if isinstance(module, nn.RNNBase):
            raise UsageError(f"{name} is a fused {type(module).__name__}: take the one in opacus.layers")
