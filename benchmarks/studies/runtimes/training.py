"""What the clients of ``runtimes`` do in any system: train for a while, and move the model by whole steps.

One unit of the 16-bit encoding is one step, so plain and secure rounds have the same mean, which is checked. (Not to
the last bit: a model of 32-bit floats moves by almost a whole step, which now and then is rounded to two.)
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secagg.files import write_file

FOLDER = Path(os.environ.get("SECAGG_RUNTIMES", "."))
"""Settings, keys, rosters and results. Whatever processes a runtime starts have the environment of their parent."""

STEP = 2.0**-10
CLIP = STEP * (2**15 - 1)
DROPOUT = "0.2"

Model = NDArray[np.float32]


def settings() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "settings.json").read_text())
    return found


def trained(old: Model, number: int, seconds: float) -> Model:
    """Every coordinate moved by -1, 0 or 1 steps, after so many seconds of processor time."""
    ends = process_time() + seconds
    steps = np.random.default_rng(number).integers(-1, 2, 1000)
    new = old + (STEP * np.resize(steps, old.shape)).astype(np.float32)
    while process_time() < ends:
        np.sqrt(np.abs(old[:1000]))
    return new


def finish(models: dict[str, Model], rounds: list[dict[str, Any]]) -> None:
    """The rounds that count, if plain and secure ones have led to the same model."""
    apart = np.abs(models["plain"] - models["secure"])
    if float(apart.max()) > STEP or float(apart.mean()) > 1e-3 * STEP:
        raise RuntimeError("the mean is wrong")
    write_file(FOLDER / "rounds.json", json.dumps(rounds).encode(), private=False)
