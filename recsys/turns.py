"""Who is charged for what in a run whose clients take turns, or come when they are ready: with their keys."""

from __future__ import annotations

from collections.abc import Sequence

from dp.turns import Turns
from protocols.buffers import Buffers
from protocols.roster import Identity, Roster
from recsys.participation import Draw, Participation
from secagg.crypto import labels
from secagg.crypto.keys import derive
from secagg.crypto.prg import Prg


def identity_of(name: str, secret: bytes) -> Identity:
    """The identity of a simulated client: it follows from its name and the run's secret."""
    return Identity.generate(name, Prg(derive(secret, labels.SIMULATED, b"identity", name.encode())))


def buffers_of(
    names: Sequence[str], size: int, missing: int, corrupt: str, staleness: int, secret: bytes = bytes(32)
) -> Buffers:
    """What the clients of a run agree on that are summed up when they are ready."""
    return Buffers(Roster.of([identity_of(name, secret) for name in names]), size, missing, corrupt, staleness)


def turns_of(participation: Participation, names: Sequence[str], beacon: bytes, secret: bytes) -> Turns | None:
    """The turns of a run's clients, or None if they take none.

    >>> names = [f"client-{number}" for number in range(6)]
    >>> turns = turns_of(Participation(Draw.TURNS, 2), names, b"noon", bytes(32))
    >>> [Participation(Draw.TURNS, 2).cohort(names, b"noon", number) == turns.cohort(number) for number in range(4)]
    [True, True, True, True]
    >>> turns_of(Participation(), names, b"noon", bytes(32)) is None
    True
    """
    if participation.draw is not Draw.TURNS:
        return None
    roster = Roster.of([identity_of(name, secret) for name in names])
    return Turns(roster.names, roster.keys, beacon, participation.planned(len(names)))
