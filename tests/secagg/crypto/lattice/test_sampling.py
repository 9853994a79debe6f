"""Public polynomials are uniform below every prime, and the same on every machine."""

from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.crypto import labels
from secagg.crypto.keys import derive
from secagg.crypto.lattice import QuotientRing, sampling
from secagg.crypto.lattice.polynomials import Coefficients
from secagg.crypto.lattice.primes import moduli
from secagg.crypto.lattice.sampling import uniform
from secagg.crypto.prg import Prg
from secagg.errors import UsageError
from tests.reference import lattice as reference

SMALL = QuotientRing(2048, (12289, 40961))
WIDE = QuotientRing(4096, moduli(4096, 90))
BINS = 64
LIMIT = 180.0
"""Chi-square with 63 degrees is above it with probability 2e-13, and this is asked a few dozen times."""


def chi_square(words: np.ndarray, q: int) -> float:
    counts = np.bincount(words.astype(np.int64) * BINS // q, minlength=BINS)
    edges = -(-np.arange(BINS + 1) * q // BINS)  # bins differ by one number in width
    expected = words.size * np.diff(edges) / q
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("ring", [SMALL, WIDE], ids=["small", "wide"])
def test_every_prime_and_every_seed_gives_uniform_residues(ring: QuotientRing) -> None:
    """Of evaluations and of coefficients. False alarms: below 1e-10 in all."""
    for seed in (bytes(32), b"\xff" * 32, b"seed" * 8):
        drawn = uniform(ring, 64, seed)
        for words in (drawn.words, drawn.coefficients().words):
            for q, residues in zip(ring.primes, words, strict=True):
                assert chi_square(residues.reshape(-1), q) < LIMIT


def test_without_rejection_the_test_would_see_it() -> None:
    """Positive control: 14 bits modulo 12289 hit the lowest third twice."""
    words = np.frombuffer(Prg(bytes(32))(4 * 64 * 2048), "<u4") & 0x3FFF
    assert chi_square(words % 12289, 12289) > 10_000
    assert chi_square(words[words < 12289], 12289) < LIMIT


@pytest.mark.parametrize("ring", [SMALL, WIDE], ids=["small", "wide"])
def test_each_prime_reads_its_own_stream_as_the_reference_does(ring: QuotientRing) -> None:
    words = uniform(ring, 3, b"s" * 32).words.reshape(len(ring.primes), -1)
    for q, residues in zip(ring.primes, words, strict=True):
        key = derive(b"s" * 32, labels.LATTICE_UNIFORM, ring.degree.to_bytes(4, "big"), q.to_bytes(4, "big"))
        expected = reference.uniform(Prg(key)(12 * residues.size), q)
        assert residues.tolist() == [next(expected) for _ in range(residues.size)]


@given(
    refused=st.sets(st.integers(0, 1200), max_size=5),
    count=st.integers(0, 1200),
    filled=st.integers(0, 600),
    room=st.integers(0, 1200),
    more=st.sampled_from([0, 1, (1 << 30) - 1 - WIDE.primes[0]]),
)
def test_words_are_taken_as_far_as_they_fit_wherever_one_is_refused(
    refused: set[int], count: int, filled: int, room: int, more: int
) -> None:
    """The least that is refused is the prime itself."""
    q, mask = WIDE.primes[0], (1 << 30) - 1
    drawn = (np.frombuffer(Prg(bytes(32))(4 * count), "<u4") & mask) % q | np.uint32(3 << 30)
    drawn[[place for place in refused if place < count]] = q + more
    out, before = np.zeros(filled + room, np.uint32), np.arange(filled)
    out[:filled] = before
    expected = [*before, *(word & mask for word in drawn.tolist() if word & mask < q)][: filled + room]
    taken = sampling._accept(drawn, q, mask, out, filled)
    assert out[:taken].tolist() == expected
    assert taken == len(expected)


def test_pinned() -> None:
    """Made by this code when it agreed with the reference; another answer breaks rounds across versions."""
    drawn = uniform(WIDE, 2, bytes(range(32)))
    assert drawn.words[:, 1, :3].tolist() == [
        [112726483, 471378943, 907553755],
        [81448779, 36143961, 157458370],
        [165175931, 762471455, 237179760],
    ]
    digest = "9323a7f270a213cebbe61e40503f8d699c6620aba54968f1dfef59b44d61164a"
    assert sha256(drawn.words.astype("<u4").tobytes()).hexdigest() == digest
    digest = "706e8d7312ee4ac6563dcd22d3a9fb7c8cd9277f445d35cc0a8fe9f75e88da47"
    assert sha256(drawn.coefficients().words.astype("<u4").tobytes()).hexdigest() == digest


def test_more_blocks_only_add_and_seeds_and_rings_differ() -> None:
    long, short = uniform(SMALL, 20, bytes(32)).words, uniform(SMALL, 2, bytes(32)).words
    assert (long[:, :2] == short).all()
    assert (long[:, 0] != long[:, 1]).any()
    assert (uniform(SMALL, 2, b"\1" + bytes(31)).words != short).mean() > 0.99
    wider = uniform(QuotientRing(4096, (40961,)), 1, bytes(32)).words[0, 0, :2048]
    assert (wider != short[1, 0]).mean() > 0.99


def test_the_end_of_a_polynomial_is_not_overrun() -> None:
    """Words left over when the last place is filled are dropped, whatever they are."""
    out = np.full(8, 99, np.uint32)
    assert sampling._accept(np.arange(20, dtype=np.uint32), 5, 7, out[:3], 1) == 3
    assert out.tolist() == [99, 0, 1, 99, 99, 99, 99, 99]
    assert sampling._accept(np.array([5, 6, 7], np.uint32), 5, 7, out[:3], 2) == 2


@pytest.mark.parametrize("blocks", [0, -1])
def test_no_blocks_are_refused(blocks: int) -> None:
    for make in (lambda: uniform(SMALL, blocks, bytes(32)), lambda: Coefficients.zeros(SMALL, blocks)):
        with pytest.raises(UsageError, match="at least one polynomial"):
            make()


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_seeds_of_another_size_are_refused(size: int) -> None:
    with pytest.raises(UsageError, match="32 bytes"):
        uniform(SMALL, 1, bytes(size))
