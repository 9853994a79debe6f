"""Models that have a form for devices, and histories of all sorts."""

from __future__ import annotations

from typing import Any

import numpy as np

from recsys.models.store import MODELS
from tests.scenes.stored_models import ITEMS, events, made

COUNT = len(ITEMS)
RNG = np.random.default_rng(5)
HISTORIES = [
    np.empty(0, np.int32),
    np.int32([3]),
    np.int32([4, 7, 4, 4, 2]),
    np.arange(COUNT, dtype=np.int32),
    RNG.integers(0, COUNT, 400).astype(np.int32),
    *(RNG.integers(0, COUNT, length).astype(np.int32) for length in (2, 9, 50, 51, 100, 101)),
]
"""Nobody's, one item's, with repetitions, everything, and beyond what any model reads."""
DEVICES = [name for name in MODELS if name != "NeuMf"]


def trained(name: str) -> Any:
    """With a vector of random numbers where there is one, which is as good as training."""
    model = made(name)
    if not hasattr(model, "begin"):
        model.fit(events())
        return model
    model.begin(COUNT, seed=1)
    model.vector = (model.vector + 0.2 * np.random.default_rng(2).standard_normal(model.vector.size)).astype(np.float32)
    return model
