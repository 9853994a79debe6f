"""Sums for models that are made of a few noised sums, over the clients of a fleet.

The model says what a user adds and what share of the budget that is worth; from here on it is one question to the
adder. A client with several users adds up what they add, cut back to the norm of one: the unit is the client.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import count, islice
from math import sqrt
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dp.calibrate import DEFAULT_BETA, with_multiplier
from dp.noise import NoiseSpec
from recsys.federated import Fleet, carried_out, given_up
from recsys.models.private_sums import Contribution, Noised, Sums
from recsys.models.recommender import Recommender
from recsys.record import Round
from recsys.secure import Adder, Question
from secagg.encoding import Encoding
from secagg.errors import ThresholdError, UsageError


class LearnsFromSums(Recommender, Protocol):
    """A model that is made of noised sums, and asks for them itself."""

    def learn(self, sums: Sums, item_count: int) -> object: ...


RING_BITS = 32
_EXACT_BITS = 20
_ATTEMPTS = 5


def sums_of(
    fleet: Fleet,
    adder: Adder,
    *,
    multiplier: float = 0.0,
    noise: NoiseSpec | None = None,
    done: Callable[[Round], None] = lambda one: None,
) -> Sums:
    """``multiplier`` is the noise of one sum that is worth the whole budget, ``noise`` its kind; neither: exact sums.

    A sum for which too many clients got lost is asked for again, under a new number.
    """
    if (noise is None) != (multiplier == 0):
        raise UsageError("noise has a kind and a multiplier")
    clients, numbers = len(fleet.names), count()

    def add(purpose: str, length: int, share: Fraction, contribution: Contribution) -> Noised:
        encoding, drawn = _encoded(length, multiplier / sqrt(share), noise, clients)

        def update(name: str) -> NDArray[np.float64]:
            return sum((contribution(history) for history in fleet.histories(name)), start=np.zeros(length))

        for number in islice(numbers, _ATTEMPTS):
            try:
                answer = adder.add_up(Question(number, purpose, fleet.names, encoding, drawn), update)
            except ThresholdError as error:
                done(given_up(number, purpose, clients, error))
                continue
            done(carried_out(number, purpose, clients, answer))
            deviation = 0.0 if drawn is None else _deviation(drawn, clients, len(answer.survivors)) / encoding.scale
            return Noised(answer.vector, deviation, clients)
        raise ThresholdError(f"{purpose}: too many clients were lost, {_ATTEMPTS} times")

    return add


def _encoded(
    length: int, multiplier: float, noise: NoiseSpec | None, clients: int
) -> tuple[Encoding, NoiseSpec | None]:
    if noise is None:
        return Encoding(length, 1.0, _EXACT_BITS), None
    finest_first = (Encoding(length, 1.0, bits, beta=DEFAULT_BETA) for bits in range(24, 7, -1))
    found = with_multiplier(multiplier, noise, finest_first, clients, RING_BITS)
    if found is None:
        raise UsageError(f"so much noise on {length} numbers of {clients} clients needs more than {RING_BITS} bits")
    return found


def _deviation(noise: NoiseSpec, clients: int, survivors: int) -> float:
    """Of the noise in the sum, in its integers: all survivors' is in there, the colluders' too."""
    return sqrt(noise.held(clients, survivors) * survivors / (survivors - noise.colluders))
