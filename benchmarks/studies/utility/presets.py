"""The grids that this repository's figures of a private recommender are from: 20 silos, three budgets.

    syn4k      4,000 users and 1,000 items of the first made-up population
    syn20k     20,000 and 2,000 of the same
    cal4k      4,000 and 1,000 of the calibrated made-up population: that of ``secagg demo``
    cal20k     20,000 and 2,000 of the same
    ml-small   MovieLens latest-small; so few users tell little apart, so there are more seeds
    ml-100k, ml-1m, ml-10m, ml-20m

Of MovieLens the folder is said with ``path``; each seed has another order of events of one time. Nothing is tuned on
any test. Small grids go through the real protocol, large ones have its encoding and noise.

A round of the autoencoder takes some 40 ns a user and number, of which an item has nine: a cell of 64 rounds is a
minute or two with 4,000 users and 1,000 items, and ten minutes with those of MovieLens 1M. It would be four hours with
those of 10M and a day with those of 20M, so there it has to be asked for (``models``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

IDEAL = "ideal"
"""No protocol: its encoding and noise, added up in one place."""

_REAL: Mapping[str, Any] = {"models": "private-ease,private-mf,autoencoder,mf", "protocol": "secagg+", "seeds": 3}
_LARGE: Mapping[str, Any] = {**_REAL, "models": "private-ease,autoencoder", "protocol": IDEAL}
_LARGEST: Mapping[str, Any] = {**_LARGE, "models": "private-ease"}


def _films(users: int, **others: Any) -> Mapping[str, Any]:
    """``users``: a round lower bound of their number."""
    return {"data": "movielens", "n_min": users, **others}


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "syn4k": {**_REAL, "users": 4000, "items": 1000, "data_seed": 1, "habits": "first", "out": "runs/syn4k"},
    "syn20k": {**_LARGE, "users": 20_000, "items": 2000, "data_seed": 0, "habits": "first", "out": "runs/syn20k"},
    "cal4k": {**_REAL, "users": 4000, "items": 1000, "data_seed": 1, "out": "runs/cal4k"},
    "cal20k": {**_LARGE, "users": 20_000, "items": 2000, "data_seed": 0, "out": "runs/cal20k"},
    "ml-small": {**_REAL, **_films(600, seeds=10), "out": "runs/ml-small"},
    "ml-100k": {**_REAL, **_films(900, seeds=5), "out": "runs/ml-100k"},
    "ml-1m": {**_REAL, **_films(6000), "out": "runs/ml-1m"},
    "ml-10m": {**_LARGEST, **_films(69_000), "out": "runs/ml-10m"},
    "ml-20m": {**_LARGEST, **_films(138_000), "out": "runs/ml-20m"},
}
