"""Sets of clients on the wire: as ascending lists, and as bitmaps over those who can be in them."""

from __future__ import annotations

from collections.abc import Sequence, Set
from itertools import compress, pairwise
from typing import TypeVar

import numpy as np

from secagg.errors import PeerError

Client = TypeVar("Client", bound=int)
"""A position in a cohort, or a number in the roster."""


def ascending(values: Sequence[int]) -> bool:
    """Whether a list that stands for a set is in its one canonical order."""
    return all(a < b for a, b in pairwise(values))


def to_bitmap(members: Set[Client], universe: Sequence[Client]) -> bytes:
    """Which of ``universe`` (ascending) are members, one bit each, first in the lowest bit."""
    return np.packbits([element in members for element in universe], bitorder="little").tobytes()


def from_bitmap(bitmap: bytes, universe: Sequence[Client]) -> frozenset[Client]:
    """Inverse of ``to_bitmap``; refuses a wrong length and bits beyond the universe."""
    bits = np.unpackbits(np.frombuffer(bitmap, np.uint8), bitorder="little").tolist()
    if len(bitmap) != (len(universe) + 7) // 8 or any(bits[len(universe) :]):
        raise PeerError("not a set of the clients in question")
    return frozenset(compress(universe, bits))
