"""How the grid trains its models: with noise, and as is best for them where there is none.

These are different recipes, and the grid has a row for each: noise asks for fewer numbers and fewer, larger steps. What
noise takes away is seen beside the same recipe without noise; what privacy costs altogether beside the best training
without. Budgets are public, so a recipe may follow from its epsilon.

Settings under noise are from made-up populations, never from the data that a grid measures: the autoencoder's from the
validation events of populations of 4,000 users and 1,000 items with data seeds 101 to 104, most of them with the first
habits. At epsilon 8 rates of 15 to 30 are alike, and 100 rounds are .002 better than 64; at 3 a rate of 30 is worse, at
1 one of 15 is far worse than popularity. With any weight decay at these rates it learns less. Those of the best
training are from the validation events of one (``population(4000, 1000, 101, FIRST)``): all data in one place, the
model's own ``fit``. Of ``neumf`` and ``sasrec`` little was tried.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Way:
    """A model's own settings, and those of ``training``; without any of the latter it is made of sums."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Recipe:
    """``private``: by the least epsilon that a way is for; one of them is for 0. ``best``: the settings with which
    ``fit`` is best; None for a model that is the closed form of its sums, so that without noise nothing is better."""

    private: Mapping[float, Way]
    best: Mapping[str, Any] | None = None

    def at(self, epsilon: float) -> Way:
        """
        >>> [RECIPES["autoencoder"].at(epsilon).training["server_rate"] for epsilon in (8, 3, 1)]
        [20.0, 15.0, 5.0]
        """
        return self.private[max(least for least in self.private if least <= epsilon)]


_LINEAR = {"width": 8, "fading": 0.95, "hidden": 0.5}
_MOMENTUM = {"rounds": 64, "server": "fedavgm", "momentum": 0.9, "rate": 1.0, "clip": 0.1}
_PLAIN = {"server": "fedavg", "server_rate": 10.0, "rate": 1.0, "clip": 1.0, "rounds": 6}
_NEURAL = Recipe({0: Way({"width": 8}, _PLAIN)}, {})

RECIPES: Mapping[str, Recipe] = {
    "private-ease": Recipe({0: Way()}),
    "private-mf": Recipe({0: Way()}),
    "autoencoder": Recipe(
        {
            5: Way(_LINEAR, {**_MOMENTUM, "server_rate": 20.0}),
            2: Way(_LINEAR, {**_MOMENTUM, "server_rate": 15.0}),
            0: Way(_LINEAR, {**_MOMENTUM, "server_rate": 5.0}),
        },
        {"width": 16, "fading": 0.95},
    ),
    "mf": Recipe(
        {
            0: Way(
                {"width": 16, "loss": "bce", "unseen": 0.01, "ridge": 2.0, "bias": 0.3, "fading": 0.95},
                {"rounds": 10, "rate": 10.0, "batch": 1, "clip": 0.5, "server": "fedavg", "server_rate": 600.0},
            )
        },
        {},
    ),
    "neumf": _NEURAL,
    "sasrec": _NEURAL,
}

_ADAM = {"server": "fedadam", "server_rate": 0.003, "rate": 10.0, "clip": 100.0, "draw": "fixed"}
_IN_ROUNDS = Way(training={"rounds": 400, **_ADAM})

FEDERATED: Mapping[str, Way] = {
    "mf": Way(training={"rounds": 250, **_ADAM, "rate": 100.0, "batch": 1}),
    "autoencoder": _IN_ROUNDS,
    "neumf": _IN_ROUNDS,
    "sasrec": _IN_ROUNDS,
}
"""Plain training in rounds of drawn cohorts of devices, without privacy: it comes close to ``fit`` (the part on central
training of ``secagg bench recommender``), and takes much longer where all clients are on one machine."""
