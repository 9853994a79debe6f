"""Sums of epsilons that cannot be right."""

import pytest

from dp.accountants import rdp
from dp.audit import Claim, Verdict, audit_accounting, gaussian_epsilon
from dp.events import Relation
from secagg.errors import UsageError

DELTA = 1e-5
CLAIM = Claim(1.0, 0.25, 0.25, gaussian_epsilon(0.25, DELTA), DELTA, Relation.ADD_OR_REMOVE)


def charged(multiplier: float, forget: bool = False) -> list[float]:
    """Renyi accounting of 1 to 20 rounds of normal noise."""
    curve = tuple(order / (2 * multiplier**2) for order in rdp.ORDERS)
    return [rdp.epsilon(rdp.scaled(curve, 1 if forget else k), DELTA) for k in range(1, 21)]


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        (charged(4.0), Verdict.PASSED),
        (charged(4.5), Verdict.FAILED),
        (charged(4.0, forget=True), Verdict.FAILED),
        (charged(4.0, forget=True)[:1], Verdict.PASSED),  # one round: nothing to forget
        ([float("inf")], Verdict.PASSED),
    ],
)
def test_what_costs_too_little_is_seen(said: list[float], verdict: Verdict) -> None:
    check = audit_accounting(said, CLAIM)
    assert (check.verdict, check.false_alarm) == (verdict, 0)


def test_a_release_that_costs_nothing_is_charged_enough() -> None:
    nothing = Claim(1e9, 1.0, 1e-9, 1e-9, 0.1, Relation.ADD_OR_REMOVE)
    assert audit_accounting([0.0], nothing).verdict is Verdict.PASSED


def test_nothing_charged_is_no_answer() -> None:
    with pytest.raises(UsageError, match="nothing"):
        audit_accounting([], CLAIM)
