"""Few bytes: what clients send, and what is left of the sum, in ways that send less than a number for each coordinate.

training  A recommender with whole updates, few bits, tables of low rank, and a twentieth of the coordinates in a round
          (``training``).
sparse    Counts of a catalogue's rows and the sum of those released, beside the dense sum of all rows (``sparse``).

Beside every ratio of bytes stand the number of clients, which widens the ring, and both plain baselines: floats of 32
bits, and integers of 16.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from benchmarks.case import Measured, Say
from benchmarks.studies.bytes import sparse, training
from benchmarks.studies.bytes.config import Config

DEFAULTS = Config()

_PARTS: Mapping[str, Callable[[Config, Say], Measured]] = {
    "sparse": sparse.run,
    "training": training.run,
}


def run(config: Config, say: Say) -> Measured:
    figures, ratios = dict[str, float](), dict[str, float]()
    for part in config.parts.split(","):
        found = _PARTS[part](config, say)
        figures |= found.figures
        ratios |= found.ratios
    return Measured(figures, ratios)
