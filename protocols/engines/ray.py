"""Processes on the machines of a Ray cluster (extra ``ray``).

    with OnRay(workers=16) as engine:                            # a cluster of this machine alone
        server = serve(plan, roster, engine=engine)

    ray.init("auto")                                             # or in a cluster that is there
    server = serve(plan, roster, engine=OnRay(workers=64))

Ray's processes trust whoever reaches them, and run what they are sent: a cluster is one trusted machine made of
several, on a network of its own. Started by ``with``, Ray listens on 127.0.0.1. What a server sends to its workers, it
may publish; a simulation's clients have no secrets but the simulation's. No client of a real round runs on an engine.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar

from protocols.engines import Engine, Hosted, ahead, checked_workers
from secagg.errors import StorageError, UsageError
from secagg.extras import needing

with needing("ray", "the engine on Ray"):
    import ray
    from ray.exceptions import ObjectLostError, RayActorError, RayTaskError, WorkerCrashedError

A = TypeVar("A")
R = TypeVar("R")
S = TypeVar("S")

_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
"""No reports of use to Ray's makers, and no warning about a default that will change."""

_RETRIES = 3
"""How often the work of a worker that died is given to another."""


class OnRay(Engine):
    """``workers`` Ray processes at once. As a context it starts Ray here, with that many cores, and stops it.

    ``store_bytes`` is the memory that Ray may share between its processes here; what does not fit goes to its disk.
    """

    shares_memory: ClassVar[bool] = False

    def __init__(self, workers: int, *, store_bytes: int = 1 << 29) -> None:
        self.workers, self._store_bytes = checked_workers(workers), store_bytes

    def __enter__(self) -> Self:
        if ray.is_initialized():
            raise UsageError("Ray runs here already: use the engine without a with statement")
        os.environ |= _QUIET
        ray.init(
            "local",
            num_cpus=self.workers,
            object_store_memory=self._store_bytes,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",  # nobody else's business
            log_to_driver=False,
            logging_level=logging.WARNING,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ray.shutdown()

    def map(self, work: Callable[[A], R], items: Iterable[A]) -> Iterator[R]:
        sent = _sent(work)

        def begin(item: A) -> Callable[[], R]:
            result = _APPLY.remote(sent, item)
            return lambda: _taken(result)

        return ahead(2 * self.workers, begin, items)

    def host(self, make: Callable[[], S]) -> Hosted[S]:
        return _There(_sent(make))


def _apply(work: Callable[[A], R], item: A) -> R:
    return work(item)


class _Keeper:
    def __init__(self, make: Callable[[], Any]) -> None:
        self._made = cache(make)  # when it is first asked: an error is an answer then, and no death

    def do(self, work: Callable[[Any, Any], Any], argument: Any) -> Any:
        return work(self._made(), argument)


_APPLY: Any = ray.remote(max_retries=_RETRIES)(_apply)
_KEEPER: Any = ray.remote(num_cpus=0, scheduling_strategy="SPREAD")(_Keeper)
"""Takes no core of its own from the tasks: whoever asks it waits meanwhile."""


class _There(Hosted[S]):
    """An object in a process that may die. Then another one is made, and all that was asked is asked again.

    What was asked stays in Ray's store, which puts on disk what it has no room for.
    """

    def __init__(self, make: Any) -> None:
        self._make, self._asked = make, list[tuple[Any, Any]]()
        self._deaths = 0
        self._answers = list[Any]()
        self._keeper = _KEEPER.remote(make)

    def ask(self, work: Callable[[S, A], R], argument: A) -> Callable[[], R]:
        self._asked.append((work, _sent(argument)))
        self._answers.append(self._keeper.do.remote(*self._asked[-1]))
        place = len(self._answers) - 1
        return lambda: self._answer(place)

    def _answer(self, place: int) -> Any:
        while True:
            try:
                answer = _taken(self._answers[place])
            except (RayActorError, ObjectLostError) as error:
                self._remake(error)
            else:
                self._answers[place] = None  # taken: need not be kept
                return answer

    def _remake(self, error: Exception) -> None:
        self._deaths += 1
        if self._deaths > _RETRIES:
            raise StorageError(f"what a worker hosted has been lost {self._deaths} times") from error
        self._keeper = _KEEPER.remote(self._make)
        again = [self._keeper.do.remote(*asked) for asked in self._asked]
        self._answers = [None if old is None else new for old, new in zip(self._answers, again, strict=True)]


def _sent(value: Any) -> Any:
    if not ray.is_initialized():
        raise UsageError("Ray does not run: call ray.init() first, or use the engine in a with statement")
    return ray.put(value)


def _taken(result: Any) -> Any:
    try:
        return ray.get(result)
    except RayTaskError as error:
        raise error.cause from None  # what the work raised, as it would have been raised here
    except WorkerCrashedError as error:
        raise StorageError(f"a piece of work has lost {_RETRIES + 1} workers") from error
