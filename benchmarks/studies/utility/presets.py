"""The grids that this repository's figures of a private recommender are from: 20 silos, the real protocol.

The first is the population of ``secagg demo``. Of MovieLens latest-small the folder is said with ``path``; so few users
tell little apart, so there are more seeds, each with another order of events of one time. Nothing is tuned on any test.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

IDEAL = "ideal"
"""No protocol: its encoding and noise, added up in one place."""

_OURS: Mapping[str, Any] = {"models": "private-ease", "protocol": "secagg+", "seeds": 3}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "syn4k": {**_OURS, "users": 4000, "items": 1000, "data_seed": 1, "habits": "first", "out": "runs/syn4k"},
    "ml-small": {**_OURS, "data": "movielens", "n_min": 600, "seeds": 10, "out": "runs/ml-small"},
    "syn20k": {**_OURS, "users": 20_000, "items": 2000, "data_seed": 0, "habits": "first", "out": "runs/syn20k"},
}
