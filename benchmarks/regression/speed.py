"""What is not masks should cost nothing: each step of a client and of a server beside what it cannot do without.

Ratios are taken within the run. ``parts`` says which of them are measured.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.case import Measured, Say
from benchmarks.regression.client_costs import time_clients
from benchmarks.regression.kernels import time_kernels
from benchmarks.regression.unmask import time_unmask
from benchmarks.regression.uploads import time_round, time_upload
from secagg.errors import UsageError
from secagg.extras import need


@dataclass(frozen=True, slots=True)
class Config:
    parts: str = "kernels,clients,upload,unmask,round"
    d: int = 1_000_000
    masks: int = 22
    bits: int = 16
    repeats: int = 25
    n: int = 1000
    k: int = 96
    t: int = 67
    drop: float = 0.1

    def __post_init__(self) -> None:
        if not set(self.parts.split(",")) <= _PARTS:
            raise UsageError(f"parts are some of {', '.join(sorted(_PARTS))}")
        if min(self.d, self.masks, self.repeats) < 1:
            raise UsageError("d, masks and repeats are at least 1")
        if not (0 <= self.drop < 1 and 1 <= self.t <= self.k < self.n and self.k >= 2):
            raise UsageError("t is at least 1, k at least t and 2, n more than k, and drop is in [0, 1)")


_PARTS = {"kernels", "clients", "upload", "round", "unmask"}
_CLIENT_REPEATS = 9
DEFAULTS = Config()


def run(config: Config, say: Say) -> Measured:
    need("fast", "secagg bench speed")
    parts = set(config.parts.split(","))
    figures: dict[str, float] = {}
    ratios: dict[str, float] = {}
    if "kernels" in parts:
        _into(figures, ratios, time_kernels(config.d, config.masks, config.bits, config.repeats, say))
    if "clients" in parts:
        repeats = min(config.repeats, _CLIENT_REPEATS, config.masks - 1)
        _into(figures, ratios, time_clients(config.d, config.bits, (config.masks, config.k), repeats, say))
    if "upload" in parts:
        _into(figures, ratios, time_upload(config.d, config.repeats, say))
    if "unmask" in parts:
        clients = max(config.n // 5, config.k + 1)
        _into(figures, ratios, time_unmask(clients, config.d, config.k, config.t, config.drop, say))
    if "round" in parts:
        _into(figures, ratios, time_round(config.n, config.d, config.k, config.t, config.drop, say))
    return Measured(figures, ratios)


def _into(figures: dict[str, float], ratios: dict[str, float], measured: Measured) -> None:
    figures.update(measured.figures)
    ratios.update(measured.ratios)
