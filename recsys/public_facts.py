"""What is taken as public: what a run knows, or lets others know, of several users before there was any noise.

One list for all who have to say so: ``run.json``, the report, the signed first entry of a ledger, the file of a model,
and docs/privacy.md. What is not on it, and is not noised and charged, does not depend on what a user did: with privacy
on, two data sets that differ in one user's events only give the same items in the same order, the same clients, the
same histories, held-out events and updates of all others, and the same plan. ``tests/recsys/test_public_facts.py``
compares them.
"""

from __future__ import annotations

from recsys.config import ClientKind, Config, Source, Spread

WHO = "how many users and clients there are, and users each client has"
WHO_IN_SILOS = "the number of silos, the declared number of users, and the most users that a silo may have"
INTERACTIONS = "the number of interactions on each device"
ITEMS = "the list of items, which comes from the users' events"
HELD_OUT = "the users and held-out events of the split's files"
SILOS = "who is in which silo, drawn by all users' tastes"
PACE = "when each event of the stream was read"

EVERYTHING = (WHO, WHO_IN_SILOS, INTERACTIONS, ITEMS, HELD_OUT, SILOS, PACE)
"""All that can be on the list of a run."""


def taken_as_public(config: Config, *, listed: bool) -> tuple[str, ...]:
    """Of a run; nothing without privacy, which promises nothing. ``listed``: the list of items was given.

    >>> taken_as_public(Config(), listed=True) == (WHO,)
    True
    """
    if not config.private:
        return ()
    devices = config.clients.kind is ClientKind.DEVICES
    found = [
        (WHO, not config.users_in_silos),
        (WHO_IN_SILOS, config.users_in_silos),
        (INTERACTIONS, devices and config.locally),
        (ITEMS, not listed),
        (HELD_OUT, config.data.source is Source.SPLIT),
        (PACE, config.streamed),
        (SILOS, not devices and config.clients.spread is Spread.DIRICHLET),
    ]
    return tuple(words for words, said in found if said)
