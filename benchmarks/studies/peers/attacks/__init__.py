"""What a lying or curious server gets, and what an accident does: in Flower's SecAgg+, and here.

Each row runs the same thing against Flower's code, unchanged, and against ours, and compares what came out with what
the clients had: nothing in a row is known beforehand. ``docs/peers.md`` says how each one works.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from benchmarks.case import Say
from benchmarks.studies.peers.attacks import here, there
from benchmarks.studies.peers.attacks.scene import Seen
from secagg.errors import UsageError
from secagg.extras import need

WINDOW_BITS = 22
"""How many of the 32 bits of a seed are really searched. All of them take some minutes."""


@dataclass(frozen=True, slots=True)
class Row:
    """``there`` and ``here``: what was observed. ``..._works``: the attack, or the accident has done its harm."""

    attack: str
    there: str
    here: str
    there_works: bool
    here_works: bool


def table(say: Say, *, window_bits: int = WINDOW_BITS) -> tuple[Row, ...]:
    """All rows: the issue's first, in its order, then what was found on the way."""
    if not 8 <= window_bits <= 32:
        raise UsageError("window_bits is between 8 and 32")
    need("peers", "the comparison")
    pairs: dict[str, tuple[Callable[[], Seen], Callable[[], Seen]]] = {
        "seed_of_32_bits": (partial(there.late_upload, window_bits), here.late_upload),
        "both_shares": (there.both_shares, here.both_shares),
        "chosen_modulus": (there.chosen_modulus, here.chosen_modulus),
        "silent_before_sharing": (there.silent_before_sharing, here.silent_before_sharing),
        "not_a_number": (there.not_a_number, here.not_a_number),
        "sample_count": (there.sample_count, here.sample_count),
        "two_lists_of_survivors": (there.split_view, here.split_view),
        "substituted_keys": (there.substituted_keys, here.substituted_keys),
        "cohort_of_one": (there.cohort_of_one, here.cohort_of_one),
    }
    rows = []
    for attack, (theirs, ours) in pairs.items():
        say(f"attack: {attack}")
        seen, found = there.attempt(theirs), here.attempt(ours)
        rows.append(Row(attack, seen.text, found.text, seen.works, found.works))
    return tuple(rows)
