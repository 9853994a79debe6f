"""Noised sums over clients, for models that are made of a few such sums.

The model says what a user adds, and which share of the budget the sum may spend. Each sum is one request to the
aggregator. A silo adds up one contribution for each of its users, each of which is bounded by itself: the unit of
privacy is the user, on a device and inside a silo.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from itertools import count, islice
from math import sqrt
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dp.calibrate import DEFAULT_BETA, with_multiplier
from dp.noise import NoiseSpec
from recsys.aggregator import Aggregator, LazyVectors, Request, Result, Update
from recsys.federated import ClientData, completed_round, failed_round
from recsys.models.private_sums import Contribution, Noised, Sums
from recsys.models.recommender import Recommender
from recsys.run_record import NO_CHECKPOINT, Round
from recsys.secure_aggregator import SecureAggregator
from recsys.users_in_silos import UsersInSilos
from secagg import tensors
from secagg.at_rest import AnyFolder, Folder
from secagg.crypto import labels
from secagg.crypto.keys import derive
from secagg.encoding import Encoding, Rounding
from secagg.errors import DecodeError, StorageError, ThresholdError, UsageError
from secagg.foreign import as_declared
from secagg.tensors import Pieces


class LearnsFromSums(Recommender, Protocol):
    """A model that is made of noised sums, and asks for them itself."""

    def learn(self, sums: Sums, item_count: int) -> object: ...


RING_BITS = 32
_WIDER_RINGS = (36, 40, 44, 48)
"""For silos with so many users, and vectors so wide, that rounding to the nearest integer needs more."""
_EXACT_BITS = 20
_ATTEMPTS = 5


def sums_of(
    client_data: ClientData,
    aggregator: Aggregator,
    *,
    silos: UsersInSilos | None = None,
    multiplier: float = 0.0,
    noise: NoiseSpec | None = None,
    done: Callable[[Round], None] = lambda one: None,
) -> Sums:
    """What a model asks for its sums. ``silos``: clients hold many users; None: each is one user's device.
    ``multiplier`` is the noise multiplier of one sum that spends the whole budget,
    ``noise`` the kind of noise; without both, sums are exact. ``done`` is told of each sum.

    A sum that fails since too many clients dropped out is requested again, under a new number.
    """
    if (noise is None) != (multiplier == 0):
        raise UsageError("noise has a kind and a multiplier")
    if silos is None and any(len(users) > 1 for users in client_data.members):
        raise UsageError("a client with many users is a silo, which has a most of them")
    clients, numbers = len(client_data.names), count()
    users = clients if silos is None else silos.users

    def add(purpose: str, length: int, share: Fraction, contribution: Contribution) -> Noised:
        encoding, drawn = _encoded(length, multiplier / sqrt(share), noise, clients, silos)

        def update(name: str) -> NDArray[np.float64] | LazyVectors:
            histories = client_data.histories(name)
            if silos is not None:
                return LazyVectors(len(histories), lambda: map(contribution, histories))
            return contribution(histories[0])

        for number in islice(numbers, _ATTEMPTS):
            try:
                result = aggregator.aggregate(Request(number, purpose, client_data.names, encoding, drawn), update)
            except ThresholdError as error:
                done(failed_round(number, purpose, clients, error))
                continue
            done(completed_round(number, purpose, clients, result))
            deviation = 0.0 if drawn is None else _deviation(drawn, clients, len(result.survivors)) / encoding.scale
            return Noised(result.vector, deviation, users)
        raise ThresholdError(f"{purpose}: too many clients were lost, {_ATTEMPTS} times")

    return add


def _encoded(
    length: int, multiplier: float, noise: NoiseSpec | None, clients: int, silos: UsersInSilos | None
) -> tuple[Encoding, NoiseSpec | None]:
    (_, rounding), *_ = choices = list(ways(silos))
    if noise is None:
        return next(_of_bits(range(_EXACT_BITS, 33), length, silos, rounding, Fraction(0))), None
    for ring_bits, rounding in choices:
        finest_first = _of_bits(range(24, 7, -1), length, silos, rounding, beta_of(rounding))
        if (found := with_multiplier(multiplier, noise, finest_first, clients, ring_bits)) is not None:
            return found
    raise UsageError(f"so much noise on {length} numbers of {clients} clients needs more than {ring_bits} bits")


def ways(silos: UsersInSilos | None) -> Iterator[tuple[int, Rounding]]:
    """The bits of a ring, and how to round, in the order in which they are tried.

    A device rounds one vector with random bits. A silo rounds many, to the nearest integers wherever a ring has room
    for numbers so fine that this hardly lengthens a vector.
    """
    if silos is not None:
        yield from ((ring_bits, Rounding.NEAREST) for ring_bits in (RING_BITS, *_WIDER_RINGS))
    yield RING_BITS if silos is None else _WIDER_RINGS[-1], Rounding.STOCHASTIC


def beta_of(rounding: Rounding) -> Fraction:
    """The probability with which a rounding is repeated: to the nearest integer there is nothing to repeat."""
    return DEFAULT_BETA if rounding is Rounding.STOCHASTIC else Fraction(0)


def _of_bits(
    choices: Iterable[int], length: int, silos: UsersInSilos | None, rounding: Rounding, beta: Fraction
) -> Iterator[Encoding]:
    """Encodings of so many bits, but for those that are too coarse for rounding to the nearest integer."""
    most, overlap = (0, 1) if silos is None else (silos.most, silos.overlap)
    for bits in choices:
        try:
            made = Encoding(length, 1.0, bits, beta=beta, users=most, overlap=overlap, rounding=rounding)
        except UsageError:
            if rounding is Rounding.STOCHASTIC:
                raise
            continue
        yield made


def _deviation(noise: NoiseSpec, clients: int, survivors: int) -> float:
    """The standard deviation of the noise in a sum, in integer units. Colluders' noise is in the sum, too."""
    return sqrt(noise.honest_variance(clients, survivors) * survivors / (survivors - noise.colluders))


# After a restart


class ResultsOnDisk:
    """An aggregator that keeps its results in a file of a folder, authenticated by the run's secret.

    After a restart a model requests all its sums again, and each is answered from the file if it was made before. A
    result, or that a sum failed, is on disk before the model hears of it. Later sums depend on earlier ones (which
    items are paired, say), so earlier sums must not be made again from updates that may differ.
    """

    def __init__(self, aggregator: SecureAggregator, folder: AnyFolder, name: str, secret: bytes) -> None:
        self._aggregator, self._folder, self._name = aggregator, Folder.of(folder), name
        self._key = derive(secret, labels.STORED, b"checkpoint of sums")
        self._past = list[_PastSum]()
        if self._folder.exists(name):
            self._past = _decoded(self._folder.read(name, private=True), self._key)
        aggregator.delete_pending(len(self._past))

    def __len__(self) -> int:
        return len(self._past)

    def aggregate(self, request: Request, update: Update) -> Result:
        """``StorageError`` if another sum had this number."""
        if request.number >= len(self):
            self._past.append(self._requested(request, update))
            self._folder.write(self._name, *_encoded_results(self._past, self._key), private=True)
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


def _encoded_results(past: Sequence[_PastSum], key: bytes) -> Pieces:
    arrays, entries = dict[str, NDArray[np.float64]](), list[dict[str, object]]()
    for number, one in enumerate(past):
        answer = None
        if one.result is not None:
            answer = {each.name: getattr(one.result, each.name) for each in fields(_ResultWithoutVector)}
            arrays[str(number)] = one.result.vector
        entries.append({"purpose": one.purpose, "length": one.length, "given_up": one.given_up, "answer": answer})
    return tensors.encode({"sums": entries}, arrays, key)


def _decoded(data: bytes, key: bytes) -> list[_PastSum]:
    found = list[_PastSum]()
    try:
        header, arrays = tensors.decode(data, key)
        entries: tuple[_Entry, ...] = as_declared(tuple[_Entry, ...], header["sums"])
        for number, one in enumerate(entries):
            result = None
            if (facts := one.answer) is not None:
                known = {each.name: getattr(facts, each.name) for each in fields(facts)}
                result = Result(vector=arrays[str(number)], **known)
            found.append(_PastSum(one.purpose, one.length, one.given_up, result))
    except (DecodeError, KeyError):
        raise DecodeError(NO_CHECKPOINT) from None
    return found
