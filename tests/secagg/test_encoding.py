"""Encoding: what it refuses, what it clips, that rounding is unbiased, and that sums decode exactly."""

import math
import struct
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg import rounding
from secagg.crypto.prg import Prg
from secagg.crypto.ring import Ring
from secagg.encoding import ENCODING, MAX_LENGTH, Encoding, Rounding, Sensitivity, _hadamard, _signs
from secagg.errors import DecodeError, UsageError
from tests.controls import switch_off

SEED = b"public rotation seed, 32 bytes.."
seeds = st.binary(min_size=32, max_size=32)
floats = st.floats(allow_nan=False, allow_infinity=False)
encodings = st.builds(
    Encoding,
    length=st.integers(1, 40),
    clip_l2=st.floats(1e-6, 1e6),
    bits=st.integers(2, 32),
    rotate=st.booleans(),
    clip_inf=st.one_of(st.just(0.0), st.floats(1e-6, 1e6)),
    weight_bound=st.sampled_from([1, 2, 7, 2**31 - 1]),
)


def always_up(count: int) -> bytes:
    return bytes(count)


def never_up(count: int) -> bytes:
    return b"\xff" * count


def no_words(count: int) -> bytes:
    raise AssertionError("nothing is drawn")


def encode(
    encoding: Encoding, update: object, weight: int = 1, rng: Callable[[int], bytes] | None = None
) -> np.ndarray:
    return encoding.encode(update, weight=weight, seed=SEED, rng=rng or Prg(b"r" * 32))  # type: ignore[arg-type]


def rounded(values: np.ndarray, rng: Callable[[int], bytes]) -> np.ndarray:
    integers = np.empty(len(values), np.int32)
    rounding.stochastic(values, 1.0, 2**31 - 1, np.frombuffer(rng(4 * len(values)), "<u4"), integers)
    return integers


def norm_squared(values: np.ndarray) -> int:
    return sum(value * value for value in values.tolist())


@st.composite
def updates(draw: st.DrawFn, length: int) -> np.ndarray:
    """Ordinary, huge, tiny and sparse vectors."""
    elements = draw(
        st.sampled_from([floats, st.floats(-1, 1), st.sampled_from([0.0, 1.0, -1.0, 1e308, 5e-324, -1e308])])
    )
    return np.array(draw(st.lists(elements, min_size=length, max_size=length)))


# What is refused.


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, None])
@pytest.mark.parametrize("place", [0, 2])
def test_nan_and_infinity_are_refused(bad: float | None, place: int) -> None:
    update: list[float | None] = [0.0, 0.0, 0.0]
    update[place] = bad
    with pytest.raises(UsageError, match="NaN or infinite"):
        encode(Encoding(3, 1.0), update)


@pytest.mark.parametrize(
    "update",
    [
        *([1.0], [[1.0, 2.0, 3.0]], 1.0, [], [1.0, 2.0, 3.0, 4.0], "abc", [[1], [1, 2], 3], {1: 2}, [10**400, 0, 0]),
        np.array([1.0, "x", 2.0], object),
    ],
    ids=str,
)
def test_what_is_not_a_vector_of_this_length_is_refused(update: object) -> None:
    with pytest.raises(UsageError):
        encode(Encoding(3, 1.0), update)


def test_what_is_no_array_and_becomes_one_is_a_vector() -> None:
    class Tensor:
        dtype = "of its own"

        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            return np.array([1.0, 0.0, -1.0], np.float64)

    assert encode(Encoding(3, 2.0), Tensor(), rng=never_up).tolist() == [16383, 0, -16384]


@pytest.mark.parametrize(
    ("weight", "counts"), [(0, 1), (-1, 1), (7, 7), (8, 7), (2**40, 7), (1.5, 1), (math.nan, 1), (math.inf, 7)]
)
def test_a_weight_out_of_range_is_the_nearest_in_it(weight: float, counts: int) -> None:
    weighed = Encoding.integers(2, bits=8, weight_bound=7)
    assert encode(weighed, [5, -6], weight).tolist() == [5 * counts, -6 * counts, counts]  # type: ignore[arg-type]
    assert encode(Encoding.integers(2, bits=8), [5, -6], weight).tolist() == [5, -6]  # type: ignore[arg-type]


@pytest.mark.parametrize("rotate", [False, True])
@pytest.mark.parametrize("bound", [1, 7])
def test_nothing_is_zeros(bound: int, rotate: bool) -> None:
    encoding = Encoding(3, 1.0, rotate=rotate, weight_bound=bound)
    values = encode(encoding, None, 5)
    assert (values.dtype, values.tolist()) == (np.int64, [0] * encoding.coordinates)
    total = encoding.decode(values, count=1, seed=bytes(32))
    assert (total.vector.tolist(), total.weight) == ([0, 0, 0], 1 if bound == 1 else 0)


@pytest.mark.parametrize("weight", [3, 3.0, np.int64(3), np.uint8(3), np.float32(3)])
def test_any_whole_number_will_do_as_weight(weight: int) -> None:
    values = encode(Encoding.integers(2, bits=8, weight_bound=7), [5, -6], weight)
    assert values.dtype == np.int64
    assert values.tolist() == [15, -18, 3]


@pytest.mark.parametrize(
    "wrong",
    [
        {"length": 0}, {"length": -1}, {"length": MAX_LENGTH + 1}, {"bits": 0}, {"bits": 33}, {"weight_bound": 0},
        {"weight_bound": 2**31}, {"clip_l2": 0.0}, {"clip_l2": -1.0}, {"clip_l2": math.nan}, {"clip_l2": math.inf},
        {"clip_inf": -1.0}, {"clip_inf": math.nan}, {"clip_inf": math.inf},
    ],
    ids=str,
)  # fmt: skip
def test_a_senseless_encoding_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError) as caught:
        Encoding(**({"length": 3, "clip_l2": 1.0} | wrong))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


EDGES = [0, 1, 2, 3, 31, 32, 33, 2**31 - 1, 2**31, 2**34, 2**34 + 1, 2**63, 2**64, -1, 10**400]
integers = st.one_of(st.integers(), st.sampled_from(EDGES))
numbers = st.one_of(
    st.floats(), st.floats(1e-100, 1e100), st.sampled_from([0, 1e-100, 1e100, 1e-101, 1e101, 5e-324, 1.7e308, 10**400])
)
probabilities = st.one_of(
    st.fractions(), st.fractions(0, 1), st.sampled_from([Fraction(1, 10**400), Fraction(1, 2**64), Fraction(1, 2**63)])
)


def everything_of(encoding: Encoding) -> None:
    with suppress(UsageError):
        encoding.ring_bits(10**7, 2**60)
    sensitivity = encoding.sensitivity()
    assert 0 <= sensitivity.l1 <= sensitivity.l2_squared
    assert ENCODING.decode(ENCODING.encode(encoding)) == encoding
    if encoding.length <= 50:
        values = encode(encoding, np.linspace(-1e300, 1e300, encoding.length))
        assert np.isfinite(encoding.decode(values, count=1, seed=SEED).vector).all()


@settings(max_examples=400)
@given(
    length=st.one_of(integers, st.integers(1, 40)),
    clip_l2=numbers,
    bits=st.one_of(integers, st.integers(2, 32)),
    rotate=st.booleans(),
    clip_inf=numbers,
    weight_bound=st.one_of(integers, st.integers(1, 9)),
    beta=probabilities,
)
def test_whatever_the_fields_are_it_is_refused_as_wrong_use_or_works(**fields: Any) -> None:
    try:
        encoding = Encoding(**fields)
    except UsageError:
        return
    everything_of(encoding)


STRANGE = [
    {"clip_l2": 1e100, "clip_inf": 1e-100},
    {"clip_l2": 1e90, "clip_inf": 1e-90, "beta": Fraction(1, 2)},
    {"clip_l2": 1.0, "beta": Fraction(1, 10**400)},
]


@pytest.mark.parametrize("fields", STRANGE, ids=str)
def test_what_floats_do_not_reach_is_refused(fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError):
        Encoding(3, bits=32, **fields)
    switch_off(monkeypatch, Encoding, "__post_init__", "self.clip_l2 / self.clip_inf > _LARGEST_RATIO")
    everything_of(Encoding(3, bits=32, clip_l2=1.0))
    if "clip_inf" not in fields:
        monkeypatch.undo()
        condition = "not 0 <= self.beta <= _LARGEST_BETA or Fraction(self.beta).denominator > _LARGEST_DENOMINATOR"
        switch_off(monkeypatch, Encoding, "__post_init__", condition)
    with pytest.raises(OverflowError):
        everything_of(Encoding(3, bits=32, **fields))


def test_what_floats_do_not_reach_is_refused_from_the_wire() -> None:
    data = ENCODING.encode(Encoding(3, 1e100, bits=32, clip_inf=1e92))
    for clip, taken in ((1e92, True), (1e-100, False)):
        sent = data.replace(struct.pack(">d", 1e92), struct.pack(">d", clip))
        if taken:
            everything_of(ENCODING.decode(sent))
        else:
            with pytest.raises(DecodeError, match="clip_l2 is at most 2\\^64 times clip_inf"):
                ENCODING.decode(sent)


@pytest.mark.parametrize("wrong", [{"bits": 0}, {"bits": -1}, {"bits": 33}, {"bits": 5000}, {"length": -4}])
def test_senseless_integers_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        Encoding.integers(**({"length": 4} | wrong))


@pytest.mark.parametrize("clip", [5e-324, 1e-310, 1.7e308])
@pytest.mark.parametrize("rotate", [False, True])
def test_a_clip_at_the_edge_of_the_doubles_is_refused_or_works(clip: float, rotate: bool) -> None:
    try:
        encoding = Encoding(5, clip, rotate=rotate)
    except UsageError:
        return
    values = encode(encoding, [1e308, -1e308, 5e-324, 0.0, 1.0])
    assert np.abs(values).max() <= encoding.largest
    assert np.isfinite(encoding.decode(values * 3, count=3, seed=SEED).vector).all()


def test_a_decoded_sum_has_the_right_shape() -> None:
    encoding = Encoding(3, 1.0, weight_bound=2)
    for shape in ((3,), (5,), (4, 1), ()):
        with pytest.raises(UsageError, match="shape"):
            encoding.decode(np.zeros(shape, np.int64), count=1, seed=SEED)


# Clipping.


@given(data=st.data(), encoding=encodings, weight=st.integers(1, 7), rng=st.sampled_from([always_up, never_up]))
def test_every_coordinate_stays_in_its_bits_and_every_vector_in_its_sensitivity(
    data: st.DataObject, encoding: Encoding, weight: int, rng: Callable[[int], bytes]
) -> None:
    weight = min(weight, encoding.weight_bound)
    values = encode(encoding, data.draw(updates(encoding.length)), weight, rng)
    coordinates = values[: len(values) - (encoding.weight_bound > 1)]
    assert np.abs(coordinates).max() <= encoding.largest * weight
    bound = encoding.sensitivity()
    exact = [int(value) for value in values]
    assert sum(abs(value) for value in exact) <= bound.l1
    assert sum(value * value for value in exact) <= bound.l2_squared


def test_the_sensitivity_counts_the_weight_and_the_rounding() -> None:
    """The two extremes that meet the bound: the largest coordinate with the largest weight, and all rounded up."""
    weighted = Encoding.integers(1, bits=8, weight_bound=7)
    values = encode(weighted, [127.0], 7)
    assert values.tolist() == [7 * 127, 7]
    assert weighted.sensitivity().l2_squared == sum(value * value for value in values.tolist())
    rounded = Encoding(16, 1.0, bits=4)
    values = encode(rounded, [0.15] * 16, rng=always_up)  # 7 * 0.15 = 1.05 becomes 2
    assert rounded.scale * rounded.clip_l2 < math.hypot(*values.tolist()) == 8
    assert rounded.sensitivity().l2_squared >= 64


@pytest.mark.parametrize("bits", [16, 24, 32])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_coordinate_at_the_bound_is_not_rounded_beyond_it(bits: int, sign: float) -> None:
    """clip_inf * (largest / clip_inf) can be an ulp above largest; rounding must not take that for a fraction."""
    for clip in np.linspace(0.1, 10, 500).tolist():
        encoding = Encoding(1, clip, bits)
        for rng in (always_up, never_up):
            assert abs(int(encode(encoding, [sign * 1e6], rng=rng)[0])) <= encoding.largest


@given(data=st.data(), length=st.integers(1, 30), clip=st.floats(1e-3, 1e3))
def test_a_vector_inside_the_clip_is_left_alone_and_another_is_put_on_the_sphere(
    data: st.DataObject, length: int, clip: float
) -> None:
    update = data.draw(updates(length))
    shortened = rounding.shortened(update, clip)
    assert shortened is not None
    vector, factor = shortened
    norm = math.hypot(*update.tolist())
    if norm <= clip * (1 - 1e-12):
        assert vector is update
        assert factor == 1
    if norm >= clip * (1 + 1e-12):
        clipped = vector * factor
        assert math.isclose(math.hypot(*clipped.tolist()), clip, rel_tol=1e-12)
        largest = np.abs(update).max()
        direction = update / largest / math.hypot(*(update / largest).tolist())
        assert np.allclose(clipped, direction * clip, rtol=1e-12, atol=clip * 1e-300)


@pytest.mark.parametrize("update", [[1e308] * 4, [5e-324] * 4, [0.0] * 4, [1e308, 5e-324, -1e308, 0.0]])
@pytest.mark.parametrize("rotate", [False, True])
def test_huge_and_denormal_updates_are_clipped_like_any_other(update: list[float], rotate: bool) -> None:
    encoding = Encoding(4, 1.0, bits=24, rotate=rotate)
    decoded = encoding.decode(encode(encoding, update), count=1, seed=SEED).vector
    peak = max(abs(x) for x in update)
    expected = np.array(update) / peak / math.hypot(*(x / peak for x in update)) if peak > 1 else np.zeros(4)
    assert np.abs(decoded - expected).max() <= 4 / encoding.scale


@given(
    encoding=encodings,
    seed=seeds,
    kind=st.sampled_from(["f4", "f2", "g", "i8", "i1", "u8", ">f4", "?"]),
    step=st.integers(1, 2),
)
def test_numbers_of_any_type_give_the_integers_that_they_give_as_doubles(
    encoding: Encoding, seed: bytes, kind: str, step: int
) -> None:
    update = np.frombuffer(Prg(seed)(step * encoding.length), "i1").astype(kind)[::step]
    update.setflags(write=False)
    doubles = update.astype(float)
    given, expected = (encode(encoding, one, rng=Prg(seed)).tolist() for one in (update, doubles))
    assert given == expected
    silo = Encoding(encoding.length, encoding.clip_l2, users=2, rotate=encoding.rotate)
    given, expected = (silo.encode_users([one, one], seed=seed, rng=Prg(seed)).tolist() for one in (update, doubles))
    assert given == expected


@pytest.mark.parametrize("kind", ["f4", "i4"])
def test_each_part_of_a_long_vector_is_written_in_its_place(kind: str) -> None:
    update = (np.arange(2 * rounding.PART + 3) % 999 - 500).astype(kind)
    assert np.array_equal(encode(Encoding.integers(len(update)), update), update)


@pytest.mark.parametrize("kind", ["f8", "f4", "i8"])
@pytest.mark.parametrize("way", ["stochastic", "nearest"])
def test_an_array_of_numbers_is_not_copied(kind: str, way: str) -> None:
    update, integers = np.ones(300_000, kind), np.empty(300_000, np.int32)
    encoding = Encoding(300_000, 1.0, bits=32, rounding=way)
    encode(encoding, update)  # what is compiled is loaded
    tracemalloc.start()
    try:
        encoding.encode_into(update, integers, weight=1, seed=SEED, rng=Prg(SEED))
        assert tracemalloc.get_traced_memory()[1] < update.nbytes / 2
    finally:
        tracemalloc.stop()


def test_the_callers_array_is_not_touched() -> None:
    update = np.array([3.0, 4.0])
    encode(Encoding(2, 1.0, rotate=True), update)
    assert update.tolist() == [3.0, 4.0]


# Rounding.


@pytest.mark.parametrize("value", [0.5, 0.001, 0.999, -0.25, 1234.1, -77.9])
def test_rounding_is_unbiased(value: float) -> None:
    """200,000 draws, |z| > 5.7 has probability 1.2e-8 for each value."""
    draws, fraction = 200_000, value - math.floor(value)
    ups = int((rounded(np.full(draws, value), Prg(b"u" * 32)) - math.floor(value)).sum())
    assert abs(ups - draws * fraction) < 5.7 * math.sqrt(draws * fraction * (1 - fraction))


def test_the_mean_of_many_encodings_is_the_update() -> None:
    """5-bit coordinates, 40,000 clients with one update: each coordinate within 6 sigma (40 of them: 8e-8)."""
    encoding, clients = Encoding(40, 1.0, bits=5, rotate=True), 40_000
    update = np.sin(np.arange(40)) / 8
    prg, seeded = Prg(b"m" * 32), np.zeros(encoding.coordinates)
    rotated = _hadamard(np.pad(update, (0, 24)) * signs(SEED, 64)) * encoding.scale
    seeded += rounded(np.tile(rotated, clients), prg).reshape(clients, 64).sum(axis=0)
    mean = encoding.decode(seeded.astype(np.int64), count=clients, seed=SEED).vector / clients
    assert np.abs(mean - update).max() < 6 * 0.5 / encoding.scale / math.sqrt(clients)


@given(encoding=encodings)
def test_rounding_draws_from_the_rng_it_is_given(encoding: Encoding) -> None:
    update = np.full(encoding.length, encoding.clip_inf * 0.3)
    drawn = []
    encode(encoding, update, rng=lambda count: drawn.append(count) or bytes(count))
    assert sum(drawn) == 4 * encoding._width


# Straight into the integers that are kept: nothing wraps there, or in the ring.


def wide(encoding: Encoding) -> list[str]:
    return [f"i{width}" for width in (2, 4, 8) if width >= encoding.dtype.itemsize]


@given(encoding=encodings, seed=seeds, size=st.sampled_from([1e-9, 0.5, 1e9, 1e300]), weight=st.integers(0, 2**40))
def test_what_one_client_contributes_fits_its_type_and_the_ring(
    encoding: Encoding, seed: bytes, size: float, weight: int
) -> None:
    update = np.frombuffer(Prg(seed)(8 * encoding.length), "<i8") / 2.0**63 * size
    expected, most = encode(encoding, update, weight), encoding.weight_bound * encoding.largest
    assert np.abs(expected).max() <= most <= np.iinfo(encoding.dtype).max
    for name in wide(encoding):
        values = np.full(encoding.coordinates, -1, name)
        encoding.encode_into(update, values, weight=weight, seed=SEED, rng=Prg(b"r" * 32))
        assert values.tolist() == expected.tolist()
        if most.bit_length() < 64:
            ring = Ring(encoding.ring_bits(1))
            assert most <= ring.largest
            assert ring.centred(ring.wrap(values)).tolist() == expected.tolist()


@pytest.mark.parametrize("bits", [2, 8, 16, 17, 32])
@pytest.mark.parametrize("bound", [1, 2, 65535, 2**31 - 1])
def test_the_type_of_what_is_encoded_is_the_narrowest_that_holds_the_largest(bits: int, bound: int) -> None:
    encoding = Encoding(2, 1e9, bits=bits, clip_inf=1.0, weight_bound=bound)
    exact = bound * encoding.largest
    assert exact <= np.iinfo(encoding.dtype).max
    assert encoding.dtype == np.int16 or exact > np.iinfo(f"i{encoding.dtype.itemsize // 2}").max
    values = np.zeros(encoding.coordinates, encoding.dtype)
    encoding.encode_into([1e300, -1e300], values, weight=bound, seed=SEED, rng=never_up)
    assert values.tolist()[:2] == [exact, -exact]


@pytest.mark.parametrize("bad", [[math.nan, 0.0], [math.inf, 0.0], [1.0], ["x", "y"]], ids=str)
def test_after_an_error_nothing_is_left_of_an_update(bad: list[object]) -> None:
    encoding = Encoding(2, 1.0, weight_bound=9)
    values = np.full(3, 5, encoding.dtype)
    with pytest.raises(UsageError):
        encoding.encode_into(bad, values, weight=4, seed=SEED, rng=always_up)  # type: ignore[arg-type]
    assert not values.any()
    values[:] = 5
    encoding.encode_into(None, values, weight=4, seed=SEED, rng=always_up)
    assert not values.any()


def test_a_vector_that_is_too_long_is_not_left_where_it_was_written() -> None:
    encoding, update = Encoding(10, clip_l2=1.0, clip_inf=0.5, bits=8), np.zeros(10)
    values = np.empty(10, encoding.dtype)

    def grown(count: int) -> bytes:
        update[:] = 1e6
        return bytes(count)

    with pytest.raises(UsageError, match="does not get shorter"):
        encoding.encode_into(update, values, weight=1, seed=SEED, rng=grown)
    assert not values.any()


ROOM = "values.itemsize < self.dtype.itemsize"


def test_a_place_that_is_too_narrow_is_refused_whatever_the_weight() -> None:
    encoding = Encoding(2, 1.0, weight_bound=9)
    right = np.zeros(3, np.int32)
    closed = right.copy()
    closed.setflags(write=False)
    for wrong in (
        np.zeros(3, np.int16), np.zeros(3, np.uint32), np.zeros(3), right[:2], np.zeros(6, np.int32)[::2], closed,
        right.reshape(1, 3), right.astype(">i4"),
    ):  # fmt: skip
        for weight in (1, 9):
            with pytest.raises(UsageError, match=r"an encoded vector|does not fit"):
                encoding.encode_into([0.5, 0.5], wrong, weight=weight, seed=SEED, rng=always_up)
    assert encoding.dtype == right.dtype


def test_control_without_the_check_a_refusal_tells_a_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    switch_off(monkeypatch, Encoding, "_check_room", ROOM)
    encoding, values = Encoding(2, 1.0, weight_bound=9), np.zeros(3, np.int16)
    encoding.encode_into([0.5, 0.5], values, weight=1, seed=SEED, rng=always_up)
    with pytest.raises(UsageError, match="do not fit"):
        encoding.encode_into([0.5, 0.5], values, weight=9, seed=SEED, rng=always_up)


# Decoding.


@given(data=st.data(), bits=st.integers(2, 32), length=st.integers(1, 20), bound=st.sampled_from([1, 9]))
def test_sums_of_integer_updates_come_back_exactly(data: st.DataObject, bits: int, length: int, bound: int) -> None:
    encoding = Encoding.integers(length, bits=bits, weight_bound=bound)
    number = st.integers(-encoding.largest, encoding.largest)
    clients = data.draw(st.lists(st.tuples(st.lists(number, min_size=length, max_size=length), st.integers(1, bound))))
    encoded = [encode(encoding, vector, weight) for vector, weight in clients]
    for (vector, weight), values in zip(clients, encoded, strict=True):
        assert values.tolist() == [weight * x for x in vector] + [weight] * (bound > 1)
    total = sum(encoded, np.zeros(encoding.coordinates, np.int64))
    decoded = encoding.decode(total, count=len(clients), seed=SEED)
    assert decoded.vector.tolist() == [sum(weight * vector[i] for vector, weight in clients) for i in range(length)]
    assert decoded.weight == sum(weight for _, weight in clients)


@given(data=st.data(), rotate=st.booleans(), length=st.integers(1, 40), bits=st.integers(4, 32))
def test_a_sum_decodes_to_within_its_rounding(data: st.DataObject, rotate: bool, length: int, bits: int) -> None:
    encoding = Encoding(length, 1.0, bits=bits, rotate=rotate, weight_bound=5)
    vectors = [
        np.array(data.draw(st.lists(st.floats(-0.15, 0.15), min_size=length, max_size=length))) for _ in range(3)
    ]
    weights = data.draw(st.lists(st.integers(1, 5), min_size=3, max_size=3))
    encoded = [encode(encoding, vector, weight) for vector, weight in zip(vectors, weights, strict=True)]
    decoded = encoding.decode(sum(encoded), count=3, seed=SEED)  # type: ignore[arg-type]
    expected = sum(vector * weight for vector, weight in zip(vectors, weights, strict=True))
    assert decoded.weight == sum(weights)
    slack = sum(weights) * math.sqrt(encoding._width) / encoding.scale
    assert np.linalg.norm(decoded.vector - expected) <= slack * (1 + 1e-9)


# Rotation.


def signs(seed: bytes, count: int) -> np.ndarray:
    out = np.empty(count)
    rounding.flip(np.ones(count), _signs(seed, count), out)
    return out


@given(exponent=st.integers(0, 10), seed=seeds)
def test_the_rotation_is_its_own_inverse_and_keeps_norms(exponent: int, seed: bytes) -> None:
    width = 1 << exponent
    vector = np.frombuffer(Prg(seed)(4 * width), "<i4").astype(np.float64)
    rotated = _hadamard(vector.copy())
    assert np.allclose(_hadamard(rotated.copy()), vector, rtol=0, atol=1e-12 * np.abs(vector).max())
    assert math.isclose(np.linalg.norm(rotated), np.linalg.norm(vector), rel_tol=1e-12)


def test_the_rotation_is_the_matrix_of_walsh_and_hadamard() -> None:
    matrix = np.array([[1 - 2 * ((i & j).bit_count() % 2) for j in range(16)] for i in range(16)]) / 4
    vector = np.arange(16.0) ** 2
    assert np.allclose(_hadamard(vector.copy()), matrix @ vector)


@given(seed=seeds, count=st.integers(1, 100))
def test_signs_are_the_bits_of_the_stream(seed: bytes, count: int) -> None:
    bits = "".join(f"{byte:08b}" for byte in Prg(seed)(-(-count // 8)))
    assert signs(seed, count).tolist() == [1 - 2 * int(bit) for bit in bits[:count]]


@given(seed=seeds, length=st.integers(1, 300), spike=st.integers(0, 299))
def test_a_rotated_vector_keeps_to_the_bound_derived_for_it(seed: bytes, length: int, spike: int) -> None:
    """Exceeding it has probability below 2^-40 for each vector; a spike is the worst before rotation."""
    encoding = Encoding(length, 2.0, rotate=True)
    for update in (np.eye(1, length, spike % length)[0] * 2, np.full(length, 2 / math.sqrt(length))):
        rotated = _hadamard(np.pad(update, (0, encoding._width - length)) * signs(seed, encoding._width))
        assert np.abs(rotated).max() <= encoding.clip_inf * (1 + 1e-12)


def test_a_rotation_pays_off_in_scale() -> None:
    assert Encoding(2**20, 1.0, rotate=True).scale > 80 * Encoding(2**20, 1.0).scale


# Rings.


@given(encoding=encodings, n=st.integers(1, 10**7), noise=st.integers(0, 2**40))
def test_a_ring_of_ring_bits_holds_the_extreme_sums_and_one_bit_less_does_not(
    encoding: Encoding, n: int, noise: int
) -> None:
    extreme = n * encoding.weight_bound * encoding.largest + noise
    if extreme >= 2**63:
        with pytest.raises(UsageError, match="at most 64"):
            encoding.ring_bits(n, noise)
        return
    bits = encoding.ring_bits(n, noise)
    assert Ring(bits).largest >= extreme
    assert bits == 2 or Ring(bits - 1).largest < extreme
    encoding.check_ring(Ring(bits), n, noise)
    if bits > 2:
        with pytest.raises(UsageError, match=f"{bits} bits are needed"):
            encoding.check_ring(Ring(bits - 1), n, noise)


def test_the_ring_of_the_issue() -> None:
    assert Encoding(2**20, 1.0, bits=16).ring_bits(1024) == 26
    assert Encoding(2**20, 1.0, bits=16, weight_bound=2**10).ring_bits(1024) == 36


@given(bits=st.integers(2, 32), bound=st.integers(1, 2**29), n=st.integers(1, 7))
def test_the_weight_too_fits_in_the_ring(bits: int, bound: int, n: int) -> None:
    assert n * bound <= Ring(Encoding(3, 1.0, bits=bits, weight_bound=bound).ring_bits(n)).largest


# The wire.


@given(encoding=encodings)
def test_an_encoding_survives_the_wire(encoding: Encoding) -> None:
    assert ENCODING.decode(ENCODING.encode(encoding)) == encoding


def test_an_encoding_has_one_form_on_the_wire() -> None:
    """clip_inf = 0 means "derive it" to a person; on the wire only the derived number may stand."""
    data = ENCODING.encode(Encoding(3, 1.0, clip_inf=0.75))
    implied = data.replace(struct.pack(">d", 0.75), bytes(8))
    assert implied != data
    with pytest.raises(DecodeError):
        ENCODING.decode(implied)


@pytest.mark.parametrize("clip", [1e-100, 1e-99, 1e100])
def test_an_encoding_at_the_edge_of_what_is_allowed_survives_the_wire_too(clip: float) -> None:
    """The clip derived for a rotated vector is smaller than clip_l2: is it still allowed?"""
    try:
        encoding = Encoding(10_000, clip, rotate=True)
    except UsageError:
        return
    assert ENCODING.decode(ENCODING.encode(encoding)) == encoding


# Conditional rounding: the sensitivity is what is checked, in exact integers


def conditional(beta: Fraction) -> Encoding:
    return Encoding(10_000, clip_l2=1.0, bits=10, clip_inf=511 / 550, beta=beta)


def test_conditional_rounding_makes_the_sensitivity_smaller() -> None:
    """In float units, g = 1 / scale: (c + g sqrt d)^2, c^2 + g^2 d / 4 + sqrt(2 ln(1/beta)) g (c + g sqrt d / 2)."""
    worst, half = conditional(Fraction(0)), conditional(Fraction(1, 2))
    c, root, s = 1.0, 100.0, half.scale
    likely = c**2 + 10_000 / s**2 / 4 + math.sqrt(2 * math.log(2)) / s * (c + root / s / 2)
    assert half.sensitivity().l2_squared == math.floor(likely * s**2)
    assert worst.sensitivity().l2_squared == math.floor((c + root / s) ** 2 * s**2)
    assert half.sensitivity().l2_squared < worst.sensitivity().l2_squared
    assert half.sensitivity().l1 == math.isqrt(10_000 * half.sensitivity().l2_squared)


def test_rounding_is_repeated_until_it_is_short_enough() -> None:
    """Halves everywhere: beta = 9/10 allows a norm half a standard deviation above the mean, so a third goes beyond."""
    encoding = conditional(Fraction(9, 10))
    update = np.full(10_000, 0.01)  # norm 1, at scale 550: 5.5
    bound = encoding.sensitivity().l2_squared
    drawn = Prg(bytes(31) + b"r")
    free = [norm_squared(rounded(np.full(10_000, 5.5), drawn)) for _ in range(300)]
    kept = [norm_squared(encode(encoding, update, rng=drawn)) for _ in range(300)]
    assert max(kept) <= bound
    assert 60 < sum(norm > bound for norm in free) < 140


def test_an_rng_that_always_rounds_up_is_not_followed_forever() -> None:
    with pytest.raises(UsageError, match="does not get shorter"):
        encode(conditional(Fraction(1, 2)), np.full(10_000, 0.01), rng=always_up)


def test_without_the_check_a_vector_is_longer_than_the_sensitivity(monkeypatch: pytest.MonkeyPatch) -> None:
    encoding = conditional(Fraction(1, 2))
    bound = encoding.sensitivity().l2_squared
    switch_off(monkeypatch, Encoding, "_round", "norm_squared <= longest", "True")
    assert norm_squared(encode(encoding, np.full(10_000, 0.01), rng=always_up)) > bound


@pytest.mark.parametrize("beta", [Fraction(-1, 2), Fraction(1), Fraction(95, 100)])
def test_beta_is_a_probability_and_not_too_large(beta: Fraction) -> None:
    with pytest.raises(UsageError, match="beta"):
        conditional(beta)


def test_a_users_vector_that_is_written_into_meanwhile_moves_the_sum_no_further(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever is asked for random words has measured the vector; what is added is what was checked, or nothing."""
    encoding = Encoding(10, clip_l2=1.0, clip_inf=0.5, bits=8, users=1)
    update = np.zeros(10)

    def grown(count: int) -> bytes:
        update[:] = 1e6
        return bytes(count)

    assert encoding.encode_users([update], seed=SEED, rng=grown).tolist() == [0] * 10
    switch_off(monkeypatch, Encoding, "_round", "norm_squared <= longest", "True")
    update[:] = 0
    values = encoding.encode_users([update], seed=SEED, rng=grown)
    assert norm_squared(values) > encoding.sensitivity().l2_squared


# Whole numbers as they are.


@given(data=st.data(), length=st.integers(1, 9), bits=st.integers(2, 20), weight=st.sampled_from([1, 5]))
def test_exact_integers_arrive_as_they_are_or_not_at_all(
    data: st.DataObject, length: int, bits: int, weight: int
) -> None:
    numbers = st.integers(-(1 << (bits - 1)), 1 << (bits - 1))
    vector = data.draw(st.lists(numbers, min_size=length, max_size=length))
    bound = data.draw(st.integers(1, 2 * sum(x * x for x in vector) + 1))
    encoding = Encoding.integers(length, bits, weight_bound=weight, l2_squared=bound)
    fits = sum(x * x for x in vector) <= bound and max(map(abs, vector)) <= encoding.largest
    for given_ in (vector, np.array(vector, np.float32), np.array(vector, np.int64)):
        values = encode(encoding, given_, weight=weight, rng=no_words)
        assert values[:length].tolist() == ([weight * x for x in vector] if fits else [0] * length)
        assert encoding.decode(values, count=1, seed=SEED).vector.tolist() == values[:length].tolist()


@pytest.mark.parametrize("bound", [1, 2, 3, 5, 7, 100, 10**6 + 3])
def test_the_squared_norm_of_what_is_exact_is_exactly_bounded(bound: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The root of 3 as a double is too small, that of 2 too large; one number more is too long."""
    encoding = Encoding.integers(bound + 1, bits=2, l2_squared=bound)
    assert encoding.sensitivity() == Sensitivity(bound, bound)
    ones = np.ones(bound + 1)
    assert not encode(encoding, ones, rng=no_words).any()
    ones[0] = 0
    assert np.array_equal(encode(encoding, ones, rng=no_words), ones)
    ones[0] = 1
    switch_off(monkeypatch, Encoding, "_round", "norm_squared <= longest", "True")
    assert norm_squared(encode(encoding, ones, rng=no_words)) > bound


@pytest.mark.parametrize("wrong", [0.5, 1 + 2**-52, 128.0, -128.0, 1e300, 2.0**63, 5e-324])
def test_what_is_no_whole_number_on_the_grid_makes_an_exact_vector_zero(
    wrong: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoding = replace(Encoding.integers(3, bits=8), users=2)
    assert not encode(replace(encoding, users=0), [1.0, wrong, 0.0], rng=no_words).any()
    assert encoding.encode_users([[1.0, wrong, 0.0], [1, 2, 3]], seed=SEED, rng=no_words).tolist() == [1, 2, 3]
    long = Encoding.integers(rounding.PART + 1, bits=8)  # of two parts, the first of which is the wrong one
    assert not encode(long, [wrong, *[0.0] * rounding.PART], rng=no_words).any()
    switch_off(monkeypatch, Encoding, "_copied", "norm_squared if exact else math.inf", "norm_squared")
    assert encoding.encode_users([[1.0, wrong, 0.0]], seed=SEED, rng=no_words)[0] == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_no_number_is_refused_where_nothing_is_rounded_too(bad: float) -> None:
    with pytest.raises(UsageError, match="NaN or infinite"):
        encode(Encoding.integers(2), [1.0, bad], rng=no_words)


def test_halves_are_exact_on_a_grid_of_halves_and_quarters_are_not() -> None:
    encoding = Encoding(2, clip_l2=2.5, bits=8, clip_inf=63.5, rounding=Rounding.EXACT)
    assert (encoding.scale, encoding.sensitivity().l2_squared) == (2.0, 25)
    assert encode(encoding, [1.5, -2.0], rng=no_words).tolist() == [3, -4]
    for long in ([1.5, -2.25], [2.0, -2.0]):
        assert not encode(encoding, long, rng=no_words).any()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"rotate": True}, "neither rotated"),
        ({"beta": Fraction(1, 2)}, "no beta"),
        ({"clip_l2": 0.999}, "below one step"),
    ],
)
def test_what_is_exact_has_no_rotation_and_no_lots_and_room_for_a_step(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        replace(Encoding.integers(4), **fields)
    encoding = Encoding(4, **{"clip_l2": 2.0, "bits": 8, "clip_inf": 127.0, **fields})
    with pytest.raises(DecodeError, match=said):
        ENCODING.decode(ENCODING.encode(encoding).replace(b"\0\0\0\x0astochastic", b"\0\0\0\x05exact"))


def test_a_squared_norm_is_not_negative() -> None:
    with pytest.raises(UsageError, match="squared norm"):
        Encoding.integers(4, l2_squared=-1)


def test_integers_of_so_many_bits_are_as_long_as_they_can_be_if_nothing_else_is_said() -> None:
    encoding = Encoding.integers(3, bits=4)
    assert encoding.sensitivity().l2_squared == 3 * 7**2
    assert encode(encoding, [7, -7, 7], rng=no_words).tolist() == [7, -7, 7]
    assert Encoding.integers(3, bits=4, l2_squared=50).sensitivity().l2_squared == 50
