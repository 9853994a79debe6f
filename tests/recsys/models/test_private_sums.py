"""Sums are checked where they enter a model, and exact ones are what the name says."""

from fractions import Fraction

import numpy as np
import pytest

from recsys.models.private_sums import Noised, exact_sums
from secagg.errors import UsageError


def test_exact_sums_add_up_what_each_history_contributes() -> None:
    sums = exact_sums([np.int32([0, 2]), np.int32([]), np.int32([2])])
    summed = sums("how often", 3, Fraction(1, 3), lambda history: np.bincount(history, minlength=3).astype(float))
    assert (summed.vector.tolist(), summed.deviation, summed.users) == ([1, 0, 2], 0, 3)


def test_a_sum_is_read_only() -> None:
    with pytest.raises(ValueError, match="read-only"):
        Noised(np.zeros(2), 0.0, 1).vector[0] = 1


@pytest.mark.parametrize(
    ("vector", "deviation", "users"),
    [(np.zeros((2, 2)), 0.0, 1), (np.zeros(2), -1.0, 1), (np.zeros(2), float("nan"), 1), (np.zeros(2), 1.0, 0)],
)
def test_what_is_no_sum_is_refused(vector: np.ndarray, deviation: float, users: int) -> None:
    with pytest.raises(UsageError):
        Noised(vector, deviation, users)
