"""Every user is with exactly one client, however clients are made."""

import numpy as np
import pytest

from recsys.data.interactions import Interactions
from recsys.data.partition import Partition, devices, natural, silos, tastes
from recsys.data.synthetic import FIRST, population
from secagg.errors import UsageError

pytest.importorskip("scipy", reason="NOT TESTED: tastes need scipy, pip install 'secagg[recsys]'")

EVENTS = population(users=300, items=200, seed=5, habits=FIRST)


def everybody(partition: Partition) -> list[int]:
    return sorted(int(user) for users in partition.members for user in users)


def test_one_user_for_each_device() -> None:
    partition = devices(EVENTS)
    assert partition.names == tuple(EVENTS.user_ids)
    assert partition.sizes == (1,) * 300
    assert everybody(partition) == list(range(300))


@pytest.mark.parametrize("how", ["even", "dirichlet"])
@pytest.mark.parametrize(("count", "seed"), [(1, 0), (2, 3), (7, 1), (20, 2)])
def test_silos_hold_everybody_once(count: int, how: str, seed: int) -> None:
    partition = silos(EVENTS, count, how, seed=seed)
    assert everybody(partition) == list(range(300))
    assert len(partition.names) == count
    if how == "even":
        assert max(partition.sizes) - min(partition.sizes) <= 1
    again = silos(EVENTS, count, how, seed=seed)
    assert all(np.array_equal(*pair) for pair in zip(partition.members, again.members, strict=True))
    assert count < 3 or not np.array_equal(partition.members[0], silos(EVENTS, count, how, seed=seed + 1).members[0])


def shared_tastes(partition: Partition, groups: np.ndarray) -> float:
    """The probability that two users of a silo have one taste, on average over users."""
    counts = [np.bincount(groups[users]) for users in partition.members]
    return float(sum((count**2).sum() / count.sum() for count in counts) / len(groups))


def test_a_small_alpha_gathers_tastes_and_a_large_one_does_not() -> None:
    groups = tastes(EVENTS, seed=0)
    even, mixed, gathered = (
        shared_tastes(silos(EVENTS, 6, how, alpha=alpha, seed=0), groups)
        for how, alpha in (("even", 1), ("dirichlet", 1e4), ("dirichlet", 0.05))
    )
    assert abs(even - mixed) < 0.05
    assert gathered > 2 * even


def test_users_of_one_taste_share_items() -> None:
    """Two kinds of users, who share no items but the hits, are of different tastes."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(2, size=60)
    pairs = {(user, item) for user in range(60) for item in rng.integers(5, size=4)}
    pairs |= {(user, 5 + 20 * kinds[user] + item) for user in range(60) for item in rng.integers(20, size=12)}
    users, items = np.array(sorted(pairs)).T
    groups = tastes(Interactions.of(users, items))
    main = [np.bincount(groups[kinds == kind], minlength=17) for kind in (0, 1)]
    assert main[0].argmax() != main[1].argmax()
    assert all(counts.max() > 0.6 * counts.sum() for counts in main)


def test_tastes_of_next_to_nothing() -> None:
    assert tastes(Interactions.of([0, 1], [0, 0])).tolist() == [0, 0]
    with_silent = Interactions.of([0, 0, 1, 3], [0, 1, 2, 0], user_count=5)
    assert len(tastes(with_silent)) == 5


def test_natural_silos_are_as_the_file_says() -> None:
    events = Interactions.of([0, 1, 2], [0, 0, 0], user_ids=["ann", "bob", "eve"])
    partition = natural(events, {"ann": "south", "bob": "north", "eve": "south", "zoe": "north"})
    assert partition.names == ("north", "south")
    assert [users.tolist() for users in partition.members] == [[1], [0, 2]]
    with pytest.raises(UsageError, match="2 users are in no silo, such as ann"):
        natural(events, {"bob": "north"})


@pytest.mark.parametrize(
    ("names", "members", "message"),
    [
        (("a", "b"), ([0, 1], [1]), "exactly one"),
        (("a", "b"), ([0], [2]), "exactly one"),
        (("a", "b"), ([0, 0], [1]), "exactly one"),
        (("a", "b"), ([0, 1], []), "without users"),
        (("a", "a"), ([0], [1]), "name of its own"),
        (("a",), ([0], [1]), "name of its own"),
    ],
)
def test_a_partition_divides(names: tuple[str, ...], members: tuple[list[int], ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Partition(names, tuple(np.array(users, np.int64) for users in members))


def test_silos_that_cannot_be() -> None:
    with pytest.raises(UsageError, match="300 users cannot be divided among 301 silos"):
        silos(EVENTS, 301)
    with pytest.raises(UsageError, match="cannot be divided"):
        silos(EVENTS, 0)
    with pytest.raises(UsageError, match="'even' or 'dirichlet', not 'odd'"):
        silos(EVENTS, 3, "odd")
    with pytest.raises(UsageError, match="alpha is above 0"):
        silos(EVENTS, 3, "dirichlet", alpha=0)
    with pytest.raises(UsageError, match="fewer silos or a larger alpha"):
        silos(EVENTS, 30, "dirichlet", alpha=0.01, least=10)


def test_silos_have_at_least_as_many_as_asked_for() -> None:
    """Without ``least`` this draw has a smaller one."""
    assert min(silos(EVENTS, 10, "dirichlet", alpha=0.5, seed=1).sizes) < 12
    assert min(silos(EVENTS, 10, "dirichlet", alpha=0.5, seed=1, least=12).sizes) >= 12
