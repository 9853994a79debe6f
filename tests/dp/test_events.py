"""Events are exact, frozen, validated, and survive their record."""

from __future__ import annotations

from fractions import Fraction
from math import sqrt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dp import events
from dp.accountants import rdp
from dp.audit.bounds import gaussian_epsilon
from dp.calibrate import calibrate
from dp.events import (
    DiscreteGaussians,
    DiscreteLaplace,
    Everyone,
    FixedSizeSample,
    Gaussian,
    Guarantee,
    Holder,
    PoissonSample,
    Relation,
    Release,
    Selection,
    Skellam,
    Trust,
    Unit,
)
from secagg.errors import DecodeError, UsageError

POSITIVE = st.fractions(Fraction(1, 10**9), 10**9)
COUNTS = st.integers(1, 10**12)
GUARANTEES = st.builds(Guarantee, st.sampled_from(Unit), st.sampled_from(Relation), st.sampled_from([Trust.CENTRAL]))
MECHANISMS = st.one_of(
    st.builds(Gaussian, POSITIVE),
    st.builds(DiscreteLaplace, POSITIVE, COUNTS),
    st.builds(Skellam, POSITIVE, COUNTS, COUNTS),
    st.builds(DiscreteGaussians, POSITIVE.map(lambda v: v + 8), COUNTS, COUNTS, COUNTS),
)
SAMPLINGS = st.one_of(
    st.just(Everyone()),
    st.builds(PoissonSample, st.fractions(Fraction(1, 10**6), 1)),
    st.integers(1, 10**6).flatmap(lambda n: st.builds(FixedSizeSample, st.integers(1, n), st.just(n))),
)
RELEASES = st.builds(Release, MECHANISMS, SAMPLINGS, GUARANTEES)
EVENTS = st.one_of(RELEASES, st.builds(Selection, RELEASES, COUNTS, st.fractions(Fraction(11, 10), 100)))
RELEASE = Release(
    Gaussian(Fraction(3, 2)), PoissonSample(Fraction(1, 9)), Guarantee(Unit.USER, Relation.ZERO_OUT, Trust.CENTRAL)
)


def test_a_missing_client_takes_its_noise_along(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten sums over 100 clients, of which one may be missing. Control: with add-or-remove allowed they would claim 4.0
    for both, and the variance of what comes out tells the two worlds apart at 43."""
    asked: dict[str, Any] = {
        "epsilon": 4,
        "delta": 1e-6,
        "rounds": 10,
        "clients": 100,
        "length": 65536,
        "clip_l2": 1.0,
        "dropouts": 1,
        "relation": Relation.ADD_OR_REMOVE,
    }
    with pytest.raises(UsageError, match="takes its noise along"):
        calibrate(**asked)
    record = events.to_record(Guarantee(Unit.USER, Relation.ZERO_OUT, Trust.DISTRIBUTED))
    with pytest.raises(DecodeError, match="takes its noise along"):
        events.from_record({**record, "relation": "add-or-remove"})
    monkeypatch.setattr(Guarantee, "__post_init__", lambda self: None)
    found = calibrate(**asked)
    assert 3.99 < found.epsilon <= 4
    present, missing = (found.noise.honest_variance(100, survivors) for survivors in (100, 99))
    # The sum of N squares is all but normal: its mean moves by this fraction of N, its deviation is sqrt(2 N).
    mu = float(1 - missing / present) * sqrt(10 * found.encoding.coordinates / 2)
    assert 42 < gaussian_epsilon(mu, 1e-6) < 45


@pytest.mark.parametrize("unit", Unit)
@pytest.mark.parametrize("relation", [Relation.ZERO_OUT, Relation.REPLACE_ONE])
def test_data_may_change_where_the_noise_stays(unit: Unit, relation: Relation) -> None:
    """A client, or a user or an example inside a silo; if it is replaced, the sum moves by two contributions."""
    once, twice = (Skellam(Fraction(10**6), l2_squared=k * k * 100, l1=k * 80) for k in (1, relation.stretch))
    guarantee = Guarantee(unit, relation, Trust.DISTRIBUTED)
    zeroed = Guarantee(unit, Relation.ZERO_OUT, Trust.DISTRIBUTED)
    assert rdp.curve(Release(once, Everyone(), guarantee)) == rdp.curve(Release(twice, Everyone(), zeroed))


def test_who_holds_the_data_is_part_of_a_guarantee() -> None:
    """So sums of users inside silos and of whole clients are not added up."""
    device = Guarantee(Unit.USER, Relation.ZERO_OUT, Trust.DISTRIBUTED)
    silo = Guarantee(Unit.USER, Relation.ZERO_OUT, Trust.DISTRIBUTED, Holder.SILO)
    assert device.holder is Holder.DEVICE
    releases = [Release(Skellam(Fraction(10**6), 100, 80), Everyone(), one) for one in (device, silo)]
    accountant = rdp.RdpAccountant()
    accountant.compose(releases[1])
    with pytest.raises(UsageError, match="cannot be added"):
        accountant.compose(releases[0])
    record = events.to_record(releases[1])
    assert record["guarantee"]["holder"] == "silo"
    assert events.from_record(record) == releases[1] != releases[0]
    with pytest.raises(UsageError, match="the unit inside a silo is a user"):
        Guarantee(Unit.EXAMPLE, Relation.ZERO_OUT, Trust.DISTRIBUTED, Holder.SILO)


@given(EVENTS)
def test_a_record_gives_the_event_back(event: Any) -> None:
    assert events.from_record(events.to_record(event)) == event


def changed(record: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    head, *rest = path
    return {**record, head: changed(record[head], tuple(rest), value) if rest else value}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("kind",), "Laplace"),
        (("kind",), "Gaussian"),
        (("extra",), 1),
        (("mechanism",), 3),
        (("mechanism",), {"kind": "Everyone"}),
        (("mechanism", "noise_multiplier"), "6/4"),
        (("mechanism", "noise_multiplier"), "1.5"),
        (("mechanism", "noise_multiplier"), 1.5),
        (("mechanism", "noise_multiplier"), "1/0"),
        (("mechanism", "noise_multiplier"), "-1"),
        (("sampling", "rate"), "2"),
        (("guarantee", "unit"), "household"),
        (("guarantee", "trust"), "distributed"),
        (("guarantee", "holder"), "cloud"),
    ],
)
def test_a_record_that_is_none_is_refused(path: tuple[str, ...], value: Any) -> None:
    with pytest.raises(DecodeError):
        events.from_record(changed(events.to_record(RELEASE), path, value))


@pytest.mark.parametrize(
    "record", [None, 3, [], {}, {"kind": []}, {"kind": "Skellam", "variance": "1", "l1": True, "l2_squared": 1}]
)
def test_other_json_is_refused(record: Any) -> None:
    with pytest.raises(DecodeError):
        events.from_record(record)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Gaussian(Fraction(0)),
        lambda: DiscreteLaplace(Fraction(1), 0),
        lambda: DiscreteLaplace(Fraction(-1), 1),
        lambda: Skellam(Fraction(0), 1, 1),
        lambda: Skellam(Fraction(1), 0, 1),
        lambda: Skellam(Fraction(1), 1, 0),
        lambda: DiscreteGaussians(Fraction(7), 1, 1, 1),
        lambda: DiscreteGaussians(Fraction(8), 0, 1, 1),
        lambda: DiscreteGaussians(Fraction(8), 1, 0, 1),
        lambda: DiscreteGaussians(Fraction(8), 1, 1, 0),
        lambda: PoissonSample(Fraction(0)),
        lambda: PoissonSample(Fraction(3, 2)),
        lambda: FixedSizeSample(0, 3),
        lambda: FixedSizeSample(4, 3),
        lambda: Selection(RELEASE, 0, Fraction(2)),
        lambda: Selection(RELEASE, 1, Fraction(1)),
        lambda: Release(Gaussian(Fraction(1)), Everyone(), Guarantee(Unit.USER, Relation.ZERO_OUT, Trust.DISTRIBUTED)),
    ],
)
def test_nonsense_cannot_be_written_down(make: Any) -> None:
    with pytest.raises(UsageError):
        make()
