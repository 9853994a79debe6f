"""What learning asks of whoever sums over clients: a ``Request`` for one sum, answered with a ``Result``.

There are two aggregators: ``recsys.secure_aggregator`` runs the protocols, and ``recsys.ideal_aggregator`` adds up in
the clear, for references and benchmarks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from dp.noise import NoiseSpec
from protocols.buffers import Buffer, Start
from secagg.encoding import Encoding
from secagg.errors import SecAggError

T = TypeVar("T")


class LazyVectors:
    """One vector for each user of a silo, made while they are encoded: never all at once.

    >>> vectors = LazyVectors(2, lambda: (np.full(3, float(user)) for user in range(2)))
    >>> len(vectors), [vector.tolist() for vector in vectors]
    (2, [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    """

    def __init__(self, count: int, make: Callable[[], Iterable[NDArray[np.float64]]]) -> None:
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[NDArray[np.float64]]:
        return iter(self._make())


class ChosenLazyVectors(LazyVectors):
    """The same, made for some of the users where a sum is over a sample of them: each takes the same time.

    >>> vectors = ChosenLazyVectors(3, lambda users: (np.full(1, float(user)) for user in users))
    >>> [vector.tolist() for vector in vectors.of(np.array([0, 2]))], len(list(vectors))
    ([[0.0], [2.0]], 3)
    """

    def __init__(self, count: int, make: Callable[[NDArray[np.int64]], Iterable[NDArray[np.float64]]]) -> None:
        super().__init__(count, lambda: make(np.arange(count)))
        self._of = make

    def of(self, users: NDArray[np.int64]) -> Iterator[NDArray[np.float64]]:
        return iter(self._of(users))


Update = Callable[[str], NDArray[np.float64] | LazyVectors]
"""Makes what the client of this name adds, when its turn comes: a vector, or one of each of its users."""


@dataclass(frozen=True, slots=True)
class Request:
    """One sum: of vectors of which form, over which clients, with how much noise."""

    number: int
    """The number of the sum in its run. A number stands for one sum, whatever happens."""
    purpose: str
    cohort: tuple[str, ...]
    encoding: Encoding
    noise: NoiseSpec | None = None
    model: bytes = bytes(32)
    """A hash of what the updates are made from."""
    weights: Mapping[str, int] = field(default_factory=dict)
    charged_before: bool = False
    """Whether this sum was charged to the clients' own ledger in an earlier attempt: updates of it may have left."""
    keeping: Callable[[str], bytes] = lambda name: b""
    """What a client will keep to itself if its vector is in the sum. It is asked for when that is made, and is stored
    beside it, sealed, before anything leaves the client (``recsys.kept_by_clients``)."""
    sent: Callable[[str, NDArray[np.float64], bytes], None] | None = None
    """Is told, once the sum is out, what each client that is in it has put in: its vector as the sum has it, clipped
    and rounded, and not yet weighed; and what it said that it would keep. Both are for the client alone; no server
    learns them."""
    late: frozenset[str] = frozenset()
    """Who of the cohort has not trained in time, and so drops out before the first message."""
    buffer: Buffer | None = None
    """Where the sum is over whoever is ready: who started from which version. Its digest is ``model``."""
    starts: Mapping[str, Start] = field(default_factory=dict)
    """The same, as each client knows it of itself."""


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """The sum, and how it came about. Times and bytes are those of all parties together."""

    vector: NDArray[np.float64]
    weight: int
    survivors: tuple[str, ...]
    silent: Mapping[str, int]
    """phase -> how many clients dropped out in it"""
    bytes_up: int
    bytes_down: int
    seconds: Mapping[str, float]
    simulated: float = 0.0
    """what the sum's messages took on a simulated network, in its seconds"""


class Aggregator(Protocol):
    """Sums up one vector of each client."""

    def aggregate(self, request: Request, update: Update) -> Result:
        """``ThresholdError``: too few clients stayed, and nothing was learnt. ``BudgetError``: the privacy budget does
        not allow this sum."""


class TimedUpdate:
    """An update function that counts the seconds it takes, those of users' vectors included."""

    def __init__(self, update: Update) -> None:
        self._update, self.seconds = update, 0.0
        self._failure: SecAggError | None = None

    def __call__(self, name: str) -> NDArray[np.float64] | LazyVectors:
        made = self._timed(lambda: self._update(name))
        if not isinstance(made, LazyVectors):
            return np.ascontiguousarray(made, np.float64)
        if isinstance(made, ChosenLazyVectors):
            return ChosenLazyVectors(len(made), lambda users: self._each_timed(made.of(users)))
        return LazyVectors(len(made), lambda: self._each_timed(iter(made)))

    def _each_timed(self, vectors: Iterator[NDArray[np.float64]]) -> Iterator[NDArray[np.float64]]:
        while (vector := self._timed(lambda: next(vectors, None))) is not None:
            yield np.asarray(vector, np.float64)

    def check(self) -> None:
        """Raises what went wrong while a user's vector was made. Whoever encodes vectors takes an error of theirs for a
        refusal."""
        if self._failure is not None:
            raise self._failure

    def _timed(self, make: Callable[[], T]) -> T:
        began = perf_counter()
        try:
            return make()
        except SecAggError as error:
            self._failure = error
            raise
        finally:
            self.seconds += perf_counter() - began
