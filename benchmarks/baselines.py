"""What a client would do instead: encrypt with NVFlare's parameters, or mask for SecAgg+. One core each.

NVFlare's kits (2.9) hold one symmetric CKKS key of N = 8192 with primes of 60, 40 and 40 bits and a scale of 2^40; an
update is encrypted by ``tenseal.ckks_vector`` and serialised.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from secagg.crypto.masking import add_masks
from secagg.crypto.ring import Ring
from secagg.extras import needing

NEIGHBOURS = 96
"""How many neighbours each of 1000 clients has by the formula, a tenth of them corrupt and a tenth silent."""

_DEGREE, _BITS, _SCALE = 8192, [60, 40, 40], 2.0**40


def nvflare_encryption(values: NDArray[np.int64]) -> Callable[[], bytes]:
    """The vector as its bytes on the wire."""
    with needing("ckks", "the comparison with NVFlare"):
        import tenseal as ts
    context = ts.context(
        ts.SCHEME_TYPE.CKKS, _DEGREE, -1, _BITS, encryption_type=ts.ENCRYPTION_TYPE.SYMMETRIC, n_threads=1
    )
    floats = (values / 2.0**15).tolist()
    pieces = [floats[start : start + _DEGREE // 2] for start in range(0, len(floats), _DEGREE // 2)]
    return lambda: b"".join(ts.ckks_vector(context, piece, _SCALE).serialize() for piece in pieces)


def pairwise_masking(values: NDArray[np.int64], width: int, neighbours: int = NEIGHBOURS) -> bytes:
    """Masked with itself and its neighbours, packed at the width of the sum: keys are thought to be agreed on."""
    seeds = [os.urandom(32) for _ in range(neighbours + 1)]
    ring = Ring(width)
    words = ring.lift(values)
    add_masks(words, seeds[: neighbours // 2], seeds[neighbours // 2 :])
    return ring.pack(words)
