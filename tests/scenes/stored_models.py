"""Interactions on which small models are trained, to be stored."""

import numpy as np

from recsys.data.interactions import Interactions

ITEMS = [f"item {number}" for number in range(30)]


def events() -> Interactions:
    rng = np.random.default_rng(3)
    histories = [rng.permutation(30)[:8] for _ in range(40)]
    return Interactions.of(np.repeat(np.arange(40), 8), np.concatenate(histories), np.arange(320), item_count=30)
