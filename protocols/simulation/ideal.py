"""The ideal functionality of a secure sum: the same encoding and the same noise, and no parties at all.

Whoever runs this sees every update. It shows what a protocol costs in time and that it does not change the sum, and it
serves references without privacy. It protects nobody, and stands in for no protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dp.noise import NoiseSpec, drawn
from secagg.crypto.prg import Rng
from secagg.crypto.sampling import LARGEST_VARIANCE
from secagg.encoding import Encoding, Sum, UserVectors


def ideal_sum(
    names: Sequence[str],
    update: Callable[[str], ArrayLike | UserVectors],
    encoding: Encoding,
    noise: NoiseSpec | None,
    *,
    weights: Mapping[str, int],
    rounding: Rng,
    noising: Rng,
    seed: bytes = bytes(32),
    sent: Callable[[str, NDArray[np.float64]], None] | None = None,
) -> Sum:
    """The sum over all of ``names``, of which nobody drops out. A client without a weight has the weight 1.

    ``seed`` is what a plan draws its sketch and rotation from, in public: another one for each round.

    Where clients are silos, ``update`` gives one vector for each of their users. ``sent`` is told what each client has
    put in, clipped and rounded, and not yet weighed.

    The noise of all clients together is drawn at once: Skellam noise adds up to Skellam noise, and discrete Gaussians
    that count add up to one, but for 10^-33 a draw.

    >>> import os
    >>> values = {"ann": np.array([1.0, 2.0]), "bob": np.array([3.0, 4.0])}
    >>> randomness = {"rounding": os.urandom, "noising": os.urandom}
    >>> ideal_sum(list(values), values.__getitem__, Encoding.integers(2), None, weights={}, **randomness).vector
    array([4., 6.])
    """
    total, clients = np.zeros(encoding.coordinates, np.int64), len(names)
    for name in names:
        made = update(name)
        if encoding.users:
            values = encoding.encode_users(cast(UserVectors, made), seed=seed, rng=rounding)
        else:
            values = encoding.encode(cast(ArrayLike, made), weight=weights.get(name, 1), seed=seed, rng=rounding)
        total += values
        if sent is not None:
            alone = encoding.decode(values, count=1, seed=seed)
            sent(name, alone.vector / max(alone.weight, 1))
    if noise is not None:
        variance = noise.honest_variance(clients, clients) * clients / (clients - noise.colluders)
        parts = -(-variance // LARGEST_VARIANCE)
        for _ in range(parts):  # at once a sampler draws no more than one client's
            total += drawn(noise.family, variance / parts, encoding.coordinates, noising(32))
    return encoding.decode(total, count=clients, seed=seed)
