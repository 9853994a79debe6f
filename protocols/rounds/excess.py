"""Excess noise: what clients added for others who might have been missing, and are not (XNoise, see ``dp.noise``)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from dp.noise import NoiseSpec
from protocols.engines import Engine
from protocols.plan import RoundPlan
from secagg.crypto.prg import SEED_BYTES
from secagg.errors import PeerError


def excess_due(plan: RoundPlan, survivors: int) -> bool:
    """Whether fewer are missing than the noise allows for, so that some of it can be taken off."""
    return plan.noise is not None and plan.noise.removal_level(plan.clients - survivors) < plan.noise.components


def check_excess(plan: RoundPlan, survivors: int, seed: bytes) -> None:
    """Refuse a seed where nothing is to be taken off, and none where something is."""
    if len(seed) != (SEED_BYTES if excess_due(plan, survivors) else 0):
        raise PeerError("no seed for the noise that is to be taken off, or one too many")


def excess_of(
    noise: NoiseSpec, clients: int, length: int, level: int, seeds: Iterable[bytes], engine: Engine
) -> NDArray[np.int64]:
    """The sum of what is to be taken off, made from the seeds that clients revealed."""
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
