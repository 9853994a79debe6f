"""``secagg bench large``: popularity within genre, made-up items that come later, and what it measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.case import configured
from benchmarks.studies.large import DEFAULTS, Config, cold, run, transfer
from benchmarks.studies.large.data import data_of, later
from benchmarks.studies.large.genres import GenrePopularity
from benchmarks.studies.large.models import ALIKE, GENRES, MODELS, OVER_TEXT, OWN_GENRES, TOWERS
from recsys.data.interactions import Interactions
from recsys.data.items import Items
from recsys.metrics.cold import evaluate_new_items
from secagg.errors import UsageError
from tests.scenes.encoders import encoder

TINY = Config(users=300, items=200, models=f"ItemPop,{OWN_GENRES},private-ease", epsilons="8", seeds=2, silos=4)


@pytest.mark.parametrize("personal", [False, True])
def test_popularity_within_genre_is_as_defined(personal: bool) -> None:
    """Beside loops, with new items, items of two genres and items of none."""
    kinds = [["War"], ["War", "Drama"], [], ["Drama"], ["Drama", "War"], ["Horror"]]
    table = Items.of([str(number) for number in range(6)], genres=["|".join(one) for one in kinds])
    events = Interactions.of([0, 0, 0, 1, 1, 2], [0, 1, 2, 0, 3, 0], item_count=6)
    model = GenrePopularity(table, personal=personal)
    model.fit(events)
    taken = [3, 1, 1, 1, 0, 0]

    def share(item: int, genre: str) -> float:
        return (genre in kinds[item]) / len(kinds[item]) if kinds[item] else float(genre == "none")

    genres = ("War", "Drama", "Horror", "none")
    known = [item for item in range(6) if taken[item]]
    events_of = {genre: sum(share(item, genre) * taken[item] for item in known) for genre in genres}
    items_of = {genre: sum(share(item, genre) for item in known) for genre in genres}

    def likely(item: int, genre: str) -> float:
        if taken[item]:
            return taken[item]
        return events_of[genre] / items_of[genre] if items_of[genre] else 0.0

    def score(history: Sequence[int], item: int) -> float:
        total = 0.0
        for genre in genres:
            chosen = events_of[genre] / sum(events_of.values())
            if personal:
                chosen = (sum(share(one, genre) for one in history) + chosen) / (len(history) + 1)
            among = sum(share(one, genre) * likely(one, genre) for one in range(6))
            total += chosen * share(item, genre) * likely(item, genre) / among if among else 0.0
        return total

    histories = [[], [3, 4], [2, 0, 1]]
    scores = model.scores([np.array(one, np.int32) for one in histories])
    wanted = [[score(history, item) for item in range(6)] for history in histories]
    np.testing.assert_allclose(scores, wanted, rtol=1e-5)


def test_some_made_up_items_come_later() -> None:
    data = data_of(TINY, 0)
    assert (~data.split.known).sum() >= 20
    assert len(data.split.for_items.targets) > 50
    events = Interactions.of([0] * 40, list(range(20)) * 2, range(40))
    left = later(events, 20, seed=3)
    gone = set(range(20)) - set(left.items[left.times < 20].tolist())
    assert len(gone) == 2
    assert set(left.items[left.times >= 20].tolist()) == set(range(20))


def test_what_users_take_of_new_items_is_in_the_table() -> None:
    """By their own genres users are found what nobody has taken; popularity finds it by chance."""
    data = data_of(Config(users=1000, items=600), 0)
    found = {}
    for name in ("ItemPop", OWN_GENRES):
        model = MODELS[name](data.items)
        model.fit(data.split.train)
        found[name] = evaluate_new_items(model, data.split).mean("NDCG@10 among the new")
    assert found[OWN_GENRES] > 1.2 * found["ItemPop"]


def test_it_measures_items_and_users_with_and_without_noise() -> None:
    said: list[str] = []
    measured = run(TINY, said.append)
    figures, ratios = measured.figures, measured.ratios
    names = ("ItemPop", OWN_GENRES, "private-ease, without noise", "private-ease, epsilon 8")
    places = ["new items/NDCG@10", "new items/NDCG@10 among the new"]
    places += [f"new users after {told} events/NDCG@10" for told in cold.TOLD]
    for name in names:
        for place in places:
            where = f"cold/{name}/{place}"
            assert 0 <= figures[where] <= 1
            if name != "ItemPop":
                gap = figures[where] - figures[f"cold/ItemPop/{place}"]
                assert figures[f"{where}/minus ItemPop"] == pytest.approx(gap)
                assert figures[f"{where}/minus ItemPop low"] <= gap <= figures[f"{where}/minus ItemPop high"]
    assert len({figures[f"cold/ItemPop/new users after {told} events/NDCG@10"] for told in cold.TOLD}) == 1
    where = f"private-ease, epsilon 8/{places[-1]}"
    assert figures[f"cold/{where}/low"] < figures[f"cold/{where}"] < figures[f"cold/{where}/high"]
    ratio = figures[f"cold/{where}"] / figures[f"cold/ItemPop/{places[-1]}"]
    assert ratios[f"cold/{where} vs ItemPop"] == pytest.approx(ratio)
    assert 7 < figures["cold/private-ease, epsilon 8/epsilon charged"] <= 8
    assert "cold/private-ease, without noise/epsilon charged" not in figures
    assert f"cold/{names[2]}/{places[-1]}/low" not in figures  # the same for all seeds
    assert sum("ItemPop" in line for line in said) == 1


def test_without_an_encoder_models_over_texts_are_left_out_and_that_is_said() -> None:
    said: list[str] = []
    config = replace(TINY, models=",".join(("ItemPop", *OVER_TEXT)))
    figures = run(config, said.append).figures
    assert {name.split("/")[1] for name in figures} == {"ItemPop"}
    assert any("LEFT OUT" in line and TOWERS in line for line in said)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("transformers", reason="NOT TESTED: encoders need transformers, pip install 'secagg[large]'")
    for name in ("CACHE", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name))
    return tmp_path


@pytest.fixture
def tiny_encoder(home: Path) -> str:
    return str(encoder(home / "encoder"))


def test_what_texts_say_stands_beside_popularity(tiny_encoder: str) -> None:
    said: list[str] = []
    measured = run(replace(TINY, users=100, models=f"ItemPop,{ALIKE}", encoder=tiny_encoder), said.append)
    place = "new items/NDCG@10 among the new"
    assert 0 < measured.figures[f"cold/{ALIKE}/{place}"] < 1
    assert f"cold/{ALIKE}/{place} vs ItemPop" in measured.ratios
    assert not any("cold_items" in name for name in measured.ratios)  # two towers were not measured
    assert any("made-up" in line for line in said)


@pytest.mark.long
def test_models_over_texts_stand_beside_popularity_within_genre(tiny_encoder: str) -> None:
    names = ",".join(("ItemPop", GENRES, TOWERS, "private-ease with texts"))
    measured = run(replace(TINY, models=names, encoder=tiny_encoder), lambda line: None)
    place = "new items/NDCG@10 among the new"
    by_genre, ratios = measured.figures[f"cold/{GENRES}/{place}"], measured.ratios
    assert ratios["cold/cold_items_vs_genre"] == pytest.approx(measured.figures[f"cold/{TOWERS}/{place}"] / by_genre)
    assert "cold/cold_items_vs_own_genres" not in ratios  # which was not measured
    assert 7 < measured.figures["cold/private-ease with texts, epsilon 8/epsilon charged"] <= 8


def test_a_model_over_texts_learns_nothing_of_items_that_come_later() -> None:
    """Whatever their texts say: it is trained as if they were not there."""
    pytest.importorskip("torch", reason="NOT TESTED: models over texts need torch, pip install 'secagg[train]'")
    from benchmarks.studies.large.texts import ByText
    from recsys.models.over_text import TwoTower
    from recsys.models.recommender import Local
    from recsys.text.coordinates import Coordinates
    from recsys.text.vectors import ItemVectors

    rng = np.random.default_rng(0)
    rows = rng.standard_normal((8, 4), np.float32)
    users, items = np.repeat(np.arange(5), 4), rng.permuted(np.tile([0, 2, 3, 5, 7], (5, 1)), axis=1)[:, :4].ravel()
    train = Interactions.of(users, items, item_count=8)
    found = []
    for others in (rows, rng.permutation(rows)):
        said = np.where(np.isin(np.arange(8), items)[:, None], rows, others)
        local = Local(epochs=1, batch=2, rate=0.01)
        model = ByText(
            ItemVectors(said, "an encoder"),
            lambda some, local=local: TwoTower(Coordinates.of(some, 3), 4, recent=3, negatives=5, central=local),
        )
        model.fit(train, seed=1)
        found.append(model)
    one, other = (model.scores([np.array([3, 5], np.int32), np.array([7], np.int32)]) for model in found)
    known = np.unique(items)
    np.testing.assert_allclose(one[:, known], other[:, known], rtol=1e-5)
    assert np.abs(one - other).max() > 1e-3
    plain = ItemVectors(rows[known], "an encoder")
    alone = TwoTower(Coordinates.of(plain, 3), 4, recent=3, negatives=5, central=Local(epochs=1, batch=2, rate=0.01))
    alone.fit(Interactions.of(users, np.searchsorted(known, items), item_count=len(known)), seed=1)
    asked = [np.searchsorted(known, [3, 5]).astype(np.int32), np.searchsorted(known, [7]).astype(np.int32)]
    np.testing.assert_allclose(one[:, known], alone.scores(asked), rtol=1e-5)


def test_halves_of_the_genres_share_nothing() -> None:
    rng = np.random.default_rng(0)
    names = np.array(["War", "Drama", "Horror", "Comedy", "Crime"])
    kinds = ["|".join(names[rng.random(5) < 0.3]) for _ in range(60)]
    table = Items.of([str(number) for number in range(60)], genres=kinds)
    users = rng.integers(0, 25, 700)
    events = Interactions.of(users, rng.integers(0, 60, 700), rng.permutation(700), item_count=60)
    found = []
    for seed in range(4):
        halves = transfer.divided(events, table, seed)
        of = {
            name: {kind for item in np.unique(part.items) for kind in table.genres[item]}
            for name, part in (("first", halves.train), ("history", halves.history), ("targets", halves.targets))
        }
        assert not of["first"] & (of["history"] | of["targets"])
        assert all(table.genres[item] for item in halves.train.items)  # one without genres is of no half
        for item in range(60):
            assert halves.second[item] == (bool(table.genres[item]) and not of["first"] & {*table.genres[item]})
        for user in range(events.user_count):
            there = [item for item in events.history(user) if halves.second[item]]
            told, rest = there[: 4 * len(there) // 5], there[4 * len(there) // 5 :]
            enough = len(there) >= transfer.LEAST
            assert halves.history.history(user).tolist() == (told if enough else [])
            assert halves.targets.history(user).tolist() == ([one for one in rest if one not in told] if enough else [])
        found.append(tuple(halves.second))
    assert len({*found}) > 1


def test_there_are_no_halves_of_one_genre() -> None:
    with pytest.raises(UsageError, match="fewer than two genres"):
        transfer.divided(Interactions.of([0], [0]), Items.of(["0"], genres=["War"]), 0)
    with pytest.raises(UsageError, match="too few events"):
        transfer.divided(Interactions.of([0], [0]), Items.of(["0"], genres=["War|Drama"]), 0)


def test_an_encoder_that_was_tuned_on_some_genres_is_measured_on_the_others(home: Path) -> None:
    said: list[str] = []
    small = Config(parts="transfer", users=60, items=80, tokens=8, passes=1, seeds=2)
    figures, ratios = (found := run(small, said.append)).figures, found.ratios
    ways = [figures[f"transfer/{way}/NDCG@10"] for way in ("tuned", "frozen", "cosine", "chance")]
    assert len({*ways}) == 4
    assert all(0 < one < 1 for one in ways)
    gap = "transfer/tuned minus frozen"
    assert figures[gap] == pytest.approx(ways[0] - ways[1])
    assert figures[f"{gap}/low"] < figures[gap] < figures[f"{gap}/high"]
    assert figures[f"{gap}/over users low"] <= figures[f"{gap}/over users high"]
    assert ratios["transfer/tuned vs frozen"] == pytest.approx(ways[0] / ways[1])
    assert len(said) == 9


@pytest.mark.long
def test_it_measures_adapters_beside_the_frozen_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers", reason="NOT TESTED: adapters need transformers, pip install 'secagg[large]'")
    for name in ("CACHE", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name))
    tiny = Config(parts="adapters", users=120, items=80, epsilons="8", seeds=2, silos=3, tokens=6, repeats=1)
    measured = run(tiny, lambda line: None)
    figures, ratios = measured.figures, measured.ratios
    ways = ("frozen", "central", "federated", "federated, epsilon 8", "frozen, epsilon 8")
    assert all(0 < figures[f"adapters/{way}"] < 1 for way in ways)
    assert len({figures[f"adapters/{way}"] for way in ways}) == len(ways)
    assert ratios["adapters/ffa_vs_central"] == figures["adapters/federated"] / figures["adapters/central"]
    seconds = figures["adapters/training, s"], figures["adapters/secagg+, s"]
    assert min(seconds) > 0
    assert ratios["adapters/adapter_overhead"] == seconds[1] / seconds[0]


@pytest.mark.parametrize(
    "wrong",
    [
        "parts=warm", "data=table", "data=movielens", "path=here", "habits=mine", "models=Best", "models=private-ease",
        "models=ItemPop,ItemPop", "seeds=1", "silos=1", "passes=0", "tokens=0",
        "epsilons=0", "epsilons=8,8", "epsilons=x", "moment=soon", "repeats=0",
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused(wrong: str) -> None:
    with pytest.raises(UsageError):
        configured(DEFAULTS, [wrong])


def test_how_many_users_there_are_is_no_public_number() -> None:
    with pytest.raises(UsageError, match="n_min"):
        Config(data="movielens", path="here")
    assert Config(data="movielens", path="here", models="ItemPop").names == ["ItemPop"]
