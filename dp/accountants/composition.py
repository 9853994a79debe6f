"""The base of accountants: a composition of the events that one data subject was exposed to, for its whole life."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable
from math import exp, inf, isfinite
from typing import Any, Generic, Self, TypeVar

from dp.events import Event, Guarantee, Relation, Release, Trust, Unit, from_record, to_record
from secagg.errors import DecodeError, UsageError

H = TypeVar("H", bound=Callable[..., Any])
_SMALLEST_DELTA = 1e-200


class Handlers(Generic[H]):
    """A registry with a handler for each mechanism and sampling, and the relations for which the handler holds."""

    def __init__(self, accountant: str) -> None:
        self._accountant = accountant
        self._known: dict[tuple[type, type], tuple[frozenset[Relation], H]] = {}

    def add(self, mechanism: type, sampling: type, *relations: Relation) -> Callable[[H], H]:
        def register(handler: H) -> H:
            self._known[mechanism, sampling] = frozenset(relations), handler
            return handler

        return register

    def find(self, release: Release) -> H:
        kinds = type(release.mechanism), type(release.sampling)
        relations, handler = self._known.get(kinds, (frozenset(), None))
        if handler is None or release.guarantee.relation not in relations:
            raise UsageError(
                f"no {self._accountant} bound is known for {kinds[0].__name__} with {kinds[1].__name__} "
                f"under {release.guarantee.relation}"
            )
        return handler


class Composition(ABC):
    """Events with their counts, all under one guarantee. One data subject must have one instance only."""

    def __init__(self) -> None:
        self.events: Counter[Event] = Counter()

    @property
    def guarantee(self) -> Guarantee | None:
        return next((event.guarantee for event in self.events), None)

    def compose(self, event: Event, count: int = 1) -> None:
        """Charge ``count`` more such events."""
        if count < 1:
            raise UsageError(f"an event is composed at least once, not {count} times")
        if self.guarantee not in (None, event.guarantee):
            raise UsageError(f"{event.guarantee} cannot be added to {self.guarantee}")
        self.check(event)
        self.events[event] += count

    @abstractmethod
    def check(self, event: Event) -> None:
        """Refuse what this accountant cannot interpret."""

    @abstractmethod
    def epsilon(self, delta: float) -> float:
        """The epsilon of all composed events at ``delta``."""

    def state(self) -> list[dict[str, Any]]:
        """The events as JSON, to be kept across restarts."""
        return [{"event": to_record(event), "count": count} for event, count in self.events.items()]

    def restore(self, state: Iterable[Any]) -> Self:
        """Add the events of a ``state``."""
        for item in state:
            try:
                event, count = from_record(item["event"]), item["count"]
            except (KeyError, TypeError):
                raise DecodeError("not the state of an accountant") from None
            if type(count) is not int:
                raise DecodeError("not the state of an accountant")
            self.compose(event, count)
        return self


def disjoint(accountants: Iterable[Composition], delta: float) -> float:
    """Epsilon over data sets that share nobody: the largest (parallel composition).

    Not when an example is replaced by another: that could move it from one client to another.
    """
    largest = 0.0
    for accountant in accountants:
        if accountant.guarantee is not None and accountant.guarantee.relation is Relation.REPLACE_ONE:
            raise UsageError("no maximum over disjoint clients under replace-one: an example may move between them")
        largest = max(largest, accountant.epsilon(delta))
    return largest


def overlapping(accountants: Iterable[Composition], into: Composition) -> Composition:
    """All that happened to one user who is on several clients, as one composition."""
    for accountant in accountants:
        for event, count in accountant.events.items():
            into.compose(event, count)
    return into


def group(accountant: Composition, size: int, delta: float) -> float:
    """Epsilon of ``size`` examples of one client together; for several clients of one user use ``overlapping``.

    (e, d) for one is (k e, d (1 + e^e + ... + e^{(k-1) e})) for k (Vadhan 2017, Lemma 2.2), with d to fit ``delta``.
    """
    guarantee = accountant.guarantee
    if size < 1 or guarantee is None or guarantee.unit is not Unit.EXAMPLE or guarantee.trust is not Trust.LOCAL:
        raise UsageError("groups are of examples within one client")
    single, one = delta, accountant.epsilon(delta)
    while single * (growth := sum(exp(min(i * one, 600.0)) for i in range(size))) > delta:
        single = 0.99 * delta / growth  # a smaller delta makes a larger epsilon, hence a larger growth
        if single < _SMALLEST_DELTA or not isfinite(one := accountant.epsilon(single)):
            return inf
    return size * one
