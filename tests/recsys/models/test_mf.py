"""Matrix factorisation: factors solve their ridge problem, steps follow the gradient, rounds are central steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="NOT TESTED: DP-SGD needs torch, pip install 'secagg[train]'")

import torch
import torch.nn.functional as F

from dp.events import PoissonSample, Unit
from dp.training import Flat, Settings
from recsys.data.interactions import History
from recsys.data.split import leave_last_out
from recsys.data.synthetic import FIRST, population
from recsys.metrics.ranking import evaluate
from recsys.models import mf, mf_private
from recsys.models.mf import MatrixFactorisation
from recsys.models.popularity import ItemPop
from recsys.models.recommender import Local
from secagg.crypto.prg import Prg
from secagg.errors import UsageError
from tests.controls import switch_off

ITEMS = 60
HISTORIES = list(population(users=8, items=80, seed=1).of_users(range(8)).histories())
HISTORIES = [np.unique(history % ITEMS).astype(np.int32)[:25] for history in HISTORIES]


def model(**settings: Any) -> MatrixFactorisation:
    made = MatrixFactorisation(width=4, **{"spread": 0.5, "bias": 0.7, "fading": 0.9} | settings)
    made.begin(ITEMS, seed=2)
    made.vector = made.vector + np.random.default_rng(0).normal(0, 0.1, made.vector.size).astype(np.float32)
    return made


def rows_of(made: MatrixFactorisation) -> np.ndarray:
    return made.vector.reshape(ITEMS, -1)


def test_a_factor_solves_its_ridge_problem() -> None:
    made = model(ridge=0.8, unseen=0.05)
    items, history = rows_of(made)[:, :-1].astype(np.float64), HISTORIES[0]
    weights = np.sqrt(0.9 ** np.arange(len(history))[::-1])
    design = np.vstack([weights[:, None] * items[history], np.sqrt(0.05) * items, np.sqrt(0.8) * np.eye(4)])
    wanted = np.concatenate([weights, np.zeros(ITEMS + 4)])
    [factor] = made.factors([history])
    np.testing.assert_allclose(factor[:-1], np.linalg.lstsq(design, wanted, rcond=None)[0], rtol=1e-4)
    assert factor[-1] == np.float32(0.7)


def loss_on_paper(made: MatrixFactorisation, rows: Any, histories: Sequence[History], seed: int) -> Any:
    """The mean over users, pair by pair, with draws like those of one step."""
    rng, total = np.random.default_rng(seed), 0.0
    order = rng.permutation(len(histories))
    drawn = [made.drawn(histories[user], rng) for user in order]
    for support, positives, negatives in drawn:
        factor, own = torch.from_numpy(made.factors([support])[0]), 0.0
        for positive, others in zip(positives, negatives, strict=True):
            liked = rows[int(positive)] @ factor
            for other in others:
                unliked = rows[int(other)] @ factor
                if made.loss == "bpr":
                    own = own + F.softplus(unliked - liked) / len(others)
                else:
                    own = own + (F.softplus(-liked) + F.softplus(unliked)) / len(others)
        total = total + own / len(positives) ** 0.5
    return total / len(histories)


@pytest.mark.parametrize("loss", ["bpr", "bce"])
def test_a_step_goes_down_the_gradient(loss: str) -> None:
    made = model(loss=loss, negatives=3)
    rows = torch.from_numpy(rows_of(made)).requires_grad_()
    (gradient,) = torch.autograd.grad(loss_on_paper(made, rows, HISTORIES, seed=4), rows)
    before = rows_of(made)
    made.train(HISTORIES, Local(epochs=1, batch=100, rate=0.5), seed=4)
    np.testing.assert_allclose(rows_of(made), before - 0.5 * gradient.numpy(), rtol=1e-4, atol=1e-6)


def test_a_round_of_clients_is_a_central_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MatrixFactorisation, "drawn", lambda self, history, rng: (history[::2], history[1::2], (history[1::2, None] + 7) % ITEMS))  # fmt: skip  # noqa: E501
    made, total = model(), 0.0
    start = made.vector
    for user, history in enumerate(HISTORIES):
        made.vector = start
        made.train([history], Local(epochs=1, batch=1, rate=0.3), seed=user)
        total = total + (made.vector - start)
    made.vector = start
    made.train(HISTORIES, Local(epochs=1, batch=len(HISTORIES), rate=0.3), seed=0)
    np.testing.assert_allclose(made.vector, start + total / len(HISTORIES), rtol=1e-4, atol=1e-6)


def test_it_learns_more_than_popularity() -> None:
    split = leave_last_out(population(users=300, items=300, seed=3, habits=FIRST))
    made, reference = (
        MatrixFactorisation(width=16, fading=0.9, central=Local(epochs=30, batch=32, rate=0.01)),
        ItemPop(),
    )
    made.fit(split.train)
    reference.fit(split.train)
    assert evaluate(made, split).mean("NDCG@10") > evaluate(reference, split).mean("NDCG@10") + 0.005


def test_negatives_are_what_the_user_has_not() -> None:
    made, rng = model(negatives=50), np.random.default_rng(0)
    support, positives, negatives = made.drawn(HISTORIES[0], rng)
    assert sorted([*support, *positives]) == sorted(HISTORIES[0])
    assert set(negatives.ravel()) == set(range(ITEMS)) - set(HISTORIES[0])


# DP-SGD

WIDE = Settings(Flat(4.0), Fraction(1, 2 * 10**5), expected_batch=len(HISTORIES))
"""Nothing is clipped, and noise is too little to see."""


def nothing(event: Any, count: int) -> None:
    """Charges go nowhere."""


def without_noise(made: MatrixFactorisation, histories: Sequence[History], unit: Unit, **changes: Any) -> np.ndarray:
    settings = replace(WIDE, **changes)
    before = rows_of(made)
    made.train_privately(histories, settings, 1, 1.0, unit=unit, charge=nothing, seed=6, rng=Prg(bytes(32)))
    return before - rows_of(made)


@pytest.mark.parametrize("loss", ["bpr", "bce"])
def test_users_as_examples_have_the_gradient_of_training(loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same draws as in plain training: then a step without noise is a plain step."""
    drawn = MatrixFactorisation.drawn
    monkeypatch.setattr(MatrixFactorisation, "drawn", lambda self, history, rng: drawn(self, history, np.random.default_rng(len(history))))  # fmt: skip  # noqa: E501
    private, plain = model(loss=loss), model(loss=loss)
    before = rows_of(plain)
    plain.train(HISTORIES, Local(epochs=1, batch=100, rate=1.0), seed=0)
    moved = without_noise(private, HISTORIES, Unit.USER)
    np.testing.assert_allclose(moved, before - rows_of(plain), rtol=1e-3, atol=1.5e-4)


def test_only_the_latest_events_count_under_privacy() -> None:
    """With support near nothing, all of a history is positive; the first of it falls out of the window."""
    moved = without_noise(model(recent=3, support=1e-9, negatives=1, loss="bce"), HISTORIES[:1], Unit.USER, expected_batch=1)  # fmt: skip  # noqa: E501
    rose = {int(item) for item in np.flatnonzero(moved[:, -1] < -1e-4)}
    assert rose == {int(item) for item in HISTORIES[0][-3:]}


def beside(item: int) -> np.ndarray:
    """What others move, beside a user for whose history, of this item, the ridge problem may have no solution."""
    made = model(unseen=0.0)
    rows = rows_of(made).copy()
    rows[ITEMS - 1, :-1] = 1e6  # a server's choice: next to that, the ridge is nothing in float32
    made.vector = rows.ravel()
    histories = [*(history[history != ITEMS - 1] for history in HISTORIES), np.full(9, item, np.int32)]
    moved = without_noise(made, histories, Unit.USER, expected_batch=len(histories))
    return moved[np.setdiff1d(np.arange(ITEMS), [ITEMS - 1, 0]), :-1]


def test_a_user_without_a_factor_leaves_the_others_theirs() -> None:
    np.testing.assert_allclose(beside(ITEMS - 1), beside(0), atol=0.5)


def test_that_nobody_trains_for_one_without_a_factor_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    switch_off(monkeypatch, mf, "_solved", "np.linalg.LinAlgError", "KeyError")
    with pytest.raises(np.linalg.LinAlgError):
        beside(ITEMS - 1)


def test_interactions_are_examples_on_a_device() -> None:
    made, charged = model(), list[Any]()
    history = HISTORIES[0]
    words = {"unit": Unit.EXAMPLE, "charge": lambda *charge: charged.append(charge), "seed": 1, "rng": Prg(bytes(32))}
    settings = Settings(Flat(1.0), Fraction(1), expected_batch=5)
    before = made.vector
    made.train_privately([history], settings, 3, 0.1, **words)
    [(event, count)] = charged
    assert (event.guarantee.unit, event.sampling, count) == (Unit.EXAMPLE, PoissonSample(Fraction(5, len(history))), 3)
    assert made.vector.shape == before.shape  # the user's factor was trained, and stays where it is
    assert (made.vector != before).mean() > 0.999
    again = model()
    again.train_privately([history], settings, 3, 0.1, **words | {"rng": Prg(bytes(32)), "drift": np.ones_like(before)})
    moved = again.vector - made.vector
    np.testing.assert_allclose(moved, -0.3, atol=0.15)  # in all rows, and not in the factor: gradients are others then
    with pytest.raises(UsageError, match="a device, which has one user, not 2"):
        made.train_privately(HISTORIES[:2], settings, 1, 0.1, **words)


def device(monkeypatch: pytest.MonkeyPatch, history: History) -> tuple[dict[int, Any], Any]:
    """What DP-SGD on a device starts from: examples by item, and the factor."""
    seen: list[Any] = []

    def keep(module: Any, loss: Any, examples: Any, settings: Any, *others: Any, **words: Any) -> Any:
        seen.append(({int(item): negatives.tolist() for item, negatives in examples}, module.factor.tolist()))
        return settings

    monkeypatch.setattr(mf_private, "descend_privately", keep)
    without_noise(model(), [history], Unit.EXAMPLE)
    return seen[0]


def test_an_interaction_is_its_own_example(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the negatives of the others nor where the factor starts tell of it."""
    whole, start = device(monkeypatch, HISTORIES[0])
    less, same_start = device(monkeypatch, HISTORIES[0][1:])
    assert less == {item: negatives for item, negatives in whole.items() if item != HISTORIES[0][0]}
    assert same_start == pytest.approx(start, rel=1e-6)
    assert all(item not in negatives for item, negatives in whole.items())


def test_negatives_that_tell_of_others_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    switch_off(monkeypatch, MatrixFactorisation, "_examples_of_interactions", "history[at:at + 1]", "history")
    with pytest.raises(AssertionError):
        test_an_interaction_is_its_own_example(monkeypatch)
