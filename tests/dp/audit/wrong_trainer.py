"""DP-SGD as it is often written: one pass over the batch, hooks that keep what went in and out, norms from these, and
the terms of the sum scaled and added in float32. On paper the sum of clipped gradients; every attack of
``dp.audit.examples`` but those with ordinary finite numbers gets through.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

Terms = tuple[Tensor, Tensor]


def step(model: nn.Module, loss: Callable[..., Tensor], examples: TensorDataset, drawn: Sequence[bool]) -> Any:
    kept = list[tuple[nn.Parameter, Tensor, Tensor]]()
    for module in model.modules():
        if isinstance(module, nn.Embedding | nn.Linear):
            module.register_forward_hook(lambda module, given, out: _keep(kept, module.weight, given[0], out))
    batch = tuple(tensor[torch.tensor(drawn)] for tensor in examples.tensors)
    loss(model, *batch).backward()
    squares = torch.zeros(len(batch[0]), dtype=torch.float64)
    for weight, given, out in kept:
        squares += _dense(weight, given, out.grad, torch.float64).flatten(1).square().sum(1)
    sums = {weight: torch.zeros_like(weight) for weight, _, _ in kept}
    factors = (1 / squares.sqrt()).clamp(max=1).float()
    for weight, given, out in kept:
        gradient = (out.grad * factors.view(-1, *[1] * (out.dim() - 1))).reshape(-1, out.shape[-1])
        if given.is_floating_point():
            sums[weight] += gradient.T @ given.reshape(-1, given.shape[-1])
        else:
            sums[weight].index_add_(0, given.flatten(), gradient)
    return torch.cat([total.flatten() for total in sums.values()]).double().numpy()


def _keep(kept: list[Any], weight: nn.Parameter, given: Tensor, out: Tensor) -> None:
    out.retain_grad()
    kept.append((weight, given, out))


def _dense(weight: Tensor, given: Tensor, gradient: Tensor, kind: torch.dtype) -> Tensor:
    """Each example's gradient, written out."""
    gradient = gradient.reshape(len(given), -1, gradient.shape[-1]).to(kind)
    if given.is_floating_point():
        return gradient.mT @ given.reshape(len(given), -1, given.shape[-1]).to(kind)
    ids = given.reshape(len(given), -1, 1).expand_as(gradient)
    return torch.zeros(len(given), *weight.shape, dtype=kind).scatter_add_(1, ids, gradient)
