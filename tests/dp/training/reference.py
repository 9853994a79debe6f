"""DP-SGD as on paper: one example after the other, plain autograd, everything written out, float64 sums."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dp.training.clipping import Layer, add_clipped, total_bound
from dp.training.gradients import Gradients
from dp.training.noise import Grid


def gradients(model: nn.Module, loss: Callable[..., Tensor], example: Sequence[Tensor]) -> dict[str, Tensor]:
    """Of one example, by itself."""
    names, parameters = zip(*((n, p) for n, p in model.named_parameters() if p.requires_grad), strict=True)
    value = loss(model, *(tensor.unsqueeze(0) for tensor in example)).sum()
    found = torch.autograd.grad(value, parameters, allow_unused=True)
    return {
        n: torch.zeros_like(p) if g is None else g.to_dense() for n, p, g in zip(names, parameters, found, strict=True)
    }


def norm(gradient: Mapping[str, Tensor], names: Sequence[str] | None = None) -> float:
    chosen = gradient.keys() if names is None else names
    return float(torch.cat([gradient[name].double().flatten() for name in chosen]).norm())


def clipped_sum(
    model: nn.Module, loss: Callable[..., Tensor], examples: Sequence[Any], layers: Mapping[Sequence[str], float]
) -> dict[str, Tensor]:
    """``layers``: names of the parameters that are clipped together -> bound."""
    total = {name: torch.zeros_like(p).double() for name, p in model.named_parameters() if p.requires_grad}
    for example in examples:
        gradient = gradients(model, loss, example)
        for names, clip in layers.items():
            factor = min(1.0, clip / max(norm(gradient, names), 1e-300))
            for name in names:
                total[name] += factor * gradient[name].double()
    return total


def added(
    found: Mapping[str, Gradients], model: nn.Module, layers: Sequence[Layer], there: Tensor | None = None
) -> tuple[dict[str, Tensor], int]:
    """What ``add_clipped`` adds, in the units of the gradients, and its count."""
    totals = {name: torch.zeros_like(p, dtype=torch.int64) for name, p in model.named_parameters()}
    grid = Grid.of(1.0, total_bound(layers), 0.0)
    batch = len(next(iter(found.values())).squared_norms())
    within = add_clipped(found, layers, torch.ones(batch, dtype=torch.bool) if there is None else there, grid, totals)
    return {name: total * grid.unit for name, total in totals.items()}, within
