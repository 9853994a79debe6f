"""What learning asks of whoever sums over clients: a ``Request`` for one sum, answered with a ``Result``.

There are two aggregators: ``recsys.secure_aggregator`` runs the protocols, and ``recsys.ideal_aggregator`` adds up in
the clear, for references and benchmarks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dp.noise import NoiseSpec
from secagg.encoding import Encoding

Update = Callable[[str], NDArray[np.float64]]
"""Makes what the client of this name adds, when its turn comes."""


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


class Aggregator(Protocol):
    """Sums up one vector of each client."""

    def aggregate(self, request: Request, update: Update) -> Result:
        """``ThresholdError``: too few clients stayed, and nothing was learnt. ``BudgetError``: the privacy budget does
        not allow this sum."""


class TimedUpdate:
    """An update function that counts the seconds it takes."""

    def __init__(self, update: Update) -> None:
        self._update, self.seconds = update, 0.0

    def __call__(self, name: str) -> NDArray[np.float64]:
        began = perf_counter()
        try:
            return np.ascontiguousarray(self._update(name), np.float64)
        finally:
            self.seconds += perf_counter() - began
