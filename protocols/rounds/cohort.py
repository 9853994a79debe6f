"""What protocols share about a cohort, U1: sets of positions as bitmaps, consents, what the survivors have signed,
excess noise, the outcome.

A cohort is known by a root over its adverts; its clients are positions in the order of the roster.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import compress, pairwise

import numpy as np
from numpy.typing import NDArray

from dp.noise import NoiseSpec
from dp.secure_sum import SecureSum, Signed
from protocols.engines import Engine
from protocols.outcome import RoundEvent, RoundOutcome
from protocols.plan import RoundPlan
from protocols.roster import Roster
from secagg.crypto import labels
from secagg.crypto.keys import verify
from secagg.crypto.prg import SEED_BYTES
from secagg.errors import PeerError


def ascending(values: Sequence[int]) -> bool:
    """Whether a list that stands for a set is in its one canonical order."""
    return all(a < b for a, b in pairwise(values))


def to_bitmap(members: Set[int], universe: Sequence[int]) -> bytes:
    """Which of ``universe`` (ascending) are members, one bit each, first in the lowest bit."""
    return np.packbits([element in members for element in universe], bitorder="little").tobytes()


def from_bitmap(bitmap: bytes, universe: Sequence[int]) -> frozenset[int]:
    """Inverse of ``to_bitmap``; refuses a wrong length and bits beyond the universe."""
    bits = np.unpackbits(np.frombuffer(bitmap, np.uint8), bitorder="little").tolist()
    if len(bitmap) != (len(universe) + 7) // 8 or any(bits[len(universe) :]):
        raise PeerError("not a set of the clients in question")
    return frozenset(compress(universe, bits))


def known_client(roster: Roster, number: int) -> None:
    if number >= len(roster):
        raise PeerError(f"client number {number} is not in the roster")


def check_consent(roster: Roster, client: int, signature: bytes, agreed: bytes) -> None:
    known_client(roster, client)
    verify(roster.keys[client], signature, labels.SURVIVORS, agreed, culprit=roster.names[client])


def agreed_sum(
    plan: RoundPlan, roster: Roster, root: bytes, size: int, bitmap: bytes, signatures: Mapping[int, bytes]
) -> SecureSum:
    """What the survivors in ``bitmap`` signed, as privacy accounting needs it. Signers are numbers in the roster."""
    signed = [Signed(roster.names[number], roster.keys[number], signatures[number]) for number in sorted(signatures)]
    survivors = len(from_bitmap(bitmap, range(size)))
    return plan.secure_sum(survivors, cohort=root, bitmap=bitmap, signatures=signed)


def excess_due(plan: RoundPlan, survivors: int) -> bool:
    """Whether fewer are missing than the noise allows for, so that some of it can be taken off."""
    return plan.noise is not None and plan.noise.removal_level(plan.clients - survivors) < plan.noise.components


def check_excess(plan: RoundPlan, survivors: int, seed: bytes) -> None:
    if len(seed) != (SEED_BYTES if excess_due(plan, survivors) else 0):
        raise PeerError("no seed for the noise that is to be taken off, or one too many")


def released(
    plan: RoundPlan,
    roster: Roster,
    total: NDArray[np.int64],
    *,
    advertised: Iterable[int],
    survivors: Sequence[int],
    agreed: bytes,
    consents: Mapping[int, bytes],
    excess: Mapping[int, bytes],
    engine: Engine,
) -> RoundOutcome:
    """The sum without its excess noise, and what happened. All clients are numbers in the roster, ascending."""
    names, left = roster.names, tuple[str, ...]()
    if plan.noise is not None and excess_due(plan, len(survivors)):
        level = plan.noise.removal_level(plan.clients - len(survivors))
        total = total - excess_of(plan.noise, plan.clients, len(total), level, excess.values(), engine)
        left = tuple(names[number] for number in survivors if number not in excess)
    signatures = tuple((names[number], signature) for number, signature in sorted(consents.items()))
    alive = tuple(names[number] for number in survivors)
    event = RoundEvent(plan, tuple(names[number] for number in advertised), alive, agreed, signatures, left)
    return RoundOutcome(total, alive, event)


def excess_of(
    noise: NoiseSpec, clients: int, length: int, level: int, seeds: Iterable[bytes], engine: Engine
) -> NDArray[np.int64]:
    """Noise that was added for clients who might have been missing, and are not (XNoise, see ``dp.noise``)."""
    queue = list(seeds)

    def part(worker: int) -> NDArray[np.int64]:
        total = np.zeros(length, np.int64)
        for seed in queue[worker :: engine.workers]:
            total += noise.excess(clients, length, seed, level)
        return total

    total = np.zeros(length, np.int64)
    for excess in engine.map(part, range(engine.workers)):
        total += excess
    return total
