"""SASRec: the past decides, the future does not; the loss on paper; and that it learns order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="NOT TESTED: this model needs torch, pip install 'secagg[train]'")

import torch

from recsys.data.interactions import Interactions
from recsys.models.draws import Draws
from recsys.models.recommender import Local
from recsys.models.sasrec import SasRec
from secagg.errors import UsageError
from tests.controls import switch_off

ITEMS, LENGTH = 30, 6


def model(heads: int = 1) -> SasRec:
    made = SasRec(width=8, heads=heads, recent=LENGTH, negatives=5)
    made.begin(ITEMS, seed=0)
    made.vector = np.random.default_rng(1).normal(0, 0.5, len(made.vector)).astype(np.float32)
    return made


def places(made: SasRec, ids: list[int], there: list[bool]) -> Any:
    with torch.no_grad():
        return made._begun.eval()(torch.tensor([ids]), torch.tensor([there]))[0].numpy()


@pytest.mark.parametrize("heads", [1, 2])
def test_no_place_knows_what_comes_later(heads: int) -> None:
    made, everything = model(heads), [True] * LENGTH
    one, other = places(made, [1, 2, 3, 4, 5, 6], everything), places(made, [1, 2, 3, 9, 5, 6], everything)
    np.testing.assert_allclose(one[:3], other[:3], rtol=1e-4, atol=1e-5)
    assert (np.abs(one[3:] - other[3:]) > 1e-3).any(axis=1).all()


def test_a_look_ahead_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    from recsys.models import sasrec

    visible = "torch.tril(torch.ones(length, length, dtype=torch.bool)) & there.unsqueeze(1)"
    switch_off(monkeypatch, sasrec.Attention, "forward", visible, "there.unsqueeze(1)")
    with pytest.raises(AssertionError):
        test_no_place_knows_what_comes_later(1)


def test_what_fills_up_is_not_seen() -> None:
    made, there = model(), [False, False, False, True, True, True]
    one, other = places(made, [0, 0, 0, 4, 5, 6], there), places(made, [7, 8, 9, 4, 5, 6], there)
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    assert np.isfinite(one).all()


def test_the_loss_on_paper() -> None:
    made, history = model(), np.int32([3, 1, 4, 1, 5])
    ids, there, following, others = (part[0] for part in made._examples([history], Draws(0, [history])))
    assert ids[there].tolist() == [3, 1, 4, 1]
    assert following[there].tolist() == [1, 4, 1, 5]
    assert not set(others) & set(history.tolist())
    known = places(made, ids.tolist(), there.tolist())[there].astype(np.float64)
    items, bias = (part.detach().double().numpy() for part in (made._begun.items, made._begun.bias))
    losses = []
    for place, item in zip(known, following[there], strict=True):
        scores = np.array([items[j] @ place + bias[j] for j in [item, *others]])
        losses.append(np.log(np.exp(scores).sum()) - scores[0])
    batch = [torch.from_numpy(part[None]) for part in (ids, there, following, others)]
    assert made._losses(made._begun, *batch).tolist() == pytest.approx([np.mean(losses)], rel=1e-4)


@pytest.mark.long
def test_it_learns_order() -> None:
    """Everybody goes round in a circle, from anywhere: popularity and co-occurrence say nothing."""
    starts = np.random.default_rng(0).integers(ITEMS, size=120)
    histories = (starts[:, None] + np.arange(8)) % ITEMS
    events = Interactions.of(np.repeat(np.arange(120), 8), histories.ravel(), np.tile(np.arange(8), 120))
    made = SasRec(width=16, recent=LENGTH, negatives=20, dropout=0.0, central=Local(epochs=25, batch=20, rate=0.01))
    made.fit(events)
    scores = made.scores(list(events.histories()))
    np.put_along_axis(scores, histories, -np.inf, axis=1)  # what was had is masked, as in every ranking here
    assert (scores.argmax(axis=1) == (histories[:, -1] + 1) % ITEMS).mean() > 0.95


def test_places_beside_each_other_are_bounded() -> None:
    SasRec(recent=1024)
    with pytest.raises(UsageError, match="recent is at most 1024"):
        SasRec(recent=1025)
