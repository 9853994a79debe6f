"""A claim that contradicts itself is refused; a check says what it found, and on which side."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import skellam

from dp.audit import Check, Claim, Verdict, false_alarm
from dp.audit.claim import coins, directions, release
from dp.events import Relation
from secagg.crypto.prg import Prg
from secagg.errors import PolicyError, UsageError

CLAIM = Claim(noise_std=2.0, clip_l2=1.0, mu=0.5, epsilon=2.0, delta=1e-5, relation=Relation.ADD_OR_REMOVE)

POSITIVE = ("noise_std", "clip_l2", "mu", "epsilon")


@pytest.mark.parametrize(
    "wrong",
    [
        *({name: value} for name in POSITIVE for value in (0.0, -1.0, math.inf, math.nan)),
        *({"delta": value} for value in (0.0, 1.0, math.nan)),
        *({"excess_kurtosis": value} for value in (-2.1, math.inf, math.nan)),
    ],
)  # fmt: skip
def test_nonsense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        replace(CLAIM, **wrong)


@pytest.mark.parametrize(
    "wrong", [{"mu": 0.499}, {"relation": Relation.REPLACE_ONE}, {"epsilon": 1.9}, {"clip_l2": 1.1}]
)
def test_a_contradiction_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(PolicyError, match="contradicts itself"):
        replace(CLAIM, **wrong)


def test_reach_doubles_where_a_neighbour_replaces_one() -> None:
    assert (CLAIM.reach, replace(CLAIM, relation=Relation.ZERO_OUT).reach) == (1.0, 1.0)
    assert replace(CLAIM, relation=Relation.REPLACE_ONE, mu=1.0, epsilon=5.0).reach == 2.0


@pytest.mark.parametrize("variance", [4.0, 100.0, 10_000.0])
@pytest.mark.parametrize("error", [1e-3, 1e-9, 1e-15])
def test_the_tail_bound_holds_for_skellam_noise(variance: float, error: float) -> None:
    limit = replace(CLAIM, excess_kurtosis=1 / variance).normal_limit(error) * math.sqrt(variance)
    assert skellam.sf(math.floor(limit), variance / 2, variance / 2) <= error
    without = CLAIM.normal_limit(error) * math.sqrt(variance)
    assert without <= limit <= 2 * without


def test_sides_of_a_check() -> None:
    check = Check("x", 1.0, 0.5, 1.5, 1e-9, below=Verdict.FINDING)
    observed = {0.4: Verdict.FINDING, 0.5: Verdict.PASSED, 1.5: Verdict.PASSED, 1.6: Verdict.FAILED}
    assert {value: replace(check, observed=value).verdict for value in observed} == observed
    assert false_alarm([check, check]) == 2e-9


@pytest.mark.parametrize("wrong", [np.zeros(3), np.zeros((2, 1)), np.array([0.0, math.nan]), np.array([0.0, math.inf])])
def test_a_release_has_the_right_shape_and_numbers_in_it(wrong: np.ndarray) -> None:
    with pytest.raises(UsageError):
        release(lambda updates: wrong, [np.zeros(2)])


def test_coins_are_fair_and_directions_have_norm_one() -> None:
    """|z| < 6: false alarm 2e-9 each."""
    assert abs(int(coins(Prg(b"f" * 32), 100_000).sum()) - 50_000) < 6 * math.sqrt(25_000)
    ways = directions(Prg(b"d" * 32), 20, 50)
    np.testing.assert_allclose(np.linalg.norm(ways, axis=1), 1)
    assert abs(float(np.sign(ways).sum())) < 6 * math.sqrt(1000)
    assert len({way.tobytes() for way in ways}) == 20
