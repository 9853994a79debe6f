"""Digits, scales and the bound on the error: what rounds back exactly, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.ckks.layout import DEGREE, MODULI, Layout
from secagg.errors import PeerError, UsageError

ts = pytest.importorskip("tenseal", reason="NOT TESTED: ckks needs tenseal, pip install 'secagg[ckks]'")

LAYOUTS = st.builds(Layout.choose, st.integers(2, 64), st.integers(2, 4096), st.integers(1, 50))


@given(LAYOUTS, st.data())
def test_what_is_split_is_joined(layout: Layout, data: st.DataObject) -> None:
    """Also after summing and with an error within the bound; the widest ring included."""
    ring = layout.digit_bits if layout.digits == 1 else min(layout.digits * layout.digit_bits - 1, 64)
    largest = (1 << (ring - 2)) - 1
    values = [
        np.array(data.draw(st.lists(st.integers(-largest, largest), min_size=n, max_size=n)), np.int64)
        for n in [layout.coordinates] * 2
    ]
    slots = sum(layout.split(value) for value in values).astype(np.float64)  # type: ignore[union-attr]
    error = data.draw(st.floats(-layout.error, layout.error)) if np.abs(slots).max() < 1 << 40 else 0
    assert layout.join(slots + error * 0.99).tolist() == sum(values).tolist()  # type: ignore[union-attr]


@given(st.integers(2, 64), st.integers(2, 4096), st.integers(1, 10**9))
def test_nothing_wraps_and_the_error_is_far_from_a_half(ring_bits: int, clients: int, coordinates: int) -> None:
    layout = Layout.choose(ring_bits, clients, coordinates)
    one = (1 << (layout.digit_bits - 1)) if layout.digits > 1 else 1 << (ring_bits - 1)
    most = one * clients if layout.digits > 1 else one  # the ring bounds the sum, the digits each summand
    assert most << layout.scale_bits <= 1 << (MODULI[0] - 2)
    assert 0 < layout.error <= 1 / 4
    assert layout.digits == 1 or layout.digits * layout.digit_bits > ring_bits


@given(LAYOUTS, st.data())
def test_digits_stay_within_their_bits(layout: Layout, data: st.DataObject) -> None:
    if layout.digits == 1:
        return
    largest = (1 << min(layout.digits * layout.digit_bits - 2, 62)) - 1
    value = np.array([data.draw(st.integers(-largest, largest))] * layout.coordinates, np.int64)
    assert np.abs(layout.split(value)).max() <= 1 << (layout.digit_bits - 1)


@pytest.mark.parametrize(("ring_bits", "clients", "scale_bits"), [(26, 1000, 27), (23, 100, 30), (28, 4096, 25)])
def test_sixteen_bits_take_one_slot(ring_bits: int, clients: int, scale_bits: int) -> None:
    layout = Layout.choose(ring_bits, clients, 10**6)
    assert (layout.digits, layout.scale_bits) == (1, scale_bits)


def test_more_clients_than_the_bound_was_made_for() -> None:
    with pytest.raises(UsageError, match="up to 4096 clients"):
        Layout.choose(26, 4097, 1)


def test_what_is_no_sum_of_integers_is_not_rounded() -> None:
    layout = Layout.choose(26, 10, 3)
    for bad in (0.4, 0.5, layout.error * 1.01, -0.3):
        with pytest.raises(PeerError, match="not a sum of integers"):
            layout.join(np.array([1.0, 2.0, 3.0 + bad]))
    for bad in (float("nan"), float("inf"), -1e300, 2.0**26):
        with pytest.raises(PeerError, match="larger than any sum"):
            layout.join(np.array([1.0, bad, 3.0]))


def test_the_deviation_is_that_of_seal() -> None:
    """50 ciphertexts of 2048 slots, as TenSEAL makes them, no more than the bound says and at least two thirds of it.

    The bound takes |s|^2 = N where a ternary key has 2N/3. The deviation of 10^5 errors is known to 0.3%: a false alarm
    would be 20 standard errors away.
    """
    layout, context = Layout.choose(23, 100, 2048), ts.context(ts.SCHEME_TYPE.CKKS, DEGREE, -1, list(MODULI))
    values = np.random.default_rng(1).integers(-(1 << 15), 1 << 15, 2048)
    errors = []
    for _ in range(50):
        vector = ts.ckks_vector(context, values.tolist(), 2.0**layout.scale_bits)
        errors.append(np.array(vector.decrypt()) - values)
    expected = np.sqrt(DEGREE / 2 * (2 + DEGREE) / 12) / 2.0**layout.scale_bits
    assert 2 / 3 < np.std(errors) / expected < 0.95
    assert np.abs(errors).max() < layout.error
