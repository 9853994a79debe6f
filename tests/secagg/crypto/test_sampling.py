"""Every sample is what exact inversion of the law gives, and what the fast way is sure of is right."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from hashlib import sha256

import numpy as np
import pytest

from secagg.crypto.prg import Prg, random_words
from secagg.crypto.sampling import LARGEST_SCALE, LARGEST_VARIANCE, SMALLEST, inversion, laws
from secagg.crypto.sampling.draws import discrete_gaussian, discrete_laplace, skellam
from secagg.crypto.sampling.fixed import PRECISION
from secagg.crypto.sampling.inversion import Table, sample
from secagg.errors import UsageError
from tests.reference import noise as reference

Sampler = Callable[[Fraction, int, bytes], np.ndarray]
MIDDLE = Fraction(1 << 40)
SEED = b"s" * 32


@pytest.mark.parametrize(
    ("law", "definition", "parameter"),
    [
        (laws.gaussian, reference.gaussian, Fraction(1, 7)),
        (laws.gaussian, reference.gaussian, Fraction(1024, 100)),  # the secrets of lattices
        (laws.gaussian, reference.gaussian, Fraction(257**2)),
        (laws.skellam, reference.skellam, Fraction(1, 7)),
        (laws.skellam, reference.skellam, Fraction(10)),
        (laws.skellam, reference.skellam, Fraction(257**2)),
        (laws.laplace, reference.laplace, Fraction(10)),
    ],
)
def test_samples_are_the_obvious_ones(law: Callable, definition: Callable, parameter: Fraction) -> None:
    upper = reference.boundaries(definition(parameter))
    got = sample(Table.of(law(parameter)), 60, SEED)
    assert got.tolist() == [reference.draw(upper, SEED, i) for i in range(60)]


@pytest.mark.long
def test_digits_come_from_regions_of_their_own() -> None:
    scale, seed = Fraction(100), b"d" * 32
    low = reference.boundaries(reference.laplace_digit(scale, 1024))
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


def invert(
    table: Table, words: np.ndarray, margin: int | None = None, kernel: Callable = inversion._invert
) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes, and the places of those that are not sure."""
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


@pytest.mark.thinned(4)
@wide_tables
@pytest.mark.parametrize("spoil", [lambda p: p * 0, lambda p: -p, lambda p: p * 1e250])
def test_bad_proposals_change_nothing(table: Table, spoil: Callable) -> None:
    spoilt = replace(table, inverse=spoil(table.inverse))
    assert (sample(spoilt, 150, SEED) == sample(table, 150, SEED)).all()
    assert len(invert(spoilt, random_words(Prg(SEED), 150))[1]) > 50


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


@pytest.mark.thinned(3)
@every_table
def test_what_is_sure_is_right_next_to_boundaries(table: Table) -> None:
    words = near_boundaries(table)
    out, unsure = invert(table, words)
    sure = np.setdiff1d(np.arange(len(words)), unsure)
    assert 0 < len(sure) < len(words)
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
    assert int(abs(table.forward[:, 1:]).sum(axis=1).max()) << law.bits < 1 << 63  # no product overflows


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


def test_every_sample_has_128_bits_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing trusted, bisection is shown word i and the 16 bytes at 2^64 + 16i, in every block and region."""
    shown: list[tuple[int, bytes]] = []
    monkeypatch.setattr(inversion, "_exact", lambda law, word, more: shown.append((word, more)) or 0)
    table = replace(Table.of(TABLES["Laplace, scale 10"]), ends=np.array([(1 << 64) - 1], np.uint64))
    distrustful, count = replace(table, guide=np.zeros_like(table.guide)), (1 << 15) + 3
    for start in (0, inversion.REGION):
        shown.clear()
        sample(distrustful, count, SEED, start)
        assert [word for word, _ in shown] == random_words(Prg(SEED, start), count).tolist()
        assert b"".join(more for _, more in shown) == Prg(SEED, start + (1 << 64))(16 * count)


def test_tails_are_reached() -> None:
    """Words beyond the last bucket, one in 2^40, are left to bisection; no outcome is beyond the reach."""
    for law in TABLES.values():
        table = Table.of(law)
        assert invert(table, np.array([(1 << 64) - 1], np.uint64))[1].tolist() == [0]
        last = (len(table.ends) - 1) << law.bits
        assert last <= -inversion._exact(law, (1 << 64) - 1, b"\xff" * 16) <= law.reach
        assert last <= inversion._exact(law, (1 << 64) - 2, bytes(16)) <= law.reach


# --- streams ------------------------------------------------------------------------------------------------------

# Made by this code when it was written; the samples themselves are checked against the reference above.
# fmt: off
VECTORS: list[tuple[Sampler, Fraction, list[int], str]] = [
    (discrete_gaussian, Fraction(1, 3), [1, 0, 1, 0, 1, 0, 0, 0],
     "9b6b1af10150a906f9a49c3f5777540826e799704f61b4a7a37ca474c4ad2f40"),
    (discrete_gaussian, Fraction(256, 25), [4, -2, 5, 1, 4, 3, 1, 1],
     "9e4603afe96478b3e421adb8ce3670b4d620a5c2a89a774c204d3d98ffde5064"),
    (discrete_gaussian, Fraction(127**2), [168, -86, 207, 39, 143, 107, 30, 55],
     "9989e6137000691b854631b1f740a1bd0147ddc688e551e29343d02335d00962"),
    (discrete_gaussian, Fraction(128**2), [170, -87, 209, 39, 144, 108, 30, 56],
     "15072ee3407594f9cde349eba22ce4891a26b1a0b915081524dd8ad66b9ec603"),
    (discrete_gaussian, Fraction(1 << 40), [1389685, -710257, 1709526, 319104, 1181808, 882263, 245436, 457481],
     "2b35778f08d04237ac3ff7391f2abc52d40593faeae5bb8283e9873a9b4b3f3f"),
    (skellam, Fraction(1, 3), [1, 0, 1, 0, 1, 0, 0, 0],
     "1fc3cd39c431a426f7ab02f6bea345c65f8840d500a7d9c77f80b61d30ffc3b8"),
    (skellam, Fraction(3, 2), [2, -1, 2, 0, 1, 1, 0, 0],
     "d37d995806908f9b9c87539a9c8f5b25762319ff5052744958765f31fd0453ad"),
    (skellam, Fraction(127**2), [168, -86, 207, 39, 143, 107, 30, 55],
     "9799f07684afb5c5678a855b92c764b86b9367a6b922df88f7948df46a189db0"),
    (skellam, Fraction(128**2), [170, -87, 209, 39, 144, 108, 30, 56],
     "7b5764f85d6c03b2603e8a335036bb8d2f4b25e178ddf8d58f7131e60a4978a4"),
    (skellam, Fraction(10**13, 7), [1584044, -809593, 1948618, 363733, 1347094, 1005655, 279762, 521463],
     "02c6044df9cef448ffaa76213a6247058024c9213fb64e7f7e31963e5f82deb2"),
    (skellam, Fraction(1 << 44), [5558739, -2841028, 6838104, 1276416, 4727232, 3529052, 981744, 1829922],
     "41a80a027290e9cfd42d34ecd4b14ba39235a2e4ce32cf6701b3d41abe17d96a"),
    (discrete_laplace, Fraction(1, 3), [0, 0, 0, 0, 0, 0, 0, 0],
     "5df55bd64c676d15ff3b72511fcf138955a7fb9e67a8d5df0ce2c788a2d45a66"),
    (discrete_laplace, Fraction(10), [17, -7, 23, 3, 13, 9, 2, 4],
     "9270dd3d54c30af540eb2495d82cc075f9d80f7f108d61593e9a7f1fed1fcd66"),
    (discrete_laplace, Fraction(10**5), [21063, -36141, 58039, -36733, 27126, -81544, 86116, -2882],
     "92737cb68281bc89c66795271e66d6789c5384899a01f19b88de353de6fdfd3a"),
]
# fmt: on


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
    with pytest.raises(UsageError, match=r"must be between|exact rational"):
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
