"""Events are exact, frozen, validated, and survive their record."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dp import events
from dp.events import (
    DiscreteGaussians,
    DiscreteLaplace,
    Everyone,
    FixedSizeSample,
    Gaussian,
    Guarantee,
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
    st.builds(DiscreteGaussians, COUNTS, POSITIVE, COUNTS, COUNTS, COUNTS),
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
        lambda: DiscreteGaussians(0, Fraction(1), 1, 1, 1),
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
