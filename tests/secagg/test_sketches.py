"""Sketches: what travels of a vector, what comes back of it, that both are linear and unbiased, and what is refused."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dp.calibrate import calibrate
from dp.noise import Family, NoiseSpec
from protocols.plan import RoundPlan
from protocols.roster import Identity, Roster
from secagg.crypto.prg import Prg
from secagg.encoding import ENCODING, Encoding, Rounding, Sensitivity
from secagg.errors import DecodeError, UsageError
from secagg.sketches import SKETCH, LowRank, RandomK, Ranges, Sketch, Table, chosen
from tests.controls import switch_off
from tests.vectors import verify

LENGTH = 70
KINDS: dict[str, Sketch] = {
    "some": RandomK(9),
    "most": RandomK(66),
    "all": RandomK(LENGTH),
    "tables": LowRank((Table(1, 3, 8, 2), Table(25, 1, 5, 5), Table(30, 40, 1, 1))),
    "ranges": Ranges(((0, 5), (5, 9), (60, LENGTH))),
    "some in turn": RandomK(9, bytes(32), 7),
    "tables in turn": LowRank((Table(1, 3, 8, 3), Table(30, 8, 5, 2)), bytes(32), 4),
}
WIDTHS = {"some": 9, "most": 66, "all": LENGTH, "tables": LENGTH - 18, "ranges": 19}
WIDTHS |= {"some in turn": 9, "tables in turn": LENGTH - 15 - 24}
every_kind = pytest.mark.parametrize("kind", KINDS)


def seeded(number: int) -> bytes:
    return number.to_bytes(32, "big")


def normal(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


# What travels.


@every_kind
def test_a_sketch_is_linear_and_its_lift_undoes_no_more_than_it_does(kind: str) -> None:
    sketch = KINDS[kind]
    linear = sketch.at(LENGTH, seeded(1))
    first, second = normal(2, LENGTH)
    assert sketch.width(LENGTH) == len(linear.apply(first)) == WIDTHS[kind]
    assert np.allclose(linear.apply(3 * first - second), 3 * linear.apply(first) - linear.apply(second))
    assert np.linalg.norm(linear.apply(first)) <= np.linalg.norm(first) * (1 + 1e-12)
    back = linear.lift(linear.apply(first), unbiased=False)
    assert back.shape == (LENGTH,)
    assert np.allclose(linear.apply(back), linear.apply(first))
    assert np.allclose(linear.apply(first - back), 0)
    again = sketch.at(LENGTH, seeded(1))
    assert np.allclose(again.apply(first), linear.apply(first))


@given(count=st.integers(0, 40), more=st.integers(0, 40), seed=st.binary(min_size=32, max_size=32))
def test_places_are_distinct_ascending_and_as_many_as_are_asked_for(count: int, more: int, seed: bytes) -> None:
    places = chosen(count, count + more, seed).tolist()
    assert places == sorted(set(places))
    assert len(places) == count
    assert not places or 0 <= places[0] <= places[-1] < count + more


@pytest.mark.parametrize(("count", "length"), [(2, 5), (3, 5)])
def test_each_set_of_places_is_as_likely(count: int, length: int) -> None:
    """10 sets, 4,000 draws: chi-square of 9 degrees of freedom above 59 has probability below 3e-9."""
    found = Counter(tuple(chosen(count, length, seeded(n)).tolist()) for n in range(4000))
    assert set(found) == set(combinations(range(length), count))
    assert sum((seen - 400) ** 2 / 400 for seen in found.values()) < 59


def test_each_place_of_a_long_vector_is_as_likely() -> None:
    """500 draws of 60 of 1,000 places, 30 expected in each: chi-square over 999 degrees of freedom, of which draws
    without replacement vary a little less, above 1,330 has probability below 1e-11."""
    seen = np.zeros(1000)
    for number in range(500):
        seen[chosen(60, 1000, seeded(number))] += 1
    assert ((seen - 30) ** 2 / (30 * (1 - 0.06))).sum() < 1330


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "turn" not in kind])
def test_what_comes_back_is_unbiased_over_what_is_drawn(kind: str) -> None:
    """The mean of 3,000 lifts is within 6 standard errors of the vector in each of 70 coordinates (2e-9 each)."""
    vector = normal(LENGTH)
    if kind == "ranges":
        linear = KINDS[kind].at(LENGTH, seeded(1))
        frozen = np.ones(LENGTH, bool)
        frozen[[*range(9), *range(60, 70)]] = False
        assert np.array_equal(linear.lift(linear.apply(vector), unbiased=True), np.where(frozen, 0, vector))
        return
    lifts = np.empty((3000, LENGTH))
    for number in range(3000):
        linear = KINDS[kind].at(LENGTH, seeded(number))
        lifts[number] = linear.lift(linear.apply(vector), unbiased=True)
    error = np.abs(lifts.mean(axis=0) - vector)
    assert (error <= 6 * lifts.std(axis=0) / math.sqrt(3000) + 1e-12).all()


@pytest.mark.parametrize("kind", ["some", "tables"])
def test_another_round_draws_another_sketch(kind: str) -> None:
    vectors = [KINDS[kind].at(LENGTH, seeded(number)).apply(normal(LENGTH)) for number in (1, 2)]
    assert not np.allclose(*vectors)


@pytest.mark.parametrize("kind", ["some in turn", "tables in turn"])
def test_all_of_a_vector_has_travelled_once_every_part_had_its_turn(kind: str) -> None:
    sketch, vector, kept = KINDS[kind], normal(LENGTH), np.zeros(LENGTH)
    left = vector.copy()
    for turn in range(70):  # of 9 places, 9 times all 70; of 2 and 3 columns, 28 times all 5, 26 times all 8 and 2 more
        linear = replace(sketch, turn=turn).at(LENGTH, seeded(turn))
        back = linear.lift(linear.apply(left), unbiased=True)
        kept, left = kept + back, left - back
        assert np.allclose(kept + left, vector)
        if turn == 2:
            assert np.linalg.norm(left) < np.linalg.norm(vector)
        if turn == 7:
            assert np.allclose(left, 0)
    turned = [replace(sketch, turn=turn).at(LENGTH, b"").apply(np.arange(1.0, LENGTH + 1)) for turn in (0, 1)]
    assert not np.allclose(*turned)
    other = replace(sketch, order=seeded(9)).at(LENGTH, b"").apply(vector)
    assert not np.allclose(sketch.at(LENGTH, b"").apply(vector), other)


def test_each_coordinate_has_as_many_turns_and_an_order_is_as_likely_as_any() -> None:
    """70 turns of 9 places are each place 9 times. 6 orders of 3, 3,000 seeds: chi-square of 5 degrees of freedom above
    50 has probability below 2e-9."""
    turns = [RandomK(9, bytes(32), turn).at(LENGTH, b"").apply(np.arange(LENGTH)) for turn in range(70)]
    assert np.bincount(np.concatenate(turns)).tolist() == [9] * LENGTH
    firsts = [[RandomK(1, seeded(n), turn).at(3, b"").apply(np.arange(3))[0] for turn in (0, 1)] for n in range(3000)]
    found = Counter(map(tuple, firsts))
    assert len(found) == 6
    assert sum((seen - 500) ** 2 / 500 for seen in found.values()) < 50


@every_kind
def test_vectors_of_any_numbers_are_sketched_as_doubles_are(kind: str) -> None:
    linear, vector = KINDS[kind].at(LENGTH, seeded(1)), np.arange(LENGTH) - 30
    for dtype in ("i2", "i8", "f4", ">f8"):
        assert np.allclose(linear.apply(vector.astype(dtype)), linear.apply(vector.astype(float)))


# In an encoding: what is clipped, measured and summed is what travels.


def sketched(kind: str, **fields: Any) -> Encoding:
    return Encoding(LENGTH, **{"clip_l2": 2.0, "bits": 16, "sketch": KINDS[kind], **fields})


@every_kind
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"rotate": True},
        {"weight_bound": 5},
        {"beta": Fraction(1, 2)},
        {"rounding": "nearest", "bits": 20},
        {"bits": 2},
    ],
    ids=str,
)
def test_an_encoding_is_of_what_travels(kind: str, fields: dict[str, Any]) -> None:
    encoding, weight = sketched(kind, **fields), 3
    vector = normal(LENGTH) / 9
    sent = WIDTHS[kind]
    width = 1 << (sent - 1).bit_length() if encoding.rotate else sent
    assert encoding.coordinates == width + (encoding.weight_bound > 1)
    plain = replace(encoding, length=sent, sketch=None)
    assert encoding.sensitivity() == plain.sensitivity()
    assert encoding.ring_bits(20) == plain.ring_bits(20)
    linear = KINDS[kind].at(LENGTH, seeded(1))
    values = encoding.encode(vector, weight=weight, seed=seeded(1), rng=Prg(seeded(5)))
    expected = plain.encode(linear.apply(vector), weight=weight, seed=seeded(1), rng=Prg(seeded(5)))
    assert values.tolist() == expected.tolist()
    decoded = encoding.decode(values, count=1, seed=seeded(1))
    short = plain.decode(values, count=1, seed=seeded(1))
    assert decoded.weight == short.weight
    assert np.array_equal(decoded.vector, linear.lift(short.vector, unbiased=True))


@every_kind
def test_a_long_vector_is_clipped_after_the_sketch(kind: str) -> None:
    encoding = sketched(kind, users=3)
    values = encoding.encode_users([normal(LENGTH) * 1e6] * 2, seed=seeded(1), rng=Prg(seeded(5)))
    sent = values / 2 / encoding.scale
    assert np.linalg.norm(sent) == pytest.approx(2.0, rel=1e-2)
    assert np.square(values // 2).sum() <= encoding.sensitivity().l2_squared


def test_nothing_is_drawn_for_a_vector_of_another_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan of 2^34 coordinates, of which one travels, is a few bytes, and its permutation 256 GB."""
    drawn: list[int] = []
    monkeypatch.setattr(RandomK, "at", lambda self, length, seed: drawn.append(length))
    encoding = Encoding(1 << 34, clip_l2=1.0, sketch=RandomK(1, bytes(32)))
    with pytest.raises(UsageError, match="an update has shape"):
        encoding.encode(np.zeros(3), weight=1, seed=seeded(1), rng=Prg(seeded(5)))
    silo = replace(encoding, users=2)
    assert not silo.encode_users([np.zeros(3)], seed=seeded(1), rng=Prg(seeded(5))).any()
    assert not drawn


@every_kind
def test_silos_users_are_sketched_one_by_one(kind: str) -> None:
    encoding = sketched(kind, users=4, rounding=Rounding.NEAREST, bits=20)
    users = normal(3, LENGTH) * 3
    device = replace(encoding, users=0)
    draws = {"seed": seeded(1), "rng": Prg(seeded(5))}
    total = sum(device.encode(user, weight=1, **draws) for user in users)
    assert encoding.encode_users(users, **draws).tolist() == np.asarray(total).tolist()


@every_kind
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_found_where_nothing_of_it_travels(
    kind: str, bad: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That a vector counts as none does not follow from what a seed has chosen."""
    encoding = sketched(kind)
    silo = replace(encoding, users=1)
    for place in range(LENGTH):
        vector = normal(LENGTH)
        vector[place] = bad
        with pytest.raises(UsageError, match="NaN or infinite"):
            encoding.encode(vector, weight=1, seed=seeded(1), rng=Prg(seeded(5)))
        assert not silo.encode_users([vector], seed=seeded(1), rng=Prg(seeded(5))).any()
    if kind in ("some", "most", "ranges"):
        vector = normal(LENGTH)
        vector[np.isnan(KINDS[kind].at(LENGTH, seeded(1)).lift(np.full(WIDTHS[kind], np.nan), False)) == 0] = bad
        switch_off(monkeypatch, Encoding, "_bounded", "np.isfinite(vector).all()", "True")
        assert silo.encode_users([vector], seed=seeded(1), rng=Prg(seeded(5))).any()


def test_a_sketch_that_lengthens_moves_a_sum_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing rests on orthonormal columns: what travels is clipped, and its integers are measured."""
    encoding = sketched("tables", users=1)
    monkeypatch.setattr("secagg.sketches._orthonormal", lambda rows, count, prg: np.full((rows, count), 1e6))
    values = encoding.encode_users([normal(LENGTH)], seed=seeded(1), rng=Prg(seeded(5)))
    assert 0 < np.square(values).sum() <= encoding.sensitivity().l2_squared


def test_a_product_that_no_double_holds_makes_a_users_vector_zero() -> None:
    encoding = sketched("tables", users=2)
    huge = np.full(LENGTH, 1.7e308)
    with np.errstate(all="raise"):
        values = encoding.encode_users([huge, normal(LENGTH)], seed=seeded(1), rng=Prg(seeded(5)))
    assert np.square(values).sum() <= 4 * encoding.sensitivity().l2_squared


@pytest.mark.parametrize("kind", ["some", "most", "ranges"])
def test_whole_numbers_stay_exact_where_coordinates_are_chosen(kind: str) -> None:
    encoding = replace(Encoding.integers(LENGTH, bits=8), sketch=KINDS[kind])
    vector = np.arange(LENGTH) - 30
    values = encoding.encode(vector, weight=1, seed=seeded(1), rng=bytes)
    assert values.tolist() == KINDS[kind].at(LENGTH, seeded(1)).apply(vector).tolist()


# One bit.


def test_one_bit_is_a_sign_by_lot() -> None:
    """40,000 draws of each of five values: the mean is within 6 standard errors, at most 1/200 each (2e-9)."""
    vector, draws = np.array([0.0, 1.0, -0.5, 2.0, -9.0]), 40_000
    encoding = Encoding(5 * draws, clip_l2=1e4, bits=1, clip_inf=2.0)
    values = encoding.encode(np.tile(vector, draws), weight=1, seed=seeded(1), rng=Prg(seeded(5)))
    assert set(values.tolist()) == {-1, 1}
    means = encoding.decode(values, count=1, seed=seeded(1)).vector.reshape(draws, 5).mean(axis=0)
    assert np.abs(means - np.clip(vector, -2, 2)).max() < 6 * 2 / 200
    assert means[3:].tolist() == [2.0, -2.0]


def test_signs_are_as_long_as_they_are_many_however_short_the_clip() -> None:
    """As doubles (0 + sqrt(3))^2 is below 3, and no three signs would be short enough."""
    encoding = Encoding(3, clip_l2=1e-10, bits=1, clip_inf=1e10)
    assert encoding.sensitivity() == Sensitivity(l1=3, l2_squared=3)
    assert set(np.abs(encoding.encode(normal(3), weight=1, seed=seeded(1), rng=Prg(seeded(5)))).tolist()) == {1}


def test_one_bit_is_measured_weighted_and_left_out() -> None:
    encoding = Encoding(5, clip_l2=4.0, bits=1, weight_bound=7)
    assert (encoding.largest, encoding.ring_bits(20)) == (1, 9)
    assert replace(encoding, weight_bound=1).sensitivity() == Sensitivity(l1=5, l2_squared=5)
    values = encoding.encode(normal(5), weight=3, seed=seeded(1), rng=Prg(seeded(5)))
    assert set(np.abs(values).tolist()) == {3}
    assert not encoding.encode(None, weight=3, seed=seeded(1), rng=Prg(seeded(5))).any()


def test_who_has_no_update_for_sums_of_one_bit_is_not_seen_in_them() -> None:
    """Zeros would make each coordinate of the sum even where it is odd with an update; so would a silo's users."""
    encoding = Encoding(5, clip_l2=4.0, bits=1, rotate=True)
    roster = Roster.of([Identity.generate(name) for name in ("ann", "bob", "cat")])
    plan = RoundPlan.propose("secagg", roster, encoding, min_contributors=3, dropout=0, corrupt=0)
    draws = {"weight": 1, "seed": seeded(1), "rng": Prg(seeded(5))}
    for values in (encoding.encode(None, **draws), plan.encode_update(None, 1, Prg(seeded(5)))):
        assert values.tolist() == encoding.encode(np.zeros(5), **draws | {"rng": Prg(seeded(5))}).tolist()
        assert set(np.abs(values).tolist()) == {1}
    fed = replace(plan, encoding=replace(encoding, feedback=True))
    left = np.full(5, 0.5, np.float32)
    assert set(np.abs(fed.encode_update(None, 1, Prg(seeded(5)), [left])).tolist()) == {1}
    assert (left == 0.5).all()
    with pytest.raises(UsageError, match="one unit has one residual, not 2"):
        fed.encode_update(np.zeros(5), 1, Prg(seeded(5)), [left, left])
    with pytest.raises(UsageError, match="how many users silos have"):
        Encoding(5, clip_l2=4.0, bits=1, users=2)


@pytest.mark.parametrize(
    "fields",
    [{"rounding": "nearest", "clip_inf": 0.001}, {"rounding": "exact", "clip_inf": 1.0}, {"beta": Fraction(1, 2)}],
)
def test_one_bit_is_drawn_once(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="one bit is drawn by lot"):
        Encoding(5, clip_l2=1.0, bits=1, **fields)


def test_one_bit_has_no_zero_and_so_no_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    roster = Roster.of([Identity.generate(name) for name in ("ann", "bob", "cat", "dan", "eve")])
    noise = NoiseSpec(Family.SKELLAM, Fraction(1000))

    def plan() -> RoundPlan:
        encoding = Encoding(5, clip_l2=1.0, bits=1)
        return RoundPlan.propose("secagg", roster, encoding, min_contributors=5, dropout=0, corrupt=0, noise=noise)

    with pytest.raises(UsageError, match="a coordinate of one bit is none"):
        plan()
    switch_off(monkeypatch, RoundPlan, "__post_init__", "self.noise is not None and self.encoding.bits == 1")
    plan()


# What is refused, and what travels of a sketch itself.


WRONG: list[tuple[Any, str]] = [
    (RandomK(0), "1 to 70 are kept, not 0"), (RandomK(LENGTH + 1), "not 71"), (RandomK(-1), "not -1"),
    (LowRank((Table(0, 8, 9, 2),)), "do not fit into 70"), (LowRank((Table(69, 1, 2, 1),)), "do not fit"),
    (Ranges(((0, 71),)), "do not fit into 70"), (Ranges(((0, 1), (69, 71))), "do not fit"), ("random-k", "no sketch"),
]  # fmt: skip


@pytest.mark.parametrize(("sketch", "said"), WRONG, ids=str)
def test_a_sketch_of_other_vectors_is_refused(sketch: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Encoding(LENGTH, 1.0, sketch=sketch)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Table(0, 2, 3, 4), "rank of 1 to 3, not 4"), (lambda: Table(0, 2, 3, 0), "not 0"),
        (lambda: Table(-1, 2, 3, 1), "a place"), (lambda: Table(0, 0, 3, 1), "rows"), (lambda: LowRank(()), "not 0"),
        (lambda: LowRank((Table(0, 2, 3, 1), Table(5, 2, 3, 1))), "one after the other"),
        (lambda: LowRank((Table(9, 2, 3, 1), Table(0, 2, 3, 1))), "one after the other"),
        (lambda: LowRank((Table(0, 1, 1 << 13, 1 << 12),)), "33554432|16777216 numbers"),
        (lambda: LowRank((Table(0, 1, 4097, 1),), bytes(32)), "16777216 numbers at most, columns times columns"),
        (lambda: RandomK(1, bytes(31)), "an order of 32 bytes"), (lambda: RandomK(1, b"", 1), "of an order"),
        (lambda: RandomK(1, bytes(32), -1), "turns, from 0"), (lambda: RandomK(1, bytes(32), 1 << 32), "below 2.32"),
        (lambda: LowRank((Table(0, 1, 1, 1),), b"", 1), "of an order"),
        (lambda: LowRank((Table(0, 1, 1, 1),) * 1025), "not 1025"), (lambda: Ranges(()), "not 0"),
        (lambda: Ranges([(2 * i, 2 * i + 1) for i in range(1025)]), "not 1025"),
        (lambda: Ranges(((3, 3),)), "not empty"), (lambda: Ranges(((5, 3),)), "not empty"),
        (lambda: Ranges(((-1, 3),)), "not empty"), (lambda: Ranges(((0, 3), (2, 4))), "one after the other"),
        (lambda: Ranges(((4, 6), (0, 3))), "one after the other"),
        (lambda: Encoding(LENGTH, 2.0, bits=8, clip_inf=127.0, sketch=KINDS["tables"], rounding="exact"), "exact"),
        (lambda: sketched("some", rotate=True, rounding="exact"), "exact"),
    ],
)  # fmt: skip
def test_what_is_no_sketch_is_refused(make: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make()


@every_kind
def test_a_sketch_survives_the_wire(kind: str) -> None:
    assert SKETCH.decode(SKETCH.encode(KINDS[kind])) == KINDS[kind]
    encoding = sketched(kind)
    assert ENCODING.decode(ENCODING.encode(encoding)) == encoding
    assert hash(encoding) == hash(ENCODING.decode(ENCODING.encode(encoding)))


def test_a_sketch_of_two_kinds_does_not_decode() -> None:
    """Each value is written in one way: one of two kinds would be read as one of them."""
    some, tables, ranges = (SKETCH.encode(KINDS[kind]) for kind in ("some", "tables", "ranges"))
    turn = SKETCH.encode(KINDS["some in turn"])[-40:]
    assert SKETCH.decode(some[:-8] + turn) == KINDS["some in turn"]
    for wrong, said in (
        (some[:8] + tables[8:], "one kind"),
        (some[:8] + ranges[8:], "one kind"),
        (bytes(8) + some[8:], "one kind"),
        (ranges[:-8] + turn, "no turns"),
    ):
        with pytest.raises(DecodeError, match=said):
            SKETCH.decode(wrong)


def test_a_sketch_of_another_vector_does_not_decode() -> None:
    sent = ENCODING.encode(sketched("some")).replace((9).to_bytes(8, "big"), (71).to_bytes(8, "big"))
    with pytest.raises(DecodeError, match="not 71"):
        ENCODING.decode(sent)


# In plans.


@every_kind
def test_the_page_of_the_wire_says_what_comes_back_of_a_sum(kind: str) -> None:
    roster = Roster.of([Identity.generate(name) for name in ("ann", "bob", "cat", "dan", "eve")])
    encoding = sketched(kind, bits=12, clip_l2=20.0)
    plan = RoundPlan.propose("secagg", roster, encoding, min_contributors=3, dropout="0.3", session=bytes(16))
    total = np.arange(encoding.coordinates) - 5
    decoded = plan.decode_total(total, 5).vector
    assert np.allclose(verify.floats(verify.Plan(plan.encode()), total.tolist()), decoded)
    other = replace(plan, encoding=replace(encoding, sketch=RandomK(3)))
    assert plan.digest() != other.digest()
    assert (
        not np.array_equal(decoded, plan.next_round().decode_total(total, 5).vector)
        or kind in ("ranges", "all")
        or "turn" in kind
    )


def test_noise_for_a_sketch_is_that_for_what_travels() -> None:
    asked = {"epsilon": 4, "delta": 1e-6, "rounds": 10, "clients": 100, "clip_l2": 1.0}
    short = calibrate(**asked, length=500)
    long = calibrate(**asked, length=10_000, sketch=RandomK(500))
    assert long.noise == short.noise
    assert (long.ring_bits, long.deviation) == (short.ring_bits, short.deviation)
    assert replace(long.encoding, length=500, sketch=None) == short.encoding


# Feedback: what a sketch and rounding have lost is kept by the client, for its next vectors.


FED: dict[str, dict[str, Any]] = {
    "some": {"sketch": KINDS["some"]},
    "some, rotated, of few bits": {"sketch": KINDS["some"], "rotate": True, "bits": 4},
    "tables": {"sketch": KINDS["tables"], "clip_l2": 6.0},
    "tables, to the nearest": {"sketch": KINDS["tables"], "rounding": "nearest", "bits": 24},
    "few bits": {"bits": 2, "rotate": True, "clip_inf": 0.4},
    "one bit": {"bits": 1, "rotate": True, "clip_inf": 0.4},
    "repeated": {"bits": 4, "beta": Fraction(1, 2)},
    "weighted": {"bits": 3, "weight_bound": 9},
}
every_feedback = pytest.mark.parametrize("fed", FED)


def with_feedback(fed: str, **fields: Any) -> Encoding:
    return Encoding(LENGTH, **{"clip_l2": 2.0, "bits": 16, "feedback": True, **FED[fed], **fields})


def zeros(count: int | None = None) -> Any:
    return np.zeros(LENGTH, np.float32) if count is None else [zeros() for _ in range(count)]


@every_feedback
def test_what_is_said_and_what_is_left_are_the_vector(fed: str) -> None:
    """With a clip that cuts nothing: over ten rounds, too, in which nothing is lost and nothing counted twice. What
    rounding loses beside a sketch is not kept: it is little here."""
    fine = {"bits": 32} if "sketch" in FED[fed] else {"clip_inf": 30.0}
    encoding = with_feedback(fed, clip_l2=1e3, **fine)
    residual, said, wanted = zeros(), np.zeros(LENGTH), np.zeros(LENGTH)
    for number in range(10):
        update = normal(LENGTH, seed=number)
        values = encoding.encode(update, weight=3, seed=seeded(number), rng=Prg(seeded(5)), residual=residual)
        one = encoding.decode(values, count=1, seed=seeded(number))
        said, wanted = said + one.vector / (3 if encoding.weight_bound > 1 else 1), wanted + update
        assert np.allclose(said + residual, wanted, atol=1e-3)


@every_feedback
def test_without_a_residual_the_same_integers_come_of_zeros(fed: str) -> None:
    encoding = with_feedback(fed)
    draws = {"weight": 3, "seed": seeded(1)}
    first = encoding.encode(normal(LENGTH), rng=Prg(seeded(5)), residual=zeros(), **draws)
    plain = replace(encoding, feedback=False).encode(normal(LENGTH), rng=Prg(seeded(5)), **draws)
    assert first.tolist() == plain.tolist()


@every_feedback
def test_whatever_is_left_one_unit_moves_a_sum_no_further(fed: str) -> None:
    encoding = with_feedback(fed, weight_bound=1)
    for size in (1.0, 1e20, float(np.finfo(np.float32).max)):
        residual = (normal(LENGTH, seed=3) * size / 4).astype(np.float32)
        values = encoding.encode(normal(LENGTH), weight=1, seed=seeded(1), rng=Prg(seeded(5)), residual=residual)
        assert 0 < np.square(values).sum() <= encoding.sensitivity().l2_squared
        assert np.isfinite(residual).all()


def test_what_the_clip_has_cut_off_is_not_kept() -> None:
    """A vector a million times too long is forgotten where it has travelled, and no longer than it takes to travel."""
    encoding = with_feedback("some", clip_l2=1.0)
    residual = zeros()
    encoding.encode(np.full(LENGTH, 1e6), weight=1, seed=seeded(1), rng=Prg(seeded(5)), residual=residual)
    places = chosen(9, LENGTH, seeded(1))
    assert not residual[places].any()
    assert np.count_nonzero(residual > 0.99 * LENGTH / 9 / math.sqrt(LENGTH - 9)) == LENGTH - 9
    for number in range(2, 200):
        encoding.encode(np.zeros(LENGTH), weight=1, seed=seeded(number), rng=Prg(seeded(5)), residual=residual)
    assert np.linalg.norm(residual) < 1


@pytest.mark.parametrize("kind", ["some", "tables"])
def test_what_a_sketch_leaves_out_of_one_far_too_long_vector_is_short(kind: str) -> None:
    """A random subspace takes in a fraction of what is left: without a bound it would travel for hundreds of rounds."""
    encoding = with_feedback(kind, clip_l2=1.0)
    for size in (1e30, 1e307):
        residual = zeros()
        encoding.encode(normal(LENGTH) * size, weight=1, seed=seeded(1), rng=Prg(seeded(5)), residual=residual)
        assert 0 < np.linalg.norm(residual.astype(np.float64)) <= 1.0001 * LENGTH / WIDTHS[kind]
    wide, residual = with_feedback(kind, clip_l2=1e100), zeros()
    wide.encode(normal(LENGTH) * 1e60, weight=1, seed=seeded(1), rng=Prg(seeded(5)), residual=residual)
    assert np.isfinite(residual).all()


def test_of_what_no_double_holds_nothing_is_left() -> None:
    """What a table's products leave out of a row near the largest double can be more than any double is."""
    encoding, linear, row = with_feedback("tables"), KINDS["tables"].at(LENGTH, seeded(1)), np.zeros(LENGTH)
    for signs in product((-1.7e308, 1.7e308), repeat=8):
        row[1:9] = signs
        with np.errstate(all="ignore"):
            sent = linear.apply(row)
            left_out = row - linear.lift(sent, unbiased=False)
        if np.isfinite(sent).all() and not np.isfinite(left_out).all():
            break
    residual = np.full(LENGTH, 0.5, np.float32)
    assert encoding.encode(row, weight=1, seed=seeded(1), rng=Prg(seeded(5)), residual=residual).any()
    assert not residual.any()


@pytest.mark.parametrize(
    ("fields", "bound"),
    [
        ({"sketch": RandomK(9)}, 2 * LENGTH / 9),
        ({"sketch": LowRank((Table(0, 10, 7, 2),))}, 2 * 7 / 2),
        ({"bits": 2, "rotate": True, "clip_inf": 0.4}, 2.0 + math.sqrt(128) * 0.4),
    ],
    ids=str,
)
def test_residuals_do_not_grow(fields: dict[str, Any], bound: float) -> None:
    """1,000 rounds with one update of norm 1. A sketch that keeps a fraction f of a vector, on average, leaves no more
    than sqrt(1 - f) / (1 - sqrt(1 - f)) < 2 / f; the norm of one draw is larger at times, not by half."""
    encoding = Encoding(LENGTH, **{"clip_l2": 2.0, "bits": 16, "feedback": True, **fields})
    update, residual, longest = normal(LENGTH) / np.linalg.norm(normal(LENGTH)), zeros(), 0.0
    for number in range(1000):
        encoding.encode(update, weight=1, seed=seeded(number), rng=Prg(seeded(number)), residual=residual)
        longest = max(longest, float(np.linalg.norm(residual)))
    assert 0 < longest < 1.5 * bound


def test_with_feedback_coarse_sums_of_many_rounds_are_those_of_fine_ones() -> None:
    """2 bits, 300 rounds of one vector: what is left at the end is all that is lost; without feedback errors add up."""
    update, errors = normal(LENGTH) / np.linalg.norm(normal(LENGTH)), []
    for feedback in (True, False):
        encoding = Encoding(LENGTH, clip_l2=3.0, bits=2, rotate=True, clip_inf=0.4, feedback=feedback)
        residual, said = zeros() if feedback else None, np.zeros(LENGTH)
        for number in range(300):
            draws = {"seed": seeded(number), "rng": Prg(seeded(number))}
            said += encoding.decode(
                encoding.encode(update, weight=1, residual=residual, **draws), count=1, seed=seeded(number)
            ).vector
        errors.append(float(np.linalg.norm(said / 300 - update)))
    assert errors[0] < errors[1] / 5


@pytest.mark.parametrize("fed", ["some", "tables", "few bits"])
def test_each_user_of_a_silo_has_a_residual_of_its_own(fed: str) -> None:
    encoding = with_feedback(fed, users=3)
    device = replace(encoding, users=0)
    users, kept, alone = normal(3, LENGTH), zeros(3), zeros(3)
    for number in range(3):
        draws = {"seed": seeded(number), "rng": Prg(seeded(number))}
        total = encoding.encode_users(users, residuals=kept, **draws)
        draws["rng"] = Prg(seeded(number))
        parts = [device.encode(one, weight=1, residual=left, **draws) for one, left in zip(users, alone, strict=True)]
        assert total.tolist() == np.sum(parts, axis=0).tolist()
        assert all(np.array_equal(*both) for both in zip(kept, alone, strict=True))


def test_one_users_vector_that_is_wrong_changes_no_residual() -> None:
    encoding = with_feedback("some", users=3)
    residuals = [np.full(LENGTH, 0.5, np.float32) for _ in range(3)]
    vectors = [normal(LENGTH), np.full(LENGTH, math.nan), normal(LENGTH, seed=2)]
    encoding.encode_users(vectors, seed=seeded(1), rng=Prg(seeded(5)), residuals=residuals)
    assert (residuals[1] == 0.5).all()
    assert not any((residuals[at] == 0.5).all() for at in (0, 2))


def test_without_an_update_or_after_an_error_a_residual_stays() -> None:
    encoding = with_feedback("some")
    residual = np.full(LENGTH, 0.5, np.float32)
    draws = {"weight": 1, "seed": seeded(1), "rng": Prg(seeded(5)), "residual": residual}
    assert not encoding.encode(None, **draws).any()
    for wrong in (np.full(LENGTH, math.inf), np.zeros(3), "x"):
        with pytest.raises(UsageError):
            encoding.encode(wrong, **draws)
    assert (residual == 0.5).all()


@pytest.mark.parametrize(
    "wrong", [None, np.zeros(3, np.float32), np.zeros(LENGTH), np.zeros((1, LENGTH), np.float32)], ids=str
)
def test_what_is_no_residual_is_refused(wrong: Any) -> None:
    with pytest.raises(UsageError, match="residual"):
        with_feedback("some").encode(normal(LENGTH), weight=1, seed=seeded(1), rng=Prg(seeded(5)), residual=wrong)
    with pytest.raises(UsageError, match="residual"):
        with_feedback("some", users=2).encode_users(
            normal(2, LENGTH), seed=seeded(1), rng=Prg(seeded(5)), residuals=wrong if wrong is None else [wrong] * 2
        )


def test_residuals_are_as_many_as_users_and_only_where_there_is_feedback() -> None:
    draws = {"seed": seeded(1), "rng": Prg(seeded(5))}
    with pytest.raises(UsageError, match="as many residuals"):
        with_feedback("some", users=2).encode_users(normal(2, LENGTH), residuals=zeros(1), **draws)
    with pytest.raises(UsageError, match="where the encoding has feedback"):
        sketched("some").encode(normal(LENGTH), weight=1, residual=zeros(), **draws)
    frozen = zeros()
    frozen.setflags(write=False)
    with pytest.raises(UsageError, match="can be written"):
        with_feedback("some").encode(normal(LENGTH), weight=1, residual=frozen, **draws)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"sketch": KINDS["ranges"], "bits": 2}, "frozen"),
        ({"bits": 9}, "8 bits or fewer, not 9"),
        ({"sketch": KINDS["some"], "rounding": "exact", "clip_inf": 1.0}, "exact"),
        ({"bits": 4, "users": 3, "sampled": Fraction(1, 2)}, "sampled"),
    ],
    ids=str,
)
def test_feedback_of_nothing_or_of_a_sample_is_refused(
    fields: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=said):
        Encoding(LENGTH, clip_l2=2.0, feedback=True, **fields)
    monkeypatch.setattr(Encoding, "_check_feedback", lambda self: None)
    sent = ENCODING.encode(Encoding(LENGTH, clip_l2=2.0, feedback=True, **fields))
    monkeypatch.undo()
    with pytest.raises(DecodeError, match=said):
        ENCODING.decode(sent)


@given(
    length=st.integers(1, 25),
    count=st.integers(1, 25),
    turn=st.integers(0, 99),
    seed=st.binary(min_size=32, max_size=32),
    values=st.sampled_from([3, 2**64]),
)
def test_a_part_is_that_of_the_sorted_words_though_some_of_them_are_equal(
    length: int, count: int, turn: int, seed: bytes, values: int
) -> None:
    count = min(count, length)
    words = [int.from_bytes(Prg(seed)(8 * length)[8 * at : 8 * at + 8], "little") % values for at in range(length)]
    drawn = b"".join(word.to_bytes(8, "little") for word in words)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("secagg.sketches._stream", lambda order: lambda size: drawn)
        linear = RandomK(count, order=bytes(32), turn=turn).at(length, b"")
    in_order = sorted(range(length), key=words.__getitem__)
    part = sorted(in_order[(turn * count + at) % length] for at in range(count))
    assert linear.apply(np.arange(length)).tolist() == part


def test_as_much_as_there_may_be_is_taken() -> None:
    assert LowRank([Table(at, 1, 1, 1) for at in range(1024)]).width(2000) == 2000
    assert LowRank((Table(0, 1, 1 << 12, 1 << 12),)).width(1 << 12) == 1 << 12
    assert Ranges([(2 * at, 2 * at + 1) for at in range(1024)]).width(2047) == 1024
    assert Encoding(LENGTH, 1.0, bits=8, feedback=True).feedback
