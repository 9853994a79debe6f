"""The chooser: what the defaults are, that bounds hold in simulation, that nothing narrower would do."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.assumptions import MAX_CLIENTS, CostModel
from secagg.crypto.lattice import VARIANCE, Layout, Parameters, QuotientRing, choose, packing, parameters
from secagg.crypto.lattice.parameters import EXPANSION, failure_log2
from secagg.crypto.lattice.polynomials import Coefficients
from secagg.crypto.lattice.primes import moduli
from secagg.crypto.lattice.ring import SECURE_BITS, WIDEST
from secagg.crypto.lattice.sampling import uniform
from secagg.crypto.sampling.draws import discrete_gaussian
from secagg.encoding import Encoding
from secagg.errors import PeerError, UsageError
from tests.controls import switch_off


@pytest.mark.parametrize(("n", "cost_model", "degree", "values", "primes", "expansion"), [
    (1000, "core-svp", 4096, 3, [30] * 3, 1.154), (1_000_000, "core-svp", 8192, 4, [26] + [27] * 5, 1.1181),
    (1000, "standard", 4096, 3, [30] * 3, 1.154), (1_000_000, "standard", 8192, 5, [28] * 6 + [29], 1.0944),
])  # fmt: skip
def test_the_rings_of_a_million_coordinates_of_16_bits(
    n: int, cost_model: str, degree: int, values: int, primes: list[int], expansion: float
) -> None:
    chosen = choose(Encoding.integers(1_000_000, bits=16), n, cost_model=CostModel(cost_model))
    assert (chosen.layout.ring.degree, chosen.layout.values) == (degree, values)
    assert [q.bit_length() for q in chosen.layout.ring.primes] == primes
    assert chosen.expansion == pytest.approx(expansion, abs=1e-3)
    assert chosen.failure_log2 < -40
    assert chosen.undetected_log2 < -10_000
    assert chosen.layout.ring.bits <= chosen.secure_bits == WIDEST[CostModel(cost_model)][degree]


encodings = st.builds(Encoding.integers, st.integers(1, 10**7), st.integers(2, 30), st.integers(1, 1000))


@given(
    encoding=encodings,
    n=st.integers(1, MAX_CLIENTS),
    noise=st.integers(0, 2**40),
    cost_model=st.sampled_from(CostModel),
)
def test_whatever_is_chosen_is_secure_has_room_and_is_not_wider_than_needed(
    encoding: Encoding, n: int, noise: int, cost_model: CostModel
) -> None:
    chosen = choose(encoding, n, noise, cost_model=cost_model)
    layout, count = chosen.layout, chosen.layout.coefficients(encoding.coordinates)
    assert layout.width == encoding.ring_bits(n, noise)
    assert layout.ring.bits <= WIDEST[cost_model][layout.ring.degree]
    assert chosen.failure_log2 < -40
    assert chosen.undetected_log2 <= -40
    assert failure_log2(layout.tail - 2, count, n, n * VARIANCE) >= -40
    narrower = moduli(layout.ring.degree, layout.ring.bits - 1)
    room = layout.limit * 2 ** (Fraction(40, count) if count < 2**20 else 0)
    assert not narrower or QuotientRing(layout.ring.degree, narrower).modulus < room
    assert chosen.upload_bytes == layout.ring.packed_size(count)


@given(encoding=encodings, n=st.integers(1, MAX_CLIENTS))
def test_a_smaller_n_would_not_do(encoding: Encoding, n: int) -> None:
    """The first N within the allowed expansion; else no N has a smaller upload."""
    chosen = choose(encoding, n)
    width, length, variance = encoding.ring_bits(n), encoding.coordinates, n * VARIANCE
    others = {
        degree: [
            Parameters(layout, n, length, variance)
            for layout in parameters._layouts(degree, width, n, length, variance, CostModel.CORE_SVP)
        ]
        for degree in SECURE_BITS
    }
    smaller = [p for degree, many in others.items() if degree < chosen.layout.ring.degree for p in many]
    if chosen.expansion <= EXPANSION:
        assert all(p.expansion > EXPANSION for p in smaller)
    else:
        assert all(p.upload_bytes >= chosen.upload_bytes for many in others.values() for p in many)


@pytest.mark.parametrize(("n", "noise", "variance", "why"), [
    (0, 0, None, "clients"), (MAX_CLIENTS + 1, 0, None, "clients"), (10, -1, None, "noise"),
    (10, 0, Fraction(0), "noise"),
    (10, 0, Fraction(-1), "noise"), (10, 0, Fraction(1 << 876), "noise"), (10, 0, Fraction(1 << 860), "has room"),
    (10, 1 << 63, None, "ring of"),
])  # fmt: skip
def test_what_cannot_be_is_refused(n: int, noise: int, variance: Fraction | None, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        choose(Encoding.integers(1000), n, noise, variance)


def test_parameters_made_by_hand_are_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = choose(Encoding.integers(1000), 100)
    shorter = replace(chosen.layout, tail=chosen.layout.tail - 50)
    narrow = QuotientRing(4096, moduli(4096, 60))
    for changes, why in [
        ({"layout": shorter}, "decoding fails"), ({"clients": 200, "variance": 200 * VARIANCE}, "decoding fails"),
        ({"clients": 0}, "clients"), ({"clients": MAX_CLIENTS + 1}, "clients"), ({"length": 0}, "at least one"),
        ({"variance": Fraction(0)}, "variance"),
        ({"length": 1, "layout": Layout(narrow, 8, 1, narrow.modulus // 513)}, "unnoticed"),
    ]:  # fmt: skip
        with pytest.raises(UsageError, match=why):
            replace(chosen, **changes)
    switch_off(monkeypatch, Parameters, "__post_init__", "self.failure_log2 >= -CORRECTNESS")
    assert replace(chosen, layout=shorter).failure_log2 > -40


def failures(tail: int, trials: int, count: int, n: int, variance: Fraction) -> int:
    """How many of ``trials`` vectors of ``count`` sums have one beyond the tail."""
    total = np.zeros(trials * count, np.int64)
    for i in range(n):
        total += discrete_gaussian(variance, trials * count, bytes([i, 7]) * 16)
    return int((np.abs(total.reshape(trials, count)).max(axis=1) > tail).sum())


@pytest.mark.parametrize(("n", "count", "tail"), [(4, 64, 47), (9, 16, 60), (2, 256, 37)])
def test_sums_fail_no_more_often_than_the_bound_and_not_much_less(n: int, count: int, tail: int) -> None:
    """20,000 vectors where the bound is some 2^-3. False alarm: 1e-9 even if the truth were the bound, it is a tenth.

    Positive control: with twice the variance the bound breaks.
    """
    bound = 2 ** failure_log2(tail, count, n, n * VARIANCE)
    assert 0.05 < bound < 0.3
    seen = failures(tail, 20_000, count, n, VARIANCE) / 20_000
    assert bound / 40 < seen < bound
    assert failures(tail, 20_000, count, n, 2 * VARIANCE) / 20_000 > bound


def test_decoding_fails_exactly_when_an_error_is_beyond_the_tail() -> None:
    layout = Layout(QuotientRing(2048, moduli(2048, 54)), 16, 2, 20)
    outcomes = []
    for i in range(200):
        values, errors = np.arange(128) - 64, discrete_gaussian(VARIANCE, 64, bytes([i, 3]) * 16)
        try:
            assert (packing.decode(layout, packing.encode(layout, values, errors), 128) == values).all()
            outcomes.append(np.abs(errors).max() <= 20)
        except PeerError:
            outcomes.append(np.abs(errors).max() > 20)
    assert all(outcomes)


def test_wrong_keys_are_noticed_as_often_as_said() -> None:
    """Uniform numbers below q, 40 % in range, one a vector: 2000 of 5000, 6.5 standard deviations are 1e-10."""
    ring = QuotientRing(2048, moduli(2048, 27))
    layout = Layout(ring, 8, 1, int(0.4 * ring.modulus) >> 9)
    drawn = uniform(ring, 3, bytes(32)).words.reshape(-1)[:5000]
    passed = 0
    for word in drawn:
        words = np.zeros((len(ring.primes), 1, 2048), np.uint32)
        words[0, 0, 0] = word
        try:
            packing.decode(layout, Coefficients(ring, words), 1)
            passed += 1
        except PeerError:
            pass
    share = layout.limit / ring.modulus
    assert abs(passed - 5000 * share) < 6.5 * (5000 * share * (1 - share)) ** 0.5


def test_known_sums_leave_errors_as_wide_as_the_standard_wants() -> None:
    """1/sigma0^2 = 2 (1/sigma^2 + 1/((h-1) sigma^2)): 3.2 at h = 2, growing; 6.4 is the least such number of tenths."""

    def hinted(variance: Fraction, h: int) -> Fraction:
        return 1 / (2 * (1 / variance + 1 / ((h - 1) * variance)))

    assert hinted(VARIANCE, 2) == Fraction("3.2") ** 2
    assert all(hinted(VARIANCE, h) < hinted(VARIANCE, h + 1) < VARIANCE / 2 for h in range(2, 50))
