"""An aggregator that adds up in the clear, for references without privacy and for benchmarks.

Whoever runs this sees every update (``protocols.simulation.ideal``).
"""

from __future__ import annotations

from time import perf_counter

from protocols.simulation.ideal import ideal_sum
from recsys.aggregator import Request, Result, TimedUpdate, Update
from secagg.crypto import labels
from secagg.crypto.keys import derive
from secagg.crypto.prg import Prg


class IdealAggregator:
    """The same encoding and noise as with a protocol, and nobody drops out but those who are late."""

    def __init__(self, secret: bytes, *, simulated: float = 0.0) -> None:
        """``simulated``: how many seconds a sum is said to take."""
        self._secret, self._simulated = secret, simulated

    def aggregate(self, request: Request, update: Update) -> Result:
        began, timed, told = perf_counter(), TimedUpdate(update), request.sent
        cohort = tuple(name for name in request.cohort if name not in request.late)
        found = ideal_sum(
            cohort,
            timed,
            request.encoding,
            request.noise,
            weights=request.weights,
            seed=request.number.to_bytes(32, "big"),
            rounding=self._rng(request.number, b"rounding"),
            noising=self._rng(request.number, b"noise"),
            sent=None if told is None else lambda name, vector: told(name, vector, request.keeping(name)),
        )
        seconds = {"updates": timed.seconds, "adding": perf_counter() - began - timed.seconds}
        return Result(found.vector, found.weight, cohort, {}, 0, 0, seconds, self._simulated)

    def _rng(self, number: int, purpose: bytes) -> Prg:
        return Prg(derive(self._secret, labels.SIMULATED, b"ideal", purpose, number.to_bytes(8, "big")))
