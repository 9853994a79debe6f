"""Audit of an accountant: what it says that several releases cost, against the least that they can cost.

Noise of a given variance gives no smaller epsilon than normal noise does (up to 1%, see ``Claim``), and releases with
independent noise add up: the squares of mu do. An accountant that forgets earlier releases, or counts a sampling that
did not take place, falls below. Nothing is measured, so there are no false alarms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from dp.audit.bounds import gaussian_epsilon
from dp.audit.claim import DISCRETE, Check, Claim
from secagg.errors import UsageError


def audit_accounting(epsilons: Sequence[float], claim: Claim) -> Check:
    """``epsilons`` after one release, two, ... of the kind that ``claim`` is about, at its delta.

    >>> from dp.events import Relation
    >>> claim = Claim(noise_std=2.0, clip_l2=1.0, mu=0.5, epsilon=2.0, delta=1e-5, relation=Relation.ADD_OR_REMOVE)
    >>> [audit_accounting(said, claim).verdict.value for said in ([2.1, 3.1], [2.1, 2.1])]
    ['passed', 'failed']
    """
    if not epsilons:
        raise UsageError("nothing was charged")
    least = [gaussian_epsilon(claim.mu * math.sqrt(k), claim.delta) for k in range(1, len(epsilons) + 1)]
    parts = [said / needed if needed else math.inf for said, needed in zip(epsilons, least, strict=True)]
    return Check("charged", min(parts), 1 - DISCRETE, math.inf, 0.0)
