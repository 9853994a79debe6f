"""Packed sharing: t of n give the sum, f say nothing, t - 1 leave something open, wrong shares show."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.crypto.field import PRIME
from secagg.crypto.packed import Sharing
from secagg.crypto.prg import Prg
from secagg.errors import DecodeError, PeerError, UsageError
from tests.controls import switch_off
from tests.reference import packed as reference

seeds = st.binary(min_size=32, max_size=32)
LARGEST = (PRIME >> 2) - 1

bounds = st.integers(1, 3) | st.integers(1, 1 << 14) | st.integers(1, LARGEST) | st.just(LARGEST)
sharings = st.builds(Sharing, st.integers(1, 40), bounds, st.integers(1, 5), st.integers(1, 4))


@st.composite
def dealings(draw: st.DrawFn) -> tuple[Sharing, np.ndarray, np.ndarray]:
    """A sharing, a vector that uses the whole range, and shares of it for the threshold or a few holders more."""
    sharing = draw(sharings)
    value = st.integers(-sharing.bound, sharing.bound) | st.sampled_from([-sharing.bound, sharing.bound])
    vector = np.array(draw(st.lists(value, min_size=sharing.length, max_size=sharing.length)), np.int64)
    holders = sharing.threshold + draw(st.integers(0, 5))
    return sharing, vector, sharing.split(vector, holders, Prg(draw(seeds)))


Dealing = tuple[Sharing, np.ndarray, np.ndarray]


# What shares give.


@given(dealt=dealings(), data=st.data())
def test_any_threshold_of_them_give_the_vector(dealt: Dealing, data: st.DataObject) -> None:
    """In any order, and with more of them."""
    sharing, vector, shares = dealt
    order = data.draw(st.permutations(range(len(shares))))
    chosen = order[: data.draw(st.integers(sharing.threshold, len(shares)))]
    assert sharing.rebuild([i + 1 for i in chosen], shares[chosen]).tolist() == vector.tolist()


@given(dealt=dealings())
def test_shares_are_the_reference_polynomial(dealt: Dealing) -> None:
    sharing, vector, shares = dealt
    secrets = reference.elements(vector.tolist(), sharing.bound, sharing.packing)
    assert sharing.digits == reference.digits_of(sharing.bound)
    assert shares.shape == (len(shares), sharing.polynomials) == (len(shares), len(secrets[0]))
    for j in range(sharing.polynomials):
        random = shares[: sharing.private, j].tolist()
        expected = [reference.share([row[j] for row in secrets], random, i + 1) for i in range(len(shares))]
        assert shares[:, j].tolist() == expected


@given(sharing=sharings, count=st.integers(1, 20), data=st.data())
def test_shares_of_a_sum_are_sums_of_shares(sharing: Sharing, count: int, data: st.DataObject) -> None:
    """Sums reach the bound, both ways."""
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 32)))
    least, rest = -(sharing.bound // count), sharing.bound // count
    vectors = [rng.integers(least, rest, sharing.length, endpoint=True) for _ in range(count)]
    vectors[0][:] = np.sign(vectors[0]) * (sharing.bound - (count - 1) * rest)
    holders = list(range(1, sharing.threshold + 2))
    dealt = [sharing.split(v, len(holders), Prg(i.to_bytes(32, "big"))) for i, v in enumerate(vectors)]
    totals = np.stack([sharing.total([shares[i] for shares in dealt]) for i in range(len(holders))])
    expected = np.sum(vectors, axis=0)
    assert sharing.rebuild(holders, totals).tolist() == expected.tolist()
    assert sharing.rebuild(holders[:0:-1], totals[:0:-1]).tolist() == expected.tolist()


def test_many_shares_are_added_exactly() -> None:
    """2000 shares at their largest: well beyond 32 bits."""
    sharing = Sharing(length=3, bound=1, packing=1, private=1)
    share = np.full(sharing.polynomials, PRIME - 1, np.uint32)
    assert sharing.total([share] * 2000).tolist() == [-2000 % PRIME] * sharing.polynomials


@given(dealt=dealings(), cut=st.integers(1, 8))
def test_a_share_on_the_wire(dealt: Dealing, cut: int) -> None:
    sharing, _, shares = dealt
    data = shares[0].tobytes()
    assert len(data) == sharing.share_bytes
    assert sharing.unpack(data).tolist() == shares[0].tolist()
    for wrong in (data[:-cut], data + bytes(cut)):
        with pytest.raises(DecodeError, match="are not a share"):
            sharing.unpack(wrong)


@pytest.mark.parametrize("value", [PRIME, PRIME + 1, 2**32 - 1])
def test_a_share_that_is_not_reduced_is_refused(value: int) -> None:
    sharing = Sharing(length=20, bound=LARGEST, packing=4, private=1)
    share = np.zeros(5, "<u4")
    share[3] = PRIME - 1
    assert sharing.unpack(share.tobytes()).tolist() == share.tolist()
    share[3] = value
    with pytest.raises(DecodeError, match="not reduced"):
        sharing.unpack(share.tobytes())


# What shares do not give.

SMALL = [(1, 1, 3), (1, 3, 6), (2, 1, 4), (2, 2, 6), (3, 2, 7), (1, 4, 7), (4, 3, 9)]
small = pytest.mark.parametrize(("packing", "private", "holders"), SMALL)


def one_polynomial(packing: int, private: int, bound: int = LARGEST) -> Sharing:
    return Sharing(packing * reference.digits_of(bound), bound, packing, private)


def dealt(sharing: Sharing, vector: list[int], random: list[int], holders: int) -> list[int]:
    """The shares of one polynomial, with these numbers for the random ones."""
    raw = np.array(random, "<u4").tobytes()

    def rng(count: int) -> bytes:
        assert count == len(raw)
        return raw

    return sharing.split(np.array(vector), holders, rng)[:, 0].tolist()


def randomness(sharing: Sharing, holders: int) -> list[list[int]]:
    """[i][k]: what the k-th random number adds to holder i's share."""
    unit = np.eye(sharing.private, dtype=int).tolist()
    nothing = [0] * sharing.length
    return [list(row) for row in zip(*[dealt(sharing, nothing, one, holders) for one in unit], strict=True)]


@small
def test_any_private_shares_are_uniform_whatever_the_vector(packing: int, private: int, holders: int) -> None:
    """Exactly: shares are B r plus what the vector adds, and B is one to one on every ``private`` of the holders."""
    sharing, rng = one_polynomial(packing, private), np.random.default_rng(1)
    matrix = randomness(sharing, holders)
    for _ in range(5):
        vector = rng.integers(-LARGEST, LARGEST, sharing.length).tolist()
        random = rng.integers(0, PRIME, private).tolist()
        fixed = dealt(sharing, vector, [0] * private, holders)
        added = [sum(b * r for b, r in zip(row, random, strict=True)) for row in matrix]
        whole = [(a + b) % PRIME for a, b in zip(fixed, added, strict=True)]
        assert dealt(sharing, vector, random, holders) == whole
    for some in combinations(matrix, private):
        assert reference.rank(some) == private


@small
def test_with_one_random_number_fewer_they_are_not(packing: int, private: int, holders: int) -> None:
    """The control: then some combination of any ``private`` holders' shares depends on the vector alone."""
    sharing = one_polynomial(packing, private)
    matrix = [row[:-1] for row in randomness(sharing, holders)]
    if private == 1:
        assert not any(matrix)
        return
    for some in combinations(matrix, private):
        assert reference.rank(some) < private


@small
def test_one_share_less_than_the_threshold_leaves_the_vector_open(packing: int, private: int, holders: int) -> None:
    """Two vectors and randomness for each, so that the same t - 1 holders, any of them, get the same shares."""
    sharing, rng = one_polynomial(packing, private), np.random.default_rng(2)
    vector, random = rng.integers(-LARGEST, LARGEST, sharing.length).tolist(), rng.integers(0, PRIME, private).tolist()
    shares = dealt(sharing, vector, random, holders)
    everybody = list(range(1, holders + 1))
    for some in combinations(everybody, sharing.threshold - 1):
        other, forged = another(sharing, shares, some)
        assert other != vector
        assert [forged[i - 1] for i in some] == [shares[i - 1] for i in some]
        assert dealt(sharing, other, forged[:private], holders) == forged


def another(sharing: Sharing, shares: list[int], some: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """Add multiples of the polynomial that vanishes at ``some`` until all secrets are in range again."""
    vanishing = [1] * len(shares)
    for i in some:
        vanishing = [v * (x - i) % PRIME for x, v in enumerate(vanishing, 1)]
    holders = list(range(1, sharing.threshold + 1))
    for c in range(1, 1000):
        forged = [(s + c * v) % PRIME for s, v in zip(shares, vanishing, strict=True)]
        rows = np.array(forged, np.uint32)[: len(holders), None]
        try:
            return sharing.rebuild(holders, rows).tolist(), forged
        except PeerError:
            continue
    raise AssertionError("no other vector was found")


def test_shares_are_uniform_to_the_eye() -> None:
    """Top bits of 4000 elements; chi-square with 15 degrees above 66 has probability 2.3e-8, and the seed is fixed."""
    sharing = Sharing(length=4000, bound=LARGEST, packing=1, private=2)
    for vector in (np.zeros(4000, np.int64), np.full(4000, LARGEST)):
        shares = sharing.split(vector, 5, Prg(b"u" * 32))
        for share in (shares[0], shares[1], shares[4]):
            counts = np.bincount(share >> 27, minlength=16)
            assert float(((counts - 250) ** 2 / 250).sum()) < 66
        biased = np.minimum(shares[0] >> 27, 14)  # the control
        counts = np.bincount(biased, minlength=16)
        assert float(((counts - 250) ** 2 / 250).sum()) > 66


# Wrong shares.


@st.composite
def tampered(draw: st.DrawFn) -> tuple[Sharing, np.ndarray, list[int], np.ndarray, list[int]]:
    """As many wrong shares as can be found, or fewer."""
    sharing, vector, shares = draw(dealings())
    holders = draw(st.permutations(range(1, len(shares) + 1)))
    rows = shares[[i - 1 for i in holders]]
    most = (len(rows) - sharing.threshold) // 2
    wrong = sorted(draw(st.sets(st.integers(0, len(rows) - 1), max_size=most)))
    for i in wrong:
        j, shift = draw(st.integers(0, sharing.polynomials - 1)), draw(st.integers(1, PRIME - 1))
        rows[i, j] = (int(rows[i, j]) + shift) % PRIME
    return sharing, vector, list(holders), rows, wrong


@given(dealt=tampered(), seed=seeds)
def test_up_to_half_of_the_spare_shares_may_be_wrong_and_are_found(
    dealt: tuple[Sharing, np.ndarray, list[int], np.ndarray, list[int]], seed: bytes
) -> None:
    """A wrong share escapes with probability 2^-31; the seeds are fixed. What is left gives the vector."""
    sharing, vector, holders, rows, wrong = dealt
    assert sharing.wrong(holders, rows, Prg(seed)) == wrong
    good = [i for i in range(len(rows)) if i not in wrong]
    assert sharing.rebuild([holders[i] for i in good], rows[good]).tolist() == vector.tolist()


def lied_to(extra: int) -> tuple[Sharing, np.ndarray, list[int], np.ndarray]:
    """50 polynomials, the second of the holders is wrong in one or (without a surplus) in all of them."""
    sharing = Sharing(length=200, bound=LARGEST, packing=4, private=2)
    vector = np.random.default_rng(3).integers(-LARGEST, LARGEST, 200)
    shares = sharing.split(vector, sharing.threshold + extra, Prg(b"l" * 32))
    shares[1, : 1 if extra else 50] ^= 1 << 29
    return sharing, vector, list(range(1, len(shares) + 1)), shares


def test_a_share_off_the_polynomial_is_refused_where_there_are_more_than_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sharing, vector, holders, shares = lied_to(extra=1)
    with pytest.raises(PeerError, match="do not lie on one polynomial"):
        sharing.rebuild(holders, shares)
    switch_off(monkeypatch, Sharing, "rebuild", "(values[self.packing :] != given[t:]).any()")
    switch_off(monkeypatch, Sharing, "_integers", "int(rest.max()) >= base**self.digits")
    assert sharing.rebuild(holders, shares).tolist() != vector.tolist()


def test_a_wrong_sum_is_out_of_range(monkeypatch: pytest.MonkeyPatch) -> None:
    """All 200 elements would have to be in half of the field by chance: 2^-200."""
    sharing, vector, holders, shares = lied_to(extra=0)
    with pytest.raises(PeerError, match="out of range"):
        sharing.rebuild(holders, shares)
    switch_off(monkeypatch, Sharing, "_integers", "int(rest.max()) >= base**self.digits")
    assert sharing.rebuild(holders, shares).tolist() != vector.tolist()


def test_a_random_element_is_in_range_with_probability_below_one_half() -> None:
    for bound in (1, 2, 3, 100, 1490, 1 << 14, 1 << 20, LARGEST):
        sharing = Sharing(length=1, bound=bound, packing=1, private=1)
        assert 2 * (2 * bound + 1) ** sharing.digits <= PRIME < 2 * (2 * bound + 1) ** (sharing.digits + 1)


@pytest.mark.parametrize("sign", [1, -1])
def test_sums_beyond_the_bound_show_in_the_highest_digit(sign: int) -> None:
    sharing = Sharing(length=5, bound=LARGEST, packing=2, private=1)
    shares = sharing.split(np.full(5, sign * LARGEST), 4, Prg(bytes(32)))
    twice = np.stack([sharing.total([share, share]) for share in shares])
    with pytest.raises(PeerError, match="out of range"):
        sharing.rebuild([1, 2, 3, 4], twice)


# Wrong use.


@pytest.mark.parametrize(
    ("length", "bound", "packing", "private"),
    [(0, 1, 1, 1), (1, 0, 1, 1), (1, -1, 1, 1), (1, PRIME >> 2, 1, 1), (1, 1, 0, 1), (1, 1, 1, 0), (-1, 1, 1, 1)],
)
def test_sharings_that_cannot_be(length: int, bound: int, packing: int, private: int) -> None:
    with pytest.raises(UsageError):
        Sharing(length, bound, packing, private)


SHARING = Sharing(length=4, bound=9, packing=2, private=1)


@pytest.mark.parametrize(
    ("values", "holders"),
    [([1, 2, 3], 3), ([1, 2, 3, 4, 5], 3), ([1, 2, 3, 10], 3), ([1, 2, 3, -10], 3), ([1, 2, 3, 4], 2)],
)
def test_vectors_that_do_not_fit_and_too_few_holders(values: list[int], holders: int) -> None:
    with pytest.raises(UsageError):
        SHARING.split(np.array(values), holders, Prg(bytes(32)))


def test_too_few_shares_and_shares_of_another_size() -> None:
    shares = SHARING.split(np.arange(4), 4, Prg(bytes(32)))
    for holders, rows in (([1, 2], shares[:2]), ([1, 2, 3], shares), ([1, 2, 3], shares[:3, :0])):
        with pytest.raises(UsageError, match="another size"):
            SHARING.rebuild(holders, rows)


def test_the_most_negative_integer_is_out_of_bounds() -> None:
    with pytest.raises(UsageError):
        Sharing(1, 10, 1, 1).split(np.array([-(1 << 63)]), 2, Prg(bytes(32)))


@pytest.mark.parametrize("holders", [[1, 1], [0, 1], [2, 2]])
def test_holders_are_distinct_and_not_zero(holders: list[int]) -> None:
    sharing = Sharing(1, 10, 1, 1)
    with pytest.raises(UsageError, match="twice, or is none"):
        sharing.rebuild(holders, np.zeros((2, 1), np.uint32))
