"""Decoding is exact: Python's integers and Chinese remaindering say the same, up to the last number of the range."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.crypto.lattice import VARIANCE, Layout, QuotientRing, arithmetic, packing
from secagg.crypto.lattice.packing import _CHUNK, _constants
from secagg.crypto.lattice.polynomials import Coefficients, RunningSum
from secagg.crypto.lattice.primes import moduli
from secagg.crypto.lattice.ring import SECURE_BITS
from secagg.crypto.lattice.sampling import uniform
from secagg.crypto.sampling.draws import discrete_gaussian
from secagg.errors import PeerError, UsageError
from tests.controls import switch_off
from tests.reference import lattice as reference


def tight(degree: int, bits: int, width: int, values: int) -> Layout:
    """With the longest tail that q allows."""
    ring = QuotientRing(degree, moduli(degree, bits))
    return Layout(ring, width, values, ((ring.modulus >> (values * width)) - 1) // 2)


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    degree = draw(st.sampled_from(list(SECURE_BITS)))
    bits = draw(
        st.integers(20 if degree < 16384 else 27, SECURE_BITS[degree]).filter(lambda b: bool(moduli(degree, b)))
    )
    width = draw(st.integers(2, min(64, bits - 6)))
    return tight(degree, bits, width, draw(st.integers(1, (bits - 4) // width)))


@given(layout=layouts(), data=st.data())
def test_coefficients_are_the_integers_of_the_definition_and_decode(layout: Layout, data: st.DataObject) -> None:
    largest, tail = (1 << (layout.width - 1)) - 1, min(layout.tail, 2**63 - 1)
    value = st.one_of(st.integers(-largest, largest), st.sampled_from([-largest, 0, largest]))
    error = st.one_of(st.integers(-tail, tail), st.sampled_from([-tail, tail]))
    values = data.draw(st.lists(value, min_size=1, max_size=12))
    count = layout.coefficients(len(values))
    errors = data.draw(st.lists(error, min_size=count, max_size=count))
    encoded = packing.encode(layout, np.array(values, np.int64), np.array(errors, np.int64))
    assert packing.decode(layout, encoded, len(values)).tolist() == values
    primes, modulus = layout.ring.primes, layout.ring.modulus
    for c in range(count):
        exact = reference.coefficient(values[c::count], errors[c], layout.width, layout.values)
        assert reference.integer(encoded.words[:, 0, c].tolist(), primes) == exact % modulus


@pytest.mark.parametrize("degree", SECURE_BITS)
def test_wide_integers_are_chinese_remainders(degree: int) -> None:
    """For all numbers of primes there are; random residues, the largest, and zero."""
    for bits in range(27, SECURE_BITS[degree] + 1, 27):
        layout = tight(degree, bits, 8, 1)
        primes, constants = layout.ring.primes, _constants(layout)
        residues = uniform(layout.ring, 1, bytes(32)).words[:, 0, :50].copy()
        residues[:, 0], residues[:, 1] = np.array(primes) - 1, 0
        limbs = np.empty((len(constants.limit), 47), np.uint32)
        none = np.zeros(len(primes), np.uint32)
        arithmetic.wide_integers(residues, 3, none, constants.inverses, constants.primes, limbs)
        arithmetic.wide_integers(residues, 0, none, constants.inverses, constants.primes, limbs)
        for c in range(47):
            number = int.from_bytes(limbs[:, c].astype("<u4").tobytes(), "little")
            assert number == reference.integer(residues[:, c].tolist(), primes)


@given(
    numbers=st.lists(st.integers(0, 2**128 - 1), min_size=1, max_size=5),
    bound=st.integers(0, 2**128 - 1),
    position=st.integers(0, 127),
    width=st.integers(1, 64),
)
def test_comparing_and_cutting_wide_integers(numbers: list[int], bound: int, position: int, width: int) -> None:
    def limbs(many: list[int]) -> np.ndarray:
        raw = b"".join(number.to_bytes(16, "little") for number in many)
        return np.ascontiguousarray(np.frombuffer(raw, "<u4").astype(np.uint32).reshape(-1, 4).T)

    for limit in (bound, max(numbers), max(numbers) + 1 & 2**128 - 1):
        assert arithmetic.all_below(limbs(numbers), limbs([limit])[:, 0].copy()) == all(x < limit for x in numbers)
    out = np.empty(len(numbers), np.int64)
    arithmetic.fields(limbs(numbers), position, width, out)
    half = 1 << (width - 1)
    assert out.tolist() == [(number >> position) % (2 * half) - half for number in numbers]


def test_the_range_ends_exactly_where_it_should() -> None:
    """Roomy q: one error more than the tail, either way, is refused wherever it is; the tail itself decodes."""
    layout = Layout(QuotientRing(4096, moduli(4096, 90)), 20, 3, 500)
    values = np.arange(3 * (_CHUNK + 5)) % 1999 - 999
    errors = np.full(_CHUNK + 5, 500)
    errors[1::2] = -500
    assert (packing.decode(layout, packing.encode(layout, values, errors), len(values)) == values).all()
    for place in (0, 1, _CHUNK - 1, _CHUNK, _CHUNK + 4):
        for error in (501, -501):
            spoilt = errors.copy()
            spoilt[place] = error
            with pytest.raises(PeerError, match="out of range"):
                packing.decode(layout, packing.encode(layout, values, spoilt), len(values))


@pytest.mark.parametrize("length", [1, 2, 3, 4095, 3 * 4096 - 1, 3 * 4096, 3 * 4096 + 1, 3 * _CHUNK * 2 + 7])
def test_every_length(length: int) -> None:
    layout = tight(4096, 90, 26, 3)
    values = (np.arange(length) * 7919) % (1 << 26) - (1 << 25) + 1
    values[values < -(1 << 25) + 1] = 0
    encoded = packing.encode(layout, values, np.zeros(layout.coefficients(length), np.int64))
    assert encoded.blocks == layout.blocks(length)
    assert (packing.decode(layout, encoded, length) == values).all()
    count = layout.coefficients(length)
    sent = Coefficients.unpack(layout.ring, encoded.pack(count), count)
    assert (packing.decode(layout, sent, length) == values).all()


def one_time_sum(layout: Layout, values: np.ndarray) -> tuple[Coefficients, np.ndarray, np.ndarray]:
    """The sum of all ciphertexts x_i + a s_i + 2^(vw) e_i, the public a, and the sum of the s_i."""
    parties, length = values.shape
    count, ring, a = layout.coefficients(length), layout.ring, uniform(layout.ring, layout.blocks(length), b"a" * 32)
    total, secrets = RunningSum(ring, a.blocks), np.zeros(ring.degree, np.int64)
    for i in range(parties):
        secret = discrete_gaussian(VARIANCE, ring.degree, bytes([i]) * 32)
        errors = discrete_gaussian(VARIANCE, count, bytes([i, 1]) * 16)
        total.add(
            packing.encode(layout, values[i], errors)
            + (a * Coefficients.lift(ring, [secret]).evaluations()).coefficients()
        )
        secrets += secret
    return total.value(), a, secrets


def test_a_sum_opens_with_the_sum_of_the_secrets_and_with_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout(QuotientRing(4096, moduli(4096, 90)), 26, 3, 1837)
    values = np.random.default_rng(1).integers(-32767, 32768, (5, 20_000))
    total, a, secrets = one_time_sum(layout, values)

    def opened(key: np.ndarray) -> np.ndarray:
        return packing.decode(
            layout, total - (a * Coefficients.lift(layout.ring, [key]).evaluations()).coefficients(), values.shape[1]
        )

    assert (opened(secrets) == values.sum(axis=0)).all()
    wrong = secrets.copy()
    wrong[77] += 1
    with pytest.raises(PeerError, match="out of range"):
        opened(wrong)
    switch_off(monkeypatch, packing, "decode", "not arithmetic.all_below(limbs, constants.limit)")
    assert (opened(wrong) != values.sum(axis=0)).mean() > 0.99  # the control: garbage would be handed out


def test_a_layout_that_could_wrap_is_refused_and_would_decode_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = QuotientRing(2048, moduli(2048, 54))
    fitting = tight(2048, 54, 20, 2)
    with pytest.raises(UsageError, match="wrap"):
        Layout(ring, 20, 2, fitting.tail + 1)
    with pytest.raises(UsageError, match="wrap"):
        Layout(ring, 20, 3, 0)
    switch_off(monkeypatch, Layout, "__post_init__", "self.limit > self.ring.modulus")
    wrapping = Layout(ring, 20, 2, 8 * fitting.tail)
    values, errors = np.array([3, 4]), np.array([6 * fitting.tail])
    assert packing.decode(wrapping, packing.encode(wrapping, values, errors), 2).tolist() != [3, 4]


@pytest.mark.parametrize(("width", "values", "tail"), [(1, 1, 1), (65, 1, 1), (8, 0, 1), (8, 1, -1)])
def test_layouts_that_make_no_sense_are_refused(width: int, values: int, tail: int) -> None:
    with pytest.raises(UsageError, match="a layout has"):
        Layout(QuotientRing(4096, moduli(4096, 109)), width, values, tail)


def test_values_that_do_not_fit_and_wrong_sizes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    layout, error = tight(2048, 54, 8, 3), np.zeros(1, np.int64)
    for values in ([128], [-128], [0, 0, 200], []):
        with pytest.raises(UsageError, match="fit"):
            packing.encode(layout, np.array(values, np.int64), error)
    for count in (0, 2, 2048):
        with pytest.raises(UsageError, match="errors"):
            packing.encode(layout, np.zeros(3, np.int64), np.zeros(count, np.int64))
    other = QuotientRing(2048, moduli(2048, 53))
    for wrong, length in (
        (Coefficients.zeros(layout.ring, 2), 3),
        (Coefficients.zeros(layout.ring, 1), 3 * 2048 + 1),
        (Coefficients.zeros(other, 1), 3),
    ):
        with pytest.raises(UsageError, match="do not hold"):
            packing.decode(layout, wrong, length)
    switch_off(monkeypatch, packing, "encode", "int(values.max()) > largest")
    spilt = packing.encode(layout, np.array([200, 0, 0]), error)
    assert packing.decode(layout, spilt, 3).tolist() == [-56, 1, 0]
