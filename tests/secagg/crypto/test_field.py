"""GF(2^31 - 1) in 64-bit words against Python integers."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from secagg.crypto.field import PRIME, dot, invert, matmul, multiply, powers, reduce, uniform
from secagg.crypto.prg import Prg
from tests.reference.shamir import P

corners = st.sampled_from([0, 1, 2, PRIME - 2, PRIME - 1])
elements = corners | st.integers(0, PRIME - 1)
rows = st.lists(elements, min_size=1, max_size=20)


@given(words=st.lists(st.integers(0, 2**63 - 1) | st.sampled_from([PRIME, 2 * PRIME, 2**62, 2**63 - 1]), min_size=1))
def test_reduce(words: list[int]) -> None:
    assert reduce(np.array(words, np.uint64)).tolist() == [word % P for word in words]


@given(left=rows, right=rows)
def test_products(left: list[int], right: list[int]) -> None:
    table = multiply(np.array(left, np.uint64)[:, None], np.array(right, np.uint64))
    assert table.tolist() == [[a * b % P for b in right] for a in left]


@given(values=rows)
def test_inverses(values: list[int]) -> None:
    expected = [pow(value, -1, P) if value else 0 for value in values]
    assert invert(np.array(values, np.uint64)).tolist() == expected


@given(shape=st.tuples(st.integers(1, 4), st.integers(1, 70), st.integers(1, 4)), seed=st.integers(0, 2**32))
def test_dot(shape: tuple[int, int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights, y = (rng.choice([0, 1, PRIME - 1, rng.integers(PRIME)], size) for size in (shape[:2], shape))
    expected = [
        [sum(int(w) * int(v) for w, v in zip(own, column, strict=True)) % P for column in table.T]
        for own, table in zip(weights, y, strict=True)
    ]
    assert dot(weights.astype(np.uint64), y.astype(np.uint32)).tolist() == expected


@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 70), st.integers(1, 4)),
    seed=st.integers(0, 2**32),
    fill=st.sampled_from([0, PRIME - 1, None]),
)
def test_matrices(shape: tuple[int, int, int], seed: int, fill: int | None) -> None:
    rng, (rows, inner, columns) = np.random.default_rng(seed), shape
    left, right = rng.integers(PRIME, size=(rows, inner)), rng.integers(PRIME, size=(inner, columns))
    if fill is not None:
        left[rng.random(left.shape) < 0.9] = right[rng.random(right.shape) < 0.9] = fill
    expected = [
        [sum(int(a) * int(b) for a, b in zip(row, column, strict=True)) % P for column in right.T] for row in left
    ]
    assert matmul(left.astype(np.uint64), right.astype(np.uint64)).tolist() == expected


@given(points=rows, count=st.integers(1, 12))
def test_powers(points: list[int], count: int) -> None:
    assert powers(np.array(points, np.uint64), count).tolist() == [[pow(x, i, P) for i in range(count)] for x in points]


def test_a_word_equal_to_the_prime_is_drawn_again() -> None:
    """Otherwise zero would be twice as likely as any other element."""
    draws = iter([b"\xff" * 8 + bytes(4), b"\xff\xff\xff\x7f" + (7).to_bytes(4, "little"), (5).to_bytes(4, "little")])
    assert uniform((3, 1), lambda count: next(draws)).tolist() == [[5], [7], [0]]
    assert next(draws, None) is None


def test_uniform_elements_are_uniform() -> None:
    """Thirds of 30000: off by more than 500 (6 sigma) with probability below 1e-8; bytes are fixed by the seed."""
    drawn = uniform((30000,), Prg(b"f" * 32))
    counts = np.bincount((drawn * np.uint64(3) // np.uint64(PRIME)).astype(int), minlength=3)
    assert abs(counts - 10000).max() < 500
    skewed = np.bincount(((drawn & drawn >> np.uint64(1)) * np.uint64(3) // np.uint64(PRIME)).astype(int), minlength=3)
    assert abs(skewed - 10000).max() > 500


def test_a_sum_of_more_products_than_fit_into_a_word() -> None:
    """Of -1 times -1, so many times. Control: the low halves alone are beyond 64 bits."""
    terms = 1 << 18
    ones = np.full((1, terms), PRIME - 1, np.uint64)
    assert matmul(ones, ones.T).tolist() == [[terms]]
    assert ((PRIME - 1) & 0xFFFF) * (PRIME - 1) * terms >= 1 << 64
