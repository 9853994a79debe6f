"""What is declared of the users inside silos: constants that all parties know, and no counts.

With one noise for all silos together the unit of privacy is a user, and how many users a silo has stays there. So
whatever depends on numbers of users is made from two constants of the configuration: their number, or a public lower
bound of it, and the most that one silo may have. The first is what delta, denominators of means and sizes of models
follow from; the second is how many vectors a silo adds up at most, hence how wide the ring must be.
"""

from __future__ import annotations

from dataclasses import dataclass

from recsys.config import Config, Source, Spread
from secagg.errors import UsageError

_ROOM = 4
"""Silos of a real population, or by taste, differ in size: so many times the even share is what one may have."""


@dataclass(frozen=True, slots=True)
class UsersInSilos:
    """
    users: the declared number of users, or a lower bound of it.
    most: how many users a silo may have.
    overlap: up to how many silos may hold data of one person.
    """

    users: int
    most: int
    overlap: int = 1

    def __post_init__(self) -> None:
        if min(self.users, self.most, self.overlap) < 1:
            raise UsageError("there is at least one user, a silo may have one, and holds data of each of its own")


def declared(config: Config, silos: int) -> UsersInSilos:
    """What the configuration declares; ``silos`` is their number, which is public.

    >>> declared(Config.parse({"data": {"users": 4000}}), silos=20)
    UsersInSilos(users=4000, most=200, overlap=1)
    >>> declared(Config.parse({"data": {"users": 4000}, "clients": {"spread": "dirichlet"}}), silos=20)
    UsersInSilos(users=4000, most=800, overlap=1)
    """
    made_up = config.made_up
    users = config.privacy.n_min or config.data.users
    even_share = -(-(config.data.users if made_up else users) // silos)
    known = config.data.source is Source.SYNTHETIC and config.clients.spread is Spread.EVEN
    return UsersInSilos(users, config.clients.most or even_share * (1 if known else _ROOM), config.clients.overlap)
