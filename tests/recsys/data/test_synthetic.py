"""The made-up population: the same for a seed, of the promised shape, and like MovieLens in the calibrated numbers.

Seeds are fixed, so these tests do not fail by chance. Of one seed's ratio EASE / ItemPop the standard deviation is a
quarter, hence the many seeds of the calibration.
"""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from recsys.data.interactions import Interactions
from recsys.data.items import Items
from recsys.data.split import leave_last_out
from recsys.data.synthetic import CALIBRATED, FACTS, FIRST, GENRES, TARGETS, Habits, catalogue, population
from recsys.metrics.ranking import evaluate, measure
from recsys.models.popularity import ItemPop
from secagg.errors import UsageError


def gini(counts: np.ndarray) -> float:
    counts, n = np.sort(counts), len(counts)
    return float((2 * np.arange(1, n + 1) - n - 1) @ counts / (n * counts.sum()))


def density(events: Interactions) -> float:
    return len(events) / (events.user_count * events.item_count)


@pytest.mark.thinned(3)
@pytest.mark.parametrize(("users", "items"), FACTS)
def test_density_and_tail_are_those_of_real_data(users: int, items: int) -> None:
    """Control: the first habits were fitted to one size, and are sparser than the two others."""
    events, facts = population(users, items, seed=0), FACTS[users, items]
    assert density(events) == pytest.approx(facts["density"], rel=0.15)
    assert gini(events.popularity()) == pytest.approx(facts["Gini"], rel=0.15)
    if items < 9724:
        assert density(population(users, items, 0, FIRST)) < 0.85 * facts["density"]


@pytest.mark.parametrize("seed", [0, 1])
def test_the_first_habits_are_those_of_their_target(seed: int) -> None:
    events = population(610, 9724, seed, FIRST)
    assert density(events) == pytest.approx(TARGETS["density"], rel=0.1)
    assert gini(events.popularity()) == pytest.approx(TARGETS["gini"], rel=0.1)
    sizes = np.diff(events.starts)
    assert sizes.min() == 20
    assert np.percentile(sizes, [25, 50, 75, 99]) == pytest.approx([35, 70, 168, 1256], rel=0.3)


@pytest.mark.long
def test_popularity_says_as_much_as_in_the_target() -> None:
    """6 seeds: the standard error is 9 percent."""
    gains = []
    for seed in range(6):
        split = leave_last_out(population(610, 9724, seed, FIRST), valid=False)
        model = ItemPop()
        model.fit(split.train)
        gains.append(measure(model, split.train, split.test).mean("NDCG@10"))
    assert np.mean(gains) == pytest.approx(TARGETS["popular"], rel=0.25)


@pytest.mark.long
def test_the_first_calibration() -> None:
    """Density, Gini and the ratio of reference models, each within a tenth; of 40 seeds: standard error 4 percent."""
    from recsys.models.ease import Ease

    popular, linear = [], []
    for seed in range(100, 140):
        events = population(610, 9724, seed, FIRST)
        assert density(events) == pytest.approx(TARGETS["density"], rel=0.1)
        assert gini(events.popularity()) == pytest.approx(TARGETS["gini"], rel=0.1)
        split = leave_last_out(events, valid=False)
        for model, gains in ((ItemPop(), popular), (Ease(200.0), linear)):
            model.fit(split.train)
            gains.append(measure(model, split.train, split.test).mean("NDCG@10"))
    assert np.mean(linear) / np.mean(popular) == pytest.approx(TARGETS["ratio"], rel=0.1)
    assert np.mean(popular) == pytest.approx(TARGETS["popular"], rel=0.1)


@pytest.mark.long
def test_the_calibration() -> None:
    """What models gain at the size of ml-100k, and that recency pays; of 8 seeds: standard errors of 4 percent.

    Control: with the first habits a history that fades gains next to nothing there.
    """
    from recsys.models.ease import Ease
    from recsys.models.knn import ItemKnn
    from recsys.models.tuned_ease import tuned_ease

    found: dict[str, list[float]] = {"ItemPop": [], "ItemKNN": [], "EASE": [], "tuned EASE": []}
    first: list[float] = []
    for seed in range(10, 18):
        split = leave_last_out(population(943, 1682, seed))
        for name, model in (("ItemPop", ItemPop()), ("ItemKNN", ItemKnn()), ("EASE", Ease(200.0))):
            model.fit(split.train)
            found[name].append(evaluate(model, split).mean("NDCG@10"))
        found["tuned EASE"].append(evaluate(tuned_ease(split), split).mean("NDCG@10"))
        other = leave_last_out(population(943, 1682, seed, FIRST))
        plain = Ease(200.0)
        plain.fit(other.train)
        reached, without = evaluate(tuned_ease(other), other), evaluate(plain, other)
        first.append(reached.mean("NDCG@10") / without.mean("NDCG@10"))
    for name in ("ItemKNN", "EASE", "tuned EASE"):
        ratio = np.mean(found[name]) / np.mean(found["ItemPop"])
        assert ratio == pytest.approx(FACTS[943, 1682][name], rel=0.15)
    assert np.mean(found["tuned EASE"]) > 1.25 * np.mean(found["EASE"])
    assert np.mean(first) < 1.15


@pytest.mark.parametrize(("users", "items"), [(1, 80), (50, 100), (200, 1000), (2100, 300)])
def test_everybody_has_different_items_and_enough_of_them(users: int, items: int) -> None:
    events = population(users, items, seed=1)
    assert (events.user_count, events.item_count) == (users, items)
    sizes = np.diff(events.starts)
    assert 20 <= sizes.min() <= sizes.max() <= max(20, items / 4)
    pairs = events.users * items + events.items
    assert len(np.unique(pairs)) == len(events)
    assert (np.diff(events.times)[np.diff(events.users) == 0] > 0).all()


def test_a_seed_is_a_population() -> None:
    one, again, other = population(300, 500, 1), population(300, 500, 1), population(300, 500, 2)
    for name in ("starts", "items", "times"):
        np.testing.assert_array_equal(getattr(one, name), getattr(again, name))
    assert len(one) == len(other)
    assert (one.items != other.items).any()


def nearness(events: Interactions, gap: int) -> float:
    """The correlation between items (over users) so many events apart, less that of any two items of the same user."""
    taken = np.zeros((events.user_count, events.item_count))
    taken[events.users, events.items] = 1
    taken -= taken.mean(axis=0)
    taken /= np.linalg.norm(taken, axis=0) + 1e-9
    alike = taken.T @ taken
    np.fill_diagonal(alike, 0)
    found = []
    for history in events.histories():
        size = len(history)
        in_general = alike[np.ix_(history, history)].sum() / (size * (size - 1))
        found.append(alike[history[: size - gap], history[gap:]].mean() - in_general)
    return float(np.mean(found))


def test_items_near_in_time_are_alike() -> None:
    """Control: not without sessions and drift."""
    events = population(400, 1000, 3)
    assert nearness(events, 1) > 0.008 > 0.004 > nearness(events, 10)
    steady = replace(CALIBRATED, stay=0.0, drift=1e9, first_hits=0.0)
    assert abs(nearness(population(400, 1000, 3, steady), 1)) < 0.004


def test_heavy_users_go_from_the_hits_to_the_niches() -> None:
    events = population(400, 1000, 4)
    popular = events.popularity()
    heavy = [history for history in events.histories() if len(history) >= 100]
    assert np.mean([popular[h[:20]].mean() for h in heavy]) > 1.5 * np.mean([popular[h[-20:]].mean() for h in heavy])


def test_items_grow_slowly_with_users() -> None:
    assert [population(users).item_count for users in (200, 610)] == [7867, 9724]


@pytest.mark.long
def test_a_hundred_thousand_users() -> None:
    """Here it takes half a minute and 1.5 GB."""
    events = population(100_000)
    assert events.item_count == 25_623
    assert 14_000_000 < len(events) < 19_000_000


@pytest.mark.parametrize(
    "wrong",
    [
        {"least": 0}, {"topic_items": -1}, {"dimensions": 0}, {"extra": 0}, {"window": 0}, {"drift": 0}, {"first": 0},
        {"hits": 0.01}, {"hits": 0.8}, {"first_hits": -0.1}, {"stay": 1}, {"stay": -0.1},
        {"small": 0}, {"shrink": -0.1}, {"more_hits": -0.1},
    ],
)  # fmt: skip
def test_habits_make_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        replace(CALIBRATED, **wrong)


def test_what_follows_from_the_number_of_items() -> None:
    """Small catalogues have fewer events, large ones more hits, up to one in every step at the start."""
    assert [CALIBRATED.topics_among(items) for items in (80, 1000, 10_000)] == [9, 32, 100]
    assert [FIRST.topics_among(items) for items in (80, 1000, 10_000)] == [4, 10, 100]
    assert CALIBRATED.extra_among(750) == CALIBRATED.extra_among(3000) / 2 == CALIBRATED.extra_among(10**6) / 2
    assert CALIBRATED.hits_among(80) == CALIBRATED.hits_among(4000) == CALIBRATED.hits < CALIBRATED.hits_among(5000)
    assert CALIBRATED.hits_among(10**9) == 1 - CALIBRATED.first_hits
    assert {FIRST.hits_among(items) for items in (80, 4000, 10**9)} == {FIRST.hits}


def test_a_population_has_users_and_items() -> None:
    with pytest.raises(UsageError, match="at least one user"):
        population(0)
    with pytest.raises(UsageError, match="at least 80 items"):
        population(10, 79)
    assert population(10, 40, habits=Habits(least=10)).item_count == 40


def test_the_table_of_items_says_what_users_took_and_moves_nobody() -> None:
    """Neighbours in a history are of one genre more often than any two of its items."""
    table, events = catalogue(200, 400, seed=5), population(200, 400, seed=5)
    assert table == catalogue(200, 400, seed=5)
    assert table.ids == tuple(events.item_ids)
    assert 10 < len({kind for one in table.genres for kind in one}) <= GENRES
    assert {len(one) for one in table.genres} == {1, 2}
    own = events.users[1:] == events.users[:-1]
    near = np.array([_alike(table, a, b) for a, b in zip(events.items[:-1][own], events.items[1:][own], strict=True)])
    drawn = np.random.default_rng(0).permutation(events.items)
    far = np.array([_alike(table, a, b) for a, b in pairwise(drawn)])
    assert near.mean() > 1.5 * far.mean()
    assert len({word for item in range(400) for word in table.words(item)}) > 60


def _alike(table: Items, one: int, other: int) -> bool:
    return bool(set(table.genres[one]) & set(table.genres[other]))
