"""Noise inside the sum: exact variances, removable excess, seeds that give no more than they must."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from itertools import accumulate
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dp.events import DiscreteGaussians, Skellam
from dp.noise import NOISE, Family, NoiseSpec
from protocols.plan import RoundPlan
from protocols.roster import Identity, Roster
from secagg.encoding import Encoding
from secagg.errors import DecodeError, UsageError
from tests.controls import switch_off

KEEP, CHAIN = b"k" * 32, b"c" * 32


@st.composite
def specs(draw: st.DrawFn, removable: bool = True) -> tuple[NoiseSpec, int]:
    clients = draw(st.integers(2, 200))
    colluders = draw(st.integers(0, clients - 2))
    dropouts = draw(st.integers(int(removable), clients - colluders - 1))
    components = draw(st.integers(1, dropouts)) if removable else 0
    variance = draw(st.fractions(1, 10**9, max_denominator=100))
    return NoiseSpec(Family.SKELLAM, variance, dropouts, colluders, components), clients


@given(specs())
def test_the_honest_survivors_hold_what_was_planned_whoever_is_missing(case: tuple[NoiseSpec, int]) -> None:
    """Each client's kept noise is the base and the components up to the level, summed one by one."""
    spec, clients = case
    parts = [
        spec.kept_variance(clients),
        *(spec.component_variance(clients, level) for level in range(1, spec.components + 1)),
    ]
    kept = list(accumulate(parts))
    assert all(part > 0 for part in parts)
    for missing in range(spec.dropouts + 1):
        level, survivors = spec.removal_level(missing), clients - missing
        held = (survivors - spec.colluders) * kept[level]
        assert held == spec.honest_variance(clients, survivors) >= spec.variance
        if level:
            assert (survivors - spec.colluders) * kept[level - 1] < spec.variance  # one part less would be too little
        if spec.components == spec.dropouts:
            assert held == spec.variance


@given(specs())
def test_with_a_component_for_each_dropout_the_variances_are_those_of_the_paper(case: tuple[NoiseSpec, int]) -> None:
    n, spec = (
        case[1],
        NoiseSpec(Family.SKELLAM, case[0].variance, case[0].dropouts, case[0].colluders, case[0].dropouts),
    )
    assert spec.kept_variance(n) == spec.variance / (n - spec.colluders)
    for k in range(1, spec.dropouts + 1):
        c = spec.colluders
        assert spec.component_variance(n, k) == spec.variance / ((n - k + 1 - c) * (n - k - c))


@given(specs(removable=False))
def test_noise_that_cannot_be_removed_is_enough_for_the_most_dropouts(case: tuple[NoiseSpec, int]) -> None:
    spec, clients = case
    assert spec.honest_variance(clients, clients - spec.dropouts) == spec.variance
    assert spec.honest_variance(clients, clients) >= spec.variance
    assert spec.excess(clients, 3, CHAIN, 0).tolist() == [0, 0, 0]


def test_more_missing_than_allowed_for_is_refused() -> None:
    spec = NoiseSpec(Family.SKELLAM, Fraction(100), dropouts=2, colluders=1, components=2)
    for refused in (
        lambda: spec.removal_level(3),
        lambda: spec.honest_variance(10, 7),
        lambda: spec.mechanism(10, 7, 1, 1, 1),
    ):
        with pytest.raises(UsageError, match="3 clients are missing"):
            refused()
    plain = NoiseSpec(Family.DISCRETE_GAUSSIAN, Fraction(100), dropouts=2)
    with pytest.raises(UsageError, match="3 clients are missing"):
        plain.mechanism(10, 7, 1, 1, 1)


def test_what_the_sum_is_to_an_adversary() -> None:
    spec = NoiseSpec(Family.SKELLAM, Fraction(900), dropouts=3, colluders=1, components=3)
    assert spec.mechanism(10, 8, dimension=5, l2_squared=7, l1=6) == Skellam(Fraction(900), 7, 6)
    spec = NoiseSpec(Family.DISCRETE_GAUSSIAN, Fraction(900), dropouts=3, colluders=1)
    assert spec.mechanism(10, 8, dimension=5, l2_squared=7, l1=6) == DiscreteGaussians(Fraction(1050), 7, 5, 7)
    spec = replace(spec, variance=Fraction(900), components=3)
    for missing in range(4):
        honest = 9 - missing
        expected = DiscreteGaussians(Fraction(900), honest * (1 + missing), 5, 7)
        assert spec.mechanism(10, 10 - missing, dimension=5, l2_squared=7, l1=6) == expected


@given(specs())
def test_every_discrete_gaussian_that_is_drawn_counts(case: tuple[NoiseSpec, int]) -> None:
    """Otherwise the noise is refused: by plan and by accountant, before it is drawn."""
    spec, clients = replace(case[0], family=Family.DISCRETE_GAUSSIAN), case[1]
    parts = [spec.component_variance(clients, level) for level in range(1, spec.components + 1)]
    if min(spec.kept_variance(clients), *parts) < 8:
        assert not spec.drawable(clients)
        with pytest.raises(UsageError, match="a variance below 8"):
            spec.mechanism(clients, clients, 1, 1, 1)
    else:
        held = spec.mechanism(clients, clients - spec.dropouts, 1, 1, 1)
        assert isinstance(held, DiscreteGaussians)
        assert held.variance >= spec.variance
        assert held.variance >= 8 * held.draws


def test_small_parts_that_counted_would_make_a_claim_without_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = NoiseSpec(Family.DISCRETE_GAUSSIAN, Fraction(900), dropouts=3, colluders=1, components=3)
    small = replace(spec, variance=Fraction(500))  # parts of 500/72, 500/56, 500/42
    assert [spec.too_small(10), small.too_small(10)] == [False, True]
    with pytest.raises(UsageError, match="a variance below 8"):
        small.mechanism(10, 8, 5, 7, 6)
    switch_off(monkeypatch, NoiseSpec, "honest_draws", "self.too_small(clients)")
    assert isinstance(small.mechanism(10, 8, 5, 7, 6), DiscreteGaussians)


def test_excess_taken_off_leaves_the_noise_of_the_level() -> None:
    """Exactly, not in distribution: the server draws from the revealed seed what the client drew."""
    spec = NoiseSpec(Family.SKELLAM, Fraction(9000), dropouts=4, colluders=1, components=4)
    drawn = spec.draw(20, 50, KEEP, CHAIN)
    parts = [spec.excess(20, 50, spec.seed(CHAIN, level), level) for level in range(5)]
    assert not parts[4].any()
    kept = [drawn - part for part in parts]
    base = NoiseSpec(Family.SKELLAM, Fraction(9000) / 19 * 20).draw(20, 50, KEEP, CHAIN)  # the same base, no parts
    assert kept[0].tolist() == base.tolist()
    assert kept[4].tolist() == drawn.tolist()
    assert len({tuple(k.tolist()) for k in kept}) == 5


def test_a_seed_gives_what_lies_beyond_its_level_and_nothing_before() -> None:
    spec = NoiseSpec(Family.SKELLAM, Fraction(9000), dropouts=3, components=3)
    seeds = [spec.seed(CHAIN, level) for level in range(4)]
    assert seeds[0] == CHAIN
    assert len(set(seeds)) == 4
    assert all(spec.seed(seeds[i], j - i) == seeds[j] for i in range(4) for j in range(i, 4))


@pytest.mark.parametrize(
    ("family", "components"), [("skellam", 0), ("skellam", 3), ("discrete-gaussian", 0), ("discrete-gaussian", 3)]
)
def test_the_sum_of_all_clients_has_the_planned_variance(family: str, components: int) -> None:
    """20 clients, all there: 4 * 10^5 coordinates. False alarm: 6 sigma of a variance estimate, below 1e-8 each."""
    spec, n, d = NoiseSpec(Family(family), Fraction(4000), 3, 2, components), 20, 400_000
    total = np.zeros(d, np.int64)
    for client in range(n):
        keep, chain = (bytes([purpose, client]).ljust(32, b"x") for purpose in (0, 1))
        total += spec.draw(n, d, keep, chain) - spec.excess(
            n, d, spec.seed(chain, spec.removal_level(0)), spec.removal_level(0)
        )
    expected = float(spec.honest_variance(n, n)) * n / (n - spec.colluders)  # the colluders add theirs, too
    assert abs(float(np.mean(total**2)) / expected - 1) < 6 * np.sqrt(2.1 / d)
    assert abs(float(np.mean(total))) < 6 * np.sqrt(expected / d)


def test_the_tail_is_rarely_exceeded_and_not_far_from_the_noise() -> None:
    spec, n, d = NoiseSpec(Family.SKELLAM, Fraction(40), dropouts=5), 20, 100_000
    tail = spec.coordinate_bound(n, d)
    total = sum(spec.draw(n, d, bytes([client]) * 32, CHAIN) for client in range(n))
    deviation = float(np.sqrt(40 / 15 * 20))
    assert np.abs(total).max() <= tail <= 14 * deviation


@pytest.mark.parametrize(
    "make",
    [
        lambda: NoiseSpec(Family.SKELLAM, Fraction(0)),
        lambda: NoiseSpec(Family.SKELLAM, Fraction(1), dropouts=-1),
        lambda: NoiseSpec(Family.SKELLAM, Fraction(1), colluders=-1),
        lambda: NoiseSpec(Family.SKELLAM, Fraction(1), dropouts=1, components=2),
        lambda: NoiseSpec(Family.SKELLAM, Fraction(1), 70_000, 0, 70_000),
        lambda: NoiseSpec(Family.SKELLAM, Fraction(1), dropouts=1 << 32),
        lambda: NoiseSpec(Family.SKELLAM, Fraction(1), colluders=1 << 32),
        lambda: NoiseSpec(Family.SKELLAM, Fraction(1 << 256)),
        lambda: NoiseSpec(Family.SKELLAM, Fraction(1), dropouts=3, colluders=2).check(5),
    ],
)
def test_noise_that_cannot_be_is_refused(make: object) -> None:
    with pytest.raises(UsageError):
        make()  # type: ignore[operator]


@given(specs())
def test_a_spec_survives_the_wire(case: tuple[NoiseSpec, int]) -> None:
    assert NOISE.decode(NOISE.encode(case[0])) == case[0]


def test_another_family_is_undecodable() -> None:
    data = NOISE.encode(NoiseSpec(Family.SKELLAM, Fraction(1))).replace(b"skellam", b"laplace")
    with pytest.raises(DecodeError, match="family"):
        NOISE.decode(data)


EDGES = [0, 1, 2, 5, 2**16 - 1, 2**16, 2**32 - 1, 2**32, 2**64, -1]
integers = st.one_of(st.integers(), st.integers(0, 9), st.sampled_from(EDGES))
variances = st.one_of(
    st.fractions(), st.sampled_from([Fraction(1, 10**400), Fraction(10**400), Fraction(2**64), Fraction(2**256)])
)


@settings(max_examples=400)
@given(
    family=st.sampled_from(Family),
    variance=variances,
    dropouts=integers,
    colluders=integers,
    components=integers,
    clients=st.integers(2, 10**7),
)
def test_whatever_the_fields_are_it_is_refused_as_wrong_use_or_works(clients: int, **fields: Any) -> None:
    with suppress(UsageError):
        spec = NoiseSpec(**fields)
        spec.check(clients)
        assert spec.coordinate_bound(clients, 2**34) > 0
        assert spec.honest_variance(clients, clients - min(spec.dropouts, 1)) > 0
        assert spec.drawable(clients) in (True, False)
        assert NOISE.decode(NOISE.encode(spec)) == spec


def test_so_much_noise_or_so_little_that_nobody_can_draw_it_is_not_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client would find out when it uploads, after it has taken part in half the round."""
    roster = Roster.of([Identity.generate(f"c{i}") for i in range(4)])

    def planned(variance: Fraction) -> RoundPlan:
        noise = NoiseSpec(Family.DISCRETE_GAUSSIAN, variance)
        return RoundPlan.propose("secagg", roster, Encoding(3, 1.0), min_contributors=4, dropout=0, noise=noise)

    planned(Fraction(1000))
    for variance in (Fraction(1, 1 << 20), Fraction(1 << 60)):
        with pytest.raises(UsageError, match="no client can draw so much noise, or so little"):
            planned(variance)
    switch_off(monkeypatch, RoundPlan, "__post_init__", "not self.noise.drawable(self.clients)")
    for variance in (Fraction(1, 1 << 20), Fraction(1 << 60)):
        plan = planned(variance)
        with pytest.raises(UsageError, match="variance must be between"):
            plan.noise.draw(4, 3, KEEP, CHAIN)  # type: ignore[union-attr]
