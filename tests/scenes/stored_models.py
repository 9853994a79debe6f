"""Small models to be stored, and interactions to train them on."""

from importlib import import_module
from typing import Any

import numpy as np

from recsys.data.interactions import Interactions
from recsys.models.store import MODELS
from tests.scenes.item_vectors import coordinates
from tests.scenes.tuned import tuned

ITEMS = [f"item {number}" for number in range(30)]


def events() -> Interactions:
    rng = np.random.default_rng(3)
    histories = [rng.permutation(30)[:8] for _ in range(40)]
    return Interactions.of(np.repeat(np.arange(40), 8), np.concatenate(histories), np.arange(320), item_count=30)


def made(name: str) -> Any:
    """A new model of this class."""
    if name == "TunedEncoder":
        return tuned(len(ITEMS))
    kind = getattr(import_module(MODELS[name]), name)
    return kind(coordinates(len(ITEMS))) if hasattr(kind, "with_items") else kind()
