"""Private MF: user factors by ridge on the device, and the map as a third sum."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.interactions import Interactions
from recsys.data.split import leave_last_out
from recsys.data.synthetic import population
from recsys.metrics.ranking import evaluate
from recsys.models import private_mf
from recsys.models.popularity import ItemPop
from recsys.models.private_gram import Settings
from recsys.models.private_mf import RIDGE, PrivateMf, map_row, solve_map, user_factors
from recsys.models.private_pairs import Recency
from recsys.models.private_sums import Contribution, Noised, exact_sums
from recsys.models.store import ModelState
from secagg.errors import UsageError
from tests.controls import switch_off

ITEMS, RANK = 9, 3
FACTORS = np.random.default_rng(5).standard_normal((6, RANK)) * 4
PLACES = np.array([-1, 0, 1, -1, 2, 3, 4, -1, 5])
histories = st.lists(st.integers(0, ITEMS - 1), max_size=20).map(lambda items: np.array(items, np.int32))


def events() -> Interactions:
    return population(300, 400, seed=4)


@given(history=histories, recency=st.sampled_from([None, Recency()]))
def test_what_a_user_adds_to_the_map_has_norm_one_or_is_nothing(history: np.ndarray, recency: Recency | None) -> None:
    row = map_row(history, PLACES, FACTORS, recency)
    assert len(row) == RANK**2 + RANK * (RANK + 1) // 2
    assert np.linalg.norm(row) == pytest.approx(1) or not row.any()


def test_without_the_division_by_the_norm_a_user_adds_more_than_noise_hides(monkeypatch: pytest.MonkeyPatch) -> None:
    history = np.int32([1, 2, 4, 5, 6, 8])
    assert np.linalg.norm(map_row(history, PLACES, FACTORS, None)) == pytest.approx(1)
    switch_off(monkeypatch, private_mf, "map_row", "row / norm", "row")
    assert np.linalg.norm(private_mf.map_row(history, PLACES, FACTORS, None)) > 5


def test_user_factors_solve_the_ridge_regression() -> None:
    weights = np.array([0.5, 0, 0.3, 0, 0.2, 0])
    (found,) = user_factors(weights[None], FACTORS)
    stacked = np.vstack([FACTORS * np.sqrt(weights)[:, None], np.sqrt(RIDGE) * np.eye(RANK)])
    wanted = np.concatenate([np.sqrt(weights), np.zeros(RANK)])
    np.testing.assert_allclose(found, np.linalg.lstsq(stacked, wanted, rcond=None)[0])
    assert not user_factors(np.zeros((1, 6)), FACTORS).any()


def test_the_map_is_the_regression_and_noise_draws_it_to_one() -> None:
    rng = np.random.default_rng(0)
    users, true = rng.standard_normal((500, RANK)), rng.standard_normal((RANK, RANK))
    sums = np.concatenate([(users.T @ users @ true).ravel(), (users.T @ users)[np.triu_indices(RANK)]])
    np.testing.assert_allclose(solve_map(Noised(sums.copy(), 0.0, 500), RANK), true, atol=1e-5)
    np.testing.assert_allclose(solve_map(Noised(sums.copy(), 1e9, 500), RANK), np.eye(RANK), atol=1e-5)


@pytest.mark.parametrize("share", [Fraction(0), Fraction(1, 5)])
def test_the_shares_of_its_sums_are_the_whole(share: Fraction) -> None:
    asked: dict[str, tuple[int, Fraction]] = {}
    exact = exact_sums(list(events().histories()))

    def sums(purpose: str, length: int, part: Fraction, contribution: Contribution) -> Noised:
        asked[purpose] = (length, part)
        return exact(purpose, length, part, contribution)

    model = PrivateMf(Settings(rank=4), share)
    model.learn(sums, 400)
    assert sum(part for _, part in asked.values()) == 1
    assert asked.get("map") == ((16 + 10, share) if share else None)
    assert (model.map == np.eye(4)).all() == (not share)


def test_it_is_better_than_popularity() -> None:
    """On 300 made-up users without noise: .144, ItemPop .131."""
    split = leave_last_out(events(), valid=False)
    popular, model = ItemPop(), PrivateMf()
    popular.fit(split.train)
    model.fit(split.train)
    reference, found = (evaluate(one, split).mean("NDCG@10") for one in (popular, model))
    assert found > reference


def test_it_is_stored_whole() -> None:
    model = PrivateMf(Settings(items=30, rank=4), Fraction(1, 10))
    model.fit(events())
    state = model.state()
    again = PrivateMf.from_state(ModelState(dict(state.settings), dict(state.arrays)))
    assert (again.settings, again.map_share) == (model.settings, model.map_share)
    histories = [events().history(0), np.int32([])]
    np.testing.assert_allclose(again.scores(histories), model.scores(histories), rtol=1e-4, atol=1e-5)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(UsageError):
        PrivateMf(map_share=Fraction(17, 20))
    with pytest.raises(UsageError):
        PrivateMf(map_share=Fraction(-1, 20))
    with pytest.raises(UsageError, match="learn or fit"):
        PrivateMf().scores([])
