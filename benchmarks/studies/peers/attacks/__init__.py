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
    """``needs``: whom it takes; ``what``: it does. ``there`` and ``here``: what was observed. ``..._works``: the
    attack, or the accident has done its harm."""

    attack: str
    needs: str
    what: str
    there: str
    here: str
    there_works: bool
    here_works: bool

    @property
    def text(self) -> str:
        """For people: what it is, and what happened on either side."""
        verdicts = [
            f"  {place}: {'WORKS' if works else 'fails'}: {seen}"
            for place, works, seen in (("there", self.there_works, self.there), ("here", self.here_works, self.here))
        ]
        return "\n".join([f"{self.attack} ({self.needs}): {self.what}", *verdicts])


_DESCRIBED = {
    "seed_of_32_bits": ("a server that looks", "an upload comes late, and its mask's seed is searched"),
    "both_shares": ("a server that lies", "clients are asked for shares of both of the victim's secrets"),
    "chosen_modulus": ("a server that lies", "the server chooses a modulus that masks nothing"),
    "silent_before_sharing": ("an accident", "a client falls silent before it has shared its keys"),
    "not_a_number": ("an accident", "a client's training has diverged, and its update is NaN"),
    "sample_count": ("a server that looks", "the server reads how many examples a client has"),
    "two_lists_of_survivors": ("a server that lies", "half of the clients hear that the victim is dead"),
    "substituted_keys": ("a server that lies", "the victim is shown keys of the server's as its neighbours'"),
    "cohort_of_one": ("a server that lies", "the victim is asked for a sum over itself"),
    "half_silent": ("an accident", "half of the clients fall silent after they have shared their keys"),
    "one_colluder": (
        "a server and a client that look",
        "a client tells the server what it holds of other clients' keys",
    ),
    "poisoned": ("a client that lies", "its upload is as large as can be"),
    "two_rounds": ("a server that lies", "the same updates are summed up twice, the second time without the victim"),
}
"""Whom an attack takes, and what it does; ``docs/peers.md`` says more."""


def table(say: Say, *, window_bits: int = WINDOW_BITS) -> tuple[Row, ...]:
    """All rows: what ours was made to stop, then where it does no better, or worse."""
    rows = []
    for attack in _DESCRIBED:
        rows.append(row(attack, window_bits=window_bits))
        for line in rows[-1].text.splitlines():
            say(line)
    return tuple(rows)


def row(attack: str, *, window_bits: int = WINDOW_BITS) -> Row:
    """One of them, run on either side."""
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
        "half_silent": (there.half_silent, here.half_silent),
        "one_colluder": (there.one_colluder, here.one_colluder),
        "poisoned": (there.poisoned, here.poisoned),
        "two_rounds": (there.two_rounds, here.two_rounds),
    }
    theirs, ours = pairs[attack]
    seen, found = there.attempt(theirs), here.attempt(ours)
    return Row(attack, *_DESCRIBED[attack], seen.text, found.text, seen.works, found.works)
