"""Recommenders that know what items are about: what that is worth.

cold     Items that came after training, and users who did, after none to ten events (``cold``).
transfer An encoder that was tuned on some genres, on the others (``transfer``). Not by default: it needs the extra
         [large].
adapters Adapters of a text encoder: what secure sums, training apart and noise cost (``adapters``). Not by default: it
         needs the extra [large], and minutes a round with a real encoder.

Settings are those of the models by default and of ``benchmarks.studies.utility``: nothing is chosen by what is measured
here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from benchmarks.case import Measured, Say
from benchmarks.studies.large import adapters, cold, transfer
from benchmarks.studies.large.config import Config

DEFAULTS = Config()

_PARTS: Mapping[str, Callable[[Config, Say], Measured]] = {
    "cold": cold.run,
    "transfer": transfer.run,
    "adapters": adapters.run,
}


def run(config: Config, say: Say) -> Measured:
    figures, ratios = dict[str, float](), dict[str, float]()
    for part in config.parts.split(","):
        found = _PARTS[part](config, say)
        figures |= {f"{part}/{name}": value for name, value in found.figures.items()}
        ratios |= {f"{part}/{name}": value for name, value in found.ratios.items()}
    return Measured(figures, ratios)
