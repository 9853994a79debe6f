"""Noised sums over clients, for models that are made of a few such sums.

The model says what a user adds, and which share of the budget the sum may spend. Each sum is one request to the
aggregator. A client with several users adds up their contributions, and clips the result to the norm of one
contribution: the unit of privacy is the client.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from itertools import count, islice
from math import sqrt
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dp.calibrate import DEFAULT_BETA, with_multiplier
from dp.noise import NoiseSpec
from recsys.aggregator import Aggregator, Request, Result, Update
from recsys.federated import ClientData, completed_round, failed_round
from recsys.models.private_sums import Contribution, Noised, Sums
from recsys.models.recommender import Recommender
from recsys.run_record import Round
from recsys.secure_aggregator import SecureAggregator
from secagg.encoding import Encoding
from secagg.errors import DecodeError, StorageError, ThresholdError, UsageError
from secagg.files import read_private, write_file
from secagg.foreign import as_declared, parse_arrays, parse_json


class LearnsFromSums(Recommender, Protocol):
    """A model that is made of noised sums, and asks for them itself."""

    def learn(self, sums: Sums, item_count: int) -> object: ...


RING_BITS = 32
_EXACT_BITS = 20
_ATTEMPTS = 5


def sums_of(
    client_data: ClientData,
    aggregator: Aggregator,
    *,
    multiplier: float = 0.0,
    noise: NoiseSpec | None = None,
    done: Callable[[Round], None] = lambda one: None,
) -> Sums:
    """What a model asks for its sums. ``multiplier`` is the noise multiplier of one sum that spends the whole budget,
    ``noise`` the kind of noise; without both, sums are exact. ``done`` is told of each sum.

    A sum that fails since too many clients dropped out is requested again, under a new number.
    """
    if (noise is None) != (multiplier == 0):
        raise UsageError("noise has a kind and a multiplier")
    clients, numbers = len(client_data.names), count()

    def add(purpose: str, length: int, share: Fraction, contribution: Contribution) -> Noised:
        encoding, drawn = _encoded(length, multiplier / sqrt(share), noise, clients)

        def update(name: str) -> NDArray[np.float64]:
            return sum((contribution(history) for history in client_data.histories(name)), start=np.zeros(length))

        for number in islice(numbers, _ATTEMPTS):
            try:
                result = aggregator.aggregate(Request(number, purpose, client_data.names, encoding, drawn), update)
            except ThresholdError as error:
                done(failed_round(number, purpose, clients, error))
                continue
            done(completed_round(number, purpose, clients, result))
            deviation = 0.0 if drawn is None else _deviation(drawn, clients, len(result.survivors)) / encoding.scale
            return Noised(result.vector, deviation, clients)
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
    """The standard deviation of the noise in a sum, in integer units. Colluders' noise is in the sum, too."""
    return sqrt(noise.honest_variance(clients, survivors) * survivors / (survivors - noise.colluders))


# After a restart


class ResultsOnDisk:
    """An aggregator that keeps its results in the file ``path``.

    After a restart a model requests all its sums again, and each is answered from the file if it was made before. A
    result, or that a sum failed, is on disk before the model hears of it. Later sums depend on earlier ones (which
    items are paired, say), so earlier sums must not be made again from updates that may differ.
    """

    def __init__(self, aggregator: SecureAggregator, path: Path) -> None:
        self._aggregator, self._path = aggregator, path
        self._past = _decoded(read_private(path)) if path.exists() else []
        aggregator.delete_pending(len(self._past))

    def __len__(self) -> int:
        return len(self._past)

    def aggregate(self, request: Request, update: Update) -> Result:
        """``StorageError`` if another sum had this number."""
        if request.number >= len(self):
            self._past.append(self._requested(request, update))
            write_file(self._path, _encoded_results(self._past), private=True)
            self._aggregator.delete_pending(len(self))
        past = self._past[request.number]
        if (past.purpose, past.length) != (request.purpose, request.encoding.length):
            raise StorageError(f"sum {request.number} was another one when the run began: start a new run")
        if past.result is None:
            raise ThresholdError(past.given_up)
        return past.result

    def _requested(self, request: Request, update: Update) -> _PastSum:
        try:
            result = self._aggregator.aggregate(request, update)
        except ThresholdError as error:
            return _PastSum(request.purpose, request.encoding.length, str(error))
        return _PastSum(request.purpose, request.encoding.length, "", result)


@dataclass(frozen=True, slots=True, eq=False)
class _PastSum:
    """A sum that was asked for: its result, or why it was given up."""

    purpose: str
    length: int
    given_up: str
    result: Result | None = None


@dataclass(frozen=True, slots=True)
class _ResultWithoutVector:
    """A result as JSON; its vector is an array of the same file."""

    weight: int
    survivors: tuple[str, ...]
    silent: Mapping[str, int]
    bytes_up: int
    bytes_down: int
    seconds: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class _Entry:
    """A past sum as JSON."""

    purpose: str
    length: int
    given_up: str
    answer: _ResultWithoutVector | None


def _encoded_results(past: Sequence[_PastSum]) -> bytes:
    out = io.BytesIO()
    arrays, entries = dict[str, NDArray[np.float64]](), list[dict[str, object]]()
    for number, one in enumerate(past):
        answer = None
        if one.result is not None:
            answer = {each.name: getattr(one.result, each.name) for each in fields(_ResultWithoutVector)}
            arrays[str(number)] = one.result.vector
        entries.append({"purpose": one.purpose, "length": one.length, "given_up": one.given_up, "answer": answer})
    np.savez(out, said=np.array(json.dumps(entries, allow_nan=False)), **arrays)  # type: ignore[arg-type]
    return out.getvalue()


def _decoded(data: bytes) -> list[_PastSum]:
    found = list[_PastSum]()
    try:
        arrays = parse_arrays(data)
        entries: tuple[_Entry, ...] = as_declared(tuple[_Entry, ...], parse_json(str(arrays["said"]).encode()))
        for number, one in enumerate(entries):
            result = None
            if (facts := one.answer) is not None:
                known = {each.name: getattr(facts, each.name) for each in fields(facts)}
                result = Result(vector=arrays[str(number)], **known)
            found.append(_PastSum(one.purpose, one.length, one.given_up, result))
    except (DecodeError, KeyError, ValueError):  # half a surrogate is text that has no bytes
        raise DecodeError("this is no checkpoint") from None
    return found
