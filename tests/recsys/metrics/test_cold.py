"""What is ranked, and what a model hears, where items and users are new."""

from collections.abc import Sequence

import numpy as np
import pytest

from recsys.data.cold import cold
from recsys.data.interactions import History, Interactions
from recsys.metrics.cold import evaluate_new_items, evaluate_new_users
from recsys.metrics.ranking import Evaluation
from secagg.errors import UsageError

EVENTS = Interactions.of(
    users=[0, 0, 0, 0, 1, 1, 2, 2, 2, 2],
    items=[0, 1, 2, 3, 0, 5, 0, 1, 2, 4],
    times=[1, 2, 3, 4, 1, 9, 8, 9, 10, 11],
    item_count=6,
)
SPLIT = cold(EVENTS, 5, first=2)
"""New items are 4 and 5, which users 2 and 1 took; the new user is 2, who first takes 0 and 1, and then 2."""


class Liking:
    """Scores by item, and the histories that it heard of."""

    def __init__(self, *scores: float) -> None:
        self.row, self.heard = np.float32([scores]), list[list[int]]()

    def scores(self, histories: Sequence[History]) -> np.ndarray:
        self.heard += [one.tolist() for one in histories]
        return np.repeat(self.row, len(histories), axis=0)


def test_new_items_among_all_and_among_the_new() -> None:
    model = Liking(9, 8, 7, 6, 1, 2)
    found = evaluate_new_items(model, SPLIT, k=3)
    assert found.users.tolist() == [1, 2]
    assert model.heard == [[0], [0, 1, 2]] * 2
    assert found.values["Recall@3"].tolist() == [0, 1]  # user 1: after 1, 2, 3; user 2: after 3 and 5
    assert found.values["NDCG@3"].tolist() == [0, 0.5]
    assert found.values["Recall@3 among the new"].tolist() == [1, 1]
    assert found.values["NDCG@3 among the new"].tolist() == [1, pytest.approx(1 / np.log2(3))]


def test_who_knows_nothing_of_new_items_stands_as_chance_does() -> None:
    found = evaluate_new_items(Liking(9, 8, 7, 6, 0, 0), SPLIT, k=1)
    assert found.values["Recall@1 among the new"].tolist() == [0.5, 0.5]
    assert found.values["Recall@1"].tolist() == [0, 0]


def test_a_new_user_is_told_of_and_nothing_else_changes() -> None:
    model = Liking(9, 8, 1, 2, 7, 6)

    def told(count: int) -> Evaluation:
        return evaluate_new_users(model, SPLIT, count, k=2)

    for count in range(3):
        found = told(count)
        assert found.users.tolist() == [2]
        assert found.values["Recall@2"].tolist() == [1]  # after 3 alone: 0 and 1 came first, 4 and 5 are new
        assert found.values["NDCG@2"].tolist() == [pytest.approx(1 / np.log2(3))]
    assert model.heard == [[], [0], [0, 1]]
    for wrong in (-1, 3):
        with pytest.raises(UsageError, match=f"0 to 2 first events, not of {wrong}"):
            told(wrong)
