"""Limits of what noise can be asked for, and of how many can have survived."""

from __future__ import annotations

from fractions import Fraction

import pytest

from dp.noise import Family, NoiseSpec
from protocols.plan import RoundPlan
from protocols.roster import Identity, Roster
from secagg.crypto.prg import Prg
from secagg.crypto.sampling import LARGEST_VARIANCE
from secagg.encoding import Encoding
from secagg.errors import UsageError

NOISE = NoiseSpec(Family.SKELLAM, Fraction(4000), dropouts=2, colluders=1, components=2)


def test_no_fewer_than_none() -> None:
    for field in ("dropouts", "colluders"):
        with pytest.raises(UsageError, match="clients drop out or collude"):
            NoiseSpec(Family.SKELLAM, Fraction(1), **{field: -1})
    for components in (-1, 3):
        with pytest.raises(UsageError, match="removable components"):
            NoiseSpec(Family.SKELLAM, Fraction(1), dropouts=2, components=components)


def test_no_fewer_missing_than_none_and_no_more_than_allowed() -> None:
    assert [NOISE.removal_level(missing) for missing in (0, 1, 2)] == [0, 1, 2]
    for missing in (-1, 3):
        with pytest.raises(UsageError, match="clients are missing"):
            NOISE.removal_level(missing)


def test_the_most_noise_that_can_be_drawn() -> None:
    assert NoiseSpec(Family.DISCRETE_GAUSSIAN, 4 * LARGEST_VARIANCE).drawable(4)
    assert not NoiseSpec(Family.DISCRETE_GAUSSIAN, 4 * LARGEST_VARIANCE + 1).drawable(4)


def test_somebody_survives_and_no_more_than_there_were() -> None:
    roster = Roster.of([Identity.generate(f"client-{i}", Prg(bytes([i]) * 32)) for i in range(6)])
    plan = RoundPlan.propose(
        "secagg", roster, Encoding.integers(3), min_contributors=4, corrupt=0, dropout="0.2", noise=NOISE
    )
    for survivors in (1, 6):
        assert plan.secure_sum(survivors).survivors == survivors
    for survivors in (-1, 0, 7):
        with pytest.raises(UsageError, match="cannot have survived"):
            plan.secure_sum(survivors)
