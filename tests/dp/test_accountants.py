"""Accounting: published numbers, laws, agreement with dp-accounting, and refusals.

The regression numbers are those of mistakes found in other systems: each pair is (what was reported, what is true).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial

import dp_accounting as dpa
import numpy as np
import pytest
from dp_accounting import dp_event
from dp_accounting.pld import PLDAccountant as TheirPld
from dp_accounting.rdp import RdpAccountant as TheirRdp
from hypothesis import given, settings
from hypothesis import strategies as st

from dp.accountants import (
    ORDERS,
    GdpAccountant,
    PldAccountant,
    RdpAccountant,
    disjoint,
    group,
    overlapping,
    pld,
    rdp,
    sums,
)
from dp.accountants.composition import Composition
from dp.events import (
    DiscreteGaussians,
    DiscreteLaplace,
    Event,
    Everyone,
    FixedSizeSample,
    Gaussian,
    Guarantee,
    PoissonSample,
    Relation,
    Release,
    Sampling,
    Selection,
    Skellam,
    Trust,
    Unit,
)
from secagg.errors import DecodeError, UsageError

DELTA = 1e-5
EXAMPLE = Guarantee(Unit.EXAMPLE, Relation.ZERO_OUT, Trust.LOCAL)
CENTRAL = Guarantee(Unit.USER, Relation.ADD_OR_REMOVE, Trust.CENTRAL)
INSIDE = Guarantee(Unit.USER, Relation.ZERO_OUT, Trust.DISTRIBUTED)

FEW = tuple(range(2, 33))
FewOrders = partial(RdpAccountant, FEW)
"""For what holds at each order by itself: the highest orders take most of the time."""

COARSE = 1e-3


@pytest.fixture
def coarse(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Losses are rounded up to multiples of ten times as much: a bound all the same, and a larger one."""
    monkeypatch.setattr(pld, "INTERVAL", COARSE)
    pld._distribution.cache_clear()
    yield
    pld._distribution.cache_clear()


def under(relation: Relation, trust: Trust = Trust.CENTRAL) -> Guarantee:
    return Guarantee(Unit.USER, relation, trust)


def gaussian(
    z: float | Fraction | str, q: float | Fraction | str | None = None, relation: Relation = Relation.ADD_OR_REMOVE
) -> Release:
    sampling: Sampling = Everyone() if q is None else PoissonSample(Fraction(q))
    return Release(Gaussian(Fraction(z)), sampling, under(relation))


def epsilon(kind: Callable[[], Composition], event: Event, count: int = 1, delta: float = DELTA) -> float:
    accountant = kind()
    accountant.compose(event, count)
    return accountant.epsilon(delta)


def root(share: float) -> Fraction:
    return Fraction(math.sqrt(share)).limit_denominator(10**6)


# Published mistakes


@pytest.mark.usefixtures("coarse")
def test_sampling_of_clients_and_of_examples_is_not_claimed_twice() -> None:
    """A server that sees the cohort takes away all amplification; counting both rates shows a twentieth of it."""
    assert epsilon(PldAccountant, gaussian(1, Fraction(1, 10) * Fraction(1, 20)), 100) == pytest.approx(0.346, abs=5e-4)
    assert epsilon(PldAccountant, gaussian(1, "1/10"), 100) == pytest.approx(7.05, abs=5e-3)
    assert epsilon(PldAccountant, gaussian(1), 100) == pytest.approx(91.8, abs=5e-2)


@pytest.mark.usefixtures("coarse")
@pytest.mark.parametrize(("dropped", "true"), [(0.1, 7.79), (0.3, 10.0), (0.5, 14.3)])
def test_dropouts_thin_the_noise(dropped: float, true: float) -> None:
    assert epsilon(PldAccountant, gaussian(root(1 - dropped), "1/10"), 100) == pytest.approx(true, rel=5e-3)


@pytest.mark.usefixtures("coarse")
def test_replacing_costs_more_than_adding() -> None:
    assert epsilon(PldAccountant, gaussian(2, "1/10"), 100) == pytest.approx(2.34, abs=5e-3)
    replaced = gaussian(2, "1/10", Relation.REPLACE_ONE)
    assert epsilon(PldAccountant, replaced, 100) == pytest.approx(4.37, abs=5e-3)


def test_a_search_for_hyper_parameters_is_charged() -> None:
    """Ten runs on average, geometrically distributed."""
    run = gaussian(1, "1/100")
    assert epsilon(RdpAccountant, run, 1000) == pytest.approx(2.10, rel=5e-3)
    assert epsilon(RdpAccountant, Selection(run, 1000, Fraction(10))) == pytest.approx(4.10, rel=5e-3)


@pytest.mark.parametrize(
    ("bits", "resampled", "published"), [(16, 1, 4.021), (16, 0, 4.579), (12, 1, 5.906), (12, 0, 14.136)]
)
def test_discrete_noise_in_a_sum(bits: int, resampled: int, published: float) -> None:
    """n=100, d=65536, c=1, z=4, k=3.89, T=10, delta=1e-6: beta = e^-1/2 or 0. Both mechanisms agree to four digits."""
    n, d, z, k = 100, 65536, 4.0, 3.89
    sigma = z / math.sqrt(n)
    scale = math.sqrt(2 ** (2 * bits) - n * k * k) / (2 * k * math.sqrt(n * n / d + n * sigma**2))
    g, worst = 1 / scale, (1 + math.sqrt(d) / scale) ** 2
    likely = 1 + g * g * d / 4 + g * (1 + g * math.sqrt(d) / 2)
    l2_squared = scale**2 * (min(worst, likely) if resampled else worst)
    l1 = min(math.sqrt(d * l2_squared), l2_squared)
    orders = tuple(range(2, 257))
    skellam = tuple(10 * sums.skellam(a, n * (scale * sigma) ** 2, l2_squared, l1) for a in orders)
    moved = sums.moved_squared(n * Fraction((scale * sigma) ** 2), l2_squared)
    gaussians = tuple(10 * sums.discrete_gaussians(a, moved, sums.closeness(n, d)) for a in orders)
    assert rdp.epsilon(skellam, 1e-6, orders) == pytest.approx(published, abs=6e-4)
    assert rdp.epsilon(gaussians, 1e-6, orders) == pytest.approx(published, abs=6e-4)


# Agreement with dp-accounting, and in corrected units


@pytest.mark.thinned(3)
@pytest.mark.usefixtures("coarse")
@pytest.mark.parametrize("relation", Relation)
@pytest.mark.parametrize("z", ["1", "3"])
def test_pld_is_never_above_rdp(relation: Relation, z: str) -> None:
    for q in (None, "1/10") if relation is not Relation.REPLACE_ONE else (None,):
        release = gaussian(z, q, relation)
        assert epsilon(PldAccountant, release, 10) <= epsilon(RdpAccountant, release, 10)


@pytest.mark.usefixtures("coarse")
def test_replacing_means_the_same_to_both_accountants() -> None:
    """Twice the movement is half the multiplier, once: against exact Gaussian differential privacy."""
    replaced, halved = gaussian(2, None, Relation.REPLACE_ONE), gaussian(1)
    for kind in (PldAccountant, RdpAccountant):
        assert epsilon(kind, replaced, 5) == pytest.approx(epsilon(kind, halved, 5), rel=1e-9)


@pytest.mark.thinned(3)
@pytest.mark.parametrize(("z", "q", "count"), [(1.0, 0.01, 500), (2.5, 0.2, 40), (0.7, 0.05, 3)])
def test_poisson_sampling_agrees_with_dp_accounting(
    z: float, q: float, count: int, request: pytest.FixtureRequest
) -> None:
    """Once in steps of the length that both take by themselves."""
    event = dpa.SelfComposedDpEvent(dpa.PoissonSampledDpEvent(q, dpa.GaussianDpEvent(z)), count)
    ours = gaussian(Fraction(z), Fraction(q))
    theirs = TheirRdp(list(ORDERS)).compose(event).get_epsilon(DELTA)
    assert epsilon(RdpAccountant, ours, count) == pytest.approx(theirs, rel=1e-9)
    steps = {}
    if count != 40:
        request.getfixturevalue("coarse")
        steps = {"value_discretization_interval": COARSE}
    theirs = TheirPld(**steps).compose(event).get_epsilon(DELTA)
    assert epsilon(PldAccountant, ours, count) == pytest.approx(theirs, rel=1e-9)


def test_fixed_size_sampling_passes_half_the_multiplier() -> None:
    sampled = dpa.SampledWithoutReplacementDpEvent(1000, 100, dpa.GaussianDpEvent(1.0))
    theirs = TheirRdp(list(FEW), dpa.NeighboringRelation.REPLACE_ONE).compose(sampled, 50).get_epsilon(DELTA)
    ours = Release(Gaussian(Fraction(2)), FixedSizeSample(100, 1000), under(Relation.REPLACE_ONE))
    assert epsilon(FewOrders, ours, 50) == pytest.approx(theirs, rel=1e-9)
    everyone = Release(Gaussian(Fraction(2)), FixedSizeSample(1000, 1000), under(Relation.REPLACE_ONE))
    assert epsilon(FewOrders, everyone, 50) == pytest.approx(
        epsilon(FewOrders, gaussian(2, None, Relation.REPLACE_ONE), 50), rel=1e-9
    )


def test_a_full_round_agrees_with_dp_accounting() -> None:
    theirs = TheirRdp(list(ORDERS)).compose(dpa.GaussianDpEvent(3.0), 7).get_epsilon(DELTA)
    assert epsilon(RdpAccountant, gaussian(3), 7) == pytest.approx(theirs, rel=1e-9)


def test_a_selection_agrees_with_dp_accounting() -> None:
    run = dpa.SelfComposedDpEvent(dpa.PoissonSampledDpEvent(0.01, dpa.GaussianDpEvent(1.0)), 1000)
    theirs = TheirRdp(list(ORDERS)).compose(dp_event.RepeatAndSelectDpEvent(run, 10.0, 1.0)).get_epsilon(DELTA)
    ours = epsilon(RdpAccountant, Selection(gaussian(1, Fraction(0.01)), 1000, Fraction(10)))
    assert ours == pytest.approx(theirs, rel=1e-9)


def test_discrete_laplace_agrees_with_dp_accounting() -> None:
    release = Release(DiscreteLaplace(Fraction(20), l1=3), Everyone(), CENTRAL)
    theirs = TheirPld().compose(dp_event.DiscreteLaplaceDpEvent(1 / 20, 3), 10).get_epsilon(DELTA)
    assert epsilon(PldAccountant, release, 10) == pytest.approx(theirs, rel=1e-9)
    assert theirs <= epsilon(RdpAccountant, release, 10)
    assert epsilon(RdpAccountant, release, 1) <= 3 / 20 + 0.004  # of order 1024


# The bounds on discrete sums against exact divergences, in one dimension


def exact_divergence(pmf: np.ndarray, shift: int, order: int) -> float:
    p, q = pmf[shift:], pmf[: len(pmf) - shift]
    kept = (p > 0) & (q > 0)
    return float(np.logaddexp.reduce(order * np.log(p[kept]) + (1 - order) * np.log(q[kept])) / (order - 1))


@pytest.mark.parametrize("each", [(8.0,), (8.0, 8.0), (8.0, 30.0, 11.5)])
def test_the_bound_on_discrete_gaussians_holds(each: tuple[float, ...]) -> None:
    x = np.arange(-120, 121)
    total = np.ones(1)
    for squared in each:
        one = np.exp(-(x**2) / (2 * squared))
        total = np.convolve(total, one / one.sum())
    moved = [sums.moved_squared(Fraction(sum(each)), shift**2) for shift in (1, 2, 3)]
    for shift in (1, 2, 3):
        for order in (2, 3, 8):
            bound = sums.discrete_gaussians(order, moved[shift - 1], sums.closeness(len(each), 1))
            assert exact_divergence(total, shift, order) <= bound * (1 + 1e-6)


@pytest.mark.parametrize("variance", [2.0, 10.0, 60.0])
def test_the_bound_on_skellam_holds(variance: float) -> None:
    poisson = np.exp(-variance / 2 + np.arange(150) * math.log(variance / 2) - [math.lgamma(k + 1) for k in range(150)])
    total = np.convolve(poisson, poisson[::-1])
    for shift in (1, 2, 4):
        for order in (2, 3, 5):
            bound = sums.skellam(order, variance, shift**2, shift)
            assert exact_divergence(total, shift, order) <= bound * (1 + 1e-6)


def test_small_discrete_gaussians_are_refused() -> None:
    """334 of parameter 0.3 have less variance than their parameters: they are less private than the formula says."""
    x = np.arange(-20, 21)
    one = np.exp(-(x**2) / 0.6)
    total = one / one.sum()
    for _ in range(333):
        total = np.convolve(total, one / one.sum())
        total = total[len(total) // 2 - 100 : len(total) // 2 + 101] if len(total) > 201 else total
    claimed = sums.discrete_gaussians(2, sums.moved_squared(Fraction(334 * 3, 10), 1), sums.closeness(334, 1))
    assert exact_divergence(total, 1, 2) > 1.01 * claimed
    with pytest.raises(UsageError, match="below 8"):
        DiscreteGaussians(Fraction(79, 10), 1, 10, 4)
    with pytest.raises(UsageError, match="below 8"):
        sums.moved_squared(Fraction(79, 10), 4)


# Laws

MULTIPLIERS = st.fractions(Fraction(1, 2), 20, max_denominator=100)
RATES = st.fractions(Fraction(1, 1000), Fraction(1, 2), max_denominator=1000)
RELEASES = st.one_of(
    st.builds(gaussian, MULTIPLIERS),
    st.builds(gaussian, MULTIPLIERS, RATES),
    st.builds(
        lambda variance, l2: Release(Skellam(variance, l2, l2), Everyone(), under(Relation.ADD_OR_REMOVE)),
        st.fractions(100, 10**9),
        st.integers(1, 10**6),
    ),
)


@given(RELEASES, st.integers(2, 6))
@settings(max_examples=30, deadline=None)
def test_composing_n_times_is_n_compositions(release: Release, n: int) -> None:
    one_by_one = FewOrders()
    for _ in range(n):
        one_by_one.compose(release)
    assert one_by_one.epsilon(DELTA) == epsilon(FewOrders, release, n)


@pytest.mark.usefixtures("coarse")
def test_composing_n_times_is_n_compositions_for_pld() -> None:
    one_by_one = PldAccountant()
    for _ in range(3):
        one_by_one.compose(gaussian(1, "1/10"))
    assert one_by_one.epsilon(DELTA) == epsilon(PldAccountant, gaussian(1, "1/10"), 3)


@given(MULTIPLIERS, RATES, st.integers(1, 50))
@settings(max_examples=30, deadline=None)
def test_more_noise_costs_less_and_more_data_or_rounds_cost_more(z: Fraction, q: Fraction, count: int) -> None:
    base = epsilon(FewOrders, gaussian(z, q), count)
    assert epsilon(FewOrders, gaussian(z * 2, q), count) <= base
    assert epsilon(FewOrders, gaussian(z, q * 2), count) >= base
    assert epsilon(FewOrders, gaussian(z, q), count * 2) >= base
    assert epsilon(FewOrders, gaussian(z), count) >= base


@given(MULTIPLIERS)
def test_the_grid_rounds_down_by_less_than_a_hundredth(z: Fraction) -> None:
    rounded = Gaussian(z).on_grid().noise_multiplier
    assert z / Fraction(101, 100) * Fraction(999_999, 1_000_000) < rounded <= z
    assert Gaussian(rounded).on_grid().noise_multiplier == rounded


def test_the_grid_makes_few_out_of_many() -> None:
    assert len({Gaussian(root(s / 1000)).on_grid() for s in range(700, 1000)}) < 25


@given(st.lists(st.tuples(RELEASES, st.integers(1, 5)), max_size=4))
@settings(max_examples=20, deadline=None)
def test_state_survives_a_restart(history: list[tuple[Release, int]]) -> None:
    accountant = FewOrders()
    for release, count in history:
        accountant.compose(release, count)
    assert FewOrders().restore(accountant.state()).events == accountant.events


@pytest.mark.parametrize(
    "state", [[{}], [3], [{"event": {"kind": "Gaussian"}, "count": 1}], [{"event": 1, "count": 1}]]
)
def test_a_broken_state_is_refused(state: list[object]) -> None:
    with pytest.raises(DecodeError):
        RdpAccountant().restore(state)


# Whose epsilon


def test_disjoint_clients_cost_the_maximum_and_one_user_on_them_the_sum() -> None:
    first, second = RdpAccountant(), RdpAccountant()
    first.compose(gaussian(2), 3)
    second.compose(gaussian(1, "1/10"), 10)
    assert disjoint([first, second], DELTA) == max(first.epsilon(DELTA), second.epsilon(DELTA))
    both = overlapping([first, second], RdpAccountant())
    assert both.epsilon(DELTA) > max(first.epsilon(DELTA), second.epsilon(DELTA))
    assert isinstance(both, RdpAccountant)
    assert both.curve == pytest.approx(np.add(first.curve, second.curve))


def test_the_maximum_is_not_for_replaced_examples() -> None:
    accountant = RdpAccountant()
    accountant.compose(gaussian(2, None, Relation.REPLACE_ONE))
    with pytest.raises(UsageError, match="replace-one"):
        disjoint([accountant], DELTA)


def test_a_group_of_examples_costs_more_than_its_multiple() -> None:
    accountant = PldAccountant()
    accountant.compose(Release(Gaussian(Fraction(20)), Everyone(), EXAMPLE))
    one, three = accountant.epsilon(DELTA), group(accountant, 3, DELTA)
    assert 3 * one < three
    exact = PldAccountant()  # for a Gaussian three examples are three times the sensitivity
    exact.compose(Release(Gaussian(Fraction(20, 3)), Everyone(), EXAMPLE))
    assert exact.epsilon(DELTA) <= three < 2 * exact.epsilon(DELTA)
    assert group(accountant, 1, DELTA) == pytest.approx(one, rel=1e-6)


def test_groups_are_within_one_client() -> None:
    accountant = RdpAccountant()
    accountant.compose(gaussian(2))
    with pytest.raises(UsageError, match="within one client"):
        group(accountant, 2, DELTA)


# Refusals

SKELLAM = Skellam(Fraction(1000), 100, 100)
REFUSED: list[tuple[type[Composition], Event]] = [
    (RdpAccountant, Release(SKELLAM, PoissonSample(Fraction(1, 10)), INSIDE)),
    (RdpAccountant, Release(SKELLAM, FixedSizeSample(1, 10), under(Relation.REPLACE_ONE))),
    (RdpAccountant, Release(Gaussian(Fraction(1)), PoissonSample(Fraction(1, 10)), under(Relation.REPLACE_ONE))),
    (RdpAccountant, Release(Gaussian(Fraction(1)), FixedSizeSample(1, 10), under(Relation.ADD_OR_REMOVE))),
    (RdpAccountant, Release(DiscreteLaplace(Fraction(1), 1), PoissonSample(Fraction(1, 2)), CENTRAL)),
    (PldAccountant, Release(SKELLAM, Everyone(), INSIDE)),
    (GdpAccountant, Release(SKELLAM, Everyone(), INSIDE)),
    (GdpAccountant, gaussian(1, "1/10")),
    (GdpAccountant, Release(DiscreteLaplace(Fraction(1), 1), Everyone(), CENTRAL)),
    (GdpAccountant, Selection(gaussian(1), 1, Fraction(3))),
    (PldAccountant, Release(Gaussian(Fraction(1)), FixedSizeSample(1, 10), under(Relation.REPLACE_ONE))),
    (PldAccountant, Selection(gaussian(1), 1, Fraction(3))),
    (RdpAccountant, Selection(Release(SKELLAM, PoissonSample(Fraction(1, 10)), INSIDE), 1, Fraction(3))),
]


@pytest.mark.parametrize(("kind", "event"), REFUSED)
def test_what_has_no_bound_is_refused_and_not_counted(kind: type[Composition], event: Event) -> None:
    accountant = kind()
    with pytest.raises(UsageError, match=r"no (RDP|PLD|GDP) bound is known"):
        accountant.compose(event)
    assert not accountant.events


def test_two_guarantees_do_not_add_up() -> None:
    accountant = RdpAccountant()
    accountant.compose(gaussian(1))
    with pytest.raises(UsageError, match="cannot be added"):
        accountant.compose(gaussian(1, None, Relation.REPLACE_ONE))
    with pytest.raises(UsageError, match="cannot be added"):
        accountant.compose(Release(Gaussian(Fraction(1)), Everyone(), EXAMPLE))


def test_nothing_is_composed_less_than_once() -> None:
    with pytest.raises(UsageError, match="at least once"):
        RdpAccountant().compose(gaussian(1), 0)


@pytest.mark.parametrize("delta", [0.0, 1.0, -0.1])
def test_delta_is_a_probability(delta: float) -> None:
    with pytest.raises(UsageError, match="delta"):
        epsilon(RdpAccountant, gaussian(1), delta=delta)


def test_nothing_costs_nothing() -> None:
    assert RdpAccountant().epsilon(DELTA) == PldAccountant().epsilon(DELTA) == 0
