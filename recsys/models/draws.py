"""Numbers drawn about users, each one's from a seed and its own history alone.

With one generator for all, adding a user would change what is drawn for everybody after: a bound on one user's change
would not bound that. A generator for each user costs more than the training that it is for. So a key is made of seed
and history, and the numbers are a mixing function of key and position (splitmix64: Steele, Lea and Flood 2014, "Fast
splittable pseudorandom number generators"), for all users at once. They are no secrets, and nothing private rests on
them but that they depend on nobody else.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from recsys.data.interactions import History

_STEP, _FIRST, _SECOND = (np.uint64(word) for word in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


class Draws:
    """
    >>> together = Draws(5, [np.array([3, 1], np.int32), np.array([2], np.int32)]).uniform(3)
    >>> alone = Draws(5, [np.array([2], np.int32)]).uniform(3)
    >>> together.shape, (together[1] == alone[0]).all(), (together[0] == alone[0]).any()
    ((2, 3), np.True_, np.False_)
    """

    def __init__(self, seed: int, histories: Sequence[History]) -> None:
        key = seed.to_bytes(8, "little")
        keys = [blake2b(one.astype("<i4").tobytes(), digest_size=8, key=key).digest() for one in histories]
        self._keys = np.frombuffer(b"".join(keys), "<u8").astype(np.uint64)[:, None]
        self._drawn = 0

    def uniform(self, count: int) -> NDArray[np.float64]:
        """A row of ``count`` new numbers for each user, from 0 to below 1."""
        positions = np.arange(self._drawn + 1, self._drawn + count + 1, dtype=np.uint64)
        self._drawn += count
        words = self._keys + positions * _STEP
        words = (words ^ (words >> np.uint64(30))) * _FIRST
        words = (words ^ (words >> np.uint64(27))) * _SECOND
        words ^= words >> np.uint64(31)
        numbers: NDArray[np.float64] = (words >> np.uint64(11)) * 2.0**-53
        return numbers
