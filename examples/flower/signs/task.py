"""What is learned: a linear model, from made-up data that every client has for itself.

Clients go up or down by ``STEP`` in each coordinate, as the sign of their gradient says. So a change is a vector of
multiples of ``STEP``, and the secure sum of changes is exact.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DIMENSION = 20
STEP = 2.0**-6
CLIP = STEP * (2**15 - 1)
"""16 bits: one unit of the encoding is one ``STEP``."""
EPOCHS = 10

FOLDER = Path(os.environ.get("SECAGG_EXAMPLE", str(Path.home() / "secagg-example")))
"""Identities and the roster, made by ``identities.py``; where a node's config says otherwise, that counts."""

USERS = int(os.environ.get("SECAGG_EXAMPLE_USERS", "0"))
"""With 0 every client is one user; else it is a silo of so many, each of whom counts, and is clipped, by itself."""

Vector = NDArray[np.float64]


def data(partition: int) -> tuple[Vector, Vector]:
    rng = np.random.default_rng([2026, partition])  # noqa: TID251  # made-up data are no secret
    examples = 100 + 20 * partition
    x = rng.normal(size=(examples, DIMENSION))
    return x, x @ np.linspace(-1, 1, DIMENSION) + rng.normal(scale=0.1, size=examples)


def train(weights: Vector, partition: int) -> tuple[Vector, int]:
    """The trained weights, and how many examples they saw."""
    x, y = data(partition)
    for _ in range(EPOCHS):
        weights = weights - STEP * np.sign(x.T @ (x @ weights - y))
    return weights, len(y)


def loss(weights: Vector, partition: int) -> float:
    x, y = data(partition)
    return float(np.square(x @ weights - y).mean())
