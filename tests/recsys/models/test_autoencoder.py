"""The autoencoder: what is hidden, how age counts, the loss on paper, and that it learns."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

pytest.importorskip("torch", reason="NOT TESTED: this model needs torch, pip install 'secagg[train]'")

import torch

from dp.events import Unit
from dp.training import Flat, Settings
from recsys.data.split import leave_last_out
from recsys.data.synthetic import FIRST, population
from recsys.metrics.ranking import evaluate
from recsys.models.autoencoder import Autoencoder
from recsys.models.draws import Draws
from recsys.models.popularity import ItemPop
from recsys.models.recommender import Local
from secagg.crypto.prg import Prg

HISTORY = np.int32([4, 7, 1, 9, 3])


def model() -> Autoencoder:
    made = Autoencoder(width=3, recent=8, fading=0.5, spread=1.0)
    made.begin(10, seed=0)
    made.vector = np.random.default_rng(1).normal(size=40).astype(np.float32)
    return made


def parts(made: Autoencoder) -> tuple[np.ndarray, np.ndarray]:
    return made.vector[:30].reshape(10, 3).astype(np.float64), made.vector[30:].astype(np.float64)


def test_scores_on_paper() -> None:
    made = model()
    items, bias = parts(made)
    weights = 0.5 ** np.arange(5)[::-1]  # the newest weighs most
    taste = (weights / np.linalg.norm(weights)) @ items[HISTORY]
    np.testing.assert_allclose(made.scores([HISTORY])[0], items @ taste + bias, rtol=1e-4)
    np.testing.assert_allclose(made.scores([np.empty(0, np.int32)])[0], bias, rtol=1e-5, atol=1e-6)


def test_only_the_latest_count() -> None:
    made, older = model(), np.int32([0, 5, 6, 8])
    one, other = np.concatenate([older, HISTORY, HISTORY]), np.concatenate([HISTORY, HISTORY])[-8:]
    np.testing.assert_allclose(made.scores([one]), made.scores([other]), rtol=1e-4, atol=1e-5)


def test_what_is_hidden_is_what_is_to_be_foretold() -> None:
    made, hidden_in_all = model(), 0
    for seed in range(200):
        ids, weights, wanted = (part[0] for part in made._examples([HISTORY], Draws(seed, [HISTORY])))
        seen, hidden = set(ids[weights > 0]), set(ids[wanted > 0])
        assert seen | hidden == set(HISTORY.tolist())
        assert not seen & hidden
        assert np.linalg.norm(weights) == pytest.approx(1.0 if seen else 0.0)
        assert wanted.sum() == pytest.approx(1.0 if hidden else 0.0)
        hidden_in_all += len(hidden)
    assert 400 < hidden_in_all < 600  # half of 1000, 6 standard deviations are 95


def test_the_loss_on_paper() -> None:
    made = model()
    items, bias = parts(made)
    ids, weights, wanted = (part[0] for part in made._examples([HISTORY], Draws(3, [HISTORY])))
    scores = items @ (weights @ items[ids]) + bias
    likelihoods = scores - np.log(np.exp(scores).sum())
    losses = made._losses(made._begun, *(torch.from_numpy(part[None]) for part in (ids, weights, wanted)))
    assert losses.tolist() == pytest.approx([-float(wanted @ likelihoods[ids])], rel=1e-5)


def test_it_learns_more_than_popularity() -> None:
    split = leave_last_out(population(users=300, items=300, seed=3, habits=FIRST))
    made, reference = Autoencoder(16, fading=0.9, central=Local(epochs=30, batch=32, rate=0.01)), ItemPop()
    made.fit(split.train)
    reference.fit(split.train)
    assert evaluate(made, split).mean("NDCG@10") > evaluate(reference, split).mean("NDCG@10") + 0.01


def test_under_privacy_it_learns_popularity_at_least() -> None:
    """500 users at a noise multiplier of 2, 8 steps: about epsilon 10. From scores that mean nothing."""
    split = leave_last_out(population(users=500, items=200, seed=4, habits=FIRST))
    made = Autoencoder(width=4, spread=0.1, fading=0.9)
    made.begin(200, seed=0)
    start = evaluate(made, split).mean("NDCG@10")
    settings = Settings(Flat(0.2), Fraction(2), expected_batch=500)
    made.train_privately(
        list(split.train.histories()), settings, 8, 100.0, unit=Unit.USER, charge=lambda event, count: None, seed=0,
        rng=Prg(bytes(32)),
    )  # fmt: skip
    reference = ItemPop()
    reference.fit(split.train)
    assert start < 0.4 * evaluate(reference, split).mean("NDCG@10")
    assert evaluate(made, split).mean("NDCG@10") > 0.9 * evaluate(reference, split).mean("NDCG@10")
