"""The trainings of a silo's users: one for each of them, never one for all.

Where a plan's unit is the user inside a silo, a client's vector is a sum of vectors, each made of one user's training
alone and each bounded by itself. So a train function answers with one result for each user: all at once, in arrays
with a leading axis of users (``Trainings.stacked``), or one after the other while they are encoded (``Trainings``),
for models of which not all users' changes fit into memory.

Nobody can check here that a user's result was made of that user's data alone. A step that mixes users before this
point (a batch of several users, an optimizer or a normalisation that they share) breaks what is promised to each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from logging import Logger
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from secagg.errors import UsageError

Arrays: TypeAlias = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Silos:
    """That clients are silos, whose users are the units: numbers that are declared, and known to everybody.

    ``most``: the most users that one silo has. ``total``: how many users all silos of a round have together, or fewer;
    means are sums over this number, whoever took part. ``overlap``: in how many silos the data of one person can lie.

    >>> Silos(most=200, total=4000).overlap
    1
    """

    most: int
    total: int
    overlap: int = 1

    def __post_init__(self) -> None:
        for name in ("most", "total", "overlap"):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value < 1 << 32:
                raise UsageError(f"{name} is a whole number from 1, not {value!r}")


@dataclass(frozen=True, slots=True)
class Trainings:
    """One training for each of ``count`` users: ``train(i)`` gives user i's trained arrays and metrics.

    ``train`` is called once for each user, in order, while the vectors are encoded, so one user's arrays are in memory
    at a time. If it raises for a user, that user counts as zeros, and the others as they are. ``count`` must not depend
    on what users have done: one who has nothing is trained on nothing, and not left out.

    >>> Trainings(2, lambda user: ({"w": np.full(3, user)}, {"loss": 0.5})).train(1)
    ({'w': array([1, 1, 1])}, {'loss': 0.5})
    """

    count: int
    train: Callable[[int], tuple[Arrays, Mapping[str, Any]]]

    def __post_init__(self) -> None:
        if type(self.count) is not int or self.count < 0:
            raise UsageError(f"the number of users is a whole number from 0, not {self.count!r}")

    @classmethod
    def stacked(cls, arrays: Arrays, metrics: Mapping[str, Any]) -> Trainings:
        """From arrays with a leading axis of users, and for each metric a list with one value for each user.

        Arrays that differ in the number of users raise ``UsageError``. A metric that is no list, or has another number
        of values, has been measured for nobody.

        >>> both = Trainings.stacked({"w": np.array([[1.0, 2.0], [3.0, 4.0]])}, {"loss": [0.5, 0.25], "steps": 7})
        >>> both.count, both.train(1)
        (2, ({'w': array([3., 4.])}, {'loss': 0.25}))
        """
        counts = {len(array) if array.ndim else None for array in arrays.values()}
        if len(counts) != 1 or None in counts:
            raise UsageError("trained arrays have a leading axis of users, and all the same number of users")
        count = int(counts.pop() or 0)
        of_each = {name: values for name, values in metrics.items() if _has_one_of_each(values, count)}

        def train(user: int) -> tuple[Arrays, Mapping[str, Any]]:
            return (
                {name: np.asarray(array[user]) for name, array in arrays.items()},
                {name: values[user] for name, values in of_each.items()},
            )

        return cls(count, train)


@dataclass(frozen=True, slots=True)
class Contributions:
    """The vectors of a silo's users, for ``Client.start``: each is made when it is asked for, of one user's training.

    ``vector`` makes one of trained arrays and metrics, and whatever it or the training raises gives ``failed`` instead:
    neither a result that is no good nor the failure goes any further. ``missing`` names the metrics that are not there.
    ``interrupted`` is asked after each training; what it raises ends it all, before anything was said.
    """

    trainings: Trainings
    vector: Callable[[Arrays, Mapping[str, Any]], NDArray[np.float64]]
    failed: NDArray[np.float64]
    missing: Callable[[Mapping[str, Any]], Sequence[str]]
    log: Logger
    details: int
    interrupted: Callable[[], None]
    _unmeasured: set[str] = field(init=False, default_factory=set)

    def __len__(self) -> int:
        return self.trainings.count

    def __iter__(self) -> Iterator[NDArray[np.float64]]:
        for user in range(self.trainings.count):
            vector = self._vector_of(user)
            self.interrupted()
            yield vector

    def _vector_of(self, user: int) -> NDArray[np.float64]:
        try:
            arrays, metrics = self.trainings.train(user)
            self._remark(self.missing(metrics))
            return self.vector(arrays, metrics)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a panic of Rust code, too: nobody but this client may notice
            self.log.error("secagg: the training of a user failed, and counts as nothing: %s", type(error).__name__)
            self.log.log(self.details, "secagg: how the training of a user failed", exc_info=error)
            return self.failed

    def _remark(self, missing: Sequence[str]) -> None:
        if new := [name for name in missing if name not in self._unmeasured]:
            self._unmeasured.update(new)
            self.log.warning("secagg: not measured for each user, or no finite number: %s", ", ".join(new))


def _has_one_of_each(values: object, count: int) -> bool:
    if isinstance(values, np.ndarray):
        return bool(values.shape == (count,))
    return isinstance(values, list | tuple) and len(values) == count
