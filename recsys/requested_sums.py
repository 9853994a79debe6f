"""Sums for models that are made of a few noised sums, over the clients of a fleet.

The model says what a user adds and what share of the budget that is worth; from here on it is one question to the
adder. A client with several users adds up what they add, cut back to the norm of one: the unit is the client.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import count, islice
from math import sqrt
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dp.calibrate import DEFAULT_BETA, with_multiplier
from dp.noise import NoiseSpec
from recsys.aggregator import Adder, Answer, Question, SecureAdder, Update
from recsys.federated import Fleet, carried_out, given_up
from recsys.models.private_sums import Contribution, Noised, Sums
from recsys.models.recommender import Recommender
from recsys.run_record import Round
from secagg.encoding import Encoding
from secagg.errors import DecodeError, StorageError, ThresholdError, UsageError
from secagg.files import read_private, write_file
from secagg.foreign import parse_arrays, parse_json


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
    return sqrt(noise.honest_variance(clients, survivors) * survivors / (survivors - noise.colluders))


# After a restart


class Answered:
    """An adder that remembers: after a restart a model asks for all its sums again, and each of them is made once.

    What came out, or that nothing did, is in the file ``path`` before anybody hears of it. Later sums depend on
    earlier ones (which items are paired, say), so these must not be computed again from updates that may differ.
    """

    def __init__(self, adder: SecureAdder, path: Path) -> None:
        self._adder, self._path = adder, path
        self._known = list(_decoded(read_private(path))) if path.exists() else []
        adder.retire(len(self._known))

    def __len__(self) -> int:
        return len(self._known)

    def add_up(self, question: Question, update: Update) -> Answer:
        """``StorageError`` if another sum had this number."""
        if question.number >= len(self):
            self._known.append(self._asked(question, update))
            write_file(self._path, _encoded_answers(self._known), private=True)
            self._adder.retire(len(self))
        known = self._known[question.number]
        if (known.purpose, known.length) != (question.purpose, question.encoding.length):
            raise StorageError(f"sum {question.number} was another one when the run began: start a new run")
        if known.answer is None:
            raise ThresholdError(known.given_up)
        return known.answer

    def _asked(self, question: Question, update: Update) -> _Known:
        try:
            answer = self._adder.add_up(question, update)
        except ThresholdError as error:
            return _Known(question.purpose, question.encoding.length, str(error))
        return _Known(question.purpose, question.encoding.length, "", answer)


@dataclass(frozen=True, slots=True, eq=False)
class _Known:
    purpose: str
    length: int
    given_up: str
    answer: Answer | None = None


def _encoded_answers(known: Sequence[_Known]) -> bytes:
    out = io.BytesIO()
    said = [asdict(one) for one in known]
    arrays = {str(i): one["answer"].pop("vector") for i, one in enumerate(said) if one["answer"]}
    np.savez(out, said=np.array(json.dumps(said, allow_nan=False)), **arrays)
    return out.getvalue()


def _decoded(data: bytes) -> list[_Known]:
    try:
        stored = parse_arrays(data)
        said: list[dict[str, Any]] = parse_json(str(stored["said"]).encode())
        for i, one in enumerate(said):
            if one["answer"]:
                survivors = tuple(one["answer"].pop("survivors"))
                one["answer"] = Answer(vector=stored[str(i)], survivors=survivors, **one["answer"])
        return [_Known(**one) for one in said]
    except (DecodeError, KeyError, TypeError, ValueError, AttributeError):
        raise DecodeError("this is no checkpoint") from None
