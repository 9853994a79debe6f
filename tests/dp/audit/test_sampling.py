"""Cohort sizes: Poisson ones pass, others do not."""

import numpy as np
import pytest

from dp.audit import Verdict, audit_sampling
from secagg.errors import UsageError

POPULATION, RATE = 1000, 0.1
PASSED, FINDING, FAILED = Verdict.PASSED, Verdict.FINDING, Verdict.FAILED


def verdicts(sizes: np.ndarray, error: float = 1e-9) -> list[Verdict]:
    checks = audit_sampling(sizes.tolist(), population=POPULATION, rate=RATE, false_alarm=error)
    return [check.verdict for check in checks]


def test_poisson_cohorts_pass() -> None:
    assert verdicts(np.random.default_rng(1).binomial(POPULATION, RATE, 1000)) == [PASSED, PASSED]


@pytest.mark.parametrize(("rate", "expected"), [(0.105, FAILED), (0.2, FAILED), (0.095, FINDING)])
def test_another_rate_is_seen(rate: float, expected: Verdict) -> None:
    """5% off, over 1000 cohorts, is 16 standard deviations."""
    assert verdicts(np.random.default_rng(2).binomial(POPULATION, rate, 1000))[0] is expected


def test_fixed_sizes_and_balanced_ones_are_seen() -> None:
    assert verdicts(np.full(200, 100)) == [PASSED, FAILED]
    assert verdicts(100 + np.random.default_rng(3).integers(-3, 4, 200)) == [PASSED, FAILED]


def test_alarms_are_as_rare_as_stated() -> None:
    """At 5% each: 1000 audits, both counts within 6 standard deviations (1e-9) of 50."""
    rng = np.random.default_rng(4)
    found = [verdicts(rng.binomial(POPULATION, RATE, 100), 0.05) for _ in range(1000)]
    for column in zip(*found, strict=True):
        assert sum(verdict is not PASSED for verdict in column) < 50 + 6 * (1000 * 0.05 * 0.95) ** 0.5


def test_what_is_refused() -> None:
    with pytest.raises(UsageError, match="fewer than 100"):
        audit_sampling([1] * 99, population=10, rate=0.1)
    for rate in (0.0, 1.0):
        with pytest.raises(UsageError, match="between 0 and 1"):
            audit_sampling([1] * 100, population=10, rate=rate)
