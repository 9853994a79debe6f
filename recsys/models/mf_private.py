"""Matrix factorisation trained with DP-SGD: users are the examples, or one user's interactions.

Users (in silos): an example is one user's factor, positives and negatives, worked out before the first step. Then it
moves the item rows with one gradient, which is clipped.

Interactions (on a device): an example is one positive with its negatives. A factor that is rebuilt would tell of all
interactions, so it is not: it starts at a point that follows from a seed, is trained under the same clipping and noise,
and stays here.

``recsys.models.mf`` makes the examples; this module, which needs torch, descends on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from dp.events import Unit
from dp.training import Settings
from dp.training.trainer import ChargeFunction
from recsys.models.neural import descend_privately
from secagg.crypto.prg import Rng


def by_user(
    rows: NDArray[np.float32],
    pairwise: bool,
    examples: Sequence[NDArray[Any]],
    settings: Settings,
    steps: int,
    rate: float,
    *,
    charge: ChargeFunction | None,
    rng: Rng,
    drift: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.float32], Settings]:
    """The rows after training, and the settings to go on with.

    ``examples`` are the users' factors, positives, negatives, and the weight of each positive in the loss.
    """
    module = _Rows(rows, pairwise)
    data = TensorDataset(*map(torch.from_numpy, examples))
    settings = descend_privately(
        module, _user_loss, data, settings, steps, rate, unit=Unit.USER, charge=charge, rng=rng, drift=drift
    )
    return module.rows.detach().numpy().copy(), settings


def by_interaction(
    rows: NDArray[np.float32],
    pairwise: bool,
    factor: NDArray[np.float32],
    bias: float,
    examples: Sequence[NDArray[Any]],
    settings: Settings,
    steps: int,
    rate: float,
    *,
    charge: ChargeFunction | None,
    rng: Rng,
    drift: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.float32], Settings]:
    """The rows after training, and the settings to go on with.

    ``factor`` is where the user's factor starts; ``examples`` are the positives and the negatives of each. ``drift``
    is that of the rows: the factor has none.
    """
    module = _Device(rows, pairwise, factor, bias)
    if drift is not None:
        drift = np.append(drift, np.zeros_like(factor))
    data = TensorDataset(*map(torch.from_numpy, examples))
    settings = descend_privately(
        module, _interaction_loss, data, settings, steps, rate, unit=Unit.EXAMPLE, charge=charge, rng=rng, drift=drift
    )
    return module.rows.detach().numpy().copy(), settings


class _Rows(nn.Module):  # type: ignore[misc]  # torch goes untyped here
    def __init__(self, rows: NDArray[np.float32], pairwise: bool) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.from_numpy(rows.copy()))
        self.pairwise = pairwise

    def losses(self, factor: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """Of the positives (b, n) and their negatives (b, n, k), for factors (u, bias) of shape (b, d + 1)."""
        liked = (F.embedding(positives, self.rows) * factor[:, None]).sum(-1, keepdim=True)
        other = (F.embedding(negatives, self.rows) * factor[:, None, None]).sum(-1)
        if self.pairwise:
            return F.softplus(other - liked).mean(-1)
        return F.softplus(-liked).squeeze(-1) + F.softplus(other).mean(-1)


class _Device(_Rows):
    def __init__(self, rows: NDArray[np.float32], pairwise: bool, factor: NDArray[np.float32], bias: float) -> None:
        super().__init__(rows, pairwise)
        self.factor = nn.Parameter(torch.from_numpy(factor))
        self.bias = bias


def _user_loss(module: _Rows, factor: Tensor, positives: Tensor, negatives: Tensor, weights: Tensor) -> Tensor:
    return (module.losses(factor, positives, negatives) * weights).sum()


def _interaction_loss(module: _Device, positive: Tensor, negatives: Tensor) -> Tensor:
    factor = torch.cat([module.factor, module.factor.new_full((1,), module.bias)]).unsqueeze(0)
    return module.losses(factor, positive.unsqueeze(1), negatives.unsqueeze(1)).sum()
