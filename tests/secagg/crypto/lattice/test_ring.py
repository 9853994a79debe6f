"""Polynomials: kinds do not mix, insecure rings cannot be made, bytes are exact and checked."""

from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.crypto.lattice import QuotientRing
from secagg.crypto.lattice.polynomials import _CHUNK, Coefficients, Evaluations, RunningSum
from secagg.crypto.lattice.primes import moduli
from secagg.crypto.lattice.ring import SECURE_BITS
from secagg.crypto.lattice.sampling import uniform
from secagg.errors import DecodeError, UsageError
from tests.controls import switch_off
from tests.reference import packing

RING = QuotientRing(2048, moduli(2048, 54))
THREE = QuotientRing(4096, moduli(4096, 90))


def test_the_standards_table() -> None:
    assert SECURE_BITS == {1024: 27, 2048: 54, 4096: 109, 8192: 218, 16384: 438}


@pytest.mark.parametrize("degree", SECURE_BITS)
def test_the_widest_secure_ring_can_be_made_and_no_wider_one(degree: int) -> None:
    QuotientRing(degree, moduli(degree, SECURE_BITS[degree]))
    with pytest.raises(UsageError, match="at most"):
        QuotientRing(degree, moduli(degree, SECURE_BITS[degree] + 1))


def test_without_that_check_an_insecure_ring_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    switch_off(monkeypatch, QuotientRing, "__post_init__", "self.bits > SECURE_BITS[self.degree]")
    QuotientRing(1024, moduli(1024, 62))


@pytest.mark.parametrize(("degree", "primes", "why"), [
    (512, (12289,), "N is one of"), (3000, (12289,), "N is one of"), (32768, (65537,), "N is one of"),
    (2048, (), "distinct"), (2048, (12289, 12289), "distinct"), (2048, (40961, 12289), "distinct"),
    (2048, (4097,), "not a prime"), (2048, (12281,), "not a prime"), (4096, (12289,), "not a prime"),
    (4096, (2147565569,), "not a prime below"),
])  # fmt: skip
def test_other_rings_are_refused(degree: int, primes: tuple[int, ...], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        QuotientRing(degree, primes)


def test_kinds_rings_and_sizes_do_not_mix() -> None:
    a = uniform(RING, 2, bytes(32))
    other = QuotientRing(2048, moduli(2048, 53))
    for wrong in (a.coefficients(), uniform(other, 2, bytes(32)), uniform(RING, 1, bytes(32))):
        for combine in (lambda x: a + x, lambda x: a - x):
            with pytest.raises(UsageError, match="does not go with"):
                combine(wrong)
    for wrong in (a.coefficients(), uniform(other, 2, bytes(32)), uniform(RING, 3, bytes(32))):
        with pytest.raises(UsageError, match="does not go with"):
            a * wrong
    with pytest.raises(UsageError, match="does not go with"):
        RunningSum(RING, 2).add(a)
    with pytest.raises(UsageError, match="does not go with"):
        RunningSum(RING, 1).add(a.coefficients())
    assert not hasattr(Coefficients, "__mul__")
    assert not hasattr(Evaluations, "pack")


def test_words_are_checked_and_read_only() -> None:
    good = np.zeros((2, 1, 2048), np.uint32)
    for wrong in (good[:1], good[:, 0], good[..., :1024], good[:, :0], good.astype(np.uint64), good[..., ::-1]):
        with pytest.raises(UsageError, match=r"shape|words"):
            Coefficients(RING, wrong)
    for i, q in enumerate(RING.primes):
        words = good.copy()
        words[i, 0, 17] = q
        with pytest.raises(UsageError, match="not reduced"):
            Evaluations(RING, words)
        words[i, 0, 17] = q - 1
        assert Evaluations(RING, words).words[i, 0, 17] == q - 1
    value = Coefficients(RING, good)
    with pytest.raises(ValueError, match="read-only"):
        value.words[0, 0, 0] = 1
    with pytest.raises(FrozenInstanceError):
        value.words = good  # type: ignore[misc]


def test_no_number_shows_in_a_repr() -> None:
    assert repr(uniform(RING, 2, bytes(32))) == "Evaluations(N=2048, primes=2, blocks=2)"


int64s = st.one_of(st.integers(-(2**63), 2**63 - 1), st.sampled_from([-(2**63), 2**63 - 1, -1, 0]))


@given(
    columns=st.lists(st.lists(int64s, max_size=40), min_size=1, max_size=4),
    weights=st.lists(st.integers(-(2**450), 2**450), min_size=4, max_size=4),
)
def test_lifted_columns_are_their_weighted_sum(columns: list[list[int]], weights: list[int]) -> None:
    arrays, used = [np.array(column, np.int64) for column in columns], weights[: len(columns)]
    lifted = Coefficients.lift(THREE, arrays, used, blocks=2)
    for c in range(max(map(len, columns), default=0)):
        exact = sum(w * column[c] for w, column in zip(used, columns, strict=True) if c < len(column))
        assert [int(lifted.words[i, 0, c]) for i in range(3)] == [exact % q for q in THREE.primes]
    assert not lifted.words[:, 1].any()


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32])
def test_narrow_columns_are_lifted_like_wide_ones(dtype: type[np.signedinteger[Any]]) -> None:
    ends = np.iinfo(dtype)
    column = np.array([ends.min, ends.max, 0, -1, 1, *range(-50, 50)] * 200, dtype)
    wide = np.arange(len(column), dtype=np.int64) << 40
    for weight in (1, -1, 3 << 26, 1 << 52, -(1 << 450) + 1):
        narrow = Coefficients.lift(THREE, [column, wide, column[::-2]], [weight, 5, 1])
        assert (
            narrow.words
            == Coefficients.lift(
                THREE, [column.astype(np.int64), wide, column[::-2].astype(np.int64)], [weight, 5, 1]
            ).words
        ).all()


def test_lifting_does_not_depend_on_its_chunks() -> None:
    numbers = np.arange(-5, 2 * _CHUNK, dtype=np.int64) * 982_451_653
    words = Coefficients.lift(THREE, [numbers, numbers[::-2]], [1, 1 << 40]).words.reshape(3, -1)
    total = numbers.astype(object)
    total[: len(numbers[::-2])] += numbers[::-2].astype(object) * (1 << 40)
    for q, residues in zip(THREE.primes, words, strict=True):
        assert residues[: len(numbers)].tolist() == (total % q).tolist()
        assert not residues[len(numbers) :].any()


@pytest.mark.parametrize(("columns", "weights", "blocks"), [
    ([np.zeros(4)], [1], 1), ([np.zeros((2, 2), np.int64)], [1], 1), ([np.zeros(2, np.int64)], [1, 2], 1),
    ([np.zeros(4097, np.int64)], [1], 2), ([np.zeros(4, np.uint32)], [1], 1), ([], [], None),
    ([np.zeros(4, np.int64)], [1], 0),
])  # fmt: skip
def test_wrong_columns_are_refused(columns: list[np.ndarray], weights: list[int], blocks: int | None) -> None:
    with pytest.raises(UsageError, match=r"column|fit|at least one"):
        Coefficients.lift(RING, columns, weights, blocks)


@pytest.mark.parametrize("count", [1, 2, 1000, 2048, 2049, 4095, 4096])
def test_bytes_are_each_primes_residues_at_its_own_width(count: int) -> None:
    ring = QuotientRing(2048, (12289, moduli(2048, 31)[0]))
    x = uniform(ring, 2, bytes(32)).coefficients()
    data = x.pack(count)
    flat = x.words.reshape(2, -1)
    assert data == b"".join(packing.pack(flat[i, :count].tolist(), bits) for i, bits in enumerate((14, 31)))
    assert len(data) == ring.packed_size(count) == -(-14 * count // 8) + -(-31 * count // 8)
    again = Coefficients.unpack(ring, memoryview(data), count)
    assert (again.words.reshape(2, -1)[:, :count] == flat[:, :count]).all()
    assert not again.words.reshape(2, -1)[:, count:].any()
    assert again.blocks == -(-count // 2048)


def test_sizes_that_do_not_exist_are_refused() -> None:
    x = uniform(RING, 1, bytes(32)).coefficients()
    for count in (-1, 0, 2049):
        with pytest.raises(UsageError, match="coefficients"):
            x.pack(count)
    for data, count in ((b"", 0), (x.pack(10), 11), (x.pack(10), 9), (x.pack(10) + b"\0", 10), (x.pack(10)[:-1], 10)):
        with pytest.raises(DecodeError, match="are not"):
            Coefficients.unpack(RING, data, count)


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("excess", [0, 1, 1000])
def test_a_residue_that_is_not_reduced_is_refused(which: int, excess: int, monkeypatch: pytest.MonkeyPatch) -> None:
    residues = [[0] * 9 for _ in range(3)]
    residues[which][4] = THREE.primes[which] + excess
    data = b"".join(packing.pack(row, 30) for row in residues)
    with pytest.raises(DecodeError, match="not reduced"):
        Coefficients.unpack(THREE, data, 9)
    switch_off(monkeypatch, Coefficients, "unpack", "int(residues.max()) >= q")
    with pytest.raises(UsageError, match="not reduced"):  # the container's own check still stands behind it
        Coefficients.unpack(THREE, data, 9)


@given(raw=st.binary(min_size=27, max_size=27), count=st.integers(-2, 12))
def test_any_bytes_decode_to_what_packs_to_them_or_not_at_all(raw: bytes, count: int) -> None:
    ring = QuotientRing(2048, (12289, 40961, 61441))
    data = raw[: ring.packed_size(count)] if 0 < count < 5 else raw
    try:
        parsed = Coefficients.unpack(ring, data, count)
    except DecodeError:
        return
    assert parsed.pack(count) == data


def test_a_running_sum_is_the_sum() -> None:
    parts = [uniform(RING, 2, bytes([i]) * 32).coefficients() for i in range(5)]
    total, expected = RunningSum(RING, 2), Coefficients.zeros(RING, 2)
    for part in parts:
        total.add(part)
        expected = expected + part
    value = total.value()
    total.add(-parts[0])
    assert (value.words == expected.words).all()
    assert (total.value().words == (expected - parts[0]).words).all()


@pytest.mark.parametrize(
    "onto", [Coefficients.zeros(RING, 2), Coefficients.zeros(THREE, 1)], ids=["two blocks", "another ring"]
)
def test_what_is_written_over_has_the_shape_of_what_comes_out(onto: Coefficients) -> None:
    """Kernels look at no bounds."""
    for dtype in (np.int16, np.int64):
        with pytest.raises(UsageError, match="does not go with 1 polynomials"):
            Coefficients.lift(RING, [np.ones(2048, dtype)], onto=onto)
    assert repr(onto).endswith("zero)")


@pytest.mark.parametrize("more", [-1, 1])
def test_polynomials_are_packed_into_as_many_bytes_as_they_take(more: int) -> None:
    out = bytearray(RING.packed_size(100) + more)
    with pytest.raises(UsageError, match="do not take"):
        Coefficients.lift(RING, [np.ones(100, np.int64)]).pack_into(100, memoryview(out))
    assert not any(out)
