"""A privacy filter for each of many clients, where a sum is charged to those only whose turn it is.

Each client's data are in some of the sums, and the sums that it is not in say nothing about it, whatever they were
chosen by: they depend on it only through what came out before. So each client has the whole budget for the sums that it
is in, and one that has spent it keeps all others of its cohort from a further sum. What is reached is what the dearest
client has reached.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

from dp.filter import Budget, Filter, Kind, PrivacyCost, most_of
from secagg.errors import BudgetError, UsageError


@dataclass(frozen=True, slots=True)
class ClientFilters:
    """What is spent and reserved of a budget of kind gdp, client by client. Each method returns new filters, or raises
    ``BudgetError``.

    >>> from fractions import Fraction
    >>> budget = Budget(Fraction(2), Fraction(1, 10**5), slack=Fraction(1, 10**8), kind=Kind.GDP)
    >>> cost = PrivacyCost(budget.limits(), samples=1)
    >>> spent = ClientFilters.of(budget, ["anna", "bert", "carl"]).reserve("first", cost, ["anna", "bert"])
    >>> spent.reserve("second", cost, ["bert", "carl"])
    Traceback (most recent call last):
    secagg.errors.BudgetError: client bert: with this release epsilon could reach 2.95357, the budget allows 2
    >>> spent.abort("first").reserve("second", cost, ["bert", "carl"]).total == cost
    True
    """

    each: Mapping[str, Filter] = field(repr=False)

    @classmethod
    def of(cls, budget: Budget, names: Iterable[str]) -> Self:
        if budget.kind is not Kind.GDP:
            raise UsageError("what each client spends is counted as mu^2: the budget is of kind gdp")
        unspent = Filter.of(budget)
        return cls(dict.fromkeys(names, unspent))

    @property
    def total(self) -> PrivacyCost:
        """The most mu^2 and the most samples that any client has spent and reserved."""
        return most_of(one.total for one in self.each.values())

    @property
    def spent(self) -> PrivacyCost:
        """The most that any client has spent."""
        return most_of(one.spent for one in self.each.values())

    @property
    def reached(self) -> int | None:
        """The epsilon of the dearest client."""
        return max(self.each.values(), key=lambda one: one.total.amounts).reached

    def allows(self, cost: PrivacyCost, clients: Iterable[str] | None = None) -> bool:
        """Whether so much may be reserved for each of these, or for everybody."""
        return all(self.each[name].allows(cost) for name in (self.each if clients is None else clients))

    def reserve(self, release: str, cost: PrivacyCost, clients: Iterable[str] | None = None) -> ClientFilters:
        """Set ``cost`` aside for each of these clients, or for everybody, if each is within the budget then."""
        after = dict(self.each)
        for name in self.each if clients is None else clients:
            try:
                after[name] = self.each[name].reserve(release, cost)
            except BudgetError as error:
                raise BudgetError(f"client {name}: {error}") from None
        return ClientFilters(after)

    def commit(self, release: str, cost: PrivacyCost) -> ClientFilters:
        """Replace a reservation by what happened, for all for whom it was reserved."""
        return self._with({name: one.commit(release, cost) for name, one in self._open(release).items()})

    def abort(self, release: str) -> ClientFilters:
        """Give back a reservation for which nothing was released."""
        return self._with({name: one.abort(release) for name, one in self._open(release).items()})

    def _with(self, changed: Mapping[str, Filter]) -> ClientFilters:
        return ClientFilters({**self.each, **changed})

    def _open(self, release: str) -> dict[str, Filter]:
        found = {name: one for name, one in self.each.items() if release in one.reserved}
        if not found:
            raise UsageError(f"nothing is reserved for {release}")
        return found
