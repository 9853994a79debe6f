"""Is a cohort drawn as the accountant believes: each unit by itself, with probability q?

Amplification by Poisson sampling needs both. A wrong q shows in how many are drawn in all; cohorts of a fixed size (or
shuffled batches) accounted as Poisson samples show in how little their sizes vary. Both figures take microseconds, far
fewer than a membership attack, which would hardly see either.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from dp.audit.claim import FALSE_ALARM, Check, Verdict
from dp.audit.margins import variance_margin
from secagg.errors import UsageError


def audit_sampling(
    sizes: Sequence[int], *, population: int, rate: float, false_alarm: float = FALSE_ALARM
) -> tuple[Check, ...]:
    """Cohort sizes of many rounds against Poisson sampling. To draw too few is only a finding.

    >>> [check.verdict.value for check in audit_sampling([100] * 1000, population=1000, rate=0.1)]
    ['passed', 'failed']
    """
    from scipy.stats import binom

    if len(sizes) < 100:
        raise UsageError("fewer than 100 cohorts say nothing about their sizes")
    if not 0 < rate < 1:
        raise UsageError("a sampling rate is between 0 and 1")
    trials = population * len(sizes)
    low, high = binom.ppf(false_alarm / 2, trials, rate) / trials, binom.isf(false_alarm / 2, trials, rate) / trials
    drawn = Check("sampling rate", sum(sizes) / trials, float(low), float(high), false_alarm, below=Verdict.FINDING)
    variance = population * rate * (1 - rate)
    spread = sum((size - population * rate) ** 2 for size in sizes) / (len(sizes) * variance)
    margin = variance_margin(len(sizes), 1 / variance, false_alarm)
    return drawn, Check("cohort sizes", spread, 1 - margin, math.inf, false_alarm)
