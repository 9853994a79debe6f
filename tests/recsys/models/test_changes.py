"""How far each user alone moves a model: it follows from that user's history and the seed, and from nobody else.

Others' changes are compared to the last bit between data sets in which one user is another, is gone, or stands
elsewhere. What is not finite, or makes a model raise, is zeros, and touches nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="NOT TESTED: these models need torch, pip install 'secagg[train]'")

import torch

from recsys.data.synthetic import population
from recsys.models import batches, mf, neural
from recsys.models.autoencoder import Autoencoder
from recsys.models.draws import Draws
from recsys.models.mf import MatrixFactorisation
from recsys.models.neumf import NeuMf
from recsys.models.neural import Neural, tensors
from recsys.models.over_text import TwoTower
from recsys.models.recommender import Local
from recsys.models.sasrec import SasRec
from tests.controls import switch_off
from tests.scenes.item_vectors import coordinates
from tests.scenes.tuned import tuned

ITEMS = 57
HISTORIES = [history % ITEMS for history in population(users=9, items=80, seed=1).histories()]
MODELS: dict[str, Callable[[], Any]] = {
    "autoencoder": lambda: Autoencoder(width=4, recent=20),
    "mf": lambda: MatrixFactorisation(width=4, recent=20),
    "neumf": lambda: NeuMf(width=4, recent=8),
    "sasrec": lambda: SasRec(width=8, recent=6, negatives=10, dropout=0.5),
    "two-tower": lambda: TwoTower(coordinates(ITEMS), width=4, recent=6, negatives=10, dropout=0.5),
    "tuned-encoder": lambda: tuned(ITEMS, width=4, recent=6, negatives=10, dropout=0.5),
}
ONE, THREE = Local(epochs=1, rate=0.5), Local(epochs=3, rate=0.5, proximal=0.2)
STEPS = pytest.mark.parametrize("local", [ONE, THREE], ids=["one step", "three steps"])


@pytest.fixture(params=MODELS.values(), ids=MODELS)
def model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(neural, "_MOST_AT_ONCE", 4)  # three batches, the last of them with dummies
    made = request.param()
    made.begin(ITEMS, seed=3)
    return made


def changes(model: Any, histories: Sequence[Any] = HISTORIES, local: Local = ONE, seed: int = 7) -> list[bytes]:
    before, found = model.vector, list(model.changes(histories, local, seed))
    assert [(len(change), change.dtype) for change in found] == [(len(before), np.float64)] * len(histories)
    np.testing.assert_array_equal(model.vector, before)
    assert np.isfinite(found).all()
    return [change.tobytes() for change in found]


@STEPS
@pytest.mark.thinned(2)
def test_nobody_elses_data_moves_a_users_change(model: Any, local: Local) -> None:
    """One is another, is none, is gone, is there twice; and all stand elsewhere."""
    found = changes(model, local=local)
    assert len(set(found)) == len(found)
    for wild in (np.empty(0, np.int32), np.full(500, 3, np.int32), np.arange(ITEMS, dtype=np.int32)):
        other = changes(model, [*HISTORIES[:5], wild, *HISTORIES[6:]], local)
        assert other[:5] + other[6:] == found[:5] + found[6:]
        assert other[5] != found[5]
    assert changes(model, HISTORIES[1:], local) == found[1:]
    assert changes(model, [HISTORIES[4], *HISTORIES], local) == [found[4], *found]
    assert changes(model, HISTORIES[::-1], local) == found[::-1]
    assert changes(model, HISTORIES[8:], local) == found[8:]
    assert changes(model, [], local) == []


def test_what_is_drawn_follows_from_the_seed(model: Any) -> None:
    found = changes(model)
    assert changes(model) == found
    assert not set(changes(model, seed=8)) & set(found)


@pytest.mark.thinned(3)
@STEPS
def test_a_change_is_that_of_plain_steps_on_one_user(model: Any, local: Local) -> None:
    if not isinstance(model, Neural):
        return
    start, module = model.vector.astype(np.float64), model._begun.eval()
    for history, found in zip(HISTORIES, model.changes(HISTORIES, local, 7), strict=True):
        own = deepcopy(module)
        anchor = [parameter.detach().clone() for parameter in neural.trained(own)]
        for step in range(local.epochs):
            example = tensors(model._examples([history], Draws(7 * local.epochs + step, [history])))
            loss = model._losses(own, *model._prepared(module, example)).sum()
            gradients = torch.autograd.grad(loss, neural.trained(own), allow_unused=True)
            with torch.no_grad():
                for parameter, before, gradient in zip(neural.trained(own), anchor, gradients, strict=True):
                    pull = local.proximal * (parameter - before)
                    parameter -= local.rate * ((0 if gradient is None else gradient) + pull)
        np.testing.assert_allclose(found, neural.vector_of(own) - start, rtol=1e-3, atol=2e-6)


@STEPS
def test_a_change_of_mf_is_that_of_training_on_one_user(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    made = MODELS["mf"]()
    made.begin(ITEMS, seed=3)
    monkeypatch.setattr(
        MatrixFactorisation,
        "drawn",
        lambda self, history, rng: (history[::2], history[1::2], (history[1::2, None] + 7) % ITEMS),
    )
    for history, found in zip(HISTORIES, made.changes(HISTORIES, replace(local, proximal=0.0), 7), strict=True):
        other = made.with_vector(made.vector)
        other.train([history], replace(local, proximal=0.0), 0)
        np.testing.assert_allclose(found, other.vector - made.vector, rtol=1e-3, atol=1e-6)


WRONG = {
    "an item that is none": np.array([3, ITEMS], np.int32),
    "below zero": np.array([-1, 4], np.int32),
    "a table": np.array([[1, 2], [3, 4]], np.int32),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_history_that_is_none_counts_as_empty(model: Any, wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = changes(model)
    assert changes(model, [*HISTORIES[:5], wrong, *HISTORIES[6:]])[:5] == found[:5]
    assert changes(model, [wrong]) == changes(model, [np.empty(0, np.int32)])
    if isinstance(model, MatrixFactorisation) and wrong is WRONG["an item that is none"]:
        monkeypatch.setattr(mf, "known", lambda history, item_count: history)
        with pytest.raises(IndexError):
            changes(model, [wrong])


def test_a_change_that_is_no_number_is_zeros_and_touches_nobody(model: Any) -> None:
    """A huge rate: what overflows in two steps for one who took a lot is nothing for who took nothing."""
    huge = Local(epochs=2, rate=1e300)
    found = [np.frombuffer(change) for change in changes(model, [*HISTORIES, np.empty(0, np.int32)], huge)]
    assert any(not change.any() for change in found[:-1])


def test_that_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    made = MODELS["mf"]()
    made.begin(ITEMS, seed=3)
    switch_off(monkeypatch, MatrixFactorisation, "changes", "np.isfinite(change).all()", "True")
    with pytest.raises(AssertionError):
        changes(made, local=Local(epochs=2, rate=1e300))


class Shared(Draws):
    """One stream for all users of a batch."""

    def uniform(self, count: int) -> np.ndarray:
        return np.random.default_rng(0).random((len(self._keys), count))


def test_control_one_generator_for_all_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    made = MODELS["autoencoder"]()
    made.begin(ITEMS, seed=3)
    monkeypatch.setattr(neural, "Draws", Shared)
    assert changes(made, HISTORIES[1:]) != changes(made)[1:]


def test_batches_have_one_size_whoever_is_there(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three users and of nine, the model sees batches of four: in the last there are dummies."""
    if not isinstance(model, Neural):
        return
    sizes, real = set[int](), type(model)._prepared

    def watched(self: Any, module: Any, examples: Any) -> Any:
        sizes.add(len(examples[0]))
        return real(self, module, examples)

    monkeypatch.setattr(type(model), "_prepared", watched)
    for count in (1, 3, 9):
        changes(model, HISTORIES[:count])
    assert sizes == {4}


def test_large_models_are_computed_in_small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Autoencoder(width=4)
    made.begin(ITEMS, seed=3)
    monkeypatch.setattr(neural, "_NUMBERS_AT_ONCE", 10 * len(made.vector))
    assert made._at_once() == 10


def test_a_draw_is_a_number_from_0_to_1() -> None:
    """Of 40,000 draws the mean is .5 within 7 standard deviations, of each user and each position, too (false alarm:
    below 1e-9 in all)."""
    numbers = Draws(3, [np.array([user], np.int32) for user in range(200)]).uniform(200)
    assert (numbers >= 0).all()
    assert (numbers < 1).all()
    for axis, count in ((None, 40_000), (0, 200), (1, 200)):
        assert np.abs(numbers.mean(axis) - 0.5).max() < 7 * (1 / 12 / count) ** 0.5
    assert len(np.unique(numbers)) == numbers.size


def test_draws_go_on() -> None:
    draws, whole = Draws(3, HISTORIES), Draws(3, HISTORIES).uniform(9)
    np.testing.assert_array_equal(np.hstack([draws.uniform(4), draws.uniform(5)]), whole)


def test_what_is_known_is_items() -> None:
    assert batches.known(HISTORIES[0], ITEMS) is HISTORIES[0]
