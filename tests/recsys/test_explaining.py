"""Which items of a history spoke for a recommended one: sums that are sums, and what is missed without an item."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from recsys import explaining
from recsys.data.interactions import History
from recsys.data.items import Items
from recsys.explaining import Additive, How, explained
from recsys.models.autoencoder import Autoencoder
from recsys.models.ease import Ease
from recsys.models.knn import ItemKnn
from recsys.models.private_ease import PrivateEase
from recsys.models.private_gram import Settings
from recsys.models.sasrec import SasRec
from recsys.models.store import MODELS
from recsys.serving import Reasons, ServedModel
from secagg.errors import UsageError
from tests.scenes.stored_models import ITEMS, events, made

ADDITIVE = {"ItemPop", "ItemKnn", "Ease", "Autoencoder", "PrivateEase"}
HISTORIES = [np.array(one, np.int32) for one in ([3, 7, 1, 7, 22], [29], [], [5, 5], list(range(30)))]
ALL = np.arange(30)


def trained(model: Any) -> Any:
    if hasattr(model, "begin"):
        model.begin(30, seed=4)
        model.vector += 0.1 * np.random.default_rng(1).standard_normal(len(model.vector)).astype(np.float32)
    else:
        model.fit(events())
    return model


def films() -> Items:
    kinds = ["War", "War|Drama", "Drama", "Horror"]
    return Items.of(ITEMS, [f"Film {n % 5} ({1980 + n})" for n in range(30)], [kinds[n % 4] for n in range(30)])


def test_models_whose_scores_are_sums_say_so() -> None:
    assert {name for name in MODELS if isinstance(made(name), Additive)} == ADDITIVE


@pytest.mark.parametrize(
    "model",
    [
        *(made(name) for name in sorted(ADDITIVE)),
        Ease(items=12, reach=3.0, floor=0.2),
        Autoencoder(width=4, recent=3),
        PrivateEase(Settings(items=10)),
        PrivateEase(Settings(items=10), films()),
        PrivateEase(Settings(items=10, recency=None), films()),
    ],
)
def test_contributions_add_up_to_the_scores(model: Any) -> None:
    trained(model)
    for history in HISTORIES:
        added, apart = model.contributions(history, ALL)
        assert added.shape == (len(np.unique(history)), 30)
        np.testing.assert_allclose(added.sum(0) + apart, model.scores([history])[0], rtol=1e-4, atol=1e-5)
        some, rest = model.contributions(history, ALL[[4, 2]])
        np.testing.assert_allclose(some, added[:, [4, 2]], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(rest, apart[[4, 2]], rtol=1e-4, atol=1e-6)


def test_what_belongs_to_no_item() -> None:
    """Popularity, biases, what breaks ties: all of the score of a user without a history, but for b of private EASE."""
    for name in sorted(ADDITIVE):
        model = trained(made(name))
        _, apart = model.contributions(HISTORIES[0], ALL)
        np.testing.assert_allclose(apart, model.scores([HISTORIES[2]])[0], atol=1e-5, err_msg=name)
    few = trained(Ease(items=12))
    added, apart = few.contributions(HISTORIES[0], ALL)
    others = np.setdiff1d(ALL, few.part)
    assert not added[:, others].any()
    assert not apart[few.part].any()
    featured = trained(PrivateEase(Settings(items=10), films()))
    others = np.setdiff1d(ALL, featured.items)
    added, _ = featured.contributions(np.array([others[0]], np.int32), ALL)
    assert not added.any()  # nobody knows what goes with it
    added, apart = featured.contributions(featured.items[:2].astype(np.int32), ALL)
    assert added[:, others].any()
    ties = featured.scores([HISTORIES[2]])[0]
    np.testing.assert_allclose((apart - ties)[others], featured.popularity[others] * featured.base, atol=1e-5)


def test_leaving_out_finds_the_parts_of_a_plain_sum() -> None:
    """Similarities have no common weight, so both ways are one."""
    model = trained(ItemKnn(shrinkage=0.0))

    class Closed:
        def scores(self, histories: Sequence[History]) -> np.ndarray:
            return model.scores(histories)

    for history in HISTORIES:
        one, other = (explained(each, history, ALL, 30) for each in (model, Closed()))
        assert (one.how, other.how, other.apart) == (How.EXACT, How.LEAVE_ONE_OUT, None)
        np.testing.assert_allclose(one.added, other.added, atol=1e-5)


@pytest.mark.parametrize("name", sorted(set(MODELS) - ADDITIVE))
def test_what_is_missed_without_an_item(name: str) -> None:
    model, history = trained(made(name)), HISTORIES[0]
    found = ServedModel(model, ITEMS).recommend([ITEMS[item] for item in history], k=4, explain=9)
    assert found.how is How.LEAVE_ONE_OUT
    assert any(one.items for one in found.reasons)
    for (item, _), reasons in zip(found.items, found.reasons, strict=True):
        assert (reasons.others, reasons.apart) == (None, None)
        numbers = [missed for _, missed in reasons.items]
        assert numbers == sorted(numbers, reverse=True)
        assert min(numbers, default=1) > 0
        for reason, missed in reasons.items:
            without = history[history != ITEMS.index(reason)]
            now, then = model.scores([history])[0], model.scores([without])[0]
            assert missed == pytest.approx((now - then)[ITEMS.index(item)], rel=1e-3, abs=1e-4)


def test_all_shorter_histories_are_asked_at_once_or_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Late:
        def scores(self, histories: Sequence[History]) -> np.ndarray:
            asked.append([one.tolist() for one in histories])
            return np.array([[one[-1] if len(one) else -1] * 30 for one in histories], np.float32)

    found = explained(Late(), np.array([4, 2, 4], np.int32), ALL[:1], 30)
    assert (asked, found.added.tolist()) == ([[[4, 2, 4], [4, 4], [2]]], [[0.0], [2.0]])
    monkeypatch.setattr(explaining, "_NUMBERS_AT_ONCE", 60)
    again = explained(Late(), np.array([4, 2, 4], np.int32), ALL[:1], 30)
    assert (asked[1:], again.added.tolist()) == ([[[4, 2, 4], [4, 4]], [[2]]], [[0.0], [2.0]])


def test_a_long_history_is_not_copied_for_all_of_its_items_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Counting:
        def scores(self, histories: Sequence[History]) -> np.ndarray:
            asked.append(sum(map(len, histories)))
            return np.zeros((len(histories), 30), np.float32)

    monkeypatch.setattr(explaining, "_NUMBERS_AT_ONCE", 600)
    explained(Counting(), np.arange(300, dtype=np.int32) % 30, ALL[:1], 30)
    assert len(asked) == 16
    assert max(asked) <= 600


def test_rounding_is_no_reason() -> None:
    """An item out of reach is none, though a batch rounds each of its rows in another way."""

    class Rounded:
        def scores(self, histories: Sequence[History]) -> np.ndarray:
            last = [len(set(one[-2:].tolist()) & {1, 2}) for one in histories]
            return np.float32([[-9.0, 5 + one - 1e-6 * row] for row, one in enumerate(last)])

    found = explained(Rounded(), np.array([0, 0, 1], np.int32), np.array([1]), 2)
    assert found.added.tolist() == [[0.0], [pytest.approx(1, abs=1e-5)]]
    served = ServedModel(trained(SasRec(width=8, recent=2)), ITEMS)
    for reasons in served.recommend(["item 9", "item 8", "item 4", "item 5"], explain=4).reasons:
        assert not {"item 9", "item 8"} & {name for name, _ in reasons.items}


class Weighted:
    """Scores 10 for each item but salt (0), tea (1) and oil (2), which add so much each."""

    def __init__(self, *weights: float, wrong: float = 0.0) -> None:
        self.weights, self.wrong = np.array(weights, np.float32), wrong

    def scores(self, histories: Sequence[History]) -> np.ndarray:
        return np.array([[10 + self.weights[np.unique(one)].sum()] * 5 for one in histories], np.float32)

    def contributions(self, history: History, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        added = np.repeat(self.weights[np.unique(history), None], len(items), axis=1)
        return added, np.full(len(items), 10 + self.wrong, np.float32)


IDS = ["salt", "tea", "oil", "fish", "bread"]


def reasons(history: list[str], explain: int, *weights: float) -> Reasons:
    found = ServedModel(Weighted(*weights), IDS).recommend(history, k=1, exclude_seen=False, explain=explain)
    assert found.how is How.EXACT
    return found.reasons[0]


def test_the_most_first_and_the_rest_together() -> None:
    weights = (1.0, 4.0, -2.0, 3.0, 0.0)
    everything = ["fish", "tea", "bread", "salt", "oil"]
    assert reasons(everything, 2, *weights) == Reasons((("tea", 4.0), ("fish", 3.0)), -1.0, 10.0)
    assert reasons(everything, 99, *weights) == Reasons((("tea", 4.0), ("fish", 3.0), ("salt", 1.0)), -2.0, 10.0)
    assert reasons(["oil", "bread"], 3, *weights) == Reasons((), -2.0, 10.0)  # nothing spoke for it


def test_of_equals_the_one_taken_last_and_repeated_items_once() -> None:
    equal = (1.0, 1.0, 1.0, 1.0, 1.0)
    assert [name for name, _ in reasons(["oil", "tea", "fish"], 3, *equal).items] == ["fish", "tea", "oil"]
    assert reasons(["oil", "tea", "oil"], 3, *equal).items == (("oil", 1.0), ("tea", 1.0))


def test_histories_with_little_in_them() -> None:
    assert reasons([], 3, *range(5)) == Reasons((), 0.0, 10.0)
    assert reasons(["wine", "tea"], 3, *range(5)) == Reasons((("tea", 1.0),), 0.0, 10.0)
    served = ServedModel(trained(made("NeuMf")), ITEMS)
    assert served.recommend([], k=1, explain=3).reasons == (Reasons((), None, None),)


def test_nobody_asked() -> None:
    found = ServedModel(Weighted(1, 1, 1, 1, 1, wrong=9), IDS).recommend(["tea"], explain=0)
    assert (found.how, found.reasons) == (None, ())


@pytest.mark.parametrize("bad", [-1, True, 1.5, "3"])
def test_wrong_numbers_are_refused(bad: Any) -> None:
    with pytest.raises(UsageError, match="a number of items of the history"):
        ServedModel(Weighted(1, 1, 1, 1, 1), IDS).recommend(["tea"], explain=bad)
    assert ServedModel(Weighted(1, 1, 1, 1, 1), IDS).recommend(["tea"], explain=np.int64(1)).reasons[0].items


def test_a_model_that_says_what_is_not_so_is_refused() -> None:
    with pytest.raises(UsageError, match="do not add up"):
        ServedModel(Weighted(1, 1, 1, 1, 1, wrong=0.1), IDS).recommend(["tea"], explain=1)
    with pytest.raises(UsageError, match="do not add up"):
        ServedModel(Weighted(1, 1, 1, 1, 1, wrong=np.nan), IDS).recommend(["tea"], explain=1)

    class Short(Weighted):
        def contributions(self, history: History, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            added, apart = super().contributions(history, items)
            return added[:0], apart

    class Long(Weighted):
        def contributions(self, history: History, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            added, apart = super().contributions(history, items)
            return added, apart[:, None]

    for wrong in (Short(0, 0, 0, 0, 0), Long(0, 0, 0, 0, 0)):
        with pytest.raises(UsageError, match="contributions of 1 items to 4"):
            ServedModel(wrong, IDS).recommend(["tea"], explain=1)
