"""Neural matrix factorisation with users rebuilt on their devices.

He et al. 2017, "Neural Collaborative Filtering": a product of factors and a small network on both factors, one on top
of the other:

    score of item j for a user = w . (u * p_j)  +  network(v, q_j)  +  b_j

Items and the network are shared. The user's factors (u, v) are not: from a shared start, a few steps of gradient
descent on a part of the history (support) find them, and while the rest of the history trains what is shared they
stand still (Singhal et al. 2021, "Federated Reconstruction"). The loss is binary cross-entropy, with sampled negatives.
To score, a user's factors are found against negatives that are drawn once for all histories, each one that the user has
replaced by the next that it has not: so two histories differ by what is in them, and by no draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from recsys.data.interactions import History
from recsys.data.negatives import negatives
from recsys.models.batches import latest
from recsys.models.draws import Draws
from recsys.models.neural import Neural, tensors
from recsys.models.recommender import Local
from secagg.errors import UsageError

CENTRAL = Local(epochs=20, batch=64, rate=0.01)
_MOST_WORK = 200_000


class NeuMf(Neural):
    """
    width: numbers in each of the two factors.
    negatives: drawn for each item of a history.
    support: the share of a history that the user's factors are found from in training, item by item.
    recent: how many of a user's latest items count.
    descent, pace: steps in which the factors are found, and their size. What a user costs is recent times negatives
    times descent, at most 200,000.
    central: how ``fit`` trains, with Adam.

    >>> import numpy as np
    >>> from recsys.data.synthetic import population
    >>> model = NeuMf(width=4, recent=20, central=Local(epochs=1, batch=64, rate=0.01))
    >>> model.fit(population(users=50, items=100))
    >>> model.scores([np.array([3, 1], np.int32), np.array([], np.int32)]).shape
    (2, 100)
    """

    SETTINGS = ("width", "negatives", "support", "recent", "descent", "pace")

    def __init__(
        self,
        width: int = 16,
        *,
        negatives: int = 4,
        support: float = 0.5,
        recent: int = 100,
        descent: int = 5,
        pace: float = 40.0,
        central: Local = CENTRAL,
    ) -> None:
        super().__init__(central)
        if min(width, negatives, recent, descent) < 1 or not (0 < support < 1 and pace > 0):
            raise UsageError("width, negatives, recent, descent and pace are above 0, support is in (0, 1)")
        if recent * negatives * descent > _MOST_WORK:
            raise UsageError(f"recent times negatives times descent is at most {_MOST_WORK}")
        self.width, self.negatives, self.support, self.recent = width, negatives, support, recent
        self.descent, self.pace = descent, pace

    def _build(self, item_count: int) -> nn.Module:
        return _Network(item_count, self.width)

    def _examples(self, histories: Sequence[History], draws: Draws) -> tuple[NDArray[Any], ...]:
        """Items, which of them are support, which are to be foretold, and negatives for each."""
        ids, there = latest(histories, self.recent, filler=0)
        others, some = negatives(histories, self._item_count, draws.uniform(self.recent * self.negatives))
        there &= some[:, None]  # who has everything prefers nothing
        support = there & (draws.uniform(self.recent) < self.support)
        return ids, support, there & ~support, others.reshape(len(ids), self.recent, -1)

    def _prepared(self, module: Any, examples: list[Tensor]) -> list[Tensor]:
        """With the users' factors in place of what they are found from."""
        ids, support, wanted, others = examples
        return [self._found(module, ids, support, others), ids, wanted, others]

    def _losses(self, module: Any, *examples: Tensor) -> Tensor:
        return _cross_entropy(module, *examples)

    def _score(self, module: Any, histories: Sequence[History]) -> Tensor:
        ids, there = latest(histories, self.recent, filler=0)
        others = np.zeros((len(ids), self.recent * self.negatives), np.int64)
        uniform = Draws(0, [histories[0][:0]]).uniform(others.shape[1])[0]
        drawn = (uniform * self._item_count).astype(np.int64)
        for user, history in enumerate(histories):
            free = np.flatnonzero(np.bincount(history, minlength=self._item_count) == 0)
            if not len(free):
                there[user] = False
                continue
            others[user] = free[np.searchsorted(free, drawn) % len(free)]
        ids, there, others = tensors((ids, there, others.reshape(len(ids), self.recent, -1)))
        users = self._found(module, ids, there, others)
        with torch.no_grad():
            everything = torch.arange(self._item_count)
            return torch.cat([module(user, everything.unsqueeze(0)) for user in users.split(1)])

    def _found(self, module: Any, ids: Tensor, support: Tensor, others: Tensor) -> Tensor:
        users = module.start.detach().expand(len(ids), -1)
        for _ in range(self.descent):
            users = users.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(_cross_entropy(module, users, ids, support, others).sum(), users)
            users = users - self.pace * gradient
        return users.detach()


def _cross_entropy(module: Any, users: Tensor, ids: Tensor, counted: Tensor, others: Tensor) -> Tensor:
    """A mean over the items that count and their negatives, for each user."""
    liked, other = module(users, ids), module(users, others.flatten(1)).unflatten(1, others.shape[1:])
    losses = F.softplus(-liked) + F.softplus(other).mean(2)
    return (losses * counted).sum(1) / counted.sum(1).clamp(min=1)


class _Network(nn.Module):  # type: ignore[misc]  # torch goes untyped here
    def __init__(self, item_count: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.items = nn.Parameter(0.1 * torch.randn(item_count, 2 * width))
        self.bias = nn.Parameter(torch.zeros(item_count))
        self.start = nn.Parameter(0.1 * torch.randn(2 * width))
        self.products = nn.Parameter(torch.ones(width))
        self.of_user, self.of_item = nn.Linear(width, 2 * width), nn.Linear(width, 2 * width, bias=False)
        self.layers = nn.Sequential(nn.ReLU(), nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, 1, bias=False))

    def forward(self, users: Tensor, ids: Tensor) -> Tensor:
        """Scores of ids (b, n) for users (b, 2d)."""
        items = F.embedding(ids, self.items)
        product = items[..., : self.width] @ (users[:, : self.width] * self.products).unsqueeze(2)
        together = self.of_user(users[:, self.width :]).unsqueeze(1) + self.of_item(items[..., self.width :])
        bias = F.embedding(ids, self.bias.unsqueeze(1))
        return (product + self.layers(together) + bias).squeeze(2)
