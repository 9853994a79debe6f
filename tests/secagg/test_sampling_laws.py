"""Every law is its definition, to the claimed distance, and the arithmetic keeps what it promises."""

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpmath import besseli, cos, exp, mp, mpf, pi, sin, sqrt

from secagg.crypto.sampling import LARGEST_VARIANCE, SMALLEST, STATISTICAL_DISTANCE, laws
from secagg.crypto.sampling.fixed import ONE, PI, PRECISION, cos_sin, exp_minus, fixed
from tests.reference import noise as reference

DIRECT = [
    (laws.gaussian, reference.gaussian, Fraction(1, 1000)),
    (laws.gaussian, reference.gaussian, Fraction(1, 7)),
    (laws.gaussian, reference.gaussian, Fraction(1024, 100)),  # the secrets of lattices
    (laws.gaussian, reference.gaussian, Fraction(127**2)),
    (laws.gaussian, reference.gaussian, Fraction(128**2)),
    (laws.gaussian, reference.gaussian, Fraction(257**2)),
    (laws.skellam, reference.skellam, Fraction(1, 1000)),
    (laws.skellam, reference.skellam, Fraction(1, 7)),
    (laws.skellam, reference.skellam, Fraction(10)),
    (laws.skellam, reference.skellam, Fraction(127**2)),
    (laws.skellam, reference.skellam, Fraction(128**2)),
    (laws.skellam, reference.skellam, Fraction(257**2)),
    (laws.laplace, reference.laplace, Fraction(1, 30)),
    (laws.laplace, reference.laplace, Fraction(10)),
    (laws.laplace, reference.laplace, Fraction(32)),
]


def close(value: int, wanted: mpf, bits: int) -> bool:
    return bool(abs(mpf(value) / ONE - wanted) <= mpf(2) ** -bits)


def probabilities(law: laws.Law) -> list[mpf]:
    """What a sampler of this law draws from: the differences of its boundaries."""
    upper = [mpf(law.boundary(x)) / ONE for x in range(law.reach)] + [mpf(0.5)]
    return [2 * upper[0]] + [high - low for low, high in pairwise(upper)]


def distance(left: list[mpf], right: list[mpf]) -> mpf:
    """In total variation, between symmetric laws given for 0, 1, 2, ..."""
    length = max(len(left), len(right))
    left, right = (p + [mpf(0)] * (length - len(p)) for p in (left, right))
    return sum(abs(a - b) for a, b in zip(left[1:], right[1:], strict=True)) + abs(left[0] - right[0]) / 2


@given(x=st.fractions(0, 250, max_denominator=10**30))
def test_exponentials(x: Fraction) -> None:
    assert close(exp_minus(fixed(x)), exp(-reference.real(x)), 230)


@given(numerator=st.integers(0, 10**20))
def test_cosines_and_sines(numerator: int) -> None:
    cosine, sine = cos_sin(PI * numerator // 10**20)
    angle = pi * mpf(numerator) / 10**20
    assert close(cosine, cos(angle), 245)
    assert close(sine, sin(angle), 245)
    assert close(PI, +pi, PRECISION)


@pytest.mark.thinned(4)
@pytest.mark.parametrize(("law", "definition", "parameter"), DIRECT)
def test_a_law_is_its_definition(law: Callable, definition: Callable, parameter: Fraction) -> None:
    made, wanted = law(parameter), definition(parameter)
    for x, upper in list(enumerate(reference.boundaries(wanted)))[: made.reach : 1 + made.reach // 300]:
        assert close(made.boundary(x), upper, 128 if law is laws.laplace else 138)
    assert distance(probabilities(made), wanted) <= mpf(2) ** -130
    other = law(parameter * Fraction(101, 100))
    assert distance(probabilities(other), wanted) > mpf(2) ** -130 or parameter < Fraction(1, 500)


@pytest.mark.parametrize("law", [laws.gaussian, laws.skellam])
@pytest.mark.parametrize("variance", [Fraction(1 << 40), LARGEST_VARIANCE, Fraction(10**13, 7)])
def test_a_wide_law_is_its_definition(law: Callable, variance: Fraction) -> None:
    """Probabilities are differences of boundaries, and the first boundary is half a probability."""
    made, v = law(variance), reference.real(variance)
    sigma = int(sqrt(v))
    for x in [0, 1, 2, sigma // 100, sigma, 2 * sigma + 1, 5 * sigma, 9 * sigma]:
        if law is laws.gaussian:
            wanted = exp(-(mpf(x) ** 2) / (2 * v)) / sqrt(2 * pi * v)  # Poisson summation: the rest is exp(-20 v)
        else:
            with mp.workprec(900):
                wanted = besseli(x, v) * exp(-v)
        got = made.boundary(x) - made.boundary(x - 1) if x else 2 * made.boundary(0)
        assert close(got, wanted, 190)
    assert close(made.boundary(made.reach), mpf(0.5), 190)


@pytest.mark.parametrize("scale", [Fraction(40), Fraction(7, 3), Fraction(1, 3)])
@pytest.mark.parametrize("base", [2, 16])
def test_a_digit_and_the_rest_make_a_laplace_variable(scale: Fraction, base: int) -> None:
    digit, rest = probabilities(laws.laplace_digit(scale, base)), probabilities(laws.laplace(scale / base))
    assert distance(digit, reference.laplace_digit(scale, base)) <= mpf(2) ** -200
    wanted = reference.laplace(scale)
    for x in [x for x in [*range(40), 200, 399] if x < len(wanted)]:
        ways = [(d, (x - d) // base) for d in range(1 - base, base) if (x - d) % base == 0]
        got = sum(digit[abs(d)] * (rest[abs(r)] if abs(r) < len(rest) else 0) for d, r in ways)
        assert abs(got - wanted[x]) <= mpf(2) ** -130


def test_sums_of_skellam_variables_are_skellam() -> None:
    """Exactly, up to the claimed distances: 2 + 3 = 5."""
    two, three, five = (probabilities(laws.skellam(Fraction(v))) for v in (2, 3, 5))
    for x in range(40):
        got = sum(two[abs(k)] * three[abs(x - k)] for k in range(-60, 61) if abs(x - k) <= 60)
        assert abs(got - five[x]) <= mpf(2) ** -128


@pytest.mark.long
def test_what_is_cut_is_below_the_claim() -> None:
    """Tails at the reach by the definitions: Bernstein's bound covers Poisson-like and Gaussian-like Skellam tails."""
    for variance in [
        SMALLEST,
        Fraction(1, 10),
        Fraction(1),
        Fraction(5),
        Fraction(40),
        Fraction(1000),
        Fraction(10**5),
    ]:
        for law, definition in [(laws.gaussian, reference.gaussian), (laws.skellam, reference.skellam)]:
            beyond = 2 * sum(definition(variance)[law(variance).reach + 1 :])
            assert beyond <= mpf(2) ** -130, variance
    for scale in [SMALLEST, Fraction(1, 3), Fraction(32)]:
        assert 2 * sum(reference.laplace(scale)[laws.laplace(scale).reach + 1 :]) <= mpf(2) ** -130
    assert 3 * Fraction(1, 1 << 130) <= STATISTICAL_DISTANCE  # a discrete Laplace variable takes up to three tables
