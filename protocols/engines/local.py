"""Threads of this process: for work that releases the interpreter lock, as AES, numpy and compiled code do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import ClassVar, TypeVar

from protocols.engines import Engine, Hosted, ahead, checked_workers

A = TypeVar("A")
R = TypeVar("R")
S = TypeVar("S")


class Threads(Engine):
    """
    >>> list(Threads(2).map(lambda item: item * item, range(4)))
    [0, 1, 4, 9]
    """

    shares_memory: ClassVar[bool] = True

    def __init__(self, workers: int = 1) -> None:
        self.workers = checked_workers(workers)

    def map(self, work: Callable[[A], R], items: Iterable[A]) -> Iterator[R]:
        with ThreadPoolExecutor(self.workers) as pool:
            yield from ahead(2 * self.workers, lambda item: pool.submit(work, item).result, items)

    def host(self, make: Callable[[], S]) -> Hosted[S]:
        return _Here(make)


@contextmanager
def beside(workers: int, work: Callable[[A], R], items: Iterable[A]) -> Iterator[Iterator[R]]:
    """``work`` of all items, begun at once on threads of their own, while whoever asked does something else.

    >>> with beside(1, lambda item: item * item, range(4)) as squares:
    ...     print(list(squares))
    [0, 1, 4, 9]
    """
    with ThreadPoolExecutor(workers) as pool:
        begun = [pool.submit(work, item) for item in items]
        yield (future.result() for future in begun)


HERE = Threads()
"""One worker, which does one thing after another."""


class _Here(Hosted[S]):
    """A thread of its own, so that what is asked happens in order."""

    def __init__(self, make: Callable[[], S]) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._made = self._thread.submit(make)

    def ask(self, work: Callable[[S, A], R], argument: A) -> Callable[[], R]:
        return self._thread.submit(lambda: work(self._made.result(), argument)).result
