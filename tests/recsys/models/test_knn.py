"""ItemKNN is the slow reference's, item by item."""

from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.interactions import Interactions
from recsys.models import knn
from recsys.models.knn import ItemKnn
from secagg.errors import UsageError


def slow_scores(sets: list[set[int]], items: int, neighbours: int, shrinkage: float, history: list[int]) -> list[float]:
    takers = [{user for user, taken in enumerate(sets) if item in taken} for item in range(items)]

    def similarity(i: int, j: int) -> float:
        both = len(takers[i] & takers[j])
        return both / (sqrt(len(takers[i]) * len(takers[j])) + shrinkage) if both else 0.0

    scores = []
    for j in range(items):
        near = sorted((i for i in range(items) if i != j), key=lambda i: (-round(similarity(i, j), 6), i))[:neighbours]
        scores.append(sum(similarity(i, j) for i in near if i in history))
    return scores


@given(
    sets=st.lists(st.sets(st.integers(0, 7), max_size=6), min_size=1, max_size=8),
    neighbours=st.integers(1, 9),
    shrinkage=st.sampled_from([0.0, 0.5, 10.0]),
    history=st.lists(st.integers(0, 7), max_size=6),
    block=st.sampled_from([1, 24, 1 << 22]),
)
def test_scores_are_the_reference(
    sets: list[set[int]], neighbours: int, shrinkage: float, history: list[int], block: int
) -> None:
    users = [user for user, taken in enumerate(sets) for _ in taken]
    model = ItemKnn(neighbours, shrinkage)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(knn, "_BLOCK", block)
        model.fit(
            Interactions.of(users, [item for taken in sets for item in taken], user_count=len(sets), item_count=8)
        )
    scores = model.scores([np.array(history, np.int32)])
    assert scores.dtype == np.float32
    # Which of equally near items counts depends on the last bit; everything else does not.
    everything = slow_scores(sets, 8, 99, shrinkage, history)
    if neighbours >= 7:
        assert scores[0] == pytest.approx(everything, abs=1e-5)
    else:
        assert (scores[0] <= np.array(everything) + 1e-5).all()


def test_only_the_nearest_count() -> None:
    """Items 1, 2, 3 share 3, 2, 1 users with item 0."""
    events = Interactions.of(users=[0, 0, 0, 0, 1, 1, 1, 2, 2], items=[0, 1, 2, 3, 0, 1, 2, 0, 1])
    sets = [{0, 1, 2, 3}, {0, 1, 2}, {0, 1}]
    for neighbours in (1, 2, 3):
        model = ItemKnn(neighbours, shrinkage=1.0)
        model.fit(events)
        expected = slow_scores(sets, 4, neighbours, 1.0, [1, 2, 3])
        assert model.scores([np.array([1, 2, 3], np.int32)])[0] == pytest.approx(expected)


def test_wrong_use() -> None:
    for wrong in ({"neighbours": 0}, {"shrinkage": -0.1}):
        with pytest.raises(UsageError, match="at least"):
            ItemKnn(**wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="fit the model first"):
        ItemKnn().scores([])
