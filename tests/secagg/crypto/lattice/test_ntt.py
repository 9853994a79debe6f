"""The transform: its products are the schoolbook's, whatever the prime, also at the largest residues."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.crypto.lattice import QuotientRing, ntt
from secagg.crypto.lattice.polynomials import Coefficients
from secagg.crypto.lattice.primes import DEGREES, MAX_PRIME_BITS, is_prime, moduli, rows, tables, with_quotients
from secagg.crypto.lattice.sampling import uniform
from tests.reference import lattice as reference

RINGS = {degree: QuotientRing(degree, moduli(degree, 54 if degree > 1024 else 27)) for degree in DEGREES}
seeds = st.binary(min_size=32, max_size=32)


def product(a: list[int], b: list[int], q: int, wrong: tuple[str, int] | None = None) -> list[int]:
    """Through the kernels, which do not mind a small N; perhaps with one factor of one table spoilt."""
    degree = len(a)
    own = tables(degree, (q,))
    used = {"twiddles": own.twiddles.copy(), "inverses": own.inverses.copy()}
    if wrong:
        name, i = wrong
        used[name][0, :, i] = with_quotients(np.array((int(used[name][0, 0, i]) + 1) % q), q)
    words = np.array([[a, b]], np.uint32)
    ntt.forward(words, own.primes, used["twiddles"], rows(degree))
    left, right = np.ascontiguousarray(words[:, :1]), np.ascontiguousarray(words[:, 1:])
    out = np.empty_like(left)
    ntt.multiply(left, right, own.primes, own.montgomery, out)
    ntt.backward(out, own.primes, used["inverses"], own.shrink, rows(degree))
    return out[0, 0].tolist()


@st.composite
def small_polynomials(draw: st.DrawFn) -> tuple[list[int], list[int], int]:
    degree, bits = 1 << draw(st.integers(2, 6)), draw(st.integers(14, MAX_PRIME_BITS))
    (q,) = moduli(degree, bits)
    number = st.one_of(st.integers(0, q - 1), st.sampled_from([0, 1, q - 1]))
    a, b = (draw(st.lists(number, min_size=degree, max_size=degree)) for _ in range(2))
    return a, b, q


@given(chosen=small_polynomials())
def test_products_are_the_schoolbooks(chosen: tuple[list[int], list[int], int]) -> None:
    a, b, q = chosen
    assert product(a, b, q) == reference.multiply(a, b, q)


@pytest.mark.thinned(3)
@pytest.mark.parametrize("degree", DEGREES)
def test_products_are_the_schoolbooks_at_full_size(degree: int) -> None:
    """Dense times dense up to N = 2048; above, 64 terms times dense."""
    ring = RINGS[degree]
    a, b = uniform(ring, 1, b"a" * 32).coefficients(), uniform(ring, 1, b"b" * 32).coefficients()
    if degree > 2048:
        places = np.arange(0, degree, degree // 64) + 5
        words = np.zeros_like(a.words)
        words[..., places] = a.words[..., places]
        a = type(a)(ring, words)
    result = (a.evaluations() * b.evaluations()).coefficients()
    for i, q in enumerate(ring.primes):
        assert result.words[i, 0].tolist() == reference.multiply(a.words[i, 0].tolist(), b.words[i, 0].tolist(), q)


@pytest.mark.parametrize("degree", [64, *DEGREES])
@pytest.mark.parametrize("pattern", ["full", "alternating", "last"])
def test_the_largest_residues_of_the_largest_prime(degree: int, pattern: str) -> None:
    """Every intermediate is as large as it can be: with all coefficients -1, X^N + 1 divides (X - 1) a + 2.

    So (1 - X) a = -2, at the prime nearest 2^31, where a bound missed by one bit wraps.
    """
    (q,) = moduli(degree, MAX_PRIME_BITS)
    assert q > (1 << 31) - (1 << 22)
    one_minus_x = [1, q - 1] + [0] * (degree - 2)
    if pattern == "full":
        assert product(one_minus_x, [q - 1] * degree, q) == [q - 2] + [0] * (degree - 1)
    elif pattern == "alternating":  # (1 + X)(1 - X + X^2 - ...) = 1 - X^N = 2
        assert product([1, 1] + [0] * (degree - 2), [1, q - 1] * (degree // 2), q) == [2] + [0] * (degree - 1)
    else:
        last = [0] * (degree - 1) + [q - 1]
        assert product(last, last, q) == [0] * (degree - 2) + [q - 1, 0]  # X^(2N-2) = -X^(N-2)


@given(
    v=st.one_of(st.integers(0, 2**32 - 1), st.integers(2**32 - 9, 2**32 - 1)),
    bits=st.integers(14, MAX_PRIME_BITS),
    data=st.data(),
)
def test_shoups_product_is_reduced_for_every_word(v: int, bits: int, data: st.DataObject) -> None:
    (q,) = moduli(64, bits)
    factor = data.draw(st.one_of(st.integers(0, q - 1), st.sampled_from([0, 1, q - 2, q - 1])))
    for word in (v, q - 1, q, 2 * q - 1, 2**32 - 1):
        both = with_quotients(np.array(factor), q)
        assert ntt.times(np.uint32(word), both[0], both[1], np.uint32(q)) == word * factor % q


def test_evaluations_are_the_values_at_the_roots() -> None:
    a, (q,) = list(range(1, 17)), moduli(16, 14)
    own, words = tables(16, (q,)), np.array([[a]], np.uint32)
    ntt.forward(words, own.primes, own.twiddles, rows(16))
    assert sorted(words[0, 0].tolist()) == reference.values_at_roots(a, q)


@pytest.mark.parametrize("table", ["twiddles", "inverses"])
def test_any_wrong_factor_is_caught(table: str) -> None:
    """Positive control of the comparison with the schoolbook. Factor 0 is never used."""
    (q,) = moduli(32, 30)
    a, b = (uniform(RINGS[2048], 1, seed * 32).words[0, 0, :32].tolist() for seed in (b"1", b"2"))
    assert product(a, b, q) == reference.multiply(a, b, q)
    assert all(product(a, b, q, (table, i)) != reference.multiply(a, b, q) for i in range(1, 32))


@given(degree=st.sampled_from(DEGREES), blocks=st.integers(1, 3), seed=seeds)
def test_round_trips(degree: int, blocks: int, seed: bytes) -> None:
    x = uniform(RINGS[degree], blocks, seed)
    assert (x.coefficients().evaluations().words == x.words).all()
    assert (x.words != x.coefficients().words).any()


@given(degree=st.sampled_from(DEGREES[:3]), seed=seeds, factor=st.integers(-(2**70), 2**70))
def test_ring_laws(degree: int, seed: bytes, factor: int) -> None:
    a, b, c = (uniform(RINGS[degree], 2, bytes([i]) + seed[1:]) for i in range(3))
    one = Coefficients.lift(RINGS[degree], [np.ones(1, np.int64)])
    for left, right in [
        (a + b, b + a), (a * b, b * a), ((a + b) + c, a + (b + c)), ((a * b) * c, a * (b * c)),
        ((a + b) * c, a * c + b * c), (a - b, a + -b), (a * one.evaluations(), a),
        (a.scaled(factor) * b, (a * b).scaled(factor)),
        ((a + b).coefficients().evaluations(), a.coefficients().evaluations() + b),
    ]:  # fmt: skip
        assert (left.words == right.words).all()
    assert not (a - a).words.any()


def test_one_polynomial_multiplies_every_block_as_it_would_alone() -> None:
    ring = RINGS[1024]
    a, s = uniform(ring, 3, bytes(32)), uniform(ring, 1, b"s" * 32)
    for b, block in enumerate((a * s).words[0]):
        alone = type(a)(ring, a.words[:, b : b + 1].copy())
        assert (block == (alone * s).words[0, 0]).all()


def test_primality_is_decided_rightly() -> None:
    """Below 20,000 against trial division; and numbers that fool single witnesses."""
    assert [n for n in range(20_000) if is_prime(n)] == [
        n for n in range(2, 20_000) if all(n % d for d in range(2, int(n**0.5) + 1))
    ]
    assert not any(map(is_prime, (2047, 1373653, 25326001, 46349 * 46327, 46337**2, 2**31 - 3)))
    assert is_prime(2**31 - 1)


@pytest.mark.parametrize("degree", DEGREES)
@pytest.mark.parametrize("bits", [20, 27, 54, 90, 109, 197, 218, 438])
def test_moduli_have_as_many_bits_as_wanted(degree: int, bits: int) -> None:
    primes = moduli(degree, bits)
    assert sum(q.bit_length() for q in primes) == (bits if primes else 0)
    assert list(primes) == sorted(set(primes))
    assert all(q % (2 * degree) == 1 and is_prime(q) and q.bit_length() <= 31 for q in primes)
    assert primes or (degree, bits) in {(16384, 20)}
