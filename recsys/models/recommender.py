"""What a recommender is here: it computes a score for each item from a user's history.

The history is all that a model is told about a user, whether it was there when the model was trained or not. So what is
about one user never needs to leave the device, and new users are nothing special.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from recsys.data.interactions import History, Interactions


class Recommender(Protocol):
    """Anything with these two methods can be trained, measured and compared."""

    def fit(self, train: Interactions) -> object:
        """Learn from all users in one place."""

    def scores(self, histories: Sequence[History]) -> NDArray[np.float32]:
        """One row for each history, one column for each item; more is better. No item is left out."""


@dataclass(frozen=True, slots=True)
class Local:
    """How a client trains: passes over its users, users in a step, step size, and what is added to each gradient.

    ``proximal`` is mu of Li et al. 2020, "Federated Optimization in Heterogeneous Networks": mu (w - w_0) pulls towards
    the start. ``drift`` is a vector as long as the model's, such as SCAFFOLD's (``recsys.control_variates``).
    """

    epochs: int = 1
    batch: int = 16
    rate: float = 0.05
    proximal: float = 0.0
    drift: NDArray[np.float32] | None = field(default=None, compare=False)

    def steps(self, users: int) -> int:
        """How many steps a client with so many users takes.

        >>> Local(epochs=2, batch=3).steps(5)
        4
        """
        return self.epochs * -(-users // self.batch)


class SharedModel(Recommender, Protocol):
    """A recommender that learns by moving one vector, which is all that clients and server exchange."""

    vector: NDArray[np.float32]
    """The shared parameters. Reading gives a copy; assigning changes the model. The length is fixed by ``begin``.

    A model whose vector has parts with names may say so by an attribute ``layers``: how many numbers each has, in
    order. Then some of them can be personal (``recsys.personal_heads``). One whose vector has tables may say so by an
    attribute ``shapes``: rows and columns of each part, in order. Then products with them can travel instead of them
    (``recsys.unsent``)."""

    def with_vector(self, vector: NDArray[np.float32]) -> Self:
        """Another model with the same settings and these parameters; whatever it does, this one stays as it is."""

    def begin(self, item_count: int, seed: int) -> None:
        """Make fresh parameters, the same for the same seed."""

    def train(self, histories: Sequence[History], local: Local, seed: int) -> None:
        """Change ``vector`` by training on these users. The same seed and start give the same result."""

    def changes(self, histories: Sequence[History], local: Local, seed: int) -> Iterator[NDArray[np.float64]]:
        """How far each of these users, alone, moves ``vector``: one change for each, in order; ``vector`` stays.

        A user takes ``local.epochs`` plain steps of ``local.rate`` on its own data, without ``drift``. Its change
        follows from its history and the seed alone, to the last bit, whoever else is there. What comes to nothing is
        zeros.

        A model for which that takes the same time for each user, whatever its history, may say so by an attribute
        ``even`` that is true: then a sample of users saves work.

        That rests on batches of one shape. (Where somebody leaves and the others move up, it also rests on numerical
        libraries that treat all rows of a batch alike, as they do for most shapes, and not for all. What is promised,
        zero-out, moves nobody, and those of a sample stand in random order.)
        """
