"""Updates that no client takes."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.scenes.pairwise import LENGTH

BAD_UPDATES: dict[str, Any] = {
    "NaN": [np.nan] * LENGTH,
    "one NaN": [0.0] * (LENGTH - 1) + [np.nan],
    "infinite": [np.inf] + [0.0] * (LENGTH - 1),
    "minus infinite": [-np.inf] + [0.0] * (LENGTH - 1),
    "overflow on the way to float": [10**400] * LENGTH,
    "text": ["x"] * LENGTH,
    "complex": [1j] * LENGTH,
    "ragged": [[1], [2, 3]],
    "too short": [0.0] * (LENGTH - 1),
    "too long": [0.0] * (LENGTH + 1),
    "two dimensions": [[0.0] * LENGTH],
}
