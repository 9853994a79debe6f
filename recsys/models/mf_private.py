"""Matrix factorisation trained with DP-SGD: users are the examples, or one user's interactions.

Users (in silos): an example is one user's factor, positives and negatives, worked out before the first step from that
user's history and the model as it came, which is private already. Then all of it moves one gradient, which is clipped.

Interactions (on a device): an example is one positive with its negatives. A factor that is rebuilt would tell of all
interactions, so it is not: it starts at a point that follows from ``seed``, is trained under the same clipping and
noise, and stays here. For the same reason a negative may be something that the user has: leaving the others out would
make an example depend on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from dp.events import Unit
from dp.training import Settings
from dp.training.trainer import ChargeFunction
from recsys.data.interactions import History
from recsys.data.negatives import sample
from recsys.models.mf import weight_of
from recsys.models.neural import descend_privately, latest, own
from secagg.crypto.prg import Rng
from secagg.errors import UsageError

if TYPE_CHECKING:
    from recsys.models.mf import MatrixFactorisation


def by_user(
    model: MatrixFactorisation,
    rows: NDArray[np.float32],
    histories: Sequence[History],
    settings: Settings,
    steps: int,
    rate: float,
    *,
    charge: ChargeFunction | None,
    seed: int,
    rng: Rng,
) -> tuple[NDArray[np.float32], Settings]:
    """The rows after training, and the settings to go on with."""
    length, supports = model.recent, list[History]()
    positives = np.zeros((len(histories), length), np.int64)
    counted = np.zeros((len(histories), length), np.float32)
    negatives = np.zeros((len(histories), length, model.negatives), np.int64)
    for user, history in enumerate(histories):
        support, liked, others = model.drawn(history, own(seed, history))
        supports.append(support)
        positives[user], there = latest(liked, length, filler=0)
        negatives[user, there] = others[-length:]
        counted[user] = there * weight_of(int(there.sum()))
    examples = TensorDataset(*map(torch.from_numpy, (model.factors(supports), positives, negatives, counted)))
    module = _Rows(model, rows)
    settings = descend_privately(
        module, _user_loss, examples, settings, steps, rate, unit=Unit.USER, charge=charge, rng=rng
    )
    return module.rows.detach().numpy().copy(), settings


def by_interaction(
    model: MatrixFactorisation,
    rows: NDArray[np.float32],
    histories: Sequence[History],
    settings: Settings,
    steps: int,
    rate: float,
    *,
    charge: ChargeFunction | None,
    seed: int,
    rng: Rng,
) -> tuple[NDArray[np.float32], Settings]:
    """The rows after training, and the settings to go on with."""
    if len(histories) != 1:
        raise UsageError(f"interactions are the examples on a device, which has one user, not {len(histories)}")
    (history,) = histories
    others = [
        sample(history[at : at + 1], len(rows), model.negatives, own(seed, [item])) for at, item in enumerate(history)
    ]
    examples = TensorDataset(
        torch.from_numpy(history.astype(np.int64)), torch.from_numpy(np.stack(others).astype(np.int64))
    )
    module = _Device(model, rows, np.random.default_rng(seed))
    settings = descend_privately(
        module, _interaction_loss, examples, settings, steps, rate, unit=Unit.EXAMPLE, charge=charge, rng=rng
    )
    return module.rows.detach().numpy().copy(), settings


class _Rows(nn.Module):  # type: ignore[misc]  # torch goes untyped here
    def __init__(self, model: MatrixFactorisation, rows: NDArray[np.float32]) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.from_numpy(rows.copy()))
        self.pairwise = model.loss == "bpr"

    def losses(self, factor: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """Of the positives (b, n) and their negatives (b, n, k), for factors (u, bias) of shape (b, d + 1)."""
        liked = (F.embedding(positives, self.rows) * factor[:, None]).sum(-1, keepdim=True)
        other = (F.embedding(negatives, self.rows) * factor[:, None, None]).sum(-1)
        if self.pairwise:
            return F.softplus(other - liked).mean(-1)
        return F.softplus(-liked).squeeze(-1) + F.softplus(other).mean(-1)


class _Device(_Rows):
    def __init__(self, model: MatrixFactorisation, rows: NDArray[np.float32], rng: np.random.Generator) -> None:
        super().__init__(model, rows)
        self.factor = nn.Parameter(torch.from_numpy(rng.standard_normal(model.width).astype(np.float32)))
        self.bias = model.bias


def _user_loss(module: _Rows, factor: Tensor, positives: Tensor, negatives: Tensor, counted: Tensor) -> Tensor:
    return (module.losses(factor, positives, negatives) * counted).sum()


def _interaction_loss(module: _Device, positive: Tensor, negatives: Tensor) -> Tensor:
    factor = torch.cat([module.factor, module.factor.new_full((1,), module.bias)]).unsqueeze(0)
    return module.losses(factor, positive.unsqueeze(1), negatives.unsqueeze(1)).sum()
