"""Who is charged for sums over whoever was ready: in each are ``size`` of many clients, and no number says which.

The names of all who are in a sum stand in the ledger beside it. With the keys that the ledger began with they make the
digest of a roster, and that is in the plan, which survivors have signed: so nobody can be in a sum whose name is not
there. Each client has the whole budget, and is charged for the sums that name it, whether its vector arrived or not.

Who is in a sum may depend on all that came out before, on the network, and on the server's will. That is no matter to
the budget, which is counted client by client and stops before it is passed, whatever decides who comes next
(docs/privacy.md). It is one to the noise: the dishonest of all clients may be in one sum together, so they are counted
over all, and not as a part of ``size``.
"""

from __future__ import annotations

from dataclasses import dataclass

from dp.secure_sum import SecureSum
from dp.turns import check_listed, roster_of, said
from secagg.errors import BudgetError, UsageError


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Who may be in a sum: the clients' names and keys, sorted by name, and how many are in one.

    >>> arrivals = Arrivals(("anna", "bert", "carl"), (b"a" * 32, b"b" * 32, b"c" * 32), size=2)
    >>> sorted(arrivals.members(("anna", "carl")))
    ['anna', 'carl']
    >>> arrivals.members(("anna",))
    Traceback (most recent call last):
    secagg.errors.BudgetError: a sum is over 2 of the 3 clients, each named once and in order
    """

    names: tuple[str, ...]
    keys: tuple[bytes, ...]
    size: int

    def __post_init__(self) -> None:
        check_listed(self.names, self.keys, self.size)

    def members(self, names: tuple[str, ...]) -> dict[str, bytes]:
        """These clients with their keys, if they can be those of a sum."""
        chosen = set(names)
        found = {name: key for name, key in zip(self.names, self.keys, strict=True) if name in chosen}
        if tuple(found) != names or len(names) != self.size:
            raise BudgetError(
                f"a sum is over {self.size} of the {len(self.names)} clients, each named once and in order"
            )
        return found

    def charged(self, what: SecureSum) -> dict[str, bytes]:
        """Who is charged for a sum, with keys: all whom it names, whoever takes part. One that is planned over others
        is refused."""
        members = self.members(what.members)
        if what.planned != self.size or what.roster != roster_of(members):
            raise BudgetError(f"sum {what.round} is not over the clients that it names")
        if said(what.plan) != what.round.to_bytes(4, "big") + what.roster:
            raise BudgetError(f"sum {what.round} has another number or roster in its plan")
        if what.overlap > 1:
            raise UsageError("where each client is charged for its own sums, no two of them hold data of one user")
        return members

    def check_signers(self, what: SecureSum) -> None:
        """Refuse signatures of others than those whom the sum names, each under its own key."""
        members = self.members(what.members)
        for one in what.signatures:
            if members.get(one.name) != one.key:
                raise BudgetError(f"{one.name} signed sum {what.round}: it is not in it, or not its key")
