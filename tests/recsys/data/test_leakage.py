"""What is held out reaches no model: change it at will, and every trained model stays the same, bit for bit."""

from collections.abc import Callable

import numpy as np
import pytest

from recsys.data.interactions import Interactions
from recsys.data.split import Split, by_ratio, leave_last_out
from recsys.data.synthetic import population
from recsys.models.recommender import Local, Recommender

pytest.importorskip("scipy", reason="NOT TESTED: most models need scipy, pip install 'secagg[recsys]'")
pytest.importorskip("torch", reason="NOT TESTED: most models need torch, pip install 'secagg[train]'")

from recsys.models.autoencoder import Autoencoder
from recsys.models.ease import Ease
from recsys.models.knn import ItemKnn
from recsys.models.mf import MatrixFactorisation
from recsys.models.neumf import NeuMf
from recsys.models.over_text import TwoTower
from recsys.models.popularity import ItemPop
from recsys.models.private_ease import PrivateEase
from recsys.models.private_mf import PrivateMf
from recsys.models.sasrec import SasRec
from tests.scenes.item_vectors import coordinates

EVENTS = population(users=24, items=80, seed=6)
RULES: list[Callable[[Interactions], Split]] = [leave_last_out, by_ratio]
MODELS: list[Callable[[], Recommender]] = [
    ItemPop, ItemKnn, Ease, PrivateEase, PrivateMf, Autoencoder, MatrixFactorisation, NeuMf, SasRec,
    lambda: TwoTower(coordinates(80)),
]  # fmt: skip


def altered(split: Split) -> Interactions:
    """The same past of everybody, with another future: other items at other times, for all that is held out."""
    rng = np.random.default_rng(7)
    parts = [split.train]
    for user in range(split.train.user_count):
        past, future = split.train.history(user), len(split.valid.history(user)) + len(split.test.history(user))
        last = split.train.times[split.train.starts[user + 1] - 1]
        items = rng.choice(np.setdiff1d(np.arange(split.train.item_count), past), future, replace=False)
        times = last + 1 + np.sort(rng.integers(1 << 30, size=future))
        parts.append(
            Interactions.of(
                np.full(future, user), items, times, user_ids=split.train.user_ids, item_ids=split.train.item_ids
            )
        )
    columns = (np.concatenate([getattr(part, name) for part in parts]) for name in ("users", "items", "times"))
    return Interactions.of(*columns, user_ids=split.train.user_ids, item_ids=split.train.item_ids)


def trained(model: Recommender, train: Interactions) -> np.ndarray:
    """What the model says of everybody's past, after a short training."""
    if hasattr(model, "begin"):
        model.begin(train.item_count, 1)
        model.train(list(train.histories()), Local(batch=24), 1)
    else:
        model.fit(train)
    return model.scores(list(train.histories()))


@pytest.mark.parametrize("make", MODELS)
def test_another_future_gives_the_same_model(make: Callable[[], Recommender]) -> None:
    split = leave_last_out(EVENTS)
    other = leave_last_out(altered(split))
    assert not np.array_equal(split.test.items, other.test.items)
    np.testing.assert_allclose(trained(make(), split.train), trained(make(), other.train), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", MODELS)
def test_control_a_model_that_is_given_the_future_is_another(make: Callable[[], Recommender]) -> None:
    split = leave_last_out(EVENTS)
    assert not np.allclose(trained(make(), EVENTS), trained(make(), altered(split)), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("rule", RULES)
def test_the_training_part_is_the_same_to_the_last_bit(rule: Callable[[Interactions], Split]) -> None:
    split = rule(EVENTS)
    other = rule(altered(split))
    for name in ("starts", "items", "times", "ratings"):
        assert getattr(split.train, name).tobytes() == getattr(other.train, name).tobytes()
