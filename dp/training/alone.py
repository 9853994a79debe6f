"""How far each example by itself moves a model: a few plain steps of gradient descent on it alone, written out.

For whoever clips, encodes and noises what examples move elsewhere, in the integers of a secure sum, say. No step mixes
examples. With one step a change is the example's gradient (``dp.training.isolate``), with more each example has a copy
of the parameters of its own.

The changes are computed in batches of one constant size, whoever is there: what is left of the last one is filled up
with dummies of zeros (``dp.training.chunks``). So no example is seen in another's change. One that makes the model
raise, or whose change is not finite, changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from dp.training.chunks import gradients_of
from dp.training.isolate import Loss, Objective, add_gradients, gradients_of_copies
from dp.training.trainer import check_modules
from secagg.errors import UsageError

Prepare = Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]
"""Works something out from the model for each example of a batch, by itself, before its first step."""


def changes_alone(
    model: nn.Module,
    loss: Loss,
    examples: Sequence[TensorDataset],
    rate: float,
    *,
    batch: int,
    proximal: float = 0.0,
    prepare: Prepare = lambda model, chunk: chunk,
) -> Iterator[NDArray[np.float64]]:
    """For each example the change of all trainable parameters, in their order, by steps of ``rate`` on it alone.

    ``examples`` has one data set for each step: in each of them the examples are the same, but what is drawn about them
    may differ. ``batch`` examples are computed together; it must not follow from anybody's data. ``proximal`` times the
    change so far is added to the gradient.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> data = TensorDataset(torch.tensor([[3.0, 4.0], [float("inf"), 0.0], [0.0, 1.0]]))
    >>> for change in changes_alone(model, lambda model, x: model(x).sum(), [data], rate=0.5, batch=2):
    ...     print((change + 0.0).tolist())
    [-1.5, -2.0]
    [0.0, 0.0]
    [0.0, -0.5]
    """
    if not examples or batch < 1 or len({len(one) for one in examples}) > 1:
        raise UsageError("there is a data set of as many examples for each step, and at least one example in a batch")
    check_modules(model)
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    widths = np.cumsum([len(one.tensors) for one in examples])[:-1].tolist()

    def compute(tensors: tuple[Tensor, ...]) -> Tensor:
        """The changes of a batch, in rows."""
        copy = deepcopy(model, {id(one): one for one in parameters.values()})  # what it remembers is thrown away
        steps = [tensors[at:end] for at, end in zip([0, *widths], [*widths, len(tensors)], strict=True)]
        objective, prepared = Objective(copy, loss), [prepare(copy, step) for step in steps]
        rows = torch.zeros(batch, sum(one.numel() for one in parameters.values()), dtype=torch.float64)
        if len(prepared) == 1:
            add_gradients(objective, parameters, prepared[0], rows, -rate)
        else:
            _descend(objective, parameters, prepared, rows, rate, proximal)
        return rows

    together = TensorDataset(*(tensor for one in examples for tensor in one.tensors))
    places = np.full(-(-len(together) // batch) * batch, -1)
    places[: len(together)] = np.arange(len(together))
    for chunk in np.split(places, len(places) // batch) if len(places) else []:
        rows, there = gradients_of(compute, together, chunk)
        rows[~(rows.sum(1).isfinite() & there)] = 0  # of float32 numbers no sum overflows
        yield from rows.numpy()[: np.count_nonzero(chunk >= 0)]


def _descend(
    objective: Objective,
    parameters: Mapping[str, Tensor],
    steps: Sequence[tuple[Tensor, ...]],
    rows: Tensor,
    rate: float,
    proximal: float,
) -> None:
    """Add to ``rows`` what the steps change, each taken where those before it have led that example."""
    widths = [one.numel() for one in parameters.values()]
    for step in steps:
        copies = {
            name: (one.detach() + moved.view(-1, *one.shape)).to(one.dtype)
            for (name, one), moved in zip(parameters.items(), rows.split(widths, 1), strict=True)
        }
        found = gradients_of_copies(objective, copies, step)
        rows *= 1 - rate * proximal  # the pull is towards the start
        for name, moved in zip(parameters, rows.split(widths, 1), strict=True):
            if name in found:
                moved -= rate * found[name].flatten(1)
