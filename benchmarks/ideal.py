"""The ideal functionality of a secure sum, for measuring: the same encoding and noise, and no parties at all.

Whoever runs this sees every update. It says what masks cost (time) and what they do not change (the sum), and lets a
benchmark go through many settings. It lives here because no package that is used in production may offer it.
"""

from __future__ import annotations

from time import perf_counter

import numpy as np

from dp.noise import LARGEST_VARIANCE
from recsys.aggregator import Answer, Question, Update
from secagg.crypto import labels, sampling
from secagg.crypto.keys import derive
from secagg.crypto.prg import Prg


class IdealAdder:
    """Everybody stays. Noise of Skellam's kind adds up to Skellam again, so all clients' together is drawn at once."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def add_up(self, question: Question, update: Update) -> Answer:
        began, making = perf_counter(), 0.0
        encoding, rng = question.encoding, self._drawn(question.number, b"rounding")
        total, clients = np.zeros(encoding.coordinates, np.int64), len(question.cohort)
        for name in question.cohort:
            started = perf_counter()
            vector = update(name)
            making += perf_counter() - started
            total += encoding.encode(vector, weight=question.weights.get(name, 1), seed=bytes(32), rng=rng)
        if question.noise is not None:
            variance = question.noise.honest_variance(clients, clients) * clients / (clients - question.noise.colluders)
            parts, seeds = -(-variance // LARGEST_VARIANCE), self._drawn(question.number, b"noise")
            for _ in range(parts):  # at once a sampler draws no more than one client's
                total += sampling.skellam(variance / parts, encoding.coordinates, seeds(32))
        found = encoding.decode(total, count=clients, seed=bytes(32))
        seconds = {"updates": making, "adding": perf_counter() - began - making}
        return Answer(found.vector, found.weight, question.cohort, {}, 0, 0, seconds)

    def _drawn(self, number: int, purpose: bytes) -> Prg:
        return Prg(derive(self._secret, labels.SIMULATED, b"ideal", purpose, number.to_bytes(8, "big")))
