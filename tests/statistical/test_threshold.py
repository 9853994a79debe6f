"""Of a unit's rows, those that nobody else touched stay out, except with the probability that was asked for.

The noise is that of real clients, drawn as they draw it, and the threshold that of a real sum. Seeds are fixed. With
other ones the count of units of which a row comes out would be beyond 6 deviations with probability 10^-9; a threshold
that forgets that a unit has several rows, or some of the noise, is beyond them.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import sqrt

import numpy as np
import pytest
from numpy.typing import NDArray

from dp.noise import Family, NoiseSpec
from dp.threshold import threshold
from protocols.outcome import RoundEvent, RoundOutcome
from protocols.plan import RoundPlan
from protocols.roster import Identity, Roster
from protocols.sparse import Catalogue, Released
from secagg.crypto.prg import Prg

N, CAP = 12, 10
ROSTER = Roster.of([Identity.generate(f"silo-{i:02}", Prg(bytes([i]) * 32)) for i in range(N)])
NAMES = ROSTER.names
KIND = NoiseSpec(Family.DISCRETE_GAUSSIAN, Fraction(1), dropouts=3, colluders=1, components=3)


@dataclass(frozen=True)
class Fate:
    survivors: int
    excess_left: int


def outcome_of(catalogue: Catalogue, fate: Fate, seed: int) -> RoundOutcome:
    """Each row was touched by one user of some silo; what silent survivors left is in the sum."""
    users = catalogue.rows // catalogue.cap
    encoding, noise = catalogue.noised(0.7, KIND, N, users=users)
    plan = RoundPlan.propose(
        "secagg", ROSTER, encoding, min_contributors=N - 3, dropout="0.25", noise=noise, model=catalogue.model()
    )
    own = catalogue.touched_by(np.arange(catalogue.rows).reshape(users, catalogue.cap).tolist())
    total = plan.encode_update(own, 1, Prg(seed.to_bytes(32, "big"))).astype(np.int64)
    level = noise.removal_level(N - fate.survivors)
    for number in range(fate.survivors):
        keep, chain = (bytes([number, seed, which]) + bytes(29) for which in (0, 1))
        total += noise.draw(N, catalogue.rows, keep, chain)
        if number >= fate.excess_left:
            total -= noise.excess(N, catalogue.rows, noise.seed(chain, level), level)
    names = NAMES[: fate.survivors]
    event = RoundEvent(plan, NAMES, names, bytes(32), (), names[: fate.excess_left])
    return RoundOutcome(total, names, event)


def units_of(rows: NDArray[np.int64]) -> int:
    return len(np.unique(rows // CAP))


def count(catalogue: Catalogue, fate: Fate, seed: int) -> tuple[int, int, int]:
    """Of how many units a row comes out: as it is, as if a unit had one row, and without noise that colluders know."""
    outcome = outcome_of(catalogue, fate, seed)
    plan, noise = outcome.event.plan, outcome.event.plan.noise
    assert noise is not None
    one_row = threshold(
        plan.encoding.largest, noise.whole_variance(N, fate.survivors, fate.excess_left), 1, catalogue.failing
    )
    honest = threshold(
        plan.encoding.largest, noise.honest_variance(N, fate.survivors), catalogue.cap, catalogue.failing
    )
    wrong = [units_of(np.flatnonzero(outcome.total >= least)) for least in (one_row, honest)]
    return units_of(Released.of(catalogue, outcome).rows), wrong[0], wrong[1]


def allowed(units: int, failing: float) -> float:
    return units * failing + 6 * sqrt(units * failing)


@pytest.mark.parametrize("fate", [Fate(12, 0), Fate(10, 2)])
def test_rows_of_one_unit_alone_stay_out(fate: Fate) -> None:
    """2,000 units, of each of which a row may come out with probability 1/20. The bound is near: half of them do."""
    catalogue = Catalogue(20_000, 1, bytes(32), cap=CAP, failing=Fraction(1, 20))
    out, one_row, _ = count(catalogue, fate, seed=1)
    assert 50 < out <= allowed(2000, 0.05) < one_row


@pytest.mark.long
@pytest.mark.parametrize("failing", [Fraction(1, 20), Fraction(1, 1000)])
@pytest.mark.parametrize("fate", [Fate(12, 0), Fate(10, 2), Fate(9, 9)])
def test_rows_of_one_unit_alone_stay_out_of_many_sums(fate: Fate, failing: Fraction) -> None:
    catalogue = Catalogue(100_000, 1, bytes(32), cap=CAP, failing=failing)
    out, one_row, honest = np.sum([count(catalogue, fate, seed) for seed in range(1, 21)], axis=0).tolist()
    units, share = 20 * 10_000, float(failing)
    assert units * share / 3 < out <= allowed(units, share)
    assert one_row > allowed(units, share)
    if fate.excess_left:
        assert honest > allowed(units, share)
