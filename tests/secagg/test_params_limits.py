"""Limits of the calculation of neighbours and thresholds, on both sides."""

from __future__ import annotations

from fractions import Fraction

import pytest

from secagg.assumptions import MAX_CLIENTS, Adversary
from secagg.errors import UsageError
from secagg.params import _check_feasible, _connected, choose, choose_for_round

NOBODY = Fraction(0)


@pytest.mark.parametrize("calculate", [choose, choose_for_round])
@pytest.mark.parametrize("wrong", [0, 513])
def test_bits_of_security_and_correctness(calculate: object, wrong: int) -> None:
    """Also where grinding bits would lift a wrong number into the allowed range."""
    for good in (1, 512):
        calculate(4, NOBODY, NOBODY, Adversary.CURIOUS, good, good)  # type: ignore[operator]
    for security, correctness in ((wrong, 20), (40, wrong)):
        with pytest.raises(UsageError, match="between 1 and 512 bits"):
            calculate(4, NOBODY, NOBODY, Adversary.ACTIVE, security, correctness)  # type: ignore[operator]


def test_the_largest_cohort() -> None:
    _check_feasible(MAX_CLIENTS, NOBODY, NOBODY, Adversary.ACTIVE, 40, 20)
    with pytest.raises(UsageError, match="clients must be between"):
        _check_feasible(MAX_CLIENTS + 1, NOBODY, NOBODY, Adversary.ACTIVE, 40, 20)


def test_a_chance_must_be_below_its_bound() -> None:
    """10 clients of 3 neighbours, 3 lost: 10 * 6 / 2 * 1/120 is exactly 2^-2, and that is not enough."""
    assert not _connected(10, 3, 3, bits=2)
    assert _connected(10, 3, 3, bits=1)
