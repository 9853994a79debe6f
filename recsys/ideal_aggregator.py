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
    """The same encoding and noise as with a protocol, and nobody drops out."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def aggregate(self, request: Request, update: Update) -> Result:
        began, timed, told = perf_counter(), TimedUpdate(update), request.sent
        found = ideal_sum(
            request.cohort,
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
        return Result(found.vector, found.weight, request.cohort, {}, 0, 0, seconds)

    def _rng(self, number: int, purpose: bytes) -> Prg:
        return Prg(derive(self._secret, labels.SIMULATED, b"ideal", purpose, number.to_bytes(8, "big")))
