"""Who does the work: an ``Engine`` has workers, threads of this process (``Threads``) or processes on many machines
(``protocols.engines.ray``). What is to be done does not know which.

Two kinds of work suffice. ``map`` spreads pure functions: the server's removal of masks, by coordinate ranges, whole
cohorts of a tree. ``host`` puts an object where a worker can keep it: a share of the clients of a large simulation. A
worker that dies is replaced, and its work done again. So all work must be deterministic; what is hosted is made again
and told once more what it was told before. Machines are deterministic, given their randomness.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import ClassVar, Generic, TypeVar

import numpy as np

from secagg.crypto.masking import add_masks
from secagg.crypto.ring import Words
from secagg.errors import UsageError

A = TypeVar("A")
R = TypeVar("R")
S = TypeVar("S")

_PAGE_BYTES = 1 << 12
LARGEST_SHARD = 1 << 22
"""Coordinates that a worker sends back at once: memory stays bounded, and opening its streams costs a percent."""


class Hosted(ABC, Generic[S]):
    """An object that lives with one worker."""

    @abstractmethod
    def ask(self, work: Callable[[S, A], R], argument: A) -> Callable[[], R]:
        """Begin ``work(object, argument)``, after all that was asked before; call what comes back to wait for it."""


class Engine(ABC):
    workers: int
    shares_memory: ClassVar[bool]
    """Whether workers see the arrays of whoever gives them work, so that little work is worth sharing out."""

    @abstractmethod
    def map(self, work: Callable[[A], R], items: Iterable[A]) -> Iterator[R]:
        """``work`` of each item, in their order; never more than twice the workers are begun and not yet taken."""

    @abstractmethod
    def host(self, make: Callable[[], S]) -> Hosted[S]:
        """What ``make`` returns, with a worker."""


def ahead(most: int, begin: Callable[[A], Callable[[], R]], items: Iterable[A]) -> Iterator[R]:
    """Results in the order of the items, of which at most so many are begun before the first is taken.

    >>> list(ahead(2, lambda item: lambda: 10 * item, range(4)))
    [0, 10, 20, 30]
    """
    begun = deque[Callable[[], R]]()
    for item in items:
        begun.append(begin(item))
        if len(begun) == most:
            yield begun.popleft()()
    while begun:
        yield begun.popleft()()


def checked_workers(workers: int) -> int:
    if workers < 1:
        raise UsageError("an engine has at least one worker")
    return workers


def add_masks_on(engine: Engine, target: Words, plus: list[bytes], minus: list[bytes]) -> None:
    """``secagg.crypto.masking.add_masks``, cut into ranges of coordinates: every worker enters all streams at its own
    place.

    >>> from protocols.engines.local import Threads
    >>> ours, theirs = np.zeros(100_000, np.uint32), np.zeros(100_000, np.uint32)
    >>> add_masks_on(Threads(2), ours, [bytes(32)], [])
    >>> add_masks(theirs, [bytes(32)])
    >>> bool((ours == theirs).all())
    True
    """
    dtype = target.dtype

    def sum_of_range(span: range) -> Words:
        words = np.zeros(len(span), dtype)
        add_masks(words, plus, minus, first=span.start)
        return words

    spans = shards(len(target), dtype.itemsize, engine.workers)
    for span, words in zip(spans, engine.map(sum_of_range, spans), strict=True):
        target[span.start : span.stop] += words


def shards(length: int, itemsize: int, workers: int) -> list[range]:
    """Ranges of whole pages, as even as that allows.

    >>> shards(100_000, 4, 2)
    [range(0, 50176), range(50176, 100000)]
    """
    per_page = _PAGE_BYTES // itemsize
    share = min(-(-length // workers), LARGEST_SHARD)
    step = max(-(-share // per_page), 1) * per_page
    return [range(start, min(start + step, length)) for start in range(0, length, step)]
