import numpy as np
import pytest

from recsys.data.interactions import Interactions
from recsys.models.popularity import ItemPop
from secagg.errors import UsageError


def test_everybody_gets_the_counts() -> None:
    model = ItemPop()
    model.fit(Interactions.of(users=[0, 0, 1, 2], items=[3, 1, 3, 3], item_count=5))
    scores = model.scores([np.array([], np.int32), np.array([3, 1], np.int32)])
    assert scores.tolist() == [[0, 1, 0, 3, 0]] * 2
    assert scores.dtype == np.float32
    scores[0] = 7  # the caller's own
    assert model.scores([np.array([], np.int32)]).tolist() == [[0, 1, 0, 3, 0]]


def test_not_before_fit() -> None:
    with pytest.raises(UsageError, match="fit the model first"):
        ItemPop().scores([])
