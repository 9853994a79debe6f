"""Per-example gradients: each from its own loss, by a model that sees a batch of one.

The model runs under ``torch.vmap``, once for the whole batch but so that no example can see another. What DP-SGD has
to assume, one example moves one gradient, then holds by construction: in-batch negatives, batch statistics or a
batch-wide loss cannot slip in, position embeddings need no batch dimension, and whatever a parameter is used for
counts. Opacus' hooks instead look at modules and guess the batch dimension; what they do not see they do not clip
(tests/dp/training/test_opacus.py shows where that goes wrong in 1.6). The price: vmap refuses a model that branches on
values, indexes with a mask, or draws random numbers.

"Alone" holds to the last bit if shapes and positions stay the same: the kernels below work row by row, so what they
compute for one example depends on the size of the batch and on its position in it, but not on what else is in it
(``dp.training.chunks`` sees to the rest).

Every parameter enters as B views of itself, one for each example, whose gradients are the per-example gradients.
Written out they are large, so table look-ups and products with a known weight are taken aside on the way: they use the
one plain parameter, and the gradient of their output says all (``dp.training.gradients``). This only saves memory and
time: a use that is not recognised, ``h @ table.weight.T``, goes the plain way and is exact as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from dp.training.gradients import Gradients, merged
from secagg.errors import UsageError

Loss: TypeAlias = Callable[..., Tensor]
"""loss(model, *example) of a batch of one example: a single number"""


class Objective(nn.Module):
    """The loss of a model on one example, as a module."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model = model
        self._loss = loss

    def forward(self, example: Any) -> Tensor:
        inputs = example if isinstance(example, tuple) else (example,)
        value = self._loss(self.model, *tree_map(lambda tensor: tensor.unsqueeze(0), inputs))
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise UsageError("the loss of a batch of one example is a tensor with a single number in it")
        return value.reshape(())


def per_example_gradients(
    objective: Objective, parameters: Mapping[str, Tensor], examples: Any
) -> dict[str, Gradients]:
    """The gradients of each of ``examples``, tensors (or tuples, dicts of them) that share their first dimension.

    Parameters have their names in the model; one without influence on the loss is left out.
    """
    (dense, looked_up, products), batch = _found(objective, parameters, examples), len(tree_leaves(examples)[0])
    return {
        name: merged(dense[name], looked_up[name], products[name], (batch, *parameter.shape))
        for name, parameter in parameters.items()
        if dense[name] or looked_up[name] or products[name]
    }


def add_gradients(
    objective: Objective, parameters: Mapping[str, Tensor], examples: Any, rows: Tensor, factor: float
) -> None:
    """Add ``factor`` times the gradients to ``rows``, (B, numbers in all parameters) float64, all written out."""
    dense, looked_up, products = _found(objective, parameters, examples, factor)
    at, batch = 0, len(rows)
    for name, parameter in parameters.items():
        total = rows[:, at : at + parameter.numel()].view(batch, *parameter.shape)
        at += parameter.numel()
        for values in dense[name]:
            total += values
        for ids, values in looked_up[name]:
            total.scatter_add_(1, ids.unsqueeze(2).expand_as(values), values.double())
        for left, right in products[name]:
            if left.shape[1] == 1:
                total.addcmul_(left.double().mT, right.double())
            else:
                total += left.double().mT @ right.double()  # into memory where all examples lie alike


_Found: TypeAlias = tuple[
    dict[str, list[Tensor]], dict[str, list[tuple[Tensor, Tensor]]], dict[str, list[tuple[Tensor, Tensor]]]
]
"""By parameter: gradients, ids and rows of look-ups, and the sides of products."""


def _found(objective: Objective, parameters: Mapping[str, Tensor], examples: Any, factor: float = 1.0) -> _Found:
    """What is known of the gradients of each example, times ``factor``."""
    batch = len(tree_leaves(examples)[0])
    plain = {name: parameter.detach() for name, parameter in parameters.items()}
    copies = {name: tensor.expand(batch, *tensor.shape).requires_grad_() for name, tensor in plain.items()}
    uses = list[_Use]()

    def alone(mark: Tensor, copy: dict[str, Tensor], example: Any) -> Tensor:
        known = {id(tensor): name for name, tensor in copy.items()}
        with _Aside(mark, known, plain, uses):
            loss: Tensor = functional_call(objective, {f"model.{name}": own for name, own in copy.items()}, (example,))
            return loss

    with sdpa_kernel(SDPBackend.MATH):  # the only attention that torch.vmap knows
        losses = torch.vmap(alone, randomness="error")(torch.zeros(batch), copies, examples)
    inputs = [*copies.values(), *(use.output for use in uses)]
    if not losses.requires_grad:
        raise UsageError("the loss does not depend on the model")
    found = torch.autograd.grad(losses, inputs, torch.full_like(losses, factor), allow_unused=True)
    dense = {name: [] if one is None else [one] for name, one in zip(copies, found, strict=False)}
    looked_up, products = ({name: list[tuple[Tensor, Tensor]]() for name in plain} for _ in range(2))
    for use, gradient in zip(uses, found[len(copies) :], strict=True):
        if use.input._version != use.version:
            raise UsageError(f"the input of {use.name} was changed in place after its use")
        if gradient is not None:
            (products if use.input.is_floating_point() else looked_up)[use.name].append(use.sides(gradient))
    if not any(kind[name] for kind in (dense, looked_up, products) for name in plain):
        raise UsageError("the loss does not depend on the model")
    return dense, looked_up, products


def gradients_of_copies(objective: Objective, copies: Mapping[str, Tensor], examples: Any) -> dict[str, Tensor]:
    """The gradient of each example at parameters of its own: ``copies`` holds a row for each, (B, *shape).

    A parameter without influence on the loss is left out.
    """
    own = {name: copy.detach().requires_grad_() for name, copy in copies.items()}

    def alone(mark: Tensor, copy: dict[str, Tensor], example: Any) -> Tensor:
        with _Aside(mark, {}, {}, []):
            loss: Tensor = functional_call(objective, {f"model.{name}": one for name, one in copy.items()}, (example,))
            return loss

    with sdpa_kernel(SDPBackend.MATH):
        losses = torch.vmap(alone, randomness="error")(torch.zeros(len(next(iter(own.values())))), own, examples)
    if not losses.requires_grad:
        raise UsageError("the loss does not depend on the model")
    found = torch.autograd.grad(losses.sum(), list(own.values()), allow_unused=True)
    return {name: gradient for name, gradient in zip(own, found, strict=True) if gradient is not None}


@dataclass(frozen=True, slots=True, eq=False)
class _Use:
    """One use of a parameter by all examples: its input and output."""

    name: str
    weight: Tensor
    input: Tensor
    output: Tensor
    padding: int | None
    version: int

    def sides(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """The parameter's gradient from that of the output: ids and rows, or the two sides of products."""
        batch = len(self.input)
        gradient = gradient.reshape(batch, -1, gradient.shape[-1])
        if self.input.is_floating_point():
            return gradient, self.input.detach().reshape(batch, -1, self.input.shape[-1])
        ids = self.input.reshape(batch, -1).long()
        if self.padding is not None:
            gradient = gradient.masked_fill((ids == self.padding).unsqueeze(2), 0)
        return ids, gradient


class _Aside(TorchFunctionMode):
    """Records look-ups and products with a known parameter on the list of uses, and computes them once for all."""

    def __init__(self, mark: Tensor, known: Mapping[int, str], plain: Mapping[str, Tensor], uses: list[_Use]) -> None:
        super().__init__()
        self._mark, self._known, self._plain, self._uses = mark, known, plain, uses
        self._ways = {F.embedding: self._embedding, F.embedding_bag: self._embedding_bag, F.linear: self._linear}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._ways.get(func, func)(*args, **(kwargs or {}))

    def _embedding(
        self,
        input: Tensor,
        weight: Tensor,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ) -> Tensor:
        if max_norm is not None:
            raise UsageError("max_norm rescales the rows that are looked up, which shows them without any noise")
        if scale_grad_by_freq:
            raise UsageError("scale_grad_by_freq depends on the batch, a gradient here on one example alone")
        if not self._trained(weight):
            return _looked_up(input, weight, _row(padding_idx, weight))
        return self._use(lambda ids, table: F.embedding(ids, table), input, weight, _row(padding_idx, weight))

    def _embedding_bag(
        self,
        input: Tensor,
        weight: Tensor,
        offsets: Tensor | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        per_sample_weights: Tensor | None = None,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
    ) -> Tensor:
        """A look-up and a reduction: torch.vmap knows no bags."""
        if offsets is not None or input.dim() != 2:
            raise UsageError("a bag is one row of a matrix of ids, filled up with padding_idx; offsets are not known")
        rows = self._embedding(input, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq)
        padding = _row(padding_idx, weight)
        present = torch.ones_like(input, dtype=torch.bool) if padding is None else input != padding
        if mode == "max":
            largest = rows.masked_fill(~present.unsqueeze(2), -torch.inf).max(1).values
            return largest.masked_fill(~present.any(1, keepdim=True), 0)
        shares = present.to(rows.dtype) if per_sample_weights is None else present * per_sample_weights
        total = (rows * shares.unsqueeze(2)).sum(1)
        return total / present.sum(1, keepdim=True).clamp(min=1) if mode == "mean" else total

    def _linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if not self._trained(weight):
            return F.linear(input, weight, bias)
        output = self._use(F.linear, input, weight, None)
        return output if bias is None else output + bias

    def _trained(self, weight: Tensor) -> bool:
        return id(weight) in self._known and weight.dim() == 2

    def _use(
        self, function: Callable[[Tensor, Tensor], Tensor], input: Tensor, weight: Tensor, padding: int | None
    ) -> Tensor:
        name = self._known[id(weight)]
        plain = self._plain[name]

        def together(inputs: Tensor) -> Tensor:
            output = function(inputs, plain)
            if not output.requires_grad:
                output.requires_grad_()
            self._uses.append(_Use(name, plain, inputs, output, padding, inputs._version))
            return output.clone()  # which the model may change in place

        output: Tensor = _Together.apply(self._mark, together, input)
        return output


def _looked_up(ids: Tensor, table: Tensor, padding: int | None) -> Tensor:
    """As ``F.embedding``, of a table that each example has a copy of. (``torch.vmap`` puts the copies into one, where
    an id that is out of range finds a row of another's.)"""
    rows = table[ids]
    return rows if padding is None else torch.where((ids == padding).unsqueeze(-1), rows.detach(), rows)


def _row(padding_idx: int | None, weight: Tensor) -> int | None:
    return None if padding_idx is None else padding_idx % len(weight)  # -1 is the last


class _Together(torch.autograd.Function):
    """Calls a function once, on the inputs of all examples; ``mark`` has it batched where they share one input, too."""

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep nothing: the function is made of ordinary operations."""

    @staticmethod
    def vmap(
        info: Any, in_dims: Sequence[int | None], mark: Tensor, function: Callable[[Tensor], Tensor], input: Tensor
    ) -> tuple[Tensor, int]:
        dim = in_dims[2]
        inputs = input.expand(info.batch_size, *input.shape) if dim is None else input.movedim(dim, 0)
        return function(inputs), 0
