"""Keys, ciphertexts and partial decryptions, number by number against the definition; and that sums are exact."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.threshold_ckks.scheme import Scheme
from protocols.threshold_ckks.sizes import choose_sizes
from secagg.crypto import labels
from secagg.crypto.keys import derive
from secagg.crypto.lattice import VARIANCE
from secagg.crypto.lattice.polynomials import Coefficients
from secagg.crypto.lattice.sampling import flooding
from secagg.crypto.sampling.draws import discrete_gaussian
from secagg.errors import DecodeError, PeerError
from tests.reference import lattice as reference

SMALL = Scheme.of(choose_sizes(20, 2, 3), b"a" * 32)
DEGREE = SMALL.ring.degree


def drawn(seed: bytes, purpose: bytes, count: int) -> list[int]:
    return discrete_gaussian(VARIANCE, count, derive(seed, labels.THRESHOLD_DRAW, purpose)).tolist()


def residues(polynomial: Coefficients, i: int) -> list[int]:
    assert polynomial.blocks == 1
    return polynomial.words[i, 0].tolist()


@pytest.mark.long
def test_everything_by_the_definition() -> None:
    """b = -a s + T e; c0 = b v + T e0 + x; c1 = a v + T e1; d = c1 s + T f: schoolbook, modulo each prime."""
    key, encryption, flood_seed, unit = b"k" * 32, b"e" * 32, b"f" * 32, SMALL.sizes.unit
    values = np.array([5, -6, (1 << 19) - 1])
    assert SMALL.sizes.layout.values == 1  # so each has a coefficient of its own
    b = SMALL.public(key)
    c0, c1 = SMALL.encrypt(b, values, encryption)
    d = SMALL.partial(c1, key, flooded_by=flood_seed)
    s, e = drawn(key, b"key", DEGREE), drawn(key, b"key error", DEGREE)
    v, e0, e1 = drawn(encryption, b"v", DEGREE), drawn(encryption, b"e0", 3), drawn(encryption, b"e1", DEGREE)
    columns, weights = flooding(SMALL.sizes.flooding, 3, flood_seed)
    f = [sum(int(column[i]) * weight for column, weight in zip(columns, weights, strict=True)) for i in range(3)]
    for i, q in list(enumerate(SMALL.ring.primes))[:: len(SMALL.ring.primes) - 1]:  # of the others no line is their own
        a = residues(SMALL._a.coefficients(), i)
        by_hand = [(unit * y - x) % q for x, y in zip(reference.multiply(a, [x % q for x in s], q), e, strict=True)]
        assert residues(b, i) == by_hand
        masked = reference.multiply(by_hand, [x % q for x in v], q)
        assert residues(c0, i)[:3] == [(masked[j] + unit * e0[j] + int(values[j])) % q for j in range(3)]
        second = [(x + unit * y) % q for x, y in zip(reference.multiply(a, [x % q for x in v], q), e1, strict=True)]
        assert residues(c1, i) == second
        opened = reference.multiply(second, [x % q for x in s], q)
        assert residues(d, i)[:3] == [(opened[j] + unit * f[j]) % q for j in range(3)]
        assert residues(SMALL.bare(c1, [key]), i) == opened
    assert SMALL.decode(c0 + d).tolist() == values.tolist()


@settings(max_examples=10)
@given(data=st.data())
def test_sums_are_exact_whoever_floods(data: st.DataObject) -> None:
    """Several blocks and values; some parts flooded, some bare, at the very edge of what the width allows."""
    clients, length = data.draw(st.integers(2, 5)), data.draw(st.integers(1, 9000))
    width = data.draw(st.integers(8, 40))
    scheme = Scheme.of(choose_sizes(width, clients, length), bytes(32))
    largest = ((1 << (width - 1)) - 1) // clients
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 32)))
    vectors = [rng.choice([-largest, 0, largest], length) for _ in range(clients)]
    seeds = [rng.bytes(32) for _ in range(clients)]
    joint = Coefficients.zeros(scheme.ring, 1)
    for seed in seeds:
        joint += scheme.unpack_key(scheme.pack_key(scheme.public(seed)))
    c0, c1 = Coefficients.zeros(scheme.ring, scheme.sizes.blocks), Coefficients.zeros(scheme.ring, scheme.sizes.blocks)
    for vector in vectors:
        one, other = scheme.encrypt(joint, vector, rng.bytes(32))
        c0 += scheme.unpack_used(scheme.pack_used(one))
        c1 += scheme.unpack_all(scheme.pack_all(other))
    gone = data.draw(st.integers(0, clients - 1))
    for seed in seeds[gone:]:
        c0 += scheme.unpack_used(scheme.pack_used(scheme.partial(c1, seed, flooded_by=rng.bytes(32))))
    if gone:
        c0 += scheme.bare(c1, seeds[:gone])
    assert scheme.decode(c0).tolist() == sum(vectors).tolist()


def test_a_part_too_few_or_a_wrong_one_gives_no_sum() -> None:
    seeds = [b"x" * 32, b"y" * 32]
    joint = SMALL.public(seeds[0]) + SMALL.public(seeds[1])
    c0, c1 = SMALL.encrypt(joint, np.array([1, 2, 3]), b"e" * 32)
    partials = [SMALL.partial(c1, seed, flooded_by=b"f" * 32) for seed in seeds]
    wrong = SMALL.partial(c1, b"z" * 32, flooded_by=b"f" * 32)
    for total in (c0, c0 + partials[0], c0 + partials[0] + wrong, c0 + partials[0] + partials[1] + partials[1]):
        with pytest.raises(PeerError, match="out of range"):
            SMALL.decode(total)
    assert SMALL.decode(c0 + partials[0] + partials[1]).tolist() == [1, 2, 3]


def test_lengths_and_residues_on_the_wire() -> None:
    key, used, whole = SMALL.sizes.key_bytes, SMALL.sizes.c0_bytes, SMALL.sizes.c1_bytes
    for unpack, size in ((SMALL.unpack_key, key), (SMALL.unpack_used, used), (SMALL.unpack_all, whole)):
        unpack(bytes(size))
        for wrong in (0, size - 1, size + 1):
            with pytest.raises(DecodeError):
                unpack(bytes(wrong))
        with pytest.raises(DecodeError):
            unpack(b"\xff" * size)


def test_different_seeds_draw_different_things() -> None:
    """Of one seed every purpose has its own stream; a shared one would make s equal to e."""
    purposes = [b"key", b"key error", b"v", b"e0", b"e1"]
    streams = {tuple(drawn(seed, purpose, 20)) for seed in (b"1" * 32, b"2" * 32) for purpose in purposes}
    assert len(streams) == 10
