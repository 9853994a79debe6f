"""Items and users that came after a moment: who is trained on, who is measured, and on what."""

import numpy as np
import pytest

from recsys.data.cold import cold
from recsys.data.interactions import Interactions
from secagg.errors import UsageError


def events(seed: int) -> Interactions:
    """30 users with up to 12 events each, some of them with an item that they had before."""
    rng = np.random.default_rng(seed)
    users = np.sort(rng.integers(30, size=200))
    return Interactions.of(
        users, rng.integers(60, size=200), users * 3 + rng.integers(40, size=200), user_count=30, item_count=65
    )


@pytest.mark.parametrize("seed", range(5))
def test_parts_are_as_they_are_said_to_be(seed: int) -> None:
    """Beside loops over users."""
    whole, moment = events(seed), 70
    split = cold(whole, moment, first=2, following=3)
    lists = [
        [(int(item), int(time)) for item, time in zip(whole.history(user), times, strict=True)]
        for user, times in enumerate(np.split(whole.times, whole.starts[1:-1]))
    ]
    early = [[item for item, time in one if time < moment] for one in lists]
    known = {item for one in early for item in one}
    assert split.train.user_ids == [whole.user_ids[user] for user in range(30) if early[user]]
    assert [one.tolist() for one in split.train.histories()] == [one for one in early if one]
    assert set(np.flatnonzero(split.known)) == known
    measured = 0
    for user, one in enumerate(lists):
        items = [item for item, _ in one]
        new = [item for item in items if item not in known]
        assert split.for_items.targets.history(user).tolist() == new
        assert split.for_items.history.history(user).tolist() == (items[: items.index(new[0])] if new else [])
        told, later = ([], []) if early[user] else (items[:2], items[2:5])
        assert split.for_users.history.history(user).tolist() == told
        targets = [item for item in later if item in known and item not in told]
        assert split.for_users.targets.history(user).tolist() == targets
        measured += bool(targets)
    assert measured > 2
    assert len(split.for_items.targets) > 2
    assert split.training.train is split.train


def test_nothing_to_train_on_or_to_measure() -> None:
    for moment in (-1, 1000):
        with pytest.raises(UsageError, match="nothing is left"):
            cold(events(0), moment)
    for wrong in ({"first": -1}, {"following": 0}):
        with pytest.raises(UsageError, match="first events"):
            cold(events(0), 70, **wrong)
