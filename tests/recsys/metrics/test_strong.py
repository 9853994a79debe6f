"""Metrics of users whom training has not seen, against the formulas taken literally."""

from collections.abc import Sequence
from math import log2

import numpy as np
import pytest

from recsys.data.interactions import History, Interactions
from recsys.data.strong import Newcomers, StrongSplit, strong
from recsys.data.synthetic import population
from recsys.metrics import strong as module
from recsys.metrics.strong import evaluate_newcomers
from recsys.models.popularity import ItemPop
from recsys.models.tuned_ease import tuned_by_newcomers
from secagg.errors import UsageError
from tests.controls import switch_off


class Fixed:
    """One score for each item, whoever asks."""

    def __init__(self, scores: Sequence[float]) -> None:
        self._row = np.float32(scores)

    def scores(self, histories: Sequence[History]) -> np.ndarray:
        return np.tile(self._row, (len(histories), 1))


def split_of(train: list[int], history: list[int], targets: list[int], items: int) -> StrongSplit:
    def one(taken: list[int]) -> Interactions:
        return Interactions.of([0] * len(taken), taken, user_count=1, item_count=items)

    asked = Newcomers(one(history), one(targets))
    return StrongSplit(one(train), asked, asked)


@pytest.mark.parametrize("k", [1, 2, 3, 4, 6])
def test_recall_is_of_what_fits_into_the_list(k: int) -> None:
    """Of six ranked items in the order 1 to 6, the targets are 1, 3 and 6; item 0 is in the history."""
    split = split_of(list(range(7)), [0], [1, 3, 6], 7)
    found = evaluate_newcomers(Fixed([99, 6, 5, 4, 3, 2, 1]), split, k=(k,))
    ranks = [rank for rank in (1, 3, 6) if rank <= k]
    ideal = sum(1 / log2(1 + rank) for rank in range(1, min(k, 3) + 1))
    assert found.mean(f"capped Recall@{k}") == pytest.approx(len(ranks) / min(k, 3))
    assert found.mean(f"NDCG@{k}") == pytest.approx(sum(1 / log2(1 + rank) for rank in ranks) / ideal)


def test_equals_are_in_no_order() -> None:
    """One of four equal items is the target: among the first two it is half of the time."""
    split = split_of([0, 1, 2, 3, 4], [4], [2], 5)
    assert evaluate_newcomers(Fixed([1] * 5), split, k=(2,)).mean("capped Recall@2") == pytest.approx(0.5)


def test_what_training_does_not_know_is_not_ranked(monkeypatch: pytest.MonkeyPatch) -> None:
    split = split_of([0, 1, 2], [0], [2], 9)
    model = Fixed([9, 2, 1, 8, 8, 8, 8, 8, 8])
    assert evaluate_newcomers(model, split, k=(2,)).mean("capped Recall@2") == 1
    switch_off(monkeypatch, module.Among, "scores", "~self.some")
    assert evaluate_newcomers(model, split, k=(2,)).mean("capped Recall@2") == 0


def test_whoever_has_no_target_is_not_measured() -> None:
    split = split_of([0, 1, 2], [0], [], 3)
    found = evaluate_newcomers(Fixed([1, 2, 3]), split)
    assert (len(found.users), found.skipped) == (0, 1)
    with pytest.raises(UsageError, match="'test' or 'valid'"):
        evaluate_newcomers(Fixed([1, 2, 3]), split, on="train")


def test_ease_is_tuned_by_validation_users_alone() -> None:
    split = strong(population(users=200, items=150, seed=3), liked=0.0, seed=1)
    other = StrongSplit(split.train, split.valid, split.valid)
    one, same = tuned_by_newcomers(split), tuned_by_newcomers(other)
    assert (one.regularisation, one.reach, one.floor) == (same.regularisation, same.reach, same.floor)
    popular = ItemPop()
    popular.fit(split.train)
    assert evaluate_newcomers(one, split).mean("NDCG@100") > evaluate_newcomers(popular, split).mean("NDCG@100")
