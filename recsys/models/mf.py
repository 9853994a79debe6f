"""Matrix factorisation whose user factors never leave the device.

    score of item j for a user = u . v_j + bias b_j

The shared vector is the item side, V and b. A user's factor is rebuilt from the history whenever it is needed, as the
ridge solution for implicit feedback (Hu, Koren and Volinsky 2008), in which newer items weigh more:

    u = argmin  sum over the history of weight_i (1 - u . v_i)^2 + unseen sum over all items (u . v_j)^2 + ridge |u|^2

Training goes as in Singhal et al. 2021, "Federated Reconstruction": a random part of the history (support) makes u,
which then stands still while the rest moves V and b, by SGD against sampled negatives. The loss of a user is the sum
over the n positives of that rest, divided by the root of n so that heavy users do not decide everything. That of a
positive is a mean over its negatives:

    bpr   -log sigmoid(positive - negative)                      Rendle et al. 2009
    bce   -log sigmoid(positive) - log sigmoid(-negative)        He et al. 2017

With c_j the derivative by item j's score, the gradient is c_j (u, bias) for item j's row (v_j, b_j): an outer product,
so a client's step costs little more than its scores. A step on many users is the mean of theirs. So a round of clients
with one user and one epoch each is a step of central training on a batch of these users, and ``fit`` is what a
federation with FedAdam does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from copy import copy
from enum import StrEnum
from math import sqrt
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from dp.events import Unit
from recsys.data.interactions import History, Interactions
from recsys.data.negatives import sample
from recsys.models.batches import batches, known, latest, own
from recsys.models.recommender import Local
from recsys.models.store import ModelState
from recsys.optimisers import Optimiser, Rule
from secagg.crypto.prg import Rng
from secagg.errors import UsageError

if TYPE_CHECKING:
    from dp.training import Settings
    from dp.training.trainer import ChargeFunction

CENTRAL = Local(epochs=40, batch=128, rate=0.003)


class Loss(StrEnum):
    BPR = "bpr"
    BCE = "bce"


class MatrixFactorisation:
    """
    width: numbers in a factor.
    negatives: drawn for each positive.
    support: the share of a history that makes the user's factor in training, item by item.
    fading: the weight of an item in that factor is this to the power of its age in events.
    spread: standard deviation of the item factors at the beginning.
    bias: less than 1 leaves more of a clipped update to the factors, and less to popularity.
    recent: how many of a user's latest items count in training under privacy, where all users look alike.
    central: how ``fit`` trains, with Adam.

    >>> from recsys.data.synthetic import population
    >>> model = MatrixFactorisation(width=4, central=Local(epochs=2, batch=64, rate=0.01))
    >>> model.fit(population(users=50, items=100))
    >>> model.scores([np.array([3, 1], np.int32), np.array([], np.int32)]).shape
    (2, 100)
    """

    def __init__(
        self,
        width: int = 32,
        loss: Loss | str = Loss.BPR,
        *,
        negatives: int = 4,
        support: float = 0.5,
        fading: float = 0.98,
        ridge: float = 1.0,
        unseen: float = 0.003,
        spread: float = 0.1,
        bias: float = 1.0,
        recent: int = 100,
        central: Local = CENTRAL,
    ) -> None:
        if loss not in list(Loss):
            raise UsageError(f"the loss is bpr or bce, not {loss}")
        if min(width, negatives, recent) < 1 or not (0 < support < 1 and 0 < fading <= 1):
            raise UsageError("width, negatives and recent are above 0, support is in (0, 1), fading in (0, 1]")
        if not (ridge > 0 and spread > 0 and unseen >= 0 and bias >= 0):
            raise UsageError("ridge and spread are above 0, unseen and bias not below")
        self.width, self.loss, self.negatives, self.recent = width, Loss(loss), negatives, recent
        self.support, self.fading, self.ridge, self.unseen, self.spread = support, fading, ridge, unseen, spread
        self.bias = bias
        self._central = central
        self._rows = np.empty((0, width + 1), np.float32)

    def begin(self, item_count: int, seed: int) -> None:
        self._rows = np.zeros((item_count, self.width + 1), np.float32)
        self._rows[:, :-1] = self.spread * np.random.default_rng(seed).standard_normal((item_count, self.width))

    @property
    def vector(self) -> NDArray[np.float32]:
        """Row for row: an item's factor, and its bias."""
        return self._begun.flatten()

    @vector.setter
    def vector(self, vector: NDArray[np.float32]) -> None:
        if vector.shape != (self._begun.size,) or vector.dtype != np.float32:
            raise UsageError(f"the vector has {self._rows.size} numbers in float32")
        self._rows = vector.reshape(self._rows.shape).copy()

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Rows and columns of the parts of ``vector``, of which there is one."""
        return [(len(self._begun), self.width + 1)]

    def with_vector(self, vector: NDArray[np.float32]) -> Self:
        model = copy(self)
        model.vector = vector
        return model

    def train(self, histories: Sequence[History], local: Local, seed: int) -> None:
        start = self._begun.copy()
        for batch, rng in batches(histories, local, seed):
            self._rows -= local.rate * self._gradient(batch, rng)
            if local.proximal:
                self._rows -= local.rate * local.proximal * (self._rows - start)
            if local.drift is not None:
                self._rows -= local.rate * local.drift.reshape(start.shape)

    def changes(self, histories: Sequence[History], local: Local, seed: int) -> Iterator[NDArray[np.float64]]:
        """How far each user alone moves the vector, in steps on its own history from here.

        Nobody's numbers are in a product with those of another.
        """
        start = self._begun.copy()
        for history in (known(one, len(start)) for one in histories):
            change, model = np.zeros(start.shape, np.float64), self.with_vector(start.ravel())
            with np.errstate(all="ignore"):  # a warning would tell of this user's numbers
                for step in range(local.epochs):
                    gradient = model._gradient([history], own(seed * local.epochs + step, history))
                    change -= local.rate * (gradient + local.proximal * change)
                    model._rows = (start + change).astype(np.float32)
            yield change.ravel() if np.isfinite(change).all() else np.zeros(change.size)

    def fit(self, train: Interactions, seed: int = 0) -> None:
        self.begin(train.item_count, seed)
        optimiser = Optimiser(Rule.FEDADAM, rate=self._central.rate, tau=1e-5)
        for batch, rng in batches(list(train.histories()), self._central, seed):
            self._rows += optimiser(-self._gradient(batch, rng).astype(np.float64)).astype(np.float32)

    def train_privately(
        self,
        histories: Sequence[History],
        settings: Settings,
        steps: int,
        rate: float,
        *,
        unit: Unit,
        charge: ChargeFunction | None,
        seed: int,
        rng: Rng = os.urandom,
        drift: NDArray[np.float32] | None = None,
    ) -> Settings:
        """DP-SGD; returns the settings to go on with. An example is a user, or one interaction of one user's device.

        ``seed`` is for what is drawn about a user alone, such as negatives; noise and sampling come from ``rng``.
        ``charge`` None: the same recipe without noise. ``drift`` is added to each gradient after its noise, so it must
        be private already.
        """
        from recsys.models import mf_private  # needs torch

        how: dict[str, Any] = {"charge": charge, "rng": rng, "drift": drift}
        pairwise, start = self.loss is Loss.BPR, self._begun
        if unit is Unit.USER:
            users = self._examples_of_users(histories, seed)
            self._rows, settings = mf_private.by_user(start, pairwise, users, settings, steps, rate, **how)
        else:
            if len(histories) != 1:
                raise UsageError(f"interactions are the examples on a device, which has one user, not {len(histories)}")
            interactions = self._examples_of_interactions(histories[0], seed)
            factor = np.random.default_rng(seed).standard_normal(self.width).astype(np.float32)
            self._rows, settings = mf_private.by_interaction(
                start, pairwise, factor, self.bias, interactions, settings, steps, rate, **how
            )
        return settings

    def scores(self, histories: Sequence[History]) -> NDArray[np.float32]:
        scores: NDArray[np.float32] = self.factors(histories) @ self._begun.T
        return scores

    def factors(self, histories: Sequence[History]) -> NDArray[np.float32]:
        """(u, bias) of each user, by itself: where float32 finds no u it is zero, and nobody else's is touched."""
        items = self._begun[:, :-1]
        common = self.ridge * np.eye(self.width, dtype=np.float32)
        if self.unseen:
            common += self.unseen * (items.T @ items)
        factors = np.full((len(histories), self.width + 1), self.bias, np.float32)
        for user, history in enumerate(histories):
            own = items[history]
            weighted = own * (self.fading ** np.arange(len(history) - 1, -1, -1, dtype=np.float32))[:, None]
            factors[user, :-1] = _solved(weighted.T @ own + common, weighted.sum(0))
        return factors

    def drawn(self, history: History, rng: np.random.Generator) -> tuple[History, History, NDArray[np.int32]]:
        """Support, positives, and a row of negatives for each positive."""
        makes_factor = rng.random(len(history)) < self.support
        positives = history[~makes_factor]
        if len(np.unique(history)) == len(self._rows):
            positives = positives[:0]  # who has everything prefers nothing
        negatives = sample(history, len(self._rows), self.negatives * len(positives), rng) if len(positives) else ()
        return history[makes_factor], positives, np.asarray(negatives, np.int32).reshape(-1, self.negatives)

    def _examples_of_users(self, histories: Sequence[History], seed: int) -> tuple[NDArray[Any], ...]:
        """Factors, positives, negatives and the positives' weights: each user's from its own history and the model as
        it came, which is private already."""
        drawn = [self.drawn(history, own(seed, history)) for history in histories]
        supports, liked, disliked = zip(*drawn, strict=True)
        positives, there = latest(liked, self.recent, filler=0)
        counts = there.sum(1, keepdims=True)
        weights = (there / np.sqrt(np.maximum(1, counts))).astype(np.float32)
        negatives = np.zeros((*there.shape, self.negatives), np.int64)
        negatives[there] = np.concatenate([rows[-self.recent :] for rows in disliked])
        return self.factors(supports), positives, negatives, weights

    def _examples_of_interactions(self, history: History, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Positives, and the negatives of each. A negative may be something that the user has: leaving out what the
        user has would make an example depend on the others."""
        negatives = [
            sample(history[at : at + 1], len(self._rows), self.negatives, own(seed, [item]))
            for at, item in enumerate(history)
        ]
        return history.astype(np.int64), np.stack(negatives).astype(np.int64)

    def _gradient(self, histories: Sequence[History], rng: np.random.Generator) -> NDArray[np.float32]:
        """Of the mean loss of these users."""
        supports, positives, negatives = zip(*(self.drawn(history, rng) for history in histories), strict=True)
        factors = self.factors(supports)
        scores = factors @ self._rows.T
        who = np.repeat(np.arange(len(histories)), [len(one) for one in positives])
        liked, other = np.concatenate(positives), np.concatenate(negatives)
        up, down = self._pushes(scores[who, liked], scores[who[:, None], other])
        per_user = np.array([weight_of(len(one)) for one in positives], np.float32)[who]
        up, down = up * per_user, down * per_user[:, None]
        cells = np.concatenate([who * scores.shape[1] + liked, (who[:, None] * scores.shape[1] + other).ravel()])
        by_score = np.bincount(cells, np.concatenate([up, down.ravel()]), minlength=scores.size).reshape(scores.shape)
        gradient: NDArray[np.float32] = by_score.astype(np.float32).T @ (factors / np.float32(len(histories)))
        return gradient

    def _pushes(
        self, liked: NDArray[np.float32], other: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Derivatives of the loss by the scores of positives (n) and of their negatives (n, k)."""
        share = np.float32(1 / self.negatives)
        if self.loss is Loss.BPR:
            push = share * _sigmoid(other - liked[:, None])
            return -push.sum(1), push
        return -_sigmoid(-liked), share * _sigmoid(other)

    def state(self) -> ModelState:
        settings = {
            name: getattr(self, name)
            for name in (
                "width",
                "loss",
                "negatives",
                "support",
                "fading",
                "ridge",
                "unseen",
                "spread",
                "bias",
                "recent",
            )
        }
        return ModelState(settings, {"rows": self._begun})

    @classmethod
    def from_state(cls, state: ModelState) -> Self:
        model = cls(**state.settings)
        model._rows = np.asarray(state.arrays["rows"], np.float32).reshape(-1, model.width + 1)
        return model

    @property
    def _begun(self) -> NDArray[np.float32]:
        if not len(self._rows):
            raise UsageError("the model has not begun: call begin or fit first")
        return self._rows


def weight_of(positives: int) -> float:
    """Of each positive, in the loss of a user who has so many."""
    return 1 / sqrt(max(1, positives))


def _solved(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    """Zeros if there is no solution: an error would tell of the one user of many who has something extreme."""
    try:
        found: NDArray[np.float32] = np.linalg.solve(left, right)
    except np.linalg.LinAlgError:
        return np.zeros_like(right)
    return found if np.isfinite(found).all() else np.zeros_like(right)


def _sigmoid(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Without overflow."""
    sigmoid: NDArray[np.float32] = 0.5 * (1 + np.tanh(0.5 * scores))
    return sigmoid
