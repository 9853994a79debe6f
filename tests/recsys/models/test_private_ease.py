"""Private EASE: closed form, scores on the device, what noise does to it, and what it reaches."""

import os
from collections.abc import Callable
from fractions import Fraction
from math import exp, sqrt
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from recsys.data import movielens
from recsys.data.interactions import History, Interactions
from recsys.data.items import Items
from recsys.data.split import leave_last_out
from recsys.data.synthetic import FIRST, population
from recsys.metrics.ranking import evaluate
from recsys.models.ease import Ease
from recsys.models.popularity import ItemPop
from recsys.models.private_ease import RIDGE, PrivateEase, ease, on_device
from recsys.models.private_gram import Settings
from recsys.models.private_pairs import Recency
from recsys.models.private_sums import Contribution, Noised, Sums, exact_sums
from recsys.models.store import ModelState
from recsys.text.vectors import ItemVectors
from secagg.errors import UsageError
from tests.scenes.item_vectors import vectors


def noised_sums(histories: list[History], multiplier: float, seed: int) -> Sums:
    """The ideal: exact sums plus normal noise of the size that the share allows."""
    rng = np.random.default_rng(seed)

    def add(purpose: str, length: int, share: Fraction, contribution: Contribution) -> Noised:
        deviation = multiplier / sqrt(share)
        total = sum((contribution(history) for history in histories), start=np.zeros(length))
        return Noised(total + deviation * rng.standard_normal(length), deviation, len(histories))

    return add


def ndcg(model: PrivateEase | ItemPop, events: Interactions, learn: Callable[[Interactions], None]) -> float:
    split = leave_last_out(events, valid=False)
    learn(split.train)
    return evaluate(model, split).mean("NDCG@10")


def test_the_weights_are_the_closed_form_of_ease() -> None:
    """The other implementation, on 0/1 rows, with the same ridge."""
    rng = np.random.default_rng(3)
    taken = [rng.choice(8, size, replace=False) for size in rng.integers(1, 6, 40)]
    rows = np.array([np.bincount(items, minlength=8) for items in taken], float)
    gram = rows.T @ rows
    reference = Ease(regularisation=RIDGE * float(np.diag(gram).mean()))
    users = np.repeat(np.arange(40), [len(items) for items in taken])
    reference.fit(Interactions.of(users, np.concatenate(taken), item_count=8))
    np.testing.assert_allclose(ease(gram), reference.weights, atol=1e-6)


def test_a_matrix_with_negative_eigenvalues_still_gives_weights() -> None:
    weights = ease(np.array([[0.1, 5.0], [5.0, 0.1]]))
    assert np.isfinite(weights).all()
    assert weights[0, 1] > 0


def test_the_last_items_of_a_history_weigh_most_and_all_add_up_to_one() -> None:
    row = on_device([np.int32([3, 1, 0])], np.arange(4), 4, Recency(history=1.0, history_floor=0.0))[0]
    assert row[0] / row[1] == pytest.approx(np.e)
    assert row[1] / row[3] == pytest.approx(np.e)
    assert row.sum() == pytest.approx(1)
    assert on_device([np.int32([3, 1, 0])], np.arange(4), 4, None)[0] == pytest.approx([1 / 3, 1 / 3, 0, 1 / 3])


def test_under_noise_that_hides_all_it_is_popularity_as_noised() -> None:
    """At 100 users and a multiplier of 10^4, nothing of the pairs stands out of the noise."""
    histories = list(population(100, 300, seed=1).histories())
    model = PrivateEase()
    model.learn(noised_sums(histories, 1e4, seed=3), 300)
    told, untold = model.scores([histories[0], np.int32([])])
    assert untold.argsort(kind="stable").tolist() == model.popularity.argsort(kind="stable").tolist()
    others = np.setdiff1d(np.arange(300), model.items)
    assert told[others].argsort().tolist() == model.popularity[others].argsort().tolist()
    assert np.abs(model.weights).max() < 0.2


def test_the_same_sums_give_the_same_model() -> None:
    """Nothing but the two sums enters it: no seed, no history."""
    histories = list(population(100, 300, seed=1).histories())
    one, other = PrivateEase(), PrivateEase()
    one.learn(noised_sums(histories, 0.5, seed=1), 300)
    other.learn(noised_sums(histories, 0.5, seed=1), 300)
    np.testing.assert_allclose(one.weights, other.weights, rtol=1e-4, atol=1e-5)
    other.learn(noised_sums(histories, 0.5, seed=2), 300)
    assert np.abs(one.weights - other.weights).max() > 1e-3


def test_it_is_better_than_popularity_and_noise_costs_something() -> None:
    """Epsilon 8 has a multiplier of about 0.6. On 800 made-up users: .061 without noise, .050 with, ItemPop .032."""
    events = population(800, 3000, seed=3, habits=FIRST)
    popular, baseline, private = ItemPop(), PrivateEase(), PrivateEase()
    reference = ndcg(popular, events, popular.fit)
    best = ndcg(baseline, events, baseline.fit)
    found = ndcg(private, events, lambda train: private.learn(noised_sums(list(train.histories()), 0.6, 7), 3000))
    assert 1.2 * reference < found < best


@pytest.mark.parametrize("featured", [False, True])
def test_it_is_stored_whole(featured: bool) -> None:
    events = population(60, 200, seed=1, habits=FIRST)
    model = PrivateEase(Settings(items=30, popularity_share=Fraction(1, 7), recency=None), table(200, featured))
    model.fit(events)
    assert bool(model.alike.nnz) == featured
    state = model.state()
    again = PrivateEase.from_state(ModelState(dict(state.settings), dict(state.arrays)))
    assert again.settings == model.settings
    histories = [events.history(0), np.int32([])]
    np.testing.assert_allclose(again.scores(histories), model.scores(histories), rtol=1e-4, atol=1e-5)


def table(items: int, featured: bool, seed: int = 0) -> Items | None:
    """Items of eight genres at random."""
    genres = np.random.default_rng(seed).integers(0, 8, items)
    ids = [str(item) for item in range(items)]
    return Items.of(ids, genres=[f"genre {genre}" for genre in genres]) if featured else None


@pytest.mark.parametrize("how", ["genres", "texts"])
def test_other_items_are_told_apart_by_what_is_said_of_them(how: str) -> None:
    """Users stay in one genre. Of the items that were not chosen, those of the history's genre come first. The table
    names the genres; or it has titles, and an encoder knows."""
    rng, described, said = np.random.default_rng(2), table(400, True), None
    assert described is not None
    kinds = np.array([int(genres[0][-1]) for genres in described.genres])
    if how == "texts":
        described = Items.of(described.ids, [f"title {item}" for item in range(400)])
        rows = np.eye(8, 12)[kinds] + 0.1 * rng.standard_normal((400, 12)) + 1.0
        said = ItemVectors(rows.astype(np.float32), "an encoder")
    popularity = 1 / np.arange(1, 401)
    users, items = list[int](), list[int]()
    for user in range(300):
        mine = np.where(kinds == user % 8, popularity, 0.02 * popularity)
        items += rng.choice(400, 12, replace=False, p=mine / mine.sum()).tolist()
        users += [user] * 12
    model, plain = PrivateEase(Settings(items=60), described, said), PrivateEase(Settings(items=60))
    events = Interactions.of(users, items, item_count=400)
    for one in (model, plain):
        one.fit(events)
    others = np.setdiff1d(np.arange(400), model.items)
    history = np.array([item for item in model.items if kinds[item] == 3][:3], np.int32)
    best = others[np.argsort(-model.scores([history])[0][others])[:5]]
    assert (kinds[best] == 3).all()
    same = others[np.argsort(-plain.scores([history])[0][others])[:5]]
    assert not (kinds[same] == 3).all()


def test_vectors_are_those_of_all_items_and_go_with_their_table() -> None:
    histories = [np.array([0, 1], np.int32)]
    model = PrivateEase(Settings(items=4), table(9, True), vectors(8))
    with pytest.raises(UsageError, match="vectors of 8 items, and the model has 9"):
        model.learn(exact_sums(histories), 9)
    with pytest.raises(UsageError, match="without a table of items"):
        PrivateEase(Settings(items=4), None, vectors(9)).learn(exact_sums(histories), 9)


def test_a_table_of_features_at_random_changes_little() -> None:
    """Kernels that say nothing get nothing: the weights between chosen items stay what they were."""
    events = population(300, 400, seed=4)
    told, plain = (
        PrivateEase(Settings(items=50, popularity_share=Fraction(1, 5)), table(400, one)) for one in (True, False)
    )
    for model in (told, plain):
        model.fit(events)
    assert np.linalg.norm(told.weights - plain.weights) < 0.1 * np.linalg.norm(plain.weights)


def test_an_empty_model_says_so() -> None:
    with pytest.raises(UsageError, match="learn or fit"):
        PrivateEase().scores([])
    with pytest.raises(UsageError, match="learn or fit"):
        PrivateEase().state()


def gained(name: str, described: Items | None, events: Interactions, epsilon: float) -> tuple[float, float]:
    """NDCG@10 on the test event, less that of ItemPop; and the same without noise. Means over three draws of noise that
    is as large as that of 20 silos, one of them colluding and two away."""
    split = leave_last_out(events)
    histories, items, users = list(split.train.histories()), split.train.item_count, split.train.user_count
    multiplier = gaussian_multiplier(epsilon, 1 / (100 * users)) * sqrt(20 / 17)
    popular, exact = ItemPop(), PrivateEase(described=described)
    for model in (popular, exact):
        model.fit(split.train)
    reference, best = (evaluate(one, split).mean("NDCG@10") for one in (popular, exact))
    found = []
    for seed in range(3):
        model = PrivateEase(described=described)
        model.learn(noised_sums(histories, multiplier, 100 + seed), items)
        found.append(evaluate(model, split).mean("NDCG@10"))
    print(f"{name}, epsilon {epsilon}: {np.mean(found):.4f}, without noise {best:.4f}, ItemPop {reference:.4f}")
    return float(np.mean(found)) - reference, best - reference


def gaussian_multiplier(epsilon: float, delta: float) -> float:
    """Of the analytic Gaussian (Balle and Wang 2018)."""

    def spent(multiplier: float) -> float:
        mu = 1 / multiplier
        return float(norm.cdf(mu / 2 - epsilon / mu) - exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu))

    return float(brentq(lambda multiplier: spent(multiplier) - delta, 0.1, 100))


@pytest.mark.long
@pytest.mark.parametrize(
    ("epsilon", "gain", "share"), [(8.0, 0.024, 0.80), (3.0, 0.020, 0.65), (1.0, 0.008, 0.35)], ids=str
)
def test_what_is_asked_for_on_the_demo_s_population(epsilon: float, gain: float, share: float) -> None:
    """Here .0266, .0227 and .0138, with a standard deviation of .0006 over draws; draws are fixed."""
    found, whole = gained("4,000 made-up users", None, population(4000, 1000, seed=1, habits=FIRST), epsilon)
    assert found >= gain
    assert found >= share * whole


@pytest.mark.long
@pytest.mark.parametrize(("epsilon", "least"), [(8.0, 0.038), (3.0, 0.028)])
def test_what_is_asked_for_on_movielens(epsilon: float, least: float) -> None:
    """The data set on which the prior from features was developed (by its validation events)."""
    folder = os.environ.get("SECAGG_MOVIELENS")
    if folder is None:
        pytest.skip("private EASE is NOT measured: set SECAGG_MOVIELENS to a folder with ml-latest-small")
    loaded = movielens.load(Path(folder))
    found, _ = gained("ml-latest-small", loaded.items, loaded.interactions, epsilon)
    assert found + 0.0188 >= least
