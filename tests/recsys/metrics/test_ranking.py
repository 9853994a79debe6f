"""Ranks and metrics are the slow reference's and torchmetrics', and a model cannot gain by ties or by what it knows."""

import csv
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional import retrieval

from recsys.data.interactions import History, Interactions
from recsys.data.negatives import frozen
from recsys.data.split import Split, leave_last_out
from recsys.metrics import ranking
from recsys.metrics.ranking import Evaluation, evaluate, in_list, measure
from secagg.errors import UsageError
from tests.controls import switch_off
from tests.reference import ranking as reference


class Table:
    """Scores by user: a history starts with an item that tells users apart, or all get the one row."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = np.asarray(rows, np.float32)
        self.asked = 0
        self.histories: list[list[int]] = []

    def scores(self, histories: Sequence[History]) -> np.ndarray:
        self.histories += [history.tolist() for history in histories]
        self.asked += len(histories)
        return self.rows[self.asked - len(histories) : self.asked]


def of(sets: Sequence[Sequence[int]], item_count: int) -> Interactions:
    users = [user for user, items in enumerate(sets) for _ in items]
    items = [item for items in sets for item in items]
    return Interactions.of(users, items, range(len(items)), user_count=len(sets), item_count=item_count)


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, list[list[int]], list[list[int]]]:
    """Scores with many ties, and for each user a history and held-out items, both perhaps empty."""
    users, items = draw(st.integers(1, 4)), draw(st.integers(1, 9))
    score = st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 2.0])
    rows = draw(st.lists(st.lists(score, min_size=items, max_size=items), min_size=users, max_size=users))
    seen, wanted = [], []
    for _ in range(users):
        order, first, second = draw(st.permutations(range(items))), draw(st.integers(0, 4)), draw(st.integers(0, 5))
        seen.append(order[:first])
        wanted.append(order[first : first + second])
    return np.array(rows, np.float32), seen, wanted


@given(case=cases(), batch=st.integers(1, 5), k=st.integers(1, 10), everybody=st.booleans())
def test_full_ranking_is_the_reference(
    case: tuple[np.ndarray, list[list[int]], list[list[int]]], batch: int, k: int, everybody: bool
) -> None:
    rows, seen, wanted = case
    users, items = rows.shape
    measured = [user for user in range(users) if wanted[user]]
    information = np.arange(items, dtype=float)
    how: dict[str, Any] = {"k": (k, 3), "information": information, "batch": batch, "everybody": everybody}
    asked = measured
    if everybody:  # but for batches in which nothing is held out
        asked = [user for user in range(users) if any(wanted[user // batch * batch :][:batch])]
    found = measure(Table(rows[asked]), of(seen, items), of(wanted, items), **how)
    assert found.users.tolist() == measured
    assert found.skipped == users - len(measured)
    listed = set()
    for i, user in enumerate(measured):
        candidates = set(range(items)) - set(seen[user])
        asked = rows[user].tolist(), candidates, set(wanted[user])
        expected = reference.mean_metrics(*asked, k) | reference.mean_metrics(*asked, 3)
        shown = reference.shown(rows[user].tolist(), candidates, k)
        expected[f"novelty@{k}"] = sum(shown) / len(shown) if shown else 0.0
        listed |= set(shown)
        for name, value in expected.items():
            assert found.values[name][i] == pytest.approx(value), name
    assert found.coverage[f"coverage@{k}"] == pytest.approx(len(listed) / items)


@given(case=cases(), batch=st.integers(1, 5), data=st.data())
def test_ranking_among_negatives_is_the_reference(
    case: tuple[np.ndarray, list[list[int]], list[list[int]]], batch: int, data: st.DataObject
) -> None:
    rows, seen, wanted = case
    users, items = rows.shape
    # A user with nothing held out is not measured, and what stands in its row of negatives does not matter.
    free = [sorted(set(range(items)) - set(seen[user]) - set(wanted[user])) for user in range(users)]
    measured = [user for user in range(users) if wanted[user]]
    count = min((len(free[user]) for user in measured), default=0)
    chosen = [data.draw(st.permutations(free[user]))[:count] if wanted[user] else [0] * count for user in range(users)]
    negatives = np.array(chosen, np.int32).reshape(users, count)
    found = measure(Table(rows[measured]), of(seen, items), of(wanted, items), k=(2,), negatives=negatives, batch=batch)
    for i, user in enumerate(measured):
        candidates = set(chosen[user]) | set(wanted[user])
        expected = reference.mean_metrics(rows[user].tolist(), candidates, set(wanted[user]), 2)
        for name, value in expected.items():
            assert found.values[name][i] == pytest.approx(value), name


@pytest.mark.parametrize("k", [1, 5, 10, 200])
def test_agrees_with_torchmetrics(k: int) -> None:
    """Without ties, which torchmetrics treats in other ways. Its MAP@k divides by the hits, not by min(n, k)."""
    rng = np.random.default_rng(k)
    users, items = 40, 60
    rows = rng.permuted(np.tile(np.arange(1, items + 1), (users, 1)), axis=1)  # to torchmetrics, 0 is "not found"
    orders = [rng.permutation(items).tolist() for _ in range(users)]
    seen = [order[: rng.integers(0, 20)] for order in orders]
    wanted = [order[20 : 21 + rng.integers(0, 15)] for order in orders]
    found = measure(Table(rows), of(seen, items), of(wanted, items), k=(k,))
    for user in range(users):
        kept = np.setdiff1d(np.arange(items), seen[user])
        scores, target = torch.tensor(rows[user, kept], dtype=torch.float32), torch.tensor(np.isin(kept, wanted[user]))
        top = min(k, len(kept))
        hits = float(retrieval.retrieval_recall(scores, target, top_k=top)) * len(wanted[user])
        theirs = {
            "HR": retrieval.retrieval_hit_rate(scores, target, top_k=top),
            "Recall": retrieval.retrieval_recall(scores, target, top_k=top),
            "NDCG": retrieval.retrieval_normalized_dcg(scores, target, top_k=top),
            "MRR": retrieval.retrieval_reciprocal_rank(scores, target, top_k=top),
            "MAP": retrieval.retrieval_average_precision(scores, target, top_k=top) * hits / min(k, len(wanted[user])),
        }
        for name, value in theirs.items():
            assert found.values[f"{name}@{k}"][user] == pytest.approx(float(value), abs=1e-6), name


def test_a_choice_of_places_stands_for_as_many_orders_as_any_other() -> None:
    """The reference leaves permutations of alike equals out: here are all of them, one by one."""
    scores, candidates, wanted = [1.0, 1.0, 2.0, 1.0, 1.0, 1.0], set(range(6)), {0, 2, 4}
    found = []
    for order in permutations(candidates):
        if all(scores[one] >= scores[two] for one, two in pairwise(order)):
            places = sorted(place for place, item in enumerate(order, 1) if item in wanted)
            found.append(reference.metrics(places, 3))
    assert len(found) == 120
    for name, value in reference.mean_metrics(scores, candidates, wanted, 3).items():
        assert sum(one[name] for one in found) / 120 == pytest.approx(value), name


@given(case=cases(), k=st.integers(1, 10), data=st.data())
def test_the_order_of_items_does_not_matter(
    case: tuple[np.ndarray, list[list[int]], list[list[int]]], k: int, data: st.DataObject
) -> None:
    """Whatever numbers items have, each user's metrics are the same: nothing is gained by standing first."""
    rows, seen, wanted = case
    items = rows.shape[1]
    measured = [user for user, held_out in enumerate(wanted) if held_out]
    number = np.array(data.draw(st.permutations(range(items))))
    moved = np.empty_like(rows)
    moved[:, number] = rows
    one = measure(Table(rows[measured]), of(seen, items), of(wanted, items), k=(k,))
    renamed = [[[int(number[item]) for item in taken] for taken in part] for part in (seen, wanted)]
    other = measure(Table(moved[measured]), of(renamed[0], items), of(renamed[1], items), k=(k,))
    for name, column in one.values.items():
        assert other.values[name] == pytest.approx(column), name


def test_a_tie_across_the_end_of_the_list() -> None:
    """Two equals share the places 2 and 3: both have rank 2.5, and a list of two has the one half of the time."""
    rows = np.array([[3, 2, 2, 0]])
    found = measure(Table(rows), of([[]], 4), of([[1]], 4), k=(1, 2, 3))
    assert found.values["rank"].tolist() == [2.5]
    assert [found.values[f"HR@{k}"].tolist() for k in (1, 2, 3)] == [[0.0], [0.5], [1.0]]
    assert found.values["NDCG@2"] == pytest.approx([0.5 / math.log2(3)])
    assert found.values["NDCG@3"] == pytest.approx([0.5 / math.log2(3) + 0.5 / math.log2(4)])


def test_equal_scores_gain_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that calls all items equally good is as good as chance; were ties kind to it, it would be perfect."""
    rng = np.random.default_rng(1)
    wanted = [[item] for item in rng.integers(0, 100, 50)]

    def run() -> float:
        return measure(Table(np.zeros((50, 100))), of([[]] * 50, 100), of(wanted, 100)).mean("HR@10")

    assert run() == pytest.approx(0.1)
    switch_off(monkeypatch, ranking, "_equals", "np.count_nonzero((others == own) & ranked[rows[some]], axis=1)", "1")
    assert run() == 1.0


def test_a_model_gains_nothing_by_calling_its_best_items_equal() -> None:
    """With each rank equally likely among the first 20, ties neither help nor harm: their expected place would be in
    the list of 11, and give everybody a hit."""
    wanted = [[item] for item in range(20)]
    ranked, tied = np.arange(40, 0, -1), np.where(np.arange(40) < 20, 1, 0)
    one, other = (
        measure(Table(np.tile(row, (20, 1))), of([[]] * 20, 40), of(wanted, 40), k=(11,)) for row in (ranked, tied)
    )
    for name in ("rank", "HR@11", "Recall@11", "NDCG@11", "MRR@11", "MAP@11"):
        assert other.mean(name) == pytest.approx(one.mean(name)), name


def split_of(users: int = 30, items: int = 150, length: int = 8, valid: bool = True) -> Split:
    rng = np.random.default_rng(5)
    return leave_last_out(of([rng.permutation(items)[:length].tolist() for _ in range(users)], items), valid=valid)


def test_the_history_is_train_and_for_the_test_also_valid() -> None:
    split = split_of()
    for on, parts in (("valid", (split.train,)), ("test", (split.train, split.valid))):
        model = Table(np.zeros((30, 150)))
        evaluate(model, split, on=on)
        assert model.histories == [
            [item for part in parts for item in part.history(user).tolist()] for user in range(30)
        ]


def test_what_is_held_out_for_the_test_is_ranked_as_any_other_item_in_the_validation() -> None:
    """Otherwise validation would know the test."""
    split = split_of(users=1)
    rows = np.zeros((1, 150))
    rows[0, split.test.items] = 2
    rows[0, split.valid.items] = 1
    assert evaluate(Table(rows), split, on="valid").values["rank"].tolist() == [2.0]
    assert evaluate(Table(rows), split, on="test").values["rank"].tolist() == [1.0]


class Neighbours:
    """Scores that depend on the history: the nearer to its last item, the better."""

    def scores(self, histories: Sequence[History]) -> np.ndarray:
        return np.array([-np.abs(np.arange(60.0) - history[-1]) for history in histories], np.float32)


@pytest.mark.parametrize("among", [False, True])
def test_a_test_and_a_validation_of_one_time_are_measured_in_both_orders(among: bool) -> None:
    users, items, times = [0] * 4 + [1] * 4, [5, 50, 30, 12, 5, 50, 30, 12], [1, 2, 3, 3, 1, 2, 3, 4]
    split = leave_last_out(Interactions.of(users, items, times, item_count=60))
    other = leave_last_out(Interactions.of(users, [5, 50, 12, 30, 5, 50, 30, 12], times, item_count=60))
    assert (split.test.items.tolist(), other.test.items.tolist()) == ([12, 12], [30, 12])
    negatives = frozen(split, count=50) if among else None
    found = evaluate(Neighbours(), split, negatives=negatives, k=(20,))
    for name, column in evaluate(Neighbours(), replace(split, tied=None), negatives=negatives, k=(20,)).values.items():
        swapped = evaluate(Neighbours(), replace(other, tied=None), negatives=negatives, k=(20,)).values[name]
        if not name.startswith("novelty"):
            assert found.values[name].tolist() == pytest.approx([(column[0] + swapped[0]) / 2, column[1]])
    assert (
        found.values["rank"][0]
        != evaluate(Neighbours(), replace(split, tied=None), negatives=negatives).values["rank"][0]
    )
    # Settings are chosen by one of the two, and the other is no part of that.
    one = evaluate(Neighbours(), split, on="valid")
    assert (
        one.values["rank"].tolist()
        == evaluate(Neighbours(), replace(split, tied=None), on="valid").values["rank"].tolist()
    )


def test_seen_items_do_not_compete(monkeypatch: pytest.MonkeyPatch) -> None:
    split = split_of(users=1, valid=False)
    rows = np.zeros((1, 150))
    rows[0, split.train.items] = 2
    rows[0, split.test.items] = 1
    assert evaluate(Table(rows), split).values["rank"].tolist() == [1.0]
    switch_off(monkeypatch, ranking, "_others", "False", "True")
    assert evaluate(Table(rows), split).values["rank"].tolist() != [1.0]


def test_among_negatives_only_those_and_the_held_out_item_compete() -> None:
    split = split_of(valid=False)
    negatives = frozen(split, count=99)
    rows = np.ones((30, 150))
    rows[np.arange(30)[:, None], negatives] = 0
    rows[np.arange(30), split.test.items] = 0.5
    assert evaluate(Table(rows), split, negatives=negatives).mean("rank") == 1
    assert evaluate(Table(-rows), split, negatives=negatives).mean("rank") == 100


@pytest.mark.parametrize("score", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_refused(score: float) -> None:
    rows = np.zeros((30, 150))
    rows[7, 3] = score
    with pytest.raises(UsageError, match="not all numbers"):
        evaluate(Table(rows), split_of())
    rows[7, 3] = -np.inf
    assert evaluate(Table(rows), split_of()).skipped == 0


def test_wrong_use() -> None:
    split = split_of()
    negatives = frozen(split, count=99)
    for rows in (np.zeros((30, 149)), np.zeros(30)):
        with pytest.raises(UsageError, match="150 items, but the model's scores are"):
            evaluate(Table(rows), split)
    model = Table(np.zeros((30, 150)))
    with pytest.raises(UsageError, match="not 'train'"):
        evaluate(model, split, on="train")
    for bad in (negatives[:5], negatives[0]):
        with pytest.raises(UsageError, match="one row for each user"):
            evaluate(model, split, negatives=bad)
    for leak in (split.test.items, split.valid.items, split.train.items[split.train.starts[:-1]]):
        bad = negatives.copy()
        bad[:, 3] = leak
        with pytest.raises(UsageError, match="a negative is a held-out item, or in its user's history"):
            evaluate(model, split, negatives=bad)
    for outside in (-1, 150):
        bad = negatives.copy()
        bad[4, 4] = outside
        with pytest.raises(UsageError, match="a negative is not in the catalogue"):
            evaluate(model, split, negatives=bad)
    for numbers in ({"k": ()}, {"k": (0,)}, {"batch": 0}):
        with pytest.raises(UsageError, match="at least 1"):
            evaluate(model, split, **numbers)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="differently"):
        measure(model, split.train, of([[1]], 150))
    with pytest.raises(UsageError, match="is in its user's history"):
        measure(model, of([[1, 2]], 3), of([[2]], 3))
    with pytest.raises(UsageError, match="go without coverage"):
        measure(model, split.train, split.test, negatives=negatives, information=np.ones(150))


def test_novelty_and_coverage() -> None:
    """Of 4 users, 4 took item 0 (0 bits) and 1 took item 1 (2 bits); nobody took 2, which counts as one (2 bits)."""
    train = of([[0, 1], [0], [0], [0]], 8)
    nothing, test = of([[]] * 4, 8), of([[5], [], [], [5]], 8)
    found = evaluate(
        Table(np.array([[0, 0, 9, 8, 0, 0, 0, 0], [9, 8, 0, 0, 0, 0, 0, 0]])), Split(train, nothing, test), k=(2,)
    )
    assert found.values["novelty@2"].tolist() == [2.0, 2.0]  # user 3 has seen item 0: items 1 and 2
    assert found.coverage == {"coverage@2": 3 / 8}
    assert found.users.tolist() == [0, 3]
    assert found.summary()["skipped"] == 2


def test_lists_take_the_first_of_equals_and_never_what_has_no_score() -> None:
    scores = np.array([[1, 2, 1, 1], [-np.inf, 0, -np.inf, -np.inf]], np.float32)
    assert in_list(scores, 2).astype(int).tolist() == [[1, 1, 0, 0], [0, 1, 0, 0]]
    assert in_list(scores, 9).astype(int).tolist() == [[1, 1, 1, 1], [0, 1, 0, 0]]


def test_per_user_values_as_csv(tmp_path: Path) -> None:
    split = split_of(users=2, valid=False)
    found = evaluate(Table(np.zeros((2, 150))), split, k=(5, 100))
    found.write_csv(tmp_path / "users.csv", ['a "quoted", name', "b"])
    with (tmp_path / "users.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["user"] for row in rows] == ['a "quoted", name', "b"]
    for name, column in found.values.items():
        assert [float(row[name]) for row in rows] == column.tolist()
    assert [row["rank"] for row in rows] == ["72.0", "72.0"]


def test_nobody_to_measure() -> None:
    found = measure(Table(np.zeros((0, 3))), of([[1], [2]], 3), of([[], []], 3))
    assert (len(found.users), found.skipped) == (0, 2)
    with pytest.raises(UsageError, match="no user was measured"):
        found.mean("HR@10")


def test_an_evaluation_is_checked_and_cannot_be_changed() -> None:
    with pytest.raises(UsageError, match="one value for each user"):
        Evaluation(np.arange(3), {"HR@10": np.zeros(2)}, {}, 0)
    found = Evaluation(np.arange(2), {"HR@10": np.zeros(2)}, {}, 0)
    with pytest.raises(ValueError, match="read-only"):
        found.values["HR@10"][0] = 1
    with pytest.raises(UsageError, match="'HR@5' was not measured, but HR@10"):
        found.mean("HR@5")
