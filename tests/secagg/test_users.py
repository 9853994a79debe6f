"""Users inside silos: whatever one user's floats are, the integers that a silo hands over move by a bounded norm.

The invariant: take two sets of users that differ in one user's vector, which is zero in the other. Then the silos' sums
of integers differ by at most ``sensitivity``, exactly, in both norms, for all random words; also if that user is in as
many silos as ``overlap`` says. What breaks one vector breaks no other one, and no refusal depends on what is in one.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.crypto.prg import Prg, Rng
from secagg.encoding import ENCODING, Encoding, Rounding, Sensitivity
from secagg.errors import DecodeError, UsageError
from tests.controls import switch_off

DRAWN = [Rounding.STOCHASTIC, Rounding.NEAREST]
SEED = b"public rotation seed, 32 bytes.."


def words(byte: int) -> Rng:
    """The same random words for everybody, so that one user's vector alone decides about that user's integers."""
    return lambda count: bytes([byte]) * count


def no_words(count: int) -> bytes:
    raise AssertionError("nothing is drawn")


ALWAYS_UP, NEVER_UP = words(0), words(255)
rngs = st.sampled_from([ALWAYS_UP, NEVER_UP, words(0x80), words(0x7F)])
EDGES = [
    *(0.0, -0.0, 5e-324, -5e-324, 2.2e-308, 1e308, -1e308, 1.7976931348623157e308, math.nan, math.inf, -math.inf),
    *(0.5, -0.5, 1.5, 2.5, 1.0, -1.0, 1 / 3, 1 - 2**-53, 2.0**31, 2.0**63, -(2.0**63), 1e-160, 1e160, 0.1 + 0.2),
]
floats = st.one_of(st.floats(), st.floats(-1, 1), st.sampled_from(EDGES))


def of_users(encoding: Encoding, vectors: Any, rng: Rng = ALWAYS_UP) -> np.ndarray:
    return encoding.encode_users(vectors, seed=SEED, rng=rng)


def norms(values: np.ndarray) -> Sensitivity:
    exact = [int(value) for value in values]
    return Sensitivity(sum(map(abs, exact)), sum(value * value for value in exact))


def within(values: np.ndarray, bound: Sensitivity) -> bool:
    found = norms(values)
    return found.l1 <= bound.l1 and found.l2_squared <= bound.l2_squared


@st.composite
def silos(draw: st.DrawFn) -> Encoding:
    """Encodings of both roundings; those to the nearest have grids that are just fine enough, and finer ones."""
    length, rotate = draw(st.integers(1, 9)), draw(st.booleans())
    width = 1 << (length - 1).bit_length() if rotate else length
    clip, overlap, users = draw(st.floats(1e-6, 1e6)), draw(st.integers(1, 4)), draw(st.sampled_from([1, 3, 2**31 - 1]))
    if draw(st.booleans()):
        beta = draw(st.sampled_from([Fraction(0), Fraction(1, 2)]))
        bits = draw(st.integers(2, 32))
        return Encoding(length, clip, bits, rotate, beta=beta, users=users, overlap=overlap)
    most = draw(st.integers(math.ceil(100 * math.sqrt(width)).bit_length() + 1, 32))
    return Encoding(length, clip, most, rotate, clip, users=users, overlap=overlap, rounding=Rounding.NEAREST)


# What one user moves.


@settings(max_examples=60)
@given(data=st.data(), encoding=silos(), rng=rngs)
def test_one_user_moves_the_sum_by_no_more_than_the_sensitivity(
    data: st.DataObject, encoding: Encoding, rng: Rng
) -> None:
    """In each of ``overlap`` silos this user has another vector, and other users beside it."""
    vectors = st.lists(floats, min_size=encoding.length, max_size=encoding.length)
    moved = np.zeros(encoding.coordinates, np.int64)
    for _ in range(encoding.overlap):
        others = data.draw(st.lists(vectors, max_size=min(encoding.users, 3) - 1))
        place = data.draw(st.integers(0, len(others)))
        own, zero = data.draw(vectors), [0.0] * encoding.length
        with_own, without = ([*others[:place], one, *others[place:]] for one in (own, zero))
        moved += of_users(encoding, with_own, rng) - of_users(encoding, without, rng)
        assert within(of_users(encoding, [own], rng), replace(encoding, overlap=1).sensitivity())
    assert within(moved, encoding.sensitivity())


@pytest.mark.parametrize("rotate", [False, True])
@pytest.mark.parametrize("rounding", DRAWN)
def test_by_brute_force_in_two_dimensions(rounding: Rounding, rotate: bool) -> None:
    """All that two coordinates can become, with words that round all up or all down; and all pairs of these, for a
    person in two silos."""
    bits = 9 if rounding is Rounding.NEAREST else 3
    encoding = Encoding(2, 1.0, bits, rotate, 1.0, users=1, rounding=rounding)
    steps = (0.5, 1.0, 1.5, 2.5, encoding.largest - 0.5, encoding.largest + 0.5)
    grid = [*EDGES[:10], *[sign * step / encoding.scale for sign in (1, -1) for step in steps]]
    found = np.array([
        of_users(encoding, [vector], rng) for vector in product(grid, repeat=2) for rng in (ALWAYS_UP, NEVER_UP)
    ])  # fmt: skip
    found = np.unique(found, axis=0)
    assert len(found) > 20
    for overlap, moves in ((1, found), (2, (found[:, None] + found).reshape(-1, 2))):
        bound = replace(encoding, overlap=overlap).sensitivity()
        assert np.square(moves).sum(axis=1).max() <= bound.l2_squared
        assert np.abs(moves).sum(axis=1).max() <= bound.l1


def test_a_person_in_two_silos_counts_four_times_and_not_twice() -> None:
    """Its two parts of one sum add up before they are squared: twice the squared norm is exceeded."""
    encoding = Encoding(1, 1.0, bits=8, users=5, overlap=2)
    moved = of_users(encoding, [[9.0]]) + of_users(encoding, [[3.0]])
    once = replace(encoding, overlap=1).sensitivity()
    assert norms(moved).l2_squared == 4 * 127**2 > 2 * once.l2_squared
    assert encoding.sensitivity() == Sensitivity(2 * once.l1, 4 * once.l2_squared)


def test_a_vector_that_is_not_clipped_counts_as_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should clipping be wrong, whatever the reason, then the integers are measured: those that are too many are not
    added. With that switched off, too, they are."""
    for rounding in DRAWN:
        encoding = Encoding(4, 1.0, bits=10, clip_inf=1.0, users=3, rounding=rounding)
        with monkeypatch.context() as patched:
            patched.setattr(Encoding, "_clipped", lambda self, vector: (vector, 1.0))
            long, short = [9.0] * 4, [0.25] * 4
            assert of_users(encoding, [long, short]).tolist() == of_users(encoding, [short]).tolist() != [0] * 4
            switch_off(patched, Encoding, "_round", "norm_squared <= longest", "True")
            assert not within(of_users(encoding, [long, short]), encoding.sensitivity())


class Changing:
    """A vector, and random words that write into it when they are drawn: after it was measured."""

    def __init__(self, to: float) -> None:
        self.vector, self.to = np.full(4, 0.25), to

    def words(self, count: int) -> bytes:
        self.vector[:] = self.to
        return bytes(count)


@pytest.mark.parametrize("to", [1e308, -1e308, math.nan, math.inf, 1.0])
def test_a_vector_that_changes_while_it_is_read_moves_no_more(to: float, monkeypatch: pytest.MonkeyPatch) -> None:
    encoding = Encoding(4, 1.0, bits=10, clip_inf=1.0, users=3)
    changing = Changing(to)
    values = of_users(encoding, [changing.vector, [0.25] * 4], changing.words)
    assert within(values - of_users(encoding, [[0.25] * 4]), encoding.sensitivity())
    switch_off(monkeypatch, Encoding, "_round", "norm_squared <= longest", "True")
    changing = Changing(to)
    values = of_users(encoding, [changing.vector], changing.words)
    assert not within(values, encoding.sensitivity())


def test_a_silo_does_not_clip_its_sum() -> None:
    """Ten users pull in one direction, ten times as far as one; an enormous eleventh pulls no further than each."""
    encoding = Encoding(2, 1.0, bits=20, users=11)
    decoded = [
        encoding.decode(of_users(encoding, vectors), count=1, seed=SEED).vector
        for vectors in ([[3.0, 4.0]] * 10, [[3.0, 4.0]] * 10 + [[-3e300, -4e300]])
    ]
    assert np.abs(decoded[0] - [6.0, 8.0]).max() < 1e-4
    assert np.abs(decoded[1] - [5.4, 7.2]).max() < 1e-4


# What is refused, and what counts as zero.


class Watched:
    """Users' vectors that say how often they were counted and read."""

    def __init__(self, said: int, given: int) -> None:
        self.said, self.given, self.read, self.counted = said, given, 0, 0

    def __len__(self) -> int:
        self.counted += 1
        return self.said + 100 * (self.counted - 1)  # another number each time it is asked

    def __iter__(self) -> Iterator[np.ndarray]:
        for _ in range(self.given):
            self.read += 1
            yield np.ones(2)


def test_more_users_than_the_cap_are_refused_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    encoding = Encoding(2, 1.0, users=5)
    for count in (6, 7, 10**6):
        many = Watched(count, count)
        with pytest.raises(UsageError) as caught:
            of_users(encoding, many)
        assert (many.read, str(caught.value)) == (0, "a silo has at most 5 users, this one has more")
    assert (of_users(encoding, Watched(5, 5)) > 0).all()
    switch_off(
        monkeypatch, Encoding, "encode_users", "(count := len(vectors)) > self.users", "(count := len(vectors)) < 0"
    )
    many = Watched(60, 60)
    of_users(encoding, many)
    assert many.read == 60


def test_a_collection_that_has_more_than_it_says_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    encoding = Encoding(2, 1.0, users=5)
    lying, honest = Watched(3, 50), Watched(3, 3)
    assert of_users(encoding, lying).tolist() == of_users(encoding, honest).tolist()
    assert (lying.read, lying.counted) == (3, 1)
    assert of_users(encoding, Watched(3, 2)).tolist() == of_users(encoding, Watched(2, 2)).tolist()  # fewer
    switch_off(monkeypatch, Encoding, "_tossed", "zip(coins.tolist(), vectors, strict=False)", "enumerate(vectors)")
    total = of_users(encoding, Watched(3, 50))
    assert int(total.max()) > 5 * encoding.largest // 2  # more than all that the ring was made for could add up to
    assert not within(total, replace(encoding, overlap=5).sensitivity())


SPOILED: list[Any] = [
    [math.nan, 0.0], [0.0, math.inf], [-math.inf, math.nan], [1.0], [1.0, 2.0, 3.0], [[1.0, 2.0]], 7.0, "ab", None,
    [[1.0], [1.0, 2.0]], [10**400, 0], {1: 2}, [], np.zeros((2, 1)), print,
]  # fmt: skip


@pytest.mark.parametrize("rounding", DRAWN)
@pytest.mark.parametrize("spoiled", SPOILED, ids=str)
def test_whatever_is_wrong_with_a_users_vector_it_counts_as_zero(spoiled: Any, rounding: Rounding) -> None:
    encoding = Encoding(2, 1.0, bits=10, users=3, rounding=rounding)
    others = [[0.5, -0.25], [30.0, 40.0]]
    with_spoiled = of_users(encoding, [others[0], spoiled, others[1]])
    assert with_spoiled.tolist() == of_users(encoding, others).tolist() != [0, 0]
    assert of_users(encoding, [spoiled]).tolist() == [0, 0]


def test_rows_of_another_length_are_the_silos_own_mistake() -> None:
    """That follows from nobody's data, and is known before any is read."""
    encoding = Encoding(2, 1.0, users=5)
    for rows in (np.zeros((3, 1)), np.zeros((3, 3)), np.zeros(2), np.zeros((3, 2, 1))):
        with pytest.raises(UsageError, match="rows of 2 numbers"):
            of_users(encoding, rows)
    assert of_users(encoding, np.zeros((0, 2))).tolist() == of_users(encoding, []).tolist() == [0, 0]
    with pytest.raises(UsageError, match="no silos"):
        of_users(Encoding(2, 1.0), [])


@pytest.mark.parametrize("rotate", [False, True])
@pytest.mark.parametrize("rounding", DRAWN)
@pytest.mark.parametrize("zero", [0.0, -0.0])
@pytest.mark.parametrize("rng", [ALWAYS_UP, NEVER_UP])
def test_zero_is_zero(zero: float, rounding: Rounding, rotate: bool, rng: Rng) -> None:
    encoding = Encoding(5, 1.0, bits=20, rotate=rotate, users=3, rounding=rounding)
    assert not of_users(encoding, [[zero] * 5] * 3, rng).any()
    assert not encoding.encode([zero] * 5, weight=1, seed=SEED, rng=rng).any()


# Rounding to the nearest integer.


@given(data=st.data(), rotate=st.booleans(), length=st.integers(1, 33))
def test_to_the_nearest_each_coordinate_moves_by_half_a_step_and_nothing_is_drawn(
    data: st.DataObject, rotate: bool, length: int
) -> None:
    vector = np.array(data.draw(st.lists(st.floats(-1, 1), min_size=length, max_size=length)))
    encoding = Encoding(length, 2.0 * math.sqrt(length), 20, rotate, 2.0 * length, users=2, rounding=Rounding.NEAREST)
    decoded = encoding.decode(of_users(encoding, [vector, -vector], no_words), count=1, seed=SEED).vector
    assert not decoded.any()
    values = of_users(encoding, [vector], no_words)
    if not rotate:
        assert np.abs(values - vector * encoding.scale).max() <= 0.5
    error = encoding.decode(values, count=1, seed=SEED).vector - vector
    assert np.linalg.norm(error) <= (0.5 + 1e-6) * math.sqrt(encoding.coordinates) / encoding.scale


def test_ties_go_to_the_even_number() -> None:
    encoding = Encoding(1, 511.0, bits=10, users=5, rounding=Rounding.NEAREST)
    assert [int(of_users(encoding, [[x]], no_words)[0]) for x in (0.5, 1.5, 2.5, -0.5, -1.5)] == [0, 2, 2, 0, -2]


def test_the_norm_grows_by_half_the_root_of_the_width_at_most_and_that_much_it_can() -> None:
    """100 coordinates of 10.5 steps: to the even number they stay at 10, those of 11.5 become 12 each."""
    encoding = Encoding(100, clip_l2=115.0, bits=12, clip_inf=115.0, users=1, rounding=Rounding.NEAREST)
    per_step = 1 / encoding.scale
    longest = replace(encoding, overlap=1).sensitivity().l2_squared
    assert longest == math.floor((encoding.scale * 115 + 5) ** 2)
    odd = math.floor(115 / math.sqrt(100) * encoding.scale)
    odd -= 1 - odd % 2
    values = of_users(encoding, [[(odd + 0.5) * per_step] * 100], no_words)
    assert set(values.tolist()) == {odd + 1}
    assert norms(values).l2_squared <= longest


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"bits": 7}, "100 \\* sqrt\\(4\\) steps"),  # 63 steps
        ({"bits": 8}, "steps"),  # 127
        ({"bits": 16, "clip_inf": 200.0}, "steps"),  # 163
        ({"bits": 16, "beta": Fraction(1, 2)}, "no beta"),
    ],
)
def test_nearest_rounding_wants_a_fine_grid_and_no_lots(
    fields: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nearest() -> Encoding:
        return Encoding(4, 1.0, rounding=Rounding.NEAREST, users=1, **fields)

    with pytest.raises(UsageError, match=said):
        nearest()
    assert Encoding(4, 1.0, bits=9, rounding=Rounding.NEAREST).scale == 255
    sent = ENCODING.encode(Encoding(4, 1.0, users=1, **fields)).replace(b"\0\0\0\x0astochastic", b"\0\0\0\x07nearest")
    with pytest.raises(DecodeError, match=said):
        ENCODING.decode(sent)
    monkeypatch.setattr(Encoding, "_check_grid", lambda self: None)
    assert ENCODING.decode(sent) == nearest()


def test_the_grid_is_just_fine_enough_or_not_exactly() -> None:
    """200 steps are 100 * sqrt(4): compared in exact rationals."""
    largest = (1 << 15) - 1
    exact = Encoding(4, clip_l2=200.0, bits=16, clip_inf=float(largest), rounding=Rounding.NEAREST)
    assert exact.scale == 1.0
    with pytest.raises(UsageError):
        replace(exact, clip_l2=math.nextafter(200.0, 0))


# Rings, and what travels.


@given(n=st.integers(1, 50), users=st.integers(1, 1000), bits=st.integers(2, 20), noise=st.integers(0, 10**6))
def test_the_ring_holds_all_users_of_all_silos(n: int, users: int, bits: int, noise: int) -> None:
    encoding = Encoding(1, 1.0, bits, users=users)
    width = encoding.ring_bits(n, noise)
    largest = n * users * int(of_users(replace(encoding, users=1), [[1e9]], ALWAYS_UP)[0]) + noise
    assert largest <= (1 << (width - 1)) - 1
    assert largest > (1 << (width - 2)) - 1


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"users": -1}, "users"), ({"users": 1 << 31}, "users"), ({"users": 3, "overlap": 0}, "silos"),
        ({"users": 3, "overlap": 1 << 16}, "silos"), ({"overlap": 2}, "only users"),
        ({"users": 3, "weight_bound": 2}, "no weights"), ({"rounding": "up"}, "stochastic, nearest or exact"),
    ],
    ids=str,
)  # fmt: skip
def test_no_such_silos(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Encoding(3, 1.0, **wrong)


@given(encoding=silos())
def test_everything_about_silos_travels(encoding: Encoding) -> None:
    assert ENCODING.decode(ENCODING.encode(encoding)) == encoding


def test_a_silos_sum_does_not_say_how_many_users_there_are() -> None:
    encoding = Encoding(2, 1.0, users=9)
    weights = {encoding.decode(of_users(encoding, [[0.1, 0.2]] * k), count=1, seed=SEED).weight for k in (0, 1, 9)}
    assert weights == {1}


def test_rounding_by_lot_is_drawn_for_each_user_alone() -> None:
    """Halves of 4,000 users: if all went up or down together, the sum would be 0 or 4,000; |z| > 6 has 2e-9."""
    encoding = Encoding(1, 1.0, bits=2, users=4000)
    total = int(of_users(encoding, [[0.5]] * 4000, Prg(b"u" * 32))[0])
    assert abs(total - 2000) < 6 * math.sqrt(1000)


@pytest.mark.parametrize("rounding", DRAWN)
def test_one_user_alone_is_encoded_as_a_device_would_be(rounding: Rounding) -> None:
    encoding = Encoding(7, 1.0, bits=20, rotate=True, users=1, rounding=rounding)
    vector = np.sin(np.arange(7))
    device = encoding.encode(vector, weight=1, seed=SEED, rng=Prg(b"k" * 32))
    assert of_users(encoding, [vector], Prg(b"k" * 32)).tolist() == device.tolist()
