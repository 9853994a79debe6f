"""Who sees how much noise in a tree of cohorts."""

from dataclasses import replace
from fractions import Fraction
from math import sqrt

import pytest

from dp.accountants.rdp import RdpAccountant
from dp.calibrate import user_level
from dp.events import DiscreteGaussians, Everyone, Holder, Relation, Release, Skellam
from dp.noise import Family, NoiseSpec
from dp.secure_sum import SecureSum
from dp.tree import TreeSum
from secagg.errors import UsageError
from tests.controls import switch_off
from tests.scenes.secure_sums import SKELLAM, cohort

GUARANTEE = user_level(Relation.ZERO_OUT)
GAUSSIAN = NoiseSpec(Family.DISCRETE_GAUSSIAN, Fraction(9_000), dropouts=3, colluders=1)


def epsilon(release: Release) -> float:
    accountant = RdpAccountant()
    accountant.compose(release)
    return accountant.epsilon(1e-6)


def test_to_its_aggregator_a_client_is_in_one_cohort() -> None:
    """A hundred cohorts cost what one costs."""
    many = TreeSum(tuple(cohort(i) for i in range(100)))
    assert many.to_aggregators(GUARANTEE) == cohort(0).release(GUARANTEE)


def test_the_cohort_with_the_least_noise_stands_for_all() -> None:
    noise = replace(SKELLAM, components=0)
    tree = TreeSum((cohort(0, noise=noise), cohort(1, 3, noise), cohort(2, 1, noise)))
    assert tree.to_aggregators(GUARANTEE) == cohort(1, 3, noise).release(GUARANTEE)
    assert epsilon(tree.to_aggregators(GUARANTEE)) > epsilon(cohort(0, noise=noise).release(GUARANTEE))


def test_to_the_root_all_noise_counts() -> None:
    tree = TreeSum(tuple(cohort(i) for i in range(25)))
    mechanism = tree.to_root(GUARANTEE, lost=0).mechanism
    assert mechanism == Skellam(25 * SKELLAM.honest_variance(10, 10), 100, 60)
    ratio = epsilon(tree.to_root(GUARANTEE, 0)) / epsilon(tree.to_aggregators(GUARANTEE))
    assert ratio < 1.2 / sqrt(25)


def test_corrupt_aggregators_take_their_cohorts_noise_with_them() -> None:
    """The noisiest: 3, then 2 are told, and subtracted."""
    noises = [replace(SKELLAM, variance=Fraction(v), components=0) for v in (1000, 2000, 3000, 4000)]
    tree = TreeSum(tuple(cohort(i, noise=noise) for i, noise in enumerate(noises)))
    held = [noise.honest_variance(10, 10) for noise in noises]
    for lost in range(4):
        mechanism = tree.to_root(GUARANTEE, lost).mechanism
        assert isinstance(mechanism, Skellam)
        assert mechanism.variance == sum(held[: 4 - lost])
    assert tree.to_root(GUARANTEE, 3) == tree.to_aggregators(GUARANTEE)


def test_if_corrupt_aggregators_were_forgotten_epsilon_would_be_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = TreeSum(tuple(cohort(i) for i in range(4)))
    right = epsilon(tree.to_root(GUARANTEE, 2))
    switch_off(monkeypatch, TreeSum, "to_root", "len(self.cohorts) - lost", "len(self.cohorts)")
    assert epsilon(tree.to_root(GUARANTEE, 2)) < 0.8 * right


@pytest.mark.parametrize("lost", [-1, 4, 5])
def test_one_aggregator_is_honest(lost: int) -> None:
    with pytest.raises(UsageError, match="another one left"):
        TreeSum(tuple(cohort(i) for i in range(4))).to_root(GUARANTEE, lost)


def test_before_the_round_the_worst_is_thought_of_everywhere() -> None:
    tree = TreeSum((cohort(0), cohort(1, 1)))
    assert [one.survivors for one in tree.worst().cohorts] == [7, 7]


@pytest.mark.parametrize(
    "others",
    [
        (),
        (cohort(0), cohort(0)),
        (cohort(0), cohort(1, dimension=51)),
        (cohort(0), cohort(1, l2_squared=101)),
        (cohort(0), cohort(1, l1=61)),
        (cohort(0), cohort(1, users=9)),
        (cohort(0, users=9), cohort(1, users=9, overlap=2)),
        (cohort(0), cohort(1, round=5)),
        (cohort(0), cohort(1, session=bytes(15) + b"1")),
        (cohort(0), cohort(1, noise=GAUSSIAN)),
    ],
)
def test_what_is_no_round_of_a_tree(others: tuple[SecureSum, ...]) -> None:
    with pytest.raises(UsageError, match="cohort"):
        TreeSum(others)


def test_users_of_silos_in_a_tree() -> None:
    """In several silos, they may be in several cohorts: whoever sees them all, or some beside the total, sees more."""
    inside = user_level(Relation.ZERO_OUT, Holder.SILO)
    tree = TreeSum(tuple(cohort(i, users=50) for i in range(3)))
    assert tree.to_aggregators(inside) == cohort(0, users=50).release(inside)
    assert tree.to_root(inside, 0).guarantee == inside
    for release in (tree.to_aggregators, lambda guarantee: tree.to_root(guarantee, 0)):
        with pytest.raises(UsageError, match="a silo holds each unit"):
            release(GUARANTEE)
    spread = TreeSum(tuple(cohort(i, users=50, overlap=2) for i in range(3)))
    assert spread.to_aggregators(inside) == cohort(0, users=50, overlap=2).release(inside)
    with pytest.raises(UsageError, match="may be in lost cohorts and in others"):
        spread.to_root(inside, 1)


def test_no_samples_in_a_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the root sees has been priced for all users of all cohorts. Control: unchecked, the price is that of all."""
    one = cohort(0, noise=GAUSSIAN, users=50, sampled=Fraction(1, 2))
    with pytest.raises(UsageError, match="all their users in each sum"):
        TreeSum((one,))
    switch_off(monkeypatch, TreeSum, "__post_init__", "any(cohort.sampled < 1 for cohort in self.cohorts)")
    inside = user_level(Relation.ZERO_OUT, Holder.SILO)
    assert TreeSum((one,)).to_aggregators(inside).sampling == Everyone()


def test_clients_who_come_or_go_change_all_cohorts() -> None:
    tree = TreeSum((cohort(0), cohort(1)))
    for release in (tree.to_aggregators, lambda guarantee: tree.to_root(guarantee, 0)):
        with pytest.raises(UsageError, match="zero-out only"):
            release(user_level(Relation.REPLACE_ONE))


def test_cohorts_of_discrete_gaussians_hold_the_sum_of_their_parameters() -> None:
    """Also of different sizes: 3 and then 1 of 10 clients are missing, one colludes in each cohort."""
    noises = [replace(GAUSSIAN, variance=Fraction(v), components=c) for v, c in ((9_000, 0), (18_000, 3), (27_000, 3))]
    tree = TreeSum(tuple(cohort(i, i, noise) for i, noise in enumerate(noises)))
    held = [Fraction(9_000 * 9, 6), Fraction(18_000), Fraction(27_000)]
    assert tree.to_aggregators(GUARANTEE).mechanism == DiscreteGaussians(held[0], 9 + 8 * 2 + 7 * 3, 50, 100)
    assert tree.to_root(GUARANTEE, 1).mechanism == DiscreteGaussians(held[0] + held[1], 9 + 8 * 2 + 7 * 3, 50, 100)
    assert epsilon(tree.to_root(GUARANTEE, 0)) < epsilon(tree.to_aggregators(GUARANTEE))


def test_a_cohort_whose_draws_are_too_small_has_no_bound() -> None:
    tree = TreeSum((cohort(0, noise=GAUSSIAN), cohort(1, noise=replace(GAUSSIAN, variance=Fraction(40)))))
    with pytest.raises(UsageError, match="below 8"):
        tree.to_root(GUARANTEE, 0)
