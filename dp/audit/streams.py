"""Audit of one client's draws: its noise follows from its own secret, and from nothing that others know.

No statistics of released sums can see noise that is drawn from public values: it is as random as any, and whoever knows
these values takes it off. So one client's machine is asked for its draws directly, with one thing changed at a time:

    the same again          nothing changed: the same noise (a restarted client that drew anew could be averaged)
    another secret          all that is public stays: other noise
    another round, upload   the secret stays: other noise
    another client          with its own secret: other noise

"Other" means without correlation at any shift (``repeats_check``), so a part that stays the same is seen, too; and each
client by itself has the share of noise that the plan asks of it, in each coordinate, also across the blocks of the
sampler.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from dp.audit.claim import FALSE_ALARM, Check, Noise, Vector
from dp.audit.coordinates import ROUGH, coordinates_check, grid_check, patterns_checks, tails_check
from dp.audit.margins import enough_rounds
from dp.audit.noise import repeats_check
from secagg.crypto.prg import SEED_BYTES, Rng

SHORT, LONG = 1 << 13, (1 << 15) + (1 << 12)
"""Numbers in a draw: a tenth of its variance that two have in common is seen in the short ones; the long ones do not
fit into one block of the sampler."""

_MOST_ROUNDS = 16
"""The most rounds of one client. A deviation below about 6 is then not seen in one coordinate, only in blocks."""


@dataclass(frozen=True, slots=True)
class Draw:
    """What one client's noise in one round may depend on. All but ``secret`` is known to others."""

    client: int
    round: int
    secret: bytes = field(repr=False)
    bound: bytes
    """The context of the upload: the cohort that advertised."""


Drawn: TypeAlias = Callable[[Draw, int], Vector]
"""Draws as many integers of one client's noise as it is asked for."""


def audit_streams(
    drawn: Drawn, noise: Noise, clients: Sequence[int], *, rng: Rng, false_alarm: float = FALSE_ALARM
) -> tuple[Check, ...]:
    """``noise`` is what one client is to add. Each of ``clients`` draws four times or more, the first also long."""
    rounds = min(enough_rounds(SHORT, noise, false_alarm / len(clients)), _MOST_ROUNDS)
    everybody = [_draws(client, max(rounds, 4), rng) for client in clients]
    rows = np.stack([[drawn(draw, SHORT) for draw in draws] for draws in everybody])
    firsts = zip(everybody, rows, strict=True)
    again = sum(not np.array_equal(own[0], drawn(draws[0], SHORT)) for draws, own in firsts)
    coordinates = [coordinates_check(own, noise, false_alarm / len(clients)).observed for own in rows]
    each = false_alarm / (len(clients) + 1)
    tails = [tails_check(own, noise, each).observed for own in (*rows, np.concatenate(rows))] if _fine(noise) else []
    long = np.stack([drawn(replace(everybody[0][0], round=r), LONG) for r in (0, 1)])
    return (
        Check("the same draw again", again, 0, 0, 0.0),
        replace(repeats_check(np.concatenate(rows[:, :4]), noise, false_alarm), name="draws that return"),
        Check("each client's noise", min(coordinates), 1.0, math.inf, false_alarm),
        replace(patterns_checks(np.concatenate(rows), noise, false_alarm)[1], name="each client's pattern peak"),
        replace(grid_check(np.concatenate(rows), noise), name="each client's grid"),
        *([Check("each client's tails", min(tails), 1.0, math.inf, false_alarm)] if tails else []),
        replace(repeats_check(long, noise, false_alarm), name="long draws that return"),
        replace(coordinates_check(long, noise, false_alarm), name="long draws in each place"),
    )


def _draws(client: int, count: int, rng: Rng) -> list[Draw]:
    """One draw, three that differ from it in one thing each, and more rounds."""
    draw = Draw(client, 0, rng(SEED_BYTES), rng(SEED_BYTES))
    others = [replace(draw, secret=rng(SEED_BYTES)), replace(draw, bound=rng(SEED_BYTES))]
    return [draw, *others, *(replace(draw, round=r) for r in range(1, count - 2))]


def audit_parts(
    parts: Callable[[int, bytes], Sequence[Vector]], noise: Noise, *, rng: Rng, false_alarm: float = FALSE_ALARM
) -> tuple[Check, ...]:
    """Removable parts of one client's noise, in units of their planned deviation: each is drawn from a seed of its own.

    Whoever is given what takes some of them off must learn nothing of the others. ``noise``: that of the part whose
    steps are coarsest. Each is one draw of the sampler, in which tails that are cut stand out more than in a sum.
    """
    rows = np.stack([row for _ in range(2) for row in parts(SHORT, rng(SEED_BYTES))])
    again = replace(repeats_check(rows, noise, false_alarm), name="removable parts that return")
    if not _fine(noise):
        return (again,)
    return again, replace(tails_check(rows, noise, false_alarm), name="tails of removable parts")


def _fine(noise: Noise) -> bool:
    """Whether the steps are so small that tails are those of a normal law."""
    return noise.noise_std >= ROUGH * noise.step
