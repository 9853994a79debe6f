"""Limits of a privacy budget, on both sides."""

from __future__ import annotations

from fractions import Fraction

import pytest

from dp.filter import _LARGEST_EPSILON, Budget
from secagg.errors import UsageError

DELTA = Fraction(1, 10**5)


def test_the_largest_epsilon() -> None:
    assert Budget(Fraction(_LARGEST_EPSILON), DELTA, slack=Fraction(0)).epsilon == _LARGEST_EPSILON
    for wrong in (Fraction(0), Fraction(-1), _LARGEST_EPSILON + Fraction(1, 10**9)):
        with pytest.raises(UsageError, match="epsilon is above 0"):
            Budget(wrong, DELTA, slack=Fraction(0))


def test_delta_and_its_slack() -> None:
    """All of delta for the sampler would leave nothing for the mechanism."""
    Budget(Fraction(1), DELTA, slack=DELTA / 2)
    for delta, slack in (
        (DELTA, DELTA),
        (DELTA, 2 * DELTA),
        (DELTA, -DELTA),
        (Fraction(1), DELTA),
        (Fraction(2), DELTA),
    ):
        with pytest.raises(UsageError, match="delta is below 1"):
            Budget(Fraction(1), delta, slack=slack)
