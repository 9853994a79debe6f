"""Users held out as a whole: nobody is in two groups, and nothing of theirs is in training."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.data import strong as module
from recsys.data.interactions import Interactions
from recsys.data.strong import LEAST, Newcomers, StrongSplit, strong
from recsys.data.synthetic import population
from secagg.errors import UsageError
from tests.controls import switch_off


def rated(seed: int, users: int = 60, items: int = 40) -> Interactions:
    """Users with a few events, some of them with less than is needed, and ratings from 1 to 5."""
    rng = np.random.default_rng(seed)
    taken = rng.random((users, items)) < rng.uniform(0.05, 0.6, users)[:, None]
    who, what = np.nonzero(taken)
    ratings = rng.choice([1.0, 3.5, 4.0, 5.0], len(who))
    return Interactions.of(who, what, rng.integers(9, size=len(who)), ratings, user_count=users, item_count=items)


def events_of(part: Interactions) -> set[tuple[str, int]]:
    return {(part.user_ids[user], int(item)) for user, item in zip(part.users, part.items, strict=True)}


@given(seed=st.integers(0, 2**32 - 1), held_out=st.integers(1, 9))
def test_the_rules_of_the_split(seed: int, held_out: int) -> None:
    events = rated(seed)
    likes = {pair for pair, rating in zip(events_list(events), events.ratings, strict=True) if rating >= 4}
    sizes = {name: sum(user == name for user, _ in likes) for name in events.user_ids}
    enough = {name for name, size in sizes.items() if size >= LEAST}
    split = strong(events, held_out=held_out, seed=seed)
    groups = [set(part.user_ids) for part in (split.train, split.valid.history, split.test.history)]
    assert set.union(*groups) == enough
    assert sum(map(len, groups)) == len(enough)
    assert len(groups[1]) == len(groups[2]) == min(held_out, len(enough) // 10)
    assert events_of(split.train) == {pair for pair in likes if pair[0] in groups[0]}
    items = {item for _, item in events_of(split.train)}
    assert set(np.flatnonzero(split.known).tolist()) == items
    for part, group in zip((split.valid, split.test), groups[1:], strict=True):
        told, wanted = events_of(part.history), events_of(part.targets)
        assert not told & wanted
        assert told | wanted == {pair for pair in likes if pair[0] in group and pair[1] in items}
        for name in group:
            there = sum(user == name for user, _ in told | wanted)
            assert sum(user == name for user, _ in wanted) == (there // 5 if there >= LEAST else 0)
    assert len(split.training.valid) == len(split.training.test) == 0


def events_list(events: Interactions) -> list[tuple[str, int]]:
    return [(events.user_ids[user], int(item)) for user, item in zip(events.users, events.items, strict=True)]


def test_histories_stay_in_the_order_of_time() -> None:
    split = strong(population(users=60, items=120), liked=0.0)
    assert all((np.diff(split.test.history.times[a:b]) >= 0).all() for a, b in pairs(split.test.history.starts))


def pairs(starts: np.ndarray) -> list[tuple[int, int]]:
    return list(zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True))


def test_another_seed_is_another_split_and_the_same_is_the_same() -> None:
    events = population(users=60, items=120)

    def parts(seed: int) -> list[set[tuple[str, int]]]:
        split = strong(events, liked=0.0, seed=seed)
        return [events_of(part) for part in (split.train, split.test.history, split.test.targets)]

    assert parts(1) == parts(1)
    assert parts(1) != parts(2)


def test_targets_are_drawn_from_the_whole_history() -> None:
    """Each of five events is the target about as often: 2,000 users, a false alarm in less than 1e-6 of all seeds."""
    users = 20_000
    events = Interactions.of(np.repeat(np.arange(users), 5), np.tile(np.arange(5), users), np.tile(np.arange(5), users))
    split = strong(events, liked=0.0, held_out=2000)
    assert abs(np.bincount(split.test.targets.items, minlength=5) - 400).max() < 5.5 * (2000 * 0.2 * 0.8) ** 0.5


def test_without_its_check_what_training_does_not_know_could_be_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: of 40 users with items of their own nothing is left to find."""
    own = Interactions.of(np.repeat(np.arange(40), 9), np.arange(360))
    assert len(strong(own, liked=0.0).test.targets) == 0
    switch_off(monkeypatch, module, "strong", "part.where(known[part.items])", "part")
    assert len(module.strong(own, liked=0.0).test.targets) == 4


@pytest.mark.parametrize("wrong", [{"least": 0}, {"held_out": 0}])
def test_wrong_use(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="at least one"):
        strong(rated(1), **wrong)  # type: ignore[arg-type]


def test_too_few_users_are_refused() -> None:
    with pytest.raises(UsageError, match="are too few to divide"):
        strong(rated(1), liked=6.0)


def test_the_parts_are_values() -> None:
    split = strong(rated(2))
    assert isinstance(split, StrongSplit)
    assert isinstance(split.valid, Newcomers)
    assert "to train on" in split.notes[0]
