"""The list for one user, by ids."""

from collections.abc import Sequence

import numpy as np
import pytest

from recsys.data.interactions import History
from recsys.serving import ServedModel
from secagg.errors import UsageError

IDS = ["salt", "tea", "oil", "fish", "bread"]


class Fixed:
    def __init__(self, *scores: float) -> None:
        self.row = np.float32([scores])
        self.asked: list[list[int]] = []

    def scores(self, histories: Sequence[History]) -> np.ndarray:
        self.asked.append(histories[0].tolist())
        return self.row


def test_best_first_equals_in_the_order_of_the_catalogue_and_nothing_seen() -> None:
    model = Fixed(1, 3, 5, 3, 4)
    found = ServedModel(model, IDS).recommend(["bread", "oil"], k=2)
    assert found.items == (("tea", 3.0), ("fish", 3.0))
    assert model.asked == [[4, 2]]  # oldest first
    assert [name for name, _ in ServedModel(model, IDS).recommend(["bread", "oil"], k=3, exclude_seen=False).items] == [
        "oil", "bread", "tea",
    ]  # fmt: skip
    assert model.row.tolist() == [[1, 3, 5, 3, 4]]  # what the model gave away is not written to


def test_a_new_user_and_unknown_items() -> None:
    found = ServedModel(Fixed(1, 3, 5, 3, 4), IDS).recommend([], k=1)
    assert (found.items, found.unknown) == ((("oil", 5.0),), ())
    model = Fixed(1, 3, 5, 3, 4)
    found = ServedModel(model, IDS).recommend(["wine", "oil", "Tea"], k=1)
    assert (found.items, found.unknown) == ((("bread", 4.0),), ("wine", "Tea"))
    assert model.asked == [[2]]


def test_a_list_ends_where_there_is_nothing_to_recommend() -> None:
    found = ServedModel(Fixed(1, 2, -np.inf, 0, 3), IDS).recommend(["salt", "tea"], k=9)
    assert found.items == (("bread", 3.0), ("fish", 0.0))


def test_wrong_use() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        ServedModel(Fixed(1, 2, 3, 4, 5), IDS).recommend([], k=0)
    with pytest.raises(UsageError, match="not all numbers"):
        ServedModel(Fixed(1, 2, np.nan, 4, 5), IDS).recommend([])
    with pytest.raises(UsageError, match="4 items, but"):
        ServedModel(Fixed(1, 2, 3, 4, 5), IDS[1:]).recommend([])
