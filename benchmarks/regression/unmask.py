"""What removing masks costs a server beside writing their keystream: shares put together, keys agreed on, and all. Both
are seconds of the processor.

It is the end of a real round. How many keys there are for each mask follows from the fraction that drops out, and not
from the number of clients, so a fifth of a thousand will do.
"""

from __future__ import annotations

from time import process_time

from benchmarks.case import Measured, Say
from benchmarks.regression.kernels import write_keystream
from benchmarks.regression.uploads import time_round
from secagg.crypto.ring import Ring
from secagg.encoding import Encoding


def time_unmask(n: int, d: int, k: int, t: int, drop: float, say: Say) -> Measured:
    figures: dict[str, float] = {}
    ratios: dict[str, float] = {}
    itemsize = _word_bytes(n)
    for length in (d, max(d // 10, 1)):
        measured = time_round(n, length, k, t, drop, say).figures
        before = process_time()
        write_keystream(int(measured["server_round_masks"]) * length * itemsize)
        limit = process_time() - before
        figures[f"unmask_{length}_s"] = measured["server_round_reveal_closed_s"]
        ratios[f"unmask_vs_keystream_{length}"] = figures[f"unmask_{length}_s"] / limit
    return Measured(figures, ratios)


def _word_bytes(n: int) -> int:
    """Of a ring for the sum of n clients' 16-bit numbers."""
    return Ring(Encoding.integers(1, 16).ring_bits(n)).dtype.itemsize
