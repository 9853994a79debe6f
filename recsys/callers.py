"""Who is called for the next sum of a training, from which version of the model each starts, and what time it is.

    Drawn     a cohort is drawn, all of whom train from the newest version; a round waits for them, or for some
    Ready     asynchronous training: clients train all the time, each from the newest version when it begins and at its
              own pace, and whoever is ready first is in the next sum (``protocols.buffers``)

Both simulate time (``recsys.network``) and let nobody sleep. All that ``Ready`` must remember between two sums is its
``state``, which is in the checkpoint: when each client will be ready, from which version it trains, how often it was in
a sum, and the versions that somebody still trains from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from protocols.buffers import Buffer, Start, weight
from recsys.network import Network
from recsys.participation import Participation, beacon
from secagg.errors import BudgetError, DecodeError, UsageError
from secagg.foreign import as_declared

Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Called:
    """Who is called for a sum."""

    names: tuple[str, ...]
    late: frozenset[str] = frozenset()
    """who of them has not trained when the sum begins"""
    buffer: Buffer | None = None
    starts: Mapping[str, Start] = field(default_factory=dict)
    vectors: Mapping[int, Vector] = field(default_factory=dict)
    """of the versions in ``starts``"""

    def vector(self, name: str, newest: Vector) -> Vector:
        """What this client trains from."""
        return self.vectors[self.starts[name].version] if self.starts else newest

    def weight(self, name: str) -> float:
        """By what its change is multiplied before the clip."""
        return 1.0 if self.buffer is None else weight(self.buffer.staleness_of(name))

    @property
    def staleness(self) -> dict[str, int]:
        """How many clients trained from a version so many versions ago."""
        ages = [] if self.buffer is None else [self.buffer.staleness_of(name) for name in self.names]
        return {str(age): ages.count(age) for age in sorted(set(ages))}


class Callers(Protocol):
    """Decides who is called, sum after sum. ``names`` are all clients."""

    def call(self, number: int, newest: Vector) -> Called:
        """Who is in the sum of this number. ``BudgetError`` if too few clients may be in another one."""

    def done(self, called: Called, newest: Vector, seconds: float, *, summed: bool) -> None:
        """The sum is over after so many simulated seconds of messages; whether it came out says ``summed``."""

    @property
    def now(self) -> float:
        """Simulated seconds since training began."""

    def written(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """What a checkpoint has of it, as JSON and arrays."""

    def read(self, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Go on from there; ``DecodeError`` if that cannot be."""


class Drawn:
    """A cohort is drawn for each sum; who is later than the round waits for is a dropout."""

    def __init__(
        self, names: Sequence[str], participation: Participation, network: Network | None = None, seed: int = 0
    ) -> None:
        self._names, self._participation, self._seed = tuple(names), participation, seed
        self._network, self.now = network or Network(), 0.0

    def call(self, number: int, newest: Vector) -> Called:
        names = self._participation.cohort(self._names, beacon(self._seed), number)
        enough = self._participation.size if self._participation.over > 1 else len(names)
        waited, late = self._network.late(names, number, self._seed, enough)
        self.now += waited
        return Called(names, late)

    def done(self, called: Called, newest: Vector, seconds: float, *, summed: bool) -> None:
        self.now += seconds

    def written(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        return {"now": self.now}, {}

    def read(self, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        self.now = as_declared(float, header.get("now", 0.0))


_OF_EACH = ("ready", "started", "sums", "trainings")


@dataclass(slots=True)
class _State:
    """Of all clients, in the order of their names. ``version`` is the newest."""

    now: float
    version: int
    ready: NDArray[np.float64]
    """when each has trained; infinity: it does not train"""
    started: NDArray[np.int64]
    """from which version"""
    sums: NDArray[np.int64]
    """in how many sums each has been"""
    trainings: NDArray[np.int64]
    """how often each has begun to train"""
    models: dict[int, Vector]


class Ready:
    """Whoever has trained first is in the next sum. ``concurrent`` clients train at a time (0: all), and none is in
    more than ``most`` sums; an update that is more than ``staleness`` versions old is thrown away."""

    def __init__(
        self,
        names: Sequence[str],
        network: Network,
        *,
        size: int,
        most: int,
        staleness: int,
        concurrent: int = 0,
        seed: int = 0,
    ) -> None:
        self._names, self._network, self._seed = tuple(names), network, seed
        self._size, self._most, self._staleness = size, most, staleness
        self._concurrent = concurrent or len(self._names)
        if not size <= self._concurrent <= len(self._names):
            raise UsageError(f"{size} to {len(self._names)} clients train at a time, not {self._concurrent}")
        count = len(self._names)
        started, sums, trainings = np.zeros((3, count), np.int64)
        self._state = _State(0.0, 0, np.full(count, np.inf), started, sums, trainings, {})

    @property
    def now(self) -> float:
        return self._state.now

    def call(self, number: int, newest: Vector) -> Called:
        state = self._state
        if not state.models:
            state.models[0] = newest
        self._begin_more()
        while True:
            first = np.lexsort((np.arange(len(self._names)), state.ready))[: self._size]
            if not np.isfinite(state.ready[first]).all():
                raise BudgetError(
                    f"fewer than {self._size} clients may be in another sum: the others were in {self._most}"
                )
            stale = [int(one) for one in first if state.version - state.started[one] > self._staleness]
            if not stale:
                break
            for one in stale:
                self._begin(one, max(state.now, float(state.ready[one])))
        state.now = max(state.now, float(state.ready[first].max()))
        members = np.sort(first)
        names = tuple(self._names[one] for one in members)
        vectors = {version: state.models[version] for version in {*state.started[members].tolist(), state.version}}
        digests = {version: sha256(vector.tobytes()).digest() for version, vector in vectors.items()}
        starts = {
            name: Start(version, digests[version])
            for name, version in zip(names, state.started[members].tolist(), strict=True)
        }
        buffer = Buffer.of(state.version, self._staleness, starts, digests[state.version])
        return Called(names, buffer=buffer, starts=starts, vectors=vectors)

    def done(self, called: Called, newest: Vector, seconds: float, *, summed: bool) -> None:
        state = self._state
        state.now += seconds
        if summed:
            state.version += 1
            state.models[state.version] = newest
        members = set(called.names)
        for one, name in enumerate(self._names):
            if name in members:
                state.sums[one] += 1
                state.ready[one] = np.inf
        self._begin_more()
        needed = {*state.started[np.isfinite(state.ready)].tolist(), state.version}
        state.models = {version: vector for version, vector in state.models.items() if version in needed}

    def _begin_more(self) -> None:
        """Let as many clients train as there is room for, by lot."""
        state = self._state
        idle = [one for one in range(len(self._names)) if state.ready[one] == np.inf and state.sums[one] < self._most]
        room = self._concurrent - int(np.isfinite(state.ready).sum())
        for one in sorted(idle, key=self._lot)[:room]:
            self._begin(one, state.now)

    def _begin(self, one: int, when: float) -> None:
        state = self._state
        takes = self._network.takes(self._names[one], int(state.trainings[one]), self._seed)
        state.ready[one], state.started[one] = when + takes, state.version
        state.trainings[one] += 1

    def _lot(self, one: int) -> bytes:
        drawn_for = f"{self._seed} {self._state.version} {self._state.trainings[one]} {self._names[one]}"
        return sha256(drawn_for.encode()).digest()

    def written(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        state = self._state
        arrays: dict[str, NDArray[Any]] = {f"version {number}": vector for number, vector in state.models.items()}
        arrays |= {name: getattr(state, name) for name in _OF_EACH}
        return {"now": state.now, "version": state.version}, arrays

    def read(self, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        models = {
            int(name.removeprefix("version ")): array for name, array in arrays.items() if name.startswith("version ")
        }
        try:
            now, version = as_declared(float, header["now"]), as_declared(int, header["version"])
            ready, started, sums, trainings = (arrays[name].copy() for name in _OF_EACH)
        except KeyError:
            raise DecodeError("this is no state of asynchronous training") from None
        if any(one.shape != (len(self._names),) for one in (ready, started, sums, trainings)):
            raise DecodeError("this is the state of other clients")
        found = _State(now, version, ready, started, sums, trainings, models)
        self._state = found
