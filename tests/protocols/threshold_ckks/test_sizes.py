"""How wide everything is: derived a second time, minimal, and held against noise that was really drawn."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.threshold_ckks import scheme as scheme_module
from protocols.threshold_ckks.scheme import Scheme
from protocols.threshold_ckks.sizes import Sizes, choose_sizes, error_bound, error_variance
from secagg.assumptions import CostModel
from secagg.crypto.lattice import VARIANCE
from secagg.crypto.lattice.parameters import narrowest
from secagg.crypto.lattice.polynomials import Coefficients
from secagg.crypto.lattice.ring import WIDEST
from secagg.errors import UsageError
from tests.reference import lattice as reference

MILLION = choose_sizes(23, 100, 10**6)


def test_a_million_coordinates_of_16_bits() -> None:
    ring = MILLION.layout.ring
    assert (ring.degree, ring.bits, MILLION.layout.values, MILLION.blocks) == (16384, 332, 11, 6)
    assert (MILLION.c0_bytes + MILLION.c1_bytes) / 10**6 == pytest.approx(7.852, abs=1e-3)  # the aim was 10
    assert MILLION.upload_bytes / 10**6 == pytest.approx(12.305, abs=1e-3)
    laxer = choose_sizes(23, 100, 10**6, CostModel.STANDARD)
    assert (laxer.layout.ring.degree, laxer.layout.ring.bits, laxer.layout.values) == (16384, 378, 13)
    assert laxer.upload_bytes / 10**6 == pytest.approx(11.914, abs=1e-3)
    assert MILLION.flooding == 1 << 142
    assert MILLION.failure_log2 < -41
    assert MILLION.flooding_log2 < -40


def test_the_same_numbers_by_hand() -> None:
    """In plain floats: N = 16384, 100 clients, 90910 coefficients, tau = 44 ln 2."""
    n, degree, count = 100, 16384, 90910
    tau = 44 * 0.6931471805599453
    each = n * 6.4**2
    norm = degree * each * (1 + 2 * (tau / degree) ** 0.5 + 2 * tau / degree)
    variance = each * (norm + norm + 1)
    bound = (2 * variance * (math.log(2 * count) + 43 * 0.6931471805599453)) ** 0.5
    assert error_variance(degree, n) == pytest.approx(variance, rel=1e-8)
    assert error_bound(degree, n, count) == pytest.approx(bound, rel=1e-8)
    least = 2.0**40 * count**0.5 * bound  # sigma with sqrt(c) B / 2 sigma = 2^-41
    assert 1 <= float(MILLION.flooding) ** 0.5 / least < 2**0.5
    distance = count**0.5 * bound / (2 * float(MILLION.flooding) ** 0.5) + 2.0**-42
    assert MILLION.flooding_log2 == pytest.approx(math.log2(distance), abs=1e-6)
    tail = (2 * (33 / 32) * (variance + n * float(MILLION.flooding)) * math.log(2 * count * 2.0**40)) ** 0.5
    assert MILLION.layout.tail == pytest.approx(tail, rel=1e-8)
    wrong = 2 * count * math.exp(-(tail**2) / (2 * (variance + n * float(MILLION.flooding)))) + 2.0**-43
    assert MILLION.failure_log2 == pytest.approx(math.log2(wrong), abs=1e-6)


plans = {"width": st.integers(2, 64), "clients": st.integers(2, 1024), "length": st.integers(1, 10**7)}


@given(cost_model=st.sampled_from(CostModel), **plans)
def test_whatever_is_chosen_is_secure_exact_and_hides_the_error(
    width: int, clients: int, length: int, cost_model: CostModel
) -> None:
    chosen = choose_sizes(width, clients, length, cost_model)
    assert chosen.layout.ring.bits <= WIDEST[cost_model][chosen.layout.ring.degree]
    assert chosen.failure_log2 < -40
    assert chosen.flooding_log2 < -40
    narrow = Sizes(chosen.layout, clients, length, chosen.flooding / 8)
    assert narrow.flooding_log2 > -40  # no more than a factor of two was wasted on rounding
    assert chosen.layout.width == width
    assert chosen.unit == 1 << width * chosen.layout.values
    sent = chosen.key_bytes + 2 * chosen.c0_bytes + chosen.c1_bytes
    assert chosen.upload_bytes == sent


@settings(max_examples=10)
@given(cost_model=st.sampled_from(CostModel), **plans)
def test_no_other_ring_sends_less(width: int, clients: int, length: int, cost_model: CostModel) -> None:
    chosen = choose_sizes(width, clients, length, cost_model)
    for degree, widest in WIDEST[cost_model].items():
        for values in range(1, widest // width + 1):
            count = -(-length // values)
            sigma = 2.0**40 * count**0.5 * error_bound(degree, clients, count)
            least = clients * Fraction(sigma**2)  # not rounded up to a power of two, no room to spare
            layout = narrowest(degree, width, values, clients, length, least, cost_model)
            if layout is not None:
                other = Sizes(layout, clients, length, chosen.flooding)
                two_bits_less = 1 - 2 / layout.ring.bits  # what the rounding may cost
                assert chosen.upload_bytes * two_bits_less <= other.upload_bytes


def test_what_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WIDEST, CostModel.CORE_SVP, {1024: 27, 2048: 54})
    with pytest.raises(UsageError, match="has room for sums"):
        choose_sizes.__wrapped__(23, 100, 10**6)


def errors_of(clients: int, length: int, seed: int) -> tuple[np.ndarray, Scheme, tuple[float, float]]:
    """E of a real sum of zeros, as floats, and the squared norms of e and s."""
    scheme = Scheme.of(choose_sizes(20, clients, length), bytes(32))
    seeds = [bytes([seed, i]) * 16 for i in range(clients)]
    joint = Coefficients.zeros(scheme.ring, 1)
    for one in seeds:
        joint += scheme.public(one)
    blocks = scheme.sizes.blocks
    c0, c1 = Coefficients.zeros(scheme.ring, blocks), Coefficients.zeros(scheme.ring, blocks)
    for one in seeds:
        zeros = np.zeros(length, np.int64)
        added = scheme.encrypt(joint, zeros, one[::-1])
        c0, c1 = c0 + added[0], c1 + added[1]
    opened = (c0 + scheme.bare(c1, seeds)).scaled(pow(scheme.sizes.unit, -1, scheme.ring.modulus))
    norms = []
    for purpose in (b"key error", b"key"):
        drawn = [scheme_module._gaussian(one, purpose, scheme.ring.degree) for one in seeds]
        norms.append(float((sum(drawn) ** 2.0).sum()))
    return centred(opened, scheme.sizes.count), scheme, (norms[0], norms[1])


def centred(polynomials: Coefficients, count: int) -> np.ndarray:
    primes, modulus = polynomials.ring.primes, polynomials.ring.modulus
    flat = polynomials.words.reshape(len(primes), -1)
    numbers = [reference.integer([int(x) for x in flat[:, i]], primes) for i in range(count)]
    return np.array([float(x - modulus if x > modulus // 2 else x) for x in numbers])


@pytest.mark.parametrize(("clients", "length"), [(2, 3000), (7, 4000)])
def test_the_bound_holds_for_noise_that_is_drawn(clients: int, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of E below B (2^-42), spread as P says: given s and e, the mean square of 3000 coefficients is n V (|e|^2 +
    |s|^2 + 1); coefficients are dependent, so within 30 %, where seeds were found within 5 %.

    Positive control: errors that are ten times as wide break the bound.
    """
    errors, scheme, norms = errors_of(clients, length, 1)
    degree, count = scheme.ring.degree, scheme.sizes.count
    expected = clients * float(VARIANCE) * (sum(norms) + 1)
    assert np.abs(errors).max() <= error_bound(degree, clients, count)
    assert np.abs(errors).max() > error_bound(degree, clients, count) / 5  # and it is no wider than it must be
    assert (errors**2).mean() / expected == pytest.approx(1, abs=0.3)
    assert expected < error_variance(degree, clients) < 2 * expected
    monkeypatch.setattr(scheme_module, "VARIANCE", 100 * VARIANCE)
    assert np.abs(errors_of(clients, length, 1)[0]).max() > error_bound(degree, clients, count)
