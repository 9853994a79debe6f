"""Ciphertexts of TenSEAL, made once for all tests."""

from __future__ import annotations

import numpy as np

from protocols.ckks import ciphertexts
from protocols.ckks.layout import Layout

LAYOUT = Layout.choose(26, 1000, 3000)
PAIR = ciphertexts.make_keys()


def values(seed: int, layout: Layout = LAYOUT) -> np.ndarray:
    return np.random.default_rng(seed).integers(-32767, 32768, layout.coordinates)


CHUNKS = ciphertexts.encrypt(LAYOUT, PAIR.public, values(0))
