"""Rounding: both implementations give the same integers, which are those of the definition in exact arithmetic."""

from __future__ import annotations

import math
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from secagg import rounding
from secagg.crypto.prg import Prg
from secagg.errors import UsageError
from secagg.rounding import PART, plain
from secagg.rounding.plain import BLOCK, LANES
from tests.controls import switch_off

loops: Any = pytest.importorskip("secagg.rounding.loops", reason="NOT TESTED: compiled rounding needs numba")

ROOT = Path(__file__).resolve().parents[3]
LARGEST = 2**31 - 1
BELOW_ONE = 1 - 2.0**-53
SPECIAL = [
    0.0, -0.0, 0.5, -0.5, 1.5, 2.5, -2.5, BELOW_ONE, -BELOW_ONE, -(2.0**-60), 2.0**-33, 3 * 2.0**-34, 5e-324, -5e-324,
    1e-310, 1.0, -1.0, 2.0**31 - 1.5, 0.5 - 2**31, 2.0**31, -(2.0**31), 1e308, -1e308, 127.49999999999999,
]  # fmt: skip
values = st.one_of(
    st.sampled_from(SPECIAL),
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(-3e9, 3e9),
    st.floats(-2, 2),
    st.integers(-(2**32), 2**32).map(lambda twice: twice / 2),
    st.integers(-1000, 1000).map(lambda whole: whole + BELOW_ONE),
)
widths = st.one_of(st.integers(1, 40), st.sampled_from([w + e for w in (LANES, BLOCK, 2 * BLOCK) for e in (-1, 0, 1)]))
factors = st.one_of(st.just(1.0), st.floats(1e-300, 1e110), st.floats(0.01, 100))
limits = st.sampled_from([1, 7, 127, 32767, LARGEST])
words = st.one_of(st.sampled_from([0, 1, 2**31 - 1, 2**31, 2**32 - 1]), st.integers(0, 2**32 - 1))


@st.composite
def vectors(draw: st.DrawFn) -> np.ndarray:
    """A few numbers over and over, times one that changes the order of magnitude."""
    some = draw(st.lists(values, min_size=1, max_size=12))
    vector = np.resize(np.array(some), draw(widths))
    vector.setflags(write=False)
    return vector


def drawn(count: int, seed: int) -> np.ndarray:
    return np.frombuffer(Prg(seed.to_bytes(32, "little"))(4 * count), "<u4")


def scaled(value: float, factor: float, largest: int) -> Fraction:
    product = value * factor
    return Fraction(min(max(product, -largest), largest))


# Two implementations, one result


@given(vector=vectors(), factor=factors, largest=limits, seed=st.integers(0, 2**32), same=st.none() | words)
def test_both_round_alike(vector: np.ndarray, factor: float, largest: int, seed: int, same: int | None) -> None:
    random = drawn(len(vector), seed) if same is None else np.full(len(vector), same, np.uint32)
    for name in ("stochastic", "nearest"):
        given_words, unweighted = ([random] if name == "stochastic" else []), None
        for width, weight in ((2, 1), (2, 4), (4, 1), (4, 2**16), (8, 1), (8, 2**32)):
            if (largest * weight).bit_length() >= 8 * width:
                continue
            ours, theirs = np.empty(len(vector), f"i{width}"), np.empty(len(vector), f"i{width}")
            one = getattr(loops, name)(vector, factor, largest, *given_words, weight, ours)
            assert one == getattr(plain, name)(vector, factor, largest, *given_words, weight, theirs)
            assert (ours == theirs).all()
            exact = ours.astype(object) // weight
            unweighted = exact if unweighted is None else unweighted
            assert (exact == unweighted).all()
            assert one == int(exact @ exact)
            assert np.abs(exact).max() <= largest
            assert (exact * weight == ours).all()


@given(vector=vectors())
def test_both_measure_alike(vector: np.ndarray) -> None:
    ours, theirs = (np.empty(-(-len(vector) // BLOCK)) for _ in range(2))
    loops.squares(vector, ours)
    plain.squares(vector, theirs)
    assert ours.tobytes() == theirs.tobytes()


@st.composite
def narrow_vectors(draw: st.DrawFn) -> np.ndarray:
    """Floats of 32 bits: some over and over, among others with all their bits."""
    some = draw(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=12))
    vector = (drawn(draw(widths), draw(st.integers(0, 2**32))) / 2.0**33 - 0.2).astype(np.float32)
    vector[: len(vector) // 2] = np.resize(np.array(some, np.float32), len(vector) // 2)
    vector.setflags(write=False)
    return vector


@given(vector=narrow_vectors(), factor=factors, largest=limits, seed=st.integers(0, 2**32))
def test_floats_of_32_bits_are_the_doubles_that_they_are(
    vector: np.ndarray, factor: float, largest: int, seed: int
) -> None:
    wide, random = vector.astype(np.float64), drawn(len(vector), seed)
    for kernels in (loops, plain):
        ours, theirs = (np.empty(-(-len(vector) // BLOCK)) for _ in range(2))
        kernels.squares(vector, ours)
        plain.squares(wide, theirs)
        assert ours.tobytes() == theirs.tobytes()
        for name in ("stochastic", "nearest"):
            given_words = [random] if name == "stochastic" else []
            for width in (2, 4, 8):
                if largest.bit_length() >= 8 * width:
                    continue
                integers, expected = np.empty(len(vector), f"i{width}"), np.empty(len(vector), f"i{width}")
                one = getattr(kernels, name)(vector, factor, largest, *given_words, 1, integers)
                assert one == getattr(plain, name)(wide, factor, largest, *given_words, 1, expected)
                assert integers.tobytes() == expected.tobytes()


@given(count=st.one_of(st.integers(0, 40), widths), seed=st.integers(0, 2**32))
def test_both_change_signs_alike(count: int, seed: int) -> None:
    vector = drawn(count, seed) / 3.0
    vector[: min(count, len(SPECIAL))] = SPECIAL[:count]
    bits = np.frombuffer(Prg(seed.to_bytes(32, "big"))(-(-count // 8)), np.uint8)
    expected = [-x if bits[i // 8] >> (7 - i % 8) & 1 else x for i, x in enumerate(vector.tolist())]
    for kernels in (loops, plain):
        out = vector.copy()
        kernels.flip(vector, bits, out)
        assert out.tobytes() == np.array(expected).tobytes()
        out = vector.copy()
        kernels.flip(out, bits, out)
        assert out.tobytes() == np.array(expected).tobytes()


@given(exponent=st.one_of(st.integers(0, 12), st.integers(14, 17)), seed=st.integers(0, 2**32))
def test_both_rotate_alike(exponent: int, seed: int) -> None:
    ours = drawn(1 << exponent, seed) / 3.0
    theirs = ours.copy()
    loops.hadamard(ours)
    plain.hadamard(theirs)
    assert ours.tobytes() == theirs.tobytes()


def test_both_measure_and_round_random_numbers_alike() -> None:
    """Numbers with all their bits: an operation that is fused with another, or done in another order, shows."""
    sums = {}
    for kernels in (loops, plain):
        one = np.empty(7)
        for seed in range(3):
            bits = np.frombuffer(Prg(bytes(31) + bytes([seed]))(8 * 100_000), "<u8")
            vector = (bits >> np.uint64(11)) * 2.0**-53 - 0.5
            integers = np.empty(100_000, np.int32)
            kernels.squares(vector, one)
            norm = kernels.stochastic(vector, 12345.678901, 32767.0, drawn(100_000, seed), 1, integers)
            sums.setdefault(seed, []).append((one.tolist(), norm, integers.tolist()))
    assert all(ours == theirs for ours, theirs in sums.values())


@pytest.mark.long
def test_control_operations_in_another_order_show() -> None:
    import numba

    vector = (np.frombuffer(Prg(bytes(32))(8 * 100_000), "<u8") >> np.uint64(11)) * 2.0**-53 - 0.5
    fast = numba.njit(fastmath=True)(loops.squares.py_func)
    ours, theirs = np.empty(7), np.empty(7)
    fast(vector, ours)
    plain.squares(vector, theirs)
    assert np.allclose(ours, theirs, rtol=1e-12)
    assert ours.tobytes() != theirs.tobytes()


@given(vector=st.lists(st.integers(-LARGEST, LARGEST), min_size=1, max_size=30))
def test_both_add_alike(vector: list[int]) -> None:
    for kernels in (loops, plain):
        total = np.arange(len(vector), dtype=np.int64) << 40
        kernels.add(np.array(vector, np.int32), total)
        assert total.tolist() == [(i << 40) + value for i, value in enumerate(vector)]


ENCODED = """
import sys
if sys.argv[1] == "plain":
    sys.modules["numba"] = None
import numpy as np
from secagg import rounding
from secagg.crypto.prg import Prg
from secagg.encoding import Encoding
assert "numba" not in sys.modules or sys.argv[1] == "plain", "numba is loaded when it is needed, and not before"
update = np.frombuffer(Prg(bytes(32))(4 * 40_000), "<i4") / 2.0**24
for encoding in (Encoding(40_000, 9.0, rotate=True), Encoding(40_000, 1e6, bits=24)):
    values = encoding.encode(update, weight=1, seed=bytes(32), rng=Prg(bytes(32)))
    print(values.tobytes().hex())
for name in "stochastic", "nearest":
    encoding = Encoding(5_000, 9.0, bits=24, users=8, rounding=name)
    values = encoding.encode_users(update.reshape(8, 5_000), seed=bytes(32), rng=Prg(bytes(32)))
    print(values.tobytes().hex())
print(rounding.kernels(1 << 20).__name__)
"""


def test_an_encoding_is_the_same_with_and_without_numba() -> None:
    said = []
    for name in ("loops", "plain"):
        done = subprocess.run(
            [sys.executable, "-c", ENCODED, name], cwd=ROOT, capture_output=True, text=True, check=True
        )
        *integers, used = done.stdout.splitlines()
        assert used == f"secagg.rounding.{name}"
        said.append(integers)
    assert said[0] == said[1]
    assert len(set(said[0])) == 4


SHORT = """
import sys
from secagg.encoding import Encoding
Encoding(1000, 9.0).encode([1.0] * 1000, weight=1, seed=bytes(32), rng=bytes)
assert "numba" not in sys.modules
"""


def test_for_short_vectors_numba_is_not_loaded() -> None:
    subprocess.run([sys.executable, "-c", SHORT], cwd=ROOT, check=True)


# The definition, in exact arithmetic


@pytest.mark.parametrize("kernels", [loops, plain], ids=["loops", "plain"])
@example(value=2.0**-33, factor=1.0, largest=1, word=0)  # not below, but equal
@example(value=-(2.0**-60), factor=1.0, largest=1, word=2**32 - 1)
@given(value=values, factor=factors, largest=limits, word=words)
def test_a_number_goes_up_when_its_word_is_below_its_fraction(
    kernels: Any, value: float, factor: float, largest: int, word: int
) -> None:
    exact, integers = scaled(value, factor, largest), np.empty(1, np.int32)
    below = math.floor(exact)
    fraction = Fraction(float(exact) - below)  # a double: that of a tiny negative number is 1
    expected = below + (Fraction(2 * word + 1, 2**33) < fraction)
    norm = kernels.stochastic(np.array([value]), factor, largest, np.array([word], np.uint32), 1, integers)
    assert integers.tolist() == [expected]
    assert norm == expected**2


@pytest.mark.parametrize("kernels", [loops, plain], ids=["loops", "plain"])
@given(value=values, factor=factors, largest=limits)
def test_a_number_goes_to_the_nearest_one_and_ties_to_even(
    kernels: Any, value: float, factor: float, largest: int
) -> None:
    integers = np.empty(1, np.int32)
    norm = kernels.nearest(np.array([value]), factor, largest, 1, integers)
    assert integers.tolist() == [round(scaled(value, factor, largest))]
    assert norm == int(integers[0]) ** 2


@given(value=st.one_of(st.sampled_from(SPECIAL), st.floats(-3, 3), st.floats(-1e-9, 1e-9)))
def test_the_bias_is_below_the_bound(value: float) -> None:
    """The words that go up are those below a threshold; it is within one of 2^32 times the fraction."""
    if not abs(value) < LARGEST:
        return
    below, exact = math.floor(value), Fraction(value) - math.floor(value)

    def up(word: int) -> bool:
        integers = np.empty(1, np.int32)
        rounding.stochastic(np.array([value]), 1.0, LARGEST, np.array([word], np.uint32), integers)
        return int(integers[0]) == below + 1

    threshold = min(max(math.ceil(exact * 2**32 - Fraction(1, 2)), 0), 2**32)
    around = range(max(threshold - 2, 0), min(threshold + 2, 2**32))
    first_down = next((word for word in around if not up(word)), around.stop)
    assert all(up(word) for word in around if word < first_down)
    assert not any(up(word) for word in around if word >= first_down)
    assert first_down > around.start or first_down == 0
    assert abs(Fraction(first_down, 2**32) - exact) < Fraction(1, 2**32)


@pytest.mark.parametrize("kernels", [loops, plain], ids=["loops", "plain"])
@pytest.mark.parametrize("word", [0, 2**32 - 1])
def test_whole_numbers_stay_what_they_are(kernels: Any, word: int) -> None:
    whole = [0, -0.0, 1, -1, 127, -127, LARGEST, -LARGEST]
    vector, integers = np.array(whole, float), np.empty(len(whole), np.int32)
    kernels.stochastic(vector, 1.0, LARGEST, np.full(len(whole), word, np.uint32), 1, integers)
    assert integers.tolist() == [int(value) for value in whole]
    kernels.nearest(vector, 1.0, LARGEST, 1, integers)
    assert integers.tolist() == [int(value) for value in whole]


@pytest.mark.parametrize("kernels", [loops, plain], ids=["loops", "plain"])
def test_the_squared_norm_is_exact(kernels: Any) -> None:
    vector = np.full(3 * BLOCK + 5, -1e300)
    integers = np.empty(len(vector), np.int32)
    assert kernels.nearest(vector, 1.0, LARGEST, 1, integers) == len(vector) * LARGEST**2
    random = drawn(len(vector), 1)
    assert kernels.stochastic(vector, 1.0, LARGEST, random, 1, integers) == len(vector) * LARGEST**2


@pytest.mark.parametrize("kernels", [loops, plain], ids=["loops", "plain"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_somebody_writes_into_a_vector_meanwhile_is_bounded(kernels: Any, value: float) -> None:
    integers = np.empty(40, np.int32)
    bound = -7 if value == -math.inf else 7
    kernels.stochastic(np.full(40, value), 2.0, 7, drawn(40, 1), 1, integers)
    assert set(integers.tolist()) == {bound}
    kernels.nearest(np.full(40, value), 2.0, 7, 1, integers)
    assert set(integers.tolist()) == {bound}


# Shortening


@given(vector=vectors(), clip=st.one_of(st.floats(1e-100, 1e100), st.floats(0.1, 10)))
def test_a_vector_is_brought_to_the_clip(vector: np.ndarray, clip: float) -> None:
    found = rounding.shortened(vector, clip)
    assert found is not None
    shorter, factor = found
    norm = math.hypot(*(shorter * factor).tolist())
    assert norm <= clip * (1 + 1e-12)
    if math.hypot(*vector.tolist()) < clip * (1 - 1e-12):
        assert shorter is vector
        assert factor == 1


@given(
    width=widths, place=st.integers(0, 2**20), bad=st.sampled_from([math.nan, -math.nan, math.inf, -math.inf]),
    rest=st.sampled_from([0.0, 1.0, 1e308, 5e-324]),
)  # fmt: skip
def test_nan_and_infinity_are_found_anywhere(width: int, place: int, bad: float, rest: float) -> None:
    for floats in (np.float64, np.float32, np.float16, np.longdouble):
        vector = np.full(width, min(rest, float(np.finfo(np.float16).max)), floats)
        assert rounding.shortened(vector, 1.0) is not None
        vector[place % width] = bad
        assert rounding.shortened(vector, 1.0) is None


@given(
    width=st.one_of(widths, st.integers(2 * PART - 1, 2 * PART + 1)),
    kind=st.sampled_from(["f8", "f4", "f2", "g", "i8", "u8", ">f8", "?"]),
    step=st.sampled_from([1, -1, 3]),
)
def test_parts_are_what_the_whole_vector_is_as_doubles(width: int, kind: str, step: int) -> None:
    vector = (drawn(3 * width, width) % 1000).astype(kind)[::step][:width]
    vector.setflags(write=False)
    check_parts(vector)


@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_parts_of_floats_that_begin_at_an_odd_address(kind: str) -> None:
    check_parts(np.frombuffer(b"odd" + np.arange(99, dtype=kind).tobytes(), kind, offset=3))


def check_parts(vector: np.ndarray) -> None:
    """Compiled loops take them: they stand together, where numbers of their size do."""
    width, parts = len(vector), list[tuple[int, np.ndarray]]()
    for start, part in rounding.parts(vector):
        assert part.dtype in (np.float32, np.float64)
        assert part.flags.c_contiguous
        assert part.flags.aligned
        parts.append((start, part.copy()))
    assert [start for start, _ in parts] == list(range(0, width, PART))
    assert np.concatenate([part for _, part in parts], dtype=float).tobytes() == vector.astype(float).tobytes()


@pytest.mark.parametrize("exponent", [493, 504, 504.9, 505, 511.9, 512, 1023.9])
def test_a_vector_is_shortened_though_its_squares_add_up_to_no_double(exponent: float) -> None:
    """Neither in a block, nor, below that, in all of them together."""
    shortened = rounding.shortened(np.full(3 * BLOCK, 2.0**exponent), 1.0)
    assert shortened is not None
    vector, factor = shortened
    assert np.linalg.norm(vector * factor) == pytest.approx(1.0)


@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_parts_of_floats_are_not_copied(kind: str) -> None:
    vector = np.ones(2 * PART, kind)
    assert all(np.shares_memory(part, vector) for _, part in rounding.parts(vector))


# Wrong use would read and write beyond an array


WRONG = {
    "_check": (lambda v, i: rounding.nearest(v, 1.0, 7, i[:2]), "as many integers"),
    "stochastic": (lambda v, i: rounding.stochastic(v, 1.0, 7, np.zeros(2, np.uint32), i), "as many words"),
    "add": (lambda v, i: rounding.add(i, np.zeros(2, np.int64)), "takes as many"),
    "flip": (lambda v, i: rounding.flip(v, np.zeros(1, np.uint8), np.empty(2)), "as many signs"),
    "hadamard": (lambda v, i: rounding.hadamard(v), "a power of two"),
}


@pytest.mark.parametrize("name", WRONG)
def test_arrays_that_do_not_fit_are_refused(name: str) -> None:
    use, says = WRONG[name]
    with pytest.raises(UsageError, match=says):
        use(np.ones(3), np.empty(3, np.int32))


def test_integers_that_could_wrap_are_refused() -> None:
    for largest, weight, width in (
        (2**15, 1, 2),
        (2**14, 2, 2),
        (7, 2**31, 4),
        (LARGEST, 2**33, 8),
        (LARGEST + 1, 1, 8),
    ):
        values = np.zeros(3, f"i{width}")
        with pytest.raises(UsageError, match="do not fit"):
            rounding.nearest(np.full(3, 1e300), 1.0, largest, values, weight)
        with pytest.raises(UsageError, match="do not fit"):
            rounding.stochastic(np.full(3, 1e300), 1.0, largest, np.zeros(3, np.uint32), values, weight)
        assert not values.any()
    values = np.zeros(3, np.int32)
    with pytest.raises(UsageError, match="signs are -1 and 1, not up to 3"):  # of which the squares are not 1
        rounding.signs(np.ones(3), 1.0, 3, np.zeros(3, np.uint32), values)
    for weight in (0, -1):
        with pytest.raises(UsageError, match="do not fit"):
            rounding.nearest(np.ones(3), 1.0, 7, np.zeros(3, np.int64), weight)


@pytest.mark.parametrize("width", [2, 4, 8])
def test_control_without_the_check_they_wrap(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    condition = "not 1 <= largest <= _LARGEST or weight < 1 or (largest * weight).bit_length() >= 8 * values.itemsize"
    switch_off(monkeypatch, rounding, "_check", condition)
    values = np.zeros(3, f"i{width}")
    rounding.nearest(np.full(3, 1e300), 1.0, 2**15 - 1, values, 2 ** (8 * width - 15))
    assert (values < 0).all()


CONDITIONS = {
    "_check": "len(vector) != len(values) or len(vector) > _MOST",
    "stochastic": "len(words) != len(values)",
    "add": "len(values) != len(total)",
    "flip": "len(out) != len(vector) or 8 * len(bits) < len(vector)",
    "hadamard": "(length := len(vector)) & (length - 1) or not length",
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_without_the_check_they_are_not_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounding, "kernels", lambda length: plain)  # numpy refuses by itself
    switch_off(monkeypatch, rounding, name, CONDITIONS[name])
    with pytest.raises(ValueError, match=r"broadcast|reshape"):
        WRONG[name][0](np.ones(3), np.empty(3, np.int32))
