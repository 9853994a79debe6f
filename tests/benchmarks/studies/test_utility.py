"""``secagg bench utility``: its cells, what is kept of them, and that a grid goes on where it was stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.case import configured
from benchmarks.studies.utility import Config, best, cells, cells_of, noiseless, private, reference, run
from benchmarks.studies.utility import _data_of as data_of_grid
from benchmarks.studies.utility.cells import Cell, Kind, Outcome, kept, of_sums
from benchmarks.studies.utility.charged import Charged, ledger_of, spent
from benchmarks.studies.utility.divided import AMONG, STRONG, WEAK, Weak
from benchmarks.studies.utility.presets import PRESETS
from benchmarks.studies.utility.recipes import RECIPES
from benchmarks.studies.utility.rows import BEST_OF_ALL, GAIN
from dp.ledger import Ledger
from recsys.aggregator import Request, Result, Update
from recsys.assembly import Prepared, prepare
from recsys.budgets import DistributedNoise
from recsys.config import ClientKind, Data
from recsys.models.autoencoder import Autoencoder
from recsys.models.mf import MatrixFactorisation
from recsys.models.recommender import Local
from secagg.cli import main
from secagg.cli.demo import CONFIGS as demo_configs
from secagg.errors import BudgetError, StorageError, UsageError
from tests.controls import switch_off

SECRET = bytes(32)
TINY = Config(users=40, items=200, models="private-ease", epsilons="8", seeds=2, workers=1, silos=8)
REFERENCES = ("ItemPop", "ItemKNN", "EASE", "tuned EASE")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, dict[str, float], dict[str, float], list[str]]:
    config, said = replace(TINY, out=str(tmp_path_factory.mktemp("grid") / "here")), list[str]()
    measured = run(config, said.append)
    return config, dict(measured.figures), dict(measured.ratios), said


Finished = tuple[Config, dict[str, float], dict[str, float], list[str]]


def test_a_grid_has_each_model_with_and_without_privacy_beside_the_references(finished: Finished) -> None:
    _, figures, ratios, said = finished
    for place in (*(f"{name}/none" for name in REFERENCES), "private-ease/8 without noise", "private-ease/8"):
        assert figures[place] == figures[f"{place}/NDCG@10"]
        for name in (*WEAK, *AMONG):
            assert figures[f"{place}/{name} low"] <= figures[f"{place}/{name}"] <= figures[f"{place}/{name} high"]
    assert 7 < figures["private-ease/8/epsilon charged"] <= 8
    assert figures["private-ease/8/epsilon verified"] == pytest.approx(figures["private-ease/8/epsilon charged"])
    others = ("ItemPop", "tuned EASE", Kind.NOISELESS, BEST_OF_ALL)
    assert {f"private-ease/8 vs {other}" for other in others} <= set(ratios)
    gap = figures["private-ease/8/NDCG@10"] - figures["ItemPop/none/NDCG@10"]
    assert figures["private-ease/8/minus ItemPop"] == pytest.approx(gap)
    gains = [figures[f"private-ease/{way}"] - figures["ItemPop/none"] for way in ("8", "8 without noise")]
    gains_surely = figures["private-ease/8 without noise/minus ItemPop low"] > 0
    assert ratios.get(f"private-ease/8/{GAIN}") == (pytest.approx(gains[0] / gains[1]) if gains_surely else None)
    assert said[0] == "7 cells, of which 0 are there already"
    assert sum("left, about" in line for line in said) == 7


def test_what_is_written(finished: Finished) -> None:
    folder = Path(finished[0].out)
    assert (folder / "plot.png").read_bytes().startswith(b"\x89PNG")
    lines = (folder / "table.md").read_text().splitlines()
    assert [line.split(" | ")[:2] for line in lines[2:8]] == [
        *([f"| {name}", "none"] for name in REFERENCES),
        ["| private-ease", "8"],
        ["| private-ease, its recipe without noise", "none"],
    ]
    outcomes = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert len(outcomes) == len({one["key"] for one in outcomes}) == 7
    assert {path.stem for path in (folder / "users").iterdir()} == {one["key"] for one in outcomes}


def test_a_stopped_grid_goes_on(finished: Finished, tmp_path: Path) -> None:
    """Half of the cells and a torn line: only the other half is measured, and the end is the same."""
    config, figures, ratios, _ = finished
    lines = (Path(config.out) / "results.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "users").mkdir()
    for path in (Path(config.out) / "users").iterdir():
        (tmp_path / "users" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "results.jsonl").write_bytes(b"".join(lines[:3]) + lines[3][:50])
    said = list[str]()
    again = run(replace(config, out=str(tmp_path)), said.append)
    assert said[0] == "7 cells, of which 3 are there already"
    # Half of it was trained again: to nearly the same models, by which a few of the users may be ranked otherwise.
    assert again.figures == pytest.approx(figures, abs=0.05)
    assert again.ratios.keys() == ratios.keys()
    assert len((tmp_path / "results.jsonl").read_bytes().splitlines()) == 7
    said.clear()
    run(replace(config, out=str(tmp_path)), said.append)
    assert said[0] == "7 cells, of which 7 are there already"


def key(cell: Cell, mark: str = "data") -> str:
    return cell.key(mark)


def test_a_changed_grid_has_other_cells() -> None:
    assert key(reference(TINY, "EASE")) != key(reference(TINY, "tuned EASE"))
    found = {
        key(private(changed, name, epsilon, seed), mark)
        for changed in (TINY, replace(TINY, users=41), replace(TINY, data_seed=2), replace(TINY, n_min=300))
        for name in ("private-ease", "mf")
        for epsilon in (1.0, 2.0)
        for seed in (0, 1)
        for mark in ("data", "other data")
    }
    assert len(found) == 4 * 2 * 2 * 2 * 2
    for changes in ({"corrupt": "0.2"}, {"protocol": "secagg+"}):
        both = (TINY, replace(TINY, **changes))
        assert len({key(private(one, "mf", 1.0, 0)) for one in both}) == 2
        assert len({key(noiseless(one, "mf", 1.0, 0)) for one in both}) == 1  # what noise is for has no part in it
        assert len({key(best(one, "mf", 0)) for one in both}) == 1
    for changes in ({"silos": 4}, {"clients": "devices"}):
        assert len({key(private(one, "mf", 1.0, 0)) for one in (TINY, replace(TINY, **changes))}) == 2
        assert len({key(best(one, "mf", 0)) for one in (TINY, replace(TINY, **changes))}) == 1
    strongly = replace(TINY, users=300, generalisation="strong")
    for made in (lambda one: reference(one, "EASE"), lambda one: best(one, "mf", 0)):
        assert key(made(strongly)) != key(made(replace(TINY, users=300)))


def test_each_kind_of_training_is_a_cell_of_its_own() -> None:
    ways = [private(TINY, "mf", 8.0, 0), noiseless(TINY, "mf", 8.0, 0), best(TINY, "mf", 0), best(TINY, "mf", 1)]
    assert len({key(one) for one in ways}) == 4
    assert {key(noiseless(TINY, "mf", epsilon, 0)) for epsilon in (8.0, 1.0)} == {key(ways[1])}  # one recipe
    sums = [key(noiseless(TINY, "private-ease", epsilon, seed)) for epsilon in (8.0, 1.0) for seed in (0, 1)]
    assert len(set(sums)) == 1  # without noise a model of sums has no seeds, and one recipe


def test_the_recipe_without_noise_is_the_recipe_of_that_epsilon() -> None:
    """The autoencoder's is another from epsilon 5 on."""
    for seed in (0, 1):
        found = {epsilon: noiseless(TINY, "autoencoder", epsilon, seed) for epsilon in (8.0, 3.0, 1.0)}
        assert len({key(cell) for cell in found.values()}) == 3
        for epsilon, cell in found.items():
            own = private(TINY, "autoencoder", epsilon, seed).config
            assert (cell.config.training, cell.config.model, cell.config.clients) == (
                own.training,
                own.model,
                own.clients,
            )
            assert cell.kind is Kind.NOISELESS
    assert private(TINY, "autoencoder", 8.0, 0).config.training.server_rate == 20
    assert best(TINY, "autoencoder", 0).config.model.settings != RECIPES["autoencoder"].at(8).settings


@pytest.mark.parametrize("kind", [Autoencoder, MatrixFactorisation])
def test_another_seed_is_another_best_training(kind: type[Autoencoder] | type[MatrixFactorisation]) -> None:
    assert [best(TINY, "mf", seed).config.seed for seed in (0, 1)] == [0, 1]
    vectors = []
    for seed in (0, 1):
        model = kind(width=4, central=Local(epochs=1, batch=64, rate=0.01))
        model.fit(best(TINY, "mf", seed).divided().training.train, seed=seed)
        vectors.append(model.vector)
    assert np.abs(vectors[0] - vectors[1]).max() > 0.01


def test_without_noise_means_the_same_steps_and_no_noise() -> None:
    """The same clipped steps of users alone: with hardly any noise the model is hardly another."""

    def vector(cell: Cell) -> np.ndarray:
        prepared = prepare(cell.config)
        short = replace(prepared, config=replace(prepared.config, training=replace(prepared.config.training, rounds=2)))
        model, cost = of_sums(short, cell.kind, ideal=True)
        assert (cost.charged > 0) == (cell.kind is Kind.PRIVATE)
        return np.asarray(model.vector)  # type: ignore[attr-defined]

    exact = vector(noiseless(TINY, "mf", 8.0, 0))
    hardly, much = (np.abs(vector(private(TINY, "mf", one, 0)) - exact).mean() for one in (50.0, 0.5))
    assert hardly < much / 10


def test_the_order_of_tied_events_is_another_for_each_seed() -> None:
    """Of a made-up population there is one order: no two events of a user are of one time. Where users are held out the
    draw is one for all seeds."""
    films = replace(TINY, data="movielens", path="films", seeds=3, n_min=300)
    assert [private(films, "mf", 1.0, seed).config.data.order for seed in range(3)] == [1, 2, 3]
    assert {private(TINY, "mf", 1.0, seed).config.data.order for seed in range(2)} == {0}
    strongly = replace(films, generalisation="strong")
    assert {private(strongly, "mf", 1.0, seed).config.data.order for seed in range(3)} == {0}
    assert private(strongly, "mf", 1.0, 0).config.privacy.n_min == 240  # two tenths are held out


def filled(config: Config, folder: Path, score: Callable[[Cell], float]) -> dict[str, float]:
    """A grid in which each cell came to a made-up score of all its users, without any training."""
    with kept(folder) as store:
        data = data_of_grid(config, 0)
        metrics = STRONG if config.strong else WEAK
        for _, one in cells_of(config, data):
            name = one.key(data.mark)
            lines = "".join(f"{user},{score(one)}\n" for user in range(9))
            (folder / "users" / f"{name}.csv").write_text(f"user,{metrics[0]}\n{lines}")
            found = dict.fromkeys((*metrics, *(() if config.strong else AMONG)), score(one))
            epsilon = one.config.privacy.epsilon if one.kind is Kind.PRIVATE else 0.0
            store.add(Outcome(name, "made up", "now", 1.0, epsilon, found, one.config.plain(), epsilon, one.kind))
    said = list[str]()
    figures = run(replace(config, out=str(folder)), said.append)
    assert said[0].endswith(f"of which {said[0].split()[0]} are there already")
    return dict(figures.figures) | dict(figures.ratios)


def made_up(cell: Cell) -> float:
    """ItemPop .1, other references .2; the best training .4; the recipe without noise .3, of low budgets .25, and with
    noise half of what that gains."""
    if cell.kind is Kind.REFERENCE:
        return 0.1 if cell.config.model.name == "ItemPop" else 0.2
    if cell.kind is Kind.BEST:
        return 0.4
    exact = 0.3 if cell.config.privacy.epsilon > 5 else 0.25
    return exact if cell.kind is Kind.NOISELESS else (0.1 + exact) / 2


@pytest.mark.parametrize("generalisation", ["weak", "strong"])
def test_each_private_model_stands_beside_its_recipe_its_best_and_the_best_of_all(
    generalisation: str, tmp_path: Path
) -> None:
    config = replace(TINY, users=300, models="autoencoder", epsilons="8,3,1", generalisation=generalisation)
    found = filled(config, tmp_path, made_up)
    prefix = "strong/" if config.strong else ""
    for epsilon, exact in ((8, 0.3), (3, 0.25), (1, 0.25)):
        place = f"{prefix}autoencoder/{epsilon}"
        own = (0.1 + exact) / 2
        assert found[place] == pytest.approx(own)
        assert found[f"{place} without noise"] == pytest.approx(exact)
        assert found[f"{place}/minus ItemPop"] == pytest.approx(own - 0.1)
        assert found[f"{place}/minus {Kind.NOISELESS}"] == pytest.approx(own - exact)
        assert found[f"{place}/minus {Kind.BEST}"] == pytest.approx(own - 0.4)
        assert found[f"{place}/minus {BEST_OF_ALL}"] == pytest.approx(own - 0.4)
        assert found[f"{place} vs {BEST_OF_ALL}"] == pytest.approx(own / 0.4)
        assert found[f"{place}/{GAIN}"] == pytest.approx(0.5)
    assert found[f"{prefix}autoencoder/none"] == pytest.approx(0.4)
    text = (tmp_path / "table.md").read_text()
    titles = [
        "its best training without privacy",
        *(f"its recipe of epsilon {one} without noise" for one in (8, 3, 1)),
    ]
    for title in titles:
        assert f"| autoencoder, {title} | none |" in text
    assert "by this test: autoencoder, its best training without privacy." in text


@pytest.mark.long
def test_a_grid_of_users_held_out_as_a_whole(tmp_path: Path) -> None:
    """From the split to the table, with a model of sums."""
    config = replace(TINY, users=200, generalisation="strong", out=str(tmp_path))
    measured = run(config, lambda line: None)
    for name in STRONG:
        assert 0 < measured.figures[f"strong/private-ease/8/{name}"] <= 1
    assert measured.figures["strong/tuned EASE/none"] > measured.figures["strong/ItemPop/none"]
    assert 7 < measured.figures["strong/private-ease/8/epsilon verified"] <= 8
    (users, *_) = (tmp_path / "users").iterdir()
    assert len(users.read_text().splitlines()) == 21  # a tenth of the users


def test_presets_are_what_is_said_but_for_what_is_said_otherwise() -> None:
    demo = configured(Config(), ["preset=cal4k"])
    silos = demo_configs[ClientKind.SILOS]
    assert {"users": demo.users, "item_count": demo.items} == silos["data"]
    ours = RECIPES["autoencoder"].at(8)
    assert {name: ours.training[name] for name in silos["training"]} == silos["training"]
    assert {name: ours.settings[name] for name in silos["model"]["settings"]} == silos["model"]["settings"]
    assert (demo.data_seed, demo.silos) == (Data().seed, silos["clients"]["count"])
    films = configured(Config(), ["preset=ml-small", "path=somewhere", "seeds=4"])
    assert (films.data, films.path, films.seeds, films.n_min) == ("movielens", "somewhere", 4, 600)
    for name in PRESETS:
        path = ["path=somewhere"] if name.startswith("ml-") else []
        found = configured(Config(), [f"preset={name}", *path])
        assert found.seeds >= 3
        large = name in ("syn20k", "cal20k", "ml-10m", "ml-20m")
        others = [] if large else ["private-mf", "mf"]
        rounds = [] if name in ("ml-10m", "ml-20m") else ["autoencoder"]
        assert set(found.names) == {"private-ease", *rounds, *others}
        assert found.protocol == ("ideal" if large else "secagg+")
        assert found.habits == ("first" if name in ("syn4k", "syn20k") else "calibrated")


def test_figures_of_a_preset_bear_its_name(tmp_path: Path) -> None:
    """And go through the protocol, with noise for one colluding silo."""
    said = list[str]()
    measured = run(replace(TINY, preset="syn4k", protocol="secagg+", out=str(tmp_path / "here")), said.append)
    place = "syn4k/private-ease/8"
    assert {place, f"{place}/minus ItemPop", f"{place}/minus ItemPop low"} <= set(measured.figures)
    assert 7 < measured.figures[f"{place}/epsilon verified"] <= 8


def test_the_mark_is_that_of_the_split() -> None:
    one = reference(TINY, "ItemPop").divided()
    assert isinstance(one, Weak)
    assert one.mark() == reference(TINY, "EASE").divided().mark()
    assert one.mark() != Weak(replace(one.split, test=one.split.valid, valid=one.split.test)).mark()


def test_the_folder_does_not_matter_to_the_key() -> None:
    one, other = (reference(Config(data="movielens", path=path, n_min=600), "ItemPop") for path in ("here", "there"))
    assert key(one) == key(other)


def test_seeds_differ_and_repeat() -> None:
    config = replace(TINY, models="mf")

    def vector(seed: int) -> list[float]:
        prepared = prepare(private(config, "mf", 8.0, seed).config)
        short = replace(prepared, config=replace(prepared.config, training=replace(prepared.config.training, rounds=1)))
        model, _ = of_sums(short, Kind.PRIVATE, ideal=True)
        return np.asarray(model.vector).tolist()  # type: ignore[attr-defined]

    first = vector(0)
    assert vector(0) == pytest.approx(first, rel=1e-3, abs=1e-4)
    assert vector(1) != pytest.approx(first, rel=1e-2, abs=1e-3)


class Nothing:
    """Adds up nothing, at once."""

    def aggregate(self, request: Request, update: Update) -> Result:
        return Result(np.zeros(request.encoding.length), 0, request.cohort, {}, 0, 0, {})


def prepared_mf() -> tuple[Prepared, DistributedNoise, Request]:
    prepared = prepare(private(replace(TINY, models="mf"), "mf", 3.0, 0).config)
    assert prepared.distributed is not None
    noise = prepared.noise(prepared.planned_clients)
    asked = Request(0, "training", prepared.client_data.names, prepared.encoding, noise)
    return prepared, prepared.distributed, asked


def test_a_budget_pays_for_the_rounds_it_was_made_for_and_no_more() -> None:
    prepared, privacy, asked = prepared_mf()
    with ledger_of(privacy, SECRET) as ledger:
        aggregator = Charged(Nothing(), ledger)
        for number in range(prepared.config.training.rounds):
            aggregator.aggregate(replace(asked, number=number), lambda name: np.zeros(0))
        with pytest.raises(BudgetError):
            aggregator.aggregate(replace(asked, number=99), lambda name: np.zeros(0))
        with pytest.raises(UsageError, match="without noise"):
            aggregator.aggregate(replace(asked, number=100, noise=None), lambda name: np.zeros(0))
        found = spent(ledger, SECRET)
    assert 2.8 < found.charged <= 3
    assert found.verified == pytest.approx(found.charged, abs=1e-6)


def test_without_the_charge_a_run_goes_over_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: what the last test refuses happens."""
    charge = "self._ledger.charge(event, samples=noise.samples(clients, encoding.coordinates))"
    switch_off(monkeypatch, Charged, "aggregate", charge)
    prepared, privacy, asked = prepared_mf()
    with ledger_of(privacy, SECRET) as ledger:
        aggregator = Charged(Nothing(), ledger)
        for number in range(3 * prepared.config.training.rounds):
            aggregator.aggregate(replace(asked, number=number), lambda name: np.zeros(0))


def test_a_ledger_that_the_script_reads_otherwise_ends_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    _, privacy, asked = prepared_mf()
    with ledger_of(privacy, SECRET) as ledger:
        Charged(Nothing(), ledger).aggregate(asked, lambda name: np.zeros(0))
        with pytest.raises(StorageError, match=r"the script: .*key"):
            spent(ledger, bytes(31) + b"x")
        monkeypatch.setattr(Ledger, "epsilon", 0.5)
        with pytest.raises(StorageError, match=r"the ledger says 0\.500000, and the script"):
            spent(ledger, SECRET)


# The folder

OUTCOME = Outcome("k", "title", "commit", 1.0, 0.0, {WEAK[0]: 0.5}, {"model": {"name": "mf"}})


def test_a_finished_cell_is_read_back(tmp_path: Path) -> None:
    with kept(tmp_path) as store:
        store.add(OUTCOME)
    with kept(tmp_path) as store:
        assert store.found == {"k": OUTCOME}
        store.add(replace(OUTCOME, key="other"))
    with kept(tmp_path) as store:
        assert list(store.found) == ["k", "other"]


def test_a_torn_line_is_no_cell_and_makes_room(tmp_path: Path) -> None:
    with kept(tmp_path) as store:
        store.add(OUTCOME)
    with (tmp_path / "results.jsonl").open("ab") as file:
        file.write(b'{"key": "torn"')
    with kept(tmp_path) as store:
        assert list(store.found) == ["k"]
        store.add(replace(OUTCOME, key="next"))
    with kept(tmp_path) as store:
        assert list(store.found) == ["k", "next"]


@pytest.mark.parametrize("line", [b"[]\n", b"{}\n", b"torn\n", b"\xff\n"])
def test_a_damaged_line_is_named(line: bytes, tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_bytes(line)
    with pytest.raises(StorageError, match="line 1"), kept(tmp_path):
        pass


def test_one_benchmark_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with kept(tmp_path):
        with pytest.raises(UsageError, match="another benchmark"), kept(tmp_path):
            pass
        switch_off(monkeypatch, cells, "_lock", "fcntl.LOCK_EX", "fcntl.LOCK_UN")
        with kept(tmp_path):
            pass


def test_a_cell_without_its_users_is_damage(finished: Finished) -> None:
    with kept(Path(finished[0].out)) as store, pytest.raises(StorageError, match="nobody"):
        store.evaluation("nobody", WEAK[0])


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot use"), kept(tmp_path / "file"):
        pass


# The command


@pytest.mark.parametrize(
    "setting",
    [
        "data=movielens",
        "data=netflix",
        "path=somewhere",
        "models=mf,magic",
        "seeds=1",
        "workers=0",
        "epsilons=8,none",
        "epsilons=0",
        "epsilons=8,8.0",
        "preset=ml-small",
        "preset=netflix",
        "clients=everybody",
        "silos=1",
        "protocol=none",
        "generalisation=none",
    ],
)
def test_wrong_settings_are_one_line(setting: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "utility", "--set", setting]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("secagg: ")
    assert len(captured.err.splitlines()) == 1


@pytest.mark.parametrize("settings", [("data=movielens", "path=nowhere", "clients=devices"), ("epsilons=inf",)])
def test_what_only_the_data_or_a_cell_can_refuse_leaves_nothing_behind(
    settings: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    changes = [*settings, f"out={out}", *(() if "path=nowhere" in settings else ("users=60", "items=100"))]
    assert main(["bench", "utility", *(word for change in changes for word in ("--set", change))]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not out.exists()


def test_quick_is_for_cases_that_have_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "dp", "--quick"]) == 2
    assert "no quick version of 'dp'" in capsys.readouterr().err


@pytest.mark.long
def test_the_quick_grid_on_two_workers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--quick", "--set", f"out={tmp_path}", "--set", "models=private-ease,mf", "--json"]
    assert main(["bench", "utility", *arguments]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(report) == {"case", "config", "machine", "commit", "figures", "ratios"}
    assert report["figures"]["mf/8/epsilon charged"] <= 8


def test_a_recipe_that_gains_nothing_has_no_share_of_it_left(tmp_path: Path) -> None:
    config = replace(TINY, users=300, models="autoencoder", epsilons="8")
    found = filled(config, tmp_path, lambda cell: 0.1 if cell.kind is Kind.NOISELESS else made_up(cell))
    assert found["autoencoder/8/minus ItemPop"] == pytest.approx(0.1)
    assert f"autoencoder/8/{GAIN}" not in found
    lines = (tmp_path / "table.md").read_text().splitlines()
    [row] = [line for line in lines if line.startswith("| autoencoder | 8 |")]
    assert row.endswith(" |  |")
