"""What it costs to make integers of users' vectors, in nanoseconds a coordinate: compiled loops beside numpy, in turns.

*Pieces* are the kernels of ``secagg.rounding`` on one vector, and the random words that rounding by lot needs.
*Batches* are whole silos through ``Encoding.encode_users``, words included: by lot, of ``length`` coordinates, and to
the nearest integer, of ``wide`` ones. Both implementations give the same integers, which is checked on the way. Time is
that of the processor: all of this is one thread, which waits for nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from unittest.mock import patch

import numpy as np

from benchmarks.case import Measured, Say, ratio, worked
from secagg import rounding
from secagg.crypto.prg import Prg
from secagg.encoding import Encoding, Rounding
from secagg.errors import UsageError
from secagg.extras import need
from secagg.rounding import BLOCK, Kernels, plain

CLIP = 1.0


@dataclass(frozen=True, slots=True)
class Config:
    length: int = 13_608
    users: int = 400
    wide: int = 128_000
    wide_users: int = 40
    repeats: int = 5

    def __post_init__(self) -> None:
        if min(self.length, self.users, self.wide, self.wide_users, self.repeats) < 1:
            raise UsageError("all counts are at least 1")


DEFAULTS = Config()


def run(config: Config, say: Say) -> Measured:
    need("fast", "secagg bench encode")
    from secagg.rounding import loops

    say("pieces")
    figures, ratios = _pieces(config, {"compiled": loops, "numpy": plain})
    for name, users, encoding in (
        ("batch", config.users, Encoding(config.length, CLIP, users=config.users)),
        ("wide", config.wide_users, _wide(config)),
    ):
        say(name)
        theirs, against = _batch(name, encoding, users, config.repeats)
        figures, ratios = figures | theirs, ratios | against
    ratios["batch_vs_words"] = figures["batch_compiled_ns"] / figures["words_ns"]
    return Measured(figures, ratios)


def _pieces(config: Config, both: dict[str, Kernels]) -> tuple[dict[str, float], dict[str, float]]:
    length = config.length
    vector, sums = np.random.default_rng(0).standard_normal(length), np.empty(-(-length // BLOCK))
    words, values = np.frombuffer(os.urandom(4 * length), "<u4"), np.empty(length, np.int32)
    total, draw, took = np.zeros(length, np.int64), Prg(os.urandom(32)), dict[str, list[float]]()
    for _ in range(100 * config.repeats):
        worked(took, "words", draw, 4 * length)
        for name, kernels in both.items():
            worked(took, f"measure_{name}", kernels.squares, vector, sums)
            worked(took, f"stochastic_{name}", kernels.stochastic, vector, 1000.0, 32767.0, words, 1, values)
            worked(took, f"nearest_{name}", kernels.nearest, vector, 1000.0, 32767.0, 1, values)
            worked(took, f"add_{name}", kernels.add, values, total)
    figures = {f"{name}_ns": median(seconds) / length * 1e9 for name, seconds in took.items()}
    pieces = ("measure", "stochastic", "nearest", "add")
    return figures, {f"{name}_compiled_vs_numpy": ratio(took, f"{name}_compiled", f"{name}_numpy") for name in pieces}


def _wide(config: Config) -> Encoding:
    """The narrowest integers in which the nearest ones may be taken."""
    for bits in range(2, 33):
        try:
            return Encoding(config.wide, CLIP, bits=bits, users=config.wide_users, rounding=Rounding.NEAREST)
        except UsageError:
            continue
    raise UsageError(f"a vector of {config.wide} coordinates is too wide to be rounded to the nearest integer")


def _batch(name: str, encoding: Encoding, users: int, repeats: int) -> tuple[dict[str, float], dict[str, float]]:
    vectors = np.random.default_rng(1).standard_normal((users, encoding.length)) / encoding.length**0.5
    took = dict[str, list[float]]()

    def encoded() -> bytes:
        return encoding.encode_users(vectors, seed=bytes(32), rng=Prg(bytes(32))).tobytes()

    def by_numpy() -> bytes:
        with patch.object(rounding, "kernels", lambda length: plain):
            return encoded()

    encoded()  # numba is loaded
    ways: dict[str, Callable[[], bytes]] = {f"{name}_compiled": encoded, f"{name}_numpy": by_numpy}
    for _ in range(repeats):
        if len({worked(took, way, work) for way, work in ways.items()}) != 1:
            raise AssertionError("compiled loops and numpy give different integers")
    figures = {f"{way}_ns": median(seconds) / vectors.size * 1e9 for way, seconds in took.items()}
    return figures, {f"{name}_compiled_vs_numpy": ratio(took, f"{name}_compiled", f"{name}_numpy")}
