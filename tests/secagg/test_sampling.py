"""Every table is the law it says, every sample is what exact inversion gives, and the margins of the fast way hold."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpmath import besseli, cos, exp, mp, mpf, pi, sin, sqrt

from secagg.errors import UsageError
from secagg.prg import Prg, random_words
from secagg.sampling import (
    LARGEST_SCALE,
    LARGEST_VARIANCE,
    SMALLEST,
    STATISTICAL_DISTANCE,
    discrete_gaussian,
    discrete_laplace,
    inversion,
    laws,
    skellam,
)
from secagg.sampling.fixed import ONE, PI, PRECISION, cos_sin, exp_minus, fixed
from secagg.sampling.inversion import Table, sample
from tests.reference import noise as reference

Sampler = Callable[[Fraction, int, bytes], np.ndarray]
MIDDLE = Fraction(1 << 40)
SEED = b"s" * 32

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
    return [2 * upper[0]] + [high - low for low, high in zip(upper[:-1], upper[1:], strict=True)]


def distance(left: list[mpf], right: list[mpf]) -> mpf:
    """In total variation, between symmetric laws given for 0, 1, 2, ..."""
    length = max(len(left), len(right))
    left, right = (p + [mpf(0)] * (length - len(p)) for p in (left, right))
    return sum(abs(a - b) for a, b in zip(left[1:], right[1:], strict=True)) + abs(left[0] - right[0]) / 2


# --- arithmetic ---------------------------------------------------------------------------------------------------


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


# --- laws ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("law", "definition", "parameter"), DIRECT)
def test_a_law_is_its_definition(law: Callable, definition: Callable, parameter: Fraction) -> None:
    made, wanted = law(parameter), definition(parameter)
    for x, upper in list(enumerate(reference.boundaries(wanted)))[: made.reach : 1 + made.reach // 300]:
        assert close(made.boundary(x), upper, 128 if law is laws.laplace else 138)
    assert distance(probabilities(made), wanted) <= mpf(2) ** -130
    other = law(parameter * Fraction(101, 100))
    assert distance(probabilities(other), wanted) > mpf(2) ** -130 or parameter < Fraction(1, 500)


@pytest.mark.parametrize("law", [laws.gaussian, laws.skellam])
@pytest.mark.parametrize("variance", [MIDDLE, LARGEST_VARIANCE, Fraction(10**13, 7)])
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
    for x in [*range(40), 200, 399][: len(wanted)]:
        ways = [(d, (x - d) // base) for d in range(1 - base, base) if (x - d) % base == 0]
        got = sum(digit[abs(d)] * (rest[abs(r)] if abs(r) < len(rest) else 0) for d, r in ways)
        assert abs(got - wanted[x]) <= mpf(2) ** -130


def test_sums_of_skellam_variables_are_skellam() -> None:
    """Exactly, up to the claimed distances: 2 + 3 = 5."""
    two, three, five = (probabilities(laws.skellam(Fraction(v))) for v in (2, 3, 5))
    for x in range(40):
        got = sum(two[abs(k)] * three[abs(x - k)] for k in range(-60, 61) if abs(x - k) <= 60)
        assert abs(got - five[x]) <= mpf(2) ** -128


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


# --- inversion ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("law", "definition", "parameter"), DIRECT)
def test_samples_are_the_obvious_ones(law: Callable, definition: Callable, parameter: Fraction) -> None:
    upper = reference.boundaries(definition(parameter))
    got = sample(Table.of(law(parameter)), 60, SEED)
    assert got.tolist() == [reference.draw(upper, SEED, i) for i in range(60)]


def test_digits_come_from_regions_of_their_own() -> None:
    scale, seed = Fraction(100), b"d" * 32
    low = reference.boundaries(probabilities(laws.laplace_digit(scale, 1024)))
    high = reference.boundaries(reference.laplace(scale / 1024))
    wanted = [reference.draw(low, seed, i) + 1024 * reference.draw(high, seed, i, region=1) for i in range(60)]
    assert discrete_laplace(scale, 60, seed).tolist() == wanted


TABLES = {
    "Gaussian, sigma 3.2": laws.gaussian(Fraction(1024, 100)),
    "Gaussian, sigma 128": laws.gaussian(Fraction(128**2)),
    "Gaussian, sigma 2^20": laws.gaussian(MIDDLE),
    "Gaussian, sigma 2^22": laws.gaussian(LARGEST_VARIANCE),
    "Skellam, sigma 1/9": laws.skellam(Fraction(1, 81)),
    "Skellam, sigma 127": laws.skellam(Fraction(127**2)),
    "Skellam, sigma 2^20": laws.skellam(MIDDLE),
    "Skellam, sigma 2^22": laws.skellam(LARGEST_VARIANCE),
    "Laplace, scale 10": laws.laplace(Fraction(10)),
}
every_table = pytest.mark.parametrize("table", [Table.of(law) for law in TABLES.values()], ids=list(TABLES))
wide_tables = pytest.mark.parametrize(
    "table", [Table.of(law) for law in TABLES.values() if law.bits], ids=[name for name in TABLES if TABLES[name].bits]
)


def invert(table: Table, words: np.ndarray, margin: int | None = None, kernel: Callable = inversion._invert):  # type: ignore[no-untyped-def]
    out, unsure = np.full(len(words), -(1 << 62)), np.empty(len(words), np.int64)
    arrays = table.ends, table.guide, table.forward, table.inverse
    count = kernel(words.copy(), *arrays, table.law.bits, table.margin if margin is None else margin, out, unsure)
    return out, unsure[:count]


@every_table
def test_the_slow_way_gives_the_same(table: Table) -> None:
    """Nothing trusted: no word is between the ends of any bucket for sure."""
    distrustful = replace(table, ends=np.array([(1 << 64) - 1], np.uint64), guide=np.zeros_like(table.guide))
    slow = sample(distrustful, 150, SEED)
    assert (slow == sample(table, 150, SEED)).all()


@wide_tables
@pytest.mark.parametrize("spoil", [lambda p: p * 0, lambda p: p * 1.001, lambda p: -p, lambda p: p * 1e250])
def test_bad_proposals_change_nothing(table: Table, spoil: Callable) -> None:
    spoilt = replace(table, inverse=spoil(table.inverse))
    assert (sample(spoilt, 150, SEED) == sample(table, 150, SEED)).all()
    assert len(invert(spoilt, random_words(Prg(SEED), 150))[1]) > 100


@wide_tables
def test_proposals_are_good(table: Table) -> None:
    """One word in 2^16 or fewer is left to bisection; 2^20 words leave 16 on average, 60 with probability 10^-15."""
    assert len(invert(table, random_words(Prg(SEED), 1 << 20))[1]) <= 60


@every_table
def test_compiled_code_does_what_it_says(table: Table) -> None:
    words = random_words(Prg(b"p" * 32), 1000)
    compiled, interpreted = (invert(table, words, kernel=k) for k in (inversion._invert, inversion._invert.py_func))
    assert (compiled[0] == interpreted[0]).all()
    assert (compiled[1] == interpreted[1]).all()


def near_boundaries(table: Table) -> np.ndarray:
    """Words on both sides of boundaries, from very near to beyond the margin."""
    law, rng = table.law, np.random.default_rng(4)
    common = (len(table.ends) - 1) << law.bits
    words = []
    for x in rng.integers(0, max(common * 3 // 4, 1), 60).tolist():
        at = law.boundary(x) >> (PRECISION - 64)
        for off in [0, 1, 2, 1 << 11, 1 << 16, table.margin << 10, (table.margin + 2) << 11]:
            words += [at - off, at + off]
    inside = [word for word in words if 0 <= word < 1 << 63]
    return np.array(inside, np.uint64) << np.uint64(1)


@every_table
def test_what_is_sure_is_right_next_to_boundaries(table: Table) -> None:
    words = near_boundaries(table)
    out, unsure = invert(table, words)
    sure = np.setdiff1d(np.arange(len(words)), unsure)
    assert 0 < len(unsure)
    assert 0 < len(sure)
    for i in sure.tolist():
        least, most = (inversion._exact(table.law, int(words[i]), fill * 16) for fill in (b"\0", b"\xff"))
        assert least == out[i] == most


@wide_tables
def test_without_the_margin_it_is_wrong_next_to_boundaries(table: Table) -> None:
    """The control: with a margin that trusts everything, some of the same words get a wrong outcome."""
    words = near_boundaries(table)
    out, unsure = invert(table, words, margin=-(1 << 50))
    wrong = [i for i in range(0, len(words), 14) if out[i] != inversion._exact(table.law, int(words[i]), bytes(16))]
    assert len(unsure) < len(words) // 2
    assert wrong


@wide_tables
def test_polynomials_keep_within_the_margin(table: Table) -> None:
    """And not by far: where the sixth derivative is largest, at 0.62 sigma, more than half the margin is used."""
    law, worst = table.law, 0
    width, buckets = 1 << law.bits, len(table.forward)
    for j in [0, 1, 2, *range(3, buckets, 7), round(0.62 * buckets / 7.2), buckets - 1]:
        for h in {0, 1, width // 2, width - 1, width}:
            value = int(table.forward[j, 5])
            for m in range(4, -1, -1):
                value = (value * h >> law.bits) + int(table.forward[j, m])
            x = j * width + h
            exact = law.boundary(x - 1) if x else -law.boundary(0)
            worst = max(worst, abs(value - (exact >> (PRECISION - 53))))
    assert table.margin / 2 < worst <= table.margin


@every_table
def test_more_bits_decide_a_tie(table: Table) -> None:
    """A word whose 63 bits are those of a boundary is sent to bisection, and there the other 128 bits decide."""
    law = table.law
    for x in [0, 1, 2 << law.bits]:
        top, below = divmod(law.boundary(x), 1 << (PRECISION - 64))
        word = top << 1
        assert invert(table, np.array([word, word + 1], np.uint64))[1].tolist() == [0, 1]
        under, over = ((below >> 64) - 1).to_bytes(16, "little"), ((below >> 64) + 1).to_bytes(16, "little")
        assert inversion._exact(law, word, under) == x
        assert inversion._exact(law, word, over) == x + 1
        assert inversion._exact(law, word + 1, over) == -x - 1


def test_tails_are_reached() -> None:
    """Words beyond the last bucket, one in 2^40, are left to bisection; no outcome is beyond the reach."""
    for law in TABLES.values():
        table = Table.of(law)
        out, unsure = invert(table, np.array([(1 << 64) - 1], np.uint64))
        assert unsure.tolist() == [0]
        last = (len(table.ends) - 1) << law.bits
        assert last <= -inversion._exact(law, (1 << 64) - 1, b"\xff" * 16) <= law.reach
        assert last <= inversion._exact(law, (1 << 64) - 2, bytes(16)) <= law.reach


# --- streams ------------------------------------------------------------------------------------------------------

VECTORS: list[tuple[Sampler, Fraction, list[int], str]] = []


@pytest.mark.parametrize(("sampler", "parameter", "first", "digest"), VECTORS)
def test_vectors(sampler: Sampler, parameter: Fraction, first: list[int], digest: str) -> None:
    got = sampler(parameter, 100_000, bytes(range(32)))
    assert got.dtype == np.int64
    assert got[:8].tolist() == first
    assert sha256(got.astype("<i8").tobytes()).hexdigest() == digest


samplers = pytest.mark.parametrize(
    ("sampler", "parameter"),
    [
        (discrete_gaussian, Fraction(10)),
        (discrete_gaussian, MIDDLE),
        (skellam, Fraction(10)),
        (skellam, MIDDLE),
        (discrete_laplace, Fraction(10)),
        (discrete_laplace, Fraction(10**5)),
    ],
)


@samplers
def test_a_sample_depends_on_its_place_only(sampler: Sampler, parameter: Fraction) -> None:
    whole = sampler(parameter, 3 * (1 << 15) + 5, SEED)
    for count in [0, 1, 7, 1 << 15, (1 << 15) + 1, 2 * (1 << 15) - 1]:
        assert (sampler(parameter, count, SEED) == whole[:count]).all()
    assert len(set(whole[:: 1 << 15].tolist())) > 1


@samplers
def test_seeds_and_parameters_matter(sampler: Sampler, parameter: Fraction) -> None:
    here = sampler(parameter, 1000, SEED)
    assert (here != sampler(parameter, 1000, b"t" * 32)).sum() > 500
    assert (here != sampler(parameter * 2, 1000, SEED)).sum() > 300


@samplers
@pytest.mark.parametrize("wrong", [0, -1, Fraction(-1, 3), SMALLEST / 2, Fraction(1 << 50), 2.0, "1"])
def test_other_parameters_are_refused(sampler: Sampler, parameter: Fraction, wrong: Fraction) -> None:
    with pytest.raises(UsageError, match="must be between|exact rational"):
        sampler(wrong, 1, SEED)
    with pytest.raises(UsageError, match="not negative"):
        sampler(parameter, -1, SEED)
    with pytest.raises(UsageError, match="32 bytes"):
        sampler(parameter, 1, bytes(16))


def test_the_ends_of_the_ranges_work() -> None:
    for sampler in (discrete_gaussian, skellam):
        assert not sampler(SMALLEST, 1000, SEED).any() or sampler is skellam
        assert abs(np.std(sampler(LARGEST_VARIANCE, 100_000, SEED)) / float(1 << 22) - 1) < 0.02
    assert not discrete_laplace(SMALLEST, 1000, SEED).any()
    assert abs(np.abs(discrete_laplace(LARGEST_SCALE, 100_000, SEED)).mean() / float(1 << 22) - 1) < 0.03
