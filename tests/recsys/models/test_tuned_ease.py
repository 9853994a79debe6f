"""The tuned reference is chosen by validation events alone, and is worth its name where it should be."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recsys.data import movielens
from recsys.data.interactions import Interactions
from recsys.data.split import Split, leave_last_out
from recsys.data.synthetic import FIRST, population
from recsys.metrics.ranking import evaluate
from recsys.models.ease import Ease
from recsys.models.tuned_ease import REGULARISATIONS, START, tuned_ease
from secagg.errors import UsageError


@pytest.fixture(scope="module")
def split() -> Split:
    return leave_last_out(population(users=300, items=200, seed=2, habits=FIRST))


def gain(split: Split, regularisation: float, reach: float, floor: float) -> float:
    model = Ease(regularisation, reach=reach, floor=floor)
    model.fit(split.train)
    return evaluate(model, split, on="valid").mean("NDCG@10")


@pytest.mark.parametrize(("users", "items", "chosen"), [(60, 100, 50), (600, 200, 500), (40, 200, START)])
def test_neighbours_on_the_grid_are_no_better_by_validation(users: int, items: int, chosen: float) -> None:
    split = leave_last_out(population(users, items, seed=1, habits=FIRST))
    model = tuned_ease(split)
    place = REGULARISATIONS.index(model.regularisation)
    found = gain(split, model.regularisation, model.reach, model.floor)
    assert model.regularisation == chosen
    for other in REGULARISATIONS[place - 1 : place + 2]:
        assert gain(split, other, model.reach, model.floor) <= found


def test_no_test_event_has_a_part_in_it(split: Split) -> None:
    """Other tests of the same users, and the same model."""
    nothing = Interactions.of([], [], user_ids=split.train.user_ids, item_ids=split.train.item_ids)
    one, other = tuned_ease(split), tuned_ease(replace(split, test=nothing, tied=None))
    assert (one.regularisation, one.reach, one.floor) == (other.regularisation, other.reach, other.floor)
    assert np.array_equal(one.weights, other.weights)


def test_whoever_is_tested_by_both_does_not_choose(split: Split) -> None:
    everybody = np.ones(split.train.user_count, np.bool_)
    with pytest.raises(UsageError, match="no validation event"):
        tuned_ease(replace(split, tied=everybody))
    alone = everybody.copy()
    alone[7] = False
    model = tuned_ease(replace(split, tied=alone))
    only = replace(split, valid=split.valid.where(split.valid.users == 7), tied=None)
    assert (model.regularisation, model.reach) == ((chosen := tuned_ease(only)).regularisation, chosen.reach)


@pytest.mark.long
def test_on_movielens() -> None:
    """A history that fades is worth more than half again: .0388 without (``test_reference_models``)."""
    folder = os.environ.get("SECAGG_MOVIELENS")
    if not folder:
        pytest.skip("the tuned reference is NOT checked: set SECAGG_MOVIELENS to ml-latest-small with its ratings.csv")
    split = leave_last_out(movielens.load(Path(folder)).interactions)
    model = tuned_ease(split, fadings=((15.0, 0.2),))
    assert (model.regularisation, evaluate(model, split).mean("NDCG@10")) == (50, pytest.approx(0.0613, abs=1e-4))
    assert evaluate(model, replace(split, tied=None)).mean("NDCG@10") == pytest.approx(0.0614, abs=1e-4)
    assert evaluate(tuned_ease(split), split).mean("NDCG@10") == pytest.approx(0.0651, abs=1e-4)
