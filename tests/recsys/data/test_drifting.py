"""The made-up stream: the same wherever it is begun, and another one after the change."""

import numpy as np
import pytest

from recsys.data.drifting import DriftingTastes
from recsys.stream.made_up import MadeUp
from secagg.errors import UsageError
from tests.scenes.streams import after

TASTES = DriftingTastes(users=200, items=50, begin=1000, every=600, events=4000.0, change=2200, seed=3)


def taken_by(tastes: DriftingTastes, number: int, user_share: float = 0.2) -> np.ndarray:
    """How often each item was taken in a stretch, by the first of the users."""
    users, items, _ = tastes.stretch(number)
    return np.bincount(items[users < user_share * tastes.users], minlength=tastes.items) / len(items)


def test_a_stretch_follows_from_the_seed_and_its_number() -> None:
    again = DriftingTastes(users=200, items=50, begin=1000, every=600, events=4000.0, change=2200, seed=3)
    for number in (5, 0):
        for one, other in zip(TASTES.stretch(number), again.stretch(number), strict=True):
            assert (one == other).all()
    users, items, times = TASTES.stretch(2)
    assert 2200 <= times[0] <= times[-1] < 2800
    assert (np.diff(times) >= 0).all()
    assert (users.min() >= 0, users.max() < 200, items.min() >= 0, items.max() < 50) == (True,) * 4


def test_tastes_change_once() -> None:
    before, still, later = (taken_by(TASTES, number) for number in (0, 1, 2))
    assert np.abs(before - still).sum() < 0.3 * np.abs(before - later).sum()


def test_the_source_goes_on_anywhere() -> None:
    few = DriftingTastes(users=5, items=9, begin=0, every=60, events=2.0, change=90)
    whole, source = [], MadeUp(few, {})
    while len(whole) < 20:
        whole += source.read(3)
    for number in range(19):
        found = []
        rest = MadeUp(few, after(whole[: number + 1]))
        while len(found) < 19 - number:
            found += rest.read(3)
        assert [one.data for one in found[: 19 - number]] == [one.data for one in whole[number + 1 : 20]]
    assert MadeUp(few, {}).read(3, {"made up"}) == []


@pytest.mark.parametrize("wrong", [{"users": 0}, {"items": 3}, {"every": 0}, {"events": 0.0}, {"moved": 1.5}])
def test_what_is_no_population_is_refused(wrong: dict[str, float]) -> None:
    right = {"users": 5, "items": 9, "begin": 0, "every": 60, "events": 2.0, "change": 90}
    with pytest.raises(UsageError):
        DriftingTastes(**(right | wrong))  # type: ignore[arg-type]
