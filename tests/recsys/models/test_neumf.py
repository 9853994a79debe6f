"""NeuMF: scores on paper, users found from their support alone, and that it learns."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="NOT TESTED: this model needs torch, pip install 'secagg[train]'")

import torch

from recsys.data.split import leave_last_out
from recsys.data.synthetic import FIRST, population
from recsys.metrics.ranking import evaluate
from recsys.models.draws import Draws
from recsys.models.neumf import NeuMf, _cross_entropy
from recsys.models.neural import tensors
from recsys.models.popularity import ItemPop
from recsys.models.recommender import Local

ITEMS = 30
HISTORIES = [np.int32([3, 1, 4, 15, 9, 2]), np.int32([6, 5, 3])]


def model(**settings: float) -> NeuMf:
    made = NeuMf(width=4, recent=6, negatives=2, **settings)
    made.begin(ITEMS, seed=0)
    made.vector = np.random.default_rng(1).normal(0, 0.5, len(made.vector)).astype(np.float32)
    return made


def test_scores_on_paper() -> None:
    made = model()
    module = made._begun
    users = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    found = module(users, torch.tensor([[5, 7], [5, 0]]))
    for row, ids in enumerate([[5, 7], [5, 0]]):
        for column, item in enumerate(ids):
            u, v, p, q = users[row, :4], users[row, 4:], module.items[item, :4], module.items[item, 4:]
            first = module.of_user.weight @ v + module.of_user.bias + module.of_item.weight @ q
            second = (module.layers[1].weight @ first.relu() + module.layers[1].bias).relu()
            wanted = (module.products * u * p).sum() + module.layers[3].weight[0] @ second + module.bias[item]
            torch.testing.assert_close(found[row, column], wanted)


def test_users_are_found_from_their_support_alone() -> None:
    made = model()
    ids, support, wanted, others = tensors(made._examples(HISTORIES, Draws(2, HISTORIES)))
    assert not (support & wanted).any()
    assert (support | wanted).sum(1).tolist() == [6, 3]
    users = made._found(made._begun, ids, support, others)
    changed = torch.where(support, ids, (ids + 1) % ITEMS)
    torch.testing.assert_close(made._found(made._begun, changed, support, others), users)
    torch.testing.assert_close(made._found(made._begun, ids[1:], support[1:], others[1:])[0], users[1])
    nobody = made._found(made._begun, ids, torch.zeros_like(support), others)
    torch.testing.assert_close(nobody[0], made._begun.start.detach())


def test_finding_a_user_lowers_the_loss() -> None:
    made = model(pace=0.5, descent=20)
    ids, support, _, others = tensors(made._examples(HISTORIES, Draws(2, HISTORIES)))
    start = made._begun.start.expand(2, -1)
    before = _cross_entropy(made._begun, start, ids, support, others)
    users = made._found(made._begun, ids, support, others)
    after = _cross_entropy(made._begun, users, ids, support, others)
    assert (after < 0.9 * before).all()
    assert not users.requires_grad


def test_scores_are_about_the_items_of_a_history_and_no_draw() -> None:
    """In another order there are the same items, and the same negatives: none that the user has, and none from
    elsewhere."""
    made, asked = model(), []
    found = made._found
    made._found = lambda module, *examples: asked.append(examples) or found(module, *examples)  # type: ignore
    several = [*HISTORIES, HISTORIES[0][::-1], np.arange(ITEMS, dtype=np.int32)]
    scores = made.scores(several)
    np.testing.assert_allclose(scores[0], scores[2], rtol=1e-4, atol=1e-4)
    ((_, there, others),) = asked
    others = others.flatten(1).numpy()
    assert [bool(np.isin(row, one).any()) for row, one in zip(others[:3], several, strict=False)] == [False] * 3
    differs = others[0] != others[1]
    assert 0 < differs.sum() < len(differs)
    assert (np.isin(others[0] - 1, HISTORIES[0]) | np.isin(others[1] - 1, HISTORIES[1]))[differs].all()
    assert there.sum(1).tolist() == [6, 3, 6, 0]  # who has everything prefers nothing


@pytest.mark.long
def test_it_learns_more_than_popularity() -> None:
    split = leave_last_out(population(users=300, items=300, seed=3, habits=FIRST))
    made = NeuMf(8, recent=30, negatives=2, central=Local(epochs=10, batch=32, rate=0.015))
    reference = ItemPop()
    made.fit(split.train)
    reference.fit(split.train)
    assert evaluate(made, split).mean("NDCG@10") > evaluate(reference, split).mean("NDCG@10")
