"""How long it takes to find a cohort's neighbours, threshold and witnesses: the slowest choices there are.

The limit is what ``secagg params`` is allowed, of which the interpreter's start takes a part. A client does less: it
checks the numbers that it is offered.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor
from statistics import median

from benchmarks.case import Measured, Say, timed
from secagg.assumptions import Adversary, fraction
from secagg.errors import UsageError
from secagg.params import (
    GRINDING_BITS,
    GRINDING_FLOOR,
    check_private,
    choose,
    choose_for_round,
    choose_witnesses,
    least_quorum,
    least_threshold,
)

LIMIT_S = 3.0

SLOWEST = {
    "common": ("1000", "0.1", "0.1", Adversary.ACTIVE, 40, 20),
    "heavy": ("1e5", "0.3", "0.3", Adversary.ACTIVE, 40, 20),
    "largest": ("1e7", "0.3", "0.3", Adversary.ACTIVE, 40, 20),
    "most_bits": ("1e7", "0.3", "0.3", Adversary.ACTIVE, 512, 512),
    "square_root": ("1e7", "0.2", "0.345", Adversary.ACTIVE, 40, 512),
    "curious": ("1e7", "0.45", "0.45", Adversary.CURIOUS, 512, 512),
}
"""Clients, corrupt, dropout, adversary, bits. At ``square_root`` what a degree lacks is about the square root of it,
which rules out the fewest others."""


@dataclass(frozen=True, slots=True)
class Config:
    repeats: int = 3

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise UsageError("repeats must be at least 1")


DEFAULTS = Config()


def run(config: Config, say: Say) -> Measured:
    took = dict[str, list[float]]()
    figures = dict[str, float]()
    for name, (clients, corrupt, dropout, adversary, security, correctness) in SLOWEST.items():
        say(name)
        n, bad, gone = int(float(clients)), fraction(corrupt), fraction(dropout)
        for _ in range(config.repeats):
            for cached in (choose, choose_witnesses, least_quorum, least_threshold):
                cached.cache_clear()
            arguments = n, bad, gone, adversary, security, correctness
            formula = timed(took, f"{name}_formula", choose, *arguments)
            chosen = timed(took, f"{name}_round", choose_for_round, *arguments)
            bits = security + (GRINDING_BITS if adversary is Adversary.ACTIVE else 0)
            least_threshold.cache_clear()
            least_quorum.cache_clear()
            lost = floor(bad * n) + floor(gone * n)
            timed(took, f"{name}_check", check_private, n, floor(bad * n), lost, chosen, adversary, bits)
        figures |= {f"{name}_degree": formula.degree, f"{name}_round_degree": chosen.degree}
        check_private(
            n - floor(gone * n),
            floor(bad * n),
            floor(bad * n),
            chosen,
            adversary,
            bits - GRINDING_BITS + GRINDING_FLOOR if adversary is Adversary.ACTIVE else bits,
        )
    seconds = {name: median(times) for name, times in took.items()}
    command = max(seconds[f"{name}_formula"] + seconds[f"{name}_round"] for name in SLOWEST)
    figures |= {f"{name}_s": value for name, value in seconds.items()}
    slowest_check = max(value for name, value in seconds.items() if name.endswith("_check"))
    return Measured(figures, {"choice_over_limit": command / LIMIT_S, "check_over_choice": slowest_check / command})
