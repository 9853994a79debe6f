"""Models over texts: the loss on paper, the past alone decides, and items that nobody took are known by their texts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="NOT TESTED: these models need torch, pip install 'secagg[train]'")

import torch

from recsys.data.interactions import Interactions
from recsys.models import over_text
from recsys.models.draws import Draws
from recsys.models.over_text import OverText, SasRecOverText, TwoTower
from recsys.models.recommender import Local
from recsys.text.coordinates import Coordinates
from recsys.text.vectors import ItemVectors
from secagg.errors import UsageError
from tests.controls import switch_off
from tests.scenes.item_vectors import coordinates, vectors

ITEMS, LENGTH = 30, 6
KINDS = pytest.mark.parametrize("kind", [TwoTower, SasRecOverText])


def model(kind: type[OverText] = TwoTower, **settings: Any) -> Any:
    made = kind(coordinates(ITEMS), width=4, recent=LENGTH, negatives=5, **settings)
    made.begin(ITEMS, seed=0)
    made.vector = np.random.default_rng(1).normal(0, 0.5, len(made.vector)).astype(np.float32)
    return made


def places(made: Any, ids: list[int], there: list[bool]) -> Any:
    with torch.no_grad():
        return made._begun.eval()(made._said(torch.tensor([ids])), torch.tensor([there]))[0].numpy()


@KINDS
def test_no_place_knows_what_comes_later(kind: type[OverText]) -> None:
    made, everything = model(kind), [True] * LENGTH
    one, other = places(made, [1, 2, 3, 4, 5, 6], everything), places(made, [1, 2, 3, 9, 5, 6], everything)
    np.testing.assert_allclose(one[:3], other[:3], rtol=1e-4, atol=1e-5)
    assert (np.abs(one[3:] - other[3:]) > 1e-3).any(axis=1).all()


def test_a_look_ahead_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    switch_off(monkeypatch, over_text._Pooled, "forward", "(ages >= 0) & there.unsqueeze(1)", "there.unsqueeze(1)")
    with pytest.raises(AssertionError):
        test_no_place_knows_what_comes_later(TwoTower)


@KINDS
def test_what_fills_up_is_not_seen(kind: type[OverText]) -> None:
    made, there = model(kind), [False, False, False, True, True, True]
    one, other = places(made, [0, 0, 0, 4, 5, 6], there), places(made, [7, 8, 9, 4, 5, 6], there)
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    assert np.isfinite(one).all()


@pytest.mark.parametrize("popular", [True, False])
def test_the_loss_on_paper(popular: bool) -> None:
    made, history = model(popular=popular), np.int32([3, 1, 4, 1, 5])
    ids, there, following, others = (part[0] for part in made._examples([history], Draws(0, [history])))
    assert ids[there].tolist() == [3, 1, 4, 1]
    assert following[there].tolist() == [1, 4, 1, 5]
    assert not set(others) & set(history.tolist())
    known = places(made, ids.tolist(), there.tolist())[there].astype(np.float64)
    learnt = {name: one.double().numpy() for name, one in made._begun.state_dict().items()}
    rows = made.text.rows.astype(np.float64)
    items, bias = rows @ learnt["items.weight"].T, (rows @ learnt["liked.weight"].T)[:, 0]
    assert ("popularity" in learnt) == popular
    bias = bias + learnt.get("popularity", 0.0)
    losses = []
    for place, item in zip(known, following[there], strict=True):
        scores = np.array([items[j] @ place + bias[j] for j in [item, *others]])
        losses.append(np.log(np.exp(scores).sum()) - scores[0])
    batch = [torch.from_numpy(part[None]) for part in (ids, there, following, others)]
    assert made._losses(made._begun, *batch).tolist() == pytest.approx([np.mean(losses)], rel=1e-4)


def test_the_user_on_paper() -> None:
    """A faded mean of the items, and a network on it."""
    made = model()
    learnt = {name: one.double().numpy() for name, one in made._begun.state_dict().items()}
    ids = [0, 2, 7, 3]
    items = made.text.rows[ids].astype(np.float64) @ learnt["items.weight"].T
    faded = (1 / (1 + np.exp(-learnt["user.fading"]))) ** np.arange(2, -1, -1)
    pooled = faded @ items[1:] / faded.sum()

    def normed(vector: np.ndarray, name: str) -> np.ndarray:
        scaled = (vector - vector.mean()) / np.sqrt(vector.var() + 1e-5)
        return scaled * learnt[f"user.{name}.weight"] + learnt[f"user.{name}.bias"]

    inner = torch.from_numpy(learnt["user.layers.1.weight"] @ normed(pooled, "layers.0") + learnt["user.layers.1.bias"])
    inner = torch.nn.functional.gelu(inner).numpy()
    moved = pooled + learnt["user.layers.3.weight"] @ inner + learnt["user.layers.3.bias"]
    found = places(made, ids, [False, True, True, True])[-1]
    np.testing.assert_allclose(found, normed(moved, "norm"), rtol=1e-3, atol=1e-4)


def test_nothing_learnt_grows_with_the_items_unless_each_has_its_popularity() -> None:
    def size(count: int, popular: bool) -> int:
        made = TwoTower(coordinates(count), width=4, popular=popular)
        made.begin(count, seed=0)
        return len(made.vector)

    assert size(20, False) == size(40, False) == size(40, True) - 40


def kinds(count: int, seed: int = 0) -> tuple[np.ndarray, ItemVectors]:
    """Items of three kinds that can be told from their vectors; the last of each is new."""
    kind = np.arange(count) % 3
    rows = np.eye(3, 6, dtype=np.float32)[kind] + 0.3 * vectors(count, seed=seed).rows
    return kind, ItemVectors(rows.astype(np.float32), "an encoder")


@KINDS
def test_items_that_nobody_took_are_ranked_by_their_texts(kind: type[OverText]) -> None:
    """Each user takes items of one kind. Of the last six, which come later, those of that kind are the best."""
    of, said = kinds(ITEMS + 6)
    rng = np.random.default_rng(2)
    taken = [rng.permutation(np.flatnonzero(of[:ITEMS] == user % 3))[:6] for user in range(60)]
    events = Interactions.of(np.repeat(np.arange(60), 6), np.concatenate(taken), np.arange(360), item_count=ITEMS)
    text = Coordinates.of(ItemVectors(said.rows[:ITEMS].copy(), said.encoder), 4)
    made = kind(text, width=8, recent=LENGTH, negatives=10, dropout=0.0, central=Local(epochs=8, batch=20, rate=0.02))
    made.fit(events)
    more = made.with_items(ItemVectors(said.rows[ITEMS:].copy(), said.encoder))
    scores = more.scores(list(events.histories()))
    np.testing.assert_allclose(scores[:, :ITEMS], made.scores(list(events.histories())), rtol=1e-4, atol=1e-4)
    right = np.arange(60)[:, None] % 3 == of[ITEMS:]
    new = scores[:, ITEMS:]
    assert (np.where(right, new, np.inf).min(axis=1) > np.where(right, -np.inf, new).max(axis=1)).mean() > 0.95


def test_a_new_item_is_as_popular_as_items_are() -> None:
    made = model()
    popularity = made.with_items(vectors(2, seed=5))._begun.state_dict()["popularity"].numpy()
    np.testing.assert_allclose(popularity[:ITEMS], made._begun.state_dict()["popularity"].numpy())
    np.testing.assert_allclose(popularity[ITEMS:], popularity[:ITEMS].mean(), rtol=1e-5)
    plain = model(popular=False).with_items(vectors(2, seed=5))
    assert plain.scores([np.int32([3])]).shape == (1, ITEMS + 2)


def test_items_by_another_encoder_are_refused() -> None:
    with pytest.raises(UsageError, match="vectors of another encoder"):
        model().with_items(vectors(2, encoder="another"))


def test_vectors_of_other_items_are_refused() -> None:
    with pytest.raises(UsageError, match="vectors of 30 items, and the model has 31"):
        TwoTower(coordinates(ITEMS)).begin(ITEMS + 1, seed=0)


def test_settings_of_a_configuration() -> None:
    made = TwoTower.configured({"coordinates": 3, "width": 5}, None, vectors(ITEMS))
    assert (made.width, made.text.rows.shape) == (5, (ITEMS, 3))
    with pytest.raises(UsageError, match=r"model.settings are blocks, coordinates, .*width, and not 'text'"):
        SasRecOverText.configured({"text": 3}, None, vectors(ITEMS))
    with pytest.raises(UsageError, match=r"needs model.encoder"):
        TwoTower.configured({}, None, None)
    for wrong in ({"width": 0}, {"dropout": 1.0}, {"recent": 1025}):
        with pytest.raises(UsageError, match=r"width, recent \(at most 1024\) and negatives are above 0"):
            TwoTower.configured(wrong, None, vectors(ITEMS))
    for wrong in ({"blocks": 0}, {"heads": 3}):
        with pytest.raises(UsageError, match="blocks, and width is a multiple of heads"):
            SasRecOverText.configured(wrong, None, vectors(ITEMS))
