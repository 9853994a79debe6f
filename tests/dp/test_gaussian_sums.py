"""Sums of discrete Gaussians are close to a rounded Gaussian: the lemma of docs/gaussian_sums.md, in numbers."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from mpmath import exp, log, mpf, workdps

from dp import verify_ledger
from dp.accountants import sums
from dp.accountants.sums import SPREAD
from dp.events import LEAST_DRAW
from dp.verify_ledger import CLOSE
from tests.reference.gaussian_laws import e, eta, of_the_rounded, of_the_sum


def farthest(parameters: Sequence[mpf], s_squared: mpf, x: int, reach: int) -> mpf:
    """The largest log ratio between the two laws, within ``reach`` of x."""
    p, q = of_the_sum(parameters, x, reach), of_the_rounded(sum(parameters), s_squared, x, reach)
    return max(abs(log(p[z] / q[z])) for z in p)


@pytest.mark.thinned(3)
@pytest.mark.parametrize(
    ("s_squared", "parameters", "x", "tight"),
    [
        ("0.16", ["0.32", "0.32"], 0, 0.5),
        ("0.16", ["0.32", "0.35", "0.4"], 3, 0.25),
        ("0.25", ["0.5", "0.5"], -2, 0.5),
        ("1", ["2", "2.5", "2"], 5, 0),
        ("4", ["8"], 0, 0),
        ("4", ["9.5", "8"], 7, 0),
    ],
)
def test_the_two_laws_are_as_close_as_is_claimed(s_squared: str, parameters: list[str], x: int, tight: float) -> None:
    """``tight``: the part of the bound that is reached, where all parameters are as small as they may be."""
    with workdps(50):
        s2, each = mpf(s_squared), [mpf(one) for one in parameters]
        found, bound = farthest(each, s2, x, reach=6 if s2 < 1 else 12), eta(each, s2)
        assert tight * bound <= found <= bound <= 2 * len(each) * e(s2)


def test_beyond_its_condition_the_bound_is_broken() -> None:
    """The control: with parameters below 2 s^2 the difference is a hundred times what the lemma would say."""
    with workdps(30):
        each, s2 = [mpf("0.3")] * 2, mpf("0.5")
        assert farthest(each, s2, 0, reach=6) > 100 * 2 * len(each) * e(s2)


def test_a_sum_that_is_taken_for_a_gaussian_of_all_its_parameters_is_not_that_close() -> None:
    """What is rounded has s^2 less than the sum of the parameters. With V itself, the laws differ by far more."""
    with workdps(50):
        p, q = of_the_sum([mpf(8)], 0, 12), of_the_rounded(mpf(12), mpf(4), 0, 12)
        assert max(abs(log(p[z] / q[z])) for z in p) > 0.1


def test_the_constants_are_those_of_s_2() -> None:
    assert sums.SPREAD == CLOSE
    assert LEAST_DRAW == verify_ledger.LEAST_DRAW == 2 * 2**2
    with workdps(60):
        assert e(mpf(4)) < mpf(SPREAD.numerator) / SPREAD.denominator < mpf("1.02") * e(mpf(4))
        assert e(mpf(4)) < mpf("0.25")


def test_the_tail_of_a_sum_is_below_the_bound() -> None:
    """E exp(tX) <= exp(t^2 V / 2), also where a discrete Gaussian has more variance than its parameter says."""
    with workdps(30):
        for squared in ("0.1", "0.3", "1", "8"):
            law = of_the_sum([mpf(squared)], 0, 40)
            for t in ("0.1", "0.5", "1", "2", "3.14"):
                moment = sum(p * exp(mpf(t) * z) for z, p in law.items())
                assert moment <= exp(mpf(t) ** 2 * mpf(squared) / 2) * (1 + mpf(10) ** -20)
