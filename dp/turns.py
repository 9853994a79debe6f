"""Turns: all clients stand in one public cyclic order, and each sum is over the next ``size`` of them.

The order follows from a beacon and the names of all clients, and the cohort of a sum from its number, so everybody can
draw both again: the clients, and whoever audits. It is no secret, and makes no epsilon smaller. What it is good for:
each client is in a few of the sums only, known in advance, and is charged for these. Of T sums over ``size`` of n
clients each is in ceil(T size / n), or in one fewer.

Cohort r is the places from r times ``size`` on, counted around the circle. A client that misses its turn has lost it: a
sum that fails is not made again, and the next number is for other clients.

Names are fixed before anybody knows the beacon. All of them go into the order, so a name that is added or changed later
makes another order of all; whoever could try many names, knowing the beacon, could wait for an order that suits it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from dp.secure_sum import SecureSum, check_text
from secagg.crypto import labels
from secagg.crypto.keys import KEY_BYTES, digest
from secagg.errors import BudgetError, UsageError

_MOST_BEACON, _SESSION_BYTES, _HASH_BYTES = 64, 16, 32


@lru_cache(8)
def order(names: tuple[str, ...], beacon: bytes) -> tuple[str, ...]:
    """All names in the order of their turns; ``names`` are sorted, and none is there twice.

    >>> order(("anna", "bert", "carl"), b"noon")
    ('anna', 'carl', 'bert')
    """
    if any(a >= b for a, b in pairwise(names)):
        raise UsageError("names are sorted, and nobody is named twice")
    drawn_from = digest(labels.LEDGER_TURNS, beacon, *[name.encode() for name in names])
    return tuple(sorted(names, key=lambda name: digest(labels.LEDGER_TURNS, drawn_from, name.encode())))


def cohort(names: tuple[str, ...], beacon: bytes, size: int, number: int) -> tuple[str, ...]:
    """The names of those whose turn sum ``number`` is, sorted.

    >>> [cohort(("anna", "bert", "carl"), b"noon", 2, number) for number in range(3)]
    [('anna', 'carl'), ('anna', 'bert'), ('bert', 'carl')]
    """
    if not 0 < size <= len(names) or number < 0:
        raise UsageError(f"a cohort of {size} cannot be drawn from {len(names)} clients")
    places = order(names, beacon)
    first = number * size
    return tuple(sorted(places[place % len(names)] for place in range(first, first + size)))


def most_turns(clients: int, size: int, sums: int) -> int:
    """In how many of so many sums any client is, at the most.

    >>> most_turns(clients=1000, size=100, sums=100), most_turns(clients=3, size=2, sums=2)
    (10, 2)
    """
    return -(-sums * size // clients)


@dataclass(frozen=True, slots=True)
class Turns:
    """Who takes turns: the clients' names and keys, sorted by name, the beacon, and how many are in a sum.

    >>> turns = Turns(("anna", "bert", "carl"), (b"a" * 32, b"b" * 32, b"c" * 32), b"noon", size=2)
    >>> turns.cohort(0), turns.cohort(1)
    (('anna', 'carl'), ('anna', 'bert'))
    >>> turns.roster(0) == turns.roster(3), turns.roster(0) == turns.roster(1)
    (True, False)
    """

    names: tuple[str, ...]
    keys: tuple[bytes, ...]
    beacon: bytes
    size: int

    def __post_init__(self) -> None:
        check_listed(self.names, self.keys, self.size)
        if not 1 <= len(self.beacon) <= _MOST_BEACON:
            raise UsageError(f"a beacon has 1 to {_MOST_BEACON} bytes, not {len(self.beacon)}")

    def cohort(self, number: int) -> tuple[str, ...]:
        """The names of those whose turn sum ``number`` is, sorted."""
        return cohort(self.names, self.beacon, self.size, number)

    def members(self, number: int) -> dict[str, bytes]:
        """The same with their keys."""
        chosen = set(self.cohort(number))
        return {name: key for name, key in zip(self.names, self.keys, strict=True) if name in chosen}

    def roster(self, number: int) -> bytes:
        """The digest of the roster of those whose turn sum ``number`` is."""
        return roster_of(self.members(number))

    def charged(self, what: SecureSum) -> dict[str, bytes]:
        """Who is charged for a sum, with keys: all whose turn its number is, whoever takes part. A sum that is planned
        over others is refused."""
        members = self.members(what.round)
        if what.planned != self.size or what.roster != roster_of(members):
            raise BudgetError(f"sum {what.round} is not over the clients whose turn it is")
        if said(what.plan) != what.round.to_bytes(4, "big") + what.roster:
            raise BudgetError(f"sum {what.round} has another number or roster in its plan")
        if what.overlap > 1:
            raise UsageError("where clients take turns, no two of them hold data of one user")
        return members

    def check_signers(self, what: SecureSum) -> None:
        """Refuse signatures of others than those whose turn it is, each under its own key."""
        members = self.members(what.round)
        for one in what.signatures:
            if members.get(one.name) != one.key:
                raise BudgetError(f"{one.name} signed sum {what.round}: it is not its turn, or not its key")


def check_listed(names: tuple[str, ...], keys: tuple[bytes, ...], size: int) -> None:
    """Refuse what is no list of clients, of whom ``size`` are in a sum: names that are sorted, each with its key."""
    for name in names:
        check_text(name)
    if any(a >= b for a, b in pairwise(names)):
        raise UsageError("names are sorted, and nobody is named twice")
    if len(keys) != len(names) or len(set(keys)) != len(keys):
        raise UsageError("each client that is charged for its own sums has a key of its own")
    if any(len(key) != KEY_BYTES for key in keys):
        raise UsageError(f"a key has {KEY_BYTES} bytes")
    if not 2 <= size <= len(names):
        raise UsageError(f"2 to {len(names)} clients are in a sum together, not {size}")


def said(plan: bytes) -> bytes:
    """Number and roster in the bytes of a plan, which survivors sign: after the protocol's name and the session
    (``protocols.plan``)."""
    begins = 4 + int.from_bytes(plan[:4], "big") + _SESSION_BYTES
    return plan[begins : begins + 4 + _HASH_BYTES]


def roster_of(keys: dict[str, bytes]) -> bytes:
    """The digest of a roster (``protocols.roster``) of these names and keys, which are sorted by name."""
    return digest(labels.ROSTER, *[part for name, key in keys.items() for part in (name.encode(), key)])
